"""A device and a gateway that talk through a wire in memory, which a test may cut, bend and delay."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from voice_dpki.ikev2.events import Address, CertificateToJudge, Datagram, Event, Judged, Path, Trusted
from voice_dpki.ikev2.identity import fqdn
from voice_dpki.ikev2.initiator import Initiator
from voice_dpki.ikev2.message import Message
from voice_dpki.ikev2.responder import Limits, Responder
from voice_dpki.ikev2.sa import Party, Settings
from voice_dpki.ikev2.standing import StandingSa
from voice_dpki.ikev2.window import Retransmission
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa
from voice_dpki.x509.profile import build_certificate

NOW_S = 1_790_000_000.0
DEVICE, GATEWAY = "enb1.vendor.example", "segw.a.example"
DEVICE_AT, GATEWAY_AT = Address("127.0.0.2", 500), Address("127.0.0.3", 500)


@dataclass
class CountingRandom:
    """Random bytes that are the same in every run."""

    seed: str
    drawn: int = 0

    def token(self, size: int) -> bytes:
        self.drawn += 1
        return hashlib.shake_256(f"{self.seed}/{self.drawn}".encode()).digest(size)


def certificate_for(signer: LocalSigner, name: str, organization: str = "Vendor", **options: Any) -> bytes:
    options = {"not_before_s": int(NOW_S) - 3600, "not_after_s": int(NOW_S) + 3600} | options
    return build_certificate(
        signer,
        organization=organization,
        common_name=name,
        dns_names=[name],
        random=CountingRandom(name),
        **options,
    )


def party(name: str, signer: LocalSigner) -> Party:
    return Party(certificate_for(signer, name), fqdn(name), signer)


@dataclass
class Wire:
    """Both ends at NOW_S. `run` carries datagrams until all is quiet and gives each CertificateToJudge `verdict`.

    `path` may change, drop (None) or multiply what is on the way.
    """

    device: Initiator
    gateway: Responder
    verdict: Callable[[CertificateToJudge], Judged | None] = lambda _claim: Trusted()
    path: Callable[[Datagram], list[Datagram]] = lambda datagram: [datagram]
    now_s: float = NOW_S
    seen: list[Datagram] = field(default_factory=list)
    events: dict[str, list[Event]] = field(default_factory=lambda: {"device": [], "gateway": []})

    def start(self) -> "Wire":
        self.device.start(self.now_s)
        return self.run()

    def run(self) -> "Wire":
        while True:
            sent = [each for sa in self.devices() for each in sa.take_datagrams()] + self.gateway.take_datagrams()
            judged = self._judge()
            if not sent and not judged:
                return self
            for datagram in sent:
                self.seen.append(datagram)
                for each in self.path(datagram):
                    self.deliver(each)

    def deliver(self, datagram: Datagram) -> None:
        path = Path(datagram.path.remote, datagram.path.local, datagram.path.marked)
        if datagram.path.remote.host == GATEWAY_AT.host:
            self.gateway.receive(datagram.data, path, self.now_s)
        else:
            message = Message.parse(datagram.data)
            name = (message.header.spi_i, message.header.spi_r)
            sa = next((each for each in self.devices() if each.name == name), self.device)
            sa.receive(message, path, self.now_s)

    def wait(self, seconds: float) -> "Wire":
        """Let time pass, with the timers that are due in it."""
        end_s = self.now_s + seconds
        while True:
            timers = [sa.timer_s() for sa in self.devices()] + [self.gateway.timer_s()]
            due = [at for at in timers if at is not None and at <= end_s]
            if not due:
                self.now_s = end_s
                return self
            self.now_s = max(self.now_s, min(due))
            for sa in self.devices():
                sa.handle_timer(self.now_s)
            self.gateway.handle_timer(self.now_s)
            self.run()

    def devices(self) -> list[StandingSa]:
        """The device's SA, and those that came from rekeying it."""
        found: list[StandingSa] = [self.device]
        for sa in found:
            found += [each for each in sa.offspring if each not in found]
        return found

    def happened(self, end: str, kind: type) -> list[Any]:
        return [event for event in self.events[end] if isinstance(event, kind)]

    def exchanges(self) -> list[str]:
        return [f"{each.exchange} {'response' if each.is_response else 'request'}" for each in self.seen]

    def _judge(self) -> bool:
        judged = False
        for end, machines in (("device", self.devices()), ("gateway", [self.gateway])):
            new = [event for machine in machines for event in machine.take_events()]
            self.events[end] += new
            for event in new:
                verdict = self.verdict(event) if isinstance(event, CertificateToJudge) else None
                if verdict is None:
                    continue
                judged = True
                if end == "device":
                    self.device.judge(verdict, self.now_s)
                else:
                    self.gateway.judge(event.sa, verdict, self.now_s)
        return judged


SETTINGS = Settings(retransmission=Retransmission(first_s=1.0, factor=2.0, tries=3))


@pytest.fixture(scope="session")
def keys() -> dict[str, LocalSigner]:
    return {
        "device": generate_es256(),
        "gateway": generate_es256(),
        "other": generate_es256(),
        "device-rsa": generate_rsa(),
        "gateway-rsa": generate_rsa(),
    }


@pytest.fixture
def new_wire(keys: dict[str, LocalSigner]) -> Callable[..., Wire]:
    """Make a wire; `rsa` gives both ends RSA keys, further options change the ends' settings."""

    def make(
        *,
        rsa: bool = False,
        device: dict[str, Any] | None = None,
        gateway: dict[str, Any] | None = None,
        limits: Limits | None = None,
        pool: str = "10.9.0.0/24",
        device_party: Party | None = None,
        **initiator: Any,
    ) -> Wire:
        kind = "-rsa" if rsa else ""
        responder = Responder(
            party(GATEWAY, keys[f"gateway{kind}"]),
            replace(SETTINGS, **(gateway or {})),
            CountingRandom("gateway"),
            pool=IPv4Network(pool),
            inner=IPv4Network("10.8.0.0/16"),
            limits=limits,
        )
        return Wire(
            new_device(device_party or party(DEVICE, keys[f"device{kind}"]), device, **initiator), responder
        )

    return make


def new_device(
    who: Party, settings: dict[str, Any] | None = None, seed: str = "device", **options: Any
) -> Initiator:
    path = Path(DEVICE_AT, GATEWAY_AT)
    return Initiator(who, replace(SETTINGS, **(settings or {})), CountingRandom(seed), path, **options)


@pytest.fixture
def wire(new_wire: Callable[..., Wire]) -> Wire:
    return new_wire()
