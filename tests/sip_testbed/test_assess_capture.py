"""The check of a capture, against packets that libsrtp has encrypted, and the same with one of them in clear."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sip_testbed import capture
from sip_testbed.assess_capture import NAME, checks, is_compound
from sip_testbed.events import RtpEvent, SipEvent
from sip_testbed.evidence import Evidence
from sip_testbed.scenarios import SCENARIOS
from tests.media.conftest import keys_for
from voice_dpki.errors import MalformedError
from voice_dpki.media.rtcp import Goodbye, SenderReport, SourceDescription
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.media.srtp import Srtp
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.stage.events import Event
from voice_dpki.stage.pcap import Datagram, datagrams, endpoint, pcap

PROFILES = pytest.mark.parametrize("profile", list(SrtpProfile))
SSRC = 1111
FROM, TO = "127.0.0.6:4000", "127.0.0.7:4000"


def packets() -> list[bytes]:
    """Speech by PCMU, Opus with a header extension, digits, and reports, of which the last one says goodbye."""
    speech = [RtpPacket(0, n, 160 * n, SSRC, b"\xd5" * 160).serialize() for n in range(30)]
    opus = [RtpPacket(96, 30 + n, 960 * n, SSRC, b"\x78" + bytes([n]) * (30 + n)).serialize() for n in range(30)]
    opus = [bytes([each[0] | 0x10]) + each[1:12] + bytes.fromhex("bede000110ff0000") + each[12:] for each in opus]
    digits = [RtpPacket(101, 60 + n, 0, SSRC, bytes([5, 10, 0, 160 * n % 256])).serialize() for n in range(3)]
    report = SenderReport(SSRC, 1 << 40, 0, 60, 9600, ()).serialize() + SourceDescription(SSRC, "a@b").serialize()
    goodbye = report + Goodbye((SSRC,)).serialize()
    return [*speech, report, *opus, *digits, report, goodbye]


def events(profile: SrtpProfile, forgotten: Callable[[int, bytes], bool] = lambda at, clear: False) -> list[Event]:
    """The packets as a telephone sends them, some of them as they were before they were encrypted."""
    srtp, found = Srtp(keys_for(profile=profile)[0]), []
    for at, clear in enumerate(packets()):
        wire = srtp.protect_rtcp(clear) if 192 <= clear[1] <= 223 else srtp.protect(clear)
        found.append(RtpEvent(1.0 + at, "caller", FROM, TO, clear if forgotten(at, clear) else wire, clear))
    invite = SipEvent(0.5, "caller", "udp", "127.0.0.6:5060", "127.0.0.2:5060", b"INVITE sip:b SIP/2.0\r\n\r\n")
    return [invite, *found]


def _is_number(wanted: int, at: int, clear: bytes) -> bool:
    return at == wanted


def checked(wire: bytes, clear: bytes, profile: SrtpProfile, scenario: str = "authenticated") -> tuple[bool, str]:
    given = Evidence(SCENARIOS[scenario], "pcmu", str(profile), ())
    (check,) = checks(given, wire, clear)
    assert check.name == NAME
    return check.held, check.detail


@PROFILES
def test_what_libsrtp_encrypts_is_encrypted(tmp_path: Path, profile: SrtpProfile) -> None:
    wire, clear = capture.write(tmp_path, events(profile))
    assert (tmp_path / "call.pcap").read_bytes() == wire
    assert checked(wire, clear, profile) == (True, "0 of 63 packets of RTP and 3 of RTCP")


@PROFILES
def test_each_packet_in_clear_is_seen(tmp_path: Path, profile: SrtpProfile) -> None:
    for at in range(len(packets())):
        wire, clear = capture.write(tmp_path, events(profile, partial(_is_number, at)))
        held, detail = checked(wire, clear, profile)
        assert not held
        assert detail.startswith(f"1 of 63 packets of RTP and 3 of RTCP, the first from {FROM} to {TO}: ")


@PROFILES
def test_speech_reports_and_goodbyes_in_clear_need_nothing_to_compare(profile: SrtpProfile, tmp_path: Path) -> None:
    """The file alone tells, even where a program that sends in clear says that it was something else before."""
    told = events(profile, lambda number, clear: clear[1] == 0 or 192 <= clear[1] <= 223)
    lies = [
        RtpEvent(each.time_s, each.actor, each.src, each.dst, each.wire, each.clear[:12] + bytes(len(each.wire)))
        for each in told
        if isinstance(each, RtpEvent) and each.wire == each.clear
    ]
    held, detail = checked(*capture.write(tmp_path, lies), profile)
    assert not held
    assert detail.startswith("33 of 30 packets of RTP and 3 of RTCP")
    assert detail.endswith("whole milliseconds of G.711, and no tag")


@PROFILES
def test_a_packet_that_was_sent_twice_or_is_none_is_seen(profile: SrtpProfile, tmp_path: Path) -> None:
    given = events(profile)
    last = given[-1]
    wire, clear = capture.write(tmp_path, [*given, last])
    assert checked(wire, clear, profile)[1].endswith("an SRTCP index that goes down")
    other = RtpEvent(99.0, "caller", FROM, TO, b"\x17speech", b"\x17speech")
    assert checked(*capture.write(tmp_path, [*given, other]), profile)[1].endswith("neither SRTP nor SRTCP")


@PROFILES
def test_a_call_without_media_holds_if_it_is_refused(profile: SrtpProfile, tmp_path: Path) -> None:
    wire, clear = capture.write(tmp_path, [])
    assert checked(wire, clear, profile)[0] is False
    assert checked(wire, clear, profile, "signer-revoked")[0] is True


def test_a_call_in_clear_is_not_checked(tmp_path: Path) -> None:
    wire, clear = capture.write(tmp_path, events(SrtpProfile.AEAD_AES_128_GCM, lambda at, clear: True))
    assert list(checks(Evidence(SCENARIOS["plain"], "pcmu", None, ()), wire, clear)) == []


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    wire, _ = capture.write(tmp_path, events(SrtpProfile.AEAD_AES_128_GCM)[:2])
    first, second = datagrams(wire)
    assert first == Datagram(
        endpoint("127.0.0.6:5060"), endpoint("127.0.0.2:5060"), b"INVITE sip:b SIP/2.0\r\n\r\n"
    )
    assert (second.src, second.dst, len(second.data)) == (endpoint(FROM), endpoint(TO), 188)
    for broken in (wire[:-1], wire[:30], b"", b"\n" + wire, pcap([(1.0, b"short")])):
        with pytest.raises(MalformedError, match="capture: "):
            list(datagrams(broken))


@pytest.mark.parametrize("data", [b"\x80\xc9\x00\x01\x00\x00\x00\x07", packets()[-1]])
def test_compound_packets_are_read_whole(data: Any) -> None:
    assert is_compound(data)
    assert not any(is_compound(data + bytes(more)) for more in range(1, 24))
    assert not any(is_compound(data[:-less]) for less in range(1, 4))
