"""Names in a certificate that the project does not use; only their kinds are reported."""

from collections.abc import Iterator, Mapping

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from voice_dpki.names import is_printable

MAX_NAME_LENGTH = 64
"""ub-common-name and ub-organization-name of RFC 5280, appendix A.1."""

_OTHER_NAMES: dict[type[x509.GeneralName], str] = {
    x509.IPAddress: "ip-address",
    x509.RFC822Name: "email",
    x509.DirectoryName: "directory",
    x509.OtherName: "other",
    x509.RegisteredID: "registered-id",
}
"""Kinds of general names that the ledger does not allot. The library refuses x400Address and ediPartyName."""

_PLAIN_ATTRIBUTES = frozenset(
    {
        NameOID.ORGANIZATION_NAME,
        NameOID.COMMON_NAME,
        NameOID.COUNTRY_NAME,
        NameOID.STATE_OR_PROVINCE_NAME,
        NameOID.LOCALITY_NAME,
        NameOID.SERIAL_NUMBER,
    }
)


def other_names(subject: x509.Name, extensions: Mapping[ObjectIdentifier, x509.ExtensionType]) -> Iterator[str]:
    """Yield the kinds of names in a certificate that are neither organisation, common name, URI nor DNS name.

    They are "ip-address", "email", "directory", "other", "registered-id", "issuer" (alternative names of the
    issuer) and "subject" (an attribute of the subject that can name somebody, or is no printable text).
    """
    names = extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    if isinstance(names, x509.SubjectAlternativeName):
        present = {type(name) for name in names}
        yield from (kind for of, kind in _OTHER_NAMES.items() if of in present)
    if ExtensionOID.ISSUER_ALTERNATIVE_NAME in extensions:
        yield "issuer"
    if not all(map(_is_plain, subject)):
        yield "subject"


def _is_plain(attribute: x509.NameAttribute[str | bytes]) -> bool:
    """Tell whether a subject's attribute is in `_PLAIN_ATTRIBUTES`, and is printable and not too long."""
    value = attribute.value
    if attribute.oid not in _PLAIN_ATTRIBUTES or not isinstance(value, str):
        return False
    return 1 <= len(value) <= MAX_NAME_LENGTH and is_printable(value)
