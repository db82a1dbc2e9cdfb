"""Calls of a user agent: placed and incoming ones."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final

from sipmessage import Headers, Request, Response

from voice_dpki.errors import MalformedError
from voice_dpki.sip.account import Account
from voice_dpki.sip.dialog import Dialog
from voice_dpki.sip.message import (
    Envelope,
    Hop,
    header_values,
    make_response,
    parse_address,
    set_body,
    split_values,
)
from voice_dpki.sip.sdp import CONTENT_TYPE
from voice_dpki.sip.transaction import RequestReceived, TransactionKey
from voice_dpki.wire.sip.exchange import Exchange

ALLOW: Final = "INVITE, ACK, CANCEL, BYE, OPTIONS"
MAX_TRIES: Final = 3
"""How often one request is sent at most, retries with new credentials included."""
MAX_RING_S: Final = 180.0
"""An incoming call that is not answered within this time is refused with 480."""
_VERSTAT: Final = "verstat="


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """The final answer to an INVITE; `setup_ms` is the time since it was first sent."""

    status: int
    reason: str
    sdp: bytes = b""
    headers: Headers = field(default_factory=Headers)
    setup_ms: float = 0.0

    @property
    def reasons(self) -> list[str]:
        """The values of the Reason header field (RFC 3326)."""
        return split_values(self.headers.getlist("Reason"))

    @property
    def verstat(self) -> str | None:
        """Our domain's verdict on the number that has answered, such as "TN-Validation-Passed", or None.

        The telephone has only answers that came by its own proxy.
        """
        values = split_values(self.headers.getlist("P-Asserted-Identity"))
        try:
            return _verstat_in(str(parse_address(values[0]).uri)) if values else None
        except MalformedError:
            return None


@dataclass(frozen=True, slots=True)
class Line:
    """What a call needs from its user agent.

    `opened` is called when a call gets its dialog, `closed` when the call ends.
    """

    account: Account
    exchange: Exchange
    proxy: Hop
    contact: str
    opened: Callable[["Leg"], None]
    closed: Callable[["Leg"], None]


class Leg:
    """The part that placed and incoming calls share: a dialog, and its end."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.dialog: Dialog | None = None
        self.ended = asyncio.Event()
        """Set once the call is over, also if it was never answered."""
        self.ended_by_peer = False
        self.end_headers = Headers()
        """Header fields of the received BYE, such as Reason."""

    async def bye(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """End the call: send BYE and wait for its answer or timeout. A second call does nothing.

        `headers` are added to the BYE, for instance a Reason (RFC 3326).
        """
        if self.dialog is None or self.ended.is_set():
            return
        self._end()
        request = self.dialog.request("BYE")
        for name, value in headers:
            request.headers.add(name, value)
        await self._line.exchange.ask(request, self.dialog.next_hop())

    def hang_up(self) -> None:
        """End the call without waiting for an answer."""
        self._line.exchange.run(self.bye())

    def bye_received(self, headers: Headers) -> None:
        """Record that the other side has ended the call, with a BYE of these header fields."""
        self.ended_by_peer, self.end_headers = True, headers
        self._end()

    def ack_received(self) -> None:
        """Process the other side's ACK."""

    def _end(self) -> None:
        self.ended.set()
        self._line.closed(self)


class Call(Leg):
    """A call that this user agent places."""

    def __init__(self, line: Line, invite: Request) -> None:
        super().__init__(line)
        self.ringing = asyncio.Event()
        """Set once a provisional response other than 100 has arrived."""
        self._invite = invite
        self._key: TransactionKey | None = None
        self._started_s = perf_counter()
        self._answer: asyncio.Future[FinalAnswer] = asyncio.get_running_loop().create_future()
        self._ack: Request | None = None
        self._cancelled = False
        self._tries = 0
        self._send()

    async def answered(self) -> FinalAnswer:
        """Wait for the final answer: 2xx, or the status that refused the call (408 or 503 if none came)."""
        return await asyncio.shield(self._answer)

    @property
    def is_answered(self) -> bool:
        """Whether the final answer has arrived."""
        return self._answer.done()

    def cancel(self) -> None:
        """Cancel the call while it is not answered (RFC 3261 §9.1); its answer is then usually 487.

        If the other side answers first, the call is ended at once.
        """
        self._cancelled = True
        if self._key is not None:
            self._line.exchange.cancel(self._key)

    def _send(self) -> None:
        self._tries += 1
        self._key = self._line.exchange.send(self._invite, self._line.proxy, self._response)

    def _response(self, response: Response, envelope: Envelope | None) -> None:
        if response.code < 200:
            if response.code > 100:
                self.ringing.set()
        elif response.code < 300 and envelope is not None:
            self._accepted(response, envelope)
        elif self._authorize(response):
            self._send()
        else:
            self._finish(_answer_of(response))

    def _authorize(self, response: Response) -> bool:
        if self._cancelled or self._tries >= MAX_TRIES:
            return False
        return self._line.account.authorize(self._invite, response, self._line.exchange.random)

    def _accepted(self, response: Response, envelope: Envelope) -> None:
        """Acknowledge a 2xx response, each time it arrives (RFC 3261 §13.2.2.4)."""
        if self.dialog is not None and self._ack is not None and envelope.to_tag == self.dialog.remote_tag:
            self._line.exchange.send_ack(self._ack, self.dialog.next_hop())
            return
        try:
            dialog = Dialog.of_caller(self._invite, response, envelope)
            ack, hop = dialog.request("ACK", envelope.sequence), dialog.next_hop()
        except MalformedError as error:
            self._finish(FinalAnswer(500, f"no dialog comes of the answer: {error}"))
            return
        self._line.exchange.send_ack(ack, hop)
        if self.dialog is not None:  # another branch of a forked call has answered before
            self._line.exchange.run(self._line.exchange.ask(dialog.request("BYE"), hop))
            return
        self.dialog, self._ack = dialog, ack
        self._line.opened(self)
        self._finish(_answer_of(response))
        if self._cancelled:
            self.hang_up()

    def _finish(self, answer: FinalAnswer) -> None:
        if not self._answer.done():
            setup_ms = (perf_counter() - self._started_s) * 1000
            self._answer.set_result(replace(answer, setup_ms=round(setup_ms, 3)))
        if answer.status >= 300:
            self.ended.set()


class IncomingCall(Leg):
    """A call that this user agent receives."""

    def __init__(self, line: Line, event: RequestReceived) -> None:
        super().__init__(line)
        self.key = event.key
        self._from_proxy = event.source.is_from(line.proxy)
        self._to_tag = line.exchange.token()
        self._final_sent = False
        self.dialog: Dialog = Dialog.of_callee(event.request, event.envelope, self._to_tag)
        self.request = event.request
        self.sdp = event.request.body
        self.established = asyncio.Event()
        """Set once the caller has acknowledged the answer."""
        self._patience = asyncio.get_running_loop().call_later(MAX_RING_S, self._refuse, 480, None, ())

    @property
    def from_(self) -> str:
        """The From value, which is not authenticated."""
        return self.request.headers["From"]

    @property
    def identity(self) -> list[str]:
        """The Identity header fields (RFC 8224)."""
        return list(self.request.headers.getlist("Identity"))

    @property
    def asserted_identity(self) -> str | None:
        """The URI that our domain's proxy asserts for the caller, or None.

        A header field of a request that did not come from that proxy is ignored (RFC 3325 §5).
        """
        values = header_values(self.request, "P-Asserted-Identity") if self._from_proxy else []
        try:
            return str(parse_address(values[0]).uri) if values else None
        except MalformedError:
            return None

    @property
    def verstat(self) -> str | None:
        """Our domain's verdict about the caller's number, such as "TN-Validation-Passed", or None."""
        return _verstat_in(self.asserted_identity or "")

    async def ring(self) -> None:
        """Send 180 Ringing."""
        self._respond(self._in_dialog(180))

    async def answer(self, sdp: bytes) -> None:
        """Accept the call: send 200 with `sdp`, again until the caller's ACK arrives (RFC 3261 §13.3.1.4)."""
        response = self._in_dialog(200)
        response.headers.set("Allow", ALLOW)
        set_body(response, sdp, CONTENT_TYPE)
        if self._respond(response):
            self._line.exchange.run(self._repeat(response))

    async def reject(self, status: int, reason: str | None = None, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse the call with a status from 300 to 699."""
        self._refuse(status, reason, headers)

    async def bye(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """End the call; refuse it if it was not answered yet (RFC 3261 §15)."""
        self._refuse(480, None, headers)
        await super().bye(headers)

    def cancel_received(self) -> None:
        """End the call after its caller's CANCEL, unless it was answered before."""
        if not self._final_sent:
            self.ended_by_peer = True
            self._refuse(487, None, ())

    def bye_received(self, headers: Headers) -> None:
        """End the call; if it was not answered yet, as if it were cancelled (RFC 3261 §15.1.2)."""
        self.cancel_received()
        super().bye_received(headers)

    def ack_received(self) -> None:
        """Record that the caller has received the answer."""
        self.established.set()

    def _refuse(self, status: int, reason: str | None, headers: Sequence[tuple[str, str]]) -> None:
        if self._respond(make_response(self.request, status, reason, to_tag=self._to_tag, headers=headers)):
            self._end()

    def _in_dialog(self, status: int) -> Response:
        routes = [("Record-Route", value) for value in self.request.headers.getlist("Record-Route")]
        headers = [*routes, ("Contact", self._line.contact)]
        return make_response(self.request, status, to_tag=self._to_tag, headers=headers)

    def _respond(self, response: Response) -> bool:
        """Send a response; return False if a final one was sent before."""
        if self._final_sent:
            return False
        if response.code >= 200:
            self._final_sent = True
            self._patience.cancel()
        self._line.exchange.respond(self.key, response)
        return True

    async def _repeat(self, response: Response) -> None:
        timers = self._line.exchange.timers
        interval_s, waited_s = timers.t1_s, 0.0
        while waited_s < timers.patience_s and not self.ended.is_set():
            try:
                await asyncio.wait_for(self.established.wait(), interval_s)
                return
            except TimeoutError:
                waited_s += interval_s
                interval_s = min(2 * interval_s, timers.t2_s)
                self._line.exchange.respond(self.key, response)
        await self.bye()  # without an ACK the session must end (RFC 3261 §13.3.1.4)


def _verstat_in(uri: str) -> str | None:
    fields = uri.replace("@", ";").split(";")
    return next((field.removeprefix(_VERSTAT) for field in fields if field.startswith(_VERSTAT)), None)


def _answer_of(response: Response) -> FinalAnswer:
    return FinalAnswer(response.code, response.phrase, response.body, response.headers)
