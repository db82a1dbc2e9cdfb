import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.pattern import Pattern, all_covered, any_covers, some_covered


@pytest.mark.parametrize(
    ("text", "covered", "not_covered"),
    [
        ("+49 30".replace(" ", ""), ["4930"], ["493", "49301", "4931"]),
        (
            "493023125000-493023125999",
            ["493023125000", "493023125999"],
            ["493023126000", "4930231250001", "49", "4930231255"],
        ),
        ("+49.30.100-+49.30.199", ["4930100", "4930199"], ["4930200", "493010"]),
        ("4930*", ["4930", "493023125001"], ["4931", "493"]),
        ("112", ["112"], ["1120", "11"]),
    ],
)
def test_numbers(text: str, covered: list[str], not_covered: list[str]) -> None:
    pattern = Pattern.parse(text)
    assert all(pattern.covers_tn(Tn(number)) for number in covered)
    assert not any(pattern.covers_tn(Tn(number)) for number in not_covered)
    assert not pattern.covers_uri(text)


@pytest.mark.parametrize(
    ("text", "covered", "not_covered"),
    [
        ("urn:service:SOS", ["urn:service:sos"], ["urn:service:sos.fire"]),
        ("urn:service:sos*", ["urn:service:sos", "urn:service:sos.fire"], ["urn:service:counseling"]),
    ],
)
def test_uris(text: str, covered: list[str], not_covered: list[str]) -> None:
    pattern = Pattern.parse(text)
    assert all(map(pattern.covers_uri, covered))
    assert not any(map(pattern.covers_uri, not_covered))
    assert not pattern.covers_tn(Tn("112"))


@pytest.mark.parametrize(
    "text",
    ["", "*", "x", "4930-", "-4930", "4931-4930", "4930-493", "49-30-12", "4930-4939*", "4" * 33,
     "49 30", "#31#", "x" * 257],
)  # fmt: skip
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(MalformedError):
        Pattern.parse(text)


def test_called_parties() -> None:
    patterns = [Pattern.parse("112"), Pattern.parse("urn:service:sos*")]
    both = Destinations((Tn("112"),), ("urn:service:sos.fire",))
    mixed = Destinations((Tn("112"), Tn("4930")))
    assert (all_covered(patterns, both), some_covered(patterns, both)) == (True, True)
    assert (all_covered(patterns, mixed), some_covered(patterns, mixed)) == (False, True)
    assert not some_covered(patterns, Destinations((Tn("1120"),), ("sip:112@b.example",)))
    assert not any_covers([], Tn("112"))


@pytest.mark.parametrize("text", ["4", "4" * 32, "sip:" + "a" * 252])
def test_the_bounds_of_patterns(text: str) -> None:
    assert Pattern.parse(text).first == text


@pytest.mark.parametrize(("text", "why"), [
    ("", "1 to 256"), ("sip:" + "a" * 253, "1 to 256"), ("4930-4939*", "does not end"), ("4930-493", "one length"),
    ("4931-4930", "the lower one first"), ("alice", "it is no number"),
])  # fmt: skip
def test_what_is_said_of_no_pattern(text: str, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        Pattern.parse(text)
