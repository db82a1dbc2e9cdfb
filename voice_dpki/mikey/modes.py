"""The signed Diffie-Hellman mode, DH-SIGN (RFC 3830 §3.3), in the profile of this project.

    I_MESSAGE = HDR, T, RAND, IDi, CERTi, IDr, SP, DHi, SDP IDs, SIGNi
    R_MESSAGE = HDR, T, IDr, CERTr, IDi, DHr, DHi, SIGNr

Each side reads the other's message in three steps. `receive` makes every check that needs only the message, and
returns a PeerClaim. The claim is unverified: it names the certificate, which the caller looks up at its own ledger
node. During the lookup, `prepare` verifies the signature under the certificate and computes the keys, which takes
about as long. `complete` releases the keys if the ledger vouches for the certificate.

What the standards leave open is fixed here: the group is OAKLEY 5; the signature is RSA-PSS with SHA-256 (SIGN does
not name its hash); IDs are the SIP URIs of the call, and the certificates list them as subject alternative names.
The dialled URI may have another domain than the callee's own, because proxies route numbers from domain to domain.
So two URIs with the same number are the same party (`codec.telephone.is_same_party`), and `steps.check_recorded`
checks on the ledger that the operator behind the certificate holds both number and domain.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from voice_dpki.effects import Random, Signer
from voice_dpki.errors import LocalError
from voice_dpki.mikey import dh, steps
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Header, Message, serialize
from voice_dpki.mikey.payloads import (
    Certificate,
    DhValue,
    Error,
    Identity,
    Payload,
    Rand,
    Signature,
    Timestamp,
)
from voice_dpki.mikey.policy import SrtpProfile, policy_for
from voice_dpki.mikey.registry import CertType, DataType, DhGroup, Prf, SignatureType
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sessions import Bundles, accept_policy, answer_header, offered_sessions, stream_keys
from voice_dpki.mikey.steps import PeerClaim
from voice_dpki.x509.profile import ProfileError, read_profile
from voice_dpki.x509.recorded import RecordedCertificate


@dataclass(frozen=True, slots=True)
class Party:
    """Our own identity: our SIP URI, the certificate that names it, and the key that signs for it."""

    uri: str
    certificate: bytes
    signer: Signer

    def __post_init__(self) -> None:
        if self.signer.algorithm != steps.SIGNATURE_ALGORITHM:
            raise LocalError("MIKEY signs with RSA: it has no ECDSA signature (RFC 3830 §6.5)")
        try:
            profile = read_profile(self.certificate)
        except ProfileError as error:
            raise LocalError(f"our own certificate: {error}") from None
        if profile.public_key_der != self.signer.public_key_der:
            raise LocalError("our own certificate is not for the signing key")
        if self.uri not in profile.uris:
            raise LocalError("our own certificate does not name our identity as a URI")


@dataclass(frozen=True, slots=True)
class KeyingAnswer:
    """A Responder's answer: the R_MESSAGE to send, and the keys for the Responder's two directions."""

    message: bytes
    keys: SrtpKeys


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, repr=False)
class Prepared(Generic[_T]):
    """A result that is withheld until the ledger vouches for the claim's certificate: see `release`."""

    claim: PeerClaim
    _result: _T

    def release(self, recorded: RecordedCertificate, now_s: float) -> _T:
        """Return the result; raises MikeyError if the ledger does not vouch for the certificate at `now_s`."""
        steps.check_recorded(self.claim, recorded, now_s)
        return self._result


@dataclass(frozen=True, slots=True, repr=False)
class Offer:
    """A sent I_MESSAGE, and the state that its Initiator needs to read the answer."""

    message: bytes
    responder_uri: str
    profile: SrtpProfile
    sent: Message
    pair: dh.KeyPair

    @property
    def csb_id(self) -> int:
        """The bundle's ID."""
        return self.sent.header.csb_id

    def receive(self, octets: bytes, *, now_s: float) -> PeerClaim:
        """Make the checks on an R_MESSAGE that need no ledger.

        Raises MikeyError, for an error message of the Responder with the failure PEER_ERROR.
        """
        message = steps.read_answer(self.sent, octets, DataType.DH_RESP, steps.R_MESSAGE)
        steps.check_values(message)
        steps.check_echo(message.all(DhValue)[1] == self.sent.one(DhValue), Failure.DH_ECHO, "DHi")
        idr, idi = message.all(Identity)
        steps.check_echo(idi == self.sent.all(Identity)[0], Failure.IDENTITY, "IDi")
        return steps.read_claim(message, "Responder", idr, self.responder_uri, now_s)

    def prepare(self, claim: PeerClaim) -> Prepared[SrtpKeys]:
        """Verify the Responder's signature and compute the Initiator's keys; raises MikeyError."""
        steps.check_signature(claim)
        tgk = dh.shared_value(self.pair.secret, claim.message.all(DhValue)[0].value)
        ours, theirs = stream_keys(tgk, claim.message.header, self.sent.one(Rand).rand, self.profile)
        return Prepared(claim, SrtpKeys(self.profile, send=ours, receive=theirs))

    def complete(self, prepared: Prepared[SrtpKeys], recorded: RecordedCertificate, *, now_s: float) -> SrtpKeys:
        """Return the keys if the ledger vouches for the Responder's certificate; raises MikeyError."""
        return prepared.release(recorded, now_s)


class Initiator:
    """Maker of one party's offers."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._bundles = Bundles()

    def offer(
        self,
        *,
        responder_uri: str,
        profile: SrtpProfile,
        random: Random,
        now_s: float,
        key_mgmt_ids: Sequence[str] = ("mikey",),
        prf: Prf = Prf.HMAC_SHA_256,
        pair: dh.KeyPair | None = None,
    ) -> Offer:
        """Make an I_MESSAGE for a call to `responder_uri`, with a random SSRC for the stream that we send.

        `key_mgmt_ids` are all protocol identifiers that the SDP will offer, in its order (RFC 4567 §4.1.4). `pair`,
        if given, is a fresh key pair that no other exchange uses.
        """
        pair = pair or dh.new_pair(random)
        sessions = offered_sessions(random)
        header = Header(DataType.DH_INIT, self._bundles.open(random), prf, sessions, respond=True)
        payloads = (
            self._bundles.timestamp(now_s),
            Rand(random.token(steps.RAND_BYTES)),
            steps.identity_of(self._party.uri),
            Certificate(CertType.X509V3_SIGN, self._party.certificate),
            steps.identity_of(responder_uri),
            policy_for(profile),
            DhValue(DhGroup.OAKLEY_5, pair.public_value),
            steps.sdp_ids_of(key_mgmt_ids),
        )
        octets = _sign(header, payloads, self._party.signer)
        return Offer(octets, responder_uri, profile, Message.parse(octets), pair)

    def close(self, csb_id: int) -> None:
        """Forget a bundle whose call has ended, so that its ID may be drawn again."""
        self._bundles.close(csb_id)


class Responder:
    """Reader of the offers to one party, which answers each once."""

    def __init__(
        self, party: Party, replays: ReplayCache, profiles: Iterable[SrtpProfile] = tuple(SrtpProfile)
    ) -> None:
        self._party = party
        self._replays = replays
        self._profiles = tuple(profiles)

    def receive(
        self, octets: bytes, *, initiator_uri: str, key_mgmt_ids: Sequence[str], now_s: float, steady_s: float
    ) -> PeerClaim:
        """Make the checks on an I_MESSAGE that need no ledger; raises MikeyError.

        `initiator_uri` is the caller's URI according to SIP; `key_mgmt_ids` are the protocol identifiers of the SDP
        that carried the message, in its order. `now_s` is of the wall clock, `steady_s` of the monotonic one.
        """
        message = Message.parse(octets)
        steps.check_offer_header(message.header)
        steps.check_payloads(message, steps.I_MESSAGE)
        self._replays.check(octets, message.one(Timestamp), now_s=now_s, steady_s=steady_s)
        steps.check_sdp_ids(message, key_mgmt_ids)
        steps.check_values(message)
        idi, idr = message.all(Identity)
        if steps.read_party(idr, self._party.uri) is None:
            raise MikeyError(Failure.IDENTITY, "the message is for another Responder than this one")
        return steps.read_claim(message, "Initiator", idi, initiator_uri, now_s)

    def prepare(
        self, claim: PeerClaim, *, random: Random, pair: dh.KeyPair | None = None
    ) -> Prepared[KeyingAnswer]:
        """Verify the Initiator's signature and make the R_MESSAGE, with a random SSRC of ours; raises MikeyError.

        `pair`, if given, is a fresh key pair that no other exchange uses.
        """
        message = claim.message
        steps.check_signature(claim)
        profile = accept_policy(message, self._profiles)
        pair = pair or dh.new_pair(random)
        tgk = dh.shared_value(pair.secret, message.one(DhValue).value)
        header = answer_header(DataType.DH_RESP, message.header, random)
        theirs, ours = stream_keys(tgk, header, message.one(Rand).rand, profile)
        answer = KeyingAnswer(self._answer(message, header, pair), SrtpKeys(profile, send=ours, receive=theirs))
        return Prepared(claim, answer)

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
        """Write the error message that tells the Initiator the reason, and the policies that we support (§5.1.2).

        It is not signed, since most errors occur before authentication; its receiver takes it as a hint only.
        Returns None if the Initiator's message is too broken to answer.
        """
        try:
            message = Message.parse(octets)
            timestamp = message.one(Timestamp)
        except MikeyError:
            return None
        header = Header(DataType.ERROR, message.header.csb_id, message.header.prf)
        policies = tuple(policy_for(profile, number) for number, profile in enumerate(self._profiles))
        return serialize(header, (timestamp, Error(error.number), *policies))

    def _answer(self, message: Message, header: Header, pair: dh.KeyPair) -> bytes:
        idi, _ = message.all(Identity)
        payloads = (
            message.one(Timestamp),
            steps.identity_of(self._party.uri),
            Certificate(CertType.X509V3_SIGN, self._party.certificate),
            idi,
            DhValue(DhGroup.OAKLEY_5, pair.public_value),
            message.one(DhValue),
        )
        return _sign(header, payloads, self._party.signer)


def _sign(header: Header, payloads: tuple[Payload, ...], signer: Signer) -> bytes:
    """Write a message, ending with the signature over everything before it (§5.2)."""
    size = _signature_bytes(signer.public_key_der)
    unsigned = serialize(header, (*payloads, Signature(SignatureType.RSA_PSS, bytes(size))))[:-size]
    return unsigned + signer.sign(unsigned)


@lru_cache(maxsize=16)
def _signature_bytes(public_key_der: bytes) -> int:
    key = load_der_public_key(public_key_der)
    assert isinstance(key, RSAPublicKey)
    return key.key_size // 8
