"""Calls of a user agent: what placed and incoming ones share, and the placed ones."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from sipmessage import Headers, Request, Response

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.sip import session_timer
from voice_dpki.sip.dialog import Dialog
from voice_dpki.sip.message import Envelope, Hop, header_values
from voice_dpki.sip.transaction import RequestReceived, TransactionKey
from voice_dpki.sip.uas import RequestRefusedError
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.sip.changes import DIALOG_ENDS, Changes, Reinvite
from voice_dpki.wire.sip.early_dialogs import MAX_EARLY_DIALOGS, EarlyAnswer, EarlyDialogs
from voice_dpki.wire.sip.line import MAX_TRIES, SUPPORTED, FinalAnswer, Line, answer_of, set_headers
from voice_dpki.wire.sip.referral import Referrals
from voice_dpki.wire.sip.updates import Updates

if TYPE_CHECKING:
    from voice_dpki.wire.sip.incoming_call import IncomingCall

log = logging.getLogger(__name__)
_SAID = Seldom(log)


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
        """Header fields of the BYE that has ended the call, such as Reason, whoever sent it."""
        self._changes = Changes(line, self.ended, self.bye)
        self.on_replaced: Callable[[IncomingCall], Awaitable[None]] | None = None
        """Runs as a task for each call that is to replace this one (RFC 3891), and ends this one if it answers the
        new one. Without it, such calls are declined with 603."""
        self.referrals = Referrals(line, self)
        """Transfers of the call by REFER."""
        self.peer_methods: frozenset[str] = frozenset()
        """The methods that the other side says it supports (Allow)."""
        self.verdicts: dict[str, str] = {}
        """Our domain's verdict on the number of each telephone that rings or has answered, by the tag of its
        dialog: from the newest UPDATE in that dialog (RFC 9970)."""
        self.on_connected: Callable[[str], None] | None = None
        """Called with each of `verdicts` when it arrives."""
        self._updates = Updates(line, self, self._changes)

    @property
    def connected(self) -> str | None:
        """Our domain's verdict on the number that has answered; before the answer, on the only one that rings."""
        if self.dialog is not None:
            return self.verdicts.get(self.dialog.remote_tag)
        told = list(self.verdicts.values())
        return told[0] if len(told) == 1 else None

    @property
    def is_up(self) -> bool:
        """Whether the call was answered, and has not ended."""
        return self.dialog is not None and not self.ended.is_set()

    @property
    def is_confirmed(self) -> bool:
        """Whether a 2xx has been sent or received, and the call has not ended."""
        return self.is_up

    @property
    def key(self) -> tuple[str, str] | None:
        """Call-ID and our own tag, by which requests of the other side find the call; None without a dialog."""
        return (self.dialog.call_id, self.dialog.local_tag) if self.dialog else None

    def dialog_with(self, tag: str) -> Dialog | None:
        """Return the dialog with the telephone of this tag; None for a stranger's (RFC 3261 §12.2.2)."""
        return self.dialog if self.dialog is not None and self.dialog.remote_tag == tag else None

    async def update(self) -> FinalAnswer:
        """Send an UPDATE without an offer, which refreshes the call (RFC 3311), and return the final answer.

        A callee may send it once the other side has acknowledged its `progress`; our domain then adds the verdict
        on the callee. The call ends if the answer shows that the dialog is gone.

        Raises LocalError if the call is not up.
        """
        answer = await self._updates.send()
        if answer.status in DIALOG_ENDS:
            await self.bye()
        return answer

    def update_received(self, dialog: Dialog, event: RequestReceived) -> None:
        """Process an UPDATE within `dialog` whose CSeq is in order; raises RequestRefusedError."""
        self._updates.receive(dialog, event, answered=not self._changes.progress.received)

    async def reinvite(self, offer: Callable[[], bytes]) -> FinalAnswer:
        """Offer a change of the session by re-INVITE, and return the final answer.

        `offer` makes the description just before each attempt, because the other side may have changed the
        session. Unless the answer is a 2xx, the session is unchanged.
        Waits until no other INVITE is in progress, and tries again
        after a 491 (RFC 3261 §14.1). The call ends if the answer shows that the dialog is gone.

        Raises LocalError if the call is not up.
        """
        if self.dialog is None:
            raise LocalError("a call that is not up cannot be changed")
        return await self._changes.offer(self.dialog, offer, owns_call_id=self.owns_call_id)

    def on_reinvite(self, callback: Callable[[Reinvite], Awaitable[None]]) -> None:
        """Have `callback` run as a task for each re-INVITE of the other side. Without it, re-INVITEs get 488."""
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

    def prack_received(self, event: RequestReceived) -> None:
        """Answer a PRACK whose CSeq is in order; raises RequestRefusedError if it acknowledges nothing of ours."""
        raise RequestRefusedError(481)

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
            self.end_headers.add(name, value)
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
        self._changes.call_ended()
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
        self._tag = str(invite.from_address.parameters["tag"])
        self._key: TransactionKey | None = None
        self._started_s = perf_counter()
        self._answer: asyncio.Future[FinalAnswer] = asyncio.get_running_loop().create_future()
        self._acks: dict[str, tuple[Request, Hop]] = {}
        """The ACK of each telephone that has answered, by its tag, and where it goes."""
        self._hanging_up: set[str] = set()
        """Tags of telephones beyond MAX_EARLY_DIALOGS whose BYE has no answer yet."""
        self._cancelled = False
        self._tries = 0
        self._early = EarlyDialogs(line)
        line.opened(self)
        self._send()

    @property
    def key(self) -> tuple[str, str]:
        """Call-ID and our own tag, which every telephone that rings uses."""
        return self.call_id, self._tag

    def dialog_with(self, tag: str) -> Dialog | None:
        """Return the dialog with the telephone of this tag; before the answer, an early one of several."""
        return super().dialog_with(tag) if self.dialog else self._early.dialog_with(tag)

    def update_received(self, dialog: Dialog, event: RequestReceived) -> None:
        """Process an UPDATE; before the answer it may change no session, as several telephones may ring."""
        if dialog is not self.dialog and event.request.body:
            raise RequestRefusedError(488)
        super().update_received(dialog, event)

    async def answered(self) -> FinalAnswer:
        """Wait for the final answer: 2xx, or the status that refused the call (408 or 503 if none came)."""
        return await asyncio.shield(self._answer)

    def on_early(self, callback: Callable[[EarlyAnswer], None]) -> None:
        """Have `callback` called with the answer that each telephone gives before the final one (RFC 3262 §5)."""
        self._early.on_answer = callback

    @property
    def is_answered(self) -> bool:
        """Whether the final answer has arrived."""
        return self._answer.done()

    @property
    def is_cancelled(self) -> bool:
        """Whether we have cancelled the call, even if an answer has crossed that."""
        return self._cancelled

    def give_up(self) -> None:
        """Cancel the call, or end it if it was answered, without waiting for an answer."""
        (self.hang_up if self.is_answered else self.cancel)()

    def cancel(self) -> None:
        """Cancel the call while it is not answered (RFC 3261 §9.1); its answer is then usually 487.

        If the other side answers first, the call is ended at once.
        """
        self._cancelled = True
        if self._key is not None:
            self._line.exchange.cancel(self._key)

    def _send(self) -> None:
        self._tries += 1
        set_headers(self._invite, (*self._changes.timer.request_headers(), ("Supported", SUPPORTED)))
        self._key = self._line.exchange.send(self._invite, self._line.proxy, self._response)

    def _response(self, response: Response, envelope: Envelope | None) -> None:
        if response.code < 200:
            if response.code > 100 and envelope is not None:
                self.ringing.set()
                self._early.receive(self._invite, response, envelope)
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
        if envelope.to_tag in self._acks:
            self._line.exchange.send_ack(*self._acks[envelope.to_tag])
            return
        try:
            dialog = Dialog.of_caller(self._invite, response, envelope)
            early_sdp = self._early.confirm(dialog, envelope.to_tag)
            ack, hop = dialog.request("ACK", envelope.sequence), dialog.next_hop()
        except MalformedError as error:
            self._unusable(error)
            return
        if len(self._acks) >= MAX_EARLY_DIALOGS:
            self._hang_up_on(dialog, ack, hop)
            return
        self._acks[envelope.to_tag] = ack, hop
        self._line.exchange.send_ack(ack, hop)
        if self.dialog is not None:  # another branch of a forked call has answered before
            self._line.exchange.run(self._line.exchange.ask(dialog.request("BYE"), hop))
            return
        self.dialog = dialog
        self.peer_methods = frozenset(header_values(response, "Allow"))
        self._changes.timer.take_answer(response)
        self._changes.refreshing.restart()
        answer = answer_of(response)
        self._finish(replace(answer, sdp=early_sdp or answer.sdp, tag=envelope.to_tag))
        if self._cancelled:
            self.hang_up()

    def _hang_up_on(self, dialog: Dialog, ack: Request, hop: Hop) -> None:
        """Acknowledge a 2xx of a telephone without an early dialog here, and end its dialog by BYE.

        While too many BYEs are unanswered, the 2xx gets no ACK, and so is retransmitted.
        """
        tag = dialog.remote_tag
        if tag in self._hanging_up:
            self._line.exchange.send_ack(ack, hop)
        elif len(self._hanging_up) < MAX_EARLY_DIALOGS:
            _SAID.info("a call that many telephones answer", kept=MAX_EARLY_DIALOGS)
            self._hanging_up.add(tag)
            self._line.exchange.send_ack(ack, hop)
            self._line.exchange.run(self._bye_to(dialog, hop))

    async def _bye_to(self, dialog: Dialog, hop: Hop) -> None:
        try:
            await self._line.exchange.ask(dialog.request("BYE"), hop)
        finally:
            self._hanging_up.discard(dialog.remote_tag)

    def _unusable(self, error: MalformedError) -> None:
        """Give up after a 2xx that makes no dialog, unless another telephone has answered before."""
        if self.dialog is None:
            self._finish(FinalAnswer(500, f"no dialog comes of the answer: {error}"))
        else:
            log.info("2xx of a further telephone ignored", extra={"fields": {"reason": str(error)}})

    def _finish(self, answer: FinalAnswer) -> None:
        if not self._answer.done():
            setup_ms = (perf_counter() - self._started_s) * 1000
            self._answer.set_result(replace(answer, setup_ms=round(setup_ms, 3)))
        if answer.status >= 300:
            self.ended.set()
            self._line.closed(self)
