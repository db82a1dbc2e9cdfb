"""Many devices in one process, with the project's own Initiator: all attach as soon as they can, and try again.

Each has a socket of its own. Behind a NAT they have one address and a port each, and charon sees that there is one;
otherwise each has an address of its own. A device sends a request again after 1 s, then after twice that, and
begins anew when an attempt has failed. It takes the gateway's certificate as judged once AUTH has verified, for the
judgement would take time at the device, not at the gateway.
"""

import heapq
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from segw_agent.tracer import NON_ESP_MARKER
from tests.interop.strongswan.world import Identity
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.events import Address, CertificateToJudge, Established, Event, Failed, Path, Trusted
from voice_dpki.ikev2.identity import fqdn
from voice_dpki.ikev2.initiator import Initiator
from voice_dpki.ikev2.message import Message
from voice_dpki.ikev2.sa import Party, Settings

RANDOM = SystemRandom()
SETTINGS = Settings()
BEHIND_NAT = Address("192.168.1.2", 500)
"""What a device behind the NAT takes for its own address."""

MAX_BYTES = 65_535
PAUSE_S = 2.0
"""How long a device waits after a failed attempt."""

LOOK_S = 0.1
"""How often a condition is looked at."""

MADE_AT_ONCE = 8
"""Devices that begin before answers are read again."""


@dataclass(slots=True)
class Device:
    """A device, its socket, and its present attempt."""

    identity: Identity
    party: Party
    socket: socket.socket
    local: Address
    initiator: Initiator | None = None
    began_s: float = 0.0
    attached_s: float | None = None


@dataclass
class Storm:
    """What became of the devices: how long each took, failed attempts by code, datagrams by kind."""

    took_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    lasted_s: float = 0.0


class Farm:
    """All devices; `sockets` are theirs, one each, bound."""

    def __init__(
        self, identities: Sequence[Identity], sockets: Sequence[socket.socket], gateway: str, *, nat: bool
    ):
        self._selector = selectors.DefaultSelector()
        self._gateway, self._marked_gateway = Address(gateway, 500), Address(gateway, 4500)
        self._nat = nat
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.devices = [self._device(*each) for each in zip(identities, sockets, strict=True)]
        self.storm = Storm()

    def _device(self, identity: Identity, sock: socket.socket) -> Device:
        sock.setblocking(False)
        local = BEHIND_NAT if self._nat else Address(*sock.getsockname()[:2])
        device = Device(identity, Party(identity.certificate, fqdn(identity.name), identity.key), sock, local)
        self._selector.register(sock, selectors.EVENT_READ, device)
        return device

    def close(self) -> None:
        """Close all sockets."""
        self._selector.close()
        for device in self.devices:
            device.socket.close()

    def attach_all(self, deadline_s: float) -> Storm:
        """Have all devices attach, each for the first time since it lost its power."""
        self.storm, self._due = Storm(), []
        began_s = time.monotonic()
        waiting = iter(self.devices)
        left = True
        while len(self.storm.took_s) < len(self.devices) and time.monotonic() < began_s + deadline_s:
            for _ in range(MADE_AT_ONCE if left else 0):
                device = next(waiting, None)
                left = device is not None
                if device is not None:
                    device.began_s = began_s
                    self._begin(device)
            self._turn(block=not left)
        self.storm.lasted_s = time.monotonic() - began_s
        return self.storm

    def serve(self, until: Callable[[], bool], deadline_s: float) -> None:
        """Answer the gateway until a condition holds. Charon is asked for it seldom, as that takes its time."""
        end_s = time.monotonic() + deadline_s
        while not until() and time.monotonic() < end_s:
            next_s = time.monotonic() + LOOK_S
            while time.monotonic() < next_s:
                self._turn(block=True)

    def _turn(self, *, block: bool) -> None:
        now_s = time.monotonic()
        soonest_s = self._due[0][0] if self._due else now_s + 0.05
        for key, _ in self._selector.select(max(0.0, min(soonest_s - now_s, 0.05)) if block else 0):
            self._receive(key.data)
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()

    def _begin(self, device: Device) -> None:
        path = Path(device.local, self._gateway)
        marked = Path(device.local, self._marked_gateway, marked=True)
        device.initiator = Initiator(
            device.party, SETTINGS, RANDOM, path, marked_path=marked if self._nat else None, initial_contact=True
        )
        device.attached_s = None
        device.initiator.start(time.monotonic())
        self._pump(device)

    def _receive(self, device: Device) -> None:
        try:
            data, source = device.socket.recvfrom(MAX_BYTES)
        except OSError:  # refused: charon is not there yet, and the retransmission comes
            return
        marked = source[1] == self._marked_gateway.port
        if device.initiator is None or (marked and not data.startswith(NON_ESP_MARKER)):
            return
        try:
            message = Message.parse(data[len(NON_ESP_MARKER) * marked :])
        except MalformedError:
            return
        if message.header.spi_i != device.initiator.name.spi_i:
            return  # of an attempt that was given up
        gateway = self._marked_gateway if marked else self._gateway
        device.initiator.receive(message, Path(device.local, gateway, marked), time.monotonic())
        self._pump(device)

    def _pump(self, device: Device) -> None:
        initiator = device.initiator
        assert initiator is not None
        self._send(device, initiator)
        while events := initiator.take_events():
            for event in events:
                self._handle(device, initiator, event)
        self._send(device, initiator)
        due_s = initiator.timer_s()
        if due_s is not None and device.attached_s is None:
            self._later(due_s, lambda: self._timer(device, initiator))

    def _handle(self, device: Device, initiator: Initiator, event: Event) -> None:
        match event:
            case CertificateToJudge():
                initiator.judge(Trusted(), time.monotonic())
            case Established():
                device.attached_s = time.monotonic()
                self.storm.took_s.append(device.attached_s - device.began_s)
            case Failed(error=error) if device.initiator is initiator:
                self.storm.failed[error.code] += 1
                self._later(time.monotonic() + PAUSE_S, lambda: self._begin(device))

    def _timer(self, device: Device, initiator: Initiator) -> None:
        due_s = initiator.timer_s()
        if device.initiator is initiator and due_s is not None and due_s <= time.monotonic():
            initiator.handle_timer(time.monotonic())
            self._pump(device)

    def _later(self, due_s: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (due_s, self._number, what))

    def _send(self, device: Device, initiator: Initiator) -> None:
        for datagram in initiator.take_datagrams():
            self.storm.sent[f"{datagram.exchange}{' again' if datagram.repeated else ''}"] += 1
            data = NON_ESP_MARKER * datagram.path.marked + datagram.data
            try:
                device.socket.sendto(data, tuple(datagram.path.remote))
            except OSError:  # no room: it is as if it were lost on the way
                self.storm.sent["lost at once"] += 1
