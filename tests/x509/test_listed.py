"""Signers outside the federation: chains to listed authorities, and what members hold."""

import contextlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from tests.pki import SPC, Signer, der_of, numbers, pem_of, root
from tests.present import present
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.x509 import tnauthlist
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.listed import (
    MAX_CHAIN,
    MAX_CHAIN_BYTES,
    Authorities,
    Federation,
    ListedCertificate,
    ListedError,
    Refusal,
    read_chain,
)
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import CertificateRefused, Distrust
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

NOW_S = 1_790_000_000
ANYBODY = Tn("12155551212")

SHAKEN = Path(__file__).parents[1] / "vectors/stir/shaken-chain.pem"
"""A signer's certificate of 2023, its authority's and the root."""
IN_2023_S = 1_695_000_000

ROOT = root("Root CA", NOW_S)
MIDDLE = ROOT.issue("Issuing CA", NOW_S, ca=True)
LEAF = MIDDLE.issue("Carrier 1", NOW_S)
LISTED = Authorities([ROOT.certificate])


def judge(*chain: Signer, now_s: float = NOW_S) -> ListedCertificate:
    return LISTED.judge([each.certificate for each in chain], now_s)


def test_a_chain_to_an_authority_on_the_list() -> None:
    found = judge(LEAF, MIDDLE)
    assert (found.organization, found.authority) == ("Carrier 1", "Root CA")
    assert found.profile.digest == digest_of(der_of(LEAF.certificate))
    found.check_number(ANYBODY, "the number")
    found.check_time(NOW_S)


def test_an_authority_that_issues_itself_may_be_on_the_list() -> None:
    assert Authorities([MIDDLE.certificate]).judge([LEAF.certificate], NOW_S).authority == "Issuing CA"


def test_a_chain_that_signed_calls_is_trusted() -> None:
    leaf, middle, top = read_chain(SHAKEN.read_bytes())
    found = Authorities([top]).judge([leaf, middle], IN_2023_S)
    assert (found.organization, found.authority) == ("Comcast", "Comcast")
    assert present(found.profile.tn_auth_list).spcs == ("318J",)
    found.check_number(ANYBODY, "the number")
    with pytest.raises(ListedError, match="has expired"):
        Authorities([top]).judge([leaf, middle], NOW_S)
    with pytest.raises(ListedError, match="leads to no authority"):
        LISTED.judge([leaf, middle], IN_2023_S)


CRITICAL = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
CONSTRAINED = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.5.5.7.1.27"), b"\x30\x00")
STRANGER = root("Root CA", NOW_S)


def under(**changes: Any) -> tuple[Signer, ...]:
    """A chain whose second authority is made otherwise."""
    middle = ROOT.issue("Issuing CA", NOW_S, ca=True, **changes)
    return middle.issue("Carrier 1", NOW_S), middle


def deep(count: int) -> tuple[Signer, ...]:
    chain = [ROOT]
    for number in range(count):
        chain.append(chain[-1].issue(f"CA {number}", NOW_S, ca=True))
    return chain[-1].issue("Carrier 1", NOW_S), *reversed(chain[1:])


REFUSED: dict[str, Callable[[], tuple[Signer, ...]]] = {
    "expired": lambda: (MIDDLE.issue("Carrier 1", NOW_S, days=(-30, -1)), MIDDLE),
    "not yet valid": lambda: (MIDDLE.issue("Carrier 1", NOW_S, days=(1, 30)), MIDDLE),
    "an expired authority": lambda: under(days=(-30, -1)),
    "without its authority": lambda: (LEAF,),
    "another root of that name": lambda: (STRANGER.issue("Carrier 1", NOW_S), STRANGER),
    "issued by a signer of calls": lambda: (LEAF.issue("Thief", NOW_S), LEAF, MIDDLE),
    "issued by a key that may not certify": lambda: under(usage="digital_signature"),
    "an authority that signs calls": lambda: (MIDDLE,),
    "a key that may not sign": lambda: (MIDDLE.issue("Carrier 1", NOW_S, usage="key_agreement"), MIDDLE),
    "a key on another curve": lambda: (MIDDLE.issue("Carrier 1", NOW_S, curve=ec.SECP384R1()), MIDDLE),
    "no numbers and no code": lambda: (MIDDLE.issue("Carrier 1", NOW_S, listed=None), MIDDLE),
    "malformed constraints of claims": lambda: (
        MIDDLE.issue("Carrier 1", NOW_S, extensions=((CONSTRAINED, False),)),
        MIDDLE,
    ),
    "a critical extension": lambda: (MIDDLE.issue("Carrier 1", NOW_S, extensions=((CRITICAL, True),)), MIDDLE),
    "a critical extension above": lambda: under(extensions=((CRITICAL, True),)),
    "a path that is too long for its authority": lambda: (
        (middle := ROOT.issue("CA", NOW_S, ca=True, path_length=0)).issue("CA 2", NOW_S, ca=True).issue("C", NOW_S),
        middle,
    ),
    "too many authorities": lambda: deep(4),
    "a self-signed certificate": lambda: (root("Carrier 1", NOW_S),),
}


@pytest.mark.parametrize("case", REFUSED)
def test_everything_else_is_refused(case: str) -> None:
    with pytest.raises(ListedError) as refused:
        judge(*REFUSED[case]())
    assert refused.value.code is Refusal.CHAIN


EXPIRED = "the signer's certificate has expired, or an authority's in its chain"
NOT_BEGUN = "the validity of the signer's certificate or of its chain has not begun"
NO_PATH = "the signer's certificate leads to no authority on this operator's list"
WHY = {
    "expired": EXPIRED,
    "an expired authority": EXPIRED,
    "not yet valid": NOT_BEGUN,
    "a key on another curve": "the signer's certificate cannot be used: the key is on secp384r1, and only P-256 is "
    "admitted",
    "no numbers and no code": "the signer's certificate has no TNAuthList, so it has authority over no number",
    "malformed constraints of claims": "the signer's certificate cannot be used: claim constraints: no member is "
    "there (RFC 8226 §8)",
}
"""What the operator reads; of all others, that there is no path."""


@pytest.mark.parametrize("case", REFUSED)
def test_why_it_is_refused(case: str) -> None:
    with pytest.raises(ListedError) as refused:
        judge(*REFUSED[case]())
    assert str(refused.value) == WHY.get(case, NO_PATH)


def test_a_stranger_whose_validity_begins_or_ends_now() -> None:
    """Both ends of a validity are included (RFC 5280 §4.1.2.5), so that it is not why there is no path."""
    for days in (0, 30), (-30, 0):
        with pytest.raises(ListedError) as refused:
            judge(STRANGER.issue("Carrier 1", NOW_S, days=days))
        assert str(refused.value) == NO_PATH


def test_an_authority_does_not_sign_calls_even_if_its_key_may() -> None:
    with pytest.raises(ListedError) as refused:
        judge(ROOT.issue("Issuing CA", NOW_S, ca=True, usage="digital_signature", listed=numbers("12155551000", 9)))
    assert str(refused.value) == NO_PATH


def test_extensions_that_a_chain_may_lack() -> None:
    """RFC 5280 §4.2.1.3, §4.2.1.9: key usage limits where it is there, and a CA must have basicConstraints."""
    middle = ROOT.issue("Issuing CA", NOW_S, ca=True, usage=None)
    assert judge(middle.issue("Carrier 1", NOW_S, usage=None, basic=False), middle).authority == "Root CA"
    with pytest.raises(ListedError):
        judge(*under(basic=False))


OURS_ALONE = {
    "a key that may not sign", "a key on another curve", "no numbers and no code",
    "malformed constraints of claims", "an authority that signs calls",
}  # fmt: skip
"""What keeps a certificate from signing calls, and is no fault in its path. openssl has no limit of authorities."""


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("case", ["good", *(case for case in REFUSED if case != "too many authorities")])
def test_openssl_finds_the_same_paths(tmp_path: Path, case: str) -> None:
    leaf, *others = (LEAF, MIDDLE) if case == "good" else REFUSED[case]()
    for name, certificates in (("root", [ROOT]), ("leaf", [leaf]), ("others", [*others, ROOT])):
        (tmp_path / name).write_bytes(pem_of(*(each.certificate for each in certificates)))
    command = ["openssl", "verify", "-attime", str(NOW_S), "-CAfile", "root"]
    done = subprocess.run([*command, "-untrusted", "others", "leaf"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode == 0) is (case in OURS_ALONE or case == "good"), done.stdout + done.stderr


def test_three_authorities_between_are_not_too_many() -> None:
    assert judge(*deep(3)).authority == "Root CA"


def test_the_shortest_validity_counts() -> None:
    found = judge(*under(days=(-1, 2)))
    found.check_time(NOW_S + 2 * 86_400)
    with pytest.raises(ListedError, match="expired"):
        found.check_time(NOW_S + 2 * 86_400 + 1)
    with pytest.raises(ListedError, match="not begun"):
        found.check_time(NOW_S - 2 * 86_400)


def test_a_list_that_has_expired_vouches_for_nobody() -> None:
    with pytest.raises(ListedError) as refused:
        Authorities([ROOT.certificate], NOW_S - 1).judge([LEAF.certificate, MIDDLE.certificate], NOW_S)
    assert refused.value.code is Refusal.LIST


def test_a_list_of_numbers_is_kept_to() -> None:
    found = judge(MIDDLE.issue("Enterprise", NOW_S, listed=numbers("12155551000", 1000)), MIDDLE)
    found.check_number(Tn("12155551212"), "the number")
    with pytest.raises(CertificateRefused) as refused:
        found.check_number(Tn("12155552000"), "the number")
    assert refused.value.code is Distrust.AUTHORITY


def test_nobody_passes_on_more_than_he_has() -> None:
    middle = ROOT.issue("Subscriber", NOW_S, ca=True, listed=numbers("12155551000", 100))
    found = judge(middle.issue("Enterprise", NOW_S, listed=numbers("12155551000", 1000)), middle)
    found.check_number(Tn("12155551099"), "the number")
    with pytest.raises(CertificateRefused):
        found.check_number(Tn("12155551100"), "the number")


@pytest.mark.parametrize("number", ["0493023125001", "00493023125001", "123456", "*67", "1215555121#", "1" * 16])
def test_a_code_stands_for_international_numbers_alone(number: str) -> None:
    with pytest.raises(CertificateRefused):
        judge(LEAF, MIDDLE).check_number(Tn(number), "the number")


@pytest.mark.parametrize(
    ("number", "international"), [("1234567", True), ("123456789012345", True), ("012345678", False)]
)
def test_numbers_in_international_form_have_7_to_15_digits(number: str, international: bool) -> None:
    with contextlib.nullcontext() if international else pytest.raises(CertificateRefused):
        judge(LEAF, MIDDLE).check_number(Tn(number), "the number")


def test_without_a_list_there_is_authority_over_no_number() -> None:
    found = judge(LEAF, MIDDLE)
    bare = replace(found, profile=replace(found.profile, tn_auth_list=None))
    with pytest.raises(CertificateRefused) as refused:
        bare.check_number(ANYBODY, "the number")
    assert refused.value.code is Distrust.NO_NUMBERS


def test_the_lists_of_the_authorities_alone_are_kept_apart() -> None:
    middle = ROOT.issue("Subscriber", NOW_S, ca=True, listed=numbers("12155551000", 100))
    assert judge(middle.issue("Enterprise", NOW_S), middle).above == (numbers("12155551000", 100),)
    assert judge(LEAF, MIDDLE).above == ()


def test_a_malformed_list_in_the_chain() -> None:
    malformed = x509.UnrecognizedExtension(ObjectIdentifier(tnauthlist.OID), b"\x30\x00")
    with pytest.raises(
        ListedError, match="cannot be used: in the chain, a TNAuthList has at least one entry"
    ) as refused:
        judge(*under(extensions=((malformed, False),)))
    assert refused.value.code is Refusal.CHAIN


@pytest.mark.parametrize(
    ("organization", "common_name", "name"), [("O", "C", "O"), (None, "C", "C"), ("O", None, "O"), (None, None, "")]
)
def test_the_name_of_a_signer(organization: str | None, common_name: str | None, name: str) -> None:
    found = judge(LEAF, MIDDLE)
    profile = replace(found.profile, organization=organization, common_name=common_name)
    assert replace(found, profile=profile).organization == name


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({NameOID.COMMON_NAME: "C", NameOID.ORGANIZATION_NAME: "O"}, "O"),
        ({NameOID.COMMON_NAME: "C", NameOID.COUNTRY_NAME: "US"}, "C"),
        ({NameOID.COUNTRY_NAME: "US"}, ""),
    ],
)
def test_the_name_of_an_authority(parts: dict[ObjectIdentifier, str], name: str) -> None:
    subject = x509.Name([x509.NameAttribute(oid, text) for oid, text in parts.items()])
    top = root("", NOW_S, subject=subject)
    leaf = top.issue("Carrier 1", NOW_S)
    assert Authorities([top.certificate]).judge([leaf.certificate], NOW_S).authority == name


def test_a_list_of_authorities_is_valid_until_its_end() -> None:
    listed = Authorities([ROOT.certificate, MIDDLE.certificate], NOW_S)
    assert len(listed) == 2
    listed.judge([LEAF.certificate, MIDDLE.certificate], NOW_S)
    with pytest.raises(ListedError):
        listed.judge([LEAF.certificate, MIDDLE.certificate], NOW_S + 1)


FEDERATION = Federation(
    {
        "Operator A": Allotment(ranges=(TnRange(Tn("493023125000"), 1000), TnRange(Tn("4930"), 2)), spcs=("D123",)),
        "Operator B": Allotment(ranges=(TnRange(Tn("442079460000"), 10_000),)),
        "Vendor": Allotment(),
    }
)


@pytest.mark.parametrize(
    ("number", "held"),
    [
        ("493023125000", True), ("493023125999", True), ("493023126000", False), ("493023124999", False),
        ("442079460000", True), ("442079470000", False), ("4930", True), ("4932", False), ("49302312500", False),
        ("49302312500*", False), ("12155551212", False), ("1", False),
    ],
)  # fmt: skip
def test_what_members_hold(number: str, held: bool) -> None:
    assert FEDERATION.holds_number(Tn(number)) is held


@given(st.from_regex(r"[0-9#*]{1,15}", fullmatch=True))
def test_members_hold_what_their_ranges_cover(number: str) -> None:
    ranges = [TnRange(Tn("493023125000"), 1000), TnRange(Tn("4930"), 2), TnRange(Tn("442079460000"), 10_000)]
    assert FEDERATION.holds_number(Tn(number)) is any(entry.covers(Tn(number)) for entry in ranges)


@pytest.mark.parametrize(
    ("name", "listed", "is_member"),
    [
        ("Carrier 1", SPC, False),
        ("Operator A", SPC, True),
        ("Vendor", SPC, True),
        ("Carrier 1", TnAuthList(spcs=("D123",)), True),
    ],
)
def test_a_member_is_known_by_name_or_code(name: str, listed: TnAuthList, is_member: bool) -> None:
    found = judge(MIDDLE.issue(name, NOW_S, listed=listed), MIDDLE)
    if not is_member:
        FEDERATION.check_apart(found)
        return
    with pytest.raises(ListedError) as refused:
        FEDERATION.check_apart(found)
    assert refused.value.code is Refusal.MEMBER


def test_a_members_number_is_nobody_elses() -> None:
    FEDERATION.check_foreign(ANYBODY, "the caller's number")
    with pytest.raises(ListedError, match="holds the caller's number"):
        FEDERATION.check_foreign(Tn("493023125001"), "the caller's number")


def test_chains_are_read_from_pem_and_der() -> None:
    both = (LEAF.certificate, MIDDLE.certificate)
    assert tuple(read_chain(pem_of(*both))) == both
    assert tuple(read_chain(b"subject=/CN=x\n" + pem_of(*both))) == both
    assert tuple(read_chain(der_of(LEAF.certificate))) == both[:1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        der_of(LEAF.certificate)[:-1],
        pem_of(LEAF.certificate)[:-60],
        pem_of(LEAF.certificate) * 7,
        b"x" * 200_000,
    ],
)
def test_anything_else_is_malformed(data: bytes) -> None:
    assert MAX_CHAIN < 7
    with pytest.raises(MalformedError):
        read_chain(data)


def test_how_long_a_chain_may_be() -> None:
    assert len(read_chain(pem_of(*[LEAF.certificate] * MAX_CHAIN))) == 6
    with pytest.raises(MalformedError, match="more than 6 certificates"):
        read_chain(pem_of(*[LEAF.certificate] * 7))
    assert MAX_CHAIN_BYTES == 2 * 6 * 8192
    padding = b"\n" * (MAX_CHAIN_BYTES - len(pem_of(LEAF.certificate)))
    assert read_chain(pem_of(LEAF.certificate) + padding) == [LEAF.certificate]
    with pytest.raises(MalformedError, match="more than 98304 bytes"):
        read_chain(pem_of(LEAF.certificate) + padding + b"\n")


@given(st.binary(max_size=600) | st.binary(max_size=60).map(lambda data: der_of(LEAF.certificate)[:300] + data))
def test_any_bytes_are_a_chain_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert read_chain(data)


@pytest.mark.parametrize("count", [0, 1001])
def test_a_list_is_bounded(count: int) -> None:
    with pytest.raises(MalformedError):
        Authorities([ROOT.certificate] * count)
