"""Parts shared by the modes with certificates: our identity, and the reading of a peer's offer.

Each mode signs its messages with the key of the sender's certificate, which the ledger vouches for. Its offers
begin with the same payloads, and are read in the same three steps: `receive`, `prepare`, `complete` (see
`voice_dpki.mikey.modes`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Generic, TypeAlias, TypeVar

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from voice_dpki.effects import Random, Signer
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.mikey import steps
from voice_dpki.mikey.bundle import Bundle
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Header, Message, serialize
from voice_dpki.mikey.payloads import (
    Certificate,
    Identity,
    Payload,
    Rand,
    SecurityPolicy,
    Signature,
    Timestamp,
)
from voice_dpki.mikey.policy import SrtpProfile, policy_for
from voice_dpki.mikey.refusal import error_message
from voice_dpki.mikey.registry import CertType, DataType, Prf, SignatureType
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sessions import Bundles, offered_sessions
from voice_dpki.mikey.steps import AnyClaim, Counts, PeerClaim
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import ProfileError, read_profile
from voice_dpki.x509.recorded import RecordedCertificate, Use
from voice_dpki.x509.reference import digest_in


@dataclass(frozen=True, slots=True)
class Party:
    """Our own identity: our SIP URI, the certificate that names it, and the key that signs for it."""

    uri: str
    certificate: bytes
    signer: Signer
    certificate_url: str | None = None
    """If given, messages name the certificate by this URL; it ends in H(CERT), by which the peer looks it up."""

    algorithm: ClassVar[str] = steps.SIGNATURE_ALGORITHM
    key_kind: ClassVar[str] = "MIKEY signs with RSA: it has no ECDSA signature (RFC 3830 §6.5)"

    def __post_init__(self) -> None:
        if self.signer.algorithm != self.algorithm:
            raise LocalError(self.key_kind)
        try:
            profile = read_profile(self.certificate)
        except ProfileError as error:
            raise LocalError(f"our own certificate: {error}") from None
        if profile.public_key_der != self.signer.public_key_der:
            raise LocalError("our own certificate is not for the signing key")
        if self.uri not in profile.uris:
            raise LocalError("our own certificate does not name our identity as a URI")
        if self.certificate_url is not None:
            self._check_url(self.certificate_url, profile.digest)

    def _check_url(self, url: str, digest: CertDigest) -> None:
        try:
            named = digest_in(url)
        except MalformedError as error:
            raise LocalError(f"the URL of our own certificate: {error}") from None
        if named != digest:
            raise LocalError("the URL of our own certificate names another certificate")

    @property
    def presented(self) -> Certificate:
        """The certificate as our messages present it: itself, or a URL that names it."""
        if self.certificate_url is not None:
            return Certificate(CertType.X509V3_URL, self.certificate_url.encode("ascii"))
        return Certificate(CertType.X509V3_SIGN, self.certificate)


@dataclass(frozen=True, slots=True)
class KeyingAnswer:
    """A Responder's answer: the R_MESSAGE to send, and the keys for the Responder's two directions."""

    message: bytes
    keys: SrtpKeys
    bundle: Bundle | None = None
    """The bundle for updates; None if new keys need a new offer: in modes that have no updates here, and with an
    envelope key that its sender forbids to keep."""


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, repr=False)
class Prepared(Generic[_T]):
    """A result that is withheld until the ledger vouches for the claim's certificate: see `release`."""

    claim: PeerClaim
    _result: _T
    _uses: tuple[Use, ...] = (Use.KEY_MEDIA,)
    """The use that the certificate must be trusted for."""

    def release(self, recorded: RecordedCertificate, now_s: float) -> _T:
        """Return the result; raises MikeyError if the ledger does not vouch for the certificate at `now_s`."""
        steps.check_recorded(self.claim, recorded, now_s, self._uses)
        return self._result


Beginning: TypeAlias = tuple[Timestamp, Rand, Identity, Certificate, Identity, SecurityPolicy]
"""The first payloads of an offer: T, RAND, IDi, CERTi, IDr, SP."""


class CertifiedInitiator:
    """Maker of one party's offers; each mode adds the payloads of its own."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._bundles = Bundles()

    def next_timestamp(self, now_s: float) -> Timestamp:
        """Return the timestamp of an update (`voice_dpki.mikey.update`), later than those of all offers before."""
        return self._bundles.timestamp(now_s)

    def close(self, csb_id: int) -> None:
        """Forget a bundle whose call has ended, so that its ID can be drawn again."""
        self._bundles.close(csb_id)

    def _begin(
        self,
        kind: DataType,
        responder_uri: str,
        profile: SrtpProfile,
        prf: Prf,
        random: Random,
        now_s: float,
        lines: int,
    ) -> tuple[Header, Beginning]:
        """Return header and first payloads of an offer."""
        sessions = offered_sessions(random, lines)
        header = Header(kind, self._bundles.open(random), prf, sessions, respond=True)
        payloads = (
            self._bundles.timestamp(now_s),
            Rand(random.token(steps.RAND_BYTES)),
            steps.identity_of(self._party.uri),
            self._party.presented,
            steps.identity_of(responder_uri),
            policy_for(profile),
        )
        return header, payloads


class CertifiedResponder(ABC):
    """Reader of the offers to one party; it answers each once. Each mode defines the payloads of its offers."""

    kind: ClassVar[DataType]
    """The data type of the mode's offers."""
    counts: ClassVar[Counts]
    """The payloads of the mode's offers."""

    def __init__(
        self, party: Party, replays: ReplayCache, profiles: Iterable[SrtpProfile] = tuple(SrtpProfile)
    ) -> None:
        self._party = party
        self._replays = replays
        self._profiles = tuple(profiles)

    def receive(
        self,
        octets: bytes,
        *,
        initiator_uri: str,
        key_mgmt_ids: Sequence[str],
        now_s: float,
        steady_s: float,
        lines: int = 1,
    ) -> AnyClaim:
        """Make the checks on an I_MESSAGE that need no ledger; raises MikeyError.

        `initiator_uri` is the caller's URI according to SIP; `key_mgmt_ids` are the protocol identifiers of the SDP
        that carried the message, in its order, and `lines` the number of m-lines there that the message may key.
        `now_s` is the wall clock's Unix time, `steady_s` the monotonic clock's.
        """
        message = Message.parse(octets)
        steps.check_offer_header(message.header, self.kind, lines)
        steps.check_group(message)
        steps.check_payloads(message, self.counts)
        self._replays.check(octets, message.one(Timestamp), now_s=now_s, steady_s=steady_s)
        steps.check_sdp_ids(message, key_mgmt_ids)
        steps.check_values(message)
        idi, *idr = message.all(Identity)
        if any(steps.read_party(each, self._party.uri) is None for each in idr):
            raise MikeyError(Failure.IDENTITY, "the message is for another Responder than this one")
        return steps.read_claim(message, "Initiator", idi, initiator_uri, now_s)

    @abstractmethod
    def prepare(self, claim: PeerClaim, *, random: Random) -> Prepared[KeyingAnswer]:
        """Verify the Initiator's signature and make the answer; raises MikeyError."""

    def complete(
        self, prepared: Prepared[KeyingAnswer], recorded: RecordedCertificate, *, now_s: float, steady_s: float
    ) -> KeyingAnswer:
        """Return the answer if the ledger vouches for the Initiator's certificate; raises MikeyError.

        Only a message that passes every check enters the replay cache (RFC 3830 §5.3).
        """
        answer, claim = prepared.release(recorded, now_s), prepared.claim
        self._replays.remember(
            claim.message.octets,
            claim.message.one(Timestamp),
            now_s=now_s,
            steady_s=steady_s,
            organization=claim.certificate.organization or "",
        )
        return answer

    def error_message(self, octets: bytes, error: MikeyError) -> bytes | None:
        """Write the error message that tells the Initiator the reason; see `voice_dpki.mikey.refusal`."""
        return error_message(octets, error, self._profiles)


def signed(header: Header, payloads: tuple[Payload, ...], signer: Signer) -> bytes:
    """Write a message, ending with the signature over everything before it (§5.2)."""
    size = _signature_bytes(signer.public_key_der)
    unsigned = serialize(header, (*payloads, Signature(SignatureType.RSA_PSS, bytes(size))))[:-size]
    return unsigned + signer.sign(unsigned)


def signed_with(header: Header, payloads: tuple[Payload, ...], signer: Signer, more: bytes) -> bytes:
    """Write a message whose signature covers everything before SIGN, and `more` (RFC 4738 §3.6)."""
    size = _signature_bytes(signer.public_key_der)
    sign = Signature(SignatureType.RSA_PSS, bytes(size))
    unsigned = serialize(header, (*payloads, sign))[:-size]
    return unsigned + signer.sign(unsigned[: size - len(sign.serialize())] + more)


@lru_cache(maxsize=16)
def _signature_bytes(public_key_der: bytes) -> int:
    key = load_der_public_key(public_key_der)
    assert isinstance(key, RSAPublicKey)
    return key.key_size // 8
