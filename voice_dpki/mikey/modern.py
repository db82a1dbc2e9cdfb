"""The modern mode: the signed Diffie-Hellman exchange of RFC 3830 §3.3 with the keys and hashes of today.

    I_MESSAGE = HDR, T, RAND, IDi, CHASHi, IDr, SP, DHi, mark, SDP IDs, SIGNi
    R_MESSAGE = HDR, T, IDr, CHASHr, DHr, mark, SIGNr

It is for two parties of one ledger, and private to them (docs/mikey-modern.md has it octet by octet). Certificates
are named by H(CERT), by which the ledger gives them; signatures are ECDSA on P-256; the group is X25519 or the
hybrid X25519MLKEM768; SIGNr covers the hash of the I_MESSAGE, which therefore need not be returned in parts.

Each side reads the other's message in two steps. `receive` makes every check that needs only the message, and
returns a ModernClaim. The claim is unverified: it names the certificate, which the caller looks up at its own
ledger node, with its bytes. `complete` judges the certificate, verifies the signature under it, and returns the
keys.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from voice_dpki.effects import Random, Signer
from voice_dpki.mikey import agreement, steps
from voice_dpki.mikey.agreement import Encapsulate, Exchange, Strength, encapsulate
from voice_dpki.mikey.certified import KeyingAnswer, Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.mark import MARK, check_mark
from voice_dpki.mikey.message import Header, Message, serialize
from voice_dpki.mikey.payloads import (
    CertificateHash,
    DhValue,
    GeneralExtension,
    Identity,
    Payload,
    Rand,
    SecurityPolicy,
    Signature,
    Timestamp,
)
from voice_dpki.mikey.policy import SrtpProfile, short_policy_for
from voice_dpki.mikey.refusal import error_message
from voice_dpki.mikey.registry import DataType, DhGroup, HashFunc, Prf, SignatureType
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sessions import Bundles, accept_policy, answer_header, offered_sessions, srtp_keys
from voice_dpki.mikey.steps import Counts, PeerClaim
from voice_dpki.names import CertDigest
from voice_dpki.x509.keys import KeyKindError, SignatureError
from voice_dpki.x509.p256 import fastest, verify_es256
from voice_dpki.x509.recorded import CertificateRefused, RecordedCertificate, TrustedCertificate, Use, judge

SIGNATURE_ALGORITHM: Final = "ES256"

_SIGNATURE_BYTES: Final = 64
_TGK_BYTES: Final = 32

_OFFER_DOMAIN: Final = b"voice-dpki/mikey-offer/v1\0"
_ANSWER_DOMAIN: Final = b"voice-dpki/mikey-answer/v1\0"
_TGK_DOMAIN: Final = b"voice-dpki/mikey-tgk/v1\0"

_OFFERED: Final = {int(strength.offered): strength for strength in Strength}

I_MESSAGE: Final[Counts] = {
    Timestamp: (1, 1),
    Rand: (1, 1),
    Identity: (2, 2),
    CertificateHash: (1, 1),
    SecurityPolicy: (1, 1),
    DhValue: (1, 1),
    GeneralExtension: (2, 8),
    Signature: (1, 1),
}
"""The Initiator's message."""

R_MESSAGE: Final[Counts] = {
    Timestamp: (1, 1),
    Identity: (1, 1),
    CertificateHash: (1, 1),
    DhValue: (1, 1),
    GeneralExtension: (1, 8),
    Signature: (1, 1),
}
"""The Responder's message."""


@dataclass(frozen=True, slots=True)
class ModernParty(Party):
    """Our own identity, with a certificate for a key on P-256."""

    algorithm: ClassVar[str] = SIGNATURE_ALGORITHM
    key_kind: ClassVar[str] = "the modern mode of MIKEY signs with ECDSA on P-256"


@dataclass(frozen=True, slots=True)
class ModernClaim:
    """The sender that a message claims, unverified: look up `digest` with its certificate, then call `complete`."""

    role: str
    """"Initiator" or "Responder"."""
    uri: str
    """The identity as the sender writes it; the Initiator may have dialled the number at another domain."""
    message: Message
    digest: CertDigest
    """H(CERT), by which the ledger knows the certificate."""

    @property
    def strength(self) -> Strength:
        """The group of the message."""
        group = self.message.one(DhValue).group
        return next(strength for strength in Strength if group in (strength.offered, strength.answered))

    def proven(self, recorded: RecordedCertificate, now_s: float) -> PeerClaim:
        """Return the claim with its certificate, after `complete`; raises MikeyError if that is not vouched for."""
        return PeerClaim(self.role, self.uri, self.message, _trusted(self, recorded, now_s).profile)


def is_modern(octets: bytes) -> bool:
    """Tell whether a message is an offer of this mode, in any version; raises MikeyError if it is no message."""
    message = Message.parse(octets)
    is_offer = message.header.data_type == DataType.DH_INIT
    return is_offer and any(value.group in _OFFERED for value in message.all(DhValue))


@dataclass(frozen=True, slots=True, repr=False)
class ModernOffer:
    """A sent I_MESSAGE, and the state that its Initiator needs to read the answer."""

    message: bytes
    responder_uri: str
    profile: SrtpProfile
    sent: Message
    _exchange: Exchange

    @property
    def csb_id(self) -> int:
        """The bundle's ID."""
        return self.sent.header.csb_id

    @property
    def strength(self) -> Strength:
        """The group that was offered."""
        return self._exchange.strength

    def receive(self, octets: bytes) -> ModernClaim:
        """Make the checks on an R_MESSAGE that need no ledger.

        Raises MikeyError, with the failure PEER_ERROR for an error message of the Responder.
        """
        message = steps.read_answer(self.sent, octets, DataType.DH_RESP, R_MESSAGE)
        check_mark(message)
        group = _value(message).group
        if group != self.strength.answered:
            raise MikeyError(Failure.DH_GROUP, f"the answer is in group {group}, not in that of the offer")
        return _claim(message, "Responder", message.one(Identity), self.responder_uri)

    def complete(self, claim: ModernClaim, recorded: RecordedCertificate, *, now_s: float) -> SrtpKeys:
        """Return the keys if the ledger vouches for the Responder's certificate; raises MikeyError."""
        message, offered = claim.message, _hash(self.sent)
        _check_signature(claim, _trusted(claim, recorded, now_s), _ANSWER_DOMAIN + offered)
        value = message.one(DhValue).value
        tgk = _tgk(self._exchange.finish(value), offered, value)
        return srtp_keys(tgk, message.header, self.sent.one(Rand).rand, self.profile, initiates=True)


class ModernInitiator:
    """Maker of one party's offers."""

    def __init__(self, party: ModernParty) -> None:
        self._party = party
        self._signer = fastest(party.signer)
        self._bundles = Bundles()

    def offer(
        self,
        *,
        responder_uri: str,
        profile: SrtpProfile,
        random: Random,
        now_s: float,
        strength: Strength,
        key_mgmt_ids: Sequence[str] = ("mikey",),
        lines: int = 1,
    ) -> ModernOffer:
        """Make an I_MESSAGE for a call to `responder_uri` that keys `lines` m-lines, with random SSRCs of ours.

        `key_mgmt_ids` are all protocol identifiers that the SDP will offer, in its order (RFC 4567 §4.1.4).
        """
        exchange = Exchange.begin(strength, random)
        sessions = offered_sessions(random, lines)
        csb_id = self._bundles.open(random)
        header = Header(DataType.DH_INIT, csb_id, Prf.HMAC_SHA_256, sessions, respond=True)
        payloads = (
            self._bundles.timestamp(now_s),
            Rand(random.token(steps.RAND_BYTES)),
            steps.identity_of(self._party.uri),
            _named(self._party),
            steps.identity_of(responder_uri),
            short_policy_for(profile),
            DhValue(strength.offered, exchange.public_value),
            MARK,
            steps.sdp_ids_of(key_mgmt_ids),
        )
        sent = _sign(header, payloads, self._signer, _OFFER_DOMAIN)
        return ModernOffer(sent.octets, responder_uri, profile, sent, exchange)

    def close(self, csb_id: int) -> None:
        """Forget a bundle whose call has ended, so that its ID can be drawn again."""
        self._bundles.close(csb_id)


class ModernResponder:
    """Reader of the offers to one party; it answers each once.

    Offers of less than `least` strength are refused. `encapsulate` is the randomised half of ML-KEM.
    """

    def __init__(
        self,
        party: ModernParty,
        replays: ReplayCache,
        profiles: Iterable[SrtpProfile] = tuple(SrtpProfile),
        *,
        least: Strength = Strength.MODERN,
        encapsulate: Encapsulate = encapsulate,
    ) -> None:
        self._party = party
        self._signer = fastest(party.signer)
        self._replays = replays
        self._profiles = tuple(profiles)
        self._least = least
        self._encapsulate = encapsulate

    def receive(
        self,
        octets: bytes,
        *,
        initiator_uri: str,
        key_mgmt_ids: Sequence[str],
        now_s: float,
        steady_s: float,
        lines: int = 1,
    ) -> ModernClaim:
        """Make the checks on an I_MESSAGE that need no ledger; raises MikeyError.

        The arguments are those of `voice_dpki.mikey.certified.CertifiedResponder.receive`.
        """
        message = Message.parse(octets)
        steps.check_offer_header(message.header, lines=lines)
        if message.header.prf != Prf.HMAC_SHA_256:
            raise MikeyError(Failure.PRF, f"PRF {message.header.prf} is not HMAC-SHA-256")
        self._check_strength(message)
        steps.check_payloads(message, I_MESSAGE)
        check_mark(message)
        self._replays.check(message.signed_octets(), message.one(Timestamp), now_s=now_s, steady_s=steady_s)
        steps.check_sdp_ids(message, key_mgmt_ids)
        steps.check_rand(message)
        idi, idr = message.all(Identity)
        if steps.read_party(idr, self._party.uri) is None:
            raise MikeyError(Failure.IDENTITY, "the message is for another Responder than this one")
        return _claim(message, "Initiator", idi, initiator_uri)

    def complete(
        self, claim: ModernClaim, recorded: RecordedCertificate, *, random: Random, now_s: float, steady_s: float
    ) -> KeyingAnswer:
        """Return the answer if the ledger vouches for the Initiator's certificate and the signature verifies.

        Raises MikeyError. The SSRCs of our streams are random. Only a message that passes every check enters the
        replay cache (RFC 3830 §5.3).
        """
        trusted = _trusted(claim, recorded, now_s)
        _check_signature(claim, trusted, _OFFER_DOMAIN)
        answer = self._answer(claim.message, random)
        self._replays.remember(
            claim.message.signed_octets(),
            claim.message.one(Timestamp),
            now_s=now_s,
            steady_s=steady_s,
            organization=trusted.organization,
        )
        return answer

    def error_message(self, octets: bytes, error: MikeyError) -> bytes | None:
        """Write the error message that tells the Initiator the reason; see `voice_dpki.mikey.refusal`."""
        return error_message(octets, error, self._profiles)

    def _check_strength(self, message: Message) -> None:
        strength = _offered_strength(message)
        if strength < self._least:
            raise MikeyError(
                Failure.STRENGTH, f"the offer is in {strength.group}, and at least {self._least.group} is accepted"
            )

    def _answer(self, message: Message, random: Random) -> KeyingAnswer:
        profile, strength = accept_policy(message, self._profiles), _offered_strength(message)
        value, secret = agreement.answer(strength, _value(message).value, random, self._encapsulate)
        header = answer_header(DataType.DH_RESP, message.header, random)
        payloads = (
            message.one(Timestamp),
            steps.identity_of(self._party.uri),
            _named(self._party),
            DhValue(strength.answered, value),
            MARK,
        )
        offered = _hash(message)
        octets = _sign(header, payloads, self._signer, _ANSWER_DOMAIN + offered).octets
        tgk, rand = _tgk(secret, offered, value), message.one(Rand).rand
        return KeyingAnswer(octets, srtp_keys(tgk, header, rand, profile, initiates=False))


def _hash(message: Message) -> bytes:
    """Hash a whole message, its signature included."""
    return hashlib.sha256(message.octets).digest()


def _tgk(secret: bytes, offered: bytes, value: bytes) -> bytes:
    """Derive the TGK from the shared secret, bound to the offer by its hash and to the answer by its value."""
    return HKDF(SHA256(), _TGK_BYTES, salt=offered, info=_TGK_DOMAIN + value).derive(secret)


def _named(party: Party) -> CertificateHash:
    return CertificateHash(HashFunc.SHA_256, hashlib.sha256(party.certificate).digest())


def _offered_strength(message: Message) -> Strength:
    group = message.one(DhValue).group
    strength = _OFFERED.get(group)
    if strength is None:
        known = {number.value: number.name for number in DhGroup}
        raise MikeyError(
            Failure.STRENGTH, f"group {known.get(group, group)} is weaker than {Strength.MODERN.group}"
        )
    return strength


def _value(message: Message) -> DhValue:
    """Return the message's public value; key validity data have no meaning in this mode, and are refused."""
    value = message.one(DhValue)
    if value.validity is not None:
        raise MikeyError(Failure.PAYLOAD, "the public value has a validity, which the modern mode does not have")
    return value


def _claim(message: Message, role: str, identity: Identity, uri: str) -> ModernClaim:
    """Read the sender's identity, which must be the party `uri`, and the name of its certificate."""
    named = steps.read_party(identity, uri)
    if named is None:
        raise MikeyError(Failure.IDENTITY, f"the {role}'s ID is not the party of this call")
    certificate = message.one(CertificateHash)
    if certificate.hash_func != HashFunc.SHA_256:
        raise MikeyError(Failure.HASH, f"hash function {certificate.hash_func} is not SHA-256")
    return ModernClaim(role, named, message, CertDigest(certificate.digest))


def _trusted(claim: ModernClaim, recorded: RecordedCertificate, now_s: float) -> TrustedCertificate:
    """Judge the certificate that the claim names, and which the ledger gave.

    It must name the claim's identity, whose host and number must be the operator's that recorded it.
    """
    certificate = f"the {claim.role}'s certificate"
    if recorded.digest != claim.digest:
        raise MikeyError(Failure.CERTIFICATE, f"{certificate} is another than the ledger was asked about")
    try:
        trusted = judge(recorded, Use.KEY_MEDIA_MODERN, now_s)
        if claim.uri not in trusted.profile.uris:
            raise MikeyError(Failure.IDENTITY, f"{certificate} does not name the sender's ID")
        trusted.check_uri(claim.uri)
    except CertificateRefused as refused:
        sentence = f"{refused.about(certificate)} (ledger at height {recorded.height})"
        raise MikeyError(Failure.LEDGER, sentence) from None
    return trusted


def _check_signature(claim: ModernClaim, trusted: TrustedCertificate, context: bytes) -> None:
    """Verify SIGN over `context` and the message as it was received, without the signature itself."""
    signature = claim.message.one(Signature)
    if signature.s_type != SignatureType.ECDSA_P256_SHA256:
        raise MikeyError(Failure.SIGNATURE_TYPE, f"signature type {signature.s_type} is not ECDSA on P-256")
    key, signed = trusted.profile.public_key_der, context + claim.message.signed_octets()
    try:
        verify_es256(key, signed, signature.signature)
    except (SignatureError, KeyKindError):
        raise MikeyError(
            Failure.SIGNATURE, f"the signature of the {claim.role}'s message does not verify"
        ) from None


def _sign(header: Header, payloads: tuple[Payload, ...], signer: Signer, context: bytes) -> Message:
    """Write a message that ends with the signature over `context` and everything before it."""
    empty = Signature(SignatureType.ECDSA_P256_SHA256, bytes(_SIGNATURE_BYTES))
    unsigned = serialize(header, (*payloads, empty))[:-_SIGNATURE_BYTES]
    signature = Signature(empty.s_type, signer.sign(context + unsigned))
    return Message(header, (*payloads, signature), unsigned + signature.signature)
