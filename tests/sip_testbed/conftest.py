"""A call's traces, written by hand: what the actors' processes would have noted, with tones for speech."""

import base64
import json
import math
import struct
from collections.abc import Callable

import pytest

from sip_testbed.events import KINDS
from voice_dpki.stage.events import Event, merge, parse_lines

ADDRESSES = {
    "caller": "127.0.0.10:5080",
    "proxy-a": "127.0.0.2:5060",
    "proxy-b": "127.0.0.3:5060",
    "callee": "127.0.0.11:5080",
}
TRUNK = "127.0.0.2:40123"
"""Operator A's end of the TCP connection to operator B."""

# The PSK message of an independent implementation: tests/vectors/mikey and its PROVENANCE say which.
MIKEY = (
    "AQAFgKCAkxMCAAARERERAAAAAAAiIiIiAAAAAAsA7q55Jtom1IABEJ6cCKG/l5jt5m6t4WI3Ur4AAQAclNLpyFdP5JgsxEfE6/eSJrzTUl"
    "KieaBJBTrk/QGuYjVeuKyJQJp6ap+kL36zn93HRQ=="
)
IDENTITY = "eyJhbGciOiJFUzI1NiJ9." + "QUJD" * 60 + ".c2ln;info=<https://cert.a.example/x.cer>;alg=ES256;ppt=shaken"
START_S = 1_790_000_000.25


def sdp(host: str, port: int) -> str:
    return (
        f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\na=key-mgmt:mikey {MIKEY}\r\n"
        f"m=audio {port} RTP/SAVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n"
    )


def message(first_line: str, method: str, *, body: str = "", extra: str = "", transport: str = "UDP") -> bytes:
    kind = "Content-Type: application/sdp\r\n" if body else ""
    return (
        f"{first_line}\r\nVia: SIP/2.0/{transport} 127.0.0.10:5080;branch=z9hG4bK{method}1\r\n"
        "From: <sip:+493023125001@a.example>;tag=a1\r\nTo: <sip:+442079460123@b.example>;tag=b1\r\n"
        f"Call-ID: call-1@a.example\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\n"
        f"Contact: <sip:+493023125001@127.0.0.10:5080>\r\n{extra}{kind}"
        f"Content-Length: {len(body.encode())}\r\n\r\n{body}"
    ).encode()


def tone(packet: int, samples: int = 160) -> bytes:
    """20 ms of 400 Hz as PCMU, each sample encoded as G.711 defines."""
    return bytes(
        _ulaw(round(12_000 * math.sin(2 * math.pi * 400 * (packet * samples + n) / 8000))) for n in range(samples)
    )


def _ulaw(sample: int) -> int:
    sign, magnitude = (0x80, -sample) if sample < 0 else (0, sample)
    magnitude = min(magnitude, 32_635) + 132
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | (magnitude >> (exponent + 3) & 0x0F)) & 0xFF


class CallTrace:
    """Builds trace files, an actor each; `at_ms` is the time since the call began."""

    def __init__(self) -> None:
        self.files: dict[str, list[str]] = {}

    def write(self, at_ms: float, actor: str, kind: str, **data: object) -> None:
        event = {"t": round(START_S + at_ms / 1000, 6), "actor": actor, "kind": kind, **data}
        self.files.setdefault(actor, []).append(json.dumps(event))

    def sip(self, at_ms: float, actor: str, transport: str, src: str, dst: str, data: bytes) -> None:
        self.write(at_ms, actor, "sip", transport=transport, src=src, dst=dst, data=base64.b64encode(data).decode())

    def hop(self, at_ms: float, src: str, dst: str, data: bytes) -> None:
        """Between the proxies TCP from the trunk's port, elsewhere UDP."""
        trunk = {src, dst} == {"proxy-a", "proxy-b"}
        ends = ADDRESSES | {"proxy-a": TRUNK} if trunk else ADDRESSES
        self.sip(at_ms, src, "tcp" if trunk else "udp", ends[src], ends[dst], data)

    def rtp(self, at_ms: float, actor: str, src: str, dst: str, packet: int) -> None:
        header = struct.pack("!BBHII", 0x80, 0, packet & 0xFFFF, packet * 160, 0x1234)
        clear = header + tone(packet)
        wire = header + bytes((octet * 7 + 13 * packet) & 0xFF for octet in tone(packet)) + b"\x55" * 10
        self.write(at_ms, actor, "rtp", src=src, dst=dst, **_encoded(wire=wire, clear=clear))

    def data(self) -> dict[str, bytes]:
        return {actor: ("\n".join(lines) + "\n").encode() for actor, lines in self.files.items()}

    def events(self) -> list[Event]:
        return merge(parse_lines(data, KINDS) for data in self.data().values())


def _encoded(**data: bytes) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in data.items()}


def good_call(packets: int = 25) -> CallTrace:
    trace = CallTrace()
    for name, address in ADDRESSES.items():
        trace.write(-500, name, "ready", sip=address)
    invite = "INVITE sip:+442079460123@b.example SIP/2.0"
    identity = f"Identity: {IDENTITY}\r\n"
    offer, answer = sdp("127.0.0.10", 30_000), sdp("127.0.0.11", 31_000)
    trace.hop(0, "caller", "proxy-a", message(invite, "INVITE", body=offer))
    trace.hop(0.9, "proxy-a", "caller", message("SIP/2.0 100 Trying", "INVITE"))
    trace.write(3.9, "proxy-a", "note", text="sign", ms=3.0, step="sign", ok=True)
    trace.write(3.5, "authn-a", "note", text="PASSporT shaken, attest A", ms=0.4, step="sign", ok=True)
    trace.hop(4.2, "proxy-a", "proxy-b", message(invite, "INVITE", body=offer, extra=identity, transport="TCP"))
    trace.write(7.2, "ledger-b", "note", text="inquiry: valid at 7", ms=0.3, ok=True)
    trace.write(
        8.2, "verify-b", "note", text="E17 signer recorded, inside its range", step="E17 certificate", ok=True
    )
    trace.write(9.2, "proxy-b", "note", text="verify: TN-Validation-Passed", ms=4.4, ok=True)
    trace.hop(9.9, "proxy-b", "callee", message(invite, "INVITE", body=offer, extra=identity))
    trace.hop(12.4, "callee", "proxy-b", message("SIP/2.0 180 Ringing", "INVITE"))
    trace.hop(12.9, "proxy-b", "proxy-a", message("SIP/2.0 180 Ringing", "INVITE"))
    trace.hop(13.2, "proxy-a", "caller", message("SIP/2.0 180 Ringing", "INVITE"))
    trace.write(22.0, "callee", "note", text="MIKEY DH-SIGN, caller's certificate valid at 7", ms=6.1, ok=True)
    for at_ms, src, dst in ((25, "callee", "proxy-b"), (25.6, "proxy-b", "proxy-a"), (26.1, "proxy-a", "caller")):
        trace.hop(at_ms, src, dst, message("SIP/2.0 200 OK", "INVITE", body=answer))
    trace.write(31.0, "caller", "note", text="MIKEY DH-SIGN, TEK agreed", ms=4.0, ok=True)
    ack = "ACK sip:+442079460123@b.example SIP/2.0"
    for at_ms, src, dst in ((31.5, "caller", "proxy-a"), (32, "proxy-a", "proxy-b"), (32.4, "proxy-b", "callee")):
        trace.hop(at_ms, src, dst, message(ack, "ACK"))
    for packet in range(packets):
        trace.rtp(40 + 20 * packet, "caller", "127.0.0.10:30000", "127.0.0.11:31000", packet)
        trace.rtp(41 + 20 * packet, "callee", "127.0.0.11:31000", "127.0.0.10:30000", packet)
    end = 60 + 20 * packets
    bye = "BYE sip:+442079460123@b.example SIP/2.0"
    for at_ms, src, dst in ((0, "caller", "proxy-a"), (0.4, "proxy-a", "proxy-b"), (0.9, "proxy-b", "callee")):
        trace.hop(end + at_ms, src, dst, message(bye, "BYE"))
    for at_ms, src, dst in ((2, "callee", "proxy-b"), (2.4, "proxy-b", "proxy-a"), (2.9, "proxy-a", "caller")):
        trace.hop(end + at_ms, src, dst, message("SIP/2.0 200 OK", "BYE"))
    return trace


@pytest.fixture
def call_trace() -> Callable[[], CallTrace]:
    """Makes the traces of a good call."""
    return good_call
