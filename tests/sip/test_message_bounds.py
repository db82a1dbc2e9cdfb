"""The bounds of a message, each at its edge, and the parts of an answer that RFC 3261 §8.2.6 lists."""

import re
from collections.abc import Callable

import pytest
from sipmessage import Request, Response

from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import (
    UnsupportedError,
    copy_response,
    encode,
    header_values,
    make_response,
    parse_address,
    parse_message,
    parse_uri,
    read_envelope,
    reason_value,
    required_header,
)

RequestText = Callable[..., bytes]


def check(data: bytes, whole: bool, match: str) -> None:
    """Demand that a message is within the bounds, or else is refused for what `match` says."""
    if whole:
        assert read_envelope(parse_message(data)).call_id == "call-1"
        return
    with pytest.raises(MalformedError, match=match):
        read_envelope(parse_message(data))


@pytest.mark.parametrize(("fields", "whole"), [(128, True), (129, False)])
def test_a_message_has_at_most_128_header_fields(request_text: RequestText, fields: int, whole: bool) -> None:
    beside = request_text().partition(b"\r\n\r\n")[0].count(b"\r\n")
    check(request_text(headers="X: y\r\n" * (fields - beside)), whole, "more than 128 header fields")


@pytest.mark.parametrize(("size", "whole"), [(8_192, True), (8_193, False)])
def test_a_line_has_at_most_8192_bytes(request_text: RequestText, size: int, whole: bool) -> None:
    check(request_text(headers=f"X: {'y' * (size - 3)}\r\n"), whole, "or one over 8192 bytes")


@pytest.mark.parametrize(("size", "whole"), [(16_384, True), (16_385, False)])
def test_the_values_of_one_header_field_have_at_most_16384_characters(
    request_text: RequestText, size: int, whole: bool
) -> None:
    for name, is_whole in (("X", whole), ("Identity", True)):
        lines = f"{name}: {'y' * 8_000}\r\n{name}: {'y' * 8_000}\r\n{name}: {'y' * (size - 16_000)}\r\n"
        check(request_text(headers=lines), is_whole, "more than 16384 characters, all values together")


@pytest.mark.parametrize(("size", "whole"), [(512, True), (513, False)])
def test_the_first_line_has_at_most_512_bytes(request_text: RequestText, size: int, whole: bool) -> None:
    line = "INVITE sip:@b.example SIP/2.0"
    uri = f"sip:{'4' * (size - len(line))}@b.example"
    check(request_text(uri=uri), whole, "the first line is longer than 512 bytes")


@pytest.mark.parametrize(
    ("parse", "begin", "most"), [(parse_uri, "sip:a@h;x=", 512), (parse_address, "<sip:a@h>;x=", 1_024)]
)
def test_uris_and_addresses_are_bounded(parse: Callable[[str], object], begin: str, most: int) -> None:
    assert parse(begin.ljust(most, "y"))
    with pytest.raises(MalformedError, match=f"longer than {most} characters"):
        parse(begin.ljust(most + 1, "y"))


@pytest.mark.parametrize(("vias", "whole"), [(1, True), (70, True), (71, False), (0, False)])
def test_a_message_has_1_to_70_vias(request_text: RequestText, vias: int, whole: bool) -> None:
    message = parse_message(request_text())
    message.headers.setlist("Via", ["SIP/2.0/UDP 127.0.0.6;branch=z9hG4bKx"] * vias)
    if whole:
        assert read_envelope(message).via.branch == "z9hG4bKx"
        return
    with pytest.raises(MalformedError, match="no Via, or more than 70"):
        read_envelope(message)


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b" SIP/2.0\r\n", b" SIP/3.0\r\n", 505),
        (b"sip:+442079460123@b.example SIP", b"urn:service:sos SIP", 416),
        (b"sip:+442079460123@b.example SIP", b"http:x SIP", 416),
        (b"CSeq: 1 INVITE", b"CSeq: 1 INVENT", None),
        (b"INVITE sip", b"INVENT sip", 501),
    ],
)
def test_what_is_not_supported_has_a_status_of_its_own(
    request_text: RequestText, old: bytes, new: bytes, status: int | None
) -> None:
    """RFC 4475 §3.1.2.16, §3.3.1 and §3.3.2."""
    with pytest.raises(MalformedError) as caught:
        read_envelope(parse_message(request_text().replace(old, new, 1)))
    assert getattr(caught.value, "status", None) == status
    assert isinstance(caught.value, UnsupportedError) is (status is not None)


def test_a_request_uri_may_have_an_ipv6_address_that_ends_in_ipv4(request_text: RequestText) -> None:
    """RFC 5118 §4.10; sipmessage alone refuses it."""
    message = parse_message(request_text(uri="sip:a@[::ffff:192.0.2.1]:5070", headers="Subject: [x]\r\n"))
    assert isinstance(message, Request)
    assert (message.uri.host, message.uri.port) == ("[::ffff:c000:201]", 5070)
    assert message.headers["Subject"] == "[x]"


@pytest.mark.parametrize("space", [" ", "\t", " \t "])
def test_space_before_a_colon_does_not_count(request_text: RequestText, space: str) -> None:
    """RFC 3261 §7.3.1, and nowhere but after the name."""
    message = parse_message(request_text(headers=f"Subject{space}: a{space}: b\r\n"))
    assert message.headers["Subject"] == f"a{space}: b"


@pytest.mark.parametrize(
    ("status", "to", "to_tag", "answered"),
    [
        (200, "<sip:b@h>", "mine", "<sip:b@h>;tag=mine"),
        (200, "<sip:b@h>", "", "<sip:b@h>"),
        (200, "<sip:b@h>;tag=theirs", "mine", "<sip:b@h>;tag=theirs"),
        (200, "<sip:b@h>;tag=theirs", "", "<sip:b@h>;tag=theirs"),
        (100, "<sip:b@h>", "mine", "<sip:b@h>"),
        (101, "<sip:b@h>", "mine", "<sip:b@h>;tag=mine"),
    ],
)
def test_an_answer_has_a_tag_unless_it_is_100(
    request_text: RequestText, status: int, to: str, to_tag: str, answered: str
) -> None:
    request = parse_message(request_text(headers="X: y\r\n"))
    assert isinstance(request, Request)
    request.headers.set("To", to)
    response = make_response(request, status, to_tag=to_tag)
    assert response.headers["To"] == answered
    for name in ("Via", "From", "Call-ID", "CSeq"):
        assert response.headers.getlist(name) == request.headers.getlist(name)
    assert response.headers.get("X") is None


PHRASES = """\
100 Trying; 180 Ringing; 183 Session Progress; 200 OK; 300 Multiple Choices; 302 Moved Temporarily; 400 Bad Request;
401 Unauthorized; 403 Forbidden; 404 Not Found; 405 Method Not Allowed; 406 Not Acceptable;
407 Proxy Authentication Required; 408 Request Timeout; 415 Unsupported Media Type; 416 Unsupported URI Scheme;
420 Bad Extension; 423 Interval Too Brief; 428 Use Identity Header; 430 Flow Failed; 436 Bad Identity Info;
437 Unsupported Credential; 438 Invalid Identity Header; 439 First Hop Lacks Outbound Support;
480 Temporarily Unavailable; 481 Call/Transaction Does Not Exist; 482 Loop Detected; 483 Too Many Hops;
486 Busy Here; 487 Request Terminated; 488 Not Acceptable Here; 500 Server Internal Error; 501 Not Implemented;
502 Bad Gateway; 503 Service Unavailable; 505 Version Not Supported; 603 Decline;
101 Answer; 181 Answer; 299 Answer; 700 Answer"""
"""Of IANA's registry of SIP response codes, and of codes that are not there."""


@pytest.mark.parametrize(("status", "phrase"), [(int(text[:3]), text[4:]) for text in re.split(r";\s", PHRASES)])
def test_an_answer_has_its_phrase(request_text: RequestText, status: int, phrase: str) -> None:
    request = parse_message(request_text())
    assert isinstance(request, Request)
    assert make_response(request, status).phrase == phrase
    assert make_response(request, status, "Own").phrase == "Own"


def test_a_copy_of_an_answer_has_header_fields_of_its_own(request_text: RequestText) -> None:
    request = parse_message(request_text())
    assert isinstance(request, Request)
    response = make_response(request, 200, headers=[("X", "1"), ("X", "2")])
    copy = copy_response(response)
    assert encode(copy) == encode(response)
    copy.headers.remove("X")
    assert header_values(response, "X") == ["1", "2"]


def test_a_message_goes_out_with_the_length_of_its_body() -> None:
    response = Response(200, "OK", b"hello")
    assert b"\r\nContent-Length: 5\r\n" in encode(response)
    response.body = b""
    assert b"\r\nContent-Length: 0\r\n" in encode(response)


@pytest.mark.parametrize("value", [None, ""])
def test_a_required_header_field_has_a_value(value: str | None) -> None:
    response = Response(200, "OK")
    if value is not None:
        response.headers.set("Call-ID", value)
    with pytest.raises(MalformedError, match="no Call-ID header field"):
        required_header(response, "Call-ID")


def test_a_reason_is_quoted() -> None:
    assert reason_value("STIR", 436, 'a "b" \\ c') == 'STIR;cause=436;text="a \\"b\\" \\\\ c"'
