"""Certificates of signers outside the federation, by their chain to a certificate authority on an operator's list.

These signers are not on the ledger. SHAKEN trusts a certificate whose chain ends at an authority that a
policy administrator lists (ATIS-1000074 §5.3.1, ATIS-1000080 §6). They cannot claim what the ledger's members hold.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.names import Tn
from voice_dpki.x509 import tnauthlist
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.holders import NumberHolders
from voice_dpki.x509.profile import (
    MAX_CERTIFICATE_BYTES,
    CertificateProfile,
    ProfileError,
    library_errors,
    read_issued,
)
from voice_dpki.x509.recorded import CertificateRefused, Distrust, Use, check_fitness
from voice_dpki.x509.revocation import Revocable, revocable_of
from voice_dpki.x509.tnauthlist import TnAuthList

MAX_CHAIN: Final = 6
"""Certificates at one URL: the signer's, its authority's, and others that an operator adds."""
MAX_CHAIN_BYTES: Final = 2 * MAX_CHAIN * MAX_CERTIFICATE_BYTES
"""Twice the size in DER: PEM takes 4/3 of it, and can have lines of text between."""
MAX_INTERMEDIATES: Final = 3
"""Authorities between the signer's certificate and the one on the list; SHAKEN has one, delegation two."""
MAX_AUTHORITIES: Final = 1000

_PEM_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_TN_AUTH_LIST: Final = ObjectIdentifier(tnauthlist.OID)

_E164: Final = re.compile(r"[1-9][0-9]{6,14}\Z")

Chain = Sequence[x509.Certificate]
"""The signer's certificate, and others that may lead from it to an authority."""


class Refusal(StrEnum):
    """Why a signer outside the federation is not trusted."""

    CHAIN = "chain"
    """Its certificate leads to no authority on the list, or may not sign calls."""
    MEMBER = "member"
    """It claims what a member of the federation holds."""
    REVOKED = "revoked"
    """Its certificate, or one above it, is on a revocation list."""
    LIST = "list"
    """The list of authorities itself cannot be used."""


class ListedError(PeerError):
    """A signer is not trusted by the list; the message is the sentence for people."""

    def __init__(self, code: Refusal, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def read_chain(data: bytes) -> Chain:
    """Read the content at a signer's certificate URL: PEM, the signer's certificate first, or its DER alone.

    Raises MalformedError.
    """
    if len(data) > MAX_CHAIN_BYTES:
        raise MalformedError(f"it has more than {MAX_CHAIN_BYTES} bytes")
    count = data.count(_PEM_BEGIN)
    if count > MAX_CHAIN:
        raise MalformedError(f"it has more than {MAX_CHAIN} certificates")
    try:
        with library_errors():
            return x509.load_pem_x509_certificates(data) if count else [x509.load_der_x509_certificate(data)]
    except ProfileError:
        raise MalformedError("it is no certificate in PEM or DER") from None


@dataclass(frozen=True, slots=True)
class ListedCertificate:
    """A signer's certificate whose chain to an authority on the list was verified."""

    profile: CertificateProfile
    authority: str
    """The name of the authority on the list."""
    not_before_s: int
    not_after_s: int
    """The end of the period, from `not_before_s` on, in which every certificate of the chain is valid."""
    above: tuple[TnAuthList, ...] = ()
    """The lists of numbers and codes of the authorities in the chain that have one (RFC 8226 §5)."""
    revocable: tuple[Revocable, ...] = ()
    """The certificates that a revocation list can name: the chain without the authority on the list."""

    @property
    def organization(self) -> str:
        """The name of the signer, as its authority wrote it."""
        return self.profile.organization or self.profile.common_name or ""

    def check_time(self, now_s: float) -> None:
        """Check that the whole chain is valid at `now_s`; raises ListedError."""
        if now_s > self.not_after_s:
            raise ListedError(Refusal.CHAIN, "the signer's certificate has expired, or an authority's in its chain")
        if now_s < self.not_before_s:
            raise ListedError(
                Refusal.CHAIN, "the validity of the signer's certificate or of its chain has not begun"
            )

    def check_number(self, number: Tn, whose: str) -> None:
        """Check that the certificate has authority over `number`; raises CertificateRefused that names `whose`.

        A service provider code stands for an operator that answers for its calls: SHAKEN has no table of its
        numbers. A code covers only numbers in international form, so that no other spelling of a member's number
        escapes `Federation`. A certificate of the chain that lists numbers alone must cover the number.
        """
        listed = self.profile.tn_auth_list
        if listed is None:
            raise CertificateRefused(Distrust.NO_NUMBERS)
        is_international = _E164.match(number) is not None
        if not all(each.covers(number) or (each.spcs and is_international) for each in (listed, *self.above)):
            raise CertificateRefused(Distrust.AUTHORITY, whose)


class Authorities:
    """The certificate authorities that an operator trusts for calls from outside the federation."""

    def __init__(self, certificates: Sequence[x509.Certificate], until_s: float = math.inf) -> None:
        """`until_s` is when the list expires; raises MalformedError for an empty list or one that is too long."""
        if not 1 <= len(certificates) <= MAX_AUTHORITIES:
            raise MalformedError(f"a list has 1 to {MAX_AUTHORITIES} certificates of authorities")
        self.until_s = until_s
        self._store = Store(list(certificates))
        self._count = len(certificates)

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def judge(self, chain: Chain, now_s: float) -> ListedCertificate:
        """Verify the chain of a signer's certificate at `now_s`, and that it may sign calls; raises ListedError."""
        if now_s > self.until_s:
            raise ListedError(Refusal.LIST, "this operator's list of certificate authorities has expired")
        try:
            with library_errors():
                found = self._path(chain, now_s)
                return _listed(found)
        except ProfileError as error:
            raise ListedError(Refusal.CHAIN, f"the signer's certificate cannot be used: {error}") from None
        except CertificateRefused as refused:
            raise ListedError(Refusal.CHAIN, refused.about("the signer's certificate")) from None

    def _path(self, chain: Chain, now_s: float) -> Chain:
        """Return the path from the signer's certificate to the authority on the list."""
        moment = datetime.fromtimestamp(now_s, UTC)
        builder = PolicyBuilder().store(self._store).time(moment).max_chain_depth(MAX_INTERMEDIATES)
        verifier = builder.extension_policies(
            ca_policy=_OF_AUTHORITIES, ee_policy=_OF_SIGNERS
        ).build_client_verifier()
        try:
            return verifier.verify(chain[0], list(chain[1:])).chain
        except VerificationError:
            raise ListedError(Refusal.CHAIN, _why_not(chain, moment)) from None


def _may_certify(_policy: object, _certificate: object, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("its key usage does not admit signing certificates")


def _may_sign(_policy: object, _certificate: object, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.digital_signature:
        raise ValueError("its key usage does not admit digital signatures")


def _is_no_authority(_policy: object, _certificate: object, basic: x509.BasicConstraints | None) -> None:
    if basic is not None and basic.ca:
        raise ValueError("it is that of an authority")


_EITHER: Final = Criticality.AGNOSTIC
_OF_AUTHORITIES: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, _EITHER, None)
    .may_be_present(x509.KeyUsage, _EITHER, _may_certify)
)
_OF_SIGNERS: Final = (
    ExtensionPolicy.permit_all()
    .may_be_present(x509.BasicConstraints, _EITHER, _is_no_authority)
    .may_be_present(x509.KeyUsage, _EITHER, _may_sign)
)
"""The library checks the rest of a path: signatures, validity, names, cA, path lengths, critical extensions.

The Web PKI's rules for extensions are left out: SHAKEN's certificates have no alternative names, and many of
those in use lack key identifiers or serial numbers of the size that ATIS-1000080 §6.4.1 wants.
"""


def _why_not(chain: Chain, moment: datetime) -> str:
    """Say why there is no path, in our own words rather than the library's."""
    if any(moment > each.not_valid_after_utc for each in chain):
        return "the signer's certificate has expired, or an authority's in its chain"
    if any(moment < each.not_valid_before_utc for each in chain):
        return "the validity of the signer's certificate or of its chain has not begun"
    return "the signer's certificate leads to no authority on this operator's list"


def _listed(path: Chain) -> ListedCertificate:
    profile = read_issued(path[0].public_bytes(Encoding.DER))
    check_fitness(profile, Use.SIGN_CALLS)
    above = [found for each in path[1:] if (found := _numbers_of(each)) is not None]
    return ListedCertificate(
        profile,
        authority=_name_of(path[-1]),
        not_before_s=max(int(each.not_valid_before_utc.timestamp()) for each in path),
        not_after_s=min(int(each.not_valid_after_utc.timestamp()) for each in path),
        above=tuple(above),
        revocable=revocable_of(path),
    )


def _numbers_of(certificate: x509.Certificate) -> TnAuthList | None:
    for extension in certificate.extensions:
        if extension.oid == _TN_AUTH_LIST:
            assert isinstance(extension.value, x509.UnrecognizedExtension)
            try:
                return TnAuthList.parse(extension.value.value)
            except MalformedError as error:
                raise ProfileError("tn-auth-list", f"in the chain, {error}") from None
    return None


def _name_of(certificate: x509.Certificate) -> str:
    for oid in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME):
        for attribute in certificate.subject.get_attributes_for_oid(oid):
            if isinstance(attribute.value, str):
                return attribute.value
    return ""


class Federation:
    """The names, codes and numbers of all members of the ledger, which nobody else can claim."""

    def __init__(self, allotments: Mapping[str, Allotment]) -> None:
        """`allotments` are by organisation; the ledger lets no two members hold the same number."""
        self._organizations = frozenset(allotments)
        self._codes = frozenset(code for each in allotments.values() for code in each.spcs)
        self._holders = NumberHolders(allotments)

    def holds_number(self, number: Tn) -> bool:
        """Tell whether a member is allotted a number."""
        return bool(self._holders.holder_of(number))

    def check_apart(self, certificate: ListedCertificate) -> None:
        """Check that neither a signer's name nor its codes are a member's; raises ListedError."""
        listed = certificate.profile.tn_auth_list
        codes: Iterable[str] = () if listed is None else listed.spcs
        if certificate.organization in self._organizations or not self._codes.isdisjoint(codes):
            raise ListedError(
                Refusal.MEMBER, "the signer is a member of the federation, and its certificate is not on the ledger"
            )

    def check_foreign(self, number: Tn, whose: str) -> None:
        """Check that no member holds a number that an outside signer claims; raises ListedError with `whose`."""
        if self.holds_number(number):
            raise ListedError(
                Refusal.MEMBER,
                f"a member of the federation holds {whose}, and the signer's certificate is not on the ledger",
            )
