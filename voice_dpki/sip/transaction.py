"""The transaction layer (RFC 3261 §17, RFC 6026): which message belongs to which exchange, and retransmission.

A core: it is given bytes and the time in seconds of a clock that never goes back, and leaves events for the
transaction user in `take_events` and messages in `take_output`. After any call the owner empties both, and calls
`handle_timer` once `next_timer` has come.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final, NewType, TypeAlias

from sipmessage import Request, Response

from voice_dpki.effects import Random
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.sip.machines import (
    CLIENT,
    INVITE_CLIENT,
    INVITE_SERVER,
    SERVER,
    Action,
    Input,
    Machine,
    State,
    Timers,
)
from voice_dpki.sip.message import (
    MAGIC_COOKIE,
    Envelope,
    Hop,
    copy_request,
    encode,
    header_values,
    make_response,
    mark_received,
    parse_message,
    parse_via,
    read_envelope,
    required_header,
    response_hop,
    set_header_values,
)

MAX_TRANSACTIONS: Final = 65_536
UDP_MAX_BYTES: Final = 1_300
"""Largest request sent over UDP where the path's MTU is unknown (RFC 3261 §18.1.1)."""

TransactionKey = NewType("TransactionKey", str)
"""Identifies a transaction (RFC 3261 §17.1.3, §17.2.3)."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send to `hop`; over TCP, on the open connection to it if there is one.

    `fallback` is where a response goes when the connection that brought the request is gone, and a request when the
    flow of its hop is.
    """

    hop: Hop
    data: bytes
    key: TransactionKey | None
    fallback: Hop | None = None


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A new request other than ACK; the transaction user must answer it with `respond`."""

    key: TransactionKey
    request: Request
    envelope: Envelope
    source: Hop


@dataclass(frozen=True, slots=True)
class AckReceived:
    """An ACK for a 2xx response, which belongs to no transaction (RFC 3261 §17)."""

    request: Request
    envelope: Envelope
    source: Hop


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """A response to a request that was sent."""

    key: TransactionKey
    response: Response
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class TimedOut:
    """No answer came in time: to a request, or (server) no ACK for the final response."""

    key: TransactionKey


@dataclass(frozen=True, slots=True)
class TransportBroken:
    """A message of this transaction could not be sent."""

    key: TransactionKey


@dataclass(frozen=True, slots=True)
class Terminated:
    """The transaction is over and forgotten."""

    key: TransactionKey


Event: TypeAlias = RequestReceived | AckReceived | ResponseReceived | TimedOut | TransportBroken | Terminated


@dataclass(slots=True)
class _Transaction:
    key: TransactionKey
    machine: Machine
    hop: Hop
    branch: str
    sequence: int
    request: Request | None
    """None once nothing can be built from it any more: an answered transaction lingers, and may be one of many."""
    wire: bytes = b""
    """What is sent again: a client's request or its ACK, a server's latest response."""
    fallback: Hop | None = None
    state: State = State.TERMINATED
    timers: dict[Input, float] = field(default_factory=dict)
    interval_s: float = 0.0
    cancelling: bool = False
    reasons: tuple[str, ...] = ()
    quiet: bool = False
    """Whether the transaction user is told nothing: a CANCEL that the layer sends itself."""
    plain_hop: Hop | None = None
    """The UDP hop that was meant, when only size made it TCP (RFC 3261 §18.1.1)."""

    @property
    def is_unanswered(self) -> bool:
        """Whether this is a request that was sent and has had no response at all."""
        return self.state in (State.CALLING, State.TRYING) and self.machine in (INVITE_CLIENT, CLIENT)


@dataclass(slots=True)
class Counters:
    """What was refused without a transaction, for metrics."""

    malformed: int = 0
    stray_responses: int = 0
    overload: int = 0


def input_of(status: int) -> Input:
    """Return the input that a response with `status` is."""
    if status < 200:
        return Input.PROVISIONAL
    return Input.SUCCESS if status < 300 else Input.FAILURE


class TransactionLayer:
    """All transactions of one element at one address.

    `sent_by` is "host:port" for its Via; `udp_max_bytes` is the size over which a request goes over TCP although
    UDP was asked for.
    """

    def __init__(
        self,
        sent_by: str,
        *,
        random: Random,
        timers: Timers | None = None,
        udp_max_bytes: int = UDP_MAX_BYTES,
        max_transactions: int = MAX_TRANSACTIONS,
    ) -> None:
        self.sent_by = sent_by
        self.counters = Counters()
        self._random = random
        self._timers = timers or Timers()
        self._udp_max_bytes = udp_max_bytes
        self._max_transactions = max_transactions
        self._transactions: dict[TransactionKey, _Transaction] = {}
        self._due: list[tuple[float, int, TransactionKey, Input]] = []
        self._order = count()
        self._events: list[Event] = []
        self._output: list[Outgoing] = []

    def __len__(self) -> int:
        return len(self._transactions)

    # What the owner does: give bytes and time, take events and messages.

    def take_events(self) -> list[Event]:
        """Return what happened since the last call."""
        events, self._events = self._events, []
        return events

    def take_output(self) -> list[Outgoing]:
        """Return the messages to send since the last call."""
        output, self._output = self._output, []
        return output

    def next_timer(self) -> float | None:
        """Return when `handle_timer` must be called next, or None."""
        while self._due:
            due_s, _, key, name = self._due[0]
            transaction = self._transactions.get(key)
            if transaction is not None and transaction.timers.get(name) == due_s:
                return due_s
            heapq.heappop(self._due)
        return None

    def handle_timer(self, now_s: float) -> None:
        """Fire every timer that is due at `now_s`."""
        while (due_s := self.next_timer()) is not None and due_s <= now_s:
            _, _, key, name = heapq.heappop(self._due)
            transaction = self._transactions[key]
            del transaction.timers[name]
            self._feed(transaction, name, now_s)

    def receive(self, data: bytes, source: Hop, now_s: float) -> None:
        """Take in one message. What cannot be understood is counted, and answered with 400 where possible."""
        try:
            message = parse_message(data)
        except MalformedError:
            self.counters.malformed += 1
            return
        try:
            envelope = read_envelope(message)
            if isinstance(message, Response):
                self._receive_response(message, envelope, now_s)
            else:
                mark_received(message, source)
                self._receive_request(message, envelope, source, now_s)
        except MalformedError as error:
            self.counters.malformed += 1
            if isinstance(message, Request) and message.method != "ACK":
                self._refuse(message, source, 400, f"Bad Request: {error}")

    def transport_failed(self, key: TransactionKey, now_s: float) -> None:
        """Tell the transaction that its latest message could not be sent.

        A request that went over TCP only for its size is sent over UDP after all (RFC 3261 §18.1.1).
        """
        transaction = self._transactions.get(key)
        if transaction is None:
            return
        if transaction.plain_hop is not None and transaction.state in (State.CALLING, State.TRYING):
            self._address(transaction, transaction.plain_hop)
            transaction.plain_hop = None
            self._enter(transaction, now_s)
            self._send(transaction)
        else:
            self._feed(transaction, Input.BROKEN, now_s)

    # What the transaction user does: send requests, answer them, cancel.

    def new_branch(self) -> str:
        """Return a branch that no other request has (RFC 3261 §8.1.1.7)."""
        return MAGIC_COOKIE + self._random.token(10).hex()

    def send_request(
        self,
        request: Request,
        hop: Hop,
        now_s: float,
        *,
        branch: str | None = None,
        fallback: Hop | None = None,
    ) -> TransactionKey:
        """Send `request` (not an ACK) in a transaction of its own; a Via is put on top of those it has.

        Where `hop` is a flow that is gone, it goes to `fallback`, if there is one, over the same transport.
        Raises LocalError where the layer holds all the transactions that it may.
        """
        if len(self._transactions) >= self._max_transactions:
            raise LocalError(f"{self._max_transactions} SIP transactions are open, which is the limit")
        branch = branch or self.new_branch()
        request = copy_request(request)
        vias = header_values(request, "Via")
        set_header_values(request, "Via", [self._via(hop, branch), *vias])
        sequence = read_envelope(request).sequence
        transaction = self._client(request, hop, branch, sequence)
        transaction.fallback = fallback
        self._address(transaction, hop)
        if hop.transport == "udp" and hop.flow is None and len(transaction.wire) > self._udp_max_bytes:
            transaction.plain_hop = hop
            self._address(transaction, replace(hop, transport="tcp"))
        self._open(transaction, now_s)
        self._send(transaction)
        return transaction.key

    def _client(self, request: Request, hop: Hop, branch: str, sequence: int) -> _Transaction:
        machine = INVITE_CLIENT if request.method == "INVITE" else CLIENT
        return _Transaction(_client_key(branch, request.method), machine, hop, branch, sequence, request)

    def send_ack(self, request: Request, hop: Hop, fallback: Hop | None = None) -> None:
        """Send an ACK for a 2xx response: outside any transaction (RFC 3261 §13.2.2.4)."""
        request = copy_request(request)
        set_header_values(request, "Via", [self._via(hop, self.new_branch()), *request.headers.getlist("Via")])
        self._output.append(Outgoing(hop, encode(request), None, fallback))

    def respond(self, key: TransactionKey, response: Response, now_s: float) -> None:
        """Answer a request. Ignored where the transaction is over or has had its final response."""
        transaction = self._transactions.get(key)
        step = input_of(response.code)
        if transaction is None or (transaction.state, step) not in transaction.machine.table:
            return
        transaction.wire = encode(response)
        self._feed(transaction, step, now_s)

    def cancel(self, key: TransactionKey, now_s: float, *, reasons: Sequence[str] = ()) -> None:
        """Cancel an INVITE that was sent, as soon as RFC 3261 §9.1 allows: after a provisional response.

        `reasons` are the CANCEL's Reason values (RFC 3326).
        """
        transaction = self._transactions.get(key)
        if transaction is None or transaction.machine is not INVITE_CLIENT or transaction.cancelling:
            return
        transaction.cancelling = True
        transaction.reasons = tuple(reasons)
        if transaction.state is State.PROCEEDING:
            self._send_cancel(transaction, None, now_s)

    def abandon(self, key: TransactionKey) -> None:
        """Forget a request without an answer, where RFC 4320 §4.2 forbids to send a late one."""
        transaction = self._transactions.get(key)
        if transaction is not None:
            self._forget(transaction)

    def cancelled_invite(self, envelope: Envelope) -> TransactionKey | None:
        """Return the INVITE that a received CANCEL is about (RFC 3261 §9.2), or None."""
        key = _server_key(envelope, "INVITE")
        return key if key in self._transactions else None

    # Receiving.

    def _receive_response(self, response: Response, envelope: Envelope, now_s: float) -> None:
        transaction = self._transactions.get(_client_key(envelope.via.branch, envelope.method))
        if transaction is None or envelope.via.sent_by != self.sent_by:
            self.counters.stray_responses += 1
            return
        self._feed(transaction, input_of(response.code), now_s, (response, envelope))

    def _receive_request(self, request: Request, envelope: Envelope, source: Hop, now_s: float) -> None:
        is_ack = request.method == "ACK"
        key = _server_key(envelope, "INVITE" if is_ack else request.method)
        transaction = self._transactions.get(key)
        if transaction is not None:
            self._feed(transaction, Input.ACK if is_ack else Input.REQUEST, now_s, (request, envelope))
        elif is_ack:
            self._events.append(AckReceived(request, envelope, source))
        elif len(self._transactions) >= self._max_transactions:
            self.counters.overload += 1
            self._refuse(request, source, 503, "Service Unavailable: too many transactions")
        else:
            self._accept(key, request, envelope, source, now_s)

    def _accept(self, key: TransactionKey, request: Request, envelope: Envelope, source: Hop, now_s: float) -> None:
        machine = INVITE_SERVER if request.method == "INVITE" else SERVER
        via = parse_via(header_values(request, "Via")[0])
        back = response_hop(via, source.transport)
        hop, fallback = (source, back) if source.reliable else (back, None)
        transaction = _Transaction(
            key, machine, hop, envelope.via.branch, envelope.sequence, request, fallback=fallback
        )
        self._open(transaction, now_s)
        if machine is INVITE_SERVER:
            self._arm(transaction, Input.TRYING_DUE, self._timers.trying_after_s, now_s)
            if self._timers.trying_after_s <= 0:
                self.handle_timer(now_s)
        self._events.append(RequestReceived(key, request, envelope, source))

    def _refuse(self, request: Request, source: Hop, status: int, phrase: str) -> None:
        """Answer without a transaction, if the request says enough to be answered."""
        try:
            via = parse_via(header_values(request, "Via")[0])
            hop = source if source.reliable else response_hop(via, "udp")
            response = make_response(request, status, phrase, to_tag=self._random.token(6).hex())
        except (MalformedError, IndexError):
            return
        self._output.append(Outgoing(hop, encode(response), None))

    # Moving one transaction.

    def _open(self, transaction: _Transaction, now_s: float) -> None:
        self._transactions[transaction.key] = transaction
        transaction.state = transaction.machine.start
        self._enter(transaction, now_s)

    def _feed(
        self,
        transaction: _Transaction,
        what: Input,
        now_s: float,
        message: tuple[Request | Response, Envelope] | None = None,
    ) -> None:
        step = transaction.machine.table.get((transaction.state, what))
        if step is None:
            return
        before = transaction.state
        transaction.state, actions = step
        if transaction.state is not before:
            self._enter(transaction, now_s)
        elif what is Input.RETRANSMIT:
            self._stretch(transaction, now_s)
        for action in actions:
            _DO[action](self, transaction, message, now_s)
        if transaction.state in _ANSWERED:
            transaction.request = None
            if transaction.state is State.ACCEPTED or transaction.machine is CLIENT:
                transaction.wire = b""
        elif transaction.state is State.TERMINATED:
            self._forget(transaction)

    def _enter(self, transaction: _Transaction, now_s: float) -> None:
        """Start the timers of the state that was entered."""
        arms = transaction.machine.entry.get(transaction.state)
        if arms is None:
            return
        transaction.timers.clear()
        reliable = transaction.hop.reliable
        for arm in arms:
            if reliable and arm.over_tcp == "never":
                continue
            wait_s = 0.0 if reliable and arm.over_tcp == "at once" else float(getattr(self._timers, arm.wait))
            if arm.input is Input.TIMEOUT and transaction.hop.flow is not None and transaction.is_unanswered:
                wait_s = min(wait_s, self._timers.flow_s)
            if arm.input is Input.RETRANSMIT:
                transaction.interval_s = wait_s
            self._arm(transaction, arm.input, wait_s, now_s)

    def _stretch(self, transaction: _Transaction, now_s: float) -> None:
        """Set the next retransmission: the interval doubles, up to T2 where the machine says so."""
        interval_s = transaction.interval_s * 2
        if transaction.machine.caps_interval:
            proceeding = transaction.machine is CLIENT and transaction.state is State.PROCEEDING
            interval_s = self._timers.t2_s if proceeding else min(interval_s, self._timers.t2_s)
        transaction.interval_s = interval_s
        self._arm(transaction, Input.RETRANSMIT, interval_s, now_s)

    def _arm(self, transaction: _Transaction, name: Input, wait_s: float, now_s: float) -> None:
        transaction.timers[name] = now_s + wait_s
        heapq.heappush(self._due, (now_s + wait_s, next(self._order), transaction.key, name))

    def _forget(self, transaction: _Transaction) -> None:
        if self._transactions.pop(transaction.key, None) is not None and not transaction.quiet:
            self._events.append(Terminated(transaction.key))

    # Building what is sent.

    def _via(self, hop: Hop, branch: str) -> str:
        return f"SIP/2.0/{hop.transport.upper()} {self.sent_by};branch={branch};rport"

    def _address(self, transaction: _Transaction, hop: Hop) -> None:
        """Make the request's own Via and bytes fit for `hop`."""
        assert transaction.request is not None
        vias = header_values(transaction.request, "Via")
        vias[0] = self._via(hop, transaction.branch)
        set_header_values(transaction.request, "Via", vias)
        transaction.hop = hop
        transaction.wire = encode(transaction.request)

    def _send(self, transaction: _Transaction) -> None:
        if transaction.wire:
            self._output.append(Outgoing(transaction.hop, transaction.wire, transaction.key, transaction.fallback))

    def _sibling(self, invite: Request, method: str, sequence: int, to: str) -> Request:
        """Build the CANCEL or the ACK that belongs to an INVITE (RFC 3261 §9.1, §17.1.1.3)."""
        request = Request(method, invite.uri)
        set_header_values(request, "Via", header_values(invite, "Via")[:1])
        set_header_values(request, "Route", invite.headers.getlist("Route"))
        request.headers.set("Max-Forwards", "70")
        set_header_values(request, "From", invite.headers.getlist("From"))
        request.headers.set("To", to)
        set_header_values(request, "Call-ID", invite.headers.getlist("Call-ID"))
        request.headers.set("CSeq", f"{sequence} {method}")
        return request

    # Actions.

    def _send_action(self, transaction: _Transaction, _message: object, _now_s: float) -> None:
        self._send(transaction)

    def _deliver(
        self, transaction: _Transaction, message: tuple[Request | Response, Envelope] | None, _now_s: float
    ) -> None:
        if message is None or transaction.quiet:
            return
        head, envelope = message
        if isinstance(head, Request):
            self._events.append(AckReceived(head, envelope, transaction.hop))
        else:
            self._events.append(ResponseReceived(transaction.key, head, envelope))

    def _acknowledge(
        self, transaction: _Transaction, message: tuple[Request | Response, Envelope] | None, _now_s: float
    ) -> None:
        if message is not None and transaction.request is not None:
            to = required_header(message[0], "To")
            transaction.wire = encode(self._sibling(transaction.request, "ACK", transaction.sequence, to))
        self._send(transaction)

    def _send_trying(self, transaction: _Transaction, _message: object, now_s: float) -> None:
        if transaction.request is not None and not transaction.wire:
            self.respond(transaction.key, make_response(transaction.request, 100), now_s)

    def _patience(self, transaction: _Transaction, _message: object, now_s: float) -> None:
        if not transaction.cancelling:
            if self._timers.c_s is not None:
                self._arm(transaction, Input.GIVE_UP, self._timers.c_s, now_s)
        elif Input.TIMEOUT not in transaction.timers:
            self._send_cancel(transaction, None, now_s)

    def _send_cancel(self, transaction: _Transaction, _message: object, now_s: float) -> None:
        transaction.cancelling = True
        transaction.timers.clear()
        self._arm(transaction, Input.TIMEOUT, self._timers.patience_s, now_s)
        invite = transaction.request
        assert invite is not None
        cancel = self._sibling(invite, "CANCEL", transaction.sequence, invite.headers["To"])
        set_header_values(cancel, "Reason", transaction.reasons)
        child = self._client(cancel, transaction.hop, transaction.branch, transaction.sequence)
        child.wire, child.quiet, child.fallback = encode(cancel), True, transaction.fallback
        self._open(child, now_s)
        self._send(child)

    def _tell_timeout(self, transaction: _Transaction, _message: object, _now_s: float) -> None:
        if not transaction.quiet:
            self._events.append(TimedOut(transaction.key))

    def _tell_broken(self, transaction: _Transaction, _message: object, _now_s: float) -> None:
        if not transaction.quiet:
            self._events.append(TransportBroken(transaction.key))


_Do: TypeAlias = Callable[[TransactionLayer, _Transaction, tuple[Request | Response, Envelope] | None, float], None]
_DO: Final[dict[Action, _Do]] = {
    Action.SEND: TransactionLayer._send_action,
    Action.DELIVER: TransactionLayer._deliver,
    Action.ACKNOWLEDGE: TransactionLayer._acknowledge,
    Action.SEND_TRYING: TransactionLayer._send_trying,
    Action.PATIENCE: TransactionLayer._patience,
    Action.CANCEL: TransactionLayer._send_cancel,
    Action.TELL_TIMEOUT: TransactionLayer._tell_timeout,
    Action.TELL_BROKEN: TransactionLayer._tell_broken,
}


_ANSWERED: Final = frozenset((State.ACCEPTED, State.COMPLETED, State.CONFIRMED))


def _client_key(branch: str, method: str) -> TransactionKey:
    return TransactionKey(f"client {branch} {method}")


def _server_key(envelope: Envelope, method: str) -> TransactionKey:
    """Return the key by branch and sent-by, or for elements older than RFC 3261 by what §17.2.3 lists."""
    via = envelope.via
    if via.branch.startswith(MAGIC_COOKIE):
        return TransactionKey(f"server {via.branch} {via.sent_by} {method}")
    return TransactionKey(
        f"server {envelope.call_id} {envelope.from_tag} {envelope.sequence} {via.sent_by} {method}"
    )
