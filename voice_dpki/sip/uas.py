"""Checks that a server makes before it processes a request (RFC 3261 §8.2)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sipmessage import Request

from voice_dpki.sip.message import METHODS, header_values
from voice_dpki.sip.sdp import CONTENT_TYPE

Headers = tuple[tuple[str, str], ...]

MAX_NAMED: Final = 16
"""Most unsupported extensions that a refusal names, so that it is not longer than its request."""

_ENCODINGS: Final = ("", "identity")


@dataclass(frozen=True, slots=True)
class UasRefusal:
    """The status and header fields that refuse a request."""

    status: int
    headers: Headers = ()


def check_method(request: Request, methods: Collection[str]) -> UasRefusal | None:
    """Refuse a method outside `methods`: 405 if SIP defines it, else 501 (§8.2.1, §21.5.2)."""
    if request.method in methods:
        return None
    return UasRefusal(405 if request.method in METHODS else 501, (("Allow", ", ".join(methods)),))


def check_require(request: Request) -> UasRefusal | None:
    """Refuse every required extension: none is supported (§8.2.2.3)."""
    unsupported = header_values(request, "Require")
    return UasRefusal(420, (("Unsupported", ", ".join(unsupported[:MAX_NAMED])),)) if unsupported else None


def check_body(request: Request) -> UasRefusal | None:
    """Refuse a body that is not an unencoded session description (§8.2.3); an optional body is ignored."""
    handling = (request.headers.get("Content-Disposition") or "").lower().replace(" ", "")
    if not request.body or "handling=optional" in handling:
        return None
    kind = _media_type(request.headers.get("Content-Type") or "")
    encoding = (request.headers.get("Content-Encoding") or "").strip().lower()
    if kind == CONTENT_TYPE and encoding in _ENCODINGS:
        return None
    return UasRefusal(415, (("Accept", CONTENT_TYPE), ("Accept-Encoding", "identity")))


def check_accept(request: Request) -> UasRefusal | None:
    """Refuse an INVITE whose Accept excludes session descriptions (§20.1, §21.4.7)."""
    values = request.headers.getlist("Accept")
    if not values:
        return None
    accepted = {_media_type(value) for value in header_values(request, "Accept")}
    if accepted & {CONTENT_TYPE, "application/*", "*/*"}:
        return None
    return UasRefusal(406, (("Warning", '399 user-agent "an answer is application/sdp"'),))


def check_request(request: Request, methods: Collection[str]) -> UasRefusal | None:
    """Return why a telephone must refuse this request, or None if it can serve it."""
    if (refusal := check_method(request, methods)) is not None:
        return refusal
    if request.uri.scheme not in ("sip", "sips", "tel"):
        return UasRefusal(416)
    if (refusal := check_require(request)) is not None:
        return refusal
    if request.method != "INVITE":
        return None
    return check_body(request) or check_accept(request)


def _media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()
