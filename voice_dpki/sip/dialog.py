"""Dialogs (RFC 3261 §12): the state with which the two ends of a call send each other requests."""

from dataclasses import dataclass
from typing import Final

from sipmessage import URI, Request, Response

from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import (
    Envelope,
    Hop,
    header_values,
    parse_address,
    required_header,
    set_header_values,
    uri_hop,
)

MAX_ROUTES: Final = 32


@dataclass(slots=True)
class Dialog:
    """One end of a dialog.

    `local` and `remote` are From and To values with their tags; `routes` are Route values, the next hop first.
    """

    call_id: str
    local: str
    remote: str
    local_tag: str
    remote_tag: str
    target: URI
    routes: tuple[str, ...]
    local_sequence: int
    remote_sequence: int | None

    def __post_init__(self) -> None:
        self.next_hop()

    @classmethod
    def of_caller(cls, request: Request, response: Response, envelope: Envelope) -> "Dialog":
        """Return the caller's end, made from its INVITE and the response that creates the dialog (§12.1.2).

        Raises MalformedError if the response lacks a To tag, a usable Contact or a next hop.
        """
        if not envelope.to_tag:
            raise MalformedError("a response makes a dialog without a To tag (RFC 3261 §12.1.1)")
        return cls(
            call_id=envelope.call_id,
            local=required_header(request, "From"),
            remote=required_header(response, "To"),
            local_tag=envelope.from_tag,
            remote_tag=envelope.to_tag,
            target=_contact(response, request.uri),
            routes=tuple(reversed(_record_routes(response))),
            local_sequence=envelope.sequence,
            remote_sequence=None,
        )

    @classmethod
    def of_callee(cls, request: Request, envelope: Envelope, to_tag: str) -> "Dialog":
        """Return the callee's end, made from the INVITE and the To tag of its responses (§12.1.1).

        Raises MalformedError if the request lacks a usable Contact or a next hop.
        """
        return cls(
            call_id=envelope.call_id,
            local=f"{required_header(request, 'To')};tag={to_tag}",
            remote=required_header(request, "From"),
            local_tag=to_tag,
            remote_tag=envelope.from_tag,
            target=_contact(request, request.uri),
            routes=_record_routes(request),
            local_sequence=0,
            remote_sequence=envelope.sequence,
        )

    def request(self, method: str, sequence: int | None = None) -> Request:
        """Build the next request in this dialog (§12.2.1.1); an ACK takes the CSeq number of its INVITE."""
        if sequence is None:
            self.local_sequence += 1
            sequence = self.local_sequence
        target, routes = self.target, self.routes
        if routes and "lr" not in parse_address(routes[0]).uri.parameters:  # a strict router comes first
            target, routes = parse_address(routes[0]).uri, (*routes[1:], f"<{self.target}>")
        request = Request(method, target)
        set_header_values(request, "Route", routes)
        request.headers.set("Max-Forwards", "70")
        request.headers.set("From", self.local)
        request.headers.set("To", self.remote)
        request.headers.set("Call-ID", self.call_id)
        request.headers.set("CSeq", f"{sequence} {method}")
        return request

    def next_hop(self) -> Hop:
        """Return the next hop of this dialog's requests; raises MalformedError if it is not a numeric address."""
        uri = parse_address(self.routes[0]).uri if self.routes else self.target
        hop = uri_hop(uri)
        if hop is None:
            raise MalformedError("the dialog's next hop is no numeric SIP address")
        return hop

    def refresh(self, message: Request | Response) -> None:
        """Set the remote target to the Contact, if any, of a re-INVITE or its 2xx (§12.2.1.2, §12.2.2).

        Raises MalformedError, and keeps the target, if the Contact is not usable. The route set does not change.
        """
        if not header_values(message, "Contact"):
            return
        before, self.target = self.target, _contact(message, self.target)
        try:
            self.next_hop()
        except MalformedError:
            self.target = before
            raise

    def accept(self, envelope: Envelope) -> bool:
        """Return whether a request from the other end is in order (§12.2.2); if it is, remember its CSeq."""
        if self.remote_sequence is not None and envelope.sequence <= self.remote_sequence:
            return False
        self.remote_sequence = envelope.sequence
        return True


def _contact(message: Request | Response, called: URI) -> URI:
    contacts = header_values(message, "Contact")
    if len(contacts) != 1:
        raise MalformedError("a dialog needs exactly one Contact (RFC 3261 §12.1)")
    uri = parse_address(contacts[0]).uri
    if uri.scheme not in ("sip", "sips") or (called.scheme == "sips" != uri.scheme):
        raise MalformedError("the Contact is no sip: URI, or no sips: URI in a sips: call (RFC 3261 §12.1)")
    return uri


def _record_routes(message: Request | Response) -> tuple[str, ...]:
    routes = tuple(header_values(message, "Record-Route"))
    if len(routes) > MAX_ROUTES:
        raise MalformedError(f"more than {MAX_ROUTES} Record-Route values")
    for route in routes:
        parse_address(route)
    return routes
