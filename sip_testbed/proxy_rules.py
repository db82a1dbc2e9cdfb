"""Rules that a domain's proxy applies to a request, one function each; a violation raises RequestRefusal."""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from sipmessage import URI, Request, Response

from sip_testbed.proxy_stir import CallFacts
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.names import Tn, ascii_lower
from voice_dpki.sip.digest import Challenge
from voice_dpki.sip.message import parse_address, parse_uri, reason_value, required_header, set_header_values
from voice_dpki.stir.body import body_digest
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kinds import KINDS, UnknownKindError
from voice_dpki.stir.tn import canonical_tn
from voice_dpki.stir.unverified import NO_IDENTITY
from voice_dpki.stir.verdict import Verdict, Verstat, overall
from voice_dpki.wire.sip.invite import date_of, key_mgmt_of, number_of

MAX_DATE_SKEW_S: Final = 60
"""Largest difference between a caller's own Date and our clock (RFC 8224 §4.1)."""
MAX_IDENTITIES_ASKED: Final = 4
"""Most Identity header fields of one call that the service verifies, one after the other."""


class RequestRefusal(PeerError):
    """A request to be refused with `status`; without a phrase, the standard one is used."""

    def __init__(self, status: int, phrase: str | None = None, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(phrase or str(status))
        self.status = status
        self.phrase = phrase
        self.headers = headers


def number_at(uri: URI, domain: str) -> URI:
    """Return the SIP URI for the telephone number of `uri` at `domain` (RFC 3261 §19.1.6).

    Raises MalformedError if `uri` names no number.
    """
    dialled = (uri.user or "").split(";")[0]
    plus = "+" if dialled.startswith("+") else ""
    scheme = "sips" if uri.scheme == "sips" else "sip"
    return parse_uri(f"{scheme}:{plus}{canonical_tn(dialled)}@{domain};user=phone")


def remove_challenges(response: Response, realm: str) -> None:
    """Remove challenges for `realm` from a response that another element sent, and those that cannot be read.

    The realm is this domain's, and only its own proxy may challenge its users. A telephone may find `realm` in a
    challenge that this proxy cannot read, so only those that it can read are passed on.
    """
    for name in ("WWW-Authenticate", "Proxy-Authenticate"):
        kept = [value for value in response.headers.getlist(name) if _is_for_another(value, realm)]
        set_header_values(response, name, kept)


def _is_for_another(challenge: str, realm: str) -> bool:
    try:
        return Challenge.parse(challenge).realm.strip().lower() != realm.lower()
    except MalformedError:
        return False


def assert_identity(message: Request | Response, party: Tn, domain: str, verstat: str | None = None) -> None:
    """Assert the number of the sender, the caller or answering party (RFC 3325 §9.1), and the verdict on it."""
    parameter = f";verstat={verstat}" if verstat else ""
    message.headers.set("P-Asserted-Identity", f"<sip:+{party}{parameter}@{domain};user=phone>")


def date_call(request: Request, now_s: float) -> int:
    """Add Date if the caller sent none, and return its Unix seconds; raises RequestRefusal if it is not current."""
    time_s = date_of(request, now_s)
    if abs(now_s - time_s) > MAX_DATE_SKEW_S:
        raise RequestRefusal(
            403, "Stale Date: the caller's clock is wrong", (reason(403, "the caller's Date is not of now"),)
        )
    if request.headers.get("Date") is None:
        request.headers.set("Date", format_datetime(datetime.fromtimestamp(time_s, UTC), usegmt=True))
    return time_s


def called_number(request: Request) -> Tn:
    """Return the number in To, which the Identity signs (RFC 8224 §4); raises RequestRefusal if there is none."""
    number = number_of(parse_address(required_header(request, "To")).uri)
    if number is None:
        raise RequestRefusal(404, "Not Found: no telephone number is called")
    return number


def call_facts(request: Request, caller: Tn, time_s: int) -> CallFacts:
    """Return the facts of a call that an Identity signs; raises RequestRefusal or MalformedError."""
    sdp = body_digest(request.body, request.headers.get("Content-Type"))
    call_id = required_header(request, "Call-ID")
    return CallFacts(caller, called_number(request), time_s, key_mgmt_of(request), sdp, call_id)


def identities_of(request: Request) -> tuple[Sequence[str], int]:
    """Return the Identity header fields to verify, and how many more there are.

    A call that was diverted five times has six. Those of a kind that can prove the caller's number, and those that
    name no kind, come first.
    """
    identities = sorted(request.headers.getlist("Identity"), key=_proves_nothing)
    asked = identities[:MAX_IDENTITIES_ASKED]
    return asked, len(identities) - len(asked)


def _proves_nothing(identity: str) -> bool:
    try:
        ppt = IdentityHeader.parse(identity).ppt
        return ppt is not None and not KINDS.named(ascii_lower(ppt)).proves_caller
    except (MalformedError, UnknownKindError):
        return True


def reason(status: int, text: str, protocol: str = "STIR") -> tuple[str, str]:
    """Return a Reason header field (RFC 3326; protocol STIR by RFC 9410)."""
    return "Reason", reason_value(protocol, status, text)


def not_asked(count: int) -> Verdict:
    """Return the verdict on the Identity header fields beyond those that are verified."""
    return Verdict(
        Verstat.NONE,
        reasoncode=438,
        reasontext="Invalid Identity Header",
        reasondesc=f"{count} more Identity header fields were not looked at: {MAX_IDENTITIES_ASKED} is the limit.",
        step=NO_IDENTITY.step,
    )


def retargeted() -> Verdict:
    """Return the verdict on a call that was retargeted to another number than To, which the Identity signs."""
    return Verdict(
        Verstat.NONE,
        reasoncode=438,
        reasontext="Invalid Identity Header",
        reasondesc="Request-URI and To name different numbers, and no div PASSporT covers that.",
        step="E16 numbers",
    )


def refusal_of(verdicts: Sequence[Verdict]) -> RequestRefusal:
    """Return the refusal of a call whose caller is not proven, with one Reason for each verdict (RFC 9410)."""
    verdict = overall(verdicts)
    reasons = tuple(reason(v.reasoncode or 438, v.reasondesc or v.reasontext or "not verified") for v in verdicts)
    return RequestRefusal(verdict.reasoncode or 438, verdict.reasontext or None, reasons)
