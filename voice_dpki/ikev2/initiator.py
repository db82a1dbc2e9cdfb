"""The Initiator, here a device: IKE_SA_INIT, IKE_AUTH, and the verdict on the Responder (RFC 7296 §1.2).

IKE_SA_INIT  HDR, SAi1, KEi, Ni, N(NAT_DETECTION_*), N(FRAGMENTATION_SUPPORTED), N(SIGNATURE_HASH_ALGORITHMS)
IKE_AUTH     HDR, SK{IDi, CERT, CERTREQ, AUTH, [N(INTEGRITY_INFO)], CP(CFG_REQUEST), SAi2, TSi, TSr}
"""

from collections.abc import Callable
from typing import TypeAlias

from voice_dpki.effects import Random
from voice_dpki.ikev2 import auth, child
from voice_dpki.ikev2.crypto import NONCE_BYTES, IkeKeys, KeyPair
from voice_dpki.ikev2.events import Established, Failed, Judged, Path, SaName, Trusted, Untrusted
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.message import NO_SPI, Header, Message
from voice_dpki.ikev2.nat import behind_nat, nat_notifies
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
)
from voice_dpki.ikev2.proposals import chosen, offer
from voice_dpki.ikev2.reading import check_critical, check_not_refused, only, peer_error, refused_by_peer
from voice_dpki.ikev2.registry import MAJOR_VERSION, CertEncoding, ExchangeType, Group, NotifyType, Protocol
from voice_dpki.ikev2.rekey import new_ike_spi
from voice_dpki.ikev2.sa import Party, Settings
from voice_dpki.ikev2.standing import StandingSa
from voice_dpki.ikev2.states import Move, State

MAX_ATTEMPTS = 4
"""Most IKE_SA_INIT requests: the first, one with a cookie, one with another group, and one with a new cookie."""

MAX_COOKIE_BYTES = 64
"""Longest cookie (RFC 7296 §2.6)."""

StateIntegrity: TypeAlias = Callable[[SaName], bytes]
"""Makes the content of N(INTEGRITY_INFO) for an IKE SA. It reads the time of day itself: `now_s` is for timers."""


class Initiator(StandingSa):
    """One attempt to set up an IKE SA with its child SA, and the SA that results."""

    def __init__(
        self,
        party: Party,
        settings: Settings,
        random: Random,
        path: Path,
        *,
        marked_path: Path | None = None,
        state_integrity: StateIntegrity | None = None,
        want_address: bool = True,
        initial_contact: bool = False,
    ) -> None:
        """Use `path`, and from IKE_AUTH on `marked_path` (port 4500) if there is a NAT on the way.

        With `initial_contact`, say that this end has no other IKE SA with the peer (RFC 7296 §2.4).
        """
        name = SaName(new_ike_spi(random), NO_SPI)
        super().__init__(party, settings, random, name, path, is_initiator=True)
        self._marked_path = marked_path
        self._state_integrity = state_integrity
        self._alone = (Notify(NotifyType.INITIAL_CONTACT),) if initial_contact else ()
        self._group: Group = settings.ike_suites[0].group
        self._pair = KeyPair(self._group, random)
        self._nonce = Nonce(random.token(NONCE_BYTES))
        self._peer_nonce = b""
        self._cookie: tuple[Notify, ...] = ()
        self._attempts = 0
        self._refused: IkeError | None = None
        self._refused_until_s: float | None = None
        self._sent = b""
        self._answered = b""
        self._child = child.Offer(child.new_spi(random), settings.esp_suites, want_address)
        self._auth_answer: tuple[Payload, ...] = ()

    def start(self, now_s: float) -> None:
        """Send IKE_SA_INIT."""
        self._move(Move.START)
        self._send_init(now_s)

    def receive(self, message: Message, path: Path, now_s: float) -> None:
        """Take a message from the Responder."""
        if self.state is not State.INIT:
            super().receive(message, path, now_s)
        elif not self._is_init_answer(message, path):
            self.dropped += 1
        else:
            try:
                self._init_answered(message, path, now_s)
            except IkeError as error:
                self._doubt(error, now_s)

    def timer_s(self) -> float | None:
        """Return when to call `handle_timer` next."""
        due = [at for at in (super().timer_s(), self._refused_until_s) if at is not None]
        return min(due, default=None)

    def handle_timer(self, now_s: float) -> None:
        """Do what is due; give up an attempt that was refused in clear without a valid answer since."""
        if self._refused_until_s is not None and now_s >= self._refused_until_s:
            self._refused_until_s = None
            if self.state is State.INIT and self._refused is not None:
                self._fail(self._refused)
        super().handle_timer(now_s)

    def judge(self, verdict: Judged, now_s: float) -> None:
        """Continue with the verdict on the Responder's certificate."""
        if self.state is not State.JUDGING:
            return
        self._judging_until_s = None
        if isinstance(verdict, Untrusted):
            self._refuse(IkeError(Failure.JUDGED, verdict.sentence, step=verdict.step, code=verdict.code), now_s)
            return
        assert isinstance(verdict, Trusted)
        self._move(Move.TRUSTED)
        self._stood = True
        self._begin_life(now_s)
        self._establish(now_s)

    # --- IKE_SA_INIT ----------------------------------------------------------------------------------------------

    def _send_init(self, now_s: float) -> None:
        self._attempts += 1
        payloads: tuple[Payload, ...] = (
            *self._cookie,
            offer(self.settings.ike_suites, Protocol.IKE),
            KeyExchange(self._group, self._pair.public_value),
            self._nonce,
            *nat_notifies(self.name, self.path),
            *self._supported(),
        )
        header = Header(self.name.spi_i, NO_SPI, ExchangeType.IKE_SA_INIT, 0, True, False)
        datagram = self._clear(header, payloads)
        self._sent = datagram.data
        self._requests.next_id = 0
        self._requests.sent((datagram,), now_s)
        self._datagrams.append(datagram)

    def _supported(self) -> tuple[Notify, ...]:
        fragments = self.settings.fragment_bytes is not None
        return (
            *((Notify(NotifyType.FRAGMENTATION_SUPPORTED),) if fragments else ()),
            Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, auth.HASHES),
        )

    def _is_init_answer(self, message: Message, path: Path) -> bool:
        header = message.header
        return (
            header.is_response
            and not header.from_initiator
            and header.exchange == ExchangeType.IKE_SA_INIT
            and header.message_id == 0
            and header.major == MAJOR_VERSION
            and header.spi_i == self.name.spi_i
            and path.remote == self.path.remote
        )

    def _doubt(self, error: IkeError, now_s: float) -> None:
        """Wait for a valid answer, because anyone can have sent this one (RFC 7296 §2.21.1).

        The request is retransmitted meanwhile. The attempt ends after twice the first pause, with the last error.
        """
        self.dropped += 1
        self._refused = error
        if self._refused_until_s is None:
            self._refused_until_s = now_s + 2 * self.settings.retransmission.pause_s(1)

    def _init_answered(self, message: Message, path: Path, now_s: float) -> None:
        check_critical(message.payloads)
        cookie, group = message.notify(NotifyType.COOKIE), message.notify(NotifyType.INVALID_KE_PAYLOAD)
        if cookie is not None or group is not None:
            changed = self._with_cookie(cookie) if cookie is not None else self._with_group(group)
            if not changed:  # a duplicate of an answer
                self.dropped += 1
            elif self._attempts >= MAX_ATTEMPTS:
                raise IkeError(Failure.BUSY, "the peer wants IKE_SA_INIT again and again")
            else:
                self._send_init(now_s)
            return
        check_not_refused(message.payloads)
        self._key(message, path)
        self._requests.answered()
        self._refused_until_s = None
        self._move(Move.KEYED)
        self._send_auth(now_s)

    def _with_cookie(self, cookie: Notify) -> bool:
        """Put the cookie into the next request; returns False if the last request already had it."""
        if not 1 <= len(cookie.data) <= MAX_COOKIE_BYTES:
            raise IkeError(Failure.MALFORMED, "a cookie has 1 to 64 bytes (RFC 7296 §2.6)")
        before, self._cookie = self._cookie, (Notify(NotifyType.COOKIE, cookie.data),)
        return before != self._cookie

    def _with_group(self, wanted: Notify | None) -> bool:
        """Use the group that the Responder wants; returns False if a repeated request already uses it."""
        number = int.from_bytes(wanted.data[:2], "big") if wanted else 0
        if number == self._group and self._attempts > 1:
            return False
        self._group = self._other_group(number)
        self._pair = KeyPair(self._group, self._random)
        return True

    def _other_group(self, number: int) -> Group:
        """Return the group `number`, which must be another group that we offered (RFC 7296 §1.2)."""
        offered = {suite.group for suite in self.settings.ike_suites} - {self._group}
        wanted = next((group for group in offered if group == number), None)
        if wanted is None:
            raise IkeError(Failure.KE_GROUP, f"the peer wants key exchange group {number}, which was not offered")
        return wanted

    def _key(self, message: Message, path: Path) -> None:
        """Derive the keys from the Responder's answer."""
        spi_r = message.header.spi_r
        if spi_r == NO_SPI:
            raise IkeError(Failure.MALFORMED, "the answer to IKE_SA_INIT has no SPI of the Responder")
        suite, _ = chosen(only(message.payloads, SecurityAssociation), self.settings.ike_suites, Protocol.IKE)
        exchange = only(message.payloads, KeyExchange)
        if exchange.group != self._group or suite.group != self._group:
            raise IkeError(Failure.KE_GROUP, "the answer is of another key exchange group than the request")
        self._peer_nonce = only(message.payloads, Nonce).value
        digital = auth.knows_sha256(message.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS))
        auth.check_can_sign(self.party.signer, digital=digital)
        shared = self._pair.shared(exchange.value)
        self.name = SaName(self.name.spi_i, spi_r)
        self._protect_with(IkeKeys.derive(suite, shared, (self._nonce.value, self._peer_nonce), self.name))
        self._peer_fragments = message.notify(NotifyType.FRAGMENTATION_SUPPORTED) is not None
        self._digital = digital
        self._answered = message.octets
        if self._marked_path is not None and behind_nat(self.name, message, path):
            self.path = self._marked_path

    # --- IKE_AUTH -------------------------------------------------------------------------------------------------

    def _send_auth(self, now_s: float) -> None:
        own = self.party.identification
        identification = IdInitiator(own.id_type, own.data)
        payloads = (
            identification,
            Certificate(CertEncoding.X509_SIGNATURE, self.party.certificate),
            CertificateRequest(CertEncoding.X509_SIGNATURE),
            self._own_auth(identification, self._sent, self._peer_nonce, digital=self._digital),
            *self._alone,
            *self._integrity(),
            *self._child.payloads(),
        )
        self._ask(ExchangeType.IKE_AUTH, payloads, now_s)

    def _integrity(self) -> tuple[Notify, ...]:
        if self._state_integrity is None:
            return ()
        return (Notify(self.settings.integrity_info, self._state_integrity(self.name)),)

    def _handle_response(self, message: Message, payloads: tuple[Payload, ...], now_s: float) -> None:
        if self.state is not State.AUTH:
            super()._handle_response(message, payloads, now_s)
            return
        try:
            refusal = peer_error(payloads)
            if refusal is not None and not any(isinstance(payload, IdResponder) for payload in payloads):
                raise refused_by_peer(refusal)
            claim = self._claim(payloads, IdResponder, self._answered, self._nonce.value)
        except IkeError as error:
            if error.failure is Failure.PEER_REFUSED:
                self._fail(error)
            else:
                self._move(Move.AUTHENTICATED)
                self._refuse(error, now_s)
            return
        self._auth_answer = payloads
        self._ask_judge(claim, now_s)

    def _refuse(self, error: IkeError, now_s: float) -> None:
        """Send our refusal to the Responder, for which the SA is established (RFC 7296 §2.21.2)."""
        self._events.append(Failed(self.name, error))
        self._move(Move.REFUSED)
        self._ask(ExchangeType.INFORMATIONAL, (Notify(NotifyType.AUTHENTICATION_FAILED),), now_s)

    def _establish(self, now_s: float) -> None:
        assert self._certificate is not None
        negotiated, problem = None, None
        try:
            check_not_refused(self._auth_answer)
            nonces = self._nonce.value, self._peer_nonce
            negotiated = self._child.complete(self._auth_answer, self._keys.sk_d, nonces)
            self._hold(negotiated, created=True, now_s=now_s)
        except IkeError as error:
            problem = error.sentence
        self._auth_answer = ()
        self._events.append(
            Established(self.name, self.peer_identity, self._certificate, self._keys.suite, negotiated, problem)
        )
