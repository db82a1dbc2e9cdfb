"""The dialects in which an INVITE's sender is told what to add to it."""

import re
from urllib.parse import unquote

import pytest
from sipmessage import Request

from voice_dpki.sip.message import encode, parse_message
from voice_dpki.sip.redirect import STATUSES, Additions, Dialect, answer

TEXT = """\
INVITE {uri} SIP/2.0
Via: SIP/2.0/UDP 192.0.2.7:5062;branch=z9hG4bK1
Via: SIP/2.0/UDP 192.0.2.8:5063;branch=z9hG4bK0
From: <sip:+493023125001@a.example>;tag=1
To: <sip:+442079460001@b.example>
Call-ID: c1
CSeq: 1 INVITE

""".replace("\n", "\r\n")
IDENTITY = 'a-b_c.d=;info=<https://x.example/1?2>;alg=ES256;ppt="shaken"'
ADDED = Additions((("Identity", IDENTITY),), (("Date", "Mon, 21 Sep 2026 14:13:20 GMT"),))
NOTHING = Additions(reasons=('SIP;cause=403;text="no"',))


def lines(
    dialect: Dialect, additions: Additions, uri: str = "sip:+442079460001@as.example:5070;user=phone"
) -> list[str]:
    request = parse_message(TEXT.format(uri=uri).encode())
    assert isinstance(request, Request)
    return encode(answer(request, dialect, additions, "tag1")).decode().split("\r\n")


def test_the_statuses_in_which_an_identity_can_be_told() -> None:
    assert STATUSES == (302, 403, 404, 503, 300)


def test_a_redirection_has_the_identity_as_a_header_field() -> None:
    told = lines(Dialect(302), ADDED)
    assert told[0] == "SIP/2.0 302 Moved Temporarily"
    assert "Contact: <sip:+442079460001@as.example:5070;user=phone>" in told
    assert f"Identity: {IDENTITY}" in told
    assert "Date: Mon, 21 Sep 2026 14:13:20 GMT" in told
    assert "To: <sip:+442079460001@b.example>;tag=tag1" in told


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_failure_has_it_too_and_no_contact(status: int) -> None:
    for dialect, name in ((Dialect(status), "Identity"), (Dialect(status, x_header=True), "X-Identity")):
        told = lines(dialect, ADDED)
        assert told[0].startswith(f"SIP/2.0 {status} ")
        assert f"{name}: {IDENTITY}" in told
        assert not any(line.startswith("Contact") for line in told)


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("sip:+442079460001@as.example:5070;user=phone", "sip:+442079460001@as.example:5070;user=phone"),
        ("tel:+44-207-9460001;cpc=x", "sip:+44-207-9460001@192.0.2.7:5062;user=phone"),
    ],
)
def test_the_contacts_uri_holds_it_escaped(uri: str, target: str) -> None:
    told = lines(Dialect(300), ADDED, uri)
    assert told[0] == "SIP/2.0 300 Multiple Choices"
    (contact,) = [line for line in told if line.startswith("Contact")]
    found = re.fullmatch(r"Contact: <([^?<>]*)\?Identity=((?:[A-Za-z0-9_.!~*'()-]|%[0-9A-F]{2})*)>", contact)
    assert found
    assert (found[1], unquote(found[2])) == (target, IDENTITY)
    assert not any(line.startswith("Identity") for line in told)


@pytest.mark.parametrize("status", STATUSES)
def test_nothing_to_add(status: int) -> None:
    told = lines(Dialect(status), NOTHING)
    assert told[0].startswith(f"SIP/2.0 {404 if status == 302 else status} ")
    assert 'Reason: SIP;cause=403;text="no"' in told
    assert not any("Identity" in line or "?" in line for line in told)


@pytest.mark.parametrize("status", STATUSES)
def test_a_call_that_is_to_be_refused(status: int) -> None:
    told = lines(
        Dialect(status), Additions((("Identity", "x"),), reasons=("STIR;cause=438",), refusal=(438, "Bad"))
    )
    assert told[0] == "SIP/2.0 438 Bad"
    assert "Reason: STIR;cause=438" in told
    assert not any("Identity" in line or "Contact" in line for line in told)


def test_several_header_fields_share_the_contact() -> None:
    (contact,) = [
        line for line in lines(Dialect(300), Additions((("A", "1 2"), ("B", "3&4")))) if "Contact" in line
    ]
    assert contact.endswith("?A=1%202&B=3%264>")


def test_no_value_begins_a_line_of_its_own() -> None:
    told = lines(Dialect(302), Additions((("Identity", "a\r\nX: y"),)))
    assert "Identity: a  X: y" in told
