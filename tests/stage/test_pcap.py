import struct
import subprocess
from pathlib import Path

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.stage.pcap import SEGMENT_BYTES, Connection, datagram, endpoint, pcap

HERE, THERE = endpoint("127.0.0.2:40000"), endpoint("127.0.0.3:9")


@pytest.mark.peer("tshark")
def test_another_reader_finds_what_was_sent_and_when(tmp_path: Path) -> None:
    connection = Connection()
    path = tmp_path / "some.pcap"
    packets = [datagram(HERE, THERE, b"odd"), *connection.open(HERE, THERE), *connection.send(HERE, THERE, b"tcp")]
    path.write_bytes(pcap((1_790_000_000.25, packet) for packet in packets))
    names = ("frame.time_epoch", "ip.src", "udp.srcport", "tcp.dstport", "data.data", "_ws.expert.severity")
    wanted = [argument for name in names for argument in ("-e", name)]
    checks = ["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]
    command = ["tshark", "-r", str(path), *checks, "-Y", "data", "-T", "fields", *wanted]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    udp, tcp = (line.split("\t") for line in output.splitlines())
    assert udp == ["1790000000.250000000", "127.0.0.2", "40000", "", b"odd".hex(), ""]
    assert tcp == ["1790000000.250000000", "127.0.0.2", "", "9", b"tcp".hex(), ""]


def test_headers_sum_to_all_ones() -> None:
    connection = Connection()
    long = b"x" * (SEGMENT_BYTES + 1)
    for packet in [
        datagram(HERE, THERE, b"odd"),
        *connection.open(HERE, THERE),
        *connection.send(HERE, THERE, long),
    ]:
        assert total(packet[:20]) == 0xFFFF
        pseudo = packet[12:20] + bytes([0, packet[9]]) + struct.pack("!H", len(packet) - 20)
        assert total(pseudo + packet[20:]) == 0xFFFF


def test_one_handshake_a_connection_and_an_acknowledgement_a_message() -> None:
    connection = Connection()
    assert len(list(connection.open(HERE, THERE))) == 3
    assert len(list(connection.send(HERE, THERE, b"x" * (SEGMENT_BYTES + 1)))) == 3
    assert len(list(connection.send(THERE, HERE, b"y"))) == 2


def test_an_address_that_is_not_ipv4_is_refused() -> None:
    with pytest.raises(MalformedError, match="not an IPv4 address"):
        endpoint("localhost:1")


def test_a_datagram_has_a_bound() -> None:
    with pytest.raises(MalformedError, match="do not fit"):
        datagram(HERE, THERE, bytes(70_000))


def total(data: bytes) -> int:
    """The one's complement sum of 16-bit words, added up one by one."""
    padded = data + b"\0" * (len(data) % 2)
    result = 0
    for (word,) in struct.iter_unpack("!H", padded):
        result += word
        result = (result & 0xFFFF) + (result >> 16)
    return result
