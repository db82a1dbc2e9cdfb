"""Calls of a user agent: placed and incoming ones."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import Final

from sipmessage import Headers, Request, Response

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.sip import session_timer
from voice_dpki.sip.dialog import Dialog
from voice_dpki.sip.message import Envelope, header_values, make_response, parse_address, set_body
from voice_dpki.sip.sdp import CONTENT_TYPE
from voice_dpki.sip.transaction import RequestReceived, TransactionKey
from voice_dpki.wire.sip.changes import Changes, Reinvite, UnchangedError
from voice_dpki.wire.sip.invitation import Invitation
from voice_dpki.wire.sip.line import MAX_TRIES, FinalAnswer, Line, answer_of, set_headers, verstat_in
from voice_dpki.wire.sip.referral import Referrals

MAX_RING_S: Final = 180.0
"""An incoming call that is not answered within this time is refused with 480."""


class Leg:
    """The part that placed and incoming calls share: a dialog, its changes, and its end."""

    owns_call_id = False
    """Whether this end made the Call-ID."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.dialog: Dialog | None = None
        self.ended = asyncio.Event()
        """Set once the call is over, also if it was never answered."""
        self.ended_by_peer = False
        self.end_headers = Headers()
        """Header fields of the received BYE, such as Reason."""
        self._changes = Changes(line, self.ended, self.bye)
        self.referrals = Referrals(line, self)
        """Transfers of the call by REFER."""

    @property
    def is_up(self) -> bool:
        """Whether the call was answered, and has not ended."""
        return self.dialog is not None and not self.ended.is_set()

    async def reinvite(self, offer: Callable[[], bytes]) -> FinalAnswer:
        """Offer a change of the session by re-INVITE, and return the final answer.

        `offer` makes the description just before each try, as a change of the other side may have come first.
        Unless that is a 2xx, the session is unchanged. Waits until no other INVITE is in progress, and tries again
        after a 491 (RFC 3261 §14.1). The call ends if the answer shows that the dialog is gone.

        Raises LocalError if the call is not up.
        """
        if self.dialog is None:
            raise LocalError("a call that is not up cannot be changed")
        return await self._changes.offer(self.dialog, offer, owns_call_id=self.owns_call_id)

    def on_reinvite(self, callback: Callable[[Reinvite], Awaitable[None]]) -> None:
        """Have `callback` run as a task for each re-INVITE of the other side. Without it they get 488."""
        self._changes.on_reinvite = callback

    def on_refresh(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Have `callback` send a re-INVITE when a refresh is due and it is ours (RFC 4028 §10).

        Without it such a refresh is not sent, and the other side ends the call.
        """
        self._changes.refreshing.refresh = callback

    def reinvite_received(self, event: RequestReceived) -> None:
        """Process a re-INVITE whose CSeq is in order; raises RequestRefusedError if it cannot be taken now."""
        assert self.dialog is not None
        self._changes.receive(self.dialog, event)

    def cancel_received(self, key: TransactionKey) -> None:
        """Refuse the INVITE that the other side cancels, unless it was answered before."""
        self._changes.cancel_received(key)

    async def bye(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """End the call: send BYE and wait for its answer or timeout. A second call does nothing.

        `headers` are added to the BYE, for instance a Reason (RFC 3326).
        """
        if self.dialog is None or self.ended.is_set():
            return
        self._end()
        request = self.dialog.request("BYE")
        request.headers.set("Supported", session_timer.OPTION)
        for name, value in headers:
            request.headers.add(name, value)
        await self._line.exchange.ask(request, self.dialog.next_hop())

    async def ask(self, method: str, headers: Sequence[tuple[str, str]], body: bytes = b"") -> Response:
        """Send a request within the call, again if it needs credentials, and return the final response.

        `headers` include the Content-Type of a `body`. Raises LocalError if the call was never up.
        """
        if self.dialog is None:
            raise LocalError("a call that is not up has no dialog")
        request = self.dialog.request(method)
        for name, value in headers:
            request.headers.add(name, value)
        request.body = body
        for _ in range(MAX_TRIES):
            response = await self._line.exchange.ask(request, self.dialog.next_hop())
            if not self._line.account.authorize(request, response, self._line.exchange.random):
                break
            self.dialog.local_sequence += 1
            request.headers.set("CSeq", f"{self.dialog.local_sequence} {method}")
        return response

    def hang_up(self) -> None:
        """End the call without waiting for an answer."""
        self._line.exchange.run(self.bye())

    def bye_received(self, headers: Headers) -> None:
        """Record that the other side has ended the call, with a BYE of these header fields."""
        self.ended_by_peer, self.end_headers = True, headers
        self._changes.call_ended()
        self._end()

    def ack_received(self, sequence: int, body: bytes) -> None:
        """Process the other side's ACK of the INVITE with this CSeq number."""
        self._changes.ack_received(sequence, body)

    def _end(self) -> None:
        self._changes.refreshing.stop()
        self.ended.set()
        self._line.closed(self)


class Call(Leg):
    """A call that this user agent places."""

    owns_call_id = True

    def __init__(self, line: Line, invite: Request) -> None:
        super().__init__(line)
        self.ringing = asyncio.Event()
        """Set once a provisional response other than 100 has arrived."""
        self._invite = invite
        self.call_id = invite.headers["Call-ID"]
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
        set_headers(self._invite, self._changes.timer.request_headers())
        self._key = self._line.exchange.send(self._invite, self._line.proxy, self._response)

    def _response(self, response: Response, envelope: Envelope | None) -> None:
        if response.code < 200:
            if response.code > 100:
                self.ringing.set()
        elif response.code < 300 and envelope is not None:
            self._accepted(response, envelope)
        elif self._authorize(response) or self._lengthen(response):
            self._send()
        else:
            self._finish(answer_of(response))

    def _lengthen(self, response: Response) -> bool:
        """Return whether to call again with a longer session interval, after a 422 (RFC 4028 §7.3)."""
        if self._cancelled or self._tries >= MAX_TRIES or not self._changes.timer.take_refusal(response):
            return False
        sequence = int(self._invite.headers["CSeq"].split()[0]) + 1
        self._invite.headers.set("CSeq", f"{sequence} INVITE")
        return True

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
        self._changes.timer.take_answer(response)
        self._changes.refreshing.restart()
        self._finish(answer_of(response))
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

    def __init__(self, line: Line, event: RequestReceived, replaced: Leg | None = None) -> None:
        super().__init__(line)
        self.replaced = replaced
        """The call whose place this one is to take (RFC 3891), which its owner must end if it answers."""
        self._invitation = Invitation(line.exchange, event)
        self.call_id = event.envelope.call_id
        self._from_proxy = event.source.is_from(line.proxy)
        self._to_tag = line.exchange.token()
        self.dialog: Dialog = Dialog.of_callee(event.request, event.envelope, self._to_tag)
        self.request = event.request
        self.sdp = event.request.body
        self.established = self._invitation.acknowledged
        """Set once the caller has acknowledged the answer."""
        self._changes.note(received=True)
        self._patience = asyncio.get_running_loop().call_later(MAX_RING_S, self._refuse, 480, None, ())

    @property
    def is_up(self) -> bool:
        """Whether the caller has acknowledged our answer, and the call has not ended."""
        return self.established.is_set() and super().is_up

    @property
    def ack_sdp(self) -> bytes:
        """What the ACK holds: the caller's answer, if the INVITE had no offer (RFC 3261 §13.2.1)."""
        return self._invitation.ack_body

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
        return verstat_in(self.asserted_identity or "")

    async def ring(self) -> None:
        """Send 180 Ringing."""
        self._respond(self._in_dialog(180))

    async def answer(self, sdp: bytes, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Accept the call: send 200 with `sdp`, again until the caller's ACK arrives (RFC 3261 §13.3.1.4).

        `headers` are added to it.
        """
        response = self._in_dialog(200)
        response.headers.set("Allow", self._line.allow)
        set_headers(response, self._changes.timer.answer_headers(self.request))
        for name, value in headers:
            response.headers.add(name, value)
        set_body(response, sdp, CONTENT_TYPE)
        if self._respond(response):
            self._changes.refreshing.restart()
            self._line.exchange.run(self._repeat(response))

    async def _repeat(self, response: Response) -> None:
        with suppress(UnchangedError):  # the call is over then
            await self._changes.acknowledged(self._invitation, response)

    async def reject(self, status: int, reason: str | None = None, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse the call with a status from 300 to 699."""
        self._refuse(status, reason, headers)

    async def bye(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        """End the call; refuse it if it was not answered yet (RFC 3261 §15)."""
        self._refuse(480, None, headers)
        await super().bye(headers)

    def cancel_received(self, key: TransactionKey) -> None:
        """End the call after its caller's CANCEL of the INVITE, unless that was answered before."""
        super().cancel_received(key)
        if key == self._invitation.key and not self._invitation.is_answered:
            self.ended_by_peer = True
            self._refuse(487, None, ())

    def bye_received(self, headers: Headers) -> None:
        """End the call; if it was not answered yet, as if it were cancelled (RFC 3261 §15.1.2)."""
        self.cancel_received(self._invitation.key)
        super().bye_received(headers)

    def ack_received(self, sequence: int, body: bytes) -> None:
        """Process the ACK of the answer to the call, or of that to a re-INVITE."""
        if sequence == self._invitation.sequence:
            self._invitation.ack_received(body)
        else:
            super().ack_received(sequence, body)

    def _refuse(self, status: int, reason: str | None, headers: Sequence[tuple[str, str]]) -> None:
        if self._respond(make_response(self.request, status, reason, to_tag=self._to_tag, headers=headers)):
            self._end()

    def _in_dialog(self, status: int) -> Response:
        routes = [("Record-Route", value) for value in self.request.headers.getlist("Record-Route")]
        headers = [*routes, ("Contact", self._line.contact)]
        return make_response(self.request, status, to_tag=self._to_tag, headers=headers)

    def _respond(self, response: Response) -> bool:
        """Send a response; return False if a final one was sent before."""
        sent = self._invitation.respond(response)
        if self._invitation.is_answered:
            self._patience.cancel()
        return sent
