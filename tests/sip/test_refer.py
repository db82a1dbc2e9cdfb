"""What transfers need of SIP, by the examples of RFC 3515, 3891, 3892 and 3420."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipmessage import Request

from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import MAX_ADDRESS_CHARS, parse_uri
from voice_dpki.sip.refer import (
    MAX_FRAGMENT_BYTES,
    ReferTo,
    Replaces,
    event_id,
    fragment_of,
    is_over,
    is_referred_by,
    refer_to,
    referred_by,
    replaces_in,
    status_told,
)


def request(method: str = "REFER", **fields: str) -> Request:
    made = Request(method, parse_uri("sip:b@atlanta.example.com"))
    for name, value in fields.items():
        made.headers.add(name.replace("_", "-"), value)
    return made


@pytest.mark.parametrize(
    ("value", "found"),
    [  # RFC 3891 §6.1
        (
            "98732@example.com\r\n ;from-tag=r33th4x0r\r\n ;to-tag=ff87ff",
            Replaces("98732@example.com", "ff87ff", "r33th4x0r"),
        ),
        (
            "12adf2f34456gs5;to-tag=12345;from-tag=54321;early-only",
            Replaces("12adf2f34456gs5", "12345", "54321", early_only=True),
        ),
        ("87134@171.161.34.23;to-tag=24796;from-tag=0", Replaces("87134@171.161.34.23", "24796", "0")),
    ],
)
def test_replaces_of_the_standard(value: str, found: Replaces) -> None:
    assert Replaces.parse(value.replace("\r\n ", "")) == found
    assert Replaces.parse(found.serialize()) == found


@pytest.mark.parametrize(
    "value",
    [
        "",
        "id",
        "id;to-tag=1",
        "id;from-tag=1",
        "id;to-tag=1;from-tag=",
        "id;to-tag=1;to-tag=1;from-tag=2",
        "i d;to-tag=1;from-tag=2",
        "id@@x;to-tag=1;from-tag=2",
        "id;to-tag=1;from-tag=2\r\nX: y",
        "x" * 1100 + ";to-tag=1;from-tag=2",
    ],
)
def test_replaces_that_names_no_dialog_is_refused(value: str) -> None:
    with pytest.raises(MalformedError):
        Replaces.parse(value)


def test_replaces_is_bounded() -> None:
    value = "id;to-tag=1;from-tag=2;other="
    longest = value + "x" * (MAX_ADDRESS_CHARS - len(value))
    assert Replaces.parse(longest) == Replaces("id", "1", "2")
    with pytest.raises(MalformedError, match="Replaces is longer than"):
        Replaces.parse(longest + "x")


def test_refer_to_of_the_standards() -> None:
    # RFC 3515 §2.1
    assert ReferTo.parse("sip:alice@atlanta.example.com").target == "sip:alice@atlanta.example.com"
    found = ReferTo.parse(
        "<sip:bob@biloxi.example.net?Replaces=12345%40192.168.118.3%3Bto-tag%3D12345%3Bfrom-tag%3D5FFE-3994>"
    )
    assert found == ReferTo("sip:bob@biloxi.example.net", Replaces("12345@192.168.118.3", "12345", "5FFE-3994"))
    # RFC 5589 §7.2, where Require comes along
    both = (
        "<sips:482n4z24kdg@chicago.example.com;gr=8594958"
        "?Replaces=090459243588173445%3Bto-tag%3D9m2n3wq%3Bfrom-tag%3D763231&Require=replaces>"
    )
    assert ReferTo.parse(both).replaces == Replaces("090459243588173445", "9m2n3wq", "763231")
    assert ReferTo.parse(found.serialize()) == found
    assert ReferTo.parse("<sip:bob@biloxi.example.net;method=INVITE>").target == "sip:bob@biloxi.example.net"


@pytest.mark.parametrize(
    "value",
    [
        "<sip:carol@cleveland.example.org;method=SUBSCRIBE>",  # RFC 3515 §2.1
        "<http://www.ietf.org>",
        "<sip:atlanta.example.com>",
        "<sip:a@b?Route=%3Csip:evil%3E>",
        "<sip:a@b?Replaces=x%3Bto-tag%3D1%3Bfrom-tag%3D2&replaces=y%3Bto-tag%3D1%3Bfrom-tag%3D2>",
        "<sip:a@b?Replaces=>",
        "<sip:a@b?Replaces=x%3Bto-tag%3D1%0D%0A%3Bfrom-tag%3D2>",
        "<sip:a@b?body=v%3D0>",
        "<sip:a@b",
        "<sip:a@b?" + "x" * 1100 + ">",
    ],
)
def test_refer_to_that_asks_for_more_than_a_call_is_refused(value: str) -> None:
    with pytest.raises(MalformedError):
        ReferTo.parse(value)


def test_a_refer_has_one_refer_to_also_in_short() -> None:
    assert refer_to(request(r="<sip:a@b>")).target == "sip:a@b"
    for wrong in (
        request(),
        request(Refer_To="<sip:a@b>, <sip:c@d>"),
        request(Refer_To="<sip:a@b>", r="<sip:a@b>"),
    ):
        with pytest.raises(MalformedError):
            refer_to(wrong)


def test_who_has_asked() -> None:
    by = '"A" <sip:+493023125001@a.example>;cid="2UWQFN309shb3@a.example"'
    assert referred_by(request(Referred_By=by)) == "sip:+493023125001@a.example"
    assert is_referred_by(request(b=by), "sip:493023125001@a.example")
    assert not is_referred_by(request(b=by), "sip:+493023125002@a.example")
    assert not is_referred_by(request(), "sip:+493023125002@a.example")
    with pytest.raises(MalformedError):
        referred_by(request(Referred_By=by, b=by))


def test_an_invite_replaces_one_call() -> None:
    assert replaces_in(request("INVITE")) is None
    assert replaces_in(request("INVITE", Replaces="id;to-tag=1;from-tag=2")) == Replaces("id", "1", "2")
    with pytest.raises(MalformedError):
        replaces_in(request("INVITE", Replaces="id;to-tag=1;from-tag=2, id;to-tag=1;from-tag=2"))


def test_notifies() -> None:
    assert event_id(request("NOTIFY", Event="refer")) is None
    assert event_id(request("NOTIFY", Event="refer;id=93809824")) == 93809824  # RFC 3515 §4.1
    assert event_id(request("NOTIFY", o="Refer ; x=y; id=7")) == 7
    for event in ("", "presence", "referral", "refer, refer"):
        with pytest.raises(MalformedError):
            event_id(request("NOTIFY", Event=event))
    assert is_over(request("NOTIFY", Subscription_State="terminated;reason=noresource"))
    assert not is_over(request("NOTIFY", Subscription_State="active;expires=60"))
    assert not is_over(request("NOTIFY"))


@pytest.mark.parametrize(
    ("body", "status"),
    [  # RFC 3515 §2.4.5, and RFC 3420 §5, whose fragment has header fields and the end of a body
        (b"SIP/2.0 100 Trying\r\n", 100),
        (b"SIP/2.0 200 OK\r\n", 200),
        (b"SIP/2.0 503 Service Unavailable", 503),
        (b"SIP/2.0 200 OK\r\nContent-Type: application/sdp\r\nContent-Length: 3\r\n\r\nv=0", 200),
        (b"SIP/2.0 603 \r\n", 603),
    ],
)
def test_fragments(body: bytes, status: int) -> None:
    assert status_told(body) == status
    assert status_told(fragment_of(status)) == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"SIP/2.0 700 OK",
        b"SIP/2.0 20 OK",
        b"INVITE sip:a@b SIP/2.0",
        b"SIP/2.0 200 " + b"x" * 300,
        b"SIP/2.0 200 OK\r\n" + bytes(MAX_FRAGMENT_BYTES),
        b"SIP/2.0 200 OK\nX",
    ],
)
def test_fragments_without_a_status_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedError):
        status_told(body)


@given(st.text(max_size=80) | st.from_regex(r"<sip:[a-z@.;?%&=A-Z0-9]{0,60}>", fullmatch=True))
def test_anything_is_read_or_refused(text: str) -> None:
    for parse in (ReferTo.parse, Replaces.parse):
        try:
            found = parse(text)
        except MalformedError:
            continue
        assert "\r" not in found.serialize()
        assert parse(found.serialize()) == found
