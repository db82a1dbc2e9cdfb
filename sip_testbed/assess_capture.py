"""Assessment of a call's capture: does any RTP or RTCP in it go in clear?

The check reads the octets of the file and relies on no program's own report. Each datagram must look like SRTP or
SRTCP where these differ from RTP and RTCP (RFC 3711 §3.1, §3.4; RFC 7714 §8, §9):

- RTCP in clear parses as a whole compound packet (RFC 3550 §6.1); ciphertext does not by chance. SRTCP has the flag
  E and an index, which rises with each packet of a source.
- SRTP is longer than RTP by its tag. G.711 has 8 octets a millisecond, so the length of its packets shows the tag.
- Other codecs fill packets of any length. Each is compared with the same packet in call.decrypted.pcap: it must be
  longer by the tag, and its payload must differ.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from sip_testbed.evidence import Evidence
from voice_dpki.media.rtcp import is_rtcp
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.stage.pcap import Datagram, datagrams, endpoint_text
from voice_dpki.stage.report import Check

NAME: Final = "No RTP or RTCP in call.pcap went in clear"

_TAG_BYTES: Final = {SrtpProfile.AES_CM_128_HMAC_SHA1_80: 10, SrtpProfile.AEAD_AES_128_GCM: 16}
_INDEX_BYTES: Final = 4
_E: Final = 1 << 31
"""The SRTCP flag of an encrypted packet."""
_G711: Final = (0, 8)
"""Static payload types of PCMU and PCMA (RFC 3551 §6)."""
_G711_STEP_BYTES: Final = 80
"""10 ms of G.711: packets hold a multiple of it."""
_RTCP_TYPES: Final = range(192, 224)
_MEDIA: Final = range(128, 192)
"""First octets of RTP and RTCP (RFC 7983 §7)."""
_TEXT: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n")
_STUN: Final = range(4)


@dataclass(frozen=True, slots=True)
class Exposed:
    """A datagram that is not encrypted, and what gives it away."""

    datagram: Datagram
    why: str


def checks(evidence: Evidence, wire: bytes, decrypted: bytes) -> Iterator[Check]:
    """Yield the check of a call that was to be encrypted; nothing for a call in clear.

    `wire` is the capture of the packets as sent, and `decrypted` that of the same packets in clear. A call that is
    not refused must have some. Raises MalformedError for files that cannot be read.
    """
    if evidence.srtp is None:
        return
    sent, clear = _media(wire), _media(decrypted)
    found = list(exposed(sent, clear, SrtpProfile(evidence.srtp)))
    is_refused = evidence.scenario.expected.refused_by is not None
    control = sum(is_rtcp(each.data) for each in sent)
    detail = f"{len(found)} of {len(sent) - control} packets of RTP and {control} of RTCP"
    if found:
        first = found[0]
        way = f"{endpoint_text(first.datagram.src)} to {endpoint_text(first.datagram.dst)}"
        detail += f", the first from {way}: {first.why}"
    yield Check(NAME, not found and bool(sent or is_refused), detail)


def _media(capture: bytes) -> list[Datagram]:
    """Return the datagrams of a capture that are neither SIP nor STUN; all of these must be encrypted."""
    return [each for each in datagrams(capture) if each.data and each.data[0] not in (*_TEXT, *_STUN)]


def exposed(sent: Sequence[Datagram], clear: Sequence[Datagram], profile: SrtpProfile) -> Iterable[Exposed]:
    """Yield the datagrams that were sent in clear; `clear` has the same ones before encryption."""
    highest: Counter[tuple[object, bytes]] = Counter()
    for datagram, before in zip_longest(sent, clear):
        if datagram is None:
            return
        why = _exposes(datagram.data, None if before is None else before.data, profile)
        if why is None and is_rtcp(datagram.data):
            source, index = (datagram.src, datagram.data[4:8]), _index_of(datagram.data, profile)
            why = None if index >= highest[source] else "an SRTCP index that goes down"
            highest[source] = index + 1
        if why is not None:
            yield Exposed(datagram, why)


def _exposes(data: bytes, clear: bytes | None, profile: SrtpProfile) -> str | None:
    """Return what shows that a datagram is in clear; None if nothing does."""
    tag_bytes = _TAG_BYTES[profile]
    if data[0] not in _MEDIA:
        return "neither SRTP nor SRTCP"
    if is_rtcp(data):
        if is_compound(data):
            return "whole RTCP packets"
        if len(data) < 8 + _INDEX_BYTES + tag_bytes or not _trailer_of(data, profile) & _E:
            return "no SRTCP that says that it is encrypted"
        overhead, fixed = tag_bytes + _INDEX_BYTES, 8
    else:
        fixed = _header_bytes(data)
        payload_bytes = len(data) - fixed
        if payload_bytes < tag_bytes:
            return "no room for a tag"
        if data[1] & 0x7F in _G711 and not payload_bytes % _G711_STEP_BYTES:
            return "whole milliseconds of G.711, and no tag"
        overhead = tag_bytes
    if clear is None or data[:fixed] != clear[:fixed]:
        return "another packet than in call.decrypted.pcap"
    if len(data) != len(clear) + overhead or data[fixed : len(clear)] == clear[fixed:]:
        return "the payload of call.decrypted.pcap, or no tag"
    return None


def is_compound(data: bytes) -> bool:
    """Return whether a datagram is a whole compound RTCP packet: each part says where the next one begins."""
    at = 0
    while at + 4 <= len(data):
        first, kind, words = struct.unpack_from("!BBH", data, at)
        if first not in _MEDIA or kind not in _RTCP_TYPES:
            return False
        at += 4 * (words + 1)
    return at == len(data)


def _trailer_of(data: bytes, profile: SrtpProfile) -> int:
    """Return the word with the flag E and the index: before the tag of HMAC-SHA1, and behind that of GCM."""
    end = len(data) if profile is SrtpProfile.AEAD_AES_128_GCM else len(data) - _TAG_BYTES[profile]
    return int.from_bytes(data[end - _INDEX_BYTES : end], "big")


def _index_of(data: bytes, profile: SrtpProfile) -> int:
    return _trailer_of(data, profile) & ~_E


def _header_bytes(data: bytes) -> int:
    """Return the length of an RTP header with its contributing sources and its extension (RFC 3550 §5.1)."""
    at = 12 + 4 * (data[0] & 0x0F)
    if data[0] & 0x10 and at + 4 <= len(data):
        at += 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")
    return at
