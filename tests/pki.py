"""Certificate authorities of telephone networks outside the federation, and the certificates that they issue."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from voice_dpki.names import Tn
from voice_dpki.x509 import tnauthlist
from voice_dpki.x509.keys import LocalSigner
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

SPC = TnAuthList(spcs=("318J",))
USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def numbers(start: str, count: int) -> TnAuthList:
    """A list of one range."""
    return TnAuthList(ranges=(TnRange(Tn(start), count),))


def pem_of(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in names for name in USAGES})


@dataclass(frozen=True)
class Signer:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def signer(self) -> LocalSigner:
        return LocalSigner(self.key)

    def issue(
        self,
        organization: str,
        now_s: int,
        *,
        listed: TnAuthList | None = SPC,
        ca: bool = False,
        **changes: Any,
    ) -> "Signer":
        """Issue a certificate: an authority's, or one for signing calls."""
        listed = None if ca and listed is SPC else listed
        return _issued(organization, self.key, self.certificate.subject, now_s, listed=listed, ca=ca, **changes)


def root(organization: str, now_s: int, **changes: Any) -> Signer:
    """Make an authority that signs itself, on P-384 as some of SHAKEN's are; `changes` are those of `_issued`."""
    return _issued(organization, None, None, now_s, ca=True, curve=ec.SECP384R1(), **changes)


def _issued(
    organization: str,
    issuing: ec.EllipticCurvePrivateKey | None,
    issuer: x509.Name | None,
    now_s: int,
    *,
    listed: TnAuthList | None = None,
    ca: bool = False,
    days: tuple[int, int] = (-1, 30),
    usage: str | None = "",
    basic: bool = True,
    subject: x509.Name | None = None,
    path_length: int | None = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    curve: Any = None,
) -> Signer:
    """Make a certificate; with None for `usage`, or without `basic`, it lacks that extension."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    subject = subject or x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, f"SHAKEN {organization}"[:64]),
        ]
    )
    start, end = (datetime.fromtimestamp(now_s + day * 86_400, UTC) for day in days)
    builder = x509.CertificateBuilder(
        issuer or subject, subject, key.public_key(), x509.random_serial_number(), start, end
    )
    if basic:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if usage is not None:
        builder = builder.add_extension(
            _usage(usage or ("key_cert_sign" if ca else "digital_signature")), critical=True
        )
    if listed is not None:
        value = x509.UnrecognizedExtension(ObjectIdentifier(tnauthlist.OID), listed.serialize())
        builder = builder.add_extension(value, critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Signer(key, builder.sign(issuing or key, SHA256()))
