"""UPDATE (RFC 3311): a dialog is refreshed, or its session changed, by one request and its answer.

Unlike a re-INVITE it can come before the call is answered, once a reliable response was acknowledged. An UPDATE
without an offer carries the verdict on the callee (`Leg.connected`), changes the other side's Contact, or refreshes
the session (RFC 4028).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sipmessage import Response

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.sip.dialog import Dialog
from voice_dpki.sip.message import header_values, make_response, parse_address
from voice_dpki.sip.transaction import RequestReceived
from voice_dpki.sip.uas import RequestRefusedError
from voice_dpki.wire.sip.changes import MAX_UPDATE_S, Changes, Reinvite
from voice_dpki.wire.sip.invitation import Invitation
from voice_dpki.wire.sip.line import MAX_TRIES, FinalAnswer, Line, answer_of, verstat_in

if TYPE_CHECKING:
    from voice_dpki.wire.sip.call import Leg

METHOD: Final = "UPDATE"


class Update(Reinvite):
    """An UPDATE of the other side with an offer, to be answered once, by `accept` or `refuse`; no ACK follows."""

    limit_s = MAX_UPDATE_S
    _progress = "updated"

    async def accept(self, sdp: bytes, apply: Callable[[], None] | None = None) -> bytes:
        """Accept the change with `sdp`, our answer; returns nothing, as there is no ACK.

        `apply` is as in `Reinvite.accept`. Raises UnchangedError if the call has ended, and if the other side's new
        Contact cannot be used, which refuses the change.
        """
        self._answer(sdp, apply)
        self._changes.note(updated=False)
        return b""


class Updates:
    """The UPDATEs of one call, in either direction."""

    def __init__(self, line: Line, leg: "Leg", changes: Changes) -> None:
        self._line = line
        self._leg = leg
        self._changes = changes

    def receive(self, dialog: Dialog, event: RequestReceived, *, answered: bool) -> None:
        """Process an UPDATE whose CSeq is in order; raises RequestRefusedError if it cannot be taken now.

        `answered` tells whether each offer of the other side has its answer, without which it may make no other
        (RFC 3311 §5.2).
        """
        request = event.request
        self._changes.progress.check_updated(
            self._line.exchange.random, offers=bool(request.body), answered=answered
        )
        if request.body:
            invitation = Invitation(self._line.exchange, event)
            self._changes.update_received(Update(self._changes, self._line, dialog, invitation))
            return
        try:
            dialog.refresh(request)
        except MalformedError:
            raise RequestRefusedError(400) from None
        timed = self._changes.timer.answer_headers(request) if self._leg.is_confirmed else ()
        headers = (("Contact", self._line.contact), ("Allow", self._line.allow), *timed)
        self._line.exchange.respond(event.key, make_response(request, 200, headers=headers))
        if self._leg.is_confirmed:
            self._changes.refreshing.restart()
        self._hear(dialog, event)

    def _hear(self, dialog: Dialog, event: RequestReceived) -> None:
        """Take our domain's verdict on the callee; only its own proxy may assert it (RFC 3325 §5)."""
        values = header_values(event.request, "P-Asserted-Identity")
        try:
            asserted = str(parse_address(values[0]).uri) if values else ""
        except MalformedError:
            return
        if event.source.is_from(self._line.proxy) and (verstat := verstat_in(asserted)) is not None:
            self._leg.verdicts[dialog.remote_tag] = verstat
            if self._leg.on_connected is not None:
                self._leg.on_connected(verstat)

    async def send(self) -> FinalAnswer:
        """Send an UPDATE without an offer, again with a longer interval after a 422; see `Leg.update`."""
        dialog = self._leg.dialog
        if dialog is None or self._leg.ended.is_set():
            raise LocalError("a call that is over, or not up, cannot be refreshed")
        for _ in range(MAX_TRIES):
            timed = self._changes.timer.request_headers() if self._leg.is_confirmed else ()
            headers = (("Contact", self._line.contact), ("Allow", self._line.allow), *timed)
            response = await self._leg.ask(METHOD, headers)
            if not self._changes.timer.take_refusal(response):
                break
        if 200 <= response.code < 300:
            self._take(dialog, response)
        return answer_of(response)

    def _take(self, dialog: Dialog, response: Response) -> None:
        try:
            dialog.refresh(response)
        except MalformedError:
            return  # the old Contact stays
        if self._leg.is_confirmed:
            self._changes.timer.take_answer(response)
            self._changes.refreshing.restart()
