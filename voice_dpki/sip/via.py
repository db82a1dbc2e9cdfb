"""The topmost Via: read, and stamped with where the request really came from (RFC 3261 §18.2.1, RFC 3581).

`received` and `rport` are the receiver's to write. What a sender put there is taken out, so that no response can be
sent to a third party.
"""

import re
from dataclasses import dataclass
from typing import Final

from sipmessage import Via

from voice_dpki.errors import MalformedError
from voice_dpki.sip.hop import Hop, check_quotes, plain_ipv6, read_port
from voice_dpki.sip.hosts import bare_host, host_text

MAX_VIA_CHARS: Final = 1_024

_PIECE = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*")+|[;"]')
"""A parameter, or the semicolon before it; a quote that nothing closes is a piece of its own."""


_RECEIVED = re.compile(r'(?ai);[ \t]*received[ \t]*=[^;,"]*')
"""Not read, so that it need not be right: IPv6 addresses stand there with and without brackets (RFC 5118 §4.5)."""


@dataclass(frozen=True, slots=True)
class TopVia:
    """The topmost Via of a message (RFC 3261 §20.42), without what only its receiver may say."""

    transport: str
    host: str
    port: int
    branch: str
    asks_port: bool
    """Whether it has `rport`: the response goes to the port that the request came from (RFC 3581 §4)."""

    @property
    def sent_by(self) -> str:
        """Host and port that the sender gave for itself."""
        return f"{host_text(self.host)}:{self.port}"


def parse_via(text: str) -> TopVia:
    """Parse one Via value; raises MalformedError."""
    if len(text) > MAX_VIA_CHARS:
        raise MalformedError(f"a Via is longer than {MAX_VIA_CHARS} characters")
    check_quotes(text, "a Via")
    try:
        via = Via.parse(plain_ipv6(_RECEIVED.sub("", text)))
    except (ValueError, TypeError):
        raise MalformedError("not a Via (RFC 3261 §25.1)") from None
    parameters = {name.lower(): value for name, value in via.parameters.items()}
    return TopVia(
        transport=via.transport.lower(),
        host=bare_host(via.host),
        port=read_port(str(via.port)) if via.port is not None else 5060,
        branch=parameters.get("branch") or "",
        asks_port="rport" in parameters,
    )


def stamp_via(text: str, host: str, source: Hop) -> str:
    """Return the Via value `text`, whose sent-by names `host`, with `received` and `rport` as RFC 3581 §4 says.

    All else stays as it came: an element finds its own parameters again.
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
    """Return what stands between semicolons; those within quotes do not count."""
    pieces = [""]
    for piece in _PIECE.findall(text):
        if piece == ";":
            pieces.append("")
        else:
            pieces[-1] += piece
    return pieces


def way_back(asks_port: bool, port: int, source: Hop) -> Hop:
    """Return where a response goes: always to the source, there to the port of the Via unless it has `rport`.

    Over TCP that is where a connection is made when the request's own has gone (RFC 3261 §18.2.2). `maddr` is not
    followed (docs/divergences.md).
    """
    return Hop(source.transport, source.host, source.port if asks_port and not source.reliable else port)
