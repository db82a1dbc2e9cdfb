"""Packet captures of one call, made from trace events: the packets as sent, and the same with media in clear."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sip_testbed.events import RtpEvent, SipEvent
from voice_dpki.shell.files import write_file
from voice_dpki.stage.events import Event, HttpEvent
from voice_dpki.stage.pcap import Connection, Endpoint, datagram, endpoint, pcap


def write(folder: Path, events: Sequence[Event]) -> tuple[bytes, bytes]:
    """Write both captures into a folder, and return their content; raises LocalError, and OSError."""
    made = {"call.pcap": wire_capture(events), "call.decrypted.pcap": clear_capture(events)}
    for name, data in made.items():
        write_file(folder / name, data)
    wire, clear = ((folder / name).read_bytes() for name in made)
    return wire, clear


def wire_capture(events: Iterable[Event]) -> bytes:
    """Return a pcap file of the packets as sent; `events` are ordered by time."""
    return pcap(_packets(events, clear=False))


def clear_capture(events: Iterable[Event]) -> bytes:
    """Return a pcap file with RTP as it was before encryption.

    The m= lines of SDP say RTP/AVP instead of RTP/SAVP here, to match the packets: a tool that believed the offer
    would take the audio for ciphertext. Apart from Content-Length, nothing else in the SIP messages is changed.
    """
    return pcap(_packets(events, clear=True))


def as_plain_media(message: bytes) -> bytes:
    """Return the SIP `message` with RTP/SAVP in its SDP replaced by RTP/AVP, and with a matching Content-Length."""
    head, blank, body = message.partition(b"\r\n\r\n")
    plain = _SECURE_MEDIA.sub(rb"\1RTP/AVP\2", body)
    if plain == body:
        return message
    head = _CONTENT_LENGTH.sub(lambda found: found[1] + str(len(plain)).encode("ascii"), head)
    return head + blank + plain


_SECURE_MEDIA = re.compile(rb"^(m=\S+ \S+ )RTP/SAVP(F?)(?= )", re.MULTILINE)
_CONTENT_LENGTH = re.compile(rb"^((?:content-length|l)[ \t]*:[ \t]*)\d+", re.IGNORECASE | re.MULTILINE)


def _packets(events: Iterable[Event], *, clear: bool) -> Iterator[tuple[float, bytes]]:
    connections: dict[frozenset[Endpoint], Connection] = {}
    for event in events:
        if not isinstance(event, SipEvent | RtpEvent | HttpEvent):
            continue
        src, dst = endpoint(event.src), endpoint(event.dst)
        if isinstance(event, RtpEvent):
            yield event.time_s, datagram(src, dst, event.clear if clear else event.wire)
            continue
        data = as_plain_media(event.data) if clear and isinstance(event, SipEvent) else event.data
        if isinstance(event, SipEvent) and event.transport == "udp":
            yield event.time_s, datagram(src, dst, data)
            continue
        connection = connections.get(frozenset((src, dst)))
        if connection is None:
            connection = connections[frozenset((src, dst))] = Connection()
            yield from ((event.time_s, packet) for packet in connection.open(src, dst))
        yield from ((event.time_s, packet) for packet in connection.send(src, dst, data))
