"""Revocation lists of authorities outside the federation: which count for a certificate, and what they say."""

import subprocess
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.pki import Signer, der_of, list_at, pem_of, revocation_list, root
from voice_dpki.errors import MalformedError
from voice_dpki.x509.listed import Authorities
from voice_dpki.x509.revocation import (
    MAX_LIST_BYTES,
    ListName,
    ListNotTrustedError,
    ListSigner,
    OlderListError,
    Revocable,
    RevocationList,
)

NOW_S = int(time.time())
URL = "https://pa.example/crl"
ROOT, OTHER, PA = root("Root CA", NOW_S), root("Other CA", NOW_S), root("STI-PA", NOW_S)
MIDDLE = ROOT.issue("Issuing CA", NOW_S, ca=True, extensions=(list_at(URL, PA.certificate.subject),))
LEAF = MIDDLE.issue("Carrier 1", NOW_S, extensions=(list_at(URL, PA.certificate.subject),))
SECOND = MIDDLE.issue("Carrier 2", NOW_S)


def of(signer: Signer) -> ListSigner:
    return ListSigner.of(signer.certificate)


OF_PA = of(PA)


def revocable(leaf: Signer = LEAF) -> tuple[Revocable, ...]:
    listed = Authorities([ROOT.certificate]).judge([leaf.certificate, MIDDLE.certificate], NOW_S)
    return listed.revocable


def read(*revoked: tuple[Signer, Signer | None], by: Signer = PA, **changes: Any) -> RevocationList:
    return RevocationList.parse(revocation_list(by, *revoked, now_s=NOW_S, **changes))


def test_what_of_a_chain_can_be_revoked() -> None:
    leaf, middle = revocable()
    assert (leaf.serial, leaf.authority, leaf.url) == (LEAF.certificate.serial_number, of(MIDDLE), URL)
    assert (middle.serial, middle.authority) == (MIDDLE.certificate.serial_number, of(ROOT))
    assert leaf.list_issuer == OF_PA.name
    assert revocable(SECOND)[0].url == ""


def test_the_list_of_the_administrator_names_certificates_of_several_authorities() -> None:
    leaf, middle = revocable()
    found = read((SECOND, MIDDLE), (LEAF, None))
    found.check_signed(leaf, [OF_PA], NOW_S)
    assert found.names(leaf)
    assert not found.names(middle)
    assert read((MIDDLE, ROOT)).names(middle)


def test_an_entry_is_of_the_authority_that_it_names() -> None:
    """Two authorities may have given the same number; an entry without one has that of the entry before it."""
    leaf, _ = revocable()
    assert not read((LEAF, OTHER)).names(leaf)
    assert not read((LEAF, None)).names(leaf)
    assert not read((SECOND, OTHER), (LEAF, None)).names(leaf)


def test_which_list_a_certificate_names() -> None:
    """An authority's own list is known by its key, too, since anybody can take its name (RFC 5280 §6.3.3)."""
    one = revocable()[0]
    own = ListName(URL, one.authority.name, one.authority.key_der)
    assert replace(one, list_issuer=None).list_name == own
    assert replace(one, list_issuer=one.authority.name).list_name == own
    assert replace(one, list_issuer=OF_PA.name).list_name == ListName(URL, OF_PA.name, b"")


def test_a_list_remembers_so_many_keys_alone() -> None:
    found, signed = read((LEAF, MIDDLE)), 0
    for _ in range(70):
        twin = ListSigner.of(root("STI-PA", NOW_S).certificate)
        with pytest.raises(ListNotTrustedError):
            found.check_signed(revocable()[0], [twin], NOW_S)
        signed = max(signed, len(found._tried))
    assert signed == 64
    found.check_signed(revocable()[0], [OF_PA], NOW_S)


def test_names_are_compared_as_people_read_them() -> None:
    """Whatever the order, case and white space in a list, a certificate that it revokes is revoked."""
    leaf, _ = revocable()
    parts = [
        x509.NameAttribute(each.oid, str(each.value).lower().replace(" ", "  "))
        for each in reversed(list(MIDDLE.certificate.subject))
    ]
    written_otherwise = ROOT.issue("Issuing CA", NOW_S, ca=True, subject=x509.Name(parts))
    assert read((LEAF, written_otherwise)).names(leaf)


def test_an_authority_may_have_a_list_of_its_own() -> None:
    leaf = MIDDLE.issue("Carrier 1", NOW_S, extensions=(list_at(URL),))
    (first, _) = revocable(leaf)
    found = read((leaf, None), by=MIDDLE, indirect=False)
    found.check_signed(first, [], NOW_S)
    assert found.names(first)


MAY_NOT = root("STI-PA", NOW_S, usage="digital_signature")
EXPIRED = root("STI-PA", NOW_S, days=(-30, -1))
IMPOSTOR = root("STI-PA", NOW_S)
ELSEWHERE = x509.IssuingDistributionPoint(
    [x509.UniformResourceIdentifier("https://pa.example/other")], None, False, False, None, True, False
)
NOT_TRUSTED = {
    "of nobody who was configured": (read(), []),
    "of another key": (read(by=IMPOSTOR), [OF_PA]),
    "of a signer that may not sign lists": (read(by=MAY_NOT), [of(MAY_NOT)]),
    "of an expired signer": (read(by=EXPIRED), [of(EXPIRED)]),
    "of another issuer than the certificate names": (read(by=OTHER), [of(OTHER)]),
    "of an authority for itself": (read(by=MIDDLE, indirect=False), [of(MIDDLE)]),
    "of another place": (
        read(indirect=False, extensions=((ELSEWHERE, True),)),
        [OF_PA],
    ),
}


@pytest.mark.parametrize("case", NOT_TRUSTED)
def test_lists_that_do_not_count(case: str) -> None:
    found, signers = NOT_TRUSTED[case]
    with pytest.raises(ListNotTrustedError):
        found.check_signed(revocable()[0], signers, NOW_S)


def test_a_list_for_several_authorities_is_not_signed_by_one_of_them() -> None:
    leaf = MIDDLE.issue("Carrier 1", NOW_S, extensions=(list_at(URL),))
    found = read((leaf, MIDDLE), by=MIDDLE)
    with pytest.raises(ListNotTrustedError):
        found.check_signed(revocable(leaf)[0], [OF_PA], NOW_S)
    found.check_signed(revocable(leaf)[0], [of(MIDDLE)], NOW_S)


def test_another_authority_of_the_same_name_revokes_nothing() -> None:
    leaf = MIDDLE.issue("Carrier 1", NOW_S, extensions=(list_at(URL),))
    twin = ROOT.issue("Issuing CA", NOW_S, ca=True)
    with pytest.raises(ListNotTrustedError):
        read((leaf, None), by=twin, indirect=False).check_signed(revocable(leaf)[0], [], NOW_S)


def test_a_list_is_in_force_for_a_time() -> None:
    found = read(days=(0, 1))
    assert [found.is_current(NOW_S + each) for each in (-301, -299, 0, 86_399, 86_400)] == [
        False,
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("number", "kept", "by_time"),
    [(None, None, True), (7, None, True), (None, 7, True), (7, 7, True), (6, 7, False), (8, 7, False)],
)
def test_which_of_two_lists_is_older(number: int | None, kept: int | None, by_time: bool) -> None:
    """RFC 5280 §5.2.3: numbers decide where both have one, whatever the times say."""
    seen = replace(read(), number=kept, this_update_s=NOW_S)
    for this_update_s in (NOW_S - 1, NOW_S, NOW_S + 1):
        found = replace(read(), number=number, this_update_s=this_update_s)
        is_older = this_update_s < NOW_S if by_time else (number or 0) < (kept or 0)
        with pytest.raises(OlderListError) if is_older else nullcontext():
            found.check_not_older(seen)


def some(**changes: Any) -> tuple[x509.ExtensionType, bool]:
    given: dict[str, Any] = {
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": True,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(None, None, **(given | changes)), True


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
REFUSED: dict[str, Any] = {
    "a list of changes": {"extensions": ((x509.DeltaCRLIndicator(1), True),)},
    "a critical extension of the list": {"extensions": ((UNKNOWN, True),)},
    "a critical extension of an entry": {"entry_extensions": ((UNKNOWN, True),)},
    "of users alone": {"indirect": False, "extensions": (some(only_contains_user_certs=True),)},
    "of authorities alone": {"indirect": False, "extensions": (some(only_contains_ca_certs=True),)},
    "of some reasons alone": {
        "indirect": False,
        "extensions": (some(only_some_reasons=frozenset([x509.ReasonFlags.key_compromise])),),
    },
    "an authority in a list that is not for several": {"indirect": False},
}


@pytest.mark.parametrize("case", REFUSED)
def test_lists_that_cannot_be_used(case: str) -> None:
    with pytest.raises(MalformedError):
        read((LEAF, MIDDLE), **REFUSED[case])


def test_an_extension_that_is_not_critical_changes_nothing() -> None:
    assert read((LEAF, MIDDLE), extensions=((UNKNOWN, False),), entry_extensions=((UNKNOWN, False),)).names(
        revocable()[0]
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        *(
            (data, "no revocation list")
            for data in (b"", b"\x30", pem_of(LEAF.certificate), der_of(LEAF.certificate))
        ),
        (b"x" * MAX_LIST_BYTES, "no revocation list"),
        (b"x" * (MAX_LIST_BYTES + 1), "more than"),
    ],
    ids=range(6),
)
def test_what_is_no_list(data: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        RevocationList.parse(data)


WHOLE = x509.load_pem_x509_crl(revocation_list(PA, (LEAF, MIDDLE), now_s=NOW_S)).public_bytes(Encoding.DER)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_any_octet_changed_is_a_list_or_is_refused(at: int, octet: int) -> None:
    changed = WHOLE[:at] + bytes([octet]) + WHOLE[at + 1 :]
    try:
        RevocationList.parse(changed).check_signed(revocable()[0], [OF_PA], NOW_S)
    except MalformedError:
        return
    assert changed == WHOLE


CONFIG = """\
[ca]
default_ca = one
[one]
database = index.txt
default_md = sha256
default_crl_days = 1
"""


def test_a_list_that_openssl_made(tmp_path: Path) -> None:
    leaf = MIDDLE.issue("Carrier 1", NOW_S, extensions=(list_at(URL),))
    (first, _) = revocable(leaf)
    key = MIDDLE.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ca.pem").write_bytes(pem_of(MIDDLE.certificate) + key)
    (tmp_path / "ca.cnf").write_text(CONFIG)
    entry = ("R", "491231235959Z", "260101000000Z,keyCompromise", f"{first.serial:040X}", "unknown", "/CN=x")
    (tmp_path / "index.txt").write_text("\t".join(entry) + "\n")
    command = "openssl ca -gencrl -config ca.cnf -cert ca.pem -keyfile ca.pem -out list.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    found = RevocationList.parse((tmp_path / "list.pem").read_bytes())
    found.check_signed(first, [], NOW_S)
    assert found.names(first)
    assert found.is_current(time.time())
