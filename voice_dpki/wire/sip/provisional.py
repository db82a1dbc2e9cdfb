"""Reliable provisional responses to an INVITE (RFC 3262 §3): each is sent again until its PRACK comes."""

import asyncio
from typing import Final

from sipmessage import Response

from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.sip.message import make_response
from voice_dpki.sip.reliable import OPTION, Rack, Sent
from voice_dpki.sip.transaction import RequestReceived
from voice_dpki.sip.uas import RequestRefusedError
from voice_dpki.wire.sip.exchange import Exchange
from voice_dpki.wire.sip.invitation import Invitation
from voice_dpki.wire.tasks import first_of

NO_PRACK: Final = 504
"""Status for an INVITE whose reliable response nobody acknowledges (§3 asks for a 5xx)."""


class UnacknowledgedError(PeerError):
    """A reliable provisional response was not acknowledged: no PRACK came, or the call is over."""


class Provisionals:
    """The reliable provisional responses of one incoming call, one after the other; `ended` is set at its end."""

    def __init__(self, invitation: Invitation, exchange: Exchange, ended: asyncio.Event) -> None:
        self.has_answer = False
        """Whether one of them held a session description, which is the answer to the INVITE's offer."""
        self._invitation = invitation
        self._exchange = exchange
        self._ended = ended
        self._sent = Sent(invitation.sequence, exchange.random)
        self._came = asyncio.Event()
        self._lock = asyncio.Lock()

    async def send(self, response: Response) -> None:
        """Send a response once the one before is acknowledged, and wait for its PRACK.

        Raises UnacknowledgedError if none comes in time, or the call is over.
        """
        async with self._lock:
            if self._ended.is_set() or self._invitation.is_answered:
                raise UnacknowledgedError("the call is over, or answered")
            response.headers.set("Require", OPTION)
            response.headers.set("RSeq", str(self._sent.next()))
            self.has_answer = self.has_answer or bool(response.body)
            self._came.clear()
            await self._repeat(response)

    async def settled(self) -> None:
        """Wait until nothing waits for its PRACK: a 2xx must not overtake a session description (§3)."""
        async with self._lock:
            pass

    async def _repeat(self, response: Response) -> None:
        """Send a response at intervals that double from T1, for 64*T1 at most (§3)."""
        timers = self._exchange.timers
        interval_s, left_s = timers.t1_s, timers.patience_s
        while left_s > 0:
            self._invitation.respond(response)
            try:
                async with asyncio.timeout(min(interval_s, left_s)):
                    await first_of(self._came.wait(), self._ended.wait())
            except TimeoutError:
                left_s -= interval_s
                interval_s *= 2
            else:
                break
        if not self._came.is_set():
            raise UnacknowledgedError("no PRACK came for a reliable provisional response, or the call is over")

    def receive(self, event: RequestReceived) -> None:
        """Answer a PRACK whose CSeq is in order; raises RequestRefusedError for one that acknowledges nothing.

        An offer in it is not taken: the response counts as acknowledged, and the PRACK gets 488.
        """
        try:
            rack = Rack.parse(event.request.headers.get("RAck") or "")
        except MalformedError:
            raise RequestRefusedError(400) from None
        if not self._sent.acknowledge(rack):
            raise RequestRefusedError(481)
        self._came.set()
        if event.request.body:
            raise RequestRefusedError(488)
        self._exchange.respond(event.key, make_response(event.request, 200))
