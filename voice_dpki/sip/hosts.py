"""Numeric hosts in their two spellings: in brackets in URIs, Via and "host:port", bare elsewhere (RFC 5118)."""

from ipaddress import IPv6Address


def bare_host(text: str) -> str:
    """Return a host without brackets; an IPv6 address in its one canonical form (RFC 5952), others as they are."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" not in host:
        return text
    try:
        return str(IPv6Address(host))
    except ValueError:
        return text


def host_text(host: str) -> str:
    """Return a bare host as it is written before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def is_ipv6(host: str) -> bool:
    """Whether a bare host is an IPv6 address; none with a zone, which means something on one machine only."""
    if ":" not in host or "%" in host:
        return False
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True
