"""A HEP collector that keeps what it is told, and reads it by the specification, without this project's codec."""

import socket
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Self

from voice_dpki.stage.pcap import datagram, endpoint, pcap

TYPE, PAYLOAD, CORRELATION, NAME = 11, 15, 17, 19


@dataclass(frozen=True)
class Told:
    """One packet."""

    time_s: float
    port: int
    """From which it came."""
    packet: bytes
    chunks: dict[int, bytes] = field(default_factory=dict)

    def __getitem__(self, kind: int) -> bytes:
        return self.chunks.get(kind, b"")


def read(time_s: float, port: int, packet: bytes) -> Told:
    """Split a packet into its chunks."""
    magic, length = struct.unpack_from("!4sH", packet)
    assert (magic, length) == (b"HEP3", len(packet))
    told, at = Told(time_s, port, packet), 6
    while at < len(packet):
        vendor, kind, size = struct.unpack_from("!HHH", packet, at)
        assert vendor == 0
        assert size >= 6
        told.chunks[kind] = packet[at + 6 : at + size]
        at += size
    assert at == len(packet)
    return told


class Collector:
    """Collects in a thread while the context lasts."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.told: list[Told] = []
        self._thread = threading.Thread(target=self._collect)

    def _collect(self) -> None:
        while True:
            packet, source = self._socket.recvfrom(65_535)
            if not packet:
                return
            self.told.append(read(time(), source[1], packet))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def about(self, call_id: str) -> list[Told]:
        """Return what was told of one call."""
        return [each for each in self.told if each[CORRELATION] == call_id.encode()]


def write_capture(told: list[Told], file: Path) -> None:
    """Write packets as a collector's machine would capture them, at the usual port."""
    collector = endpoint("127.0.0.1:9060")
    file.write_bytes(
        pcap((each.time_s, datagram(endpoint(f"127.0.0.1:{each.port}"), collector, each.packet)) for each in told)
    )
