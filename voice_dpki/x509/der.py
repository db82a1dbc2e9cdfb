"""The part of DER that STIR's extensions need: tag, definite minimal length, content (X.690 §8.1, §10.1)."""

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError

SEQUENCE = 0x30
INTEGER = 0x02
BIT_STRING = 0x03
UTF8_STRING = 0x0C
IA5_STRING = 0x16

_MAX_LENGTH_OCTETS = 3


def encode(tag: int, content: bytes) -> bytes:
    """Encode one value under a low tag number (0 to 30)."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def encode_unsigned(value: int) -> bytes:
    """Encode a non-negative INTEGER."""
    return encode(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def read(cursor: Cursor) -> tuple[int, bytes]:
    """Read one value and return its tag and content.

    Raises MalformedError if the tag has several bytes, or if the length is indefinite, not minimal, or larger than
    the rest of the data.
    """
    tag = cursor.uint(1)
    if tag & 0x1F == 0x1F:
        raise MalformedError("DER: multi-byte tags do not occur here")
    size = cursor.uint(1)
    if size >= 0x80:
        size = _long_length(cursor, size & 0x7F)
    return tag, cursor.take(size)


def read_as(cursor: Cursor, tag: int, what: str) -> bytes:
    """Return the content of the next value; raises MalformedError that names `what` unless it has `tag`."""
    found, content = read(cursor)
    if found != tag:
        raise MalformedError(f"{what}: tag {tag:#04x} expected, {found:#04x} found")
    return content


def unsigned(content: bytes) -> int:
    """Read an INTEGER's content; raises MalformedError unless it is non-negative and minimal (X.690 §8.3)."""
    if not content or content[0] & 0x80:
        raise MalformedError("DER: a non-negative INTEGER is expected")
    if len(content) > 1 and content[0] == 0 and not content[1] & 0x80:
        raise MalformedError("DER: the INTEGER is not in its shortest form")
    return int.from_bytes(content, "big")


def _long_length(cursor: Cursor, octets: int) -> int:
    if not 1 <= octets <= _MAX_LENGTH_OCTETS:
        raise MalformedError("DER: the length is indefinite or too large")
    size = cursor.uint(octets)
    if size < 0x80 or size >> 8 * (octets - 1) == 0:
        raise MalformedError("DER: the length is not in its shortest form")
    return size
