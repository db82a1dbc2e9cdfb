"""A device that says in IKE_AUTH what it likes: other identities, other certificates, malformed payloads."""

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voice_dpki.effects import Signer, SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.events import Address, Failed, Path
from voice_dpki.ikev2.identity import fqdn
from voice_dpki.ikev2.initiator import Initiator
from voice_dpki.ikev2.message import Message
from voice_dpki.ikev2.payloads import Identification, Payload
from voice_dpki.ikev2.registry import ExchangeType
from voice_dpki.ikev2.sa import Settings

from .charon import DEADLINE_S
from .site import Site
from .world import Identity, inside

MARKER = bytes(4)
DEVICE, GATEWAY = "10.1.0.2", "10.1.0.1"

Alter = Callable[[tuple[Payload, ...]], tuple[Payload, ...]]


@dataclass(frozen=True)
class Pretended:
    """A Party that nobody has checked."""

    certificate: bytes
    identification: Identification
    signer: Signer


class Liar(Initiator):
    """Alters the payloads of its IKE_AUTH."""

    alter: Alter

    def _ask(self, exchange: ExchangeType, payloads: tuple[Payload, ...], now_s: float, then: Any = None) -> None:
        altered = self.alter(payloads) if exchange == ExchangeType.IKE_AUTH else payloads
        super()._ask(exchange, altered, now_s, then)


class LyingDevice:
    """The device's two ports, in its namespace; no charon may run there."""

    def __init__(self, site: Site) -> None:
        def bind(port: int) -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((DEVICE, port))
            return made

        self._sockets = inside(site.names["device"], lambda: {False: bind(500), True: bind(4500)})

    def __enter__(self) -> "LyingDevice":
        return self

    def __exit__(self, *exc: object) -> None:
        for each in self._sockets.values():
            each.close()

    def attach(
        self,
        device: Identity,
        *,
        identification: Identification | None = None,
        certificate: bytes | None = None,
        alter: Alter = lambda payloads: payloads,
    ) -> Failed:
        """Try to attach; returns how that failed."""
        party: Any = Pretended(
            device.certificate if certificate is None else certificate,
            identification or fqdn(device.name),
            device.key,
        )
        path, marked = (Path(Address(DEVICE, port), Address(GATEWAY, port), port == 4500) for port in (500, 4500))
        liar = Liar(party, Settings(), SystemRandom(), path, marked_path=marked)
        liar.alter = alter
        liar.start(time.time())
        end_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s:
            self._send(liar)
            for event in liar.take_events():
                assert isinstance(event, Failed), event
                return event
            self._receive(liar)
            liar.handle_timer(time.time())
        raise AssertionError("nobody answers")

    def _send(self, liar: Liar) -> None:
        for datagram in liar.take_datagrams():
            marked = datagram.path.marked
            self._sockets[marked].sendto(MARKER * marked + datagram.data, datagram.path.remote)

    def _receive(self, liar: Liar) -> None:
        for ready in select.select(list(self._sockets.values()), [], [], 0.1)[0]:
            marked = ready is self._sockets[True]
            data, address = ready.recvfrom(65536)
            path = Path(Address(DEVICE, ready.getsockname()[1]), Address(*address), marked)
            try:
                liar.receive(Message.parse(data[len(MARKER) * marked :]), path, time.time())
            except MalformedError:
                continue
