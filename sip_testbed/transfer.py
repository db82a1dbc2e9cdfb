"""Transfers of a telephone's calls (RFC 5589): it transfers the other side to a third one, or is transferred.

The transferee places an ordinary call: from its own number, signed by its own operator, under new keys, and with
the third one's key compared with its pin. The old call goes on until the new one is up, and so does a consultation
that is to be replaced. If the new call fails, the old one is resumed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from sip_testbed.conversation import HANG_UP_TIMEOUT_S
from sip_testbed.media_policy import NOT_ACCEPTABLE, SERVER_ERROR
from sip_testbed.result import Purpose, Result
from sip_testbed.session import ChangeRefusedError, Session
from sip_testbed.user_agent_config import TelephoneSetup
from voice_dpki.codec.telephone import is_same_party, number_in_uri
from voice_dpki.errors import MalformedError
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.refer import REPLACES, ReferTo, Replaces, is_referred_by
from voice_dpki.wire.sip.referral import Referral
from voice_dpki.wire.sip.user_agent import IncomingCall, Leg

log = logging.getLogger(__name__)

TRANSFER: Final = "transfer"
"""A blind transfer: the transferee calls the third one, which is not asked before."""
ATTENDED: Final = "attended-transfer"
"""A transfer after a consultation: the new call replaces the one between us and the third one."""

CONSULTATION_S: Final = 1.0
"""Length of the consultation with the third one before the transfer."""

DECLINED: Final = 603
FORBIDDEN: Final = 403

OnUp = Callable[[Leg, Session], None]
"""Called once a call is up: it was answered, acknowledged and keyed."""

Headers = tuple[tuple[str, str], ...]


class OtherLine(Protocol):
    """A telephone for one call beside the one that is transferred."""

    async def call(self, target: str) -> Result:
        """Place a call, and return once it is over."""
        ...

    async def answer(self, call: IncomingCall) -> None:
        """Answer a call, and return once it is over."""
        ...


OpenLine = Callable[[Purpose, OnUp, Headers], OtherLine]
"""Opens a line for another call; the header fields are those of the INVITE, if it places one."""


class Transfers:
    """The transfers that a telephone makes, and those that others make of it."""

    def __init__(self, setup: TelephoneSetup, tracer: Tracer, open_line: OpenLine) -> None:
        self._setup = setup
        self._tracer = tracer
        self._open_line = open_line
        self._idle = asyncio.Event()
        self._idle.set()

    def attend(self, leg: Leg, session: Session) -> None:
        """Handle transfers of us by the other side of a call that is up, and calls that are to replace it."""
        leg.referrals.on_refer = partial(self._referred, session)
        leg.on_replaced = partial(self._replaced, leg, session)

    def acts(self, leg: Leg, session: Session) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Return the transfers that we can make of a call, by name; they raise ChangeRefusedError."""
        return {
            TRANSFER: partial(self._pass_on, leg, session),
            ATTENDED: partial(self._consult_and_pass_on, leg, session),
        }

    async def finished(self) -> None:
        """Wait until no call that a transfer of us made is in progress."""
        await self._idle.wait()

    # Transfers that we make.

    async def _pass_on(self, leg: Leg, session: Session) -> None:
        await self._refer(leg, session, TRANSFER, ReferTo(self._third))

    async def _consult_and_pass_on(self, leg: Leg, session: Session) -> None:
        """Speak to the third one, and have the other side take our place in that call."""
        up: asyncio.Future[Leg] = asyncio.get_running_loop().create_future()

        def consulted(other: Leg, beside: Session) -> None:
            beside.transferred = True  # the consultation has served its purpose, however the transfer ends
            up.set_result(other)

        line = self._open_line("consultation", consulted, ())
        call = asyncio.ensure_future(line.call(self._third))
        try:
            await asyncio.wait((call, up), return_when=asyncio.FIRST_COMPLETED)
            if not up.done():
                await self._not_transferred(session, ATTENDED, "the third one did not take our call")
            await asyncio.sleep(CONSULTATION_S)
            await self._refer(leg, session, ATTENDED, ReferTo(self._third, _dialog_of(up.result())))
            with suppress(TimeoutError):  # the third one ends the consultation
                await asyncio.wait_for(asyncio.shield(call), HANG_UP_TIMEOUT_S)
        finally:
            await _give_up(call, up)

    @property
    def _third(self) -> str:
        assert self._setup.call is not None
        assert self._setup.call.transfer_to is not None
        return self._setup.call.transfer_to

    async def _refer(self, leg: Leg, session: Session, name: str, whom: ReferTo) -> None:
        status = await leg.referrals.send(whom, self._setup.account.aor)
        if not 200 <= status < 300:
            await self._not_transferred(session, name, f"it ended with {status}")
        session.passed_on(name)
        await leg.bye()

    async def _not_transferred(self, session: Session, name: str, why: str) -> None:
        """Resume the call; raises ChangeRefusedError."""
        self._tracer.note(f"not changed ({name}): {why}", step="change", ok=False)
        if session.is_holding:
            await session.resume()
        raise ChangeRefusedError(f"the call was not transferred ({name}): {why}")

    # Transfers that others make.

    async def _referred(self, session: Session, asked: Referral) -> None:
        """Place the call that the other side requests by REFER, and tell it the result; refuse if not allowed."""
        if not self._setup.accepts_transfers or number_in_uri(asked.whom.target) is None:
            self._refused("we are not passed on")
            asked.refuse(DECLINED)
            return
        if asked.referred_by is not None and not is_same_party(asked.referred_by, session.peer_uri):
            self._refused("it is asked in another's name than the other side's")
            asked.refuse(FORBIDDEN)
            return
        self._idle.clear()
        try:
            await self._place(session, asked)
        finally:
            self._idle.set()

    async def _place(self, session: Session, asked: Referral) -> None:
        telling: list[asyncio.Task[None]] = []

        def up(_leg: Leg, _session: Session) -> None:
            session.passed_on(ATTENDED if asked.whom.replaces else TRANSFER)
            telling.append(asyncio.ensure_future(asked.tell(200)))

        await asked.accept()
        try:
            result = await self._open_line("transferred", up, _headers(asked)).call(asked.whom.target)
            failed = result.status is not None and result.status >= 300
            status = (result.status if failed else None) or NOT_ACCEPTABLE
        except Exception as error:
            log.error("the call of a transfer failed", extra={"fields": {"reason": str(error)}})
            status = SERVER_ERROR
        await asyncio.gather(*telling)
        await asked.tell(status)  # unless 200 was told

    async def _replaced(self, leg: Leg, session: Session, call: IncomingCall) -> None:
        """Take a call that is to replace another, in which nobody rings again, and end that other one.

        Everyone who knows the dialog's identifiers can request that: the other side, and the proxies on the path.
        So the call must say that the other side has referred it.
        """
        try:
            is_sent = is_referred_by(call.request, session.peer_uri)
        except MalformedError:
            is_sent = False
        if not self._setup.accepts_transfers or not is_sent:
            self._refused("nobody takes the other side's place")
            await call.reject(FORBIDDEN)
            return
        if leg.on_replaced is None:
            self._refused("another takes the other side's place")
            await call.reject(DECLINED)
            return

        is_up = False

        def up(_leg: Leg, _session: Session) -> None:
            nonlocal is_up
            is_up = True
            session.passed_on(ATTENDED)
            leg.hang_up()

        leg.on_replaced = None  # one call replaces this one, and no other does meanwhile or after it
        try:
            await self._open_line("transferred", up, ()).answer(call)
        finally:
            if not is_up:
                leg.on_replaced = partial(self._replaced, leg, session)

    def _refused(self, why: str) -> None:
        self._tracer.note(f"transfer refused: {why}", step="change", ok=False)
        log.info("transfer refused", extra={"fields": {"reason": why}})


async def _give_up(call: asyncio.Future[Result], up: asyncio.Future[Leg]) -> None:
    """End a consultation, whether the third one has answered or not."""
    if up.done():
        await up.result().bye()
    else:
        call.cancel()
    with suppress(asyncio.CancelledError):
        await call


def setup_for(setup: TelephoneSetup, purpose: Purpose) -> TelephoneSetup:
    """Return the setup of a call beside the one that is transferred: its files have the purpose in their names."""
    files = (setup.said, setup.heard, setup.seen, setup.result)
    said, heard, seen, result = (_named(path, purpose) for path in files)
    return replace(setup, call=None, said=said, heard=heard, seen=seen, result=result, purpose=purpose)


def _named(path: Path | None, purpose: Purpose) -> Path | None:
    return None if path is None else path.with_name(f"{purpose}-{path.name}")


def _headers(asked: Referral) -> Headers:
    """Return the header fields of the call that a REFER asks for (RFC 3892 §3, RFC 3891 §4)."""
    by: Headers = (("Referred-By", f"<{asked.referred_by}>"),) if asked.referred_by else ()
    replaces = asked.whom.replaces
    return by if replaces is None else (*by, ("Replaces", replaces.serialize()), ("Require", REPLACES))


def _dialog_of(leg: Leg) -> Replaces:
    """Return the dialog of a call as its other end identifies it (RFC 3891 §4)."""
    dialog = leg.dialog
    assert dialog is not None
    return Replaces(dialog.call_id, dialog.remote_tag, dialog.local_tag)
