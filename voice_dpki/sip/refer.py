"""Call transfer beside dialogs: Refer-To (RFC 3515), Replaces (RFC 3891), Referred-By (RFC 3892), sipfrag.

In a Refer-To, Replaces is an escaped header of the URI (RFC 3261 §19.1.1):

    Refer-To: <sip:+493023125002@a.example?Replaces=12%40host%3Bto-tag%3D7743%3Bfrom-tag%3D6472>

The body of a NOTIFY is the status line of the response to the new call, as message/sipfrag (RFC 3420).
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from sipmessage import Request

from voice_dpki.codec.telephone import is_same_party
from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import MAX_ADDRESS_CHARS, default_phrase, header_values, parse_address, parse_uri

FRAGMENT: Final = "message/sipfrag"
EVENT: Final = "refer"
REPLACES: Final = "replaces"
"""The option tag of RFC 3891."""

MAX_FRAGMENT_BYTES: Final = 4_096
"""Longest body of a NOTIFY that is read; only its status line is used."""

_WORD: Final = r"[A-Za-z0-9.!%*_+`'~()<>:\\\"/\[\]?{}-]{1,256}"
_CALL_ID: Final = re.compile(rf"{_WORD}(@{_WORD})?\Z")
_TAG: Final = re.compile(r"[A-Za-z0-9.!%*_+`'~-]{1,256}\Z")
_STATUS_LINE: Final = re.compile(rb"SIP/2\.0 ([1-6][0-9][0-9]) [^\r\n]{0,256}(\r\n|\Z)")
_EVENT: Final = re.compile(r"refer[ \t]*(;.*)?\Z")
_SHORT: Final = {"Refer-To": "r", "Referred-By": "b", "Event": "o"}
"""Short forms of the header fields (RFC 3515 §2.1, RFC 3892 §2.1, RFC 6665 §8.4)."""


@dataclass(frozen=True, slots=True)
class Replaces:
    """The dialog that a call is to replace, as seen by the end that receives this (RFC 3891 §6.1)."""

    call_id: str
    to_tag: str
    """The receiving end's own tag."""
    from_tag: str
    early_only: bool = False
    """Whether the dialog is to be replaced only while it is early."""

    @classmethod
    def parse(cls, value: str) -> "Replaces":
        """Parse a value; raises MalformedError."""
        if len(value) > MAX_ADDRESS_CHARS:
            raise MalformedError(f"Replaces is longer than {MAX_ADDRESS_CHARS} characters")
        call_id, *fields = (field.strip(" \t") for field in value.split(";"))
        pairs = [field.partition("=") for field in fields]
        given = {name.strip(" \t").lower(): text.strip(" \t") for name, _, text in pairs}
        tags = given.get("to-tag", ""), given.get("from-tag", "")
        if len(given) < len(fields) or not _CALL_ID.match(call_id) or not all(map(_TAG.match, tags)):
            raise MalformedError("Replaces is no Call-ID with to-tag and from-tag, each once (RFC 3891 §6.1)")
        return cls(call_id, *tags, "early-only" in given)

    def serialize(self) -> str:
        """Return the value."""
        early = ";early-only" if self.early_only else ""
        return f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}{early}"


@dataclass(frozen=True, slots=True)
class ReferTo:
    """The party to call, and the dialog to replace, if any."""

    target: str
    """A URI without headers."""
    replaces: Replaces | None = None

    @classmethod
    def parse(cls, value: str) -> "ReferTo":
        """Parse a value; raises MalformedError.

        It can only ask for a call, and the URI can only have the headers Replaces and Require: with any other, the
        peer would choose header fields of our request (RFC 3261 §19.1.5). Require is ignored, because we require
        what we need.
        """
        plain, headers = _without_headers(value)
        uri = parse_address(plain).uri
        if (uri.parameters.get("method") or "INVITE").upper() != "INVITE":
            raise MalformedError("Refer-To asks for something else than a call")
        if uri.scheme not in ("sip", "sips", "tel") or not uri.user:
            raise MalformedError("Refer-To names nobody who can be called")
        pairs = [field.partition("=") for field in headers.split("&") if headers]
        named = {name.lower(): unquote(text) for name, _, text in pairs}
        if len(named) < len(pairs) or not named.keys() <= {"replaces", "require"}:
            raise MalformedError("Refer-To has headers other than Replaces, or one twice")
        replaces = named.get("replaces")
        bare = re.sub(r";method=[A-Za-z]+", "", str(uri), flags=re.IGNORECASE | re.ASCII)
        return cls(str(parse_uri(bare)), None if replaces is None else Replaces.parse(replaces))

    def serialize(self) -> str:
        """Return the value."""
        headers = f"?Replaces={quote(self.replaces.serialize(), safe='')}" if self.replaces else ""
        return f"<{self.target}{headers}>"


def refer_to(request: Request) -> ReferTo:
    """Return the one Refer-To of a REFER (RFC 3515 §2.4.2); raises MalformedError."""
    values = _values(request, "Refer-To")
    if len(values) != 1:
        raise MalformedError("a REFER has exactly one Refer-To (RFC 3515 §2.4.2)")
    return ReferTo.parse(values[0])


def referred_by(request: Request) -> str | None:
    """Return the unverified URI of the party that asked for a call (RFC 3892), if any; raises MalformedError."""
    values = _values(request, "Referred-By")
    if len(values) > 1:
        raise MalformedError("more than one Referred-By (RFC 3892 §2.1)")
    return str(parse_address(values[0]).uri) if values else None


def is_referred_by(request: Request, uri: str) -> bool:
    """Return whether the Referred-By of a request names the party `uri`; raises MalformedError."""
    referrer = referred_by(request)
    return referrer is not None and is_same_party(referrer, uri)


def replaces_in(request: Request) -> Replaces | None:
    """Return the dialog that an INVITE is to replace, if any; raises MalformedError (RFC 3891 §3)."""
    values = header_values(request, "Replaces")
    if len(values) > 1:
        raise MalformedError("more than one Replaces (RFC 3891 §3)")
    return Replaces.parse(values[0]) if values else None


def event_id(request: Request) -> int | None:
    """Return the number of the REFER that a NOTIFY is about; None if it has none, as for a dialog's first (§2.4.6).

    Raises MalformedError for a NOTIFY of another event.
    """
    values = _values(request, "Event")
    if len(values) != 1 or not _EVENT.match(values[0].lower()):
        raise MalformedError("a NOTIFY within a call is about a REFER")
    found = re.search(r";[ \t]*id[ \t]*=[ \t]*([0-9]{1,10})[ \t]*(;|\Z)", values[0])
    return int(found[1]) if found else None


def is_over(request: Request) -> bool:
    """Return whether a NOTIFY is the last one (RFC 6665 §4.1.3)."""
    return (request.headers.get("Subscription-State") or "").split(";")[0].strip().lower() == "terminated"


def fragment_of(status: int) -> bytes:
    """Return the body of a NOTIFY, the status line of a response (RFC 3515 §2.4.5)."""
    return f"SIP/2.0 {status} {default_phrase(status)}\r\n".encode("ascii")


def status_told(body: bytes) -> int:
    """Return the status in the body of a NOTIFY; raises MalformedError. Header fields after it are not read."""
    found = _STATUS_LINE.match(body) if len(body) <= MAX_FRAGMENT_BYTES else None
    if found is None:
        raise MalformedError(f"a NOTIFY without a status line within {MAX_FRAGMENT_BYTES} bytes (RFC 3515 §2.4.5)")
    return int(found[1])


def _without_headers(value: str) -> tuple[str, str]:
    """Split an address into one without the headers of its URI, and these headers; raises MalformedError."""
    if len(value) > MAX_ADDRESS_CHARS:
        raise MalformedError(f"an address is longer than {MAX_ADDRESS_CHARS} characters")
    found = re.match(r"([^<>]*<[^<>?]*)\?([^<>? ]*)(>.*)\Z", value)
    return (found[1] + found[3], found[2]) if found else (value, "")


def _values(request: Request, name: str) -> list[str]:
    return [*header_values(request, name), *header_values(request, _SHORT[name])]
