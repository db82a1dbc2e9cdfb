"""Signed answers: the callee's domain signs the answer to a call, and the caller's domain verifies it (RFC 9970).

An answer without a valid signature answers the call all the same. So the caller's telephone gets the verdict on the
number that answered, as the verstat of P-Asserted-Identity in the 2xx, and decides.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Final

from sipmessage import Request, Response

from sip_testbed import proxy_rules as rules
from sip_testbed.proxy_stir import CallFacts, ServiceError, StirService
from voice_dpki.effects import Clock
from voice_dpki.errors import MalformedError
from voice_dpki.metrics import histograms
from voice_dpki.names import ascii_lower
from voice_dpki.shell.trace import Tracer, ms_since
from voice_dpki.sip.message import parse_address, required_header
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.rsp import RSP
from voice_dpki.stir.verdict import Verdict, Verstat
from voice_dpki.wire.sip.asked import date_value
from voice_dpki.wire.sip.invite import date_of

MAX_ANSWERS: Final = 4
"""Most answers of one call that are signed or verified; the call can fork behind this proxy."""

ANSWER_SECONDS = histograms(
    "sip_stir_answer_seconds",
    "Time that the STIR services took for answers",
    operation=("sign", "verify"),
    result=("signed", "failed", *Verstat),
)

Message = Request | Response
Change = Callable[[Message], None]


class EachOnce:
    """Changes the answers of one call. A retransmission is changed like the answer, without another inquiry."""

    def __init__(self, find: Callable[[Response], Awaitable[Change]], otherwise: Change) -> None:
        """`find` asks for the change of an answer; `otherwise` applies until then, and beyond MAX_ANSWERS."""
        self._find = find
        self._otherwise = otherwise
        self._found: dict[str, asyncio.Future[Change]] = {}

    async def __call__(self, response: Response) -> None:
        """Change one answer."""
        tag = parse_address(required_header(response, "To")).parameters.get("tag") or ""
        self._otherwise(response)
        if tag not in self._found and len(self._found) == MAX_ANSWERS:
            return
        if tag not in self._found:
            self._found[tag] = asyncio.ensure_future(self._find(response))
        (await self._found[tag])(response)


class EachUpdate:
    """Changes the UPDATEs from the called side of one call, by at most MAX_ANSWERS inquiries."""

    def __init__(self, find: Callable[[Message], Awaitable[Change]], otherwise: Change) -> None:
        """`find` and `otherwise` are as for `EachOnce`."""
        self._find = find
        self._otherwise = otherwise
        self._asked = 0

    async def __call__(self, request: Request) -> None:
        """Change one UPDATE."""
        self._otherwise(request)
        if self._asked < MAX_ANSWERS:
            self._asked += 1
            (await self._find(request))(request)


class AnswerSigner:
    """Signs the answers of a domain's own users."""

    def __init__(self, service: StirService, tracer: Tracer, clock: Clock) -> None:
        self._service = service
        self._tracer = tracer
        self._clock = clock

    def of(self, call: CallFacts) -> EachOnce:
        """Return what signs the answers to a call."""

        return EachOnce(lambda _: self._signed(call), remove_identities)

    def updates_of(self, call: CallFacts) -> EachUpdate:
        """Return what signs the UPDATEs that the called side sends, like the answers."""
        return EachUpdate(lambda _: self._signed(call), remove_identities)

    async def _signed(self, call: CallFacts) -> Change:
        began_s, now_s = perf_counter(), self._clock.now_s()
        try:
            identity = await self._service.sign_answer(replace(call, time_s=int(now_s)))
        except ServiceError as error:
            _observe("sign", "failed", began_s)
            self._tracer.note(f"{error}; the answer goes unsigned", step="sign answer", ok=False)
            return _unchanged
        ms = _observe("sign", "signed", began_s)
        self._tracer.note(f"answer signed by {self._service.name}", step="sign answer", ok=True, ms=ms)

        def change(message: Message) -> None:
            message.headers.set("Date", date_value(int(now_s)))
            message.headers.set("Identity", identity)

        return change


class AnswerVerifier:
    """Tells the domain's own users whether the holder of the number that they called has answered."""

    def __init__(self, domain: str, service: StirService, tracer: Tracer, clock: Clock) -> None:
        self._domain = domain
        self._service = service
        self._tracer = tracer
        self._clock = clock

    def of(self, call: CallFacts) -> EachOnce:
        """Return what verifies the answers to a call."""
        return EachOnce(partial(self._find, call), self._telling(call, Verstat.NONE))

    def updates_of(self, call: CallFacts) -> EachUpdate:
        """Return what verifies the UPDATEs that the called side sends, like the answers."""
        return EachUpdate(partial(self._find, call), self._telling(call, Verstat.NONE))

    async def _find(self, call: CallFacts, message: Message) -> Change:
        return self._telling(call, await self._verstat(call, message))

    def _telling(self, call: CallFacts, verstat: Verstat) -> Change:
        def change(message: Message) -> None:
            rules.assert_identity(message, call.called, self._domain, verstat)

        return change

    async def _verstat(self, call: CallFacts, message: Message) -> Verstat:
        identities = [value for value in message.headers.getlist("Identity") if _is_of_answer(value)]
        if len(identities) != 1:
            what = "is not signed" if not identities else "has several signatures"
            return self._told(Verdict(Verstat.NONE, reasondesc=f"The answer {what}.", step="E2 Identity present"))
        began_s = perf_counter()
        try:
            time_s = date_of(message, self._clock.now_s())
            verdict = await self._service.verify_answer(replace(call, time_s=time_s), identities[0])
        except (ServiceError, MalformedError) as error:
            _observe("verify", "failed", began_s)
            self._tracer.note(f"answer not verified: {error}", step="verify answer", ok=False)
            return Verstat.NONE
        return self._told(verdict, _observe("verify", verdict.verstat, began_s))

    def _told(self, verdict: Verdict, ms: float | None = None) -> Verstat:
        failure = f"{verdict.reasoncode} {verdict.reasontext}: " if verdict.reasoncode else ""
        good = f"answer valid by {self._service.name}, signed by {verdict.signer}"
        text = good if verdict.ok else f"answer: {failure}{verdict.reasondesc}"
        facts = {"verstat": verdict.verstat, "signer": verdict.signer}
        self._tracer.note(text, step=verdict.step or "verify answer", ok=verdict.ok, ms=ms, **facts)
        return verdict.verstat


def _unchanged(_message: Message) -> None:
    """Leave an answer as it is."""


def remove_identities(message: Message) -> None:
    """Remove an Identity that a telephone has put into its answer or UPDATE: its domain signs."""
    message.headers.remove("Identity")


def _is_of_answer(identity: str) -> bool:
    try:
        return ascii_lower(IdentityHeader.parse(identity).ppt or "") == RSP.ppt
    except MalformedError:
        return False


def _observe(operation: str, result: str, began_s: float) -> float:
    ANSWER_SECONDS.labels(operation, result).observe(perf_counter() - began_s)
    return ms_since(began_s)
