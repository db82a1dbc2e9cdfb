"""Messages from outside: what is read, what is refused, and that nothing else ever happens."""

import gc
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sipmessage import URI, Request, Response

from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import (
    MAX_MESSAGE_BYTES,
    Hop,
    UnsupportedError,
    encode,
    header_values,
    make_response,
    mark_received,
    parse_address,
    parse_message,
    parse_uri,
    read_envelope,
    reason_value,
    set_body,
    set_header_values,
    split_values,
    uri_hop,
)
from voice_dpki.sip.via import parse_via, way_back

INVITE = (
    b"INVITE sip:+442079460123@b.example SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 127.0.0.6:5060;branch=z9hG4bK+odd~branch;rport, SIP/2.0/TCP 127.0.0.9;branch=z9hG4bKtwo\r\n"
    b'From: "Caller, A." <sip:+493023125001@a.example>;tag=caller\r\n'
    b"To: <sip:+442079460123@b.example>\r\n"
    b"Call-ID: call-1\r\n"
    b"CSeq: 7 INVITE\r\n"
    b"Max-Forwards: 70\r\n"
    b"Content-Length: 3\r\n\r\nv=0"
)

RequestText = Callable[..., bytes]


def test_a_request_is_read() -> None:
    message = parse_message(INVITE)
    assert isinstance(message, Request)
    envelope = read_envelope(message)
    assert (envelope.method, envelope.sequence, envelope.call_id) == ("INVITE", 7, "call-1")
    assert (envelope.from_tag, envelope.to_tag) == ("caller", "")
    assert (envelope.via.branch, envelope.via.sent_by) == ("z9hG4bK+odd~branch", "127.0.0.6:5060")
    assert message.body == b"v=0"


def test_compact_folded_and_spaced_header_fields_are_read() -> None:
    data = (
        b"BYE sip:127.0.0.1 SIP/2.0\r\nv: SIP/2.0/UDP 127.0.0.1\r\n ;branch=z9hG4bKx\r\n"
        b"f : <sip:a@a.example>;tag=1\r\nt: <sip:b@b.example>;tag=2\r\ni: x\r\nCSeq\t: 2 BYE\r\nl: 0\r\n\r\n"
    )
    envelope = read_envelope(parse_message(data))
    assert (envelope.via.branch, envelope.from_tag, envelope.sequence) == ("z9hG4bKx", "1", 2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Call-ID: call-1\r\n", b"Call-ID: call-1\r\nCall-ID: call-2\r\n"),
        (b"Content-Length: 3", b"Content-Length: 4"),
        (b"Content-Length: 3", b"Content-Length: -3"),
        (b"Content-Length: 3", b"l: 3\r\nContent-Length: 3"),
        (b"Max-Forwards: 70", b"Max-Forwards: 7\n0: x"),
        (b"Max-Forwards: 70", b"Max-Forwards: 70\x00"),
        (b"Max-Forwards: 70", b"Max Forwards: 70"),
        (b"Max-Forwards: 70", b"Max-Forwards: 70\r\nX: " + b"y" * 9000),
        (b"Max-Forwards: 70", b"X: y\r\n" * 200 + b"Max-Forwards: 70"),
        (b"SIP/2.0\r\nVia", b"SIP/3.0\r\nVia"),
        (b"sip:+442079460123@b.example SIP", b"sip:" + b"4" * 600 + b"@b.example SIP"),
        (b"sip:+442079460123@b.example SIP", b"sip:4@b.example;self=1 SIP"),
        (b"sip:+442079460123@b.example SIP", b"urn:service:sos SIP"),
        (b"call-1", b"\xff\xfe"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(old: bytes, new: bytes) -> None:
    assert old in INVITE
    with pytest.raises(MalformedError):
        parse_message(INVITE.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"CSeq: 7 INVITE", b"CSeq: 7 BYE"),
        (b"CSeq: 7 INVITE", b"CSeq: 4294967296 INVITE"),
        (b"CSeq: 7 INVITE", b"CSeq: INVITE"),
        (b"Call-ID: call-1\r\n", b""),
        (b"To: <sip:+442079460123@b.example>", b"To: <sip:+442079460123@b.example>;self=1"),
        (b"127.0.0.6:5060", b"127.0.0.6:99999"),
        (b"SIP/2.0/UDP 127.0.0.6:5060", b"nonsense"),
    ],
)
def test_an_envelope_that_cannot_be_read_is_refused(old: bytes, new: bytes) -> None:
    assert old in INVITE
    message = parse_message(INVITE.replace(old, new, 1))
    with pytest.raises(MalformedError):
        read_envelope(message)


def test_the_largest_sequence_number_is_read() -> None:
    message = parse_message(INVITE.replace(b"CSeq: 7", b"CSeq: 4294967295"))
    assert read_envelope(message).sequence == 2**32 - 1


@pytest.mark.parametrize("text", ["tel:+" + "1" * 64, "TEL:" + "(" * 400, "sip:" + "4" * 600 + "@b.example"])
def test_a_number_or_uri_that_would_take_long_to_parse_is_refused_first(text: str) -> None:
    for parse, value in ((parse_uri, text), (parse_address, f'"x" <{text}>;tag=1' + " " * 600)):
        with pytest.raises(MalformedError, match="longer than"):
            parse(value)
    with pytest.raises(MalformedError, match="longer than"):
        parse_message(INVITE.replace(b"sip:+442079460123@b.example SIP", text.encode() + b" SIP"))


def test_what_is_slow_to_take_apart_is_refused_first() -> None:
    """Lists of tens of kilobytes, and quotes by the hundred: a datagram of each took 25 to 100 ms."""
    quotes = '"' + '\\"' * 40
    for parse, text in ((parse_via, f"SIP/2.0/UDP h;a={quotes}"), (parse_address, f"<sip:h>;a={quotes}")):
        with pytest.raises(MalformedError, match="quotes"):
            parse(text)
    for name in (b"Via", b"Route", b"Proxy-Require", b"X-Unknown"):
        lines = (name + b": " + b"a," * 3_000 + b"\r\n") * 3
        with pytest.raises(MalformedError, match="one header field has"):
            parse_message(INVITE.replace(b"Content-Length", lines + b"Content-Length"))
    identities = (b"Identity: " + b"a" * 8_000 + b"\r\n") * 6  # each is looked at by itself
    assert parse_message(INVITE.replace(b"Content-Length", identities + b"Content-Length"))


@pytest.mark.parametrize("line", [b"SIP/2.0 99 Low", b"SIP/2.0 700 High", b"SIP/2.0 +20 OK", b"SIP/2.0 2000 OK"])
def test_a_status_outside_its_range_is_refused(line: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_message(line + b"\r\nCall-ID: x\r\n\r\n")


def test_a_message_over_the_bound_is_refused() -> None:
    with pytest.raises(MalformedError):
        parse_message(INVITE + b"x" * MAX_MESSAGE_BYTES)


def test_a_response_keeps_the_via_as_it_came_and_says_where_it_goes() -> None:
    request = parse_message(INVITE)
    assert isinstance(request, Request)
    mark_received(request, read_envelope(request).via, Hop("udp", "127.0.0.8", 4444))
    response = make_response(request, 180, to_tag="callee")
    vias = header_values(response, "Via")
    assert vias[0] == "SIP/2.0/UDP 127.0.0.6:5060;branch=z9hG4bK+odd~branch;rport=4444;received=127.0.0.8"
    assert vias[1] == "SIP/2.0/TCP 127.0.0.9;branch=z9hG4bKtwo"
    assert response.headers["To"].endswith(";tag=callee")
    source = Hop("udp", "127.0.0.8", 4444)
    assert way_back(parse_via(vias[0]).asks_port, 5060, source) == source


def test_an_unasked_port_and_a_true_address_leave_the_via_alone() -> None:
    request = parse_message(INVITE.replace(b";rport", b""))
    assert isinstance(request, Request)
    before = header_values(request, "Via")
    source = Hop("udp", "127.0.0.6", 4444)
    mark_received(request, read_envelope(request).via, source)
    assert header_values(request, "Via") == before
    via = parse_via(before[0])
    assert way_back(via.asks_port, via.port, source) == Hop("udp", "127.0.0.6", 5060)


def test_what_was_unescaped_cannot_break_out_of_its_line() -> None:
    """A registrar repeats contacts, whose parameters sipmessage unescapes: %0D%0A is a line end then."""
    request = parse_message(INVITE)
    assert isinstance(request, Request)
    contact = str(parse_address('<sip:a@h>;x="%0D%0AIdentity:%20forged%00"').parameters["x"])
    assert "\r\nIdentity:" in contact
    again = parse_message(encode(make_response(request, 200, headers=[("Contact", f"<sip:a@h>;x={contact}")])))
    assert again.headers.get("Identity") is None
    assert again.headers["Contact"] == '<sip:a@h>;x="  Identity: forged "'


def test_a_reason_cannot_break_out_of_its_line() -> None:
    request = parse_message(INVITE)
    assert isinstance(request, Request)
    evil = 'x"\r\nIdentity: forged'
    response = make_response(request, 438, evil, headers=[("Reason", reason_value("STIR", 438, evil))])
    again = parse_message(encode(response))
    assert again.headers.get("Identity") is None
    assert again.headers["Reason"] == 'STIR;cause=438;text="x\\"  Identity: forged"'


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("a, b", ["a", "b"]),
        ('"x, y" <sip:a@b>, <sip:c@d;p="1,2">', ['"x, y" <sip:a@b>', '<sip:c@d;p="1,2">']),
        ("<sip:a,b@c>,<sip:d>", ["<sip:a,b@c>", "<sip:d>"]),
        (r'"q\", r" <sip:a>, b', [r'"q\", r" <sip:a>', "b"]),
        (",,", []),
    ],
)
def test_list_values_are_divided_outside_quotes_and_brackets(value: str, items: list[str]) -> None:
    assert split_values([value]) == items


@pytest.mark.parametrize("text", ["127.0.0.1:5060", "sctp:127.0.0.1:5060", "udp:host:5060", "udp:127.0.0.1:x", ""])
def test_a_hop_needs_transport_numeric_address_and_port(text: str) -> None:
    with pytest.raises(MalformedError):
        Hop.parse(text)


def test_a_uri_names_a_hop_only_with_a_numeric_address() -> None:
    message = parse_message(INVITE)
    assert isinstance(message, Request)
    assert uri_hop(message.uri) is None
    message = parse_message(INVITE.replace(b"b.example SIP", b"127.0.0.7:5070;transport=TCP SIP"))
    assert isinstance(message, Request)
    assert uri_hop(message.uri) == Hop("tcp", "127.0.0.7", 5070)


def test_a_uri_names_a_hop_up_to_the_last_port() -> None:
    assert uri_hop(URI("sip", "127.0.0.7", port=65_535)) == Hop("udp", "127.0.0.7", 65_535)
    assert uri_hop(URI("sip", "127.0.0.7", port=65_536)) is None


def test_a_body_goes_with_its_type() -> None:
    request = parse_message(INVITE)
    assert isinstance(request, Request)
    response = make_response(request, 200)
    set_body(response, b"v=0\r\n", "application/sdp")
    again = parse_message(encode(response))
    assert (again.body, again.headers["Content-Type"]) == (b"v=0\r\n", "application/sdp")


def _understand(data: bytes) -> None:
    """Read a message as every element does, or be told that it cannot be."""
    try:
        message = parse_message(data)
    except MalformedError:
        return
    assert parse_message(encode(message)).body == message.body
    try:
        envelope = read_envelope(message)
        if isinstance(message, Request):
            mark_received(message, envelope.via, Hop("udp", "127.0.0.1", 5060))
            again = parse_message(encode(make_response(message, 200, to_tag="t")))
            assert isinstance(again, Response)
            assert read_envelope(again).call_id == envelope.call_id
    except MalformedError:
        return


@given(st.binary(max_size=2000))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    _understand(data)


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(INVITE)),
            st.integers(0, 40),
            st.one_of(
                st.binary(max_size=20),
                st.sampled_from([b"\r\n", b";self=1", b",", b'"', b"<", b">", b"%", b"\\", b"\r\n "]),
            ),
        ),
        max_size=6,
    )
)
def test_a_changed_invite_parses_or_is_refused(changes: list[tuple[int, int, bytes]]) -> None:
    data = INVITE
    for at, removed, inserted in changes:
        data = data[:at] + inserted + data[at + removed :]
    _understand(data)


@given(st.lists(st.text(max_size=20).filter(lambda t: "\r" not in t and "\n" not in t), max_size=5))
def test_header_values_are_kept(values: list[str]) -> None:
    message = parse_message(INVITE)
    set_header_values(message, "X-Test", values)
    assert list(message.headers.getlist("X-Test")) == values


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("udp:[2001:db8::1]:5060", Hop("udp", "2001:db8::1", 5060)),
        ("tcp:[2001:DB8:0:0::1]:5061", Hop("tcp", "2001:db8::1", 5061)),
        ("udp:2001:db8::1:5060", None),
        ("udp:[fe80::1%eth0]:5060", None),
        ("udp:[127.0.0.1]:5060", None),
        ("udp:[::g]:5060", None),
    ],
)
def test_an_ipv6_hop_stands_in_brackets(text: str, hop: Hop | None) -> None:
    if hop is None:
        with pytest.raises(MalformedError):
            Hop.parse(text)
        return
    assert Hop.parse(text) == hop
    assert str(hop) == text.lower().replace("0:0::", ":").replace("db8:::", "db8::")


def test_ipv6_in_via_is_one_address_in_every_spelling() -> None:
    """RFC 5118 §4.5 has `received` with and without brackets."""
    for text in ("[2001:db8::9:1]", "[2001:DB8:0::9:1]"):
        via = parse_via(f"SIP/2.0/UDP {text};branch=z9hG4bKas3-111")
        assert (via.host, via.sent_by) == ("2001:db8::9:1", "[2001:db8::9:1]:5060")
    for received in ("2001:db8::9:255", "[2001:db8::9:255]"):
        parse_via(f"SIP/2.0/UDP [2001:db8::9:1];received={received};branch=z9hG4bKas3-111")
    uri = parse_uri("sip:user@[2001:DB8::10]:5070;transport=tcp")
    assert uri_hop(uri) == Hop("tcp", "2001:db8::10", 5070)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_via, "SIP/2.0/UDP 127.0.66.2:506Sz9hG4bK"),
        (parse_address, "<sip:a@b>x"),
        (parse_uri, "mailto:a@b"),
    ],
)
def test_malformed_values_leave_nothing_in_memory(parse: Callable[[str], object], text: str) -> None:
    """The library raises one and the same error again and again, and Python lengthens its traceback each time."""

    before = _tracebacks()
    for _ in range(100):
        with suppress(MalformedError):
            parse(text)
    assert _tracebacks() - before < 10


def _tracebacks() -> int:
    gc.collect()
    return sum(isinstance(each, TracebackType) for each in gc.get_objects())


def test_the_version_is_that_of_a_request_line() -> None:
    """Neither the phrase of a status line, nor what names no version of SIP at all, is another version."""
    response = encode(make_response(parse_message(INVITE), 200)).replace(b" OK", b" SIP/3.0", 1)  # type: ignore[arg-type]
    assert response.startswith(b"SIP/2.0 200 SIP/3.0\r\n")
    assert isinstance(parse_message(response), Response)
    for version, unsupported in ((b"SIP/3.0", True), (b"HTTP/1.1", False), (b"SIP/x", False)):
        with pytest.raises(MalformedError) as caught:
            parse_message(INVITE.replace(b"SIP/2.0\r\nVia", version + b"\r\nVia", 1))
        assert isinstance(caught.value, UnsupportedError) is unsupported
