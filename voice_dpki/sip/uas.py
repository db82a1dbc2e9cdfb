"""Checks that a server makes before it processes a request (RFC 3261 §8.2). Each raises RequestRefusedError."""

from collections.abc import Collection
from typing import Final

from sipmessage import Request

from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.sip import reliable, session_timer
from voice_dpki.sip.message import METHODS, header_values
from voice_dpki.sip.sdp import CONTENT_TYPE

Headers = tuple[tuple[str, str], ...]

MAX_NAMED: Final = 16
"""Most unsupported extensions that a refusal names, so that it is not longer than its request."""

_ENCODINGS: Final = ("", "identity")


class RequestRefusedError(PeerError):
    """A server cannot process a request; it answers with `status` and `headers`."""

    def __init__(self, status: int, headers: Headers = ()) -> None:
        super().__init__(f"a request is refused with {status}")
        self.status, self.headers = status, headers


def check_method(request: Request, methods: Collection[str]) -> None:
    """Refuse a method outside `methods`: 405 if SIP defines it, else 501 (§8.2.1, §21.5.2)."""
    if request.method not in methods:
        raise RequestRefusedError(405 if request.method in METHODS else 501, (("Allow", ", ".join(methods)),))


def check_require(request: Request, supported: Collection[str] = ()) -> None:
    """Refuse a required extension that is not `supported` (§8.2.2.3)."""
    if unsupported := [name for name in header_values(request, "Require") if name not in supported]:
        raise RequestRefusedError(420, (("Unsupported", ", ".join(unsupported[:MAX_NAMED])),))


def check_body(request: Request) -> None:
    """Refuse a body that is not an unencoded session description (§8.2.3); an optional body is ignored."""
    handling = (request.headers.get("Content-Disposition") or "").lower().replace(" ", "")
    if not request.body or "handling=optional" in handling:
        return
    kind = _media_type(request.headers.get("Content-Type") or "")
    encoding = (request.headers.get("Content-Encoding") or "").strip().lower()
    if kind != CONTENT_TYPE or encoding not in _ENCODINGS:
        raise RequestRefusedError(415, (("Accept", CONTENT_TYPE), ("Accept-Encoding", "identity")))


def check_accept(request: Request) -> None:
    """Refuse an INVITE whose Accept excludes session descriptions (§20.1, §21.4.7)."""
    if not request.headers.getlist("Accept"):
        return
    accepted = {_media_type(value) for value in header_values(request, "Accept")}
    if not accepted & {CONTENT_TYPE, "application/*", "*/*"}:
        raise RequestRefusedError(406, (("Warning", '399 user-agent "an answer is application/sdp"'),))


def check_session_interval(request: Request) -> None:
    """Refuse an INVITE or UPDATE whose session interval is too short (RFC 4028 §9), or malformed."""
    try:
        is_long_enough = session_timer.check_interval(request)
    except MalformedError:
        raise RequestRefusedError(400) from None
    if not is_long_enough:
        raise RequestRefusedError(422, (("Min-SE", str(session_timer.MIN_INTERVAL_S)),))


def check_request(request: Request, methods: Collection[str], options: Collection[str] = ()) -> None:
    """Check that a telephone can serve a request; `parse_message` has checked the scheme of its URI (§8.2.2.1).

    `options` are the extensions that it supports besides those of all our telephones.
    """
    check_method(request, methods)
    acknowledged = (reliable.OPTION,) if request.method == "INVITE" else ()
    check_require(request, (session_timer.OPTION, *acknowledged, *options))
    if request.method in ("INVITE", "UPDATE"):
        check_body(request)
        check_accept(request)
        check_session_interval(request)


def _media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()
