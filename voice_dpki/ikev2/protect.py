"""Encrypted messages, whole or in fragments (RFC 7296 §3.14, RFC 7383)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from voice_dpki.ikev2.crypto import Cipher, ProtectionError
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.message import (
    HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    Header,
    Message,
    first_kind,
    parse_payloads,
    serialize_payloads,
)
from voice_dpki.ikev2.payloads import Encrypted, EncryptedFragment, Payload
from voice_dpki.ikev2.registry import PayloadType

FRAGMENT_BYTES = 1252
"""Largest message sent whole to a peer that supports fragments: 1280 bytes, which every path carries, minus the
IPv4 and UDP headers (RFC 7383 §2.5.1)."""

MAX_FRAGMENTS = 128
"""Most fragments of one message; the longest that is accepted has 56 of FRAGMENT_BYTES."""

_GENERIC, _FRAGMENT = 4, 8
"""Bytes of an SK and an SKF payload before the IV."""


def seal(
    header: Header, payloads: Sequence[Payload], cipher: Cipher, fragment_bytes: int | None
) -> tuple[bytes, ...]:
    """Encrypt a message, in fragments of at most `fragment_bytes` if it would be longer; None sends it whole."""
    content, first = serialize_payloads(payloads), first_kind(payloads)
    if fragment_bytes is None or HEADER_BYTES + _GENERIC + cipher.sealed_bytes(len(content)) <= fragment_bytes:
        return (_seal_one(header, PayloadType.SK, first, b"", content, cipher),)
    room = fragment_bytes - HEADER_BYTES - _FRAGMENT
    while cipher.sealed_bytes(room) > fragment_bytes - HEADER_BYTES - _FRAGMENT:
        room -= 1
    parts = [content[at : at + room] for at in range(0, len(content), room)]
    return tuple(
        _seal_one(
            header,
            PayloadType.SKF,
            first if number == 1 else PayloadType.NONE,
            number.to_bytes(2, "big") + len(parts).to_bytes(2, "big"),
            part,
            cipher,
        )
        for number, part in enumerate(parts, 1)
    )


def _seal_one(header: Header, kind: int, first: int, numbers: bytes, content: bytes, cipher: Cipher) -> bytes:
    body = len(numbers) + cipher.sealed_bytes(len(content))
    generic = bytes((first, 0)) + (_GENERIC + body).to_bytes(2, "big")
    before = header.serialize(kind, HEADER_BYTES + _GENERIC + body) + generic + numbers
    return before + cipher.seal(before, content)


@dataclass(slots=True)
class _Parts:
    """Fragments of one message received so far."""

    message_id: int
    total: int
    first: int = 0
    contents: dict[int, bytes] = field(default_factory=dict)


class Opener:
    """Decryption of one peer's messages; it keeps fragments of one message at a time, because the window is 1."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher
        self._parts: _Parts | None = None

    def open(self, message: Message) -> tuple[Payload, ...] | None:
        """Return the payloads inside, or None while fragments are missing.

        Raises ProtectionError if the checksum does not verify or nothing is encrypted: the message is dropped.
        Raises IkeError with FRAGMENT, and MalformedError, for faults in an authentic message.
        """
        match message.payloads[-1:]:
            case (Encrypted(first, body),):
                content = self._cipher.open(message.octets[: -len(body) or None], body)
                self._parts = None
                return parse_payloads(first, content)
            case (EncryptedFragment() as fragment,):
                content = self._cipher.open(message.octets[: -len(fragment.body) or None], fragment.body)
                return self._join(message.header.message_id, fragment, content)
        raise ProtectionError

    def _join(self, message_id: int, fragment: EncryptedFragment, content: bytes) -> tuple[Payload, ...] | None:
        if fragment.total > MAX_FRAGMENTS:
            raise IkeError(Failure.FRAGMENT, f"a message is cut into more than {MAX_FRAGMENTS} fragments")
        parts = self._parts
        if parts is None or parts.message_id != message_id or fragment.total > parts.total:
            # A peer that got no answer may send the message again in more, smaller fragments (RFC 7383 §2.6).
            parts = self._parts = _Parts(message_id, fragment.total)
        if fragment.total < parts.total:
            return None
        parts.contents[fragment.number] = content
        parts.first = fragment.first if fragment.number == 1 else parts.first
        if sum(map(len, parts.contents.values())) > MAX_MESSAGE_BYTES:
            raise IkeError(Failure.FRAGMENT, f"fragments make a message of more than {MAX_MESSAGE_BYTES} bytes")
        if len(parts.contents) < parts.total:
            return None
        self._parts = None
        return parse_payloads(parts.first, b"".join(parts.contents[at] for at in range(1, parts.total + 1)))
