"""What a translator changes of RTP and RTCP: one stream leaves, whichever sources there are."""

from itertools import pairwise
from typing import Any

import pytest

from voice_dpki.media.any_source import MAX_SSRCS, SUITES, AnySourceSrtp
from voice_dpki.media.relay import MAX_SOURCES, NotRelayedError, Translation, Unrelayed
from voice_dpki.media.rtcp import (
    Goodbye,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
    parse_compound,
)
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.media.srtp import SrtpError

OURS, THEIRS, SOURCE = 0xAAAA, 0xBBBB, 0x1111


@pytest.fixture
def ways(random: Any) -> tuple[Translation, Translation]:
    return Translation(OURS, {8: 0, 101: 96}, 8000, random), Translation(THEIRS, {0: 8}, 8000, random)


def packet(number: int, *, source: int = SOURCE, payload_type: int = 8, first: int = 65_530) -> bytes:
    made = RtpPacket(payload_type, (first + number) & 0xFFFF, (2**32 - 320 + 160 * number) % 2**32, source, b"x")
    return made.serialize()


def relayed(way: Translation, *packets: bytes, start_s: float = 0.0) -> list[RtpPacket]:
    return [RtpPacket.parse(way.rtp(each, start_s + 0.02 * at)) for at, each in enumerate(packets)]


def assert_goes_on(packets: list[RtpPacket]) -> None:
    for one, other in pairwise(packets):
        assert (other.sequence - one.sequence) % 65_536 == 1
        assert (other.timestamp - one.timestamp) % 2**32 == 160


def test_one_stream_over_both_wraps(ways: Any) -> None:
    made = relayed(ways[0], *(packet(n) for n in range(20)))
    assert {(p.ssrc, p.payload_type, p.payload) for p in made} == {(OURS, 0, b"x")}
    assert_goes_on(made)
    assert made[0].sequence < 32_768  # SRTP's roll-over counter starts with it (RFC 3711 §3.3.1)
    assert [p.marker for p in made] == [True] + [False] * 19


def test_another_source_goes_on_where_the_first_ended(ways: Any) -> None:
    before = relayed(ways[0], *(packet(n) for n in range(10)))
    after = relayed(ways[0], *(packet(n, source=0x2222, first=7) for n in range(10)), start_s=0.2)
    assert_goes_on(before + after)
    assert after[0].marker


def test_a_gap_and_a_late_packet_stay_what_they_are(ways: Any) -> None:
    made = relayed(ways[0], packet(0), packet(3), packet(1))
    assert [(p.sequence - made[0].sequence) % 65_536 for p in made] == [0, 3, 1]


def test_a_source_that_was_left_does_not_come_back(ways: Any) -> None:
    relayed(ways[0], packet(0), packet(0, source=0x2222))
    with pytest.raises(NotRelayedError) as caught:
        ways[0].rtp(packet(1), 0.1)
    assert caught.value.why is Unrelayed.SOURCE


def test_the_number_of_sources_is_bounded(ways: Any) -> None:
    for number in range(MAX_SOURCES):
        ways[0].rtp(packet(0, source=number + 1), 0.0)
    with pytest.raises(NotRelayedError):
        ways[0].rtp(packet(0, source=MAX_SOURCES + 1), 0.0)


def test_new_keys_let_further_sources_in_but_not_the_last_one_again(ways: Any) -> None:
    there = ways[0]
    for number in range(MAX_SOURCES):
        there.rtp(packet(0, source=number + 1), 0.0)
    there.expect_source()
    for number in range(MAX_SOURCES - 1):
        there.rtp(packet(0, source=1_000 + number), 0.0)
    for source in (MAX_SOURCES, 5_000):
        with pytest.raises(NotRelayedError):
            there.rtp(packet(0, source=source), 0.0)


def test_payload_types_of_before_a_change_go_on_for_a_while(ways: Any) -> None:
    there = ways[0]
    there.retype({9: 9}, 10.0)
    there.retype({9: 9}, 11.0)  # a refresh changes nothing
    for arrives, now_s, leaves in ((9, 10.0, 9), (8, 11.9, 0), (9, 12.1, 9)):
        assert RtpPacket.parse(there.rtp(packet(0, payload_type=arrives), now_s)).payload_type == leaves
    with pytest.raises(NotRelayedError):
        there.rtp(packet(0, payload_type=8), 12.1)


@pytest.mark.parametrize(
    ("data", "why"), [(packet(0, payload_type=9), Unrelayed.PAYLOAD_TYPE), (b"\x80", Unrelayed.MALFORMED)]
)
def test_what_was_not_agreed_is_not_passed_on(ways: Any, data: bytes, why: Unrelayed) -> None:
    with pytest.raises(NotRelayedError) as caught:
        ways[0].rtp(data, 0.0)
    assert caught.value.why is why


def test_header_extensions_and_padding_are_left_out(ways: Any) -> None:
    plain = RtpPacket.parse(packet(0))
    head = bytes([0x80 | 0x20 | 0x10]) + packet(0)[1:12]
    made = ways[0].rtp(head + bytes.fromhex("bede0001") + b"loud" + b"x" + b"\0\0\x03", 0.0)
    assert made[0] == 0x80
    assert RtpPacket.parse(made).payload == plain.payload


def test_reports_are_moved_there_and_back(ways: Any) -> None:
    there, back = ways
    (ours,) = relayed(there, packet(0))
    (theirs,) = relayed(back, packet(0, source=0x3333, payload_type=0, first=60_000))
    heard = ReportBlock(THEIRS, 5, -3, theirs.sequence + 65_536, 70, 0x1234, 99)
    other = ReportBlock(0x7777, 0, 0, 1, 0)
    sent = SenderReport(SOURCE, 2**63, RtpPacket.parse(packet(0)).timestamp, 10, 1600, (other, heard))
    made = parse_compound(there.rtcp(sent.serialize() + SourceDescription(SOURCE, "me@home").serialize(), back))
    moved = ReportBlock(0x3333, 5, -3, 60_000 + 65_536, 70, 0x1234, 99)
    assert made == (SenderReport(OURS, 2**63, ours.timestamp, 1, 1, (moved,)),)


def test_a_report_counts_what_has_left_in_this_stream_and_not_what_its_source_sent_before(ways: Any) -> None:
    """A stream under new keys begins in the middle of its source's, and one may have several sources in turn."""
    there, back = ways
    relayed(there, *(packet(n) for n in range(100, 104)))
    (told,) = parse_compound(there.rtcp(SenderReport(SOURCE, 1, 2, 104, 16_640).serialize(), back))
    relayed(there, *(packet(n, source=0x2222) for n in range(3)))
    (later,) = parse_compound(there.rtcp(SenderReport(0x2222, 3, 4, 3, 480).serialize(), back))
    reports = [report for report in (told, later) if isinstance(report, SenderReport)]
    assert [(report.packets, report.octets) for report in reports] == [(4, 4), (7, 7)]  # an octet in each


def test_neither_a_name_nor_an_end_is_passed_on(ways: Any) -> None:
    there, back = ways
    relayed(there, packet(0))
    end = ReceiverReport(SOURCE).serialize() + SourceDescription(SOURCE, "me@home").serialize()
    made = there.rtcp(end + Goodbye((SOURCE,)).serialize(), back)
    assert b"me@home" not in made
    assert parse_compound(made) == (ReceiverReport(OURS),)


def test_another_sources_end_and_report_are_not_this_ones(ways: Any) -> None:
    there, back = ways
    relayed(there, packet(0))
    made = there.rtcp(SenderReport(0x9999, 1, 2, 3, 4).serialize() + Goodbye((0x9999,)).serialize(), back)
    assert parse_compound(made) == (ReceiverReport(OURS),)


@pytest.mark.parametrize("data", [b"", b"\x80\xca\0\0", b"\x81\xc8"])
def test_rtcp_that_cannot_be_read_is_not_passed_on(ways: Any, data: bytes) -> None:
    with pytest.raises(NotRelayedError):
        ways[0].rtcp(data, ways[1])


@pytest.mark.parametrize("suite", SUITES)
def test_any_source_is_heard_under_its_key_and_no_other(suite: str) -> None:
    size = {"AEAD_AES_128_GCM": 28, "AEAD_AES_256_GCM": 44}.get(suite, 30)
    ours, theirs = bytes([1]) * size, bytes([2]) * size
    one = AnySourceSrtp(suite, send=ours, receive=theirs)
    other = AnySourceSrtp(suite, send=theirs, receive=ours)
    for source in (1, 2):
        assert other.unprotect(one.protect(packet(0, source=source))) == packet(0, source=source)
    report = ReceiverReport(1).serialize()
    assert one.unprotect_rtcp(other.protect_rtcp(report)) == report
    wire = one.protect(packet(1))
    assert wire[12:13] != b"x"
    with pytest.raises(SrtpError):
        other.unprotect(wire[:-1] + bytes([wire[-1] ^ 1]))
    with pytest.raises(SrtpError):
        one.unprotect(wire)


def test_the_number_of_sources_under_one_key_is_bounded() -> None:
    key = bytes(30)
    receiver = AnySourceSrtp("AES_CM_128_HMAC_SHA1_80", send=bytes([1]) * 30, receive=key)
    sender = AnySourceSrtp("AES_CM_128_HMAC_SHA1_80", send=key, receive=bytes([1]) * 30)
    forged = sender.protect(packet(0, source=5_000))
    with pytest.raises(SrtpError):
        receiver.unprotect(forged[:-1] + bytes([forged[-1] ^ 1]))  # takes no place
    for source in range(MAX_SSRCS - 1):
        receiver.unprotect(sender.protect(packet(0, source=source)))
    receiver.unprotect_rtcp(sender.protect_rtcp(ReceiverReport(1_000).serialize()))
    refused = f"more than {MAX_SSRCS} SSRCs"
    with pytest.raises(SrtpError, match=refused):
        receiver.unprotect(sender.protect(packet(0, source=2_000)))
    with pytest.raises(SrtpError, match=refused):
        receiver.unprotect_rtcp(sender.protect_rtcp(ReceiverReport(2_000).serialize()))
    for known in (0, MAX_SSRCS - 2, 1_000):
        assert receiver.unprotect(sender.protect(packet(1, source=known))) == packet(1, source=known)
