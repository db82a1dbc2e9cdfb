"""Data of a call in its INVITE or the answer, for signing and verification (RFC 8224 §6). No I/O."""

from datetime import UTC
from email.utils import parsedate_to_datetime

from sipmessage import URI, Request, Response

from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.sip.keyed import signed_key_mgmt
from voice_dpki.sip.message import parse_address, required_header
from voice_dpki.sip.sdp import CONTENT_TYPE, SessionDescription
from voice_dpki.stir.tn import canonical_tn


def number_of(uri: URI) -> Tn | None:
    """Return the telephone number that a SIP or TEL URI names, or None."""
    user = (uri.user or "").split(";")[0]
    try:
        return canonical_tn(user)
    except MalformedError:
        return None


def caller_uri(request: Request) -> URI:
    """Return the URI of From; raises MalformedError."""
    return parse_address(required_header(request, "From")).uri


def date_of(message: Request | Response, now_s: float) -> int:
    """Return the time of the Date header field in Unix seconds, or `now_s` if there is none.

    Raises MalformedError if it is malformed (RFC 3261 §20.17).
    """
    value = message.headers.get("Date")
    if value is None:
        return int(now_s)
    if not value.isascii():
        raise MalformedError("Date is no date (RFC 3261 §20.17)")
    try:
        date = parsedate_to_datetime(value)
        return int(date.replace(tzinfo=date.tzinfo or UTC).timestamp())
    except (ValueError, TypeError, OverflowError):
        raise MalformedError("Date is no date (RFC 3261 §20.17)") from None


def key_mgmt_of(request: Request) -> tuple[str, ...]:
    """Return the key management in the request's SDP as it is signed; raises MalformedError for malformed SDP."""
    kind = (request.headers.get("Content-Type") or "").split(";")[0].strip().lower()
    if kind != CONTENT_TYPE or not request.body:
        return ()
    return signed_key_mgmt(SessionDescription.parse(request.body))
