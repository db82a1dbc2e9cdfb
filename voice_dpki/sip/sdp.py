"""The part of SDP that a call needs (RFC 4566): lines are kept as received, and the few relevant ones are parsed.

Key management is in `a=key-mgmt:` lines (RFC 4567 §3): at the session level, or in a media section for that section
alone. The Identity of the INVITE signs these values, so they are kept unchanged to the character.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Final

from voice_dpki.errors import MalformedError
from voice_dpki.sip.hosts import bare_host

MAX_SDP_BYTES: Final = 32_768
MAX_SDP_LINES: Final = 512
MAX_MEDIA: Final = 16
CONTENT_TYPE: Final = "application/sdp"

PLAIN: Final = "RTP/AVP"
SECURE: Final = "RTP/SAVP"
PLAIN_PROTOCOLS: Final = (PLAIN, "RTP/AVPF")
SECURE_PROTOCOLS: Final = (SECURE, "RTP/SAVPF")
"""The protocols with SRTP. Those with feedback (RFC 4585, RFC 5124) require nothing of a side that sends none."""

KEY_MGMT: Final = "key-mgmt"
RTCP_MUX: Final = "rtcp-mux"
"""The attribute by which RTCP shares the port of RTP (RFC 5761 §5.1.1)."""
USUAL_PTIME_MS: Final = 20
"""Packet length of audio in milliseconds where SDP states none (RFC 3551 §4.2)."""

_STATIC_PAYLOADS: Final = {0: "PCMU/8000", 3: "GSM/8000", 8: "PCMA/8000", 9: "G722/8000", 13: "CN/8000"}
"""Payload types that need no rtpmap (RFC 3551 table 4)."""

_UNMAPPED: Final = ("CN/8000",)
"""Encodings that we describe by their static payload type alone, as RFC 3389 §5.1 does, to keep INVITEs short."""


class Direction(StrEnum):
    """Direction of media, as seen by the side that describes it (RFC 4566 §6)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def sends(self) -> bool:
        """Whether the describing side sends."""
        return self in (Direction.SENDRECV, Direction.SENDONLY)

    @property
    def receives(self) -> bool:
        """Whether the describing side receives."""
        return self in (Direction.SENDRECV, Direction.RECVONLY)

    @classmethod
    def of(cls, *, sends: bool, receives: bool) -> "Direction":
        """Return the direction of a side that sends, receives, does both or neither."""
        if sends:
            return cls.SENDRECV if receives else cls.SENDONLY
        return cls.RECVONLY if receives else cls.INACTIVE

    def answered_by(self, wanted: "Direction") -> "Direction":
        """Return the answer to this direction by a side that wants the direction `wanted` (RFC 3264 §6.1)."""
        return Direction.of(sends=wanted.sends and self.receives, receives=wanted.receives and self.sends)

    @property
    def answered(self) -> "Direction":
        """The widest direction that may answer this one."""
        return self.answered_by(Direction.SENDRECV)


@dataclass(frozen=True, slots=True)
class RtpMap:
    """One payload type of a media section: its encoding, like "opus/48000/2", and its fmtp parameters or ""."""

    payload_type: int
    encoding: str
    fmtp: str = ""


@dataclass(frozen=True, slots=True)
class Media:
    """One media section: the fields of its m= line, and the lines after it as received."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    lines: tuple[str, ...] = ()
    port_count: int = 1
    """Number of consecutive ports, as in m=audio 5000/2."""

    def attributes(self, name: str) -> tuple[str, ...]:
        """Return the values of the attribute `name`, in order."""
        return _attributes(self.lines, name)

    def has(self, name: str) -> bool:
        """Return whether the section has the attribute `name`, which has no value."""
        return f"a={name}" in self.lines

    @property
    def rtpmaps(self) -> tuple[RtpMap, ...]:
        """The offered payload types, in order of preference, without those of unknown encoding."""
        named, fmtp = _by_format(self.attributes("rtpmap")), _by_format(self.attributes("fmtp"))
        maps = []
        for text in self.formats:
            number = _number(text, 127)
            encoding = named.get(text) or _STATIC_PAYLOADS.get(number, "")
            if encoding:
                maps.append(RtpMap(number, encoding, fmtp.get(text, "")))
        return tuple(maps)

    @property
    def ptime_ms(self) -> int | None:
        """Packet length in milliseconds, or None if the section states none."""
        values = self.attributes("ptime")
        return _number(values[0], 1000) if values else None

    def serialize(self) -> tuple[str, ...]:
        """Return the section's lines."""
        ports = f"{self.port}/{self.port_count}" if self.port_count > 1 else f"{self.port}"
        return (f"m={self.kind} {ports} {self.protocol} {' '.join(self.formats)}", *self.lines)


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """A session description: the session-level lines, which precede the first m= line, and the media sections."""

    lines: tuple[str, ...]
    media: tuple[Media, ...]

    @classmethod
    def parse(cls, data: bytes) -> "SessionDescription":
        """Parse a body of type application/sdp; raises MalformedError if it is malformed or too large.

        Lines may end in CRLF or LF (RFC 4566 §5); they are serialised with CRLF.
        """
        if len(data) > MAX_SDP_BYTES:
            raise MalformedError(f"a session description over {MAX_SDP_BYTES} bytes")
        try:
            lines = data.decode("utf-8").replace("\r\n", "\n").rstrip("\n").split("\n")
        except UnicodeDecodeError:
            raise MalformedError("a session description is not UTF-8 (RFC 4566 §5)") from None
        if len(lines) > MAX_SDP_LINES or lines[0] != "v=0":
            raise MalformedError(f"no session description: no v=0 at its start, or over {MAX_SDP_LINES} lines")
        if any(len(line) < 2 or line[1] != "=" or "\r" in line or "\0" in line for line in lines):
            raise MalformedError("a line of a session description is not TYPE=VALUE (RFC 4566 §5)")
        return cls._divide(lines)

    @classmethod
    def _divide(cls, lines: Sequence[str]) -> "SessionDescription":
        starts = [at for at, line in enumerate(lines) if line.startswith("m=")]
        if len(starts) > MAX_MEDIA:
            raise MalformedError(f"more than {MAX_MEDIA} media sections")
        media = tuple(_media(lines[at], lines[at + 1 : end]) for at, end in pairwise([*starts, len(lines)]))
        return cls(tuple(lines[: starts[0]] if starts else lines), media)

    def serialize(self) -> bytes:
        """Return the body; every line ends in CRLF."""
        lines = [*self.lines, *(line for media in self.media for line in media.serialize())]
        return ("\r\n".join(lines) + "\r\n").encode("utf-8")

    def attributes(self, name: str) -> tuple[str, ...]:
        """Return the values of the session-level attribute `name`, in order."""
        return _attributes(self.lines, name)

    @property
    def key_mgmt(self) -> tuple[str, ...]:
        """The values of all a=key-mgmt lines in their order, each like "mikey AQ..."."""
        levels = (self.lines, *(media.lines for media in self.media))
        return tuple(value for lines in levels for value in _attributes(lines, KEY_MGMT))

    @property
    def only(self) -> Media:
        """The section of a description that has one; raises MalformedError for any other number."""
        if len(self.media) != 1:
            raise MalformedError(f"the session description has {len(self.media)} media sections in place of one")
        return self.media[0]

    def narrowed(self, at: int) -> "SessionDescription":
        """Return the description with the media section at index `at` alone."""
        return replace(self, media=(self.media[at],))

    @property
    def audio_key_mgmt(self) -> tuple[str, ...]:
        """The values of a=key-mgmt that apply to the audio: the section's own, else the session's (RFC 4567 §3.1).

        Raises MalformedError if there is no audio.
        """
        return self.audio.attributes(KEY_MGMT) or self.attributes(KEY_MGMT)

    @property
    def audio(self) -> Media:
        """The first audio section that is not refused (port 0); raises MalformedError if there is none."""
        for media in self.media:
            if media.kind == "audio" and media.port:
                return media
        raise MalformedError("the session description has no audio")

    @property
    def audio_address(self) -> tuple[str, int]:
        """Address and port for the audio's RTP; raises MalformedError if there are none."""
        return self.address_of(self.audio)

    @property
    def audio_control_address(self) -> tuple[str, int]:
        """Address and port for the audio's RTCP: the RTP port if multiplexed, else a=rtcp, else the RTP port + 1.

        Raises MalformedError as `audio_address` does, and for an a=rtcp that is malformed (RFC 3605 §2.1).
        """
        return self.control_address_of(self.audio)

    def address_of(self, section: Media) -> tuple[str, int]:
        """Address and port for the RTP of a section; raises MalformedError if there are none."""
        for lines in (section.lines, self.lines):
            for line in lines:
                if line.startswith(("c=IN IP4 ", "c=IN IP6 ")):
                    return bare_host(line[len("c=IN IP4 ") :].split("/")[0].strip()), section.port
        raise MalformedError(f"the session description has no address for its {section.kind[:16]} (RFC 4566 §5.7)")

    def control_address_of(self, section: Media) -> tuple[str, int]:
        """Address and port for the RTCP of a section, as `audio_control_address` has them."""
        host, port = self.address_of(section)
        if section.has(RTCP_MUX):
            return host, port
        values = section.attributes("rtcp")
        if not values:
            return host, port + 1
        match values[0].split():
            case [stated]:
                return host, _number(stated, 65_535)
            case [stated, "IN", "IP4" | "IP6", address]:
                return bare_host(address), _number(stated, 65_535)
        raise MalformedError("an a=rtcp line is not a port, or a port and an address (RFC 3605 §2.1)")

    @property
    def audio_direction(self) -> Direction:
        """The audio's direction, see `direction_of`; raises MalformedError if there is no audio."""
        return self.direction_of(self.audio)

    def direction_of(self, section: Media) -> Direction:
        """The direction of a section: its own attribute, else the session's, else both ways (RFC 4566 §6)."""
        for lines in (section.lines, self.lines):
            for line in lines:
                if line.startswith("a=") and line[2:] in _DIRECTIONS:
                    return Direction(line[2:])
        return Direction.SENDRECV

    def map_lines(self, change: Callable[[str], str | None]) -> "SessionDescription":
        """Return a description with `change` applied to every line except m= lines; None removes the line."""
        media = tuple(replace(section, lines=_map(section.lines, change)) for section in self.media)
        return SessionDescription(_map(self.lines, change), media)

    def with_protocol(self, protocol: str) -> "SessionDescription":
        """Return a description whose media sections use `protocol`."""
        return replace(self, media=tuple(replace(section, protocol=protocol) for section in self.media))


def audio_description(
    address: str,
    port: int,
    payloads: Sequence[RtpMap],
    *,
    session_id: int,
    version: int = 1,
    ptime_ms: int = USUAL_PTIME_MS,
    key_mgmt: Sequence[str] = (),
    direction: Direction = Direction.SENDRECV,
) -> SessionDescription:
    """Describe one audio stream at `address`:`port`; `key_mgmt` are its key management values ("mikey AQ...").

    With key management, the profile is RTP/SAVP, and the values are at the session level (RFC 4567 §3.1). `version`
    counts the descriptions of one session (RFC 3264 §8). The defaults are left out: 20 ms, and both directions.
    """
    kind = "IP6" if ":" in address else "IP4"
    lines = (
        "v=0",
        f"o=- {session_id} {version} IN {kind} {address}",
        "s=-",
        f"c=IN {kind} {address}",
        "t=0 0",
        *(f"a={KEY_MGMT}:{value}" for value in key_mgmt),
    )
    attributes = [f"a=rtpmap:{p.payload_type} {p.encoding}" for p in payloads if not _is_unmapped(p)]
    attributes += [f"a=fmtp:{p.payload_type} {p.fmtp}" for p in payloads if p.fmtp]
    attributes += [f"a=ptime:{ptime_ms}"] if ptime_ms != USUAL_PTIME_MS else []
    attributes += [f"a={direction}"] if direction is not Direction.SENDRECV else []
    formats = tuple(str(p.payload_type) for p in payloads)
    media = Media("audio", port, SECURE if key_mgmt else PLAIN, formats, tuple(attributes))
    return SessionDescription(lines, (media,))


def same_encoding(one: str, other: str) -> bool:
    """Return whether two rtpmap encodings of audio are the same; their "/1" is optional (RFC 8866 §6.6)."""
    return one.lower().removesuffix("/1") == other.lower().removesuffix("/1")


def _is_unmapped(payload: RtpMap) -> bool:
    return payload.encoding in _UNMAPPED and _STATIC_PAYLOADS.get(payload.payload_type) == payload.encoding


_DIRECTIONS: Final = frozenset(Direction)


def _media(line: str, rest: Sequence[str]) -> Media:
    fields = line.removeprefix("m=").split()
    if len(fields) < 4:
        raise MalformedError("an m= line lacks media, port, protocol or formats (RFC 4566 §5.14)")
    port, _, ports = fields[1].partition("/")
    count = _number(ports, 65535) if ports else 1
    if count == 0:
        raise MalformedError("an m= line asks for no port at all (RFC 4566 §5.14)")
    return Media(fields[0], _number(port, 65535), fields[2], tuple(fields[3:]), tuple(rest), count)


def _by_format(values: Sequence[str]) -> dict[str, str]:
    parts = [value.partition(" ") for value in values]
    return {payload_type: rest.strip() for payload_type, _, rest in parts}


def _attributes(lines: Sequence[str], name: str) -> tuple[str, ...]:
    prefix = f"a={name}:"
    return tuple(line.removeprefix(prefix) for line in lines if line.startswith(prefix))


def _map(lines: Sequence[str], change: Callable[[str], str | None]) -> tuple[str, ...]:
    return tuple(changed for line in lines if (changed := change(line)) is not None)


def _number(text: str, most: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= most):
        raise MalformedError(f"a session description has no number where one up to {most} belongs")
    return int(text)
