import contextlib
import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sip_testbed.capture import as_plain_media, clear_capture, wire_capture
from sip_testbed.events import KINDS, RtpEvent, SipEvent
from voice_dpki.errors import MalformedError
from voice_dpki.stage.events import NoteEvent, merge, parse_line, parse_lines
from voice_dpki.stage.pcap import SEGMENT_BYTES

CHECKSUMS = [argument for layer in ("ip", "udp", "tcp") for argument in ("-o", f"{layer}.check_checksum:TRUE")]


def tshark(capture: bytes, folder: Path, *arguments: str) -> str:
    path = folder / "call.pcap"
    path.write_bytes(capture)
    command = ["tshark", "-r", str(path), *CHECKSUMS, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def fields(capture: bytes, folder: Path, only: str, *names: str) -> list[list[str]]:
    wanted = [argument for name in names for argument in ("-e", name)]
    output = tshark(capture, folder, "-Y", only, "-T", "fields", *wanted)
    return [line.split("\t") for line in output.splitlines()]


def packets(capture: bytes) -> list[bytes]:
    at, found = 24, []
    while at < len(capture):
        size = struct.unpack_from("<I", capture, at + 8)[0]
        found.append(capture[at + 16 : at + 16 + size])
        at += 16 + size
    return found


@pytest.mark.peer("tshark")
class TestTshark:
    def test_nothing_is_malformed_and_no_checksum_or_sequence_is_wrong(
        self, call_trace: Any, tmp_path: Path
    ) -> None:
        for capture in (wire_capture, clear_capture):
            data = capture(call_trace().events())
            assert fields(data, tmp_path, "_ws.malformed or _ws.expert.severity >= 0x600000", "frame.number") == []
            assert fields(data, tmp_path, "tcp.analysis.flags", "frame.number") == []

    def test_every_sip_message_is_decoded_over_udp_and_tcp(self, call_trace: Any, tmp_path: Path) -> None:
        events = call_trace().events()
        decoded = fields(wire_capture(events), tmp_path, "sip", "sip.CSeq.method")
        assert len(decoded) == sum(isinstance(event, SipEvent) for event in events)

    def test_mikey_in_the_sdp_is_decoded(self, call_trace: Any, tmp_path: Path) -> None:
        decoded = fields(wire_capture(call_trace().events()), tmp_path, "mikey", "mikey.type")
        assert len(decoded) == 6

    def test_media_is_srtp_on_the_wire_and_rtp_in_the_decrypted_capture(
        self, call_trace: Any, tmp_path: Path
    ) -> None:
        events = call_trace().events()
        assert len(fields(wire_capture(events), tmp_path, "srtp.enc_payload", "rtp.seq")) == 50
        assert fields(clear_capture(events), tmp_path, "srtp.enc_payload", "rtp.seq") == []
        payloads = fields(clear_capture(events), tmp_path, "rtp && ip.src==127.0.0.10", "rtp.payload")
        sent = [
            event.clear[12:].hex() for event in events if isinstance(event, RtpEvent) and event.actor == "caller"
        ]
        assert ["".join(payload).replace(":", "") for payload in payloads] == sent

    def test_a_long_message_over_tcp_is_put_together_again(self, tmp_path: Path) -> None:
        body = "a=x\r\n" * 1000
        data = f"INVITE sip:b SIP/2.0\r\nCSeq: 1 INVITE\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        events = [SipEvent(1.0 + n, "a", "tcp", "127.0.0.2:40000", "127.0.0.3:5060", data) for n in range(3)]
        capture = wire_capture(events)
        assert len(fields(capture, tmp_path, "sip", "sip.Method")) == 3
        assert fields(capture, tmp_path, "tcp.analysis.flags", "frame.number") == []


class TestPackets:
    def test_one_handshake_a_connection_and_an_acknowledgement_a_message(self) -> None:
        there = SipEvent(1.0, "a", "tcp", "127.0.0.2:40000", "127.0.0.3:5060", b"x" * (SEGMENT_BYTES + 1))
        back = SipEvent(1.1, "b", "tcp", "127.0.0.3:5060", "127.0.0.2:40000", b"y")
        assert len(packets(wire_capture([there, back]))) == 3 + 3 + 2

    def test_headers_sum_to_all_ones(self, call_trace: Any) -> None:
        for packet in packets(wire_capture(call_trace().events())):
            assert total(packet[:20]) == 0xFFFF
            pseudo = packet[12:20] + bytes([0, packet[9]]) + struct.pack("!H", len(packet) - 20)
            assert total(pseudo + packet[20:]) == 0xFFFF

    def test_notes_do_not_appear(self) -> None:
        assert packets(wire_capture([NoteEvent(1.0, "a", "signed")])) == []

    def test_capture_is_reproducible(self, call_trace: Any) -> None:
        assert wire_capture(call_trace().events()) == wire_capture(call_trace().events())


class TestPlainMedia:
    def test_only_the_media_line_and_the_length_change(self) -> None:
        secure = b"INVITE x SIP/2.0\r\nContent-Length: 27\r\nA: RTP/SAVP 1\r\n\r\nm=audio 4000 RTP/SAVP 0 8\r\n"
        plain = b"INVITE x SIP/2.0\r\nContent-Length: 26\r\nA: RTP/SAVP 1\r\n\r\nm=audio 4000 RTP/AVP 0 8\r\n"
        assert as_plain_media(secure) == plain

    def test_the_compact_header_and_feedback_profiles_are_known(self) -> None:
        secure = b"INVITE x SIP/2.0\r\nl: 28\r\n\r\nm=audio 4000 RTP/SAVPF 0 8\r\n"
        assert as_plain_media(secure) == b"INVITE x SIP/2.0\r\nl: 27\r\n\r\nm=audio 4000 RTP/AVPF 0 8\r\n"

    def test_plain_messages_stay_as_they_are(self) -> None:
        message = b"BYE x SIP/2.0\r\nContent-Length: 0\r\n\r\n"
        assert as_plain_media(message) == message


class TestEvents:
    @given(st.binary(max_size=200))
    def test_any_line_parses_or_is_malformed(self, data: bytes) -> None:
        with contextlib.suppress(MalformedError):
            parse_line(data, KINDS)

    @given(
        st.dictionaries(
            st.sampled_from(["t", "actor", "kind", "src", "dst", "data", "wire", "clear", "text", "transport"]),
            st.one_of(
                st.text(max_size=12), st.integers(), st.none(), st.sampled_from(["sip", "rtp", "note", "AA=="])
            ),
        )
    )
    def test_any_object_parses_or_is_malformed(self, members: dict[str, object]) -> None:
        with contextlib.suppress(MalformedError):
            parse_line(json.dumps(members).encode(), KINDS)

    def test_traces_are_merged_by_time(self, call_trace: Callable[[], Any]) -> None:
        times = [event.time_s for event in merge(parse_lines(data, KINDS) for data in call_trace().data().values())]
        assert times == sorted(times)


def total(data: bytes) -> int:
    """The one's complement sum of 16-bit words, added up one by one."""
    padded = data + b"\0" * (len(data) % 2)
    result = 0
    for (word,) in struct.iter_unpack("!H", padded):
        result += word
        result = (result & 0xFFFF) + (result >> 16)
    return result
