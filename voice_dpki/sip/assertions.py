"""Assertions about a caller that only the domain itself may make in a request (RFC 3325 §5, 3GPP TS 24.229)."""

import re
from typing import Final

from sipmessage import Request

_VERSTAT = re.compile(r"(?ai);\s*verstat=[^;>@\s]*")
_ASSERTIONS: Final = ("P-Asserted-Identity", "P-Preferred-Identity")


def remove_assertions(request: Request) -> None:
    """Remove the asserted and preferred identities and the verstat of From, which only the domain may set."""
    for name in _ASSERTIONS:
        request.headers.remove(name)
    value = request.headers["From"]
    if "verstat" in value.lower():
        request.headers.set("From", without_verstat(value))


def without_verstat(text: str) -> str:
    """Return a URI, or the user of one, without its verstat."""
    return _VERSTAT.sub("", text)
