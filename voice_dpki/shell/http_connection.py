"""One connection of an HTTP server: judges, handles and answers the requests that `voice_dpki.codec.http1` reads.

A connection handles one request at a time. Meanwhile, or while the client does not read its answers, no more is
read than a few requests sent ahead. Every phase ends: at a deadline, or with the handler.
"""

import asyncio
import logging
import ssl
from collections.abc import Coroutine
from enum import Enum, auto
from hashlib import sha256
from typing import Final, Protocol, cast

import msgspec

from voice_dpki.codec.http1 import CONTINUE, HttpFault, RequestReader
from voice_dpki.shell.http_app import NO_REQUEST, Admitted, Charge, HttpApp, Refused, Request, Response
from voice_dpki.shell.http_channel import TICK_S, Channel
from voice_dpki.shell.limits import BODY_LATE, FAILED, LATE, MALFORMED, SAID, Account, TooManyError
from voice_dpki.wire.seldom import Seldom

log = logging.getLogger(__name__)
_SAID_FAILED = Seldom(log)

HEAD_TIMEOUT_S = 10.0
"""How long a client may take to send the head of a request, and from connecting to its first request."""
BODY_TIMEOUT_S = 10.0
"""How long a client may take to send the whole body; slower ones are cut off."""
KEEP_ALIVE_S = 30.0
"""How long a connection may be idle between two requests."""
REST_S = 0.1
"""How long a connection's next request waits after a 429, because a refusal costs the server too."""
LINGER_S = 1.0
"""How long a refused connection stays open, so that the client can read why (RFC 9112 §9.6)."""
AHEAD_BYTES = 64 * 1024
"""Bytes that a client may send ahead while a request is handled; then reading stops."""
COUNTED_BYTES: Final = 64 * 1024
"""How much a connection's buffer grows between two checks of the memory of all connections."""


class Phase(Enum):
    """What a connection is doing."""

    HEAD = auto()
    """It waits for a request, or for the rest of a request's head."""
    BODY = auto()
    HANDLING = auto()
    CLOSING = auto()
    """The last response is written."""


class Owner(Protocol):
    """A connection's view of its server."""

    app: HttpApp
    stopping: bool
    draining: bool
    """Whether answers from now on are the last ones of their connections."""
    said_malformed: Seldom
    """Log of clients that do not send HTTP."""

    def serves(self, certificate: bytes) -> bool:
        """Whether clients with the certificate of that SHA-256 are still listed."""
        ...

    def enter(self, connection: "Connection", host: str) -> Account | Response | None:
        """Count a connection in; a response refuses it, and None closes it without one."""
        ...

    def leave(self, connection: "Connection") -> None:
        """Remove a closed connection."""
        ...

    def check_memory(self) -> None:
        """Keep incomplete requests and unread answers from filling the memory."""
        ...


class Connection(Channel):
    """One client's connection."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._owner = owner
        self._app = owner.app
        self._reader = RequestReader()
        self._phase = Phase.HEAD
        self._admitted: Admitted | None = None
        self._before: Admitted | None = None
        """The last request that was admitted, for one with the same head."""
        self._begun = False
        """Whether the request is counted among those under way."""
        self._task: asyncio.Task[Response] | None = None
        self._head_only = False
        self._close = False
        """Whether the next response is the last."""
        self._ended = False
        """Whether the client has closed its side."""
        self._started = False
        """Whether a part of the next head has arrived."""
        self._answered = False
        self._waiting_turn = False
        self._counted_bytes = 0
        self._charge: Charge
        self.account: Account | None = None
        self.certificate = b""
        """SHA-256 of the listed TLS certificate that the client showed; empty without TLS."""
        self.is_known = False
        """Whether the client showed a listed TLS certificate, or a token."""

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, or refuse it if the owner has no place for it."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        host = peer[0] if peer else ""
        self._client = f"{host}:{peer[1]}" if peer else ""
        self.certificate = _certificate_of(transport)
        self.is_known = bool(self.certificate)
        self._expect(HEAD_TIMEOUT_S)
        self._arm(_tick_s())
        answer = self._owner.enter(self, host)
        if isinstance(answer, Response):
            self._finish(answer, is_read=False)
        elif answer is None:
            self.abort()
        else:
            self.account, self._charge = answer, answer.take

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection; cancel its handler if it long-polls."""
        self._disarm()
        if self._task is None or self._waits:
            self._give_up()
        self._phase = Phase.CLOSING
        self._owner.leave(self)

    def data_received(self, data: bytes) -> None:
        """Take in what the client sends."""
        if self._phase is Phase.CLOSING:
            self._discard(len(data))
            return
        self._reader.feed(data)
        if self._phase is Phase.HANDLING or not self._takes_answers or self._waiting_turn:
            self._restrain()
        else:
            self._advance()

    def eof_received(self) -> bool:
        """Answer what was received whole, and then close: only the client's side is closed so far."""
        self._ended = True
        stays = self._waiting_turn or (self._phase is Phase.HANDLING and not self._waits)
        return stays and self._transport.can_write_eof()

    def pause_writing(self) -> None:
        """Set a deadline for a client that does not read its answers, and check the memory of all."""
        super().pause_writing()
        self._owner.check_memory()

    def resume_writing(self) -> None:
        """Go on with a client that has read its answers."""
        self._takes_answers = True
        self._expect({Phase.CLOSING: LINGER_S, Phase.BODY: BODY_TIMEOUT_S}.get(self._phase, KEEP_ALIVE_S))
        if self._phase is Phase.HEAD and self._reader.buffered:
            self._take_turn_later(0)

    # Called by the server.

    @property
    def held_bytes(self) -> int:
        """Memory that the client uses: input that is incomplete or sent ahead, and answers that it has not read."""
        return self._reader.buffered + (0 if self._takes_answers else self._transport.get_write_buffer_size())

    @property
    def can_go(self) -> bool:
        """Whether the connection may be closed to make room: it only waits."""
        return self._phase is not Phase.HANDLING or self._waits

    def give_way(self) -> None:
        """Close the connection at once: another needs its place. A client that long-polls gets a response."""
        if self._phase is Phase.HANDLING:
            self._finish(self._app.no_room(), is_read=True)
        else:
            self.abort()

    def stop(self) -> None:
        """Close the connection when the request in progress is answered."""
        self._close = True
        if self._phase is Phase.HEAD and not self._waiting_turn:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection, whatever is under way."""
        self._give_up()
        self._phase = Phase.CLOSING
        self._transport.abort()

    # The request, step by step.

    def _advance(self) -> None:
        """Process at most one request of what was received; other connections have their turn before the next."""
        try:
            is_answered = self._step()
        except HttpFault as fault:
            self._refuse_message(fault)
            return
        if is_answered and (self._reader.buffered or self._ended):
            self._take_turn_later(0)

    def _step(self) -> bool:
        """Advance the request as far as possible; tell whether it is answered, so that the next can begin."""
        if self._phase is Phase.HEAD and not self._take_head():
            return False
        if self._phase is Phase.BODY and not self._take_body():
            return False
        return self._phase is Phase.HEAD and self._takes_answers and not self._waiting_turn

    def _take_head(self) -> bool:
        """Judge a request by its head; return False if the head is not complete yet."""
        head = self._reader.head()
        if head is None:
            self._await_more()
            return False
        self._started = False
        self._head_only = head.method == "HEAD"
        self._close = self._close or not head.keep_alive
        if self.certificate and not self._owner.serves(self.certificate):
            self._finish(self._app.not_listed(), is_read=False)
            return False
        try:
            admitted = self._app.admit(head, self._client, self._charge, self._before)
            self._admitted = self._before = admitted
            if admitted.route.authorize is not None:
                self._vouch()
            self._pay(admitted.route.cost)
        except Refused as refused:
            self._refuse(self._paid_refusal(refused.response))
        except TooManyError as error:
            self._refuse(self._too_many(error, NO_REQUEST))
        else:
            self._await_body(admitted, head.length, expects_continue=head.expects_continue)
        return True

    def _await_more(self) -> None:
        """Wait for the rest of a head, or for the next request."""
        if self._ended or self._owner.stopping:
            self._transport.close()
        elif not self._started and self._reader.buffered:
            self._started = True
            self._expect(HEAD_TIMEOUT_S)

    def _await_body(self, admitted: Admitted, length: int | None, *, expects_continue: bool) -> None:
        self._phase = Phase.BODY
        if length is not None and self._reader.buffered >= length:
            return  # the body is here
        self._expect(BODY_TIMEOUT_S)
        most = admitted.route.max_body_bytes
        if expects_continue and not self._reader.buffered and (length is None or length <= most):
            self._send(CONTINUE)

    def _take_body(self) -> bool:
        """Pass a request to its handler; return False if the body is not complete yet."""
        admitted = self._admitted
        assert admitted is not None
        body = self._reader.body(admitted.route.max_body_bytes)
        if body is not None:
            self._counted_bytes = 0
            self._handle(admitted, body)
            return True
        if self._ended:
            self._transport.close()
        elif (held := self._reader.buffered) > self._counted_bytes + COUNTED_BYTES:
            self._counted_bytes = held
            self._owner.check_memory()
        return False

    def _handle(self, admitted: Admitted, body: bytes) -> None:
        """Call the handler, whose response comes now or from a task."""
        route, request = admitted.route, admitted.request
        if body:
            request = msgspec.structs.replace(request, body=body)
        if self._ended and route.waits:  # there is no way to tell whether the client is still there
            self.abort()
            return
        self._phase = Phase.HANDLING
        try:
            if route.price is not None and self.account is not None:
                self.account.take(route.price(request))
            answer = route.handler(request)
        except Exception as error:
            answer = self._failed(error, request)
        if isinstance(answer, Response):
            self._respond(answer)
        else:
            self._task = self._loop.create_task(cast("Coroutine[object, object, Response]", answer))
            self._task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[Response]) -> None:
        """Answer with what the handler's task returned or raised, unless the request was given up."""
        if task.cancelled():
            error: BaseException | None = asyncio.CancelledError()
        else:
            error = task.exception()
        if task is not self._task:
            return
        self._task = None
        if self._transport.is_closing():
            self._end_request()
            return
        request = self._admitted.request if self._admitted else NO_REQUEST
        self._respond(task.result() if error is None else self._failed(error, request))
        if self._phase is Phase.HEAD and self._takes_answers and (self._reader.buffered or self._ended):
            self._advance()

    # Refusals.

    def _paid_refusal(self, response: Response) -> Response:
        """Charge the client for a refusal, because that costs the server too."""
        try:
            if self.account is not None:
                self.account.take(1)
        except TooManyError as error:
            return self._too_many(error, NO_REQUEST)
        return response

    def _refuse(self, response: Response) -> None:
        """Refuse a request by its head. The connection stays open only if the body is empty or already here."""
        self._phase = Phase.BODY
        try:
            whole = self._reader.body(AHEAD_BYTES) is not None
        except HttpFault:
            whole = False
        if whole:
            self._respond(response)
        else:
            self._finish(response, is_read=False)

    def _refuse_message(self, fault: HttpFault) -> None:
        MALFORMED.inc()
        self._owner.said_malformed.warning("Invalid HTTP request", client=self._client, reason=str(fault))
        request = self._admitted.request if self._admitted else NO_REQUEST
        self._finish(self._app.error(fault.status, str(fault), request), is_read=False)

    def _failed(self, error: BaseException, request: Request) -> Response:
        if isinstance(error, TooManyError):
            return self._too_many(error, request)
        FAILED.inc()
        _SAID_FAILED.error("request failed", error, method=request.method)
        return self._app.error(500, "internal error; the log of this server says more", request)

    def _too_many(self, error: TooManyError, request: Request) -> Response:
        SAID.warning(str(error), client=self._client)
        self._take_turn_later(REST_S)
        return self._app.too_many(error, request)

    # Answers.

    def _respond(self, response: Response) -> None:
        """Send the response, and wait for the next request or close."""
        if self._close or self._owner.stopping or self._owner.draining:
            self._finish(response, is_read=True)
            return
        self._end_request()
        self._write(response, close=False, head_only=self._head_only)
        self._phase = Phase.HEAD
        self._answered = True
        if self._takes_answers:
            self._expect(KEEP_ALIVE_S)
        self._resume()

    def _finish(self, response: Response, *, is_read: bool) -> None:
        """Send the last response. What the client still sends is read up to a bound only (RFC 9112 §9.6).

        `is_read` says that the request was read whole, so that the connection can be closed at once: no unread data
        causes a reset that would keep the client from reading the response.
        """
        if self._phase is Phase.CLOSING:
            return
        self._give_up()
        if self._transport.is_closing():
            self._phase = Phase.CLOSING
            return
        self._write(response, close=True, head_only=self._head_only)
        self._phase = Phase.CLOSING
        if self._takes_answers:
            self._expect(LINGER_S)
        self._arm(_tick_s())
        if is_read or self._ended:
            self._transport.close()
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._resume()

    # Bounds.

    def _pay(self, cost: int) -> None:
        if self.account is not None and cost:
            self.account.begin(cost)
            self._begun = True

    def _end_request(self) -> None:
        if self._begun and self.account is not None:
            self.account.end()
        self._begun, self._admitted = False, None

    def _give_up(self) -> None:
        """End the request, and cancel its handler if that is still running."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._end_request()

    def _vouch(self) -> None:
        self.is_known = True
        if self.account is not None:
            self.account.vouch()

    @property
    def _waits(self) -> bool:
        return self._admitted is not None and self._admitted.route.waits

    def _restrain(self) -> None:
        """Stop reading from a client that sends too far ahead; abort if it long-polls and should not send."""
        if self._reader.buffered > AHEAD_BYTES and not self._paused:
            if self._phase is Phase.HANDLING and self._waits:
                self.abort()
                return
            self._hold()
            self._owner.check_memory()

    def _take_turn_later(self, delay_s: float) -> None:
        """Let other connections have their turn before this one's next request is processed."""
        if not self._waiting_turn:
            self._waiting_turn = True
            if delay_s:
                self._loop.call_later(delay_s, self._take_turn)
            else:
                self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._waiting_turn = False
        if self._phase is Phase.HEAD and self._takes_answers and not self._transport.is_closing():
            self._resume()  # what came meanwhile may have stopped it, and the rest of a body must come
            self._advance()

    # Time.

    @property
    def _is_timed(self) -> bool:
        return self._phase is not Phase.HANDLING

    def _time_out(self) -> None:
        if self._phase is Phase.CLOSING or not self._takes_answers:
            self._check_drained()
        elif self._phase is Phase.BODY:
            BODY_LATE.inc()
            request = self._admitted.request if self._admitted else NO_REQUEST
            detail = f"the body did not arrive within {BODY_TIMEOUT_S:g} s"
            self._finish(self._app.error(408, detail, request), is_read=False)
        elif self._started:
            LATE.inc()
            detail = f"the head of the request did not arrive within {HEAD_TIMEOUT_S:g} s"
            self._finish(self._app.error(408, detail), is_read=False)
        else:
            if not self._answered:
                LATE.inc()
            self._transport.abort()


def _tick_s() -> float:
    return min(HEAD_TIMEOUT_S, BODY_TIMEOUT_S, TICK_S)


def _certificate_of(transport: asyncio.BaseTransport) -> bytes:
    """Return the SHA-256 of the certificate that the client showed, empty without one."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    shown = tls.getpeercert(binary_form=True) if tls is not None else None
    return sha256(shown).digest() if shown else b""
