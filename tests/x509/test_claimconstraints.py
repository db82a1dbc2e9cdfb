import contextlib
import subprocess
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.x509.claimconstraints import (
    BASELINE,
    ENHANCED_OID,
    OID,
    UNCONSTRAINED,
    ClaimConstraints,
    ConstraintError,
    constraints_in,
    extension_for,
)

RFC_9118 = bytes.fromhex(
    "3040a00e300c160a636f6e666964656e6365a120301e301c160a636f6e666964656e6365300e0c04686967680c066d656469756d"
    "a20c300a16087072696f72697479"
)
"""The extension in the certificate of RFC 9118 §5, figure 1, as figure 2 shows it."""

CONFIDENT = ClaimConstraints(("confidence",), (("confidence", ("high", "medium")),), ("priority",))


def test_the_example_of_rfc_9118() -> None:
    assert ClaimConstraints.parse(RFC_9118, enhanced=True) == CONFIDENT
    assert CONFIDENT.serialize() == RFC_9118
    assert extension_for(CONFIDENT) == (ENHANCED_OID, RFC_9118)


def test_the_older_form_is_what_openssl_encodes(tmp_path: Any) -> None:
    """Without mustExclude the form is that of RFC 8226, which more verifiers know (RFC 9118 §6)."""
    written = tmp_path / "constraints.cnf"
    written.write_text(
        "asn1=SEQUENCE:c\n[c]\ni=EXPLICIT:0,SEQUENCE:n\np=EXPLICIT:1,SEQUENCE:l\n[n]\na=IA5STRING:attest\n"
        "[l]\nv=SEQUENCE:v\n[v]\nn=IA5STRING:attest\nl=SEQUENCE:t\n[t]\na=UTF8String:A\nb=UTF8String:B\n"
    )
    out = tmp_path / "constraints.der"
    subprocess.run(
        ["openssl", "asn1parse", "-genconf", str(written), "-noout", "-out", str(out)], check=True, timeout=60
    )
    constraints = ClaimConstraints(("attest",), (("attest", ("A", "B")),))
    assert extension_for(constraints) == (OID, out.read_bytes())
    assert constraints_in(((OID, out.read_bytes()),)) == constraints


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"confidence": "high"}, ""),
        ({"confidence": "medium", "attest": "A"}, ""),
        ({"confidence": "low"}, "claim confidence has none of the values"),
        ({"confidence": ["high"]}, "claim confidence has none of the values"),
        ({"confidence": "High"}, "claim confidence has none of the values"),
        ({}, "claim confidence is not there"),
        ({"confidence": "high", "priority": "0"}, "claim priority is there, and must not be"),
        ({"confidence": "high", "priority": None}, "claim priority is there, and must not be"),
    ],
)
def test_claims_against_the_example(claims: dict[str, Any], problem: str) -> None:
    if not problem:
        CONFIDENT.check(claims)
        return
    with pytest.raises(ConstraintError, match=problem):
        CONFIDENT.check(claims)


def test_a_claim_that_may_have_certain_values_may_be_missing() -> None:
    ClaimConstraints(permitted=(("confidence", ("high",)),)).check({})


@pytest.mark.parametrize(
    ("value", "permitted"),
    [({"nam": "Bank", "apn": "1"}, '{"apn":"1","nam":"Bank"}'), (7, "7"), (True, "true"), (["a", 1], '["a",1]')],
)
def test_a_claim_that_is_no_text_is_compared_by_its_canonical_json(value: Any, permitted: str) -> None:
    constraints = ClaimConstraints(permitted=(("rcd", (permitted,)),))
    constraints.check({"rcd": value})
    with pytest.raises(ConstraintError):
        constraints.check({"rcd": [value]})


@pytest.mark.parametrize("baseline", ["iat", "orig", "dest"])
def test_to_exclude_a_baseline_claim_is_to_constrain_nothing(baseline: str) -> None:
    """RFC 9118 §3, third: the certificate is treated as if the extension was not there."""
    written = ClaimConstraints(("rcd",), (), ("priority", baseline)).serialize()
    assert ClaimConstraints.parse(written, enhanced=True) == UNCONSTRAINED
    UNCONSTRAINED.check({})


def test_a_certificate_without_the_extensions_and_one_with_both() -> None:
    assert constraints_in(()) is UNCONSTRAINED
    with pytest.raises(MalformedError, match="both"):
        constraints_in(((OID, RFC_9118), (ENHANCED_OID, RFC_9118)))


GOOD = "3008a006300416026374"
"""mustInclude { "ct" }."""


def test_what_the_refused_ones_are_made_of() -> None:
    for enhanced in (False, True):
        assert ClaimConstraints.parse(bytes.fromhex(GOOD), enhanced=enhanced) == ClaimConstraints(("ct",))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "3000",  # no member
        "3004a0023000",  # an empty list of names
        "3008a0063004160263",  # it breaks off
        GOOD + "00",  # something behind
        "3009a00630041602637400",  # something behind, inside
        "3009a00730041602637400",  # something behind a list
        "3008a006300416026380",  # a name that is not ASCII
        "3008a00630040c026374",  # a name of another type
        "308108a006300416026374",  # a length that is not minimal
        "3080a0063004160263740000",  # an indefinite length
        "3010" + GOOD[4:] * 2,  # a member twice
        "301ba111300f300d1602637430070c01610c026262" + GOOD[4:],  # members out of order
        "3008a306300416026374",  # a member of another syntax
        "300ca10a3008300616026374" + "3000",  # no permitted value
        "3010a10e300c300a1602637430040c02c328",  # a value that is not UTF-8
        "3010a10e300c300a16026374300416026161",  # a value of another type
    ],
)
@pytest.mark.parametrize("enhanced", [False, True])
def test_refuses(data: str, enhanced: bool) -> None:
    with pytest.raises(MalformedError):
        ClaimConstraints.parse(bytes.fromhex(data), enhanced=enhanced)


def test_the_extension_is_known_by_what_its_oid_says() -> None:
    """Not by which object says it: a certificate's own OID is another one."""
    own = "".join(list(ENHANCED_OID))
    assert constraints_in(((own, RFC_9118),)) == CONFIDENT


@pytest.mark.parametrize(
    "constraints",
    [
        ClaimConstraints(("c\u00e9",)),
        ClaimConstraints(permitted=(("c\u00e9", ("A",)),)),
        ClaimConstraints(must_exclude=("c\u00e9",)),
    ],
)
def test_a_claim_with_a_name_that_is_not_ascii_is_not_written(constraints: ClaimConstraints) -> None:
    with pytest.raises(MalformedError, match="ASCII"):
        constraints.serialize()


def test_the_older_form_has_no_list_of_what_must_not_be_there() -> None:
    with pytest.raises(MalformedError, match="tag 0xa2"):
        ClaimConstraints.parse(RFC_9118, enhanced=False)


def test_what_a_sentence_does_not_quote() -> None:
    with pytest.raises(ConstraintError, match=r"^a claim is not there"):
        ClaimConstraints(("493023125001",)).check({})


names = st.text(st.characters(max_codepoint=127), max_size=20)
lists = st.lists(names, max_size=4).map(tuple)
values = st.lists(st.tuples(names, st.lists(st.text(max_size=9), min_size=1, max_size=3).map(tuple)), max_size=3)


@given(lists, values.map(tuple), lists)
@example((), (), ("orig",))
def test_parse_gives_back_what_serialize_wrote(
    include: tuple[str, ...], permitted: tuple[tuple[str, tuple[str, ...]], ...], exclude: tuple[str, ...]
) -> None:
    """But for a list that excludes what every PASSporT has, which constrains nothing (RFC 9118 section 3)."""
    written = ClaimConstraints(include, permitted, exclude)
    expected = UNCONSTRAINED if BASELINE & set(exclude) else written
    if include or permitted or exclude:
        assert ClaimConstraints.parse(written.serialize(), enhanced=True) == expected


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: RFC_9118[: -len(tail) or None] + tail))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        read = ClaimConstraints.parse(data, enhanced=True)
        assert read == UNCONSTRAINED or read.serialize() == data
