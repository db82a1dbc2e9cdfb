"""Numbers in national forms are signed as E.164, and refused where they could be two."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from voice_dpki.codec import base64url
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.forms import read_signing, read_verification
from voice_dpki.stir.national import Country
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.sign import sign_call

from .conftest import NOW_S, Operator

UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
DE = Country("DE")


@pytest.mark.parametrize(
    ("region", "written", "read"),
    [
        ("DE", "03023125001", "+493023125001"),
        ("DE", "(030)-2312.5001", "+493023125001"),
        ("DE", "00442079460001", "+442079460001"),
        ("DE", "493023125001", "+493023125001"),
        ("DE", "442079460001", "+442079460001"),
        ("DE", "+4930231", "+4930231"),
        ("DE", "+03023125001", "+03023125001"),
        ("DE", "112", "112"),
        ("DE", "*21#", "*21#"),
        ("DE", "2312500", "2312500"),
        ("DE", "0", "0"),
        ("DE", "", ""),
        ("DE", "9" * 33, "9" * 33),
        ("GB", "02079460001", "+442079460001"),
        ("FR", "0199001234", "+33199001234"),
        ("US", "2125550123", "+12125550123"),
        ("US", "12015550123", "+12015550123"),
        ("US", "01149302312500", "+49302312500"),
        ("US", "911", "911"),
        ("US", "1800FLOWERS", "1800FLOWERS"),
        ("US", "1 2125550123", "1 2125550123"),
        ("DE", "0302312500" + "1" * 23, "0302312500" + "1" * 23),
        ("DE", "030" + "." * 75 + "23", "030" + "." * 75 + "23"),
        ("IT", "390612345678", "+390612345678"),
        ("IT", "0612345678", "+390612345678"),
    ],
)
def test_what_digits_mean(region: str, written: str, read: str) -> None:
    assert Country(region).international(written) == read


AMBIGUOUS = ("US", "2015550123")


def test_what_could_be_two_numbers_is_refused() -> None:
    """Ten digits are a number of New Jersey, or one of Egypt (+20) whose + a proxy has dropped."""
    region, digits = AMBIGUOUS
    country = Country(region)
    for _ in range(2):
        with pytest.raises(MalformedError, match="a national and an international one") as failure:
            country.international(digits)
        assert digits not in str(failure.value)
    assert country.international(f"+{digits}") == f"+{digits}"
    assert country.international(f"011{digits}") == f"+{digits}"
    assert country.international(f"1{digits}") == f"+1{digits}"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("tel:03023125001", "tel:+493023125001"),
        ("TEL:030-23125001;ext=7", "TEL:+493023125001;ext=7"),
        ("sip:03023125001@a.example;user=phone", "sip:+493023125001@a.example;user=phone"),
        (
            "sips:03023125001;isub=1@a.example:5061;x=y;user=phone?h=v",
            "sips:+493023125001;isub=1@a.example:5061;x=y;user=phone?h=v",
        ),
        ("sip:03023125001@a.example", "sip:03023125001@a.example"),
        ("sip:03023125001@a.example?x=;user=phone", "sip:03023125001@a.example?x=;user=phone"),
        ("tel:03023125001;phone-context=+49", "tel:03023125001;phone-context=+49"),
        ("sip:alice@a.example;user=phone", "sip:alice@a.example;user=phone"),
        ("urn:service:sos", "urn:service:sos"),
    ],
)
def test_numbers_in_uris(written: str, read: str) -> None:
    assert DE.in_uri(written) == read


def signing(**members: Any) -> bytes:
    given = {
        "attest": "A",
        "dest": {"tn": ["00442079460001"]},
        "iat": NOW_S,
        "orig": {"tn": "03023125001"},
        "origid": UUID,
    }
    return json.dumps({"signingRequest": {**given, **members}}).encode()


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"orig": {"tn": "+493023125001"}, "dest": {"tn": ["442079460001"]}},
        {"orig": {"uri": "tel:03023125001"}, "dest": {"uri": ["sip:00442079460001@b.example;user=phone"]}},
    ],
)
def test_what_is_signed_is_e164(operator: Operator, members: dict[str, Any]) -> None:
    asked = read_signing(signing(**members), country=DE).what
    payload = json.loads(base64url.decode(sign_call(asked, operator.credential, NOW_S).token.split(".")[1]))
    assert (payload["orig"], payload["dest"]) == ({"tn": "493023125001"}, {"tn": ["442079460001"]})


def test_without_a_country_nothing_is_guessed() -> None:
    assert read_signing(signing()).what.orig == "03023125001"


def test_who_diverts(operator: Operator) -> None:
    asked = read_signing(signing(ppt="div", div={"tn": "03023125009"}), country=DE).what
    assert str(asked.own["div"]).count("493023125009") == 1


@pytest.mark.parametrize(
    ("identity", "to"), [("identity", ["00442079460001"]), ("identityHeader", "00442079460001")]
)
def test_verification_requests(identity: str, to: object) -> None:
    members = {identity: "x", "from": {"tn": "03023125001"}, "to": {"tn": to}, "time": NOW_S}
    call = read_verification(json.dumps({"verificationRequest": members}).encode(), country=DE).what
    assert (call.orig, call.dest) == ("493023125001", Destinations(("442079460001",)))  # type: ignore[arg-type]


def test_the_member_that_could_be_two_numbers_is_named() -> None:
    region, digits = AMBIGUOUS
    for members, place in (
        ({"orig": {"tn": digits}}, "orig.tn"),
        ({"dest": {"tn": ["+442079460001", digits]}}, "dest.tn"),
    ):
        with pytest.raises(RequestError) as failure:
            read_signing(signing(**members), country=Country(region))
        assert failure.value.message_id == "SVC4005"
        assert place in str(failure.value)
        assert digits not in str(failure.value)
    with pytest.raises(RequestError) as failure:
        read_signing(signing(orig={"tn": digits}, requestId="1"), country=Country(region))
    assert list(json.loads(failure.value.body())) == ["error"], "in the form of the request"


@pytest.mark.parametrize(
    "body",
    [
        b'{"signingRequest": []}',
        b'{"signingRequest": {"orig": 7, "dest": {"tn": [7]}}}',
        b'{"signingRequest": {"orig": {"tn": 7, "uri": null}, "dest": {"uri": {"x": "y"}}}}',
    ],
)
def test_what_has_no_shape_is_refused_as_ever(body: bytes) -> None:
    for country in (None, DE):
        with pytest.raises(RequestError):
            read_signing(body, country=country)


@pytest.mark.parametrize("region", ["XX", "de", "DEU", "001"])
def test_countries_that_are_none(region: str) -> None:
    with pytest.raises(LocalError, match="no country"):
        Country(region)


def test_without_the_library_a_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name == "phonenumbers":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(LocalError, match=r"voice-dpki\[national\]"):
        Country("DE")


def test_the_extra_is_what_the_message_names() -> None:
    assert 'national = ["phonenumbers' in (Path(__file__).parents[2] / "pyproject.toml").read_text()
