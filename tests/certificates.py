"""Certificates that the library would not make, for tests of those who must refuse them."""

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from voice_dpki.x509.keys import LocalSigner

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def with_usage(der: bytes, signer: LocalSigner, usage: str) -> bytes:
    """Make a self-signed certificate of `signer` anew, whose key is for `usage` (RFC 5280) and nothing else."""
    old = x509.load_der_x509_certificate(der)
    start, end = old.not_valid_before_utc, old.not_valid_after_utc
    builder = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), 1, start, end)
    for extension in old.extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage):
            value = x509.KeyUsage(**{name: name == usage for name in _USAGES})
        builder = builder.add_extension(value, extension.critical)
    return builder.sign(signer.private_key, SHA256()).public_bytes(Encoding.DER)
