"""SDP attributes of DTLS-SRTP and ICE: `a=fingerprint`, `a=setup`, `a=ice-ufrag` (RFC 8122, 8842, 8839)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from voice_dpki.errors import MalformedError
from voice_dpki.sip.sdp import Media, SessionDescription

DTLS_PROTOCOLS: Final = ("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP")
"""Protocols of RTP over DTLS-SRTP (RFC 5764 §8)."""

MAX_FINGERPRINTS: Final = 8
HASH_BYTES: Final = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
"""Accepted hashes of fingerprints, and the bytes of a digest.

SHA-1 and MD5 are not accepted, because two certificates could have the same digest (RFC 8122 §5).
"""

_FINGERPRINT = re.compile(r"(?a)(?P<hash>[A-Za-z0-9-]{1,32}) +(?P<value>[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){1,127})")
_ICE = re.compile(r"(?a)[A-Za-z0-9+/]{4,256}")


class Setup(StrEnum):
    """Role in the DTLS handshake, which the active side begins (RFC 8842 §5.2)."""

    ACTIVE = "active"
    PASSIVE = "passive"
    ACTPASS = "actpass"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The digest of a DTLS certificate by one of HASH_BYTES."""

    hash_name: str
    digest: bytes

    @classmethod
    def parse(cls, value: str) -> "Fingerprint | None":
        """Parse the text after "fingerprint:"; None for a hash that is not accepted. Raises MalformedError."""
        found = _FINGERPRINT.fullmatch(value.strip())
        if found is None:
            raise MalformedError("a fingerprint is not HASH and pairs of hexadecimal digits (RFC 8122 §5)")
        name, digest = found["hash"].lower(), bytes.fromhex(found["value"].replace(":", ""))
        if name not in HASH_BYTES:
            return None
        if len(digest) != HASH_BYTES[name]:
            raise MalformedError(f"a fingerprint by {name} has not {HASH_BYTES[name]} bytes (RFC 8122 §5)")
        return cls(name, digest)

    def serialize(self) -> str:
        """Return the text after "fingerprint:"."""
        return f"{self.hash_name} {self.digest.hex(':').upper()}"


@dataclass(frozen=True, slots=True)
class DtlsDescription:
    """The DTLS and ICE parameters in one side's SDP."""

    fingerprints: tuple[Fingerprint, ...]
    """At least one; the certificate must match all."""
    setup: Setup
    ice: tuple[str, str] | None
    """User name fragment and password; None if the side does no ICE."""

    @classmethod
    def read(cls, described: SessionDescription) -> "DtlsDescription":
        """Read what applies to the first audio section: its own attributes, else the session's.

        Raises MalformedError.
        """
        audio = described.audio
        values = _applying(described, audio, "fingerprint")
        if len(values) > MAX_FINGERPRINTS:
            raise MalformedError(f"more than {MAX_FINGERPRINTS} fingerprints")
        fingerprints = tuple(read for value in values if (read := Fingerprint.parse(value)) is not None)
        if not fingerprints:
            raise MalformedError("the SDP has no fingerprint by SHA-256 or better (RFC 8122 §5)")
        return cls(fingerprints, _setup(_applying(described, audio, "setup")), _ice(described, audio))


def _setup(values: Sequence[str]) -> Setup:
    match [value.strip() for value in values]:
        case []:
            return Setup.ACTIVE  # RFC 4145 §4
        case [value] if value in set(Setup):
            return Setup(value)
    raise MalformedError("a=setup is not active, passive or actpass (RFC 8842 §5.2)")


def _ice(described: SessionDescription, audio: Media) -> tuple[str, str] | None:
    names, passwords = (_applying(described, audio, name) for name in ("ice-ufrag", "ice-pwd"))
    if not names and not passwords:
        return None
    if len(names) != 1 or len(passwords) != 1:
        raise MalformedError("a side that does ICE has one ice-ufrag and one ice-pwd (RFC 8839 §5.4)")
    name, password = names[0].strip(), passwords[0].strip()
    if not _ICE.fullmatch(name) or not _ICE.fullmatch(password) or len(password) < 22:
        raise MalformedError("ice-ufrag or ice-pwd is malformed (RFC 8839 §5.4)")
    return name, password


def _applying(described: SessionDescription, audio: Media, name: str) -> tuple[str, ...]:
    return audio.attributes(name) or described.attributes(name)
