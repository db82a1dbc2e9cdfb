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


def list_at(url: str, issuer: x509.Name | None = None, **changes: Any) -> tuple[x509.ExtensionType, bool]:
    """The extension that names the revocation list of a certificate, as SHAKEN's have it."""
    issuers = None if issuer is None else [x509.DirectoryName(issuer)]
    names = [x509.UniformResourceIdentifier(url)]
    point = x509.DistributionPoint(names, None, changes.get("reasons"), issuers)
    return x509.CRLDistributionPoints([point]), False


def revocation_list(
    by: Signer,
    *revoked: tuple[Signer, Signer | None],
    now_s: float,
    days: tuple[float, float] = (-0.1, 1),
    indirect: bool = True,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    entry_extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> bytes:
    """Make a list in PEM. Each entry is a certificate and its authority; without one, that of the entry before."""
    start, end = (datetime.fromtimestamp(now_s + day * 86_400, UTC) for day in days)
    builder = x509.CertificateRevocationListBuilder(by.certificate.subject, start, end)
    if indirect:
        place = x509.IssuingDistributionPoint(None, None, False, False, None, True, False)
        builder = builder.add_extension(place, critical=True)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    for signer, authority in revoked:
        entry = x509.RevokedCertificateBuilder(signer.certificate.serial_number, start)
        named = [] if authority is None else [x509.DirectoryName(authority.certificate.subject)]
        of = ((x509.CertificateIssuer(named), True),) if named else ()
        for value, critical in (*of, *entry_extensions):
            entry = entry.add_extension(value, critical)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(by.key, SHA256()).public_bytes(Encoding.PEM)


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
            _usage(*((usage,) if usage else ("key_cert_sign", "crl_sign") if ca else ("digital_signature",))),
            critical=True,
        )
    if listed is not None:
        value = x509.UnrecognizedExtension(ObjectIdentifier(tnauthlist.OID), listed.serialize())
        builder = builder.add_extension(value, critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Signer(key, builder.sign(issuing or key, SHA256()))
