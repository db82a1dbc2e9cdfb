"""Where messages come from and go to, and the numbers that protocol text holds."""

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final

from sipmessage import URI

from voice_dpki.errors import MalformedError
from voice_dpki.sip.hosts import bare_host, host_text, is_ipv6

TRANSPORTS: Final = ("udp", "tcp", "tls")
"""In order: the source address of the first is the easiest to forge."""
SIP_PORT: Final = 5060
SIPS_PORT: Final = 5061
MAX_QUOTES: Final = 32

_MIXED_IPV6 = re.compile(r"(?a)\[([0-9A-Fa-f:]{2,40}:[0-9]{1,3}(?:\.[0-9]{1,3}){3})\]")


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a message comes from or goes to: transport ("udp", "tcp" or "tls") and a numeric address."""

    transport: str
    host: str
    port: int
    flow: int | None = field(default=None, compare=False)
    """The flow that a message came on, or must go on (RFC 5626): a connection's number, and 0 for UDP.

    None lets the transport make a connection, or prefer TCP for a large request.
    """

    @classmethod
    def parse(cls, text: str) -> "Hop":
        """Parse "udp:127.0.0.3:5060" or "tcp:[::1]:5060"; raises MalformedError."""
        transport, _, rest = text.partition(":")
        written, _, port = rest.rpartition(":")
        host, number = bare_host(written), read_number(port, 65_535)
        bare = ":" in written and not written.startswith("[")
        if transport not in TRANSPORTS or bare or not is_numeric_host(host) or number is None:
            raise MalformedError(f"{text!r} is no hop: write it like udp:127.0.0.3:5060 or udp:[::1]:5060")
        return cls(transport, host, number)

    @property
    def address(self) -> str:
        """The address as "host:port", an IPv6 host in brackets."""
        return f"{host_text(self.host)}:{self.port}"

    @property
    def reliable(self) -> bool:
        """Whether the transport retransmits by itself."""
        return self.transport != "udp"

    def is_from(self, peer: "Hop") -> bool:
        """Whether what came from here can be of `peer`: the same host, over a transport no easier to forge.

        Anybody can write a UDP source address, few can have a TCP connection from one, and TLS proves a name.
        """
        rank = TRANSPORTS.index
        return self.host == peer.host and rank(self.transport) >= rank(peer.transport)

    def __str__(self) -> str:
        return f"{self.transport}:{self.address}"


def source_of(host: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 of an IPv6 address.

    IPv4 addresses written as IPv6, as a socket on [::] gives them, are sources each for itself.
    """
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    return str(address.ipv4_mapped or f"{IPv6Address(int(address) >> 64 << 64)}/64")


def plain_ipv6(text: str) -> str:
    """Return `text` with each IPv6 reference that ends in an IPv4 address in plain form.

    sipmessage reads only what RFC 3261's grammar says by mistake, with a colon too many (RFC 5118 §4.10).
    """
    return _MIXED_IPV6.sub(_in_plain_form, text) if "[" in text else text


def _in_plain_form(match: re.Match[str]) -> str:
    try:
        return f"[{IPv6Address(match[1].replace(':::', '::'))}]"
    except ValueError:
        return match[0]


def is_numeric_host(host: str) -> bool:
    """Whether `host` is an IPv4 address in dotted form or a bare IPv6 address; nothing here resolves names."""
    parts = host.split(".")
    dotted = len(parts) == 4 and all(p.isascii() and p.isdigit() and len(p) <= 3 and int(p) < 256 for p in parts)
    return dotted or is_ipv6(host)


def read_number(text: str, most: int) -> int | None:
    """Return the decimal number in `text`, leading zeros allowed, or None where it is none or over `most`.

    `int` alone raises beyond 4,300 digits, and takes the digits of any script.
    """
    digits = text.lstrip("0") or "0"
    if not text.isascii() or not text.isdigit() or len(digits) > len(str(most)) or int(digits) > most:
        return None
    return int(digits)


def check_quotes(text: str, what: str) -> None:
    """Refuse text with more quotes than an honest sender needs; raises MalformedError.

    Parsers by regular expressions, sipmessage's among them, try each quote as the begin of a string.
    """
    if text.count('"') > MAX_QUOTES:
        raise MalformedError(f"{what} has more than {MAX_QUOTES} quotes")


def read_port(text: str) -> int:
    """Return the port in `text`; raises MalformedError."""
    port = read_number(text, 65_535)
    if not port:
        raise MalformedError("a port is not from 1 to 65535")
    return port


def uri_hop(uri: URI) -> Hop | None:
    """Return the hop that a SIP URI names directly, or None where it takes a route table (RFC 3263 §4).

    A sips: URI is for TLS, whatever its parameters say (RFC 5630 §3.1.3).
    """
    host = bare_host(uri.host)
    if uri.scheme not in ("sip", "sips") or not is_numeric_host(host):
        return None
    transport = "tls" if uri.scheme == "sips" else (uri.parameters.get("transport") or "udp").lower()
    port = uri.port or (SIPS_PORT if transport == "tls" else SIP_PORT)
    return Hop(transport, host, port) if transport in TRANSPORTS and 0 <= port < 65_536 else None
