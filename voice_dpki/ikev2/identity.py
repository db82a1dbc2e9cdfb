"""Identities: how IDi and IDr name a certificate (RFC 7296 §3.5), and the check of this.

An identity is a DNS name, which the certificate must list as a subject alternative name, or the subject's
distinguished name, byte for byte. Other types are refused: the ledger's certificate profile reads no such names.
"""

from cryptography import x509

from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.payloads import Identification
from voice_dpki.ikev2.registry import IdType, name_of
from voice_dpki.names import ascii_lower
from voice_dpki.x509.profile import CertificateProfile

MAX_ID_BYTES = 1024


def fqdn(name: str) -> Identification:
    """Write a DNS name as an identity."""
    return Identification(IdType.FQDN, name.encode("ascii"))


def subject_identity(der: bytes) -> Identification:
    """Write the subject of a certificate of the profile as an identity."""
    return Identification(IdType.DER_ASN1_DN, x509.load_der_x509_certificate(der).subject.public_bytes())


def check_identity(identification: Identification, profile: CertificateProfile) -> str:
    """Check that the certificate bears an identity, and return the identity as text.

    The text is the DNS name in lower case, or the distinguished name in RFC 4514's form. Raises IkeError with
    IDENTITY.
    """
    if not 1 <= len(identification.data) <= MAX_ID_BYTES:
        raise IkeError(Failure.IDENTITY, f"an identity has 1 to {MAX_ID_BYTES} bytes")
    if identification.id_type == IdType.FQDN:
        name = identification.data.decode("ascii", "replace").lower()
        if "*" not in name and name in set(map(ascii_lower, profile.dns_names)):
            return name
    elif identification.id_type == IdType.DER_ASN1_DN:
        if identification.data == subject_identity(profile.der).data:
            return x509.load_der_x509_certificate(profile.der).subject.rfc4514_string()
    else:
        kind = name_of(IdType, identification.id_type)
        raise IkeError(Failure.IDENTITY, f"an identity of type {kind} cannot be the certificate's")
    raise IkeError(Failure.IDENTITY, "the identity is not the certificate's")
