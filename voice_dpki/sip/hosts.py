"""Numeric hosts in two forms: IPv6 has brackets in URIs, Via and "host:port", and none elsewhere (RFC 5118)."""

from ipaddress import IPv6Address


def bare_host(text: str) -> str:
    """Return a host without brackets: an IPv6 address in its canonical form (RFC 5952), any other unchanged."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" not in host:
        return text
    try:
        return str(IPv6Address(host))
    except ValueError:
        return text


def host_text(host: str) -> str:
    """Return a bare host in the form that stands before a port: an IPv6 address gets brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def is_ipv6(host: str) -> bool:
    """Return whether a bare host is an IPv6 address without a zone; a zone has a meaning on one machine only."""
    if ":" not in host or "%" in host:
        return False
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True
