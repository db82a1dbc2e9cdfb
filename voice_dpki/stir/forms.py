"""The forms of the HTTP interface to the STIR services, and the choice of a request's form.

All forms have the same paths. The first one of `FORMS` that recognises a request reads and answers it, and errors
have its form, too; the last one takes whatever is left. A further form is a module like `ms`, and a row here.
Errors found before a request is read, such as a missing bearer token, have the form of ATIS-1000082
(docs/adr/0032).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from msgspec import Struct

from voice_dpki.names import ascii_lower
from voice_dpki.stir import atis, ms, ms_answers
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.faults import ErrorAnswer, RequestError
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kinds import KINDS, Kinds
from voice_dpki.stir.members import Meanings, Members, decode
from voice_dpki.stir.national import AmbiguousError, Country, with_international
from voice_dpki.stir.verdict import Verdict, overall

SIGNING_PATH = "/stir/v1/signing"
VERIFICATION_PATH = "/stir/v1/verification"
MEDIA_TYPE = "application/json"
SIP_PATH = "/sip"
"""Appended to the path of an operation, whose request is then the INVITE itself as text."""
SIP_MEDIA_TYPES: Final = ("message/sip", "application/sip", "text/plain")
"""Types of an INVITE's text; the first one is the registered one (RFC 3261 §27.5)."""

_W = TypeVar("_W")
_A = TypeVar("_A")

Read = tuple[_W, Callable[[_A], bytes]]
"""What a request asks for, and how to encode the answer."""
WriteError = Callable[[RequestError], bytes]


@dataclass(frozen=True, slots=True)
class Bodies:
    """The bodies of one operation, for documents."""

    body: type[Struct]
    request: type[Struct]
    """The object in the body that holds the request's members."""
    meanings: Meanings
    answer: type[Struct]
    marks: Sequence[str] = ()
    """Members that only requests of this form have."""


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the interface."""

    name: str
    standard: str
    signs: Callable[[Members], bool]
    """Whether a decoded signing request is of this form."""
    verifies: Callable[[Members], bool]
    """Whether a decoded verification request is of this form."""
    read_signing: Callable[[Members, Kinds, str], Read[SigningRequest, IdentityHeader]]
    """Takes the name of the client too."""
    read_verification: Callable[[Members, str], Read[Call, Sequence[Verdict]]]
    """Takes the name of the client too. Its answer takes the verdicts on the call's Identities, in their order."""
    write_error: WriteError
    bodies: Mapping[str, Bodies]
    """By operation, "signing" and "verification"."""
    error: type[Struct]


@dataclass(frozen=True, slots=True)
class Asked(Generic[_W, _A]):
    """A request that was read."""

    what: _W
    answer: Callable[[_A], bytes]
    """Encodes the answer in the form of the request."""
    write_error: WriteError

    def refused(self, error: RequestError) -> RequestError:
        """Return an error with a body in the form of the request."""
        return error.written_by(self.write_error)


def _ms_signing(body: Members, kinds: Kinds, peer: str) -> Read[SigningRequest, IdentityHeader]:
    request, request_id = ms.parse_signing_request(body, kinds, peer)
    return request, lambda identity: ms_answers.signing_response(identity, request_id)


def _ms_verification(body: Members, peer: str) -> Read[Call, Sequence[Verdict]]:
    call, given = ms.parse_verification_request(body, peer)
    return call, lambda verdicts: ms_answers.verification_response(call, verdicts, given)


def _atis_signing(body: Members, kinds: Kinds, peer: str) -> Read[SigningRequest, IdentityHeader]:
    return atis.parse_signing_request(body, kinds, peer), atis.signing_response


def _atis_verification(body: Members, peer: str) -> Read[Call, Sequence[Verdict]]:
    return atis.parse_verification_request(body, peer), _atis_verdict


def _atis_verdict(verdicts: Sequence[Verdict]) -> bytes:
    return atis.verification_response(overall(verdicts))


def _whatever(_body: Members) -> bool:
    return True


MS: Final = Form(
    name="3gpp",
    standard="3GPP TS 24.229 Annex V",
    signs=ms.is_signing,
    verifies=ms.is_verification,
    read_signing=_ms_signing,
    read_verification=_ms_verification,
    write_error=ms_answers.error_body,
    bodies={
        "signing": Bodies(
            ms.SigningBodyMs, ms.SigningRequestMs, ms.SIGNING_MEANINGS, ms_answers.SigningAnswerMs, ms.SIGNING_MARKS
        ),
        "verification": Bodies(
            ms.VerificationBodyMs,
            ms.VerificationRequestMs,
            ms.VERIFICATION_MEANINGS,
            ms_answers.VerificationAnswerMs,
            ms.VERIFICATION_MARKS,
        ),
    },
    error=ms_answers.ErrorAnswerMs,
)
ATIS: Final = Form(
    name="atis",
    standard="ATIS-1000082",
    signs=_whatever,
    verifies=_whatever,
    read_signing=_atis_signing,
    read_verification=_atis_verification,
    write_error=RequestError.exception,
    bodies={
        "signing": Bodies(
            atis.SigningBodyAtis, atis.SigningRequestAtis, atis.SIGNING_MEANINGS, atis.SigningAnswerAtis
        ),
        "verification": Bodies(
            atis.VerificationBodyAtis,
            atis.VerificationRequestAtis,
            atis.VERIFICATION_MEANINGS,
            atis.VerificationAnswerAtis,
        ),
    },
    error=ErrorAnswer,
)
FORMS: Final = (MS, ATIS)


def read_signing(
    body: bytes, kinds: Kinds = KINDS, peer: str = "", country: Country | None = None
) -> Asked[SigningRequest, IdentityHeader]:
    """Read the body of a signing request of the client `peer` for one of `kinds`.

    Raises RequestError in the form of the request.
    """
    members = decode(body)
    form = next(form for form in FORMS if form.signs(members))
    return _asked(form, lambda: form.read_signing(_international(members, country), kinds, peer))


def read_verification(
    body: bytes, peer: str = "", country: Country | None = None
) -> Asked[Call, Sequence[Verdict]]:
    """Read the body of a verification request of the client `peer`; raises RequestError in its form.

    Numbers are read by the dialling plan of `country` (`voice_dpki.stir.national`), or as E.164 if it is None.
    """
    members = decode(body)
    form = next(form for form in FORMS if form.verifies(members))
    return _asked(form, lambda: form.read_verification(_international(members, country), peer))


def _international(members: Members, country: Country | None) -> Members:
    if country is None:
        return members
    try:
        return with_international(members, country)
    except AmbiguousError as error:
        raise RequestError("SVC4005", error.place, str(error)) from None


def _asked(form: Form, read: Callable[[], Read[_W, _A]]) -> Asked[_W, _A]:
    try:
        what, answer = read()
    except RequestError as error:
        raise error.written_by(form.write_error) from None
    return Asked(what, answer, form.write_error)


def check_headers(headers: Mapping[str, str], media_types: Sequence[str] = (MEDIA_TYPE,)) -> str:
    """Check Content-Length, Content-Type and Accept; names are in lower case. Raises RequestError.

    Returns the body's type, one of `media_types`, which the answer has too.
    """
    if "content-length" not in headers:
        raise RequestError("SVC4007")
    given = ascii_lower(headers.get("content-type", "").partition(";")[0].strip())
    if given not in media_types:
        raise RequestError("SVC4004", media_types[0])
    if not any(_admits(part, given) for part in headers.get("accept", "*/*").split(",")):
        raise RequestError("SVC4002", given)
    return given


def _admits(media_range: str, media_type: str) -> bool:
    """Tell whether one range of Accept admits a type (RFC 9110 §12.5.1)."""
    kind, *parameters = (ascii_lower(part.strip()) for part in media_range.split(";"))
    refused = any(
        name == "q" and value.strip("0.") == "" for name, _, value in (p.partition("=") for p in parameters)
    )
    return kind in (media_type, f"{media_type.partition('/')[0]}/*", "*/*") and not refused
