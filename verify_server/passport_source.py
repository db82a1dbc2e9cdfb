"""The input of `voice-dpki passport`: an INVITE, an Identity header field, or a bare token."""

from dataclasses import dataclass
from typing import Final

from sipmessage import URI, Request

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.sip.message import parse_address, parse_message, required_header
from voice_dpki.stir.body import body_digest
from voice_dpki.stir.call import Call
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.tn import canonical_tn
from voice_dpki.wire.sip.asked import with_crlf
from voice_dpki.wire.sip.invite import caller_uri, date_of, key_mgmt_of, number_of

MAX_INPUT_BYTES: Final = 65_536
MAX_IDENTITIES: Final = 10


@dataclass(frozen=True, slots=True)
class Source:
    """The Identities to look at, and what is known of the call."""

    identities: tuple[str, ...]
    call: Call | None = None
    """None where the numbers of both parties are not known; its time is 0 where no Date tells it."""


def read_source(data: bytes, caller: str | None = None, called: str | None = None) -> Source:
    """Read the input; `caller` and `called` count where no INVITE tells them. Raises LocalError."""
    try:
        return _read(data, caller, called)
    except MalformedError as error:
        raise LocalError(f"the input cannot be used: {error}") from None


def _read(data: bytes, caller: str | None, called: str | None) -> Source:
    text = data.decode("utf-8", "surrogateescape").strip()
    if not text:
        raise LocalError("the input is empty")
    if text.startswith("INVITE "):
        return _of_invite(parse_message(with_crlf(data.lstrip())), caller, called)
    identity = text.removeprefix("Identity:").strip()
    call = None
    if caller is not None and called is not None:
        call = Call(canonical_tn(caller), Destinations((canonical_tn(called),)), 0, (identity,))
    return Source((identity,), call)


def _of_invite(message: object, caller: str | None, called: str | None) -> Source:
    if not isinstance(message, Request):
        raise MalformedError("it is no request")
    identities = tuple(message.headers.getlist("Identity"))
    if not identities:
        raise LocalError("the INVITE has no Identity header field")
    if len(identities) > MAX_IDENTITIES:
        raise LocalError(f"the INVITE has more than {MAX_IDENTITIES} Identity header fields")
    orig = canonical_tn(caller) if caller is not None else number_of(_asserted(message))
    dest = canonical_tn(called) if called is not None else number_of(_to(message))
    if orig is None or dest is None:
        return Source(identities)
    call = Call(
        orig,
        Destinations((dest,)),
        date_of(message, 0),
        identities,
        key_mgmt_of(message),
        body_digest(message.body, message.headers.get("Content-Type")),
        target=_target(message),
    )
    return Source(identities, call)


def _asserted(request: Request) -> URI:
    """Return who calls: P-Asserted-Identity if it is there, or else From (ATIS-1000074 §5.3.1)."""
    asserted = request.headers.get("P-Asserted-Identity")
    return caller_uri(request) if asserted is None else parse_address(asserted).uri


def _target(request: Request) -> Destinations | None:
    """Return the number in the Request-URI, to which diversions lead; None if it has none (RFC 8946 §4.2)."""
    tn = number_of(request.uri)
    return None if tn is None else Destinations((tn,))


def _to(request: Request) -> URI:
    return parse_address(required_header(request, "To")).uri
