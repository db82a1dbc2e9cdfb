"""Hops, the sources and destinations of messages, and readers of the numbers in protocol text."""

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final

from sipmessage import URI

from voice_dpki.errors import MalformedError
from voice_dpki.sip.hosts import bare_host, host_text, is_ipv6

TRANSPORTS: Final = ("udp", "tcp", "tls")
"""Ordered by how hard the source address is to forge, the easiest first."""
SIP_PORT: Final = 5060
SIPS_PORT: Final = 5061
MAX_QUOTES: Final = 32

_MIXED_IPV6 = re.compile(r"(?a)\[([0-9A-Fa-f:]{2,40}:[0-9]{1,3}(?:\.[0-9]{1,3}){3})\]")


@dataclass(frozen=True, slots=True)
class Hop:
    """A message's source or destination: transport ("udp", "tcp" or "tls") and a numeric address."""

    transport: str
    host: str
    port: int
    flow: int | None = field(default=None, compare=False)
    """The flow that brought a message, or that it must take (RFC 5626): a connection's number, or 0 for UDP.

    If it is None, a connection may be opened, and a large request may go over TCP instead of UDP.
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
        """Whether a message from this hop can be from `peer`: the same host, over a transport no easier to forge.

        Anyone can forge a UDP source address, few can open a TCP connection from one, and TLS proves a name.
        """
        rank = TRANSPORTS.index
        return self.host == peer.host and rank(self.transport) >= rank(peer.transport)

    def __str__(self) -> str:
        return f"{self.transport}:{self.address}"


def source_of(host: str) -> str:
    """Return the source that an address belongs to: an IPv4 address, or the /64 of an IPv6 address.

    An IPv4-mapped address, as a socket on [::] gives it, counts as its IPv4 address.
    """
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    return str(address.ipv4_mapped or f"{IPv6Address(int(address) >> 64 << 64)}/64")


def plain_ipv6(text: str) -> str:
    """Return `text` with every bracketed IPv6 address that ends in an IPv4 address rewritten in canonical form.

    sipmessage accepts such addresses only as the mistaken grammar of RFC 3261 has them, with an extra colon
    (RFC 5118 §4.10).
    """
    return _MIXED_IPV6.sub(_in_plain_form, text) if "[" in text else text


def _in_plain_form(match: re.Match[str]) -> str:
    try:
        return f"[{IPv6Address(match[1].replace(':::', '::'))}]"
    except ValueError:
        return match[0]


def is_numeric_host(host: str) -> bool:
    """Return whether `host` is a dotted IPv4 address or a bare IPv6 address; nothing here resolves names."""
    parts = host.split(".")
    dotted = len(parts) == 4 and all(p.isascii() and p.isdigit() and len(p) <= 3 and int(p) < 256 for p in parts)
    return dotted or is_ipv6(host)


def read_number(text: str, most: int) -> int | None:
    """Return the decimal number in `text`, leading zeros allowed; None if it is not a number or exceeds `most`.

    `int` alone raises beyond 4,300 digits and accepts the digits of any script.
    """
    digits = text.lstrip("0") or "0"
    if not text.isascii() or not text.isdigit() or len(digits) > len(str(most)) or int(digits) > most:
        return None
    return int(digits)


def check_quotes(text: str, what: str) -> None:
    """Check that text has no more quotes than an honest sender needs; raises MalformedError.

    Parsers by regular expressions, sipmessage's among them, try every quote as the start of a string, which is slow
    if there are many.
    """
    if text.count('"') > MAX_QUOTES:
        raise MalformedError(f"{what} has more than {MAX_QUOTES} quotes")


def read_port(text: str) -> int:
    """Return the port in `text`, from 1 to 65535; raises MalformedError."""
    port = read_number(text, 65_535)
    if not port:
        raise MalformedError("a port is not from 1 to 65535")
    return port


def uri_hop(uri: URI) -> Hop | None:
    """Return the hop that a SIP URI names directly, or None if it needs resolution (RFC 3263 §4).

    A sips: URI means TLS, whatever its parameters say (RFC 5630 §3.1.3).
    """
    host = bare_host(uri.host)
    if uri.scheme not in ("sip", "sips") or not is_numeric_host(host):
        return None
    transport = "tls" if uri.scheme == "sips" else (uri.parameters.get("transport") or "udp").lower()
    port = uri.port or (SIPS_PORT if transport == "tls" else SIP_PORT)
    return Hop(transport, host, port) if transport in TRANSPORTS and 0 <= port < 65_536 else None
