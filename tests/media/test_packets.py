"""RTP and RTCP on the wire: what is written is read again, and any bytes parse or raise MalformedError."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec.ntp import ntp_time
from voice_dpki.errors import MalformedError
from voice_dpki.media.rtcp import (
    Goodbye,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
    parse_compound,
)
from voice_dpki.media.rtp import RtpPacket

u32 = st.integers(0, 2**32 - 1)
packets = st.builds(
    RtpPacket, st.integers(0, 127), st.integers(0, 65_535), u32, u32, st.binary(max_size=200), st.booleans()
)
blocks = st.lists(
    st.builds(ReportBlock, u32, st.integers(0, 255), st.integers(-(2**23), 2**23 - 1), u32, u32, u32, u32),
    max_size=3,
).map(tuple)
reports = st.builds(SenderReport, u32, st.integers(0, 2**64 - 1), u32, u32, u32, blocks) | st.builds(
    ReceiverReport, u32, blocks
)


@given(packets)
def test_rtp_round_trip(packet: RtpPacket) -> None:
    assert RtpPacket.parse(packet.serialize()) == packet


@given(st.binary(max_size=100))
def test_any_rtp(data: bytes) -> None:
    for octets in (data, b"\xbf" + data, b"\x80" + data):
        with suppress(MalformedError):
            assert len(RtpPacket.parse(octets).payload) <= len(octets)


def test_rtp_with_all_its_options() -> None:
    """Two CSRCs, an extension of one word, three bytes of padding (RFC 3550 §5.1, §5.3.1)."""
    head = bytes([0xB2, 0x80 | 8, 0, 1]) + bytes(4) + b"\0\0\0\7"
    packet = RtpPacket.parse(head + bytes(8) + b"\xbe\xde\0\1abcd" + b"speech" + b"\0\0\3")
    assert packet == RtpPacket(8, 1, 0, 7, b"speech", marker=True)


@pytest.mark.parametrize(
    "octets",
    [b"", bytes(11), bytes([0x40]) + bytes(11), bytes([0xA0]) + bytes(12), bytes([0xA0]) + bytes(11), bytes(1501)],
)
def test_malformed_rtp(octets: bytes) -> None:
    with pytest.raises(MalformedError):
        RtpPacket.parse(octets)


@given(reports, st.text(max_size=20), st.lists(u32, max_size=5).map(tuple))
def test_rtcp_round_trip(report: SenderReport | ReceiverReport, cname: str, leaving: tuple[int, ...]) -> None:
    compound = report.serialize() + SourceDescription(1, cname).serialize() + Goodbye(leaving).serialize()
    assert len(compound) % 4 == 0
    assert parse_compound(compound) == (report, Goodbye(leaving))


@given(st.binary(max_size=200))
def test_any_rtcp(data: bytes) -> None:
    for octets in (data, b"\x80\xc9\0\1abcd" + data):
        with suppress(MalformedError):
            parse_compound(octets)


def test_a_compound_packet_begins_with_a_report() -> None:
    with pytest.raises(MalformedError):
        parse_compound(Goodbye((1,)).serialize())


def test_ntp_time() -> None:
    assert ntp_time(0) >> 32 == 2_208_988_800
    assert ntp_time(0.5) & 0xFFFFFFFF == 1 << 31
    report = SenderReport(1, ntp_time(1_790_000_000.25), 0, 0, 0)
    assert report.middle == (report.ntp // 65_536) % 2**32
