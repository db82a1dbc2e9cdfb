"""Answers of a redirect server (RFC 3261 §8.3) with header fields that the sender is to add to its INVITE.

Networks use three dialects, distinguished by the status of the answer:

    302            the header fields are the answer's own, and Contact is the Request-URI
    403, 404, 503  the same without a Contact: the sender goes on to its next route with the header fields
    300            they are embedded in the Contact's URI, escaped (RFC 3261 §19.1.1, §19.1.5)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from sipmessage import Request, Response

from voice_dpki.sip.message import header_values, make_response
from voice_dpki.sip.via import parse_via

EMBEDDED: Final = 300
REDIRECT: Final = 302
STATUSES: Final = (REDIRECT, 403, 404, 503, EMBEDDED)
NOTHING_TO_ADD: Final = 404
"""Status in the dialect 302 if there is nothing to add: the sender goes on to its next route."""

Header = tuple[str, str]

_UNRESERVED: Final = "-_.!~*'()"
"""Characters besides letters and digits that need no escape in a URI (RFC 3261 §25.1, `unreserved`)."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The form of answer that one sender expects."""

    status: int = REDIRECT
    """One of STATUSES."""
    x_header: bool = False
    """Whether names begin with X-, for senders that drop header fields which a response should not have."""


@dataclass(frozen=True, slots=True)
class Additions:
    """The header fields that the sender is to add to its INVITE, or a refusal of the call."""

    headers: tuple[Header, ...] = ()
    """Header fields whose place in the answer depends on the dialect."""
    beside: tuple[Header, ...] = ()
    """Header fields of the answer itself in every dialect."""
    reasons: tuple[str, ...] = ()
    """Values of Reason (RFC 3326)."""
    refusal: tuple[int, str] | None = None
    """Status and phrase with which the sender is to refuse the call; then there is nothing to add."""


def answer(request: Request, dialect: Dialect, additions: Additions, to_tag: str) -> Response:
    """Return the answer to an INVITE; raises MalformedError if its To cannot be read."""
    if additions.refusal is not None:
        status, phrase = additions.refusal
        reasons = [("Reason", value) for value in additions.reasons]
        return make_response(request, status, phrase, to_tag=to_tag, headers=reasons)
    beside = [*additions.beside, *(("Reason", value) for value in additions.reasons)]
    if dialect.status == EMBEDDED:
        contact = ("Contact", f"<{_target(request)}{_embedded(additions.headers, dialect)}>")
        return make_response(request, EMBEDDED, to_tag=to_tag, headers=[contact, *beside])
    named = [(_name(name, dialect), value) for name, value in additions.headers]
    if dialect.status == REDIRECT and named:
        contact = ("Contact", f"<{request.uri}>")
        return make_response(request, REDIRECT, to_tag=to_tag, headers=[contact, *named, *beside])
    status = NOTHING_TO_ADD if dialect.status == REDIRECT else dialect.status
    return make_response(request, status, to_tag=to_tag, headers=[*named, *beside])


def _name(name: str, dialect: Dialect) -> str:
    return f"X-{name}" if dialect.x_header else name


def _embedded(headers: Sequence[Header], dialect: Dialect) -> str:
    pairs: Iterable[str] = (f"{_name(name, dialect)}={quote(value, safe=_UNRESERVED)}" for name, value in headers)
    return "?" + "&".join(pairs) if headers else ""


def _target(request: Request) -> str:
    """Return the Request-URI as a SIP URI, which alone can hold header fields."""
    if request.uri.scheme != "tel":
        return str(request.uri)
    host = parse_via(header_values(request, "Via")[0]).sent_by
    number = quote(request.uri.user or "", safe="+-.()*")
    return f"sip:{number}@{host};user=phone"
