"""The checks on messages, one function a step, which the modules of the modes call in order.

Each returns the part that it read, or nothing, and raises MikeyError with the step's failure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from voice_dpki.codec.telephone import is_same_party
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Header, Message, SrtpId
from voice_dpki.mikey.payloads import (
    Certificate,
    DhValue,
    Error,
    GeneralExtension,
    Identity,
    Payload,
    Rand,
    SecurityPolicy,
    Signature,
    Timestamp,
)
from voice_dpki.mikey.registry import (
    CertType,
    DataType,
    DhGroup,
    ExtensionType,
    IdType,
    MapType,
    Prf,
    SignatureType,
)
from voice_dpki.mikey.strength import check_rsa_key
from voice_dpki.names import CertDigest
from voice_dpki.x509.keys import KeyKindError, SignatureError, verify_signature
from voice_dpki.x509.profile import CertificateProfile, ProfileError, digest_of, read_profile
from voice_dpki.x509.recorded import (
    CertificateRefused,
    RecordedCertificate,
    Use,
    check_fitness,
    check_standing,
    judge,
)
from voice_dpki.x509.reference import digest_in

RAND_BYTES = 16
"""Length of the RAND that we send, and the least that we accept (RFC 3830 §4.1.1)."""

SIGNATURE_ALGORITHM = "PS256"
"""RSASSA-PSS with SHA-256 and a salt of 32 bytes, for S type 1."""

_PRFS = frozenset(Prf)

_SIGNING_CERTIFICATES = (CertType.X509V3, CertType.X509V3_SIGN)

Counts: TypeAlias = dict[type[Payload], tuple[int, int]]
"""The least and the most payloads of each class that a message may have; other classes are not allowed."""

SIGNED_OFFER: Counts = {
    Timestamp: (1, 1),
    Rand: (1, 1),
    Identity: (2, 2),
    Certificate: (1, 1),
    SecurityPolicy: (1, 1),
    GeneralExtension: (1, 8),
    Signature: (1, 1),
}
"""Payloads that an Initiator with a certificate sends in every mode."""

I_MESSAGE: Counts = {**SIGNED_OFFER, DhValue: (1, 1)}
"""The Initiator's message (RFC 3830 §3.3)."""

R_MESSAGE: Counts = {
    Timestamp: (1, 1),
    Identity: (2, 2),
    Certificate: (1, 1),
    DhValue: (2, 2),
    GeneralExtension: (0, 8),
    Signature: (1, 1),
}
"""The Responder's message (RFC 3830 §3.3)."""


@dataclass(frozen=True, slots=True)
class PeerClaim:
    """The sender that a message claims, unverified: look up `digest`, then call `prepare` and `complete`."""

    role: str
    """"Initiator" or "Responder"."""
    uri: str
    """The identity as the certificate names it; the Initiator may have dialled the number at another domain."""
    message: Message
    certificate: CertificateProfile

    @property
    def digest(self) -> CertDigest:
        """H(CERT), by which the ledger knows the certificate."""
        return self.certificate.digest


@dataclass(frozen=True, slots=True)
class NamedClaim:
    """The claim of a sender that only names its certificate, by a URL that ends in `digest`; also unverified.

    The URL is not fetched. Look `digest` up on the ledger, with the certificate, and go on with `present`.
    """

    role: str
    uri: str
    message: Message
    digest: CertDigest
    """H(CERT), by which the ledger knows the certificate."""

    def present(self, recorded: RecordedCertificate, now_s: float) -> PeerClaim:
        """Return the claim with the certificate that the ledger gave; raises MikeyError.

        Raises LocalError if the ledger was asked about another certificate.
        """
        if recorded.digest != self.digest:
            raise LocalError("the ledger was asked about another certificate than the one that was named")
        try:
            check_standing(recorded, now_s)
        except CertificateRefused as refused:
            raise _not_vouched_for(refused, self.role, recorded) from None
        if recorded.der is None or digest_of(recorded.der) != self.digest:
            raise MikeyError(Failure.LEDGER, f"the ledger does not give {_certificate_of(self.role)}")
        return _claim_of(self.role, self.uri, self.message, recorded.der, now_s)


AnyClaim: TypeAlias = PeerClaim | NamedClaim


def identity_of(uri: str) -> Identity:
    """Write a URI as an ID payload."""
    return Identity(IdType.URI, uri.encode("utf-8"))


def sdp_ids_of(key_mgmt_ids: Sequence[str]) -> GeneralExtension:
    """Write the list of key management protocols that an SDP offers (RFC 4567 §4.1.4, §7)."""
    return GeneralExtension(ExtensionType.SDP_IDS, ";".join(key_mgmt_ids).encode("ascii"))


def read_answer(sent: Message, octets: bytes, kind: DataType, counts: Counts) -> Message:
    """Read the answer to the offer `sent`, of any mode, and make the checks without a key; raises MikeyError."""
    message = Message.parse(octets)
    check_not_error(message)
    check_answer_header(sent.header, message.header, kind)
    check_payloads(message, counts)
    same_time = message.one(Timestamp) == sent.one(Timestamp)
    check_echo(same_time, Failure.TIMESTAMP_ECHO, "T")
    return message


def check_not_error(message: Message) -> None:
    """Raise MikeyError for an error message. It is not signed, so it is only a hint (RFC 3830 §5.1.2)."""
    if message.header.data_type == DataType.ERROR:
        names = ", ".join(error.name for error in message.all(Error)) or "no reason"
        raise MikeyError(Failure.PEER_ERROR, f"the Responder answers with an error, which is not signed: {names}")


def check_offer_header(header: Header, kind: DataType = DataType.DH_INIT, lines: int = 1) -> None:
    """Check that an offer's header fits its mode, and has two crypto sessions for each m-line that it keys.

    The SSRC of each second one is open. The message can leave out the last of the SDP's `lines`.
    """
    if header.data_type != kind:
        raise MikeyError(Failure.DATA_TYPE, f"data type {header.data_type} is not {kind.about}")
    if header.prf not in _PRFS:
        raise MikeyError(Failure.PRF, f"PRF {header.prf} is not supported")
    count = len(header.sessions)
    if header.map_type != MapType.SRTP_ID or count % 2 or not 2 <= count <= 2 * lines:
        about = f"{count} crypto sessions are not two for each m-line, of which there are {lines}"
        raise MikeyError(Failure.CRYPTO_SESSIONS, f"{about} (RFC 4567 §7.1)")
    ours, theirs = header.sessions[::2], header.sessions[1::2]
    if not all(each.ssrc for each in ours) or any(each.ssrc for each in theirs):
        raise MikeyError(Failure.CRYPTO_SESSIONS, "the offer must hold the Initiator's SSRCs alone")
    _check_streams(header, len(ours))


def check_respond(header: Header) -> None:
    """Check that the flag V of an offer asks for an answer: without one the Responder is not authenticated."""
    if not header.respond:
        raise MikeyError(Failure.PAYLOAD, "the offer asks for no answer, and would leave the Responder unproven")


def check_answer_header(sent: Header, header: Header, kind: DataType) -> None:
    """Check that an answer's header repeats the offer's, with the SSRCs that the Responder fills in (§6.1.1)."""
    if header.data_type != kind:
        raise MikeyError(Failure.DATA_TYPE, f"data type {header.data_type} is not {kind.about}")
    check_echo(header.prf == sent.prf, Failure.PRF, "the PRF")
    check_echo(header.csb_id == sent.csb_id, Failure.CSB_ID, "the CSB ID")
    check_echo(
        len(header.sessions) == len(sent.sessions) and all(map(_is_filled, sent.sessions, header.sessions)),
        Failure.CRYPTO_SESSIONS,
        "the CS ID map",
    )
    _check_streams(header, len(sent.sessions))


def _is_filled(sent: SrtpId, answered: SrtpId) -> bool:
    """Return whether an answer has a crypto session as it was sent, except for an SSRC that was left open."""
    return answered == (sent if sent.ssrc else replace(sent, ssrc=answered.ssrc))


def _check_streams(header: Header, chosen: int) -> None:
    """Check that `chosen` streams have SSRCs, all different, and that all roll-over counters are 0.

    One SSRC for two streams would make their packets indistinguishable at a shared port.
    """
    ssrcs = {session.ssrc for session in header.sessions if session.ssrc}
    if len(ssrcs) != chosen:
        raise MikeyError(Failure.CRYPTO_SESSIONS, "each stream must have an SSRC of its own")
    if any(session.roc for session in header.sessions):
        raise MikeyError(Failure.CRYPTO_SESSIONS, "a stream that begins has no roll-over counter")


def check_payloads(message: Message, counts: Counts) -> None:
    """Check that the message has the payloads of its mode, each as often as `counts` allows, and no others."""
    found = [type(payload) for payload in message.payloads]
    for kind in {*found, *counts}:
        least, most = counts.get(kind, (0, 0))
        if not least <= (number := found.count(kind)) <= most:
            raise MikeyError(Failure.PAYLOAD, f"{number} {kind.kind.name} payloads in a message of this kind")


def check_echo(equal: bool, failure: Failure, what: str) -> None:
    """Check that the answer returned a part of the offer as it was sent."""
    if not equal:
        raise MikeyError(failure, f"the answer does not return {what} as it was sent")


def check_sdp_ids(message: Message, key_mgmt_ids: Sequence[str]) -> None:
    """Check that the signed list of protocols is that of the SDP, which itself is unsigned (RFC 4567 §4.1.4).

    A difference shows that an offer was removed or added on the way.
    """
    lists = [
        extension for extension in message.all(GeneralExtension) if extension.ext_type == ExtensionType.SDP_IDS
    ]
    if lists != [sdp_ids_of(key_mgmt_ids)]:
        raise MikeyError(Failure.SDP_IDS, "the signed list of key management protocols is not the SDP's")


def check_values(message: Message) -> None:
    """Make the checks on payloads, in either message, that need nothing but the payload itself."""
    check_rand(message)
    check_group(message)


def check_rand(message: Message) -> None:
    """Check that RAND has at least 128 bits (RFC 3830 §4.1.1)."""
    for rand in message.all(Rand):
        if len(rand.rand) < RAND_BYTES:
            raise MikeyError(Failure.RAND, f"RAND is shorter than {RAND_BYTES} bytes")


def check_group(message: Message) -> None:
    """Check that every DH value is of the one mandatory group (RFC 3830 §4.2.7)."""
    for value in message.all(DhValue):
        if value.group != DhGroup.OAKLEY_5:
            raise MikeyError(Failure.DH_GROUP, f"Diffie-Hellman group {value.group} is not accepted, only OAKLEY 5")


def read_claim(message: Message, role: str, identity: Identity, uri: str | None, now_s: float) -> AnyClaim:
    """Read the sender's identity and certificate: the identity must be the party `uri`, named in the certificate.

    The identity may have another domain than `uri`: `check_recorded` later checks who holds domain and number. With
    None the sender can be anyone. A certificate that a URL names comes from the ledger: see NamedClaim.
    """
    named = read_party(identity, uri)
    if named is None:
        raise MikeyError(Failure.IDENTITY, f"the {role}'s ID is not the party of this call")
    certificate = message.one(Certificate)
    if certificate.cert_type == CertType.X509V3_URL:
        return NamedClaim(role, named, message, _digest_in(certificate.data, role))
    if certificate.cert_type not in _SIGNING_CERTIFICATES:
        raise MikeyError(
            Failure.CERTIFICATE, f"certificate type {certificate.cert_type} is not an X.509 certificate"
        )
    return _claim_of(role, named, message, certificate.data, now_s)


def read_party(identity: Identity, uri: str | None) -> str | None:
    """Return the URI in an ID payload if it names the party `uri` (None: any party); otherwise None."""
    try:
        named = identity.data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    is_party = uri is None or is_same_party(named, uri)
    return named if identity == identity_of(named) and is_party else None


def _digest_in(url: bytes, role: str) -> CertDigest:
    try:
        return digest_in(url.decode("ascii"))
    except (UnicodeDecodeError, MalformedError):
        sentence = f"the URL of {_certificate_of(role)} does not end in its SHA-256, by which to ask the ledger"
        raise MikeyError(Failure.CERTIFICATE, sentence) from None


def _claim_of(role: str, named: str, message: Message, der: bytes, now_s: float) -> PeerClaim:
    certificate = _read_certificate(der, role, now_s)
    if named not in certificate.uris:
        raise MikeyError(Failure.IDENTITY, f"the {role}'s certificate does not name its ID")
    return PeerClaim(role, named, message, certificate)


def _read_certificate(der: bytes, role: str, now_s: float) -> CertificateProfile:
    check_rsa_key(der, _certificate_of(role))
    try:
        profile = read_profile(der)
    except ProfileError as error:
        raise MikeyError(Failure.CERTIFICATE, f"{_certificate_of(role)} is refused: {error}") from None
    if not profile.valid_at(now_s):
        raise MikeyError(Failure.CERTIFICATE, f"{_certificate_of(role)} is out of date")
    try:
        check_fitness(profile, Use.KEY_MEDIA)
    except CertificateRefused as refused:
        raise MikeyError(Failure.CERTIFICATE, refused.about(_certificate_of(role))) from None
    return profile


def check_recorded(
    claim: PeerClaim, recorded: RecordedCertificate, now_s: float, uses: Iterable[Use] = (Use.KEY_MEDIA,)
) -> None:
    """Check that the ledger vouches for the certificate, recorded by the operator that holds the identity.

    The identity's host must be the operator's, and its number, if it has one, must be allotted to the operator. A
    number has one holder on the ledger, so it identifies a party whatever domain was dialled. Raises LocalError if
    the ledger was asked about another certificate.
    """
    try:
        for use in uses:
            judge(recorded, use, now_s, presented=claim.certificate).check_uri(claim.uri)
    except CertificateRefused as refused:
        raise _not_vouched_for(refused, claim.role, recorded) from None


def _not_vouched_for(refused: CertificateRefused, role: str, recorded: RecordedCertificate) -> MikeyError:
    return MikeyError(
        Failure.LEDGER, f"{refused.about(_certificate_of(role))} (ledger at height {recorded.height})"
    )


def _certificate_of(role: str) -> str:
    return f"the {role}'s certificate"


def check_signature(claim: PeerClaim, signed: bytes | None = None) -> None:
    """Verify SIGN over the message as it was received (RFC 3830 §5.2), or over `signed` if given."""
    signature = claim.message.one(Signature)
    if signature.s_type != SignatureType.RSA_PSS:
        raise MikeyError(Failure.SIGNATURE_TYPE, f"signature type {signature.s_type} is not RSA-PSS")
    key, covered = claim.certificate.public_key_der, claim.message.signed_octets() if signed is None else signed
    try:
        verify_signature(key, SIGNATURE_ALGORITHM, covered, signature.signature)
    except (SignatureError, KeyKindError):
        raise MikeyError(
            Failure.SIGNATURE, f"the signature of the {claim.role}'s message does not verify"
        ) from None
