"""The location service of a domain: bindings made by REGISTER (RFC 3261 §10.3), bounded in number and in time.

A telephone that cannot be reached at its contact is called on its flow: the connection, or the address and port,
from which its REGISTER came (RFC 5626). Registrar and proxy are one element here, so no Path is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sipmessage import URI, Address, Request

from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.sip.message import Hop, header_values, parse_address, uri_hop
from voice_dpki.sip.via import parse_via

MIN_EXPIRES_S: Final = 30
DEFAULT_EXPIRES_S: Final = 600
MAX_EXPIRES_S: Final = 3_600
MAX_FLOW_EXPIRES_S: Final = 240
"""Connections are closed after 300 s without a message, so the telephone must register again before that."""
MAX_BINDINGS: Final = 4
"""Most contacts of one user at a time; a new one displaces the oldest."""
MAX_INSTANCE_CHARS: Final = 256

_INSTANCE: Final = "+sip.instance"
_REG_ID: Final = "reg-id"
_ANY_FLOW: Final = 0
"""The flow number of every UDP hop, whose flow is our socket and the hop's address."""


class IntervalTooBriefError(PeerError):
    """A registration for less than the registrar's shortest expiry time: answered with 423 and Min-Expires."""


class OutOfOrderError(PeerError):
    """A REGISTER with the same Call-ID and no higher CSeq (RFC 3261 §10.3 step 7): answered with 500."""


class NoFirstHopError(PeerError):
    """A registration over a flow that does not begin at the telephone (RFC 5626 §6): answered with 439."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request to a telephone goes: `hop`, or `fallback` if that flow is gone."""

    hop: Hop
    fallback: Hop | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """One contact of a user, valid until `expires_s` of the registrar's clock."""

    uri: URI
    expires_s: float
    call_id: str
    sequence: int
    target: Target
    instance: str = ""
    """The telephone's +sip.instance as received, or "" (RFC 5626 §4.1)."""
    reg_id: int = 0
    """Number of this flow among the telephone's, from 1; 0 if it registered without outbound."""

    @property
    def contact(self) -> str:
        """The Contact value for a 200, without the expiry time."""
        flow = f";{_REG_ID}={self.reg_id}" if self.reg_id else ""
        return f"<{self.uri}>" + (f";{_INSTANCE}={self.instance}{flow}" if self.instance else "")

    def is_replaced_by(self, wanted: "_Wanted") -> bool:
        """Return whether a new contact replaces this binding (RFC 3261 §10.3, RFC 5626 §6).

        A telephone that has restarted is recognised by its instance, even if its port and Call-ID are new.
        """
        same_instance = bool(self.instance) and self.instance == wanted.instance
        same_flow = self.reg_id == wanted.reg_id or 0 in (self.reg_id, wanted.reg_id)
        return self.uri == wanted.uri or (same_instance and same_flow)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A contact of a REGISTER, and the time to grant it in seconds; 0 removes it."""

    uri: URI
    granted_s: int
    instance: str = ""
    reg_id: int = 0


@dataclass(frozen=True, slots=True)
class ExpiryBounds:
    """The times that a registrar grants, in seconds: less than `least` is refused, more than `most` is reduced."""

    least: int = MIN_EXPIRES_S
    default: int = DEFAULT_EXPIRES_S
    most: int = MAX_EXPIRES_S


class Location:
    """The bindings of all users of one domain, by telephone number."""

    def __init__(self, bounds: ExpiryBounds | None = None) -> None:
        self.bounds = bounds or ExpiryBounds()
        self._bindings: dict[str, list[Binding]] = {}

    def find(self, user: str, now_s: float) -> tuple[Binding, ...]:
        """Return the user's bindings that are valid at `now_s`, the latest first."""
        live = [binding for binding in self._bindings.get(user, ()) if binding.expires_s > now_s]
        if live:
            self._bindings[user] = live
        else:
            self._bindings.pop(user, None)
        return tuple(live)

    def drop(self, user: str, binding: Binding) -> None:
        """Remove a binding whose flow is dead, unless a new one has replaced it meanwhile."""
        self._bindings[user] = [each for each in self._bindings.get(user, ()) if each is not binding]

    def register(self, user: str, request: Request, call_id: str, sequence: int, source: Hop, now_s: float) -> None:
        """Apply a REGISTER for which `user` was authenticated, as a whole or not at all.

        Raises IntervalTooBriefError, OutOfOrderError, NoFirstHopError, or MalformedError if contacts are malformed
        or more than MAX_BINDINGS.
        """
        bindings = list(self.find(user, now_s))
        most_s = min(self.bounds.most, MAX_FLOW_EXPIRES_S) if source.reliable else self.bounds.most
        for wanted in self._wanted(request, bindings, most_s):
            old = [binding for binding in bindings if binding.is_replaced_by(wanted)]
            if any(each.call_id == call_id and sequence <= each.sequence for each in old):
                raise OutOfOrderError("CSeq does not grow within this Call-ID (RFC 3261 §10.3)")
            bindings = [binding for binding in bindings if binding not in old]
            if wanted.granted_s:
                flow_only = wanted.reg_id > 0
                bindings.insert(
                    0,
                    Binding(
                        wanted.uri,
                        now_s + wanted.granted_s,
                        call_id,
                        sequence,
                        target_of(request, wanted.uri, source, flow_only=flow_only),
                        wanted.instance,
                        wanted.reg_id,
                    ),
                )
        self._bindings[user] = bindings[:MAX_BINDINGS]

    def _wanted(self, request: Request, bindings: Sequence[Binding], most_s: int) -> list[_Wanted]:
        """Return the contacts that a REGISTER sets or removes, each granted at most `most_s` seconds."""
        contacts = header_values(request, "Contact")
        header = request.headers.get("Expires")
        if contacts == ["*"]:
            if _seconds(header, -1) != 0:
                raise MalformedError("Contact: * needs Expires: 0 (RFC 3261 §10.2.2)")
            return [_Wanted(binding.uri, 0) for binding in bindings]
        addresses = [parse_address(text) for text in contacts]
        if len(addresses) > MAX_BINDINGS:
            raise MalformedError(f"more than {MAX_BINDINGS} contacts")
        if any(address.uri.scheme not in ("sip", "sips") for address in addresses):
            raise MalformedError("a contact is no sip: URI")
        wanted = [self._read(request, address, header, most_s) for address in addresses]
        if len([each for each in wanted if each.granted_s]) > 1 and any(each.reg_id for each in wanted):
            raise MalformedError("a contact with reg-id is registered alone (RFC 5626 §6)")
        return wanted

    def _read(self, request: Request, address: Address, expires: str | None, most_s: int) -> _Wanted:
        asked_s = _seconds(address.parameters.get("expires") or expires, self.bounds.default)
        granted_s = min(self._grant(asked_s), most_s)
        instance = address.parameters.get(_INSTANCE) or ""
        if len(instance) > MAX_INSTANCE_CHARS:
            raise MalformedError(f"+sip.instance is longer than {MAX_INSTANCE_CHARS} characters")
        reg_id = _seconds(address.parameters.get(_REG_ID), 0) if instance else 0
        if reg_id and len(header_values(request, "Via")) > 1:
            if supports_outbound(request):
                raise NoFirstHopError("the telephone's first hop is another proxy, without outbound (RFC 5626 §6)")
            reg_id = 0
        return _Wanted(address.uri, granted_s, instance, reg_id)

    def _grant(self, asked_s: int) -> int:
        if 0 < asked_s < self.bounds.least:
            raise IntervalTooBriefError(f"a registration lasts at least {self.bounds.least} s here")
        return min(asked_s, self.bounds.most)


def supports_outbound(request: Request) -> bool:
    """Return whether the sender says that it supports registration over flows (RFC 5626 §4.2.1)."""
    return "outbound" in (value.lower() for value in header_values(request, "Supported"))


def target_of(request: Request, contact: URI, source: Hop, *, flow_only: bool = False) -> Target:
    """Return where requests to `contact` go; it came in `request`, directly from `source`.

    They take the flow of the request if `flow_only` is set, if the flow is a connection, or if the contact differs
    from the telephone's source address, which means that there is a NAT in between. A different UDP port means a
    NAT only if the telephone asked for answers at its source port (`rport`, RFC 3581): other telephones send from
    one port and listen at another.
    """
    named = uri_hop(contact)
    flow = replace(source, flow=source.flow or _ANY_FLOW)
    if flow_only:
        return Target(flow)
    if source.reliable:
        return Target(flow, named if named is not None and named.transport == source.transport else None)
    if named is None or named.host != source.host:
        return Target(flow)
    if named.transport != source.transport:
        return Target(named)
    sends_as_it_listens = parse_via(header_values(request, "Via")[0]).asks_port
    return Target(flow) if sends_as_it_listens and named.port != source.port else Target(named)


def _seconds(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        return default  # RFC 3261 §20.19: a malformed value counts as the default
    return min(int(text[:10]), 2**32 - 1)
