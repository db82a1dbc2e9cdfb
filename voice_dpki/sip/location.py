"""Where a domain's users are: the bindings that REGISTER makes (RFC 3261 §10.3), bounded in number and in time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sipmessage import URI, Request

from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.sip.message import Hop, header_values, parse_address

MIN_EXPIRES_S: Final = 30
DEFAULT_EXPIRES_S: Final = 600
MAX_EXPIRES_S: Final = 3_600
MAX_BINDINGS: Final = 4
"""Contacts one user may have at a time."""


class IntervalTooBriefError(PeerError):
    """A registration for less time than the registrar grants: answered with 423 and Min-Expires."""


class OutOfOrderError(PeerError):
    """A REGISTER of the same Call-ID whose CSeq does not grow (RFC 3261 §10.3 step 7): answered with 500."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One contact of a user, until `expires_s` of the registrar's clock."""

    uri: URI
    expires_s: float
    call_id: str
    sequence: int
    source: Hop
    """Where the REGISTER came from."""


@dataclass(frozen=True, slots=True)
class ExpiryBounds:
    """What a registrar grants, in seconds: less than `least` is refused, more than `most` is cut."""

    least: int = MIN_EXPIRES_S
    default: int = DEFAULT_EXPIRES_S
    most: int = MAX_EXPIRES_S


class Location:
    """The bindings of all users of one domain, by telephone number."""

    def __init__(self, bounds: ExpiryBounds | None = None) -> None:
        self.bounds = bounds or ExpiryBounds()
        self._bindings: dict[str, list[Binding]] = {}

    def find(self, user: str, now_s: float) -> tuple[Binding, ...]:
        """Return the user's bindings that hold at `now_s`, the latest first."""
        live = [binding for binding in self._bindings.get(user, ()) if binding.expires_s > now_s]
        if live:
            self._bindings[user] = live
        else:
            self._bindings.pop(user, None)
        return tuple(live)

    def register(self, user: str, request: Request, call_id: str, sequence: int, source: Hop, now_s: float) -> None:
        """Apply a REGISTER that `user` was authenticated for: all of it, or nothing.

        Raises IntervalTooBriefError, OutOfOrderError, or MalformedError for contacts that cannot be read or are
        more than MAX_BINDINGS.
        """
        bindings = list(self.find(user, now_s))
        for uri, granted_s in self._wanted(request, bindings):
            if any(b.uri == uri and b.call_id == call_id and sequence <= b.sequence for b in bindings):
                raise OutOfOrderError("CSeq does not grow within this Call-ID (RFC 3261 §10.3)")
            bindings = [b for b in bindings if b.uri != uri]
            if granted_s:
                bindings.insert(0, Binding(uri, now_s + granted_s, call_id, sequence, source))
        if len(bindings) > MAX_BINDINGS:
            raise MalformedError(f"more than {MAX_BINDINGS} contacts")
        self._bindings[user] = bindings

    def _wanted(self, request: Request, bindings: Sequence[Binding]) -> list[tuple[URI, int]]:
        """Return each contact of a REGISTER with the seconds to grant it; 0 removes it."""
        contacts = header_values(request, "Contact")
        header = request.headers.get("Expires")
        if contacts == ["*"]:
            if _seconds(header, -1) != 0:
                raise MalformedError("Contact: * needs Expires: 0 (RFC 3261 §10.2.2)")
            return [(binding.uri, 0) for binding in bindings]
        addresses = [parse_address(text) for text in contacts]
        if any(address.uri.scheme != "sip" for address in addresses):
            raise MalformedError("a contact is no sip: URI")
        seconds = [_seconds(a.parameters.get("expires") or header, self.bounds.default) for a in addresses]
        return [(address.uri, self._grant(asked_s)) for address, asked_s in zip(addresses, seconds, strict=True)]

    def _grant(self, asked_s: int) -> int:
        if 0 < asked_s < self.bounds.least:
            raise IntervalTooBriefError(f"a registration lasts at least {self.bounds.least} s here")
        return min(asked_s, self.bounds.most)


def _seconds(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        return default  # RFC 3261 §20.19: a malformed value counts as the default
    return min(int(text[:10]), 2**32 - 1)
