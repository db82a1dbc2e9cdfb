"""Messages on a stream, each preceded by its length as a varint: the framing of ABCI's sockets."""

from voice_dpki.codec.protowire import varint
from voice_dpki.errors import MalformedError

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message: a block, or a chunk of a snapshot; both have far lower limits of their own."""

_MAX_VARINT_BYTES = 5


def encode_message(data: bytes) -> bytes:
    """Return a message preceded by its length."""
    return varint(len(data)) + data


def take_messages(buffer: bytearray) -> list[bytes]:
    """Remove all complete messages from the front of `buffer` and return them.

    Raises MalformedError for a message that is too long.
    """
    messages: list[bytes] = []
    start = 0
    while (found := _length(buffer, start)) is not None:
        size, body = found
        if len(buffer) < body + size:
            break
        start = body + size
        messages.append(bytes(memoryview(buffer)[body:start]))
    del buffer[:start]
    return messages


def _length(buffer: bytearray, start: int) -> tuple[int, int] | None:
    """Read the varint at `start`; return the length and the message's offset, or None while it is incomplete.

    Raises MalformedError for a length above MAX_MESSAGE_BYTES, or one of more than _MAX_VARINT_BYTES.
    """
    size = 0
    for index, octet in enumerate(buffer[start : start + _MAX_VARINT_BYTES]):
        size |= (octet & 0x7F) << 7 * index
        if octet < 0x80:
            if size > MAX_MESSAGE_BYTES:
                raise MalformedError(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
            return size, start + index + 1
    if len(buffer) - start >= _MAX_VARINT_BYTES:
        raise MalformedError("a length that does not end")
    return None
