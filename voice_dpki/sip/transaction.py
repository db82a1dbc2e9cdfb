"""The transaction layer (RFC 3261 §17, RFC 6026): it matches messages to transactions, and retransmits.

A core: its arguments are bytes and the time in seconds of a monotonic clock. It returns events for the transaction
user by `take_events` and messages to send by `take_output`. After any other call the owner calls both, and it calls
`handle_timer` at the time that `next_timer` returns.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Final, TypeAlias

from sipmessage import Request, Response

from voice_dpki.effects import Random
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.sip.events import (
    AckReceived,
    Counters,
    Event,
    Outgoing,
    RequestReceived,
    ResponseReceived,
    Terminated,
    TimedOut,
    TransactionKey,
    TransportBroken,
)
from voice_dpki.sip.hop import source_of
from voice_dpki.sip.machines import (
    CLIENT,
    INVITE_CLIENT,
    INVITE_SERVER,
    SERVER,
    Action,
    Input,
    State,
    Timers,
)
from voice_dpki.sip.message import (
    MAGIC_COOKIE,
    Envelope,
    Hop,
    UnsupportedError,
    copy_request,
    default_phrase,
    encode,
    header_values,
    make_response,
    mark_received,
    parse_message,
    read_envelope,
    required_header,
    set_header_values,
)
from voice_dpki.sip.salvage import refuse_unread
from voice_dpki.sip.shares import Shares, cost_of
from voice_dpki.sip.timers import TimerQueue
from voice_dpki.sip.transaction_state import Transaction, client_key, input_of, quoted_key, server_key, sibling
from voice_dpki.sip.via import way_back

__all__ = [
    "MAX_TRANSACTIONS",
    "UDP_MAX_BYTES",
    "AckReceived",
    "Counters",
    "Event",
    "Outgoing",
    "RequestReceived",
    "ResponseReceived",
    "Terminated",
    "TimedOut",
    "TransactionKey",
    "TransactionLayer",
    "TransportBroken",
    "input_of",
]

MAX_TRANSACTIONS: Final = 131_072
"""Most places of `shares.PLACE_BYTES`; a transaction takes one, and more while it keeps a longer message."""
RETRY_AFTER_S: Final = 5
"""Retry-After for a source that was refused because there was no room."""
_SALT_BYTES: Final = 16
_TAG_CHARS: Final = 16
UDP_MAX_BYTES: Final = 1_300
"""Largest request sent over UDP if the path's MTU is unknown (RFC 3261 §18.1.1)."""


class TransactionLayer:
    """All transactions of one element at one address.

    `sent_by` is "host:port" for its Via. A request of more than `udp_max_bytes` goes over TCP although UDP was
    asked for.
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
        self.tls_sent_by = sent_by
        """Like `sent_by`, for requests over TLS, which has a port of its own."""
        self.counters = Counters()
        self._random = random
        self._timers = timers or Timers()
        self._udp_max_bytes = udp_max_bytes
        self._max_transactions = max_transactions
        self._shares = Shares(max_transactions)
        self._salt = random.token(_SALT_BYTES)
        self._transactions: dict[TransactionKey, Transaction] = {}
        self._timer_queue = TimerQueue()
        self._events: list[Event] = []
        self._output: list[Outgoing] = []

    def __len__(self) -> int:
        return len(self._transactions)

    # Calls of the owner: bytes and time in, events and messages out.

    def take_events(self) -> list[Event]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    def take_output(self) -> list[Outgoing]:
        """Return the messages to send since the last call."""
        output, self._output = self._output, []
        return output

    def next_timer(self) -> float | None:
        """Return when `handle_timer` must be called next, or None."""
        return self._timer_queue.next_s()

    def handle_timer(self, now_s: float) -> None:
        """Fire every timer that is due at `now_s`; if one raises, drop its transaction and raise the error."""
        while (due := self._timer_queue.pop(now_s)) is not None:
            transaction = self._transactions[due.key]
            try:
                self._feed(transaction, due.name, now_s)
            except Exception:
                self._drop(transaction)
                raise

    def receive(self, data: bytes, source: Hop, now_s: float) -> None:
        """Process one message. A malformed one is counted, and if it is a request, answered as RFC 4475 says."""
        try:
            message = parse_message(data)
            envelope = read_envelope(message)
        except MalformedError as error:
            self.refuse_unread(data, source, error)
            return
        if isinstance(message, Response):
            self._receive_response(message, envelope, now_s)
        else:
            mark_received(message, envelope.via, source)
            self._receive_request(message, envelope, source, cost_of(len(data)), now_s)

    def refuse_unread(self, data: bytes, source: Hop, error: MalformedError) -> None:
        """Count a malformed message and, if possible, answer it without a transaction; `error` is the reason."""
        self.counters.malformed += 1
        status = error.status if isinstance(error, UnsupportedError) else 400
        answer = refuse_unread(data, source, status, f"{default_phrase(status)}: {error}", self._tag(data))
        if answer is not None:
            self._output.append(Outgoing(*answer, None))

    def transport_failed(self, key: TransactionKey, now_s: float) -> None:
        """Tell the transaction that its latest message could not be sent.

        A request that went over TCP only because of its size is then sent over UDP (RFC 3261 §18.1.1).
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

    def unreachable(self, data: bytes, hop: Hop, now_s: float) -> None:
        """Tell the transaction whose request begins with `data` that `hop` is unreachable (RFC 3261 §18.4).

        `data` must contain the request's random branch; otherwise anybody could end a call with a forged ICMP
        message.
        """
        key = quoted_key(data)
        if key is None:
            return
        transaction = self._transactions.get(key)
        if transaction is not None and transaction.hop == hop:
            self.transport_failed(key, now_s)

    # Calls of the transaction user: sending requests, answering and cancelling them.

    def new_branch(self) -> str:
        """Return a new unique branch (RFC 3261 §8.1.1.7)."""
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
        """Send `request` (not an ACK) in a new transaction, with our Via on top of its others.

        If `hop` is a flow that is gone, the request goes to `fallback`, if given, over the same transport. Raises
        LocalError if there is no room for another transaction.
        """
        if not self._shares.admits("", 1):
            raise LocalError(f"{self._max_transactions} SIP transactions are open, which is the limit")
        branch = branch or self.new_branch()
        request = copy_request(request, vias=[self._via(hop, branch), *header_values(request, "Via")])
        sequence = read_envelope(request).sequence
        transaction = self._client(request, hop, branch, sequence)
        transaction.fallback = fallback
        self._address(transaction, hop)
        if hop.transport == "udp" and hop.flow is None and len(transaction.wire) > self._udp_max_bytes:
            transaction.plain_hop = hop
            self._address(transaction, replace(hop, transport="tcp"))
        transaction.cost = cost_of(len(transaction.wire))
        self._open(transaction, now_s)
        self._send(transaction)
        return transaction.key

    def _client(self, request: Request, hop: Hop, branch: str, sequence: int) -> Transaction:
        machine = INVITE_CLIENT if request.method == "INVITE" else CLIENT
        return Transaction(client_key(branch, request.method), machine, hop, branch, sequence, request)

    def send_ack(self, request: Request, hop: Hop, fallback: Hop | None = None) -> None:
        """Send an ACK for a 2xx response, which is outside any transaction (RFC 3261 §13.2.2.4)."""
        vias = [self._via(hop, self.new_branch()), *request.headers.getlist("Via")]
        request = copy_request(request, vias=vias)
        self._output.append(Outgoing(hop, encode(request), None, fallback))

    def respond(self, key: TransactionKey, response: Response, now_s: float) -> None:
        """Answer a request. The response is ignored if the transaction cannot send it in its state."""
        transaction = self._transactions.get(key)
        step = input_of(response.code)
        if transaction is None or (transaction.state, step) not in transaction.machine.table:
            return
        transaction.wire = encode(response)
        self._feed(transaction, step, now_s)

    def cancel(self, key: TransactionKey, now_s: float, *, reasons: Sequence[str] = ()) -> None:
        """Cancel a sent INVITE as soon as RFC 3261 §9.1 allows, which is after a provisional response.

        `reasons` are the CANCEL's Reason values (RFC 3326).
        """
        transaction = self._transactions.get(key)
        if transaction is None or transaction.machine is not INVITE_CLIENT or transaction.cancelling:
            return
        transaction.cancelling = True
        transaction.reasons = tuple(reasons)
        if transaction.state is State.PROCEEDING:
            self._send_cancel(transaction, None, now_s)

    def refuse(self, key: TransactionKey, response: Response, now_s: float) -> None:
        """Answer a request and keep no state: a retransmission is processed and answered anew (RFC 3261 §8.2.7).

        After a provisional response the client does not retransmit, so the answer is then kept as by `respond`.
        """
        transaction = self._transactions.get(key)
        if transaction is None or transaction.state not in (State.TRYING, State.PROCEEDING):
            return
        if transaction.wire:
            self.respond(key, response, now_s)
        else:
            self._output.append(Outgoing(transaction.hop, encode(response), None, transaction.fallback))
            self._forget(transaction)

    def send_trying(self, key: TransactionKey, now_s: float) -> None:
        """Answer an INVITE with 100 now, unless it has been answered (RFC 3261 §17.2.1)."""
        transaction = self._transactions.get(key)
        if transaction is not None:
            self._feed(transaction, Input.TRYING_DUE, now_s)

    def stateless_tag(self, envelope: Envelope) -> str:
        """Return a To tag that is the same for each retransmission of a request (RFC 3261 §8.2.7)."""
        fields = (envelope.via.branch, envelope.via.sent_by, envelope.call_id, envelope.from_tag, envelope.sequence)
        return self._tag(repr(fields).encode())

    def _tag(self, data: bytes) -> str:
        return sha256(self._salt + data).hexdigest()[:_TAG_CHARS]

    def give_up(self, key: TransactionKey, now_s: float) -> None:
        """End a transaction whose owner has failed.

        A received request is answered with 500, a sent INVITE is cancelled, any other sent request is forgotten.
        """
        transaction = self._transactions.get(key)
        if transaction is None or transaction.state not in (State.CALLING, State.TRYING, State.PROCEEDING):
            return
        if transaction.machine in (SERVER, INVITE_SERVER):
            self._answer_500(transaction, now_s)
        elif transaction.machine is INVITE_CLIENT:
            self.cancel(key, now_s)
        else:
            self._drop(transaction)

    def _drop(self, transaction: Transaction) -> None:
        """Forget a transaction that cannot go on, and tell the transaction user that it has timed out."""
        if not transaction.quiet:
            self._events.append(TimedOut(transaction.key))
        self._forget(transaction)

    def abandon(self, key: TransactionKey) -> None:
        """Forget a request without answering it, because RFC 4320 §4.2 forbids a late answer."""
        transaction = self._transactions.get(key)
        if transaction is not None:
            self._forget(transaction)

    def cancelled_invite(self, envelope: Envelope) -> TransactionKey | None:
        """Return the key of the INVITE that a received CANCEL is about (RFC 3261 §9.2), or None."""
        key = server_key(envelope, "INVITE")
        return key if key in self._transactions else None

    # Receiving.

    def _receive_response(self, response: Response, envelope: Envelope, now_s: float) -> None:
        transaction = self._transactions.get(client_key(envelope.via.branch, envelope.method))
        if transaction is None or envelope.via.sent_by not in (self.sent_by, self.tls_sent_by):
            self.counters.stray_responses += 1
            return
        self._feed(transaction, input_of(response.code), now_s, (response, envelope))

    def _receive_request(self, request: Request, envelope: Envelope, source: Hop, cost: int, now_s: float) -> None:
        is_ack = request.method == "ACK"
        key = server_key(envelope, "INVITE" if is_ack else request.method)
        transaction = self._transactions.get(key)
        if transaction is not None:
            self._feed(transaction, Input.ACK if is_ack else Input.REQUEST, now_s, (request, envelope))
        elif is_ack:
            self._events.append(AckReceived(request, envelope, source))
        elif not self._has_room(envelope, source, cost):
            self._refuse_overload(request, envelope, source)
        else:
            self._accept(key, request, envelope, source, cost, now_s)

    def _accept(
        self, key: TransactionKey, request: Request, envelope: Envelope, source: Hop, cost: int, now_s: float
    ) -> None:
        machine = INVITE_SERVER if request.method == "INVITE" else SERVER
        back = way_back(envelope.via.asks_port, envelope.via.port, source)
        hop, fallback = (source, back) if source.reliable else (back, None)
        transaction = Transaction(
            key, machine, hop, envelope.via.branch, envelope.sequence, request, fallback=fallback,
            source=source_of(source.host), cost=cost,
        )  # fmt: skip
        self._open(transaction, now_s)
        if machine is INVITE_SERVER:
            self._arm(transaction, Input.TRYING_DUE, self._timers.trying_after_s, now_s)
            if self._timers.trying_after_s <= 0:
                self.handle_timer(now_s)
        self._events.append(RequestReceived(key, request, envelope, source))

    def _has_room(self, envelope: Envelope, source: Hop, cost: int) -> bool:
        """Return whether the source may open another transaction; a CANCEL of an open INVITE always may."""
        if envelope.method == "CANCEL" and self.cancelled_invite(envelope) is not None:
            return True
        return self._shares.admits(source_of(source.host), cost)

    def _refuse_overload(self, request: Request, envelope: Envelope, source: Hop) -> None:
        self.counters.overload += 1
        hop = source if source.reliable else way_back(envelope.via.asks_port, envelope.via.port, source)
        response = make_response(
            request,
            503,
            "Service Unavailable: too many transactions",
            to_tag=self.stateless_tag(envelope),
            headers=[("Retry-After", str(RETRY_AFTER_S))],
        )
        self._output.append(Outgoing(hop, encode(response), None))

    # Moving one transaction.

    def _open(self, transaction: Transaction, now_s: float) -> None:
        self._transactions[transaction.key] = transaction
        self._shares.take(transaction.source, transaction.cost)
        transaction.state, transaction.opened_s = transaction.machine.start, now_s
        self._enter(transaction, now_s)

    def _feed(
        self,
        transaction: Transaction,
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
            if transaction.state is not State.COMPLETED or transaction.machine is CLIENT:
                transaction.wire = b""
            self._shares.give_back(transaction.source, transaction.cost)
            transaction.cost = cost_of(len(transaction.wire))  # a kept response may be long
            self._shares.take(transaction.source, transaction.cost)
        elif transaction.state is State.TERMINATED:
            self._forget(transaction)

    def _enter(self, transaction: Transaction, now_s: float) -> None:
        """Start the timers of the state that was entered."""
        arms = transaction.machine.entry.get(transaction.state)
        if arms is None:
            return
        transaction.timers.stop()
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

    def _stretch(self, transaction: Transaction, now_s: float) -> None:
        """Set the next retransmission: the interval doubles, up to T2 if the machine caps it."""
        interval_s = transaction.interval_s * 2
        if transaction.machine.caps_interval:
            proceeding = transaction.machine is CLIENT and transaction.state is State.PROCEEDING
            interval_s = self._timers.t2_s if proceeding else min(interval_s, self._timers.t2_s)
        transaction.interval_s = interval_s
        self._arm(transaction, Input.RETRANSMIT, interval_s, now_s)

    def _arm(self, transaction: Transaction, name: Input, wait_s: float, now_s: float) -> None:
        self._timer_queue.arm(transaction.timers, name, now_s + wait_s)

    def _forget(self, transaction: Transaction) -> None:
        if self._transactions.pop(transaction.key, None) is None:
            return
        self._timer_queue.drop(transaction.timers)
        self._shares.give_back(transaction.source, transaction.cost)
        if not transaction.quiet:
            self._events.append(Terminated(transaction.key))

    # Building what is sent.

    def _via(self, hop: Hop, branch: str) -> str:
        sent_by = self.tls_sent_by if hop.transport == "tls" else self.sent_by
        return f"SIP/2.0/{hop.transport.upper()} {sent_by};branch={branch};rport"

    def _address(self, transaction: Transaction, hop: Hop) -> None:
        """Rewrite our own Via in the request for `hop`, and serialise the request again."""
        assert transaction.request is not None
        vias = header_values(transaction.request, "Via")
        vias[0] = self._via(hop, transaction.branch)
        set_header_values(transaction.request, "Via", vias)
        transaction.hop = hop
        transaction.wire = encode(transaction.request)

    def _send(self, transaction: Transaction) -> None:
        if transaction.wire:
            self._output.append(Outgoing(transaction.hop, transaction.wire, transaction.key, transaction.fallback))

    # Actions.

    def _send_action(self, transaction: Transaction, _message: object, _now_s: float) -> None:
        self._send(transaction)

    def _deliver(
        self, transaction: Transaction, message: tuple[Request | Response, Envelope] | None, _now_s: float
    ) -> None:
        if message is None or transaction.quiet:
            return
        head, envelope = message
        if isinstance(head, Request):
            self._events.append(AckReceived(head, envelope, transaction.hop))
        else:
            self._events.append(ResponseReceived(transaction.key, head, envelope))

    def _acknowledge(
        self, transaction: Transaction, message: tuple[Request | Response, Envelope] | None, _now_s: float
    ) -> None:
        if message is not None and transaction.request is not None:
            to = required_header(message[0], "To")
            transaction.wire = encode(sibling(transaction.request, "ACK", transaction.sequence, to))
        self._send(transaction)

    def _send_trying(self, transaction: Transaction, _message: object, now_s: float) -> None:
        if transaction.request is not None and not transaction.wire:
            self.respond(transaction.key, make_response(transaction.request, 100), now_s)

    def _patience(
        self, transaction: Transaction, message: tuple[Request | Response, Envelope] | None, now_s: float
    ) -> None:
        if not transaction.cancelling:
            trying = message is not None and isinstance(message[0], Response) and message[0].code == 100
            if not trying or Input.GIVE_UP not in transaction.timers:  # 100 does not restart it (§16.7 step 2)
                left_s = max(transaction.opened_s + self._timers.ring_s - now_s, 0.0)
                self._arm(transaction, Input.GIVE_UP, min(self._timers.c_s, left_s), now_s)
        elif Input.TIMEOUT not in transaction.timers:
            self._send_cancel(transaction, None, now_s)

    def _send_cancel(self, transaction: Transaction, _message: object, now_s: float) -> None:
        transaction.cancelling = True
        transaction.timers.stop()
        self._arm(transaction, Input.TIMEOUT, self._timers.patience_s, now_s)
        invite = transaction.request
        assert invite is not None
        cancel = sibling(invite, "CANCEL", transaction.sequence, invite.headers["To"])
        set_header_values(cancel, "Reason", transaction.reasons)
        child = self._client(cancel, transaction.hop, transaction.branch, transaction.sequence)
        child.wire, child.quiet, child.fallback = encode(cancel), True, transaction.fallback
        self._open(child, now_s)
        self._send(child)

    def _extend(self, transaction: Transaction, _message: object, now_s: float) -> None:
        self._arm(transaction, Input.OVERDUE, self._timers.answer_s, now_s)

    def _fail(self, transaction: Transaction, _message: object, now_s: float) -> None:
        self.counters.overdue += 1
        self._answer_500(transaction, now_s)

    def _answer_500(self, transaction: Transaction, now_s: float) -> None:
        """Answer 500, or forget the request if even that response cannot be built."""
        try:
            assert transaction.request is not None
            tag = self._random.token(6).hex()
            self.respond(transaction.key, make_response(transaction.request, 500, to_tag=tag), now_s)
        except (MalformedError, ValueError, AssertionError):
            self._forget(transaction)

    def _tell_timeout(self, transaction: Transaction, _message: object, _now_s: float) -> None:
        if not transaction.quiet:
            self._events.append(TimedOut(transaction.key))

    def _tell_broken(self, transaction: Transaction, _message: object, _now_s: float) -> None:
        if not transaction.quiet:
            self._events.append(TransportBroken(transaction.key))


_Do: TypeAlias = Callable[[TransactionLayer, Transaction, tuple[Request | Response, Envelope] | None, float], None]
_DO: Final[dict[Action, _Do]] = {
    Action.SEND: TransactionLayer._send_action,
    Action.DELIVER: TransactionLayer._deliver,
    Action.ACKNOWLEDGE: TransactionLayer._acknowledge,
    Action.SEND_TRYING: TransactionLayer._send_trying,
    Action.PATIENCE: TransactionLayer._patience,
    Action.CANCEL: TransactionLayer._send_cancel,
    Action.EXTEND: TransactionLayer._extend,
    Action.FAIL: TransactionLayer._fail,
    Action.TELL_TIMEOUT: TransactionLayer._tell_timeout,
    Action.TELL_BROKEN: TransactionLayer._tell_broken,
}


_ANSWERED: Final = frozenset((State.ACCEPTED, State.COMPLETED, State.CONFIRMED))
