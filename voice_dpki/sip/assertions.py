"""What only a domain itself may say of a caller in a request (RFC 3325 §5, 3GPP TS 24.229)."""

import re
from typing import Final

from sipmessage import Request

_VERSTAT = re.compile(r"(?ai);\s*verstat=[^;>@\s]*")
_ASSERTIONS: Final = ("P-Asserted-Identity", "P-Preferred-Identity")


def remove_assertions(request: Request) -> None:
    """Remove what the sender of `request` says of itself in the domain's place."""
    for name in _ASSERTIONS:
        request.headers.remove(name)
    value = request.headers["From"]
    if "verstat" in value.lower():
        request.headers.set("From", without_verstat(value))


def without_verstat(text: str) -> str:
    """Return a URI, or the user of one, without its verstat."""
    return _VERSTAT.sub("", text)
