"""The certificate profile of the ledger: self-signed X.509 v3, trusted because it is recorded (ITU-T X.1409).

The ledger's state decides which organisation may record a certificate. Everything here depends on the certificate
alone, so all nodes judge alike. The serial number plays no role.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.names import CertDigest, is_printable
from voice_dpki.x509 import claimconstraints, der, tnauthlist
from voice_dpki.x509.claimconstraints import ClaimConstraints
from voice_dpki.x509.keys import KeyKindError, LocalSigner, PublicKey, algorithm_of, spki
from voice_dpki.x509.other_names import MAX_NAME_LENGTH, other_names
from voice_dpki.x509.possession import OID as POSSESSION_OID
from voice_dpki.x509.tnauthlist import TnAuthList

MAX_CERTIFICATE_BYTES = 8192
"""Largest certificate that is parsed; one with an RSA key of 4096 bits and 100 number ranges has about 4000."""

PROFILES_KEPT = 256
"""Certificates whose profile is cached: the same ones occur in call after call, and a profile never changes."""

MAX_LIFETIME_S = 40 * 366 * 86_400
"""Longest validity. The ledger drops expired certificates, so every one must expire; devices live for decades."""

ANONYMOUS_USAGES = frozenset({"keyAgreement", "keyEncipherment", "dataEncipherment"})
"""Key usages that a subject without identity and organisation may have (ITU-T X.1409)."""

_TN_AUTH_LIST = ObjectIdentifier(tnauthlist.OID)
_POSSESSION = ObjectIdentifier(POSSESSION_OID)

_HASHES = frozenset({"sha256", "sha384", "sha512"})

_UNDERSTOOD_IF_CRITICAL = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        _TN_AUTH_LIST,
    }
)

_USAGES: tuple[tuple[str, Callable[[x509.KeyUsage], bool]], ...] = (
    ("digitalSignature", lambda usage: usage.digital_signature),
    ("nonRepudiation", lambda usage: usage.content_commitment),
    ("keyEncipherment", lambda usage: usage.key_encipherment),
    ("dataEncipherment", lambda usage: usage.data_encipherment),
    ("keyAgreement", lambda usage: usage.key_agreement),
    ("keyCertSign", lambda usage: usage.key_cert_sign),
    ("cRLSign", lambda usage: usage.crl_sign),
)


class ProfileError(PeerError):
    """A certificate breaks the profile; `code` is stable and for machines, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class CertificateProfile:
    """The fields of a certificate that the project uses. Times are whole seconds since the Unix epoch."""

    der: bytes
    digest: CertDigest
    organization: str | None
    common_name: str | None
    not_before_s: int
    not_after_s: int
    key_algorithm: str
    """"ES256" for ECDSA on P-256, "PS256" for RSA."""
    public_key_der: bytes
    uris: tuple[str, ...]
    """Subject alternative names of type URI, for instance "sip:+493023125001@a.example"."""
    dns_names: tuple[str, ...]
    tn_auth_list: TnAuthList | None
    key_usage: frozenset[str]
    """Names of RFC 5280 §4.2.1.3; empty if the certificate does not limit the use of its key."""
    claim_constraints: tuple[tuple[str, bytes], ...] = ()
    """The extensions that limit what a PASSporT may say, as OID and value (RFC 8226 §8, RFC 9118).

    They are not parsed here, since only certificates that sign calls need them.
    """
    other_names: tuple[str, ...] = ()
    """Kinds of names that it has beyond the fields above: the keys of `ledger.certificate_names.OTHER_KINDS`."""
    possession: bytes | None = None
    """The extension's value by which an anonymous certificate says who may record it (`x509.possession`)."""

    def valid_at(self, now_s: float) -> bool:
        """Tell whether `now_s` lies within the validity, both ends included (RFC 5280 §4.1.2.5)."""
        return self.not_before_s <= now_s <= self.not_after_s

    @property
    def anonymous(self) -> bool:
        """Whether the subject shows neither identity nor organisation (ITU-T X.1409)."""
        return self.organization is None and self.common_name is None

    def may_sign(self) -> bool:
        """Tell whether key usage admits digital signatures (RFC 5280 §4.2.1.3)."""
        return not self.key_usage or "digitalSignature" in self.key_usage

    def may_encipher_keys(self) -> bool:
        """Tell whether key usage admits the encryption of keys (RFC 5280 §4.2.1.3)."""
        return not self.key_usage or "keyEncipherment" in self.key_usage


def digest_of(data: bytes) -> CertDigest:
    """Compute H(CERT), the SHA-256 of a certificate's DER, by which the ledger names the certificate."""
    return CertDigest(hashlib.sha256(data).digest())


def der_of(data: bytes) -> bytes:
    """Return the DER of a certificate file in DER or PEM.

    Raises ProfileError for PEM that does not hold exactly one certificate. DER is returned unread.
    """
    if not data.lstrip().startswith(b"-----BEGIN "):
        return data
    try:
        (certificate,) = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ProfileError("malformed", "not one certificate in PEM form") from None
    return certificate.public_bytes(Encoding.DER)


def read_profile(data: bytes) -> CertificateProfile:
    """Parse one DER certificate and check it against the profile.

    Raises ProfileError with one of the codes "too-large", "malformed", "version", "algorithm", "weak-key",
    "self-signed", "signature", "validity", "name", "critical-extension", "tn-auth-list", "key-usage".
    """
    return _read(bytes(data))


def read_issued(data: bytes) -> CertificateProfile:
    """Parse one DER certificate that an authority issued; neither its signature nor its chain is verified here.

    Raises ProfileError as `read_profile` does, except "self-signed", "signature", "critical-extension" and
    "key-usage".
    """
    with library_errors():
        certificate = _load(data)
        _check_algorithm(certificate)
        profile = _profile(data, certificate, _admitted_key(certificate))
    _check_validity(profile)
    return profile


@lru_cache(maxsize=PROFILES_KEPT)
def _read(data: bytes) -> CertificateProfile:
    with library_errors():
        certificate = _load(data)
        _check_algorithm(certificate)
        key = _admitted_key(certificate)
        _check_self_signature(certificate)
        _check_critical(certificate.extensions)
        profile = _profile(data, certificate, key)
    _check_validity(profile)
    _check_anonymous(profile)
    return profile


def build_certificate(
    signer: LocalSigner,
    *,
    organization: str | None,
    common_name: str | None,
    uris: Sequence[str] = (),
    dns_names: Sequence[str] = (),
    ip_addresses: Sequence[IPv4Address | IPv6Address] = (),
    tn_auth_list: TnAuthList | None = None,
    claim_constraints: ClaimConstraints | None = None,
    possession: bytes | None = None,
    not_before_s: int,
    not_after_s: int,
    random: Random,
) -> bytes:
    """Make a self-signed certificate of the profile for the key of `signer`; returns its DER.

    Its key usage is keyEncipherment for RSA or keyAgreement for P-256, and digitalSignature if the subject is
    named. An anonymous one is recorded only with the `possession` that `x509.possession.possession_of` gives.
    Raises ProfileError if the result would break the profile.
    """
    subject = _subject(organization, common_name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(signer.private_key.public_key())
        .serial_number(int.from_bytes(b"\x01" + random.token(16), "big"))
        .not_valid_before(datetime.fromtimestamp(not_before_s, UTC))
        .not_valid_after(datetime.fromtimestamp(not_after_s, UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage_for(signer, named=bool(subject.rdns)), critical=True)
    )
    names = [
        *map(x509.UniformResourceIdentifier, uris),
        *map(x509.DNSName, dns_names),
        *map(x509.IPAddress, ip_addresses),
    ]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not subject.rdns)
    if tn_auth_list is not None:
        value = x509.UnrecognizedExtension(_TN_AUTH_LIST, tn_auth_list.serialize())
        builder = builder.add_extension(value, critical=False)
    if claim_constraints is not None:
        oid, encoded = claimconstraints.extension_for(claim_constraints)
        value = x509.UnrecognizedExtension(ObjectIdentifier(oid), encoded)
        builder = builder.add_extension(value, critical=False)
    if possession is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(_POSSESSION, possession), critical=False)
    return read_profile(builder.sign(signer.private_key, SHA256()).public_bytes(Encoding.DER)).der


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn errors of the X.509 library into ProfileError; the library parses lazily, so any access may raise one.

    Its warnings are silenced: they are about oddities (a serial number of zero), and the rules here refuse what
    matters.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (
            ValueError,
            TypeError,
            UnsupportedAlgorithm,
            x509.InvalidVersion,
            x509.DuplicateExtension,
            x509.UnsupportedGeneralNameType,
        ):
            raise ProfileError("malformed", "not one well-formed DER certificate") from None


def _load(data: bytes) -> x509.Certificate:
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise ProfileError("too-large", f"the certificate has more than {MAX_CERTIFICATE_BYTES} bytes")
    certificate = x509.load_der_x509_certificate(data)
    # Unused bits in the signature's BIT STRING would also give one certificate a second digest. The library keeps
    # them when it encodes again, so the comparison alone would not find them.
    whole_bits = der.encode(der.BIT_STRING, b"\0" + certificate.signature)
    if certificate.public_bytes(Encoding.DER) != data or not data.endswith(whole_bits):
        raise ProfileError("malformed", "the certificate is not in DER: encoding it again gives other bytes")
    if certificate.version is not x509.Version.v3:
        raise ProfileError("version", "the certificate is not X.509 version 3")
    return certificate


def _check_algorithm(certificate: x509.Certificate) -> None:
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or algorithm.name not in _HASHES:
        raise ProfileError("algorithm", "the certificate is not signed with SHA-256, SHA-384 or SHA-512")


def _profile(data: bytes, certificate: x509.Certificate, key: PublicKey) -> CertificateProfile:
    subject = certificate.subject  # the library parses it anew each time
    extensions = {extension.oid: extension.value for extension in certificate.extensions}
    uris, dns_names = _alternative_names(extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME))
    return CertificateProfile(
        der=data,
        digest=digest_of(data),
        organization=_name(subject, NameOID.ORGANIZATION_NAME, "organisation"),
        common_name=_name(subject, NameOID.COMMON_NAME, "common name"),
        not_before_s=int(certificate.not_valid_before_utc.timestamp()),
        not_after_s=int(certificate.not_valid_after_utc.timestamp()),
        key_algorithm=algorithm_of(key),
        public_key_der=spki(key),
        uris=uris,
        dns_names=dns_names,
        tn_auth_list=_tn_auth_list(extensions.get(_TN_AUTH_LIST)),
        key_usage=_key_usage(extensions.get(ExtensionOID.KEY_USAGE)),
        claim_constraints=_claim_constraints(extensions.values()),
        possession=_possession(extensions.get(_POSSESSION)),
        other_names=tuple(other_names(subject, extensions)),
    )


def _admitted_key(certificate: x509.Certificate) -> PublicKey:
    key = certificate.public_key()
    try:
        algorithm_of(key)
    except KeyKindError as error:
        raise ProfileError("weak-key", str(error)) from None
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return key


def _check_self_signature(certificate: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(certificate)  # compares the names, too
    except ValueError:
        if certificate.issuer == certificate.subject:
            raise
        raise ProfileError(
            "self-signed", "issuer and subject differ: the ledger holds self-signed certificates"
        ) from None
    except InvalidSignature:
        raise ProfileError("signature", "the certificate's signature does not verify under its own key") from None


def _check_validity(profile: CertificateProfile) -> None:
    start, end = profile.not_before_s, profile.not_after_s
    if start < 0 or end <= start:
        raise ProfileError("validity", "the certificate's validity does not end after it begins")
    if end - start > MAX_LIFETIME_S:
        raise ProfileError("validity", "the certificate is valid for more than 40 years")


def _check_critical(extensions: x509.Extensions) -> None:
    for extension in extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD_IF_CRITICAL:
            raise ProfileError(
                "critical-extension",
                f"extension {extension.oid.dotted_string} is critical and not understood (RFC 5280 §4.2)",
            )


def _name(subject: x509.Name, oid: ObjectIdentifier, what: str) -> str | None:
    """Return the subject's attribute `oid`, None if it has none.

    Raises ProfileError for a second one, because two readers could each pick a different one, and for an
    unprintable or overlong one.
    """
    values = [attribute.value for attribute in subject.get_attributes_for_oid(oid)]
    if not values:
        return None
    value = values[0]
    if len(values) > 1 or not isinstance(value, str):
        raise ProfileError("name", f"the subject's {what} is not one string")
    if not 1 <= len(value) <= MAX_NAME_LENGTH or not is_printable(value) or value != value.strip():
        raise ProfileError("name", f"the subject's {what} has not 1 to {MAX_NAME_LENGTH} printable characters")
    return value


def _key_usage(usage: x509.ExtensionType | None) -> frozenset[str]:
    if usage is None:
        return frozenset()
    assert isinstance(usage, x509.KeyUsage)
    return frozenset(name for name, of in _USAGES if of(usage))


def _check_anonymous(profile: CertificateProfile) -> None:
    """Check that the key of a subject without identity and organisation signs nothing (ITU-T X.1409)."""
    if not profile.anonymous:
        return
    if not profile.key_usage or not profile.key_usage <= ANONYMOUS_USAGES:
        raise ProfileError(
            "key-usage",
            "the subject shows no identity and organisation, so key usage must be there and hold nothing but "
            "keyAgreement, keyEncipherment and dataEncipherment",
        )


def _alternative_names(names: x509.ExtensionType | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if names is None:
        return (), ()
    assert isinstance(names, x509.SubjectAlternativeName)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(uris), tuple(names.get_values_for_type(x509.DNSName))


def _tn_auth_list(value: x509.ExtensionType | None) -> TnAuthList | None:
    if value is None:
        return None
    assert isinstance(value, x509.UnrecognizedExtension)
    try:
        return TnAuthList.parse(value.value)
    except MalformedError as error:
        raise ProfileError("tn-auth-list", str(error)) from None


def _claim_constraints(values: Iterable[x509.ExtensionType]) -> tuple[tuple[str, bytes], ...]:
    found = (value for value in values if isinstance(value, x509.UnrecognizedExtension))
    return tuple(
        (value.oid.dotted_string, value.value)
        for value in found
        if value.oid.dotted_string in (claimconstraints.OID, claimconstraints.ENHANCED_OID)
    )


def _possession(value: x509.ExtensionType | None) -> bytes | None:
    return value.value if isinstance(value, x509.UnrecognizedExtension) else None


def _subject(organization: str | None, common_name: str | None) -> x509.Name:
    attributes = []
    if organization is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    if common_name is not None:
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    return x509.Name(attributes)


def _usage_for(signer: LocalSigner, *, named: bool) -> x509.KeyUsage:
    is_rsa = signer.algorithm == "PS256"
    return x509.KeyUsage(
        digital_signature=named,
        content_commitment=False,
        key_encipherment=is_rsa,
        data_encipherment=False,
        key_agreement=not is_rsa,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
