"""Names that look alike are one name or none: RFC 4518, scripts, and letters of other scripts."""

import unicodedata
from itertools import pairwise

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.names import is_printable
from voice_dpki.x509 import prepared as module
from voice_dpki.x509.prepared import ScriptsError, check_written, look, prepared, written

GOOD = (
    "Operator A",
    "Z\u00fcrich",
    "\u6771\u4eac Telecom",
    "KDDI\u682a\u5f0f\u4f1a\u793e",
    "\u041c\u0422\u0421 2",
    "\u039f\u03a4\u0395",
    "\uc5d0\uc2a4\ucf00\uc774 SK",
    "A-1 (North)",
    "\u0130stanbul",
)


@pytest.mark.parametrize("name", GOOD)
def test_names_in_one_script_are_written_as_they_are(name: str) -> None:
    check_written(name)
    assert written(name) == name


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("Oper\u00adator A", "Operator A"),  # soft hyphen
        ("Operator\u034f A", "Operator A"),  # combining grapheme joiner
        ("Operator A\ufe0f", "Operator A"),  # variation selector
        ("Operator \ufffcA", "Operator A"),  # object replacement
        ("Operator  A", "Operator A"),
        (" Operator A ", "Operator A"),
        ("Zu\u0308rich", "Z\u00fcrich"),  # NFD
        ("\uff2fperator A", "Operator A"),  # full width
        ("Of\ufb01ce", "Office"),  # a ligature
        ("Acme\u2122", "AcmeTM"),
    ],
)
def test_another_spelling_is_the_same_name_and_may_not_be_written(text: str, one: str) -> None:
    assert written(text) == one
    assert prepared(text) == prepared(one)
    with pytest.raises(MalformedError):
        check_written(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\u00ad",
        "a\u200bb",  # zero width space
        "a\u200fb",  # right-to-left mark
        "a\u202eb",  # right-to-left override
        "a\ufeffb",
        "a\u00a0b",  # no-break space
        "a\tb",
        "a\nb",
        "a\0b",
        "a\ue000b",  # private use
        "a\ufffdb",
        "\u0301a",  # a combining character first
        "a\u3164b",  # Hangul filler
        "a\u115fb",
        "a\u2800b",  # a blank of Braille
        "a\u17b4b",
        "\U0001f6dc",  # assigned after Unicode 3.2
        "\ud800",
    ],
)
def test_what_no_name_holds(text: str) -> None:
    for judge in (written, prepared, look, check_written):
        with pytest.raises(MalformedError) as caught:
            judge(text)
        assert not isinstance(caught.value, ScriptsError)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("operator a", "OPERATOR A"),
        ("Stra\u00dfe", "STRASSE"),
        ("\u03a3", "\u03c2"),  # sigma, and final sigma
        ("\u212aelvin", "kelvin"),
        ("\u1e9b\u0323", "\u1e69"),  # from UAX 15
    ],
)
def test_case_does_not_count(one: str, other: str) -> None:
    assert prepared(one) == prepared(other)


def test_a_letter_is_folded_only_to_what_unicode_3_2_has() -> None:
    assert "\u10a0".lower() == "\u2d00", "Unicode has had it since 4.1"
    assert prepared("\u10a0") == "\u10a0"


@pytest.mark.parametrize(
    "text",
    [
        "\u041eperator A",  # Cyrillic O
        "Operator \u0391",  # Greek Alpha
        "Oper\u0430tor",
        "\u6771\u4eac \u041c",  # Han and Cyrillic
        "\u13aaBC",  # Cherokee Go, which looks like A
        "\u3105\uac00",  # Bopomofo and Hangul
    ],
)
def test_scripts_do_not_mix(text: str) -> None:
    with pytest.raises(ScriptsError):
        check_written(text)


def test_names_in_another_script_that_look_the_same() -> None:
    for text in ("\u0421\u041e\u0412\u0410", "\u0421OB\u0391"):
        assert look(text) == look("COBA") == "coba"
        assert prepared(text) != prepared("COBA")
    assert look("\u041c\u0422\u0421") == look("MTC")
    assert look("\u0416\u0410") != look("XA")


def test_the_tables_are_whole() -> None:
    """Each range has its script's letters, and each look-alike is Cyrillic or Greek and of the same case."""
    spans = sorted((first, last) for first, last, _ in module._RANGES)
    assert all(last < first for (_, last), (first, _) in pairwise(spans)), "no two overlap"
    assert all(first <= last for first, last in spans)
    name = unicodedata.ucd_3_2_0.name
    words = {"Latn": "LATIN", "Cyrl": "CYRILLIC", "Grek": "GREEK", "Armn": "ARMENIAN", "Cher": "CHEROKEE"}
    for script, word in words.items():
        characters = (chr(code) for code in range(0x250, 0x2000) if module._script(chr(code)) == script)
        letters = [each for each in characters if is_printable(each) and unicodedata.category(each)[0] == "L"]
        assert letters
        assert all(word in name(letter) for letter in letters)
    for letter, like in module._LOOKS.items():
        assert name(letter).split()[0] in ("CYRILLIC", "GREEK")
        assert like.isascii()
        assert name(letter).split()[1] == ("CAPITAL" if like.isupper() else "SMALL") or letter in "\u04c0\u03f3"
