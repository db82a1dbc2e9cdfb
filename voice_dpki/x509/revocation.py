"""Revocation lists of certificate authorities outside the federation (RFC 5280 §5 and §6.3).

SHAKEN has one list for all authorities, which its policy administrator signs: each certificate names the list's URL
and issuer, and each entry the authority whose certificate it revokes (an indirect list, ATIS-1000080 §6.4.1). An
authority may have a list of its own as well.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from voice_dpki.errors import MalformedError
from voice_dpki.names import ascii_lower
from voice_dpki.x509.profile import ProfileError, library_errors

MAX_LIST_BYTES: Final = 1 << 20
"""Bytes of one list, enough for some 25,000 entries."""
MAX_SIGNERS: Final = 64
"""Keys for which the verification of one list is cached."""
CLOCKS_APART_S: Final = 300
"""How far the clock of a list's issuer may be ahead of ours."""

_PEM_BEGIN: Final = b"-----BEGIN X509 CRL-----"
_ENTRY_EXTENSIONS: Final = (x509.CertificateIssuer, x509.CRLReason, x509.InvalidityDate)
_LIST_EXTENSIONS: Final = (x509.IssuingDistributionPoint, x509.AuthorityKeyIdentifier, x509.CRLNumber)

FoldedName = tuple[tuple[str, str], ...]
"""A distinguished name, folded so that case, white space (RFC 5280 §7.1) and the order of attributes do not count.

SHAKEN's certificates name the issuer of their list in another order than the list itself does.
"""


class ListNotTrustedError(MalformedError):
    """A list is not the one that a certificate names, or no admitted signer has signed it."""


class OlderListError(MalformedError):
    """A list is older than one that was seen before."""


@dataclass(frozen=True, slots=True)
class ListSigner:
    """A possible signer of a list: the fields of its certificate that decide about that, read once."""

    name: FoldedName
    may_sign: bool
    """Whether its key usage admits signing lists."""
    not_before_s: float
    not_after_s: float
    key_der: bytes
    certificate: x509.Certificate = field(repr=False, compare=False)

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "ListSigner":
        """Read a certificate; raises ProfileError."""
        with library_errors():
            usages = [each.value for each in certificate.extensions if isinstance(each.value, x509.KeyUsage)]
            return cls(
                _folded(certificate.subject),
                all(each.crl_sign for each in usages),
                certificate.not_valid_before_utc.timestamp(),
                certificate.not_valid_after_utc.timestamp(),
                certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
                certificate,
            )


class ListName(NamedTuple):
    """The list that a certificate names: its URL, its issuer and the issuer's key."""

    url: str
    issuer: FoldedName
    key_der: bytes
    """The authority's key; empty for a list that the authority does not issue itself."""


@dataclass(frozen=True, slots=True)
class Revocable:
    """A certificate of a verified path, and the list that would name it."""

    serial: int
    authority: ListSigner
    """Its issuer."""
    url: str = ""
    """URL of the list; "" if the certificate names none."""
    list_issuer: FoldedName | None = None
    """Issuer of the list, None if the certificate names none (cRLIssuer): then it is the authority."""

    @property
    def list_name(self) -> ListName:
        """The list that would name it. Lists that two authorities issue themselves are never the same."""
        authority = self.authority
        if self.list_issuer in (None, authority.name):
            return ListName(self.url, authority.name, authority.key_der)
        return ListName(self.url, self.list_issuer or (), b"")


def revocable_of(path: Sequence[x509.Certificate]) -> tuple[Revocable, ...]:
    """Return the certificates of a verified path that a list can revoke: all but the last. Raises ProfileError."""
    with library_errors():
        return tuple(_revocable(each, by) for each, by in pairwise(path))


def _revocable(certificate: x509.Certificate, issuer: x509.Certificate) -> Revocable:
    authority = ListSigner.of(issuer)
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.CRLDistributionPoints):
            for point in extension.value:
                url = next((_urls(point.full_name)), "")
                if url and point.reasons is None:  # a list for some reasons alone is not enough
                    named = _directory(point.crl_issuer)
                    by = None if named is None else _folded(named)
                    return Revocable(certificate.serial_number, authority, url, by)
    return Revocable(certificate.serial_number, authority)


def _urls(names: Sequence[x509.GeneralName] | None) -> Iterator[str]:
    return (each.value for each in names or () if isinstance(each, x509.UniformResourceIdentifier))


def _directory(names: Sequence[x509.GeneralName] | None) -> x509.Name | None:
    return next((each.value for each in names or () if isinstance(each, x509.DirectoryName)), None)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A list that was read; `check_signed` says whether it counts for a certificate."""

    issuer: FoldedName
    is_indirect: bool
    """Whether it names certificates of several authorities."""
    urls: frozenset[str]
    """URLs that it gives for itself; empty if it gives none."""
    this_update_s: float
    next_update_s: float
    """From this time on it is outdated."""
    number: int | None
    """Its number among the issuer's lists (cRLNumber, RFC 5280 §5.2.3); None without one."""
    _crl: x509.CertificateRevocationList
    _revoked: frozenset[tuple[FoldedName, int]]
    _tried: dict[bytes, bool] = field(default_factory=dict)
    """By public key: whether it verifies the list."""

    @classmethod
    def parse(cls, data: bytes) -> "RevocationList":
        """Read a list in DER or PEM; raises MalformedError, also for one that covers some certificates alone."""
        if len(data) > MAX_LIST_BYTES:
            raise MalformedError(f"it has more than {MAX_LIST_BYTES} bytes")
        try:
            with library_errors():
                crl = x509.load_pem_x509_crl(data) if _PEM_BEGIN in data else x509.load_der_x509_crl(data)
                return _read(crl)
        except ProfileError:
            raise MalformedError("it is no revocation list in PEM or DER") from None

    def names(self, revocable: Revocable) -> bool:
        """Tell whether it revokes a certificate."""
        return (revocable.authority.name, revocable.serial) in self._revoked

    def is_current(self, now_s: float) -> bool:
        """Tell whether it is in force at `now_s`; its thisUpdate may lie CLOCKS_APART_S ahead."""
        return self.this_update_s - CLOCKS_APART_S <= now_s < self.next_update_s

    def check_not_older(self, kept: "RevocationList") -> None:
        """Check that a list is not older than one of the same issuer that is kept; raises OlderListError.

        Their numbers decide if both have one and they differ; otherwise thisUpdate decides.
        """
        if self.number is None or kept.number is None or self.number == kept.number:
            is_older = self.this_update_s < kept.this_update_s
        else:
            is_older = self.number < kept.number
        if is_older:
            raise OlderListError("the revocation list is older than the one that was seen before")

    def check_signed(self, revocable: Revocable, signers: Sequence[ListSigner], now_s: float) -> None:
        """Check that the list counts for a certificate (RFC 5280 §6.3.3); raises ListNotTrustedError.

        A list for several authorities is signed by one of the configured `signers`, any other by the authority.
        """
        if self.urls and revocable.url not in self.urls:
            raise ListNotTrustedError("the revocation list is another one than the certificate names")
        expected = revocable.list_issuer or (None if self.is_indirect else revocable.authority.name)
        if expected is not None and expected != self.issuer:
            raise ListNotTrustedError("another issuer has the revocation list than the certificate names")
        candidates = signers if self.is_indirect else (revocable.authority,)
        if not any(self._is_by(each, now_s) for each in candidates):
            raise ListNotTrustedError("nobody who may has signed the revocation list")

    def _is_by(self, signer: ListSigner, now_s: float) -> bool:
        is_valid = signer.not_before_s <= now_s <= signer.not_after_s
        if not (signer.name == self.issuer and signer.may_sign and is_valid):
            return False
        if signer.key_der not in self._tried:
            if len(self._tried) >= MAX_SIGNERS:
                self._tried.clear()
            self._tried[signer.key_der] = self._verifies(signer.certificate)
        return self._tried[signer.key_der]

    def _verifies(self, signer: x509.Certificate) -> bool:
        try:
            return self._crl.is_signature_valid(signer.public_key())  # type: ignore[arg-type]
        except (TypeError, UnsupportedAlgorithm):  # a key of a kind that signs no certificates
            return False


def _read(crl: x509.CertificateRevocationList) -> RevocationList:
    place = _place(crl)
    if crl.next_update_utc is None:
        raise MalformedError("the revocation list does not say until when it counts")
    is_indirect = place is not None and place.indirect_crl
    return RevocationList(
        issuer=_folded(crl.issuer),
        is_indirect=is_indirect,
        urls=frozenset(_urls(place.full_name) if place is not None else ()),
        this_update_s=crl.last_update_utc.timestamp(),
        next_update_s=crl.next_update_utc.timestamp(),
        number=next(
            (each.value.crl_number for each in crl.extensions if isinstance(each.value, x509.CRLNumber)), None
        ),
        _crl=crl,
        _revoked=frozenset(_entries(crl, is_indirect=is_indirect)),
    )


def _place(crl: x509.CertificateRevocationList) -> x509.IssuingDistributionPoint | None:
    """Return the list's issuing distribution point (RFC 5280 §5.2.5); raises MalformedError."""
    found = None
    for extension in crl.extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator) or (
            extension.critical and not isinstance(value, _LIST_EXTENSIONS)
        ):
            raise MalformedError("the revocation list has an extension that is not supported")
        if isinstance(value, x509.IssuingDistributionPoint):
            found = value
    if found is not None and (
        found.only_some_reasons
        or found.only_contains_user_certs
        or found.only_contains_ca_certs
        or found.only_contains_attribute_certs
    ):
        raise MalformedError("the revocation list tells of some certificates alone")
    return found


def _entries(crl: x509.CertificateRevocationList, *, is_indirect: bool) -> Iterator[tuple[FoldedName, int]]:
    """Yield authority and serial number of each entry; one that names no authority has that of the one before."""
    authority = _folded(crl.issuer)
    for entry in crl:
        for extension in entry.extensions:
            if extension.critical and not isinstance(extension.value, _ENTRY_EXTENSIONS):
                raise MalformedError("an entry of the revocation list has an extension that is not supported")
            if isinstance(extension.value, x509.CertificateIssuer):
                named = _directory(list(extension.value))
                if named is None or not is_indirect:
                    raise MalformedError("an entry of the revocation list names no authority that it could be of")
                authority = _folded(named)
        yield authority, entry.serial_number


def _folded(name: x509.Name) -> FoldedName:
    return tuple(sorted((each.oid.dotted_string, " ".join(ascii_lower(str(each.value)).split())) for each in name))
