"""Bits changed in the JSON of an answer, spread over all its parts, and which parts prove nothing."""

import json
import re
from base64 import b16decode, b16encode, b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass(frozen=True)
class Part:
    """A piece of an answer: where its bytes are, and its place, as in `signed_header.header.time`.

    A member's name, with its colon, has the place of its value and ":". Punctuation has that of its object or list
    and "()".
    """

    place: str
    start: int
    end: int


def parts(raw: bytes) -> list[Part]:
    """Take an answer apart. Places do not tell one entry of a list from another."""
    json.loads(raw)  # so that the tokens are in their order
    return list(_value(list(TOKEN.finditer(raw))[::-1], ""))


def _value(rest: list[re.Match[bytes]], place: str) -> Iterator[Part]:
    token = rest.pop()
    closing = {b"{": b"}", b"[": b"]"}.get(token.group())
    yield Part(place + "()" if closing else place, *token.span())
    while closing:
        if rest[-1].group() == closing or rest[-1].group() == b",":
            closing = closing if (mark := rest.pop()).group() == b"," else None
            yield Part(place + "()", *mark.span())
        elif closing == b"]":
            yield from _value(rest, f"{place}.*")
        else:
            name, colon = rest.pop(), rest.pop()
            inside = f"{place}.{json.loads(name.group())}".removeprefix(".")
            yield Part(inside + ":", name.start(), colon.end())
            yield from _value(rest, inside)


def altered(raw: bytes, part: Part, chance: Random) -> bytes:
    """Change one bit of a part: of its text, or as often of the bytes that it holds in base64 or hexadecimal."""
    text = raw[part.start : part.end]
    held = _held(text) if chance.random() < 0.5 else None
    if held is None:
        changed = _bit_changed(text, chance)
    else:
        content, write = held
        changed = b'"' + write(_bit_changed(content, chance)) + b'"'
    return raw[: part.start] + changed + raw[part.end :]


def _held(text: bytes) -> tuple[bytes, Callable[[bytes], bytes]] | None:
    """Find the bytes that a text holds, and how they are written; None if it holds none."""
    inside = text[1:-1] if text[:1] == text[-1:] == b'"' else b""
    if re.fullmatch(rb"([0-9A-F]{2}){16,}", inside):
        return b16decode(inside), b16encode
    if re.fullmatch(rb"([0-9a-f]{2}){16,}", inside):
        return b16decode(inside.upper()), lambda content: b16encode(content).lower()
    if re.fullmatch(rb"[A-Za-z0-9+/]{16,}={0,2}", inside) and len(inside) % 4 == 0:
        return b64decode(inside), b64encode
    return None


def _bit_changed(octets: bytes, chance: Random) -> bytes:
    changed = bytearray(octets)
    changed[chance.randrange(len(octets))] ^= 1 << chance.randrange(8)
    return bytes(changed)
