"""HEP3: the packets in which SIP elements tell a collector what they send and decide (HEP/EEP revision 37).

A packet is "HEP3", its length in two bytes, and chunks of vendor, type, length and value. All numbers are in
network order. Collectors such as Homer find the parts of a call by the chunk of correlation, the Call-ID.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Final

from voice_dpki.errors import MalformedError

SIP: Final = 1
"""Protocol type of a SIP message."""
LOG: Final = 100
"""Protocol type that collectors take for a line about a call; its payload here is JSON."""

MAX_BYTES: Final = 65_507
"""Largest packet: what a UDP datagram over IPv4 holds; the length in the packet itself has room for 65,535."""

_IP_PROTOCOLS: Final = {"udp": 17, "tcp": 6, "tls": 6}


@dataclass(frozen=True, slots=True)
class Flow:
    """Source and destination of a packet: numeric addresses of one family, and ports."""

    transport: str
    """"udp", "tcp" or "tls"."""
    source: tuple[str, int]
    target: tuple[str, int]


def packet(
    payload: bytes,
    flow: Flow,
    time_s: float,
    *,
    protocol: int,
    correlation: str,
    agent: int,
    name: str = "",
    key: bytes = b"",
) -> bytes:
    """Return the packet about `payload`, sent at `time_s`, in seconds since the Unix epoch.

    `agent` is the number of the sending agent (32 bits), `name` its name, and `key` what a collector can demand.
    Raises MalformedError for addresses that are not numeric or of two families, and for more than MAX_BYTES.
    """
    seconds, microseconds = divmod(round(time_s * 1_000_000), 1_000_000)
    chunks = [
        *_addresses(flow),
        (7, struct.pack("!H", flow.source[1])),
        (8, struct.pack("!H", flow.target[1])),
        (9, struct.pack("!I", seconds)),
        (10, struct.pack("!I", microseconds)),
        (11, bytes([protocol])),
        (12, struct.pack("!I", agent)),
        *_texts((14, key), (17, correlation.encode()), (19, name.encode())),
        (15, payload),
    ]
    body = b"".join(struct.pack("!HHH", 0, kind, 6 + len(value)) + value for kind, value in _fitting(chunks))
    if 6 + len(body) > MAX_BYTES:
        raise MalformedError(f"HEP: {6 + len(body)} bytes do not fit a packet of {MAX_BYTES}")
    return b"HEP3" + struct.pack("!H", 6 + len(body)) + body


def _addresses(flow: Flow) -> Iterator[tuple[int, bytes]]:
    try:
        source, target = ip_address(flow.source[0]), ip_address(flow.target[0])
    except ValueError as error:
        raise MalformedError(f"HEP: {error}") from None
    if source.version != target.version:
        raise MalformedError(f"HEP: {source} and {target} are of two families")
    is_v4 = isinstance(source, IPv4Address)
    yield 1, bytes([2 if is_v4 else 10])
    yield 2, bytes([_IP_PROTOCOLS[flow.transport]])
    yield 3 if is_v4 else 5, source.packed
    yield 4 if is_v4 else 6, target.packed


def _texts(*chunks: tuple[int, bytes]) -> Iterator[tuple[int, bytes]]:
    return ((kind, value) for kind, value in chunks if value)


def _fitting(chunks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    for kind, value in chunks:
        if len(value) > MAX_BYTES:
            raise MalformedError(f"HEP: a chunk of {len(value)} bytes does not fit a packet")
        yield kind, value
