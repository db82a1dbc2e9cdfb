import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

RANGE = TnRange(Tn("493023125000"), 1000)


def test_encodes_each_kind_as_openssl_does() -> None:
    """The bytes are from `openssl asn1parse -genconf` (OpenSSL 3.0.19), with EXPLICIT:0, 1 and 2 in a SEQUENCE."""
    listed = TnAuthList(("709J",), (TnRange(Tn("12155551000"), 200),), (Tn("911#"),))
    assert listed.serialize().hex() == (
        "3025a00616043730394aa1133011160b3132313535353531303030020200c8a206160439313123"
    )


def test_one_kind_alone_as_the_certificates_of_north_america_have_it() -> None:
    assert TnAuthList.parse(bytes.fromhex("3008a0061604" + b"709J".hex())) == TnAuthList(("709J",))


digits = st.text("0123456789", min_size=1, max_size=15)
tns = st.text("0123456789#*", min_size=1, max_size=15).map(Tn)
spcs = st.text("ABCDEFGHIJ0123456789", min_size=1, max_size=32)


@st.composite
def ranges(draw: st.DrawFn) -> TnRange:
    start = draw(digits.filter(lambda text: int(text) + 2 < 10 ** len(text)))
    return TnRange(Tn(start), draw(st.integers(2, 10 ** len(start) - int(start) - 1)))


@given(st.lists(spcs, max_size=3), st.lists(ranges(), max_size=20), st.lists(tns, max_size=3))
def test_parse_gives_back_what_serialize_wrote(codes: list[str], some: list[TnRange], singles: list[Tn]) -> None:
    if codes or some or singles:
        listed = TnAuthList(tuple(codes), tuple(some), tuple(singles))
        assert TnAuthList.parse(listed.serialize()) == listed


@given(st.binary(max_size=80))
def test_any_bytes_parse_or_are_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert TnAuthList.parse(data)


@given(st.data())
def test_changed_bytes_parse_or_are_malformed(data: st.DataObject) -> None:
    encoded = bytearray(TnAuthList(("709J",), (RANGE,), (Tn("110"),)).serialize())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.integers(0, 255))
    try:
        parsed = TnAuthList.parse(bytes(encoded))
    except MalformedError:
        return
    assert sorted(parsed.serialize()) == sorted(encoded)


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        ("", "no sequence"),
        ("3000", "no entry"),
        ("3008a0061604373039", "truncated"),
        ("3008a0061604373039" + "4a00", "trailing byte"),
        ("308108a0061604" + b"709J".hex(), "length not minimal"),
        ("3080a0061604" + b"709J".hex() + "0000", "indefinite length"),
        ("3006" + "8004" + b"709J".hex(), "implicit tag"),
        ("3008" + "a306" + "1604" + b"709J".hex(), "unknown choice"),
        ("3008" + "a006" + "0c04" + b"709J".hex(), "UTF8String"),
        ("3008" + "a006" + "1604" + "373039ff", "byte above 127"),
        ("3004a0021600", "empty code"),
        ("3007a2051603" + b"12A".hex(), "letter in a number"),
        ("3014a21216" + "10" + b"1234567890123456".hex(), "16 digits"),
        ("300ba1093007" + "1602" + b"10".hex() + "020101", "count 1"),
        ("300ba1093007" + "1602" + b"10".hex() + "020180", "negative count"),
        ("300ca10a3008" + "1602" + b"10".hex() + "02020002", "count not minimal"),
        ("300ba1093007" + "1602" + b"10".hex() + "02015b", "count 91 makes 10 longer"),
        ("300ba1093007" + "1602" + b"10".hex() + "02015a", "count 90 makes the number after the last longer"),
        ("300aa0081604" + b"709J".hex() + "0500", "member after a code"),
        ("300ba1093007" + "1602" + b"1#".hex() + "020102", "range from a number with #"),
        ("300ea10c300a" + "1602" + b"10".hex() + "020102" + "020101", "member after count"),
    ],
)
def test_refuses(encoded: str, why: str) -> None:
    with pytest.raises(MalformedError):
        TnAuthList.parse(bytes.fromhex(encoded))


@pytest.mark.parametrize("longer", [0, 1])
def test_a_length_is_written_in_one_octet_up_to_127(longer: int) -> None:
    codes = [f"{number}ABC" for number in range(8)] + [f"{number}ABCD" for number in range(7)]
    codes[0] += "E" * longer
    octets = TnAuthList(tuple(codes)).serialize()
    assert octets[:3] == (b"\x30\x81\x80" if longer else b"\x30\x7f\xa0")
    assert TnAuthList.parse(octets).serialize() == octets
    if not longer:
        with pytest.raises(MalformedError, match="shortest form"):
            TnAuthList.parse(b"\x30\x81\x7f" + octets[2:])


@pytest.mark.parametrize(
    ("tn", "covered"),
    [
        ("493023124999", False),
        ("493023125000", True),
        ("493023125999", True),
        ("493023126000", False),
        ("49302312500", False),
        ("4930231250001", False),
        ("49302312500#", False),
        ("110", True),
        ("0110", False),
    ],
)
def test_covers(tn: str, covered: bool) -> None:
    assert TnAuthList(ranges=(RANGE,), tns=(Tn("110"),)).covers(Tn(tn)) is covered


@pytest.mark.parametrize(
    ("listed", "authorised"),
    [
        (TnAuthList(tns=(Tn("493023125000"),)), True),
        (TnAuthList(("709J",), tns=(Tn("110"),)), True),
        (TnAuthList(tns=(Tn("110"),)), False),
    ],
)
def test_codes_stand_for_ranges_and_without_a_code_the_ranges_say_nothing(
    listed: TnAuthList, authorised: bool
) -> None:
    assert listed.authorises(Tn("493023125000"), (RANGE,)) is authorised
    assert not listed.authorises(Tn("493023126000"), (RANGE,))


def test_inside_takes_neighbouring_allotments_together() -> None:
    allotted = [TnRange(Tn("493023125000"), 500), TnRange(Tn("493023125500"), 500)]
    assert TnAuthList(ranges=(RANGE,)).inside(allotted, ())
    assert not TnAuthList(ranges=(RANGE,)).inside([allotted[0]], ())
    assert not TnAuthList(ranges=(RANGE,)).inside([allotted[0], TnRange(Tn("493023125501"), 499)], ())
    assert not TnAuthList(ranges=(RANGE,)).inside([TnRange(Tn("0493023125000"), 1000)], ())
    shorter = TnRange(Tn("110"), 2)
    assert TnAuthList(ranges=(RANGE, shorter)).inside([*allotted, shorter], ()), "of whatever length others are"


def test_inside_asks_for_every_code_and_number() -> None:
    listed = TnAuthList(("709J",), (RANGE,), (Tn("493023125001"),))
    assert listed.inside([RANGE], ["709J", "X"])
    assert not listed.inside([RANGE], ["X"])
    assert not TnAuthList(tns=(Tn("110"),)).inside([RANGE], ())
    assert not TnAuthList(tns=(Tn("49302312500#"),)).inside([RANGE], ())


@given(ranges(), st.lists(ranges(), max_size=6), st.data())
def test_inside_means_that_every_number_is_allotted(
    wanted: TnRange, allotted: list[TnRange], data: st.DataObject
) -> None:
    if TnAuthList(ranges=(wanted,)).inside(allotted, ()):
        tn = Tn(str(int(wanted.start) + data.draw(st.integers(0, wanted.count - 1))).zfill(len(wanted.start)))
        assert any(entry.covers(tn) for entry in allotted)


@pytest.mark.parametrize("tn", ["0105", "0000105", "05", "5", "10*", "1055"])
def test_a_number_of_another_length_is_another_number(tn: str) -> None:
    assert TnRange(Tn("100"), 10).covers(Tn("105"))
    assert not TnRange(Tn("100"), 10).covers(Tn(tn))


@pytest.mark.parametrize(
    ("start", "count", "right"),
    [("1", 2, True), ("1", 1, True), ("9", 1, True), ("1", 0, False),
     ("123456789012345", 2, True), ("1234567890123456", 2, False), ("", 2, False),
     ("90", 9, True), ("90", 10, False), ("1*", 2, False), ("1\n", 2, False)],
)  # fmt: skip
def test_bounds_of_a_range(start: str, count: int, right: bool) -> None:
    """RFC 8226 §9: 1 to 15 digits, kept in all numbers. A list has no range of one number."""
    with contextlib.nullcontext() if right else pytest.raises(MalformedError):
        TnRange(Tn(start), count)
    with contextlib.nullcontext() if right and count > 1 else pytest.raises(MalformedError):
        TnAuthList(ranges=(TnRange(Tn(start), count),))


@pytest.mark.parametrize(
    ("entry", "right"),
    [
        ({"spcs": ("x" * 32,)}, True),
        ({"spcs": ("x" * 33,)}, False),
        ({"spcs": ("!~",)}, True),
        ({"spcs": ("a b",)}, False),
        ({"spcs": ("a\x7f",)}, False),
        ({"spcs": ("",)}, False),
        ({"tns": ("1" * 15,)}, True),
        ({"tns": ("1" * 16,)}, False),
        ({"tns": ("0#*",)}, True),
        ({"tns": ("",)}, False),
        ({"tns": ("+1",)}, False),
        ({}, False),
    ],
)
def test_bounds_of_codes_and_single_numbers(entry: dict[str, tuple[str, ...]], right: bool) -> None:
    with contextlib.nullcontext() if right else pytest.raises(MalformedError):
        TnAuthList(**entry)  # type: ignore[arg-type]  # a Tn is a text


def test_the_octets_of_a_list() -> None:
    """RFC 8226 §9: explicit tags 0 to 2, and X.690 for the rest."""
    octets = bytes.fromhex("301e a006160437303941 a10b30091604313030300201 0a a2071605343923302a".replace(" ", ""))
    listed = TnAuthList(("709A",), (TnRange(Tn("1000"), 10),), (Tn("49#0*"),))
    assert listed.serialize() == octets
    assert TnAuthList.parse(octets) == listed


@pytest.mark.parametrize(
    "octets",
    [
        "3008 a006 1602 3730 0500",  # something behind a code
        "3008 a206 1602 3730 0500",  # behind a number
        "300d a10b 3007 1602 3130 0201 02 0500",  # behind a range
        "300d a10b 3009 1602 3130 0201 02 0500",  # and inside of it
        "3006 a004 1602 3730 0500",  # behind the list
        "3006 a304 1602 3730",  # an entry of another kind
        "3006 a004 0c02 3730",  # a code of another type
        "3006 a204 1602 37ff",  # a number that is not ASCII
    ],
)
def test_nothing_may_follow_and_every_type_counts(octets: str) -> None:
    with pytest.raises(MalformedError):
        TnAuthList.parse(bytes.fromhex(octets))


def inside(wanted: tuple[str, int], *allotted: tuple[str, int]) -> bool:
    ranges = [TnRange(Tn(start), count) for start, count in allotted]
    return TnAuthList(ranges=(TnRange(Tn(wanted[0]), wanted[1]),)).inside(ranges, ())


def test_allotments_that_touch_overlap_or_contain_one_another() -> None:
    assert inside(("100", 60), ("150", 10), ("100", 50), ("110", 10))
    assert not inside(("100", 61), ("150", 10), ("100", 50), ("110", 10))
    assert not inside(("100", 60), ("151", 10), ("100", 50))
    # The second group is joined for itself, whatever the first one was.
    assert inside(("500", 60), ("100", 10), ("500", 50), ("550", 10))
    assert not inside(("490", 20), ("100", 10), ("500", 50), ("550", 10))
    # Numbers of another length are others, also where they have the same value.
    assert not inside(("0100", 10), ("100", 800))
    assert not inside(("100", 10), ("0100", 800))


def test_a_list_is_made_of_what_is_allotted() -> None:
    """RFC 8226 §9: one number is `one`, and two are a range."""
    one, two, many = (TnRange(Tn(f"49302312{number}"), number) for number in (1, 2, 1000))
    assert TnAuthList.of(["709K", "710K"], [many, one, two]) == TnAuthList(
        ("709K", "710K"), (many, two), (one.start,)
    )
    assert TnAuthList.of(iter(()), iter((one,))) == TnAuthList(tns=(one.start,))
    with pytest.raises(MalformedError, match="at least one entry"):
        TnAuthList.of([], [])
