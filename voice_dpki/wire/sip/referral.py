"""Transfers of a call by REFER (RFC 3515), in either direction."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.sip.message import make_response
from voice_dpki.sip.refer import (
    EVENT,
    FRAGMENT,
    ReferTo,
    event_id,
    fragment_of,
    is_over,
    refer_to,
    referred_by,
    status_told,
)
from voice_dpki.sip.transaction import RequestReceived
from voice_dpki.sip.uas import RequestRefusedError
from voice_dpki.wire.sip.line import Line
from voice_dpki.wire.tasks import first_of

if TYPE_CHECKING:
    from voice_dpki.wire.sip.call import Leg

log = logging.getLogger(__name__)

EXPIRES_S: Final = 120
"""Lifetime of the subscription to the outcome of a REFER."""

_NOT_TOLD: Final = 408


class Referrals:
    """The REFERs of one call, one at a time each way.

    `on_refer` runs as a task for each REFER of the other side; without it they are declined with 603.
    """

    def __init__(self, line: Line, leg: "Leg") -> None:
        self.on_refer: Callable[[Referral], Awaitable[None]] | None = None
        self._line = line
        self._leg = leg
        self._told: asyncio.Future[int] | None = None
        """The final status of our REFER; None while there is none."""
        self._number = 0
        """CSeq number of our REFER at its first attempt; a retry has a higher one."""
        self._is_serving = False

    async def send(self, whom: ReferTo, own_uri: str) -> int:
        """Ask the other side to call somebody, and return the status with which that ended.

        That is the status with which it refused to call, if it did; 408 if it did not tell within EXPIRES_S, or the
        call ended before. Only a 2xx means that the new call is up. Raises LocalError if the call is not up.
        """
        dialog = self._leg.dialog
        if dialog is None or self._told is not None:
            raise LocalError("a call that is not up, or is being transferred, cannot be transferred")
        self._told, self._number = asyncio.get_running_loop().create_future(), dialog.local_sequence + 1
        try:
            headers = (
                ("Refer-To", whom.serialize()),
                ("Referred-By", f"<{own_uri}>"),
                ("Contact", self._line.contact),
            )
            response = await self._leg.ask("REFER", headers)
            if not 200 <= response.code < 300:
                return response.code
            return await self._outcome(self._told)
        finally:
            self._told = None

    async def _outcome(self, told: "asyncio.Future[int]") -> int:
        try:
            async with asyncio.timeout(EXPIRES_S):
                await first_of(asyncio.wait((told,)), self._leg.ended.wait())
        except TimeoutError:
            log.info("nobody told what became of a transfer")
        return told.result() if told.done() else _NOT_TOLD

    def notified(self, event: RequestReceived) -> None:
        """Take a NOTIFY about our REFER; raises RequestRefusedError for any other."""
        request = event.request
        try:
            number = event_id(request)
        except MalformedError:
            raise RequestRefusedError(489, (("Allow-Events", EVENT),)) from None
        if self._told is None or (number is not None and number < self._number):
            raise RequestRefusedError(481)
        if (request.headers.get("Content-Type") or "").split(";")[0].strip().lower() != FRAGMENT:
            raise RequestRefusedError(415, (("Accept", FRAGMENT),))
        try:
            status = status_told(request.body)
        except MalformedError:
            raise RequestRefusedError(400) from None
        if (status >= 200 or is_over(request)) and not self._told.done():
            self._told.set_result(status)

    def receive(self, event: RequestReceived) -> None:
        """Process a REFER of the other side; raises RequestRefusedError if it cannot be taken."""
        try:
            referral = Referral(self._line, self._leg, event)
        except MalformedError:
            raise RequestRefusedError(400) from None
        if self.on_refer is None:
            raise RequestRefusedError(603)
        if self._is_serving:
            raise RequestRefusedError(491)
        self._is_serving = True
        self._line.exchange.run(self._serve(self.on_refer, referral))

    async def _serve(self, on_refer: Callable[["Referral"], Awaitable[None]], referral: "Referral") -> None:
        """Let the owner process a REFER; notify the other side of a failure if the owner leaves it undone."""
        try:
            await on_refer(referral)
        except Exception:
            log.exception("a REFER was not handled")
        finally:
            self._is_serving = False
            referral.refuse(500)
            await referral.tell(500)


class Referral:
    """A REFER of the other side: accept or refuse it, and after `accept`, `tell` the outcome."""

    def __init__(self, line: Line, leg: "Leg", event: RequestReceived) -> None:
        """Raises MalformedError."""
        self.whom = refer_to(event.request)
        self.referred_by = referred_by(event.request)
        self._line = line
        self._leg = leg
        self._event = event
        self._is_answered = self._is_told = False

    async def accept(self) -> None:
        """Answer 202, and send a NOTIFY with 100 Trying at once (RFC 3515 §2.4.4)."""
        self._answer(202, (("Contact", self._line.contact),))
        await self._notify(100, f"active;expires={EXPIRES_S}")

    def refuse(self, status: int) -> None:
        """Refuse to call, with a status from 300 to 699; not after an answer."""
        if not self._is_answered:
            self._is_told = True
            self._answer(status)

    async def tell(self, status: int) -> None:
        """Tell how the call ended, or that it is up, with its final status; nothing more is told after that."""
        if not self._is_told:
            self._is_told = True
            await self._notify(status, "terminated;reason=noresource")

    def _answer(self, status: int, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self._is_answered = True
        self._line.exchange.respond(self._event.key, make_response(self._event.request, status, headers=headers))

    async def _notify(self, status: int, state: str) -> None:
        """Send a NOTIFY, by the number of the REFER, as there may be several in a call (§2.4.6)."""
        headers = (
            ("Event", f"{EVENT};id={self._event.envelope.sequence}"),
            ("Subscription-State", state),
            ("Contact", self._line.contact),
            ("Content-Type", FRAGMENT),
        )
        response = await self._leg.ask("NOTIFY", headers, fragment_of(status))
        if response.code >= 300:
            log.info("nobody wants to hear of a transfer", extra={"fields": {"status": response.code}})
