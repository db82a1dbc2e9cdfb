"""The bridge CA: its own certificate, its OCSP responder's, and those that it issues for self-signed ones. Pure.

Issuing is deterministic: the same self-signed certificate always gives the same issued one, byte for byte. So no
serial number is used for two certificates (RFC 5280 §4.1.2.2). Of the self-signed certificate's extensions only the
names are copied: above all, a copied extended key usage would let a device sign OCSP answers for the CA (RFC 6960
§4.2.2.2).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from segw_agent.bridge.serial import serial_of
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.names import ascii_lower
from voice_dpki.x509.keys import LocalSigner, is_elsewhere
from voice_dpki.x509.profile import CertificateProfile

DAY_S = 86_400

_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{1,63}\Z", re.IGNORECASE | re.ASCII)
"""One host's name, of two labels or more. It has no `*`, which gateways would match with all names below it."""

_SUBJECT = frozenset(
    {
        NameOID.COMMON_NAME,
        NameOID.ORGANIZATION_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
        NameOID.COUNTRY_NAME,
        NameOID.SERIAL_NUMBER,
    }
)
"""Attributes that a subject may have: an e-mail address or domain would be an unchecked name."""

BACKDATED_S = 3600
"""How far the clocks of gateways and devices may be behind ours."""


class IssueError(PeerError):
    """A self-signed certificate for which none is issued; the message says why."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA's certificate and key."""

    certificate: x509.Certificate
    signer: LocalSigner

    def __post_init__(self) -> None:
        """Refuse a key that would sign the same certificate in two ways; raises LocalError."""
        if is_elsewhere(self.signer) and self.signer.algorithm != "PS256":
            raise LocalError(
                "the key of a CA in a token must be RSA: a token's ECDSA is random, so one serial number would be "
                "used for several certificates"
            )


def make_authority(signer: LocalSigner, name: str, now_s: int, days: int) -> Authority:
    """Make a CA from a key and a common name; it cannot have subordinate CAs."""
    subject = _named(name)
    builder = (
        _builder(subject, subject, signer, now_s, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
    )
    return Authority(builder.sign(signer.private_key, SHA256()), signer)


def make_responder(authority: Authority, signer: LocalSigner, now_s: int, days: int) -> x509.Certificate:
    """Make the certificate of a responder: it may sign OCSP answers, and clients do not check it for revocation."""
    issuer = authority.certificate.subject
    name = str(issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    builder = (
        _builder(_named(f"{name[:59]} OCSP"), issuer, signer, now_s, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=False)
        .add_extension(x509.OCSPNoCheck(), critical=False)
        .add_extension(_key_identifier(authority), critical=False)
    )
    return builder.sign(authority.signer.private_key, SHA256())


def issue(authority: Authority, profile: CertificateProfile, ocsp_url: str) -> x509.Certificate:
    """Issue a certificate for the subject, names and key of a self-signed one; raises IssueError.

    The caller checks whether the ledger vouches for it (`segw_agent.bridge.vouching`).
    """
    own = x509.load_der_x509_certificate(profile.der)
    _check_names(own, profile)
    end = min(own.not_valid_after_utc, authority.certificate.not_valid_after_utc)
    if own.subject == authority.certificate.subject or not profile.may_sign() or end <= own.not_valid_before_utc:
        raise IssueError("its subject, key usage or validity does not go with a certificate of this CA")
    responder = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(ocsp_url))
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    builder = (
        x509.CertificateBuilder()
        .subject_name(own.subject)
        .issuer_name(authority.certificate.subject)
        .public_key(own.public_key())
        .serial_number(serial_of(profile.digest))
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(end)
        .add_extension(names.value, critical=names.critical)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(_key_identifier(authority), critical=False)
        .add_extension(x509.AuthorityInformationAccess([responder]), critical=False)
    )
    is_rsa = authority.signer.algorithm == "PS256"
    return builder.sign(authority.signer.private_key, SHA256(), ecdsa_deterministic=None if is_rsa else True)


def _check_names(own: x509.Certificate, profile: CertificateProfile) -> None:
    """Refuse names that no rule checks, because a gateway could take one of them for the identity.

    Raises IssueError.
    """
    try:
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise IssueError("it has no subjectAltName, which would be the identity in IKE") from None
    if len(list(names)) != len(profile.dns_names):
        raise IssueError("its subjectAltName has other names than DNS names")
    if not all(map(_HOST.match, profile.dns_names)):
        raise IssueError("its subjectAltName has a name that is not one host's")
    if any(attribute.oid not in _SUBJECT for attribute in own.subject):
        raise IssueError("its subject says more than name, organisation, unit, country and serial number")
    common_name = ascii_lower(profile.common_name or "")
    if _HOST.match(common_name) and common_name not in set(map(ascii_lower, profile.dns_names)):
        raise IssueError("its common name is a host's that is not in its subjectAltName")


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, signer: LocalSigner, now_s: int, days: int
) -> x509.CertificateBuilder:
    key = signer.private_key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now_s - BACKDATED_S, UTC))
        .not_valid_after(datetime.fromtimestamp(now_s + days * DAY_S, UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_identifier(authority: Authority) -> x509.AuthorityKeyIdentifier:
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
