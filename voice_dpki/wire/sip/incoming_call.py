"""A call that a user agent receives."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from sipmessage import Headers, Response

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.sip import reliable
from voice_dpki.sip.dialog import Dialog
from voice_dpki.sip.message import header_values, make_response, parse_address, set_body
from voice_dpki.sip.sdp import CONTENT_TYPE
from voice_dpki.sip.transaction import RequestReceived, TransactionKey
from voice_dpki.wire.sip.call import Leg
from voice_dpki.wire.sip.changes import UnchangedError
from voice_dpki.wire.sip.invitation import Invitation
from voice_dpki.wire.sip.line import Line, set_headers, verstat_in
from voice_dpki.wire.sip.provisional import NO_PRACK, Provisionals, UnacknowledgedError

MAX_RING_S: Final = 180.0
"""An incoming call that is not answered within this time is refused with 480."""


class IncomingCall(Leg):
    """A call that this user agent receives."""

    def __init__(self, line: Line, event: RequestReceived) -> None:
        super().__init__(line)
        self._invitation = Invitation(line.exchange, event)
        self.call_id = event.envelope.call_id
        self._from_proxy = event.source.is_from(line.proxy)
        self._to_tag = line.exchange.token()
        self.dialog: Dialog = Dialog.of_callee(event.request, event.envelope, self._to_tag)
        self.request = event.request
        self.peer_methods = frozenset(header_values(event.request, "Allow"))
        self.sdp = event.request.body
        self.established = self._invitation.acknowledged
        """Set once the caller has acknowledged the answer."""
        self._provisionals = Provisionals(self._invitation, line.exchange, self.ended)
        self._changes.note(received=True)
        self._patience = asyncio.get_running_loop().call_later(MAX_RING_S, self._refuse, 480, None, ())

    @property
    def is_up(self) -> bool:
        """Whether the caller has acknowledged our answer, and the call has not ended."""
        return self.established.is_set() and super().is_up

    @property
    def status(self) -> int | None:
        """The status of our final response; None before that."""
        return self._invitation.status

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

    @property
    def takes_early(self) -> bool:
        """Whether the caller takes an answer before the call is answered, as `progress` gives it (RFC 3262)."""
        return bool(self.sdp) and reliable.is_supported(self.request)

    @property
    def is_confirmed(self) -> bool:
        """Whether the call was answered, and has not ended."""
        return self._invitation.is_answered and not self.ended.is_set()

    def update_received(self, dialog: Dialog, event: RequestReceived) -> None:
        """Process an UPDATE; before the answer it may offer a change if the first offer has its answer."""
        confirmed, progress = self._invitation.is_answered, self._changes.progress
        answered = not progress.received if confirmed else self._provisionals.has_answer
        self._updates.receive(dialog, event, answered=answered)

    async def ring(self) -> None:
        """Send 180 Ringing, reliably if the caller demands that; raises UnacknowledgedError.

        Where a reliable response would have to hold our offer (RFC 3261 §13.2.1), it is left out.
        """
        if not reliable.is_required(self.request):
            self._respond(self._in_dialog(180))
        elif self.sdp:
            await self._reliably(self._in_dialog(180))

    async def progress(self, sdp: bytes) -> None:
        """Answer the offer of a caller that `takes_early` by a reliable 183, before the call is answered.

        Returns once the caller has acknowledged it. Raises UnacknowledgedError if it does not, which refuses the
        call, or if the call is over; and LocalError for another caller.
        """
        if not self.takes_early:
            raise LocalError("the caller takes no answer before the call is answered")
        response = self._in_dialog(183)
        set_body(response, sdp, CONTENT_TYPE)
        await self._reliably(response)

    async def _reliably(self, response: Response) -> None:
        try:
            await self._provisionals.send(response)
        except UnacknowledgedError:
            self._refuse(NO_PRACK, None, ())
            raise

    def prack_received(self, event: RequestReceived) -> None:
        """Answer a PRACK; raises RequestRefusedError if it acknowledges nothing of ours."""
        self._provisionals.receive(event)

    async def answer(self, sdp: bytes, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Accept the call: send 200 with `sdp`, again until the caller's ACK arrives (RFC 3261 §13.3.1.4).

        `headers` are added to it. After `progress` the 200 has no session description: the answer was given.
        """
        await self._provisionals.settled()
        response = self._in_dialog(200)
        response.headers.set("Allow", self._line.allow)
        set_headers(response, self._changes.timer.answer_headers(self.request))
        for name, value in headers:
            response.headers.add(name, value)
        if not self._provisionals.has_answer:
            set_body(response, sdp, CONTENT_TYPE)
        if self._respond(response):
            self._changes.refreshing.restart()
            self._line.exchange.run(self._repeat(response))

    async def _repeat(self, response: Response) -> None:
        with suppress(UnchangedError):  # the call is over then
            await self._changes.acknowledged(self._invitation, response)

    async def reject(
        self, status: int, reason: str | None = None, headers: Sequence[tuple[str, str]] = (), sdp: bytes = b""
    ) -> None:
        """Refuse the call with a status from 300 to 699, and with what could be accepted, if `sdp` is given."""
        self._refuse(status, reason, headers, sdp)

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

    def _refuse(
        self, status: int, reason: str | None, headers: Sequence[tuple[str, str]], sdp: bytes = b""
    ) -> None:
        response = make_response(self.request, status, reason, to_tag=self._to_tag, headers=headers)
        if sdp:
            set_body(response, sdp, CONTENT_TYPE)
        if self._respond(response):
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
