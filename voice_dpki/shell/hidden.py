"""What traces and collectors are not told: tokens and keys. As many stars take their place, so lengths stay true.

A connection brings its octets in any pieces, and a piece may end within a secret, or within the name before it. So
each direction of a connection has a `Hidden` of its own, which knows what came before.
"""

import re
from typing import Final

_CONTEXT_BYTES: Final = 64
"""How much of what came before is looked at again; what announces a secret is shorter."""

_SEEN: Final = re.compile(rb"[^\r\n\t ]")


class _Secret:
    """One kind of secret: what announces it, what it is made of, and an announcement in its shortest form."""

    def __init__(self, begin: bytes, value: bytes, shortest: bytes) -> None:
        self._pattern = re.compile(rb"(?i)(%s)(%s)" % (begin, value))
        self.shortest = shortest

    def hide(self, before: bytes, data: bytes) -> tuple[bytes, bytes]:
        """Hide the secrets in what comes after `before`; returns that, and the next `before`."""
        joined, end, shown = before + data, 0, []
        is_open = b""
        for found in self._pattern.finditer(joined):
            shown += [joined[end : found.end(1)], _SEEN.sub(b"*", found[2])]
            end = found.end()
            if end == len(joined):  # it may go on; a line end that came last is a part of it if a space follows
                is_open = self.shortest + _unfinished(found[2])
        shown.append(joined[end:])
        return b"".join(shown)[len(before) :], is_open or joined[-_CONTEXT_BYTES:]


def _unfinished(value: bytes) -> bytes:
    """Return the end of a value whose meaning the next octet decides: of a line, or a backslash that escapes it."""
    lines = value[len(value.rstrip(b"\r\n")) :]
    backslashes = len(value) - len(value.rstrip(b"\\"))
    return lines or b"\\" * (backslashes % 2)


def _field(*names: bytes) -> _Secret:
    """Return the values of fields (RFC 9112 §5), with the lines that continue them, which servers here refuse."""
    return _Secret(
        rb"[\r\n](?:%s)[ \t]{0,8}:[ \t]{0,8}" % b"|".join(names),
        rb"(?:[^\r\n]|\r?\n(?=[ \t]|\Z)|\r\Z)*",
        b"\n%s:" % names[0],
    )


_BYPASS: Final = b"p-identity-bypass"
"""A token that has a call verified without an Identity (docs/stir-policy.md)."""

_KEY: Final = _Secret(rb"inline:", rb"[^|\s;]*", b"inline:")
"""A key with its salt in `a=crypto` (RFC 4568 §9.1)."""

_IN_SIP: Final = (_field(_BYPASS), _KEY)
_IN_HTTP: Final = (
    _field(b"authorization", b"proxy-authorization", _BYPASS),
    _Secret(rb'"bypass"\s{0,8}:\s{0,8}"', rb'(?:[^"\\]|\\[\s\S]|\\\Z)*', b'"bypass":"'),
    _KEY,
)


class Hidden:
    """One direction of an HTTP connection, without the tokens of clients (RFC 9110 §11.6.2), bypasses and keys."""

    def __init__(self) -> None:
        self._before = [b"\n"] * len(_IN_HTTP)

    def hide(self, data: bytes) -> bytes:
        """Return the next octets with stars for what is secret."""
        for at, secret in enumerate(_IN_HTTP):
            data, self._before[at] = secret.hide(self._before[at], data)
        return data


def hidden_in_sip(message: bytes) -> bytes:
    """Return a whole SIP message with stars for bypasses and keys; what digests tell of passwords stays."""
    for secret in _IN_SIP:
        message, _ = secret.hide(b"\n", message)
    return message
