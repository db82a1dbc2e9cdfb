"""The STIR services over SIP: a proxy sends its INVITE, and the redirection holds the fields to add to it.

A redirect server (RFC 3261 §8.3) for configured peers alone; `voice_dpki.sip.redirect` has the dialects. It shares
transactions, retransmissions and the bounds of the sockets with every SIP element here (`voice_dpki.wire.sip`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from time import perf_counter
from typing import Annotated, Final, Generic, Literal, TypeVar

import msgspec
from sipmessage import Request, Response

from voice_dpki.clock_health import HEALTH
from voice_dpki.effects import Clock, Random, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.metrics import OTHER, counters, follow, gauges
from voice_dpki.shell.config import AdvertisedListen, Config
from voice_dpki.shell.current import work_on
from voice_dpki.shell.expiring import tls_finding
from voice_dpki.shell.handed import check_no_sip, sip_sockets
from voice_dpki.shell.hep import HepTarget
from voice_dpki.shell.metrics import Health
from voice_dpki.shell.readiness import Check
from voice_dpki.shell.reload import Live
from voice_dpki.shell.sip_tls import PeerSide
from voice_dpki.shell.stir_service import OPERATIONS, REQUESTS, SECONDS
from voice_dpki.shell.tls import PeerTls
from voice_dpki.shell.trace import Tracer
from voice_dpki.shell.worker import is_first
from voice_dpki.sip.events import Counters, Event, RequestReceived, TransactionKey
from voice_dpki.sip.hop import Hop
from voice_dpki.sip.message import make_response, reason_value
from voice_dpki.sip.redirect import Additions, Dialect, answer
from voice_dpki.sip.uas import RequestRefusedError, check_method
from voice_dpki.stir.faults import RequestError
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.sip.asked import BYPASS_HEADER
from voice_dpki.wire.sip.endpoint import Endpoint
from voice_dpki.wire.tasks import Background

log = logging.getLogger(__name__)
_STRANGERS = Seldom(log)
_FAILURES = Seldom(log)
_CROWD = Seldom(log)

METHODS: Final = ("INVITE", "ACK", "CANCEL", "OPTIONS")
ALLOW: Final = ("Allow", ", ".join(METHODS))
MAX_PENDING: Final = 1_000
"""Most INVITEs that wait for their answers at the same time, each for one inquiry to the ledger at most."""
RETRY_AFTER_S: Final = 1
END_S: Final = 5.0
"""Longest time in which a server that ends answers what it has received."""
ANSWER_S: Final = 20.0
"""Longest time of an answer: more than ten inquiries to the ledger take, and less than the sender's timer B."""

ANSWERS = counters(
    "stir_sip_answers",
    "Final responses over SIP.",
    operation=OPERATIONS,
    method=(*METHODS, OTHER),
    status=map(str, range(200, 700)),
)
TRANSACTIONS = gauges("stir_sip_transactions", "Open transactions over SIP.", operation=OPERATIONS)
IGNORED = gauges(
    "stir_sip_ignored",
    "Messages without a transaction, and transactions that failed.",
    operation=OPERATIONS,
    cause=(field.name for field in fields(Counters)),
)


class SipPeer(Config, frozen=True, kw_only=True):
    """A configured peer, and its dialect."""

    address: str
    """Its numeric address, from which its requests come."""
    name: str = ""
    """Its name in the operator's rules, as the token's name is for a client over HTTP."""
    transport: Literal["udp", "tcp", "tls"] = "udp"
    """The least secure transport on which its source address is trusted; transports harder to forge are too."""
    answer: Literal[302, 403, 404, 503, 300] = 302
    x_header: bool = False

    @property
    def dialect(self) -> Dialect:
        """How the peer is answered."""
        return Dialect(self.answer, self.x_header)


P = TypeVar("P", bound=SipPeer)

MAX_PEERS: Final = 1_000
Peers = Annotated[tuple[P, ...], msgspec.Meta(min_length=1, max_length=MAX_PEERS)]


class SipSection(Config, frozen=True, kw_only=True):
    """`[sip]`: where the server listens for UDP and TCP, and for TLS. Derived classes have `peers`."""

    listen: AdvertisedListen
    tls: PeerTls | None = None


def peer_names(peers: Sequence[SipPeer]) -> frozenset[str]:
    """Return the names of the peers that have one."""
    return frozenset(peer.name for peer in peers if peer.name)


@dataclass(frozen=True, slots=True)
class SipSetup(Generic[P]):
    """A checked `[sip]`."""

    listen: AdvertisedListen
    peers: Mapping[str, P]
    """By address in canonical form."""
    tls: Live[PeerSide] | None

    def peer_of(self, source: Hop) -> P | None:
        """Return the peer that a message from `source` is of, or None for a stranger."""
        peer = self.peers.get(_canonical(source.host))
        if peer is None or not source.is_from(Hop(peer.transport, source.host, 0)):
            return None
        return peer

    def __str__(self) -> str:
        tls = f", TLS at {self.tls.value.tls.port}" if self.tls else ""
        peers = f"{len(self.peers)} peer{'s' if len(self.peers) > 1 else ''}"
        return f"{self.listen.host}:{self.listen.port}{tls}, {peers}"


def sip_setup(
    path: Path, section: SipSection, peers: Sequence[P], tls: Live[PeerSide] | None = None
) -> SipSetup[P]:
    """Check `[sip]` of the configuration at `path`, whose `[sip.tls]` gave `tls`; raises LocalError."""
    section.listen.check(path)
    listed: dict[str, P] = {}
    for peer in peers:
        try:
            address = str(ip_address(peer.address))
        except ValueError:
            raise LocalError(f"{path}: sip.peers: {peer.address} is no numeric address") from None
        if listed.setdefault(_canonical(address), peer) is not peer:
            raise LocalError(f"{path}: sip.peers: {peer.address} is listed twice")
        if peer.transport == "tls" and section.tls is None:
            raise LocalError(f"{path}: sip.peers: {peer.address} uses TLS, and [sip.tls] is missing")
    return SipSetup(section.listen, listed, tls)


def sip_checks(setup: SipSetup[P] | None, clock: Clock) -> dict[str, Check]:
    """Return the expiry check of the TLS certificate presented over SIP, none without one."""
    if setup is None or (side := setup.tls) is None:
        return {}
    return {"sip_tls": lambda: tls_finding(side.value.server, clock.now_s())}


def _canonical(host: str) -> str:
    """Return a numeric host in canonical form; a socket on [::] gives IPv4 addresses as IPv4-mapped ones."""
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or address)


Perform = Callable[[Request, P], Awaitable[Additions]]
"""The service: returns what a peer is to add to its INVITE; raises RequestError."""


@dataclass(frozen=True, slots=True)
class _Pending(Generic[P]):
    """An INVITE that is not answered yet."""

    task: asyncio.Task[object]
    asked: RequestReceived
    peer: P


class StirSip(Generic[P]):
    """One service at its SIP address."""

    def __init__(
        self,
        operation: str,
        setup: SipSetup[P],
        perform: Perform[P],
        health: Callable[[], Health],
        random: Random = SystemRandom(),  # noqa: B008 - it has no state
        hep: HepTarget | None = None,
    ) -> None:
        """`operation` is the name in logs and metrics, one of OPERATIONS. `hep` is told of the messages sent."""
        self._operation = operation
        self._setup = setup
        self._perform = perform
        self._health = health
        self._background = Background(log)
        self._pending: dict[TransactionKey, _Pending[P]] = {}
        self._endpoint = Endpoint(
            setup.listen.host,
            setup.listen.port,
            self._handle,
            random=random,
            tracer=Tracer(None, operation, hep=hep),  # no file: messages hold numbers, which that must not
            advertise=setup.listen.advertise,
            tls=setup.tls.value.tls if setup.tls else None,
            known=setup.peers,
        )
        if setup.tls is not None:
            setup.tls.follow(lambda side: self._endpoint.renew_tls(side.tls))
        self._layer = self._endpoint.layer

    @property
    def addresses(self) -> dict[str, str]:
        """Where it listens, as "host:port" by "sip" and, with TLS, "sips"."""
        addresses = {"sip": self._endpoint.address.address}
        return addresses | ({"sips": self._layer.tls_sent_by} if self._setup.tls else {})

    async def start(self) -> None:
        """Listen at sockets of its own, or at those that a supervisor has handed over; raises LocalError."""
        listen, tls = self._setup.listen, self._setup.tls
        await self._endpoint.start(sip_sockets(listen.host, listen.port, tls.value.tls.port if tls else None))
        if not self._setup.listen.is_loopback and self._setup.tls is None:
            log.warning("serving SIP WITHOUT TLS on a network: others can read calls and forge UDP's addresses")
        follow(TRANSACTIONS.labels(self._operation), lambda: len(self._layer))
        for cause in (field.name for field in fields(Counters)):
            follow(IGNORED.labels(self._operation, cause), partial(getattr, self._layer.counters, cause))

    async def close(self) -> None:
        """Answer the INVITEs that have been received, for END_S at most, and stop.

        What arrives over UDP or on new connections meanwhile is left to another worker with the same sockets.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await self._endpoint.retire()
                while self._pending:
                    await asyncio.wait([each.task for each in self._pending.values()])
        await self._background.close()
        await self._endpoint.close()

    def _handle(self, event: Event, now_s: float) -> None:
        """Handle one event of the transaction layer; what is no request needs nothing."""
        if not isinstance(event, RequestReceived):
            return
        peer = self._setup.peer_of(event.source)
        if peer is None:
            self._refuse_stranger(event, now_s)
            return
        try:
            check_method(event.request, METHODS)
        except RequestRefusedError as refusal:
            self._respond(event, self._response(event, refusal.status, *refusal.headers))
            return
        {"INVITE": self._invited, "CANCEL": self._cancelled, "OPTIONS": self._asked_for_health}[
            event.request.method
        ](event, peer)

    def _refuse_stranger(self, event: RequestReceived, now_s: float) -> None:
        _STRANGERS.warning("SIP from no configured peer refused", source=str(event.source))
        self._count(event.request.method, 403)
        self._layer.refuse(event.key, self._response(event, 403), now_s)

    def _asked_for_health(self, event: RequestReceived, _peer: P) -> None:
        is_well = self._health().ok and not HEALTH.problem()
        self._respond(event, self._response(event, 200 if is_well else 503, ALLOW))

    def _invited(self, event: RequestReceived, peer: P) -> None:
        if event.envelope.to_tag:  # of a dialog, and this server has none
            self._respond(event, self._response(event, 481))
        elif len(self._pending) >= MAX_PENDING:
            _CROWD.warning("too many INVITEs wait for their answers", source=str(event.source))
            self._respond(event, self._response(event, 503, ("Retry-After", str(RETRY_AFTER_S))))
        else:
            task = self._background.run(self._settle(event, peer))
            self._pending[event.key] = _Pending(task, event, peer)

    def _cancelled(self, event: RequestReceived, peer: P) -> None:
        """End an INVITE that its own sender cancels (RFC 3261 §9.2); one that is answered already is left alone."""
        key = self._layer.cancelled_invite(event.envelope)
        pending = self._pending.get(key) if key is not None else None
        if key is None or (pending is not None and pending.peer is not peer):
            self._respond(event, self._response(event, 481))
            return
        self._respond(event, self._response(event, 200))
        if pending is not None:
            self._pending.pop(key)
            pending.task.cancel()
            self._respond(pending.asked, self._response(pending.asked, 487))

    async def _settle(self, event: RequestReceived, peer: P) -> None:
        """Answer an INVITE; an unexpected error is answered with 500."""
        work_on(event.envelope.call_id)
        try:
            async with asyncio.timeout(ANSWER_S):
                response = await self._answer(event, peer)
            self._respond(event, response)
        except Exception as error:
            self._layer.counters.failures += 1
            _FAILURES.error("an INVITE was not answered", error)
            self._layer.give_up(event.key, self._endpoint.now_s())
        finally:
            self._pending.pop(event.key, None)
        self._endpoint.flush()

    async def _answer(self, event: RequestReceived, peer: P) -> Response:
        began_s = perf_counter()
        try:
            additions = await self._perform(event.request, peer)
        except RequestError as error:
            return self._refusal(event, peer, error)
        REQUESTS.labels(self._operation, "answered").inc()
        SECONDS.labels(self._operation).observe(perf_counter() - began_s)
        return answer(event.request, peer.dialect, additions, self._layer.stateless_tag(event.envelope))

    def _refusal(self, event: RequestReceived, peer: P, error: RequestError) -> Response:
        """Return the answer without additions; 400 if the INVITE cannot be read."""
        REQUESTS.labels(self._operation, error.message_id).inc()
        said = {"operation": self._operation, "messageId": error.message_id, "client": str(event.source)}
        log.warning(error.sentence, extra={"fields": said})
        reason = reason_value("SIP", error.status, error.sentence)
        if error.message_id == "SVC4006":
            return self._response(event, 400, ("Reason", reason))
        tag = self._layer.stateless_tag(event.envelope)
        bypass = ((BYPASS_HEADER, error.bypass),) if error.bypass else ()
        return answer(event.request, peer.dialect, Additions(bypass, reasons=(reason,)), tag)

    def _response(self, event: RequestReceived, status: int, *headers: tuple[str, str]) -> Response:
        tag = self._layer.stateless_tag(event.envelope)
        return make_response(event.request, status, to_tag=tag, headers=headers)

    def _respond(self, event: RequestReceived, response: Response) -> None:
        self._count(event.request.method, response.code)
        self._layer.respond(event.key, response, self._endpoint.now_s())

    def _count(self, method: str, status: int) -> None:
        ANSWERS.labels(self._operation, method if method in METHODS else OTHER, str(status)).inc()


def sip_server(
    operation: str,
    setup: SipSetup[P] | None,
    perform: Perform[P],
    health: Callable[[], Health],
    hep: HepTarget | None = None,
) -> StirSip[P] | None:
    """Return the server for SIP, None for a process that serves none; the arguments are those of StirSip.

    Raises LocalError if the service has served SIP before, and cannot stop that without a restart.
    """
    if setup is None:
        check_no_sip()
    return StirSip(operation, setup, perform, health, hep=hep) if setup is not None and is_first() else None
