"""The common part of both ends of an IKE SA: protection, the window, INFORMATIONAL exchanges, deletion.

`initiator` and `responder` add IKE_SA_INIT and IKE_AUTH. Nothing here reads a clock or a socket: methods take
`now_s`, and leave datagrams and events for the caller to take.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from voice_dpki.effects import Random, Signer
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ikev2 import auth
from voice_dpki.ikev2.crypto import IkeKeys, ProtectionError
from voice_dpki.ikev2.events import (
    CertificateToJudge,
    Closed,
    Datagram,
    Event,
    Failed,
    Judged,
    Path,
    SaName,
    Untrusted,
)
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.identity import check_identity
from voice_dpki.ikev2.message import Header, Message, describe, serialize
from voice_dpki.ikev2.payloads import (
    Authentication,
    Certificate,
    Delete,
    EncryptedFragment,
    Identification,
    Notify,
    Payload,
    notify_named,
)
from voice_dpki.ikev2.proposals import ESP_SUITES, IKE_SUITES, EspSuite, IkeSuite
from voice_dpki.ikev2.protect import FRAGMENT_BYTES, Opener, seal
from voice_dpki.ikev2.reading import check_critical, only
from voice_dpki.ikev2.registry import (
    INTEGRITY_INFO,
    LEDGER_ANSWER,
    CertEncoding,
    ExchangeType,
    NotifyType,
    Protocol,
)
from voice_dpki.ikev2.rekey import Lifetimes
from voice_dpki.ikev2.states import Move, State, moved
from voice_dpki.ikev2.window import Requests, Responses, Retransmission
from voice_dpki.x509.profile import CertificateProfile, ProfileError, read_profile
from voice_dpki.x509.recorded import CertificateRefused, Use, check_fitness, profile_of

JUDGING_S = 10.0
"""Timeout of a verdict in seconds; peers wait longer than this for IKE_AUTH."""

Then: TypeAlias = Callable[[tuple[Payload, ...], float], None]
"""Callback for the answer to a request; takes its payloads and the time."""


@dataclass(frozen=True, slots=True)
class Party:
    """Our own identity: a certificate, the identity that it bears, and its key."""

    certificate: bytes
    identification: Identification
    signer: Signer

    def __post_init__(self) -> None:
        try:
            profile = read_profile(self.certificate)
            check_identity(self.identification, profile)
        except (ProfileError, IkeError) as error:
            raise LocalError(f"our own certificate: {error}") from None
        if profile.public_key_der != self.signer.public_key_der:
            raise LocalError("our own certificate is not for the signing key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Accepted algorithms, timeouts and notify numbers; suites are in order of preference.

    Without `fragment_bytes` nothing is sent in fragments; without `probe_s`, the silence in seconds after which a
    peer is probed, no peer is ever probed. The two notify numbers are private (docs/integrity-info.md).
    """

    ike_suites: tuple[IkeSuite, ...] = IKE_SUITES
    esp_suites: tuple[EspSuite, ...] = ESP_SUITES
    retransmission: Retransmission = field(default_factory=Retransmission)
    fragment_bytes: int | None = FRAGMENT_BYTES
    probe_s: float | None = None
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    integrity_info: int = INTEGRITY_INFO
    ledger_answer: int = LEDGER_ANSWER

    def names(self) -> dict[int, str]:
        """Return the names of the private notifies."""
        return {self.integrity_info: "INTEGRITY_INFO", self.ledger_answer: "LEDGER_ANSWER"}


class IkeSa(ABC):
    """One IKE SA. After every call, take its output with `take_datagrams` and `take_events`."""

    def __init__(
        self, party: Party, settings: Settings, random: Random, name: SaName, path: Path, *, is_initiator: bool
    ) -> None:
        self.party, self.settings, self.name, self.path = party, settings, name, path
        self.is_initiator = is_initiator
        self.state = State.IDLE if is_initiator else State.AUTH
        self.peer_identity = ""
        self.dropped = 0
        """Number of messages dropped because they did not verify or were not expected."""
        self.keys: IkeKeys | None = None
        self._random = random
        self._requests = Requests(settings.retransmission)
        self._responses = Responses(0 if is_initiator else 1)
        self._opener: Opener | None = None
        self._peer_fragments = False
        self._queue: list[tuple[ExchangeType, tuple[Payload, ...], Then | None]] = []
        self._then: Then | None = None
        self._head = b""
        self._before: tuple[Payload, ...] = ()
        self._heard_s = 0.0
        self._judging_until_s: float | None = None
        self._certificate: CertificateProfile | None = None
        self._stood = False
        self._quiet = False
        """Whether its end raises no event, because another SA stands for it."""
        self._close_reason = ""
        self._datagrams: list[Datagram] = []
        self._events: list[Event] = []

    # --- what the caller uses -------------------------------------------------------------------------------------

    def take_datagrams(self) -> list[Datagram]:
        """Return the datagrams to send, each once."""
        taken, self._datagrams = self._datagrams, []
        return taken

    def take_events(self) -> list[Event]:
        """Return the events since the last call."""
        taken, self._events = self._events, []
        return taken

    def timer_s(self) -> float | None:
        """Return when to call `handle_timer` next, None if nothing is due."""
        probe_s = self.settings.probe_s
        due = [self._requests.due_s, self._judging_until_s]
        if probe_s is not None and self.state is State.ESTABLISHED and self._requests.due_s is None:
            due.append(self._heard_s + probe_s)
        return min((at for at in due if at is not None), default=None)

    def handle_timer(self, now_s: float) -> None:
        """Do what is due: retransmit, probe a silent peer, end the SA on a timeout."""
        repeat = self._requests.repeat(now_s)
        if repeat is None:
            self._fail(IkeError(Failure.TIMEOUT, "the peer does not answer"))
            return
        self._datagrams += [_as_repeated(datagram, datagram.path) for datagram in repeat]
        if self._judging_until_s is not None and now_s >= self._judging_until_s:
            self.judge(Untrusted("no-verdict", self._judge_step, "no verdict within the time for it"), now_s)
        probe_s = self.settings.probe_s
        if probe_s is not None and self.state is State.ESTABLISHED and now_s >= self._heard_s + probe_s:
            self._heard_s = now_s
            self._ask(ExchangeType.INFORMATIONAL, (), now_s)

    def receive(self, message: Message, path: Path, now_s: float) -> None:
        """Take a message; drop one that does not belong to this SA."""
        header = message.header
        named = (header.spi_i, header.spi_r) == self.name
        if not named or header.from_initiator == self.is_initiator or self.state is State.IDLE:
            self.dropped += 1
        elif header.is_response:
            self._receive_response(message, now_s)
        else:
            self._receive_request(message, path, now_s)

    @abstractmethod
    def judge(self, verdict: Judged, now_s: float) -> None:
        """Continue with the verdict on the peer's certificate; no effect unless the SA waits for one."""

    def delete(self, reason: str, now_s: float) -> None:
        """Delete the SA: send a Delete, and close once the peer has answered or timed out."""
        if self.state not in (State.ESTABLISHED, State.REPLACED):
            return
        self._close_reason = reason
        self._move(Move.DELETE)
        self._ask(ExchangeType.INFORMATIONAL, (Delete(Protocol.IKE),), now_s)

    def forget(self, reason: str) -> None:
        """Close the SA without a Delete, because the peer has lost it (RFC 7296 §2.4)."""
        self._close(reason)

    def probe(self, now_s: float) -> None:
        """Check that the peer is alive (RFC 7296 §2.4)."""
        if self.state is State.ESTABLISHED:
            self._ask(ExchangeType.INFORMATIONAL, (), now_s)

    # --- messages in ----------------------------------------------------------------------------------------------

    def _receive_request(self, message: Message, path: Path, now_s: float) -> None:
        message_id = message.header.message_id
        again = self._responses.repeated(message_id, message.octets)
        if again:
            self._datagrams += [_as_repeated(datagram, path) for datagram in again]
            return
        if message_id != self._responses.expected or self.state in (State.JUDGING, State.CLOSED):
            self.dropped += 1
            return
        payloads = self._open(message, path, now_s)
        if payloads is None:
            return
        self.path = path
        try:
            check_critical((*self._before, *payloads))
        except IkeError as error:
            self._answer(message.header.exchange, (Notify(error.notify, error.data),))
            self._refuse_unreadable(error)
        else:
            self._handle_request(message, payloads, now_s)

    def _receive_response(self, message: Message, now_s: float) -> None:
        if message.header.message_id != self._requests.waiting_for:
            self.dropped += 1
            return
        if message.header.name != self._requests.exchange:
            self.dropped += 1
            return
        payloads = self._open(message, self.path, now_s)
        if payloads is None:
            return
        self._requests.answered()
        try:
            check_critical((*self._before, *payloads))
        except IkeError as error:
            self._fail(error)
            return
        then, self._then = self._then, None
        if then is not None:
            then(payloads, now_s)
        else:
            self._handle_response(message, payloads, now_s)
        self._send_queued(now_s)

    def _open(self, message: Message, path: Path, now_s: float) -> tuple[Payload, ...] | None:
        """Decrypt a message; None if it was dropped or is incomplete. An authentic but malformed one ends the SA.

        The payloads before the encrypted one are authentic, too (RFC 7296 §3.14), and are kept in `_before`.
        """
        assert self._opener is not None, "without keys an SA is IDLE, INIT or CLOSED, and opens nothing"
        last = message.payloads[-1] if message.payloads else None
        try:
            payloads = self._opener.open(message)
        except ProtectionError:
            self.dropped += 1
            return None
        except (IkeError, MalformedError) as error:
            self._answer_unreadable(message, path)
            self._fail(error if isinstance(error, IkeError) else IkeError(Failure.MALFORMED, str(error)))
            return None
        if not isinstance(last, EncryptedFragment) or last.number == 1:
            self._head, self._before = message.octets, message.payloads[:-1]
        self._heard_s = now_s
        return payloads

    def _answer_unreadable(self, message: Message, path: Path) -> None:
        if not message.header.is_response:
            self._head, self.path = message.octets, path
            self._answer(message.header.exchange, (Notify(NotifyType.INVALID_SYNTAX),))

    def _refuse_unreadable(self, error: IkeError) -> None:
        """End the SA unless it was established: then it survives an unknown critical payload (§2.21.3)."""
        if not self._stood:
            self._fail(error)

    def _handle_request(self, message: Message, payloads: tuple[Payload, ...], now_s: float) -> None:
        """Answer an authentic request on an SA that was established."""
        exchange = message.header.exchange
        if self.state not in (State.ESTABLISHED, State.REPLACED, State.DELETING):
            self._answer(exchange, (Notify(NotifyType.INVALID_SYNTAX),))
        elif exchange == ExchangeType.INFORMATIONAL:
            self._informational(payloads, now_s)
        elif exchange == ExchangeType.CREATE_CHILD_SA:
            self._create_child(payloads, now_s)
        else:
            self._answer(exchange, (Notify(NotifyType.INVALID_SYNTAX),))

    @abstractmethod
    def _create_child(self, payloads: tuple[Payload, ...], now_s: float) -> None:
        """Answer CREATE_CHILD_SA."""

    def _informational(self, payloads: tuple[Payload, ...], now_s: float) -> None:
        deletes = [payload for payload in payloads if isinstance(payload, Delete)]
        children = tuple(spi for each in deletes if each.protocol == Protocol.ESP for spi in each.spis)
        self._answer(ExchangeType.INFORMATIONAL, self._deleted_children(children))
        refused = notify_named(payloads, NotifyType.AUTHENTICATION_FAILED)
        if any(each.protocol == Protocol.IKE for each in deletes):
            self._deleted_by_peer(now_s)
            self._close(self._close_reason if self.state is State.DELETING else "deleted by the peer")
        elif refused is not None:
            self._close("the peer refused our certificate")

    @abstractmethod
    def _deleted_children(self, spis: tuple[bytes, ...]) -> tuple[Payload, ...]:
        """Drop the child SAs that the peer deletes; return the Delete for our inbound SPIs (RFC 7296 §1.4.1)."""

    @abstractmethod
    def _deleted_by_peer(self, now_s: float) -> None:
        """Prepare for the SA's end: the peer has deleted it."""

    def _handle_response(self, message: Message, payloads: tuple[Payload, ...], now_s: float) -> None:
        """Take an authentic answer that has no callback: all that it can do is complete a deletion."""
        if self.state is State.DELETING and not self._queue:
            self._close(self._close_reason)

    # --- messages out ---------------------------------------------------------------------------------------------

    def _ask(
        self, exchange: ExchangeType, payloads: tuple[Payload, ...], now_s: float, then: Then | None = None
    ) -> None:
        """Send an encrypted request once all earlier ones are answered; `then` is called with its answer."""
        self._queue.append((exchange, payloads, then))
        self._send_queued(now_s)

    @property
    def _is_idle(self) -> bool:
        return not self._queue and self._requests.waiting_for is None

    def _send_queued(self, now_s: float) -> None:
        if self._queue and self._requests.waiting_for is None and self.state is not State.CLOSED:
            exchange, payloads, self._then = self._queue.pop(0)
            header = self._header(exchange, self._requests.next_id, is_response=False)
            datagrams = self._sealed(header, payloads)
            self._requests.sent(datagrams, now_s)
            self._datagrams += datagrams

    def _answer(self, exchange: int, payloads: tuple[Payload, ...]) -> None:
        """Answer the expected request, encrypted."""
        header = self._header(exchange, self._responses.expected, is_response=True)
        datagrams = self._sealed(header, payloads)
        self._responses.answered(self._head, datagrams)
        self._datagrams += datagrams

    def _header(self, exchange: int, message_id: int, *, is_response: bool) -> Header:
        return Header(self.name.spi_i, self.name.spi_r, exchange, message_id, self.is_initiator, is_response)

    def _sealed(self, header: Header, payloads: tuple[Payload, ...]) -> tuple[Datagram, ...]:
        fragment_bytes = self.settings.fragment_bytes if self._peer_fragments else None
        messages = seal(header, payloads, self._cipher, fragment_bytes)
        names = describe(payloads, self.settings.names())
        return tuple(
            Datagram(self.path, octets, header.name, header.is_response, names, (number, len(messages)))
            for number, octets in enumerate(messages, 1)
        )

    def _clear(self, header: Header, payloads: tuple[Payload, ...]) -> Datagram:
        """Write a message of IKE_SA_INIT, which is in clear."""
        names = describe(payloads, self.settings.names())
        return Datagram(self.path, serialize(header, payloads), header.name, header.is_response, names)

    @property
    def _keys(self) -> IkeKeys:
        assert self.keys is not None
        return self.keys

    def _protect_with(self, keys: IkeKeys) -> None:
        """Encrypt and decrypt with the SA's keys from now on."""
        self.keys = keys
        self._cipher = keys.cipher(self._random, of_initiator=self.is_initiator)
        self._opener = Opener(keys.cipher(self._random, of_initiator=not self.is_initiator))

    # --- the parts of IKE_AUTH that both ends share ---------------------------------------------------------------

    def _own_auth(
        self, identification: Identification, message: bytes, peer_nonce: bytes, *, digital: bool
    ) -> Authentication:
        """Sign our first message for the peer."""
        sk_p = self._keys.sk_pi if self.is_initiator else self._keys.sk_pr
        octets = auth.signed_octets(message, peer_nonce, sk_p, identification)
        return auth.sign(self.party.signer, octets, digital=digital)

    def _claim(
        self,
        payloads: tuple[Payload, ...],
        id_kind: type[Identification],
        message: bytes,
        own_nonce: bytes,
    ) -> CertificateToJudge:
        """Read the peer's claimed identity, and verify that the peer has the certificate's key; raises IkeError."""
        identification = only(payloads, id_kind)
        profile = _read_certificate(payloads)
        identity = check_identity(identification, profile)
        sk_p = self._keys.sk_pr if self.is_initiator else self._keys.sk_pi
        octets = auth.signed_octets(message, own_nonce, sk_p, identification)
        auth.verify(only(payloads, Authentication), octets, profile.public_key_der)
        self.peer_identity, self._certificate = identity, profile
        integrity = notify_named(payloads, self.settings.integrity_info)
        answer = notify_named(payloads, self.settings.ledger_answer)
        return CertificateToJudge(
            self.name, identity, profile, integrity.data if integrity else None, answer.data if answer else None
        )

    @property
    def _judge_step(self) -> str:
        return "8 SeGW certificate" if self.is_initiator else "5.4 certificate"

    def _ask_judge(self, claim: CertificateToJudge, now_s: float) -> None:
        self._move(Move.AUTHENTICATED)
        self._judging_until_s = now_s + JUDGING_S
        self._events.append(claim)

    # --- the end --------------------------------------------------------------------------------------------------

    def _move(self, move: Move) -> None:
        self.state = moved(self.state, move)

    def _fail(self, error: IkeError) -> None:
        """End the SA because of `error`."""
        if self._stood:
            self._close(self._close_reason or error.sentence)
        elif self.state is not State.CLOSED:
            told = self.state is State.DELETING
            self._gone()
            self._events += [] if told else [Failed(self.name, error)]

    def _close(self, reason: str) -> None:
        if self.state is not State.CLOSED:
            self._gone()
            heard = self._stood and not self._quiet
            self._events += [Closed(self.name, self.peer_identity, reason)] if heard else []

    def _gone(self) -> None:
        self._move(Move.CLOSE)
        self._requests.answered()
        self._queue.clear()
        self._then = None
        self._judging_until_s = None


def _read_certificate(payloads: Sequence[Payload]) -> CertificateProfile:
    """Read the sender's own certificate, which is the first; a chain after it is ignored. Raises IkeError."""
    certificates = [payload for payload in payloads if isinstance(payload, Certificate)]
    if not certificates or certificates[0].encoding != CertEncoding.X509_SIGNATURE:
        raise IkeError(Failure.CERTIFICATE, "the message has no X.509 certificate")
    try:
        profile = profile_of(certificates[0].data)
        check_fitness(profile, Use.AUTHENTICATE)
    except CertificateRefused as refused:
        raise IkeError(Failure.CERTIFICATE, str(refused), code=str(refused.code)) from None
    return profile


def _as_repeated(datagram: Datagram, path: Path) -> Datagram:
    """Return a datagram for retransmission over `path`; for an answer that is the request's latest path (§2.11)."""
    return replace(datagram, path=path, repeated=True)
