"""The core of a stateful proxy (RFC 3261 §16, RFC 6026 §7.3): it forwards a request to one hop, or forks it.

It checks and forwards requests inside dialogs by itself. A request outside dialogs goes to the owner as an
`Arrival`; the owner answers it with `answer` or sends it on with `forward` or `fork`, now or later. The
Record-Route carries a token over the Call-ID and the tag of the INVITE's sender, so that the proxy relays only
requests of calls that it has admitted. A request without a To tag is a new call, whatever its Route says. If a
telephone is reached on its flow, the Record-Route value for its side carries the flow, too (RFC 5626 §5.1).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sipmessage import URI, Request, Response

from voice_dpki.effects import Random
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.sip.assertions import remove_assertions
from voice_dpki.sip.events import (
    AckReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    Terminated,
    TimedOut,
    TransactionKey,
    TransportBroken,
)
from voice_dpki.sip.forking import MAX_BRANCHES, Branches
from voice_dpki.sip.hop import read_number
from voice_dpki.sip.location import Target
from voice_dpki.sip.message import (
    Envelope,
    Hop,
    copy_request,
    copy_response,
    default_phrase,
    header_values,
    make_response,
    set_header_values,
    uri_hop,
)
from voice_dpki.sip.proxy_routes import ProxyRoutes
from voice_dpki.sip.transaction import TransactionLayer
from voice_dpki.sip.uas import MAX_NAMED
from voice_dpki.sip.via import parse_via

ELSEWHERE: Final = 'SIP;cause=200;text="Call completed elsewhere"'
"""Reason of the CANCEL to telephones that still ring when another one has answered (RFC 3326 §3.1)."""

MAX_FORWARDS: Final = 70
MAX_MAX_FORWARDS: Final = 255

STATELESS: Final = frozenset((400, 401, 403, 404, 405, 407, 416, 420, 428, 480, 481, 482, 483, 501))
"""Statuses of answers that cost nothing to repeat, so that no state is kept (RFC 3261 §16.11, §26.3.2.4)."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request outside any dialog, which the proxy's owner must answer or forward.

    `request` belongs to the transaction; copy it before changing it.
    """

    key: TransactionKey
    request: Request
    envelope: Envelope
    source: Hop


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx to an INVITE, which the proxy's owner may change and must pass on with `pass_answer`."""

    key: TransactionKey
    """Of the INVITE, as in its Arrival."""
    response: Response


@dataclass(frozen=True, slots=True)
class Update:
    """An UPDATE from a called telephone, which the owner may change and must pass on with `pass_update`."""

    key: TransactionKey
    invite: TransactionKey
    """Of the INVITE of its dialog, as in that one's Arrival."""
    request: Request
    target: Target


@dataclass(slots=True)
class _Context:
    """A response context (RFC 3261 §16.2)."""

    method: str
    request: Request | None
    """None once a final response has been sent."""
    transport: str
    """Transport over which the request came."""
    envelope: Envelope
    loop_digest: str
    client: TransactionKey | None = None
    forwarded: bool = False
    """Whether the request was ever sent on, even if `client` is over."""
    authenticated: bool = False
    """Whether the request had credentials that were accepted."""
    cancelled: bool = False
    over_flow: bool = False
    """Whether the request was sent on a telephone's flow, which may be dead."""
    otherwise: Callable[[bool], None] | None = None
    """The owner's callback if no response arrives at all; its argument is that of `ProxyCore.forward`."""
    holds_answer: bool = False
    """Whether the owner passes each 2xx on itself."""
    hops: list[Hop] = field(default_factory=list)
    """The hops to which the request was sent."""
    branches: Branches | None = None
    """The branches of a forked request; None for any other."""

    @property
    def clients(self) -> list[TransactionKey]:
        """The client transactions of the request, without those of branches that are over."""
        if self.branches is not None:
            return list(self.branches.waiting)
        return [self.client] if self.client is not None else []


class _RefusedError(PeerError):
    """A request that the proxy refuses at once (RFC 3261 §16.3)."""

    def __init__(self, status: int, phrase: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(phrase)
        self.status = status
        self.headers = headers


class ProxyCore:
    """The transaction user of a proxy. Its addresses are the layer's: one for UDP and TCP, and one for TLS.

    `resolve` returns the next hop for a Request-URI inside dialogs that names no numeric address. `secret` keys the
    tokens in Record-Route. `change_response`, if given, may change each response on its way back. `on_answer` gets
    method and status of each request's final response. `own_names` are names of this proxy, for instance its
    domain, that a telephone may put into Route instead of the address (RFC 3261 §16.4).
    """

    def __init__(
        self,
        layer: TransactionLayer,
        *,
        secret: bytes,
        random: Random,
        resolve: Callable[[URI], Hop | None] = uri_hop,
        change_response: Callable[[Response], None] | None = None,
        on_answer: Callable[[str, int], None] | None = None,
        own_names: Sequence[str] = (),
    ) -> None:
        self._layer = layer
        self._random = random
        self._change_response = change_response
        self._on_answer = on_answer
        self._routes = ProxyRoutes(layer, secret, resolve, own_names)
        self._contexts: dict[TransactionKey, _Context] = {}
        self._servers: dict[TransactionKey, TransactionKey] = {}
        self._held: dict[tuple[str, str], TransactionKey] = {}
        """The open INVITEs whose answers are held, by Call-ID and tag of the sender."""

    def handle(self, event: Event, now_s: float) -> Arrival | Answer | Update | None:
        """Process an event of the transaction layer; return what the owner must decide on or pass on, if any."""
        match event:
            case RequestReceived():
                return self._request(event, now_s)
            case AckReceived():
                self._ack(event)
            case ResponseReceived():
                return self._response(event, now_s)
            case TimedOut() | TransportBroken():
                self._failed(event, now_s)
            case Terminated():
                context = self._contexts.pop(event.key, None)
                self._servers.pop(event.key, None)
                if context is not None and self._held.get(_sender_of(context.envelope)) == event.key:
                    del self._held[_sender_of(context.envelope)]
        return None

    def answer(
        self,
        key: TransactionKey,
        status: int,
        phrase: str | None,
        now_s: float,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Answer a request with a response of the proxy itself; do nothing if the request is over already.

        No state is kept for an answer that can be repeated: one of STATELESS, or 200 to OPTIONS, to a request that
        was not forwarded and whose credentials were not accepted. Accepted credentials would count as used in a
        retransmission.
        """
        context = self._contexts.get(key)
        if context is None or context.request is None:
            return
        tag = self._layer.stateless_tag(context.envelope)
        response = make_response(context.request, status, phrase, to_tag=tag, headers=headers)
        repeats = status in STATELESS or (context.method, status) == ("OPTIONS", 200)  # §8.2.7: it changes nothing
        keep = not repeats or context.forwarded or context.authenticated
        self._send(key, response, now_s, keep=keep)

    def pass_answer(self, answer: Answer, now_s: float) -> None:
        """Send a held 2xx on to the caller; do nothing if its INVITE is forgotten already."""
        if answer.key in self._contexts:
            self._send(answer.key, answer.response, now_s)

    def pass_update(self, update: Update, now_s: float) -> None:
        """Send a held UPDATE on to its target."""
        hop, fallback = update.target.hop, update.target.fallback
        self.forward(update.key, update.request, hop, now_s, fallback=fallback)

    def authenticated(self, key: TransactionKey) -> None:
        """Record that the credentials of a request were accepted, and are used up."""
        if (context := self._contexts.get(key)) is not None:
            context.authenticated = True

    def forward(
        self,
        key: TransactionKey,
        request: Request,
        hop: Hop,
        now_s: float,
        *,
        fallback: Hop | None = None,
        back: Hop | None = None,
        otherwise: Callable[[bool], None] | None = None,
        holds_answer: bool = False,
    ) -> None:
        """Send `request`, a copy of an Arrival's, to `hop`; do nothing if it was cancelled or answered meanwhile.

        If `hop` is a flow that is gone, the request goes to `fallback`, if given. `back` is the flow of the
        telephone that sent the request, if it is reached on one. If no response comes at all, `otherwise` is
        called and must answer the request or forward it elsewhere; its argument tells whether the hop is known to
        be gone. With `holds_answer`, `handle` returns each 2xx to an INVITE as an Answer instead of sending it on.
        """
        context = self._contexts.get(key)
        if context is None or context.request is None or context.cancelled or context.client is not None:
            return
        if request.uri.scheme == "sips" and hop.transport != "tls":
            self._refuse_downgrade(key, now_s)
            return
        if request.uri.scheme == "sips" and fallback is not None and fallback.transport != "tls":
            fallback = None
        context.over_flow, context.otherwise = hop.flow is not None, otherwise
        context.holds_answer = holds_answer and context.method == "INVITE"
        request = copy_request(request)
        request.headers.set("Max-Forwards", str(max(_forwards(request) - 1, 0)))
        if request.method == "INVITE":
            there, here = (hop.transport, hop), (context.transport, back)
            records = self._routes.records(context.envelope, there, here)
            set_header_values(request, "Record-Route", [*records, *request.headers.getlist("Record-Route")])
        self._layer.send_trying(key, now_s)
        try:
            branch = f"{self._layer.new_branch()}.{context.loop_digest}"
            context.client = self._layer.send_request(request, hop, now_s, branch=branch, fallback=fallback)
        except LocalError:
            self.answer(key, 503, "Service Unavailable: too many transactions", now_s)
        else:
            self._servers[context.client] = key
            context.forwarded = True
            context.hops.append(hop)
            if context.holds_answer:
                self._held[_sender_of(context.envelope)] = key

    def fork(
        self,
        key: TransactionKey,
        targets: Sequence[tuple[Request, Target]],
        now_s: float,
        *,
        back: Hop | None = None,
        holds_answer: bool = False,
    ) -> None:
        """Send an INVITE to several telephones at once, at most MAX_BRANCHES; otherwise as `forward`.

        Each 2xx goes back, and the first one cancels the other branches (§16.7). If there is none, the best final
        response goes back once all branches have one.
        """
        context = self._contexts.get(key)
        if context is None or context.client is not None:
            return
        context.branches = Branches()
        for request, target in targets[:MAX_BRANCHES]:
            context.client = None
            self.forward(
                key, request, target.hop, now_s, fallback=target.fallback, back=back, holds_answer=holds_answer
            )
            if context.client is not None:
                context.branches.open(context.client)
        if context.request is None:  # there was no room for the last one, and the caller has its answer
            self._cancel_all(context.clients, now_s)

    def _cancel_all(self, clients: Sequence[TransactionKey], now_s: float, reasons: Sequence[str] = ()) -> None:
        for client in clients:
            self._layer.cancel(client, now_s, reasons=reasons)

    def _refuse_downgrade(self, key: TransactionKey, now_s: float) -> None:
        """Answer a sips: request whose next hop has no TLS (RFC 5630 §5.3)."""
        warning = ("Warning", f'380 {self._layer.sent_by} "SIPS Not Allowed"')
        self.answer(key, 480, "Temporarily Unavailable: the next hop has no TLS", now_s, (warning,))

    def fail(self, key: TransactionKey, now_s: float) -> None:
        """End the whole request of transaction `key` after an internal error: its sender gets 500."""
        key = self._servers.get(key, key)
        context = self._contexts.get(key)
        if context is not None:
            context.cancelled = True
            for client in context.clients:
                self._layer.give_up(client, now_s)
            context.request = context.otherwise = None
        self._layer.give_up(key, now_s)

    def _send(self, key: TransactionKey, response: Response, now_s: float, *, keep: bool = True) -> None:
        (self._layer.respond if keep else self._layer.refuse)(key, response, now_s)
        context = self._contexts.get(key)
        if response.code >= 200 and context is not None and context.request is not None:
            context.request = None
            if self._on_answer is not None:
                self._on_answer(context.method, response.code)

    # Requests (§16.3, §16.4, §16.10, §16.11).

    def _request(self, event: RequestReceived, now_s: float) -> Arrival | Update | None:
        if event.request.method == "CANCEL":
            self._cancel(event, now_s)
            return None
        loop_digest = _loop_digest(event.request, event.envelope)
        self._contexts[event.key] = _Context(
            event.request.method, event.request, event.source.transport, event.envelope, loop_digest
        )
        try:
            self._check(event.request, loop_digest, event.source.transport)
            request = copy_request(event.request)
            in_dialog, flow = self._routes.take_own(request, event.envelope)
            return self._dispatch(event, request, in_dialog, flow, now_s)
        except _RefusedError as refused:
            self.answer(event.key, refused.status, str(refused), now_s, refused.headers)
        except MalformedError as error:
            self.answer(event.key, 400, f"Bad Request: {error}", now_s)
        return None

    def _dispatch(
        self, event: RequestReceived, request: Request, in_dialog: bool, flow: Hop | None, now_s: float
    ) -> Arrival | Update | None:
        if in_dialog:
            remove_assertions(request)  # nobody verifies them here, and the next hop would believe them
            target = self._routes.next_hop(request, flow)
            if target is None:
                raise _RefusedError(404, "Not Found: the next hop of this dialog is no known address")
            invite = self._held_for(event)
            if invite is not None:
                return Update(event.key, invite, request, target)
            self.forward(event.key, request, target.hop, now_s, fallback=target.fallback)
            return None
        if event.envelope.to_tag:
            raise _RefusedError(481, "Call/Transaction Does Not Exist")
        if header_values(request, "Route"):
            raise _RefusedError(403, "Forbidden: Route names elements beyond this proxy")
        return Arrival(event.key, request, event.envelope, event.source)

    def _held_for(self, event: RequestReceived) -> TransactionKey | None:
        """Return the open INVITE whose called side sends an UPDATE, if its answers are held.

        Anyone who knows the dialog could claim to be that side, so the UPDATE must come from a hop of the INVITE.
        """
        if event.request.method != "UPDATE":
            return None
        invite = self._held.get((event.envelope.call_id, event.envelope.to_tag))
        context = self._contexts.get(invite) if invite else None
        return invite if context and any(event.source.is_from(hop) for hop in context.hops) else None

    def _check(self, request: Request, loop_digest: str, transport: str) -> None:
        if request.uri.scheme not in ("sip", "sips", "tel"):
            raise _RefusedError(416, "Unsupported URI Scheme")
        if request.uri.scheme == "sips" and transport != "tls":
            raise _RefusedError(416, "Unsupported URI Scheme: a sips: URI came without TLS (RFC 5630)")
        if _forwards(request) == 0:
            raise _RefusedError(483, "Too Many Hops")
        if required := header_values(request, "Proxy-Require"):
            raise _RefusedError(420, "Bad Extension", (("Unsupported", ", ".join(required[:MAX_NAMED])),))
        for value in header_values(request, "Via"):
            ours = any(own in value for own in self._routes.addresses)
            if ours and parse_via(value).branch.endswith(f".{loop_digest}"):
                raise _RefusedError(482, "Loop Detected")

    def _ack(self, event: AckReceived) -> None:
        """Forward the ACK of a 2xx response (§16.6); ignore one that has no token of this proxy."""
        request = copy_request(event.request)
        try:
            known, flow = self._routes.take_own(request, event.envelope)
            remove_assertions(request)
            target = self._routes.next_hop(request, flow) if known else None
            if target is None or target.hop.address in self._routes.addresses:
                return
            if request.uri.scheme != "sips" or target.hop.transport == "tls":
                self._layer.send_ack(request, target.hop, target.fallback)
        except MalformedError:
            return

    def _cancel(self, event: RequestReceived, now_s: float) -> None:
        key = self._layer.cancelled_invite(event.envelope)
        context = self._contexts.get(key) if key else None
        tag = self._layer.stateless_tag(event.envelope)
        if key is None or context is None:
            self._layer.refuse(event.key, make_response(event.request, 481, to_tag=tag), now_s)
            return
        self._layer.respond(event.key, make_response(event.request, 200, to_tag=tag), now_s)
        context.cancelled = True
        if context.client is not None:
            self._cancel_all(context.clients, now_s, event.request.headers.getlist("Reason"))
        else:
            self.answer(key, 487, None, now_s)

    # Responses (§16.7, §16.8, §16.9).

    def _response(self, event: ResponseReceived, now_s: float) -> Answer | None:
        server = self._servers.get(event.key)
        context = self._contexts.get(server) if server else None
        if server is None or context is None:
            return None
        context.otherwise = None  # the next hop is alive
        if event.response.code == 100:
            return None
        vias = header_values(event.response, "Via")[1:]
        if not _goes_back(vias, context.envelope):
            if event.response.code >= 200:  # the caller needs a final response, and this one cannot be routed
                text = "Bad Gateway: the next hop's response has lost its way back"
                self._end(server, event.key, 502, text, now_s)
            return None
        if event.response.code == 503:  # the failure is the next hop's, not this proxy's (§16.7 step 6)
            text = "Server Internal Error: the next hop is unavailable"
            self._end(server, event.key, 500, text, now_s)
            return None
        response = copy_response(event.response)
        set_header_values(response, "Via", vias)
        if self._change_response is not None:
            self._change_response(response)
        if context.branches is not None and response.code >= 300:
            self._lose(server, event.key, response, now_s)
            return None
        if context.branches is not None and response.code >= 200:
            self._cancel_all(context.branches.win(event.key), now_s, (ELSEWHERE,))
        if context.holds_answer and 200 <= response.code < 300:
            return Answer(server, response)
        self._send(server, response, now_s)
        return None

    def _end(self, server: TransactionKey, client: TransactionKey, status: int, phrase: str, now_s: float) -> None:
        """Answer a request whose only branch has failed; in a forked one, this is the response of the branch."""
        context = self._contexts[server]
        if context.branches is None:
            self.answer(server, status, phrase, now_s)
            return
        tag = self._layer.stateless_tag(context.envelope)
        if context.request is not None:
            self._lose(server, client, make_response(context.request, status, phrase, to_tag=tag), now_s)

    def _lose(self, server: TransactionKey, client: TransactionKey, response: Response, now_s: float) -> None:
        """Record a final response other than 2xx from a branch of a forked request (§16.7 steps 5 and 6)."""
        branches = self._contexts[server].branches
        assert branches is not None
        best, others = branches.lose(client, response)
        self._cancel_all(others, now_s)
        if best is not None:
            self._send(server, best, now_s)

    def _failed(self, event: TimedOut | TransportBroken, now_s: float) -> None:
        own = self._contexts.get(event.key)
        if own is not None and isinstance(event, TimedOut):
            for client in own.clients:
                self._layer.give_up(client, now_s)  # its answer is no longer needed
        server = self._servers.get(event.key)
        context = self._contexts.get(server) if server else None
        if server is None or context is None:
            return
        if context.cancelled and context.otherwise is not None:
            self.answer(server, 487, None, now_s)
        elif context.otherwise is not None:
            otherwise, context.otherwise, context.client = context.otherwise, None, None
            otherwise(isinstance(event, TransportBroken))
        elif context.over_flow and isinstance(event, TransportBroken):
            self._end(server, event.key, 430, "Flow Failed: the telephone's connection is gone", now_s)
        elif isinstance(event, TransportBroken):
            self._end(server, event.key, 500, "Server Internal Error: the next hop cannot be reached", now_s)
        elif context.method == "INVITE":
            self._end(server, event.key, 408, default_phrase(408), now_s)
        elif context.request is not None:
            self._layer.abandon(server)


def _sender_of(envelope: Envelope) -> tuple[str, str]:
    """Return Call-ID and From tag of an INVITE; the tag is the To tag in requests of the other side."""
    return envelope.call_id, envelope.from_tag


def _loop_digest(request: Request, envelope: Envelope) -> str:
    """Return a digest of the fields that determine where a request goes (RFC 5393 §4.2)."""
    parts = [str(request.uri), envelope.call_id, envelope.from_tag, str(envelope.sequence), request.method]
    return hashlib.sha256("\0".join([*parts, *header_values(request, "Route")]).encode()).hexdigest()[:12]


def _forwards(request: Request) -> int:
    """Return the request's Max-Forwards, or the default if it has none; raises MalformedError."""
    text = request.headers.get("Max-Forwards")
    forwards = MAX_FORWARDS if text is None else read_number(text, MAX_MAX_FORWARDS)
    if forwards is None:
        raise MalformedError(f"Max-Forwards is no number up to {MAX_MAX_FORWARDS}")
    return forwards


def _goes_back(vias: list[str], envelope: Envelope) -> bool:
    """Return whether a response without our own Via names the hop that the request came from (§16.7 step 3)."""
    try:
        via = parse_via(vias[0]) if vias else None
    except MalformedError:
        return False
    return via is not None and (via.branch, via.sent_by) == (envelope.via.branch, envelope.via.sent_by)
