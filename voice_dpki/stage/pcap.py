"""Packet captures without capturing: packets are made from the payloads, addresses and times in traces.

The processes of a testbed use real sockets, but a capture would need root, which the senders' traces do not. So
addresses, ports and payloads are real. The headers below them (IPv4, UDP, TCP with its handshake and
acknowledgements) are made here as a capture at the sender would show them. Format: pcap 2.4, link type RAW
(draft-ietf-opsawg-pcap), RFC 791, RFC 768, RFC 9293.
"""

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from voice_dpki.errors import MalformedError
from voice_dpki.stage.events import host_port

LINKTYPE_RAW = 101
"""Packets begin with their IP header."""

SNAP_BYTES = 1 << 18
SEGMENT_BYTES = 1460
"""Largest TCP payload: Ethernet's 1500 bytes less the IPv4 and TCP headers."""

MAX_DATAGRAM_BYTES = 65_507
"""Largest UDP payload over IPv4."""

_FILE_HEADER = struct.Struct("<IHHiIII")
_FILE_FIELDS = (0xA1B2C3D4, 2, 4, 0, 0, SNAP_BYTES, LINKTYPE_RAW)
_IP_HEADER_BYTES = 20

_TCP, _UDP = 6, 17
_SYN, _PSH, _ACK = 0x02, 0x08, 0x10
_WINDOW = 65_535

Endpoint = tuple[int, int]
"""IPv4 address and port."""


def pcap(packets: Iterable[tuple[float, bytes]]) -> bytes:
    """Return the pcap file of IPv4 packets, each with its time in seconds since the Unix epoch."""
    out = bytearray(_FILE_HEADER.pack(*_FILE_FIELDS))
    for time_s, packet in packets:
        seconds, micros = divmod(round(time_s * 1e6), 1_000_000)
        out += struct.pack("<IIII", seconds, micros, len(packet), len(packet)) + packet
    return bytes(out)


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram of a capture."""

    src: Endpoint
    dst: Endpoint
    data: bytes


def datagrams(capture: bytes) -> Iterator[Datagram]:
    """Yield the UDP datagrams of a file that `pcap` has written; raises MalformedError for another or a cut one."""
    if len(capture) < _FILE_HEADER.size or _FILE_HEADER.unpack_from(capture) != _FILE_FIELDS:
        raise MalformedError("capture: no pcap file of IPv4 packets, as this program writes them")
    at = _FILE_HEADER.size
    while at < len(capture):
        size = int.from_bytes(capture[at + 8 : at + 12], "little")
        packet = capture[at + 16 : at + 16 + size]
        if len(packet) < max(size, _IP_HEADER_BYTES):
            raise MalformedError("capture: the last packet is cut")
        at += 16 + size
        if packet[9] == _UDP:
            src, dst = struct.unpack_from("!II", packet, 12)
            ports = struct.unpack_from("!HH", packet, _IP_HEADER_BYTES)
            yield Datagram((src, ports[0]), (dst, ports[1]), packet[_IP_HEADER_BYTES + 8 :])


def endpoint_text(end: Endpoint) -> str:
    """Write "127.0.0.2:5060"."""
    return f"{ipaddress.IPv4Address(end[0])}:{end[1]}"


def endpoint(address: str) -> Endpoint:
    """Read "127.0.0.2:5060"; raises MalformedError."""
    host, port = host_port(address)
    try:
        return int(ipaddress.IPv4Address(host)), port
    except ValueError:
        raise MalformedError(f"capture: {host!r} is not an IPv4 address") from None


def datagram(src: Endpoint, dst: Endpoint, data: bytes) -> bytes:
    """Return the IPv4 packet of a UDP datagram; raises MalformedError where `data` does not fit one."""
    if len(data) > MAX_DATAGRAM_BYTES:
        raise MalformedError(f"capture: {len(data)} bytes do not fit a datagram")
    header = struct.pack("!HHHH", src[1], dst[1], 8 + len(data), 0)
    return _ip_packet(_UDP, src, dst, header + data, checksum_at=6)


@dataclass(slots=True)
class Connection:
    """A TCP connection: the next sequence number of each end."""

    next_sequence: dict[Endpoint, int] = field(default_factory=dict)

    def open(self, client: Endpoint, server: Endpoint) -> Iterator[bytes]:
        """Yield the three-way handshake (RFC 9293 §3.5). Initial numbers are fixed, for reproducible captures."""
        self.next_sequence = {client: 1_000_000, server: 5_000_000}
        yield self._segment(client, server, _SYN)
        yield self._segment(server, client, _SYN | _ACK)
        yield self._segment(client, server, _ACK)

    def send(self, src: Endpoint, dst: Endpoint, data: bytes) -> Iterator[bytes]:
        """Yield `data` in segments, then the receiver's acknowledgement."""
        for start in range(0, len(data), SEGMENT_BYTES):
            chunk = data[start : start + SEGMENT_BYTES]
            last = start + SEGMENT_BYTES >= len(data)
            yield self._segment(src, dst, _ACK | (_PSH if last else 0), chunk)
        yield self._segment(dst, src, _ACK)

    def _segment(self, src: Endpoint, dst: Endpoint, flags: int, data: bytes = b"") -> bytes:
        sequence = self.next_sequence[src]
        acknowledged = self.next_sequence[dst] if flags & _ACK else 0
        self.next_sequence[src] = (sequence + len(data) + bool(flags & _SYN)) & 0xFFFF_FFFF
        header = struct.pack("!HHIIBBHHH", src[1], dst[1], sequence, acknowledged, 5 << 4, flags, _WINDOW, 0, 0)
        return _ip_packet(_TCP, src, dst, header + data, checksum_at=16)


def _ip_packet(protocol: int, src: Endpoint, dst: Endpoint, segment: bytes, *, checksum_at: int) -> bytes:
    pseudo = struct.pack("!IIBBH", src[0], dst[0], 0, protocol, len(segment))
    # A UDP checksum of 0 would mean "none" (RFC 768), so 0xFFFF is sent instead; with TCP it is never 0 here.
    checksum = _checksum(pseudo + segment) or 0xFFFF
    segment = segment[:checksum_at] + checksum.to_bytes(2, "big") + segment[checksum_at + 2 :]
    fields = (0x45, 0, 20 + len(segment), 0, 0x4000, 64, protocol)
    header = struct.pack("!BBHHHBBHII", *fields, 0, src[0], dst[0])
    return header[:10] + _checksum(header).to_bytes(2, "big") + header[12:] + segment


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of data that is not all zero: the negated sum modulo 0xFFFF."""
    return -int.from_bytes(data + b"\0" * (len(data) % 2), "big") % 0xFFFF
