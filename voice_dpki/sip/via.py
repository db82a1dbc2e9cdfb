"""The topmost Via: parsed, and stamped with the request's real source (RFC 3261 §18.2.1, RFC 3581).

Only the receiver may write values of `received` and `rport`. Values that the sender wrote are removed, so that no
response can be directed to a third party.
"""

import re
from dataclasses import dataclass
from typing import Final

from sipmessage import Via

from voice_dpki.errors import MalformedError
from voice_dpki.sip.hop import Hop, check_quotes, plain_ipv6, read_port
from voice_dpki.sip.hosts import bare_host, host_text
from voice_dpki.sip.reading import read

MAX_VIA_CHARS: Final = 1_024

_PIECE = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*")+|[;"]')
"""A parameter, or the semicolon before it; an unclosed quote is a piece of its own."""


_RECEIVED = re.compile(r'(?ai);[ \t]*received[ \t]*=[^;,"]*')
"""Removed before parsing, because its value need not be valid: IPv6 may lack brackets here (RFC 5118 §4.5)."""


@dataclass(frozen=True, slots=True)
class TopVia:
    """The topmost Via of a message (RFC 3261 §20.42), without the parameters that only its receiver may write."""

    transport: str
    host: str
    port: int
    branch: str
    asks_port: bool
    """Whether it has `rport`: the response then goes to the port that the request came from (RFC 3581 §4)."""

    @property
    def sent_by(self) -> str:
        """Host and port that the sender claims."""
        return f"{host_text(self.host)}:{self.port}"


def parse_via(text: str) -> TopVia:
    """Parse one Via value; raises MalformedError."""
    if len(text) > MAX_VIA_CHARS:
        raise MalformedError(f"a Via is longer than {MAX_VIA_CHARS} characters")
    check_quotes(text, "a Via")
    via = read(Via.parse, plain_ipv6(_RECEIVED.sub("", text)), "a Via")
    parameters = {name.lower(): value for name, value in via.parameters.items()}
    return TopVia(
        transport=via.transport.lower(),
        host=bare_host(via.host),
        port=read_port(str(via.port)) if via.port is not None else 5060,
        branch=parameters.get("branch") or "",
        asks_port="rport" in parameters,
    )


def stamp_via(text: str, host: str, source: Hop) -> str:
    """Return the Via value `text` with `received` and `rport` as RFC 3581 §4 says; `host` is that of its sent-by.

    All other parameters stay unchanged, so that the sender recognises its own.
    """
    kept, asked = [], False
    for piece in _split(text):
        name = piece.partition("=")[0].strip().lower()
        if name == "rport" and not asked:
            asked = True
            kept.append(f"rport={source.port}")
        elif name not in ("rport", "received"):
            kept.append(piece)
    if asked or host != source.host:
        kept.append(f"received={source.host}")
    return ";".join(kept)


def _split(text: str) -> list[str]:
    """Split at semicolons outside quotes."""
    pieces = [""]
    for piece in _PIECE.findall(text):
        if piece == ";":
            pieces.append("")
        else:
            pieces[-1] += piece
    return pieces


def way_back(asks_port: bool, port: int, source: Hop) -> Hop:
    """Return where a response goes: to the source's host, at the port of the Via unless it has `rport`.

    Over TCP or TLS this is where to connect if the request's own connection is gone, and `rport` does not count
    (RFC 3261 §18.2.2). `maddr` is not followed (docs/divergences.md).
    """
    return Hop(source.transport, source.host, source.port if asks_port and not source.reliable else port)
