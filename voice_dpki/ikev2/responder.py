"""The Responder, here a security gateway: many IKE SAs, each set up by IKE_SA_INIT and IKE_AUTH (RFC 7296 §1.2).

`Responder` holds what all SAs share: the table of SAs, cookies under load, limits on half-open SAs, and the inner
addresses. `ResponderSa` is one SA.

    IKE_SA_INIT  HDR, SAr1, KEr, Nr, CERTREQ, N(NAT_DETECTION_*), N(FRAGMENTATION_SUPPORTED),
                 N(SIGNATURE_HASH_ALGORITHMS)
    IKE_AUTH     HDR, SK{IDr, CERT, AUTH, [N(LEDGER_ANSWER)], CP(CFG_REPLY), SAr2, TSi, TSr}
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from heapq import heappop, heappush
from ipaddress import IPv4Network

from voice_dpki.effects import Random
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ikev2 import auth, child
from voice_dpki.ikev2.cookies import Cookies
from voice_dpki.ikev2.crypto import NONCE_BYTES, IkeKeys, KeyPair
from voice_dpki.ikev2.events import (
    Datagram,
    Established,
    Event,
    Judged,
    Path,
    SaName,
    Trusted,
    Untrusted,
)
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.message import NO_SPI, Header, Message, describe, serialize
from voice_dpki.ikev2.nat import nat_notifies
from voice_dpki.ikev2.payloads import (
    Certificate,
    CertificateRequest,
    IdInitiator,
    IdResponder,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    SecurityAssociation,
    notify_named,
)
from voice_dpki.ikev2.proposals import IkeSuite, choose
from voice_dpki.ikev2.reading import check_critical, only
from voice_dpki.ikev2.registry import MAJOR_VERSION, CertEncoding, ExchangeType, NotifyType, Protocol
from voice_dpki.ikev2.rekey import new_ike_spi
from voice_dpki.ikev2.sa import Party, Settings
from voice_dpki.ikev2.standing import StandingSa
from voice_dpki.ikev2.states import HALF_OPEN, Move, State

HALF_OPEN_S = 30.0
"""Timeout of a half-open SA in seconds: from IKE_SA_INIT to IKE_AUTH."""

LINGER_S = 10.0
"""Time in seconds for which a closed SA still retransmits its last answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a gateway: from `cookie_from` half-open SAs on it demands cookies; with `half_open` of them, or
    with `total` SAs, it accepts no new ones. An SA that is being rekeyed counts twice for a moment.

    A cookie proves an address, so an attacker with cookies has few addresses. Each address is limited to
    `half_open_per_address`, which is enough for a NAT with many devices: an SA is half open for a few round trips.
    """

    cookie_from: int = 100
    half_open: int = 1000
    half_open_per_address: int = 250
    total: int = 100_000


@dataclass(frozen=True, slots=True)
class _Init:
    """An accepted IKE_SA_INIT request, and the choices made for it."""

    message: Message
    suite: IkeSuite
    answer: SecurityAssociation
    exchange: KeyExchange
    nonce: bytes


class ResponderSa(StandingSa):
    """One IKE SA of a gateway, from IKE_SA_INIT on."""

    def __init__(self, owner: "Responder", init: _Init, path: Path, now_s: float) -> None:
        random = owner.random
        name = SaName(init.message.header.spi_i, new_ike_spi(random))
        super().__init__(owner.party, owner.settings, random, name, path, is_initiator=False)
        self.init = init
        self.half_open_until_s = now_s + HALF_OPEN_S
        self._owner = owner
        self._nonce = random.token(NONCE_BYTES)
        self._auth_request: tuple[Payload, ...] = ()
        pair = KeyPair(init.suite.group, random)
        shared = pair.shared(init.exchange.value)
        self._protect_with(IkeKeys.derive(init.suite, shared, (init.nonce, self._nonce), name))
        self._peer_fragments = init.message.notify(NotifyType.FRAGMENTATION_SUPPORTED) is not None
        self._digital = auth.knows_sha256(init.message.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS))
        self.init_answer = self._answer_init(pair)
        self._datagrams.append(self.init_answer)

    def _answer_init(self, pair: KeyPair) -> Datagram:
        fragments = self.settings.fragment_bytes is not None and self._peer_fragments
        payloads = (
            self.init.answer,
            KeyExchange(pair.group, pair.public_value),
            Nonce(self._nonce),
            CertificateRequest(CertEncoding.X509_SIGNATURE),
            *nat_notifies(self.name, self.path),
            *((Notify(NotifyType.FRAGMENTATION_SUPPORTED),) if fragments else ()),
            *((Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, auth.HASHES),) if self._digital else ()),
        )
        return self._clear(self._header(ExchangeType.IKE_SA_INIT, 0, is_response=True), payloads)

    def timer_s(self) -> float | None:
        """Return when to call `handle_timer` next."""
        due = super().timer_s()
        if self.state is State.AUTH:
            return self.half_open_until_s if due is None else min(due, self.half_open_until_s)
        return due

    def handle_timer(self, now_s: float) -> None:
        """Do what is due; give up an SA that has been half open for too long."""
        if self.state is State.AUTH and now_s >= self.half_open_until_s:
            self._fail(IkeError(Failure.TIMEOUT, "the peer did not go on to IKE_AUTH"))
        super().handle_timer(now_s)

    # --- IKE_AUTH -------------------------------------------------------------------------------------------------

    def _handle_request(self, message: Message, payloads: tuple[Payload, ...], now_s: float) -> None:
        if self.state is not State.AUTH:
            super()._handle_request(message, payloads, now_s)
        elif message.header.exchange != ExchangeType.IKE_AUTH:
            self._answer(message.header.exchange, (Notify(NotifyType.INVALID_SYNTAX),))
            self._fail(IkeError(Failure.PAYLOADS, "the first encrypted exchange is not IKE_AUTH"))
        else:
            try:
                claim = self._claim(payloads, IdInitiator, self.init.message.octets, self._nonce)
            except IkeError as error:
                self._refuse(error)
                return
            self._auth_request = payloads
            self._ask_judge(claim, now_s)

    def judge(self, verdict: Judged, now_s: float) -> None:
        """Continue with the verdict on the Initiator's certificate."""
        if self.state is not State.JUDGING:
            return
        self._judging_until_s = None
        if isinstance(verdict, Untrusted):
            self._refuse(IkeError(Failure.JUDGED, verdict.sentence, step=verdict.step, code=verdict.code))
            return
        try:
            payloads = self._auth_payloads(verdict)
        except LocalError as error:
            self._refuse(IkeError(Failure.AUTH_METHOD, str(error)))
            return
        self._move(Move.TRUSTED)
        self._stood = True
        self._begin_life(now_s)
        answer, problem = self._negotiate_child(now_s)
        alone = notify_named(self._auth_request, NotifyType.INITIAL_CONTACT) is not None
        self._answer(ExchangeType.IKE_AUTH, (*payloads, *answer))
        self._auth_request = ()
        assert self._certificate is not None
        child = next((held.child for held in self.children.values()), None)
        self._events.append(
            Established(self.name, self.peer_identity, self._certificate, self.init.suite, child, problem, alone)
        )

    def _auth_payloads(self, verdict: Trusted) -> tuple[Payload, ...]:
        own = self.party.identification
        identification = IdResponder(own.id_type, own.data)
        stapled = verdict.ledger_answer
        return (
            identification,
            Certificate(CertEncoding.X509_SIGNATURE, self.party.certificate),
            self._own_auth(identification, self.init_answer.data, self.init.nonce, digital=self._digital),
            *((Notify(self.settings.ledger_answer, stapled),) if stapled is not None else ()),
        )

    def _negotiate_child(self, now_s: float) -> tuple[tuple[Payload, ...], str | None]:
        """Return the payloads that answer the offer of a child SA, and the reason if there is none."""
        address = None
        try:
            if child.wants_address(self._auth_request):
                address = self._owner.pool.take(self.peer_identity)
                self._release = partial(self._owner.pool.give_back, self.peer_identity)
            answer = child.answer(
                self._auth_request,
                spi=child.new_spi(self._random),
                suites=self.settings.esp_suites,
                inner=self._owner.inner,
                address=address,
                sk_d=self._keys.sk_d,
                nonces=(self.init.nonce, self._nonce),
            )
        except child.ChildError as error:
            return (Notify(error.notify),), error.sentence
        self._hold(answer.child, created=False, now_s=now_s)
        return answer.payloads, None

    def _refuse(self, error: IkeError) -> None:
        """Send the Initiator a refusal without the reason, and end the SA, which keeps only this answer."""
        self._answer(ExchangeType.IKE_AUTH, (Notify(NotifyType.AUTHENTICATION_FAILED),))
        self._fail(error)


@dataclass(slots=True)
class _Kept:
    """An SA in the gateway's table; a closed one stays until `gone_until_s`."""

    sa: StandingSa
    gone_until_s: float | None = None
    scheduled_s: float | None = None

    def timer_s(self) -> float | None:
        return self.gone_until_s if self.sa.state is State.CLOSED else self.sa.timer_s()


class Responder:
    """A gateway's end of all its IKE SAs."""

    def __init__(
        self,
        party: Party,
        settings: Settings,
        random: Random,
        *,
        pool: IPv4Network,
        inner: IPv4Network,
        limits: Limits | None = None,
    ) -> None:
        """Devices get addresses from `pool`, and reach the network `inner`."""
        self.party, self.settings, self.random = party, settings, random
        self.pool, self.inner = child.AddressPool(pool), inner
        self.limits = limits or Limits()
        self.dropped = 0
        """Number of datagrams that were malformed, for no known SA, or beyond a limit."""
        self._cookies = Cookies(random)
        self._sas: dict[SaName, _Kept] = {}
        self._of_identity: dict[str, set[SaName]] = {}
        self._due: list[tuple[float, SaName]] = []
        self._inits: dict[tuple[str, int, bytes], ResponderSa] = {}
        self._half_open_at: Counter[str] = Counter()
        """Number of half-open SAs by the peer's address; addresses without any are left out."""
        self._datagrams: list[Datagram] = []
        self._events: list[Event] = []

    def __len__(self) -> int:
        return len(self._sas)

    @property
    def half_open(self) -> int:
        """Number of IKE SAs whose peer is not yet judged."""
        return len(self._inits)

    def sas(self) -> Iterator[StandingSa]:
        """Return the established SAs."""
        return (kept.sa for kept in list(self._sas.values()) if kept.sa.state is State.ESTABLISHED)

    def keys_of(self, name: SaName) -> IkeKeys | None:
        """Return an SA's keys, for traces in demonstrations."""
        kept = self._sas.get(name)
        return kept.sa.keys if kept else None

    def receive(self, octets: bytes, path: Path, now_s: float) -> None:
        """Take a datagram."""
        try:
            message = Message.parse(octets)
        except MalformedError:
            self.dropped += 1
            return
        header = message.header
        if header.spi_i == NO_SPI:  # which names no IKE SA (RFC 7296 §3.1)
            self.dropped += 1
            return
        if header.exchange == ExchangeType.IKE_SA_INIT and not header.is_response and header.message_id == 0:
            self._receive_init(message, path, now_s)
            return
        kept = self._sas.get(SaName(header.spi_i, header.spi_r))
        if kept is None:
            self.dropped += 1
            return
        kept.sa.receive(message, path, now_s)
        self._collect(kept, now_s)

    def judge(self, name: SaName, verdict: Judged, now_s: float) -> None:
        """Continue with the verdict on the certificate of an SA's peer."""
        kept = self._sas.get(name)
        if kept is not None:
            kept.sa.judge(verdict, now_s)
            self._collect(kept, now_s)

    def delete(self, name: SaName, reason: str, now_s: float) -> None:
        """Delete an established SA, or its latest successor if it was rekeyed."""
        kept = self._sas.get(name)
        if kept is not None and (last := self._sas.get(kept.sa.current.name)) is not None:
            last.sa.delete(reason, now_s)
            self._collect(last, now_s)

    def forget_others(self, name: SaName, reason: str, now_s: float) -> int:
        """Forget the other SAs of an SA's identity, as the peer states that it has none; return their number."""
        kept = self._sas.get(name)
        if kept is None:
            return 0
        others = self._of_identity.get(kept.sa.peer_identity, set()) - {name}
        for other in others:
            forgotten = self._sas[other]
            forgotten.sa.forget(reason)
            self._collect(forgotten, now_s)
        return len(others)

    def timer_s(self) -> float | None:
        """Return when to call `handle_timer` next, None if nothing is due."""
        return self._due[0][0] if self._due else None

    def handle_timer(self, now_s: float) -> None:
        """Do what is due."""
        while self._due and self._due[0][0] <= now_s:
            kept = self._sas.get(heappop(self._due)[1])
            if kept is None:
                continue
            kept.scheduled_s = None
            if kept.sa.state is State.CLOSED:
                del self._sas[kept.sa.name]
                continue
            kept.sa.handle_timer(now_s)
            self._collect(kept, now_s)

    def take_datagrams(self) -> list[Datagram]:
        """Return the datagrams to send, each once."""
        taken, self._datagrams = self._datagrams, []
        return taken

    def take_events(self) -> list[Event]:
        """Return the events since the last call."""
        taken, self._events = self._events, []
        return taken

    # --- IKE_SA_INIT ----------------------------------------------------------------------------------------------

    def _receive_init(self, message: Message, path: Path, now_s: float) -> None:
        header = message.header
        if header.major > MAJOR_VERSION:  # a peer with an older version would not understand the answer
            self._answer_clear(header, Notify(NotifyType.INVALID_MAJOR_VERSION), path)
            return
        known = self._inits.get(_init_key(message, path))
        if known is not None and known.init.message.octets == message.octets:
            self._datagrams.append(replace(known.init_answer, path=path, repeated=True))
            return
        full = self.half_open >= self.limits.half_open or len(self._sas) >= self.limits.total
        full = full or self._half_open_at[path.remote.host] >= self.limits.half_open_per_address
        other_version = header.major != MAJOR_VERSION
        if full or other_version or known is not None or header.spi_r != NO_SPI or not header.from_initiator:
            self.dropped += 1
            return
        try:
            self._take_init(message, path, now_s)
        except IkeError as error:
            self._answer_clear(header, Notify(error.notify, error.data), path)

    def _take_init(self, message: Message, path: Path, now_s: float) -> None:
        check_critical(message.payloads)
        nonce = only(message.payloads, Nonce).value
        if not self._cookie_holds(message, nonce, path, now_s):
            cookie = self._cookies.make(nonce, path.remote.host, message.header.spi_i, now_s)
            self._answer_clear(message.header, Notify(NotifyType.COOKIE, cookie), path)
            return
        suite, proposal = choose(
            only(message.payloads, SecurityAssociation), self.settings.ike_suites, Protocol.IKE
        )
        exchange = only(message.payloads, KeyExchange)
        if exchange.group != suite.group:
            data = int(suite.group).to_bytes(2, "big")
            raise IkeError(Failure.KE_GROUP, "the key exchange is of another group than the one chosen", data=data)
        init = _Init(message, suite, SecurityAssociation((proposal,)), exchange, nonce)
        sa = ResponderSa(self, init, path, now_s)
        kept = self._sas[sa.name] = _Kept(sa)
        self._inits[_init_key(message, path)] = sa
        self._half_open_at[path.remote.host] += 1
        self._collect(kept, now_s)

    def _cookie_holds(self, message: Message, nonce: bytes, path: Path, now_s: float) -> bool:
        if self.half_open < self.limits.cookie_from:
            return True
        cookie = message.notify(NotifyType.COOKIE)
        spi_i = message.header.spi_i
        return cookie is not None and self._cookies.holds(cookie.data, nonce, path.remote.host, spi_i, now_s)

    def _answer_clear(self, request: Header, notify: Notify, path: Path) -> None:
        header = Header(request.spi_i, NO_SPI, request.exchange, 0, False, True)
        data = serialize(header, (notify,))
        self._datagrams.append(Datagram(path, data, header.name, True, describe((notify,))))

    def _collect(self, kept: _Kept, now_s: float) -> None:
        """Take an SA's datagrams and events, update the tables, and do the same for its offspring."""
        sa = kept.sa
        self._datagrams += sa.take_datagrams()
        self._events += sa.take_events()
        if isinstance(sa, ResponderSa) and sa.state not in HALF_OPEN:
            key = _init_key(sa.init.message, sa.init_answer.path)
            if self._inits.get(key) is sa:
                del self._inits[key]
                self._half_open_at[key[0]] -= 1
                if not self._half_open_at[key[0]]:
                    del self._half_open_at[key[0]]
        if sa.state is State.CLOSED and kept.gone_until_s is None:
            kept.gone_until_s = now_s + LINGER_S
        self._index(sa)
        self._schedule(kept)
        for each in sa.offspring:
            if each.state is not State.CLOSED or each.name in self._sas:
                self._collect(self._sas.setdefault(each.name, _Kept(each)), now_s)

    def _index(self, sa: StandingSa) -> None:
        """Update the index of established SAs by identity."""
        names = self._of_identity.setdefault(sa.peer_identity, set())
        if sa.state is State.ESTABLISHED:
            names.add(sa.name)
        else:
            names.discard(sa.name)
        if not names:
            del self._of_identity[sa.peer_identity]

    def _schedule(self, kept: _Kept) -> None:
        """Queue the SA for `handle_timer` at the time of its next timer; an earlier entry does no harm."""
        due_s = kept.timer_s()
        if due_s is not None and (kept.scheduled_s is None or due_s < kept.scheduled_s):
            kept.scheduled_s = due_s
            heappush(self._due, (due_s, kept.sa.name))


def _init_key(message: Message, path: Path) -> tuple[str, int, bytes]:
    return (*path.remote, message.header.spi_i)
