"""Changes of a call by re-INVITE, ours and the other side's (RFC 3261 §14): hold, other media, other keys."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final

from sipmessage import Request, Response

from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.sip.dialog import Dialog
from voice_dpki.sip.message import Envelope, make_response, set_body
from voice_dpki.sip.reinvite import InviteProgress, glare_wait_s
from voice_dpki.sip.sdp import CONTENT_TYPE
from voice_dpki.sip.session_timer import SessionTimer
from voice_dpki.sip.transaction import RequestReceived, TransactionKey
from voice_dpki.sip.uas import RequestRefusedError
from voice_dpki.wire.sip.invitation import Invitation
from voice_dpki.wire.sip.line import MAX_TRIES, FinalAnswer, Line, answer_of, set_headers
from voice_dpki.wire.sip.refreshing import Refreshing
from voice_dpki.wire.tasks import first_of

log = logging.getLogger(__name__)

MAX_CHANGE_S: Final = 90.0
"""Longest time until our side answers a re-INVITE, and again from then until the change is complete.

The ACK alone can take 32 s, and a change passed on to another leg may have to be undone."""

MAX_UPDATE_S: Final = 16.0
"""The same for an UPDATE with an offer, which is to be answered promptly (RFC 3311 §5.2).

Its sender waits for 64*T1, 32 s as a rule; an answer after that would change our side alone."""

MAX_UNACKNOWLEDGED: Final = 2
"""Re-INVITEs whose ACK may be missing at the same time; a further one has to wait."""

DIALOG_ENDS: Final = (408, 481)
"""Final responses, or their absence, after which there is no dialog any more (RFC 3261 §12.2.1.2)."""

TOO_LATE: Final = ("Reason", 'SIP;cause=487;text="a change was accepted after it had been given up"')
"""Header field of the BYE that ends a call whose other side has taken a change that ours has not."""


class UnchangedError(PeerError):
    """A change of the other side that we accepted did not come about."""


class Changes:
    """The changes of one call, one at a time.

    `on_reinvite` runs as a task for each re-INVITE of the other side; without it they are refused with 488, which
    leaves the session as it is. `end` ends the call.
    """

    def __init__(
        self,
        line: Line,
        ended: asyncio.Event,
        end: Callable[[Sequence[tuple[str, str]]], Coroutine[object, object, None]],
    ) -> None:
        self.on_reinvite: Callable[[Reinvite], Awaitable[None]] | None = None
        self.progress = InviteProgress()
        self.timer = SessionTimer(line.session_s)
        self.refreshing = Refreshing(self.timer, ended, line.exchange.run, end)
        self._line = line
        self._ended = ended
        self._end = end
        self._lock = asyncio.Lock()
        self._idle = asyncio.Event()
        """Set while no INVITE transaction is in progress."""
        self._idle.set()
        self._received: Reinvite | None = None
        self._unacknowledged: list[Invitation] = []
        """Re-INVITEs whose 2xx has no ACK yet: the ACK can be lost before a newer re-INVITE arrives."""
        self._updating: Reinvite | None = None
        """The UPDATE with an offer that was received last."""

    def note(self, **progress: bool) -> None:
        """Record the progress of an INVITE transaction, by the fields of InviteProgress."""
        for name, value in progress.items():
            setattr(self.progress, name, value)
        (self._idle.set if self.progress.may_send else self._idle.clear)()

    async def offer(self, dialog: Dialog, offer: Callable[[], bytes], *, owns_call_id: bool) -> FinalAnswer:
        """Send a re-INVITE with what `offer` makes; see `Leg.reinvite`.

        Cancelled while it waits for the answer, it gives the re-INVITE up, as `_SentReinvite.give_up` says.
        """
        async with self._lock:
            for tries in range(1, MAX_TRIES + 1):
                await first_of(self._idle.wait(), self._ended.wait())
                answer = await self._try(dialog, offer)
                if answer.status != 491 or tries == MAX_TRIES:
                    break
                wait_s = glare_wait_s(self._line.exchange.random, owns_call_id=owns_call_id)
                await first_of(asyncio.sleep(wait_s), self._ended.wait())
        if answer.status in DIALOG_ENDS:
            await self._end(())
        return answer

    async def _try(self, dialog: Dialog, offer: Callable[[], bytes]) -> FinalAnswer:
        if self._ended.is_set():
            raise LocalError("a call that is over cannot be changed")
        sdp = offer()  # before the request takes a CSeq number, because it can raise
        request = dialog.request("INVITE")
        request.headers.set("Contact", self._line.contact)
        request.headers.set("Allow", self._line.allow)
        set_body(request, sdp, CONTENT_TYPE)
        sent = _SentReinvite(self, self._line, dialog, request)
        try:
            return await asyncio.shield(sent.answer)
        except asyncio.CancelledError:
            sent.give_up()
            raise

    def given_up(self, answer: FinalAnswer) -> None:
        """Process the answer to an abandoned re-INVITE of ours: both sides must keep the same session."""
        if self._ended.is_set():
            return
        if 200 <= answer.status < 300:
            log.warning("a change was accepted after it had been given up, which ends the call")
            self._line.exchange.run(self._end((TOO_LATE,)))
        elif answer.status in DIALOG_ENDS:
            self._line.exchange.run(self._end(()))

    def receive(self, dialog: Dialog, event: RequestReceived) -> None:
        """Process a re-INVITE whose CSeq is in order; raises RequestRefusedError if it cannot be taken now."""
        self.progress.check_received(self._line.exchange.random)
        if self.on_reinvite is None:
            raise RequestRefusedError(488)
        if len(self._unacknowledged) == MAX_UNACKNOWLEDGED:
            raise RequestRefusedError(500, (("Retry-After", "1"),))
        self.note(received=True)
        self._received = Reinvite(self, self._line, dialog, Invitation(self._line.exchange, event))
        self._line.exchange.run(self._serve(self.on_reinvite, self._received))

    async def _serve(self, on_reinvite: Callable[["Reinvite"], Awaitable[None]], change: "Reinvite") -> None:
        """Let the owner answer a re-INVITE in time; refuse it if the owner does not."""
        status = 500
        try:
            async with asyncio.timeout(change.limit_s) as change.limit:
                await on_reinvite(change)
        except TimeoutError:
            status = 504
            log.warning("a change of the call took too long", extra={"fields": {"answered": change.is_answered}})
        except UnchangedError as error:
            log.info("a change of the call did not come about", extra={"fields": {"reason": str(error)}})
        except Exception:
            log.exception("a re-INVITE was not handled")
        finally:
            change.refuse(status)

    def update_received(self, update: "Reinvite") -> None:
        """Let the owner answer an UPDATE with an offer, as it does with a re-INVITE; raises RequestRefusedError."""
        if self.on_reinvite is None:
            raise RequestRefusedError(488)
        self.note(updated=True)
        self._updating = update
        self._line.exchange.run(self._serve(self.on_reinvite, update))

    async def acknowledged(self, invitation: Invitation, response: Response) -> None:
        """Wait for the ACK of our 2xx `response`, and end the call if it does not come; raises UnchangedError."""
        self._unacknowledged.append(invitation)
        self.note(received=False, unacknowledged=True, offered=not invitation.request.body)
        try:
            came = await invitation.repeat(response, self._ended)
        finally:
            self._unacknowledged.remove(invitation)
            left = self._unacknowledged
            self.note(unacknowledged=bool(left), offered=any(not each.request.body for each in left))
        if not came:
            await self._end(())
            raise UnchangedError("our answer was not acknowledged, so the call is over")

    def ack_received(self, sequence: int, body: bytes) -> None:
        """Process the ACK of the re-INVITE with this CSeq number."""
        for invitation in self._unacknowledged:
            if sequence == invitation.sequence:
                invitation.ack_received(body)

    def cancel_received(self, key: TransactionKey) -> None:
        """Refuse the re-INVITE that the other side cancels, unless it was answered before."""
        if self._received is not None and self._received.key == key:
            self._received.refuse(487)

    def call_ended(self) -> None:
        """Refuse what is not answered yet (RFC 3261 §15.1.2), and stop the session timer."""
        self.refreshing.stop()
        for change in (self._received, self._updating):
            if change is not None:
                change.refuse(487)

    def check_goes_on(self, change: "Reinvite") -> None:
        """Raise UnchangedError if a change was answered before, or if the call has ended; then refuse it too."""
        if self._ended.is_set():
            change.refuse(487)
        if change.is_answered:
            raise UnchangedError("it was cancelled, or the call has ended")


class Reinvite:
    """A re-INVITE of the other side, to be answered once, by `accept` or `refuse`."""

    limit_s = MAX_CHANGE_S
    """Longest time until it is answered."""

    _progress = "received"
    """The field of InviteProgress that records it."""

    def __init__(self, changes: Changes, line: Line, dialog: Dialog, invitation: Invitation) -> None:
        self.key = invitation.key
        self.call_id = dialog.call_id
        self._changes = changes
        self._line = line
        self._dialog = dialog
        self._invitation = invitation
        self.limit: asyncio.Timeout | None = None
        """Timeout of the owner's work on it; `accept` restarts it."""

    @property
    def sdp(self) -> bytes:
        """The offer; empty if our answer must hold the offer, and the ACK the answer (RFC 3261 §14.2)."""
        return self._invitation.request.body

    @property
    def is_answered(self) -> bool:
        """Whether it has its final response."""
        return self._invitation.is_answered

    @property
    def is_overdue(self) -> bool:
        """Whether the time for the work on it is over, which cancels that."""
        return self.limit is not None and self.limit.expired()

    async def accept(self, sdp: bytes, apply: Callable[[], None] | None = None) -> bytes:
        """Accept the change with `sdp`, our answer or offer; returns what the ACK holds, once that has come.

        `apply` makes the change just before the 200 is sent; what it raises leaves the re-INVITE unanswered.

        Raises UnchangedError if the change was cancelled, if the other side's new Contact cannot be used, which
        refuses the change, and if the ACK does not come, which ends the call.
        """
        response = self._answer(sdp, apply)
        await self._changes.acknowledged(self._invitation, response)
        return self._invitation.ack_body

    def _answer(self, sdp: bytes, apply: Callable[[], None] | None) -> Response:
        """Send a 200 with `sdp`, and return it; raises UnchangedError."""
        if self.limit is not None:
            self.limit.reschedule(asyncio.get_running_loop().time() + MAX_CHANGE_S)
        self._changes.check_goes_on(self)
        try:
            self._dialog.refresh(self._invitation.request)
        except MalformedError as error:
            self.refuse(400, f"Bad Request: {error}")
            raise UnchangedError(f"its Contact cannot be used: {error}") from None
        timed = self._changes.timer.answer_headers(self._invitation.request)
        headers = [("Contact", self._line.contact), ("Allow", self._line.allow), *timed]
        response = make_response(self._invitation.request, 200, headers=headers)
        set_body(response, sdp, CONTENT_TYPE)
        if apply is not None:
            apply()
        self._invitation.respond(response)
        self._changes.refreshing.restart()
        return response

    def refuse(
        self, status: int, reason: str | None = None, headers: Sequence[tuple[str, str]] = (), sdp: bytes = b""
    ) -> None:
        """Refuse the change with a status from 300 to 699, and leave the session as it is; not after an answer.

        `sdp`, if given, describes what could be accepted.
        """
        response = make_response(self._invitation.request, status, reason, headers=headers)
        if sdp:
            set_body(response, sdp, CONTENT_TYPE)
        if self._invitation.respond(response):
            self._changes.note(**{self._progress: False})


class _SentReinvite:
    """A re-INVITE of ours: it takes the responses, and acknowledges each 2xx (RFC 3261 §13.2.2.4)."""

    def __init__(self, changes: Changes, line: Line, dialog: Dialog, request: Request) -> None:
        self.answer: asyncio.Future[FinalAnswer] = asyncio.get_running_loop().create_future()
        self._line = line
        self._dialog = dialog
        self._changes = changes
        self._request = request
        self._ack: Request | None = None
        self._tries = 0
        self._key: TransactionKey | None = None
        self._is_given_up = False
        self._changes.note(sent=True)
        self._send()

    def give_up(self) -> None:
        """Cancel the re-INVITE, which nobody waits for any more, after a provisional response (RFC 3261 §9.1).

        No other INVITE begins before its final response. If a 2xx comes nevertheless, it is acknowledged, and the
        call ends: the old session cannot be offered again, because that can take new keys, and can be refused too.
        """
        self._is_given_up = True
        if self.answer.done():
            self._changes.given_up(self.answer.result())
        elif self._key is not None:
            self._line.exchange.cancel(self._key)

    def _send(self) -> None:
        self._tries += 1
        set_headers(self._request, self._changes.timer.request_headers())
        self._key = self._line.exchange.send(self._request, self._dialog.next_hop(), self._response)

    def _response(self, response: Response, envelope: Envelope | None) -> None:
        if response.code < 200:
            return
        if response.code < 300 and envelope is not None:
            self._accepted(response, envelope)
        elif self._authorize(response) or self._lengthen(response):
            self._send()
        else:
            self._finish(answer_of(response))

    def _lengthen(self, response: Response) -> bool:
        """Return whether to send the request again with a longer session interval, after a 422."""
        if not self._may_retry or not self._changes.timer.take_refusal(response):
            return False
        self._number()
        return True

    def _authorize(self, response: Response) -> bool:
        account, random = self._line.account, self._line.exchange.random
        if not self._may_retry or not account.authorize(self._request, response, random):
            return False
        self._number()
        return True

    @property
    def _may_retry(self) -> bool:
        return self._tries < MAX_TRIES and not self._is_given_up

    def _number(self) -> None:
        """Take the next CSeq number: another request may have taken the one after the first attempt's."""
        self._dialog.local_sequence += 1
        self._request.headers.set("CSeq", f"{self._dialog.local_sequence} INVITE")

    def _accepted(self, response: Response, envelope: Envelope) -> None:
        answer = answer_of(response)
        if self._ack is None:
            try:
                self._dialog.refresh(response)
            except MalformedError as error:
                answer = FinalAnswer(481, f"the Contact of the answer cannot be used: {error}")
            self._changes.timer.take_answer(response)
            self._changes.refreshing.restart()
            self._ack = self._dialog.request("ACK", envelope.sequence)
        self._line.exchange.send_ack(self._ack, self._dialog.next_hop())
        self._finish(answer)

    def _finish(self, answer: FinalAnswer) -> None:
        if self.answer.done():
            return
        self._changes.note(sent=False)
        self.answer.set_result(answer)
        if self._is_given_up:
            self._changes.given_up(answer)
