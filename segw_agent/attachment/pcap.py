"""A packet capture of UDP datagrams, made from trace events: real addresses, ports and payloads.

Format: pcap 2.4, link type RAW (draft-ietf-opsawg-pcap), RFC 791, RFC 768.
"""

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass

LINKTYPE_RAW = 101
_SNAP_BYTES = 1 << 18
_UDP = 17


@dataclass(frozen=True, slots=True)
class Packet:
    """A datagram at a time in seconds since the Unix epoch; addresses are "host:port"."""

    time_s: float
    src: str
    dst: str
    data: bytes


def capture(packets: Iterable[Packet]) -> bytes:
    """Return the pcap file of packets in the order of their time."""
    out = bytearray(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, _SNAP_BYTES, LINKTYPE_RAW))
    for packet in packets:
        frame = _frame(packet)
        seconds, micros = divmod(round(packet.time_s * 1e6), 1_000_000)
        out += struct.pack("<IIII", seconds, micros, len(frame), len(frame)) + frame
    return bytes(out)


def _frame(packet: Packet) -> bytes:
    (src, src_port), (dst, dst_port) = _endpoint(packet.src), _endpoint(packet.dst)
    size = 8 + len(packet.data)
    pseudo = struct.pack("!IIBBH", src, dst, 0, _UDP, size)
    header = struct.pack("!HHH", src_port, dst_port, size)
    checksum = _checksum(pseudo + header + b"\0\0" + packet.data) or 0xFFFF  # zero would mean none (RFC 768)
    segment = header + checksum.to_bytes(2, "big") + packet.data
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + size, 0, 0x4000, 64, _UDP, 0, src, dst)
    return ip[:10] + _checksum(ip).to_bytes(2, "big") + ip[12:] + segment


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of data that is not all zero."""
    return -int.from_bytes(data + b"\0" * (len(data) % 2), "big") % 0xFFFF


def _endpoint(address: str) -> tuple[int, int]:
    host, _, port = address.rpartition(":")
    return int(ipaddress.IPv4Address(host)), int(port)
