"""Session descriptions: read, kept and changed without loss."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.sip.sdp import PLAIN, SECURE, Direction, RtpMap, SessionDescription, audio_description

OFFER = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.6\r\ns=-\r\nc=IN IP4 127.0.0.6\r\nt=0 0\r\na=key-mgmt:mikey AQAF\r\n"
    b"a=unknown\r\nm=audio 4000/2 RTP/SAVP 96 0 18 101\r\nb=AS:64\r\na=rtpmap:96 opus/48000/2\r\n"
    b"a=fmtp:96 useinbandfec=1\r\na=ptime:20\r\na=key-mgmt:mikey BBBB\r\nm=video 0 RTP/AVP 99\r\n"
)


def test_what_matters_is_read_and_all_is_kept() -> None:
    sdp = SessionDescription.parse(OFFER)
    assert sdp.serialize() == OFFER
    assert sdp.key_mgmt == ("mikey AQAF", "mikey BBBB")
    assert sdp.audio_address == ("127.0.0.6", 4000)
    assert sdp.audio.protocol == SECURE
    assert sdp.audio.ptime_ms == 20
    assert sdp.audio.rtpmaps == (RtpMap(96, "opus/48000/2", "useinbandfec=1"), RtpMap(0, "PCMU/8000"))


def test_key_management_of_the_section_overrides_that_of_the_session() -> None:
    """RFC 4567 §3.1."""
    own = b"a=key-mgmt:mikey BBBB\r\n"
    assert SessionDescription.parse(OFFER).audio_key_mgmt == ("mikey BBBB",)
    assert SessionDescription.parse(OFFER.replace(own, b"")).audio_key_mgmt == ("mikey AQAF",)
    elsewhere = SessionDescription.parse(OFFER.replace(own, b"") + own)
    assert elsewhere.audio_key_mgmt == ("mikey AQAF",), "the video's is not for the audio"


def test_payload_types_of_rfc_3551_need_no_rtpmap() -> None:
    sdp = SessionDescription.parse(OFFER.replace(b"96 0 18 101", b"0 3 4 8 9"))
    named = [(0, "PCMU/8000"), (3, "GSM/8000"), (8, "PCMA/8000"), (9, "G722/8000")]
    assert sdp.audio.rtpmaps == tuple(RtpMap(number, encoding, "") for number, encoding in named)


def test_lines_may_end_in_a_bare_line_feed() -> None:
    assert SessionDescription.parse(OFFER.replace(b"\r\n", b"\n")).serialize() == OFFER


def test_an_own_description_reads_back() -> None:
    payloads = (RtpMap(111, "opus/48000/2", "useinbandfec=1"), RtpMap(0, "PCMU/8000"))
    sdp = audio_description("127.0.0.6", 4000, payloads, session_id=7, key_mgmt=["mikey AQAF"])
    again = SessionDescription.parse(sdp.serialize())
    assert again == sdp
    assert (again.audio.rtpmaps, again.key_mgmt) == (payloads, ("mikey AQAF",))
    assert again.audio.protocol == SECURE
    assert again.audio.ptime_ms is None, "the default of RFC 3551 §4.2, 20 ms"
    longer = audio_description("127.0.0.6", 4000, payloads, session_id=7, ptime_ms=40)
    assert SessionDescription.parse(longer.serialize()).audio.ptime_ms == 40
    plain = audio_description("127.0.0.6", 4000, payloads, session_id=7)
    assert (plain.audio.protocol, plain.key_mgmt) == (PLAIN, ())


@pytest.mark.parametrize("direction", Direction)
def test_directions(direction: Direction) -> None:
    sdp = audio_description("127.0.0.6", 4000, [RtpMap(0, "PCMU/8000")], session_id=7, direction=direction)
    assert SessionDescription.parse(sdp.serialize()).audio_direction is direction


def test_a_direction_of_the_session_holds_where_the_section_has_none() -> None:
    assert SessionDescription.parse(OFFER).audio_direction is Direction.SENDRECV
    held = OFFER.replace(b"a=unknown", b"a=sendonly")
    assert SessionDescription.parse(held).audio_direction is Direction.SENDONLY
    both = held.replace(b"a=ptime:20", b"a=inactive")
    assert SessionDescription.parse(both).audio_direction is Direction.INACTIVE


@pytest.mark.parametrize(
    ("offered", "wanted", "answered"),
    [
        ("sendrecv", "sendonly", "sendonly"),
        ("sendonly", "sendonly", "inactive"),
        ("recvonly", "sendonly", "sendonly"),
        ("inactive", "sendrecv", "inactive"),
        ("sendrecv", "inactive", "inactive"),
        ("sendonly", "recvonly", "recvonly"),
    ],
)
def test_answers_of_a_side_that_wants_less(offered: str, wanted: str, answered: str) -> None:
    assert Direction(offered).answered_by(Direction(wanted)) == answered


def test_directions_that_answer() -> None:
    """RFC 3264 §6.1."""
    answers = {direction.value: direction.answered.value for direction in Direction}
    assert answers == {
        "sendrecv": "sendrecv",
        "sendonly": "recvonly",
        "recvonly": "sendonly",
        "inactive": "inactive",
    }
    assert [(d.sends, d.receives) for d in Direction] == [
        (True, True),
        (True, False),
        (False, True),
        (False, False),
    ]


def test_changes_touch_what_they_name() -> None:
    sdp = SessionDescription.parse(OFFER)
    changed = sdp.map_lines(lambda line: None if line.startswith("a=key-mgmt") else line).with_protocol(PLAIN)
    assert changed.serialize() == OFFER.replace(b"a=key-mgmt:mikey AQAF\r\n", b"").replace(
        b"a=key-mgmt:mikey BBBB\r\n", b""
    ).replace(b"RTP/SAVP", b"RTP/AVP")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"v=1\r\n",
        b"v=0\r\nnonsense\r\n",
        b"v=0\r\nm=audio 4000 RTP/AVP\r\n",
        b"v=0\r\nm=audio 70000 RTP/AVP 0\r\n",
        b"v=0\r\nm=audio x RTP/AVP 0\r\n",
        b"v=0\r\na=\xff\r\n",
        b"v=0\r\n" + b"a=x\r\n" * 600,
        b"v=0\r\n" + b"m=audio 1 RTP/AVP 0\r\n" * 17,
        b"v=0\r\na=" + b"x" * 40_000,
    ],
)
def test_what_is_no_description_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        SessionDescription.parse(data)


def audio(*lines: str, formats: str = "0", port: str = "4000") -> SessionDescription:
    text = ["v=0", f"m=audio {port} RTP/AVP {formats}", *lines]
    return SessionDescription.parse("\r\n".join(text).encode())


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("20", 20),
        (" 20 ", 20),
        ("00020", 20),
        ("1000", 1_000),
        ("1001", None),
        ("000020", None),
        ("-20", None),
        ("2 0", None),
        ("", None),
        ("\N{SUPERSCRIPT TWO}", None),
    ],
)
def test_a_number_has_at_most_five_digits(text: str, number: int | None) -> None:
    described = audio(f"a=ptime:{text}", "a=ptime:30").audio
    if number is not None:
        assert described.ptime_ms == number
        return
    with pytest.raises(MalformedError, match="no number where one up to 1000 belongs"):
        _ = described.ptime_ms


def test_a_payload_type_is_up_to_127() -> None:
    assert audio("a=rtpmap:127 opus/48000/2", formats="127").audio.rtpmaps == (RtpMap(127, "opus/48000/2"),)
    with pytest.raises(MalformedError, match="up to 127"):
        _ = audio("a=rtpmap:128 opus/48000/2", formats="128").audio.rtpmaps


@pytest.mark.parametrize(
    ("port", "read"),
    [
        ("65535", (65_535, 1)),
        ("65536", None),
        ("1/2", (1, 2)),
        ("1/65535", (1, 65_535)),
        ("1/65536", None),
        ("1/0", None),
    ],
)
def test_ports_are_up_to_65535_and_at_least_one(port: str, read: tuple[int, int] | None) -> None:
    if read is None:
        with pytest.raises(MalformedError):
            audio(port=port)
        return
    described = audio(port=port)
    assert (described.audio.port, described.audio.port_count) == read
    assert SessionDescription.parse(described.serialize()) == described


@pytest.mark.parametrize(
    ("line", "whole"),
    [("a=", True), ("a=x", True), ("a", False), ("ax", False), ("a=x\0", False), ("a=x\ry", False), ("", False)],
)
def test_a_line_is_a_letter_an_equals_sign_and_a_value(line: str, whole: bool) -> None:
    if whole:
        assert audio(line, "a=last").audio.lines == (line, "a=last")
        return
    with pytest.raises(MalformedError, match="not TYPE=VALUE"):
        audio(line, "a=last")


@pytest.mark.parametrize(
    ("longest", "one"),
    [(b"v=0\r\na=".ljust(32_768, b"x"), b"x"), (b"v=0\n" + b"a=x\n" * 511, b"a=x\n"),
     (b"v=0\n" + b"m=audio 1 RTP/AVP 0\n" * 16, b"m=audio 1 RTP/AVP 0\n")],
    ids=["32768 bytes", "512 lines", "16 sections"],
)  # fmt: skip
def test_a_description_is_bounded(longest: bytes, one: bytes) -> None:
    SessionDescription.parse(longest)
    with pytest.raises(MalformedError, match=r"over|more than"):
        SessionDescription.parse(longest + one)


def test_audio_without_an_address_is_told() -> None:
    with pytest.raises(MalformedError, match="no address for its audio"):
        _ = audio("c=IN ATM x").audio_address


@pytest.mark.parametrize("data", [b"v=0\r\n", b"v=0\r\nm=audio 0 RTP/AVP 0\r\n", b"v=0\r\nm=video 1 RTP/AVP 0\r\n"])
def test_a_call_needs_audio(data: bytes) -> None:
    with pytest.raises(MalformedError):
        _ = SessionDescription.parse(data).audio


def _understand(data: bytes) -> None:
    try:
        sdp = SessionDescription.parse(data)
    except MalformedError:
        return
    assert SessionDescription.parse(sdp.serialize()) == sdp
    try:
        assert sdp.audio_address
        assert all(0 <= rtpmap.payload_type < 128 for rtpmap in sdp.audio.rtpmaps)
        _ = sdp.audio.ptime_ms
    except MalformedError:
        return


@given(st.binary(max_size=400))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    _understand(data)
    _understand(b"v=0\r\n" + data)


@example([(110, 14, b"")])  # m=audio 4000/0: no port at all
@given(st.lists(st.tuples(st.integers(0, len(OFFER)), st.integers(0, 20), st.binary(max_size=10)), max_size=5))
def test_a_changed_offer_parses_or_is_refused(changes: list[tuple[int, int, bytes]]) -> None:
    data = OFFER
    for at, removed, inserted in changes:
        data = data[:at] + inserted + data[at + removed :]
    _understand(data)


def test_an_ipv6_address_is_read_and_written() -> None:
    """The c= line of RFC 4566 §5.7's example, and another spelling of one address."""
    for line, address in (("FF15::101", "ff15::101"), ("FF15::101/3", "ff15::101"), ("0:0::1", "::1")):
        text = f"v=0\r\no=- 1 1 IN IP6 ::1\r\ns=-\r\nc=IN IP6 {line}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
        assert SessionDescription.parse(text.encode()).audio_address == (address, 4000)
    written = audio_description("::1", 4000, [RtpMap(0, "PCMU/8000")], session_id=1).serialize()
    assert b"o=- 1 1 IN IP6 ::1\r\n" in written
    assert b"c=IN IP6 ::1\r\n" in written
