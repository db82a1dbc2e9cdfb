"""Answers to an INVITE, initial or re-INVITE: one final response; a 2xx is retransmitted until its ACK comes."""

import asyncio

from sipmessage import Response

from voice_dpki.sip.transaction import RequestReceived
from voice_dpki.wire.sip.exchange import Exchange
from voice_dpki.wire.tasks import first_of


class Invitation:
    """An INVITE that was received, with what has been answered so far."""

    def __init__(self, exchange: Exchange, event: RequestReceived) -> None:
        self.key = event.key
        self.request = event.request
        self.sequence = event.envelope.sequence
        self.status: int | None = None
        """That of the final response, once it was sent."""
        self.acknowledged = asyncio.Event()
        """Set once the ACK of our 2xx has come."""
        self.ack_body = b""
        """What the ACK holds: the answer, if our 2xx held the offer."""
        self._exchange = exchange

    @property
    def is_answered(self) -> bool:
        """Whether a final response was sent."""
        return self.status is not None

    def respond(self, response: Response) -> bool:
        """Send a response; return False, and send nothing, if a final one was sent before."""
        if self.is_answered:
            return False
        if response.code >= 200:
            self.status = response.code
        self._exchange.respond(self.key, response)
        return True

    def ack_received(self, body: bytes) -> None:
        """Record the ACK, which is repeated for each retransmission of the 2xx."""
        if not self.acknowledged.is_set():
            self.ack_body = body
            self.acknowledged.set()

    async def repeat(self, response: Response, ended: asyncio.Event) -> bool:
        """Retransmit a 2xx until its ACK comes (RFC 3261 §13.3.1.4) or the call has `ended`.

        Returns whether the ACK came; without one the session must end.
        """
        timers = self._exchange.timers
        interval_s, waited_s = timers.t1_s, 0.0
        while waited_s < timers.patience_s and not ended.is_set():
            try:
                async with asyncio.timeout(interval_s):
                    await first_of(self.acknowledged.wait(), ended.wait())
            except TimeoutError:
                waited_s += interval_s
                interval_s = min(2 * interval_s, timers.t2_s)
                self._exchange.respond(self.key, response)
            if self.acknowledged.is_set():
                return True
        return self.acknowledged.is_set()
