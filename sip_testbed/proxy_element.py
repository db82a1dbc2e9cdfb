"""A proxy's sockets, transactions and core together, for programs that decide how each request is handled."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from sipmessage import URI, Request, Response

from sip_testbed.proxy_rules import RequestRefusal
from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError
from voice_dpki.shell.config import Listen
from voice_dpki.shell.current import work_on
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.events import Event, Terminated, TransactionKey
from voice_dpki.sip.location import Target
from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import Hop
from voice_dpki.sip.proxy import Answer, Arrival, ProxyCore, Update
from voice_dpki.sip.transaction import TransactionLayer
from voice_dpki.sip.uas import RequestRefusedError
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.sip.endpoint import Endpoint
from voice_dpki.wire.sip.transport import Tls
from voice_dpki.wire.tasks import Background

log = logging.getLogger(__name__)

DECIDE_S: Final = 200.0
"""Longest time of a decision: longer than all the inquiries that it may need, and less than `Timers.answer_s`."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Send `request`, which may be a changed copy, to `hop`; the other fields are as in `ProxyCore.forward`.

    `otherwise` decides anew if no response comes at all; its argument tells whether the hop is known to be gone. It
    may raise RequestRefusal.
    """

    request: Request
    hop: Hop
    fallback: Hop | None = None
    back: Hop | None = None
    otherwise: Callable[[bool], "Forward"] | None = None
    others: tuple[tuple[Request, Target], ...] = ()
    """Further telephones that ring at the same time, each with its request; `otherwise` is not used then."""
    answered: Callable[[Response], Awaitable[None]] | None = None
    """Changes each 2xx to an INVITE before it goes back, whichever hop it comes from."""
    updated: Callable[[Request], Awaitable[None]] | None = None
    """With `answered`: changes each UPDATE from the called side before it goes on."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer 200 with these header fields."""

    headers: tuple[tuple[str, str], ...] = ()


Decide: TypeAlias = Callable[[Arrival], Awaitable[Forward | Reply]]
"""Decides how a request outside dialogs is handled; raises RequestRefusal or MalformedError to refuse it."""


class ProxyElement:
    """A stateful proxy at one address. It decides on each request outside dialogs in a task of its own."""

    def __init__(
        self,
        listen: Listen,
        decide: Decide,
        *,
        resolve: Callable[[URI], Hop | None],
        secret: bytes,
        random: Random,
        tracer: Tracer,
        udp_max_bytes: int,
        change_response: Callable[[Response], None] | None = None,
        on_answer: Callable[[str, int], None] | None = None,
        own_names: Sequence[str] = (),
        advertise: str | None = None,
        tls: Tls | None = None,
        known: Iterable[str] = (),
    ) -> None:
        self._decide = decide
        self._background = Background(log)
        self._failures = Seldom(log)
        self._answered: dict[TransactionKey, Callable[[Response], Awaitable[None]]] = {}
        """What changes the 2xx to each open INVITE."""
        self._updated: dict[TransactionKey, Callable[[Request], Awaitable[None]]] = {}
        """What changes the UPDATEs from the called side of each open INVITE."""
        self._endpoint = Endpoint(
            listen.host,
            listen.port,
            self._handle,
            random=random,
            tracer=tracer,
            timers=Timers(),
            udp_max_bytes=udp_max_bytes,
            advertise=advertise,
            tls=tls,
            known=known,
        )
        self._core = ProxyCore(
            self._endpoint.layer,
            secret=secret,
            random=random,
            resolve=resolve,
            change_response=change_response,
            on_answer=on_answer,
            own_names=own_names,
        )

    @property
    def address(self) -> Hop:
        """Where the proxy listens; the port is known once it has started."""
        return self._endpoint.address

    @property
    def layer(self) -> TransactionLayer:
        """The transaction layer, for metrics."""
        return self._endpoint.layer

    def now_s(self) -> float:
        """Return the transaction layer's time, in seconds of a monotonic clock."""
        return self._endpoint.now_s()

    def renew_tls(self, tls: Tls) -> None:
        """Use other certificates from the next handshake on (see `Endpoint.renew_tls`)."""
        self._endpoint.renew_tls(tls)

    def vouch(self, arrival: Arrival) -> None:
        """Note that the sender of a request has authenticated (see `Endpoint.vouch`)."""
        self._endpoint.vouch(arrival.source.host)
        self._core.authenticated(arrival.key)

    async def start(self) -> None:
        """Bind the sockets; raises LocalError."""
        await self._endpoint.start()

    async def close(self) -> None:
        """Stop at once."""
        await self._background.close()
        await self._endpoint.close()

    def run(self, work: Coroutine[object, object, None]) -> None:
        """Run `work` in the background until it ends or the proxy closes."""
        self._background.run(work)

    def _handle(self, event: Event, now_s: float) -> None:
        try:
            found = self._core.handle(event, now_s)
        except Exception as error:
            self._failed(error, getattr(event, "key", None))
            return
        if isinstance(event, Terminated):
            self._answered.pop(event.key, None)
            self._updated.pop(event.key, None)
        if isinstance(found, Answer):
            self.run(self._pass_answer(found, self._answered[found.key]))
        elif isinstance(found, Update):
            self.run(self._pass_update(found))
        elif found is not None:
            self.run(self._settle(found))

    async def _pass_answer(self, answer: Answer, change: Callable[[Response], Awaitable[None]]) -> None:
        """Change the 2xx and pass it on, also if the change fails: the call is answered."""
        work_on(answer.response.headers.get("Call-ID") or "")
        try:
            async with asyncio.timeout(DECIDE_S):
                await change(answer.response)
        except Exception as error:
            self._failed(error, None)
        self._core.pass_answer(answer, self.now_s())
        self._endpoint.flush()

    async def _pass_update(self, update: Update) -> None:
        """Change an UPDATE and pass it on, also if the change fails: it then tells nothing of its sender."""
        work_on(update.request.headers.get("Call-ID") or "")
        change = self._updated.get(update.invite)
        try:
            async with asyncio.timeout(DECIDE_S):
                if change is not None:
                    await change(update.request)
        except Exception as error:
            self._failed(error, None)
        self._core.pass_update(update, self.now_s())
        self._endpoint.flush()

    async def _settle(self, arrival: Arrival) -> None:
        """Decide on a request and carry the decision out; an unexpected error is answered, too."""
        work_on(arrival.envelope.call_id)
        try:
            await self._carry_out(arrival)
        except Exception as error:
            self._failed(error, arrival.key)
        self._endpoint.flush()

    async def _carry_out(self, arrival: Arrival) -> None:
        try:
            async with asyncio.timeout(DECIDE_S):
                decision = await self._decide(arrival)
        except RequestRefusal as refusal:
            self._answer(arrival, refusal.status, refusal.phrase, refusal.headers)
        except RequestRefusedError as refusal:
            self._answer(arrival, refusal.status, None, refusal.headers)
        except MalformedError as error:
            self._answer(arrival, 400, f"Bad Request: {error}", ())
        else:
            if isinstance(decision, Forward):
                self._forward(arrival, decision)
            else:
                self._answer(arrival, 200, None, decision.headers)

    def _failed(self, error: Exception, key: TransactionKey | None) -> None:
        """Answer 500 to a request that met an error of our own; log that at a limited rate, and count it."""
        self.layer.counters.failures += 1
        self._failures.error("a SIP request was not handled", error)
        if key is not None:
            self._core.fail(key, self.now_s())

    def _forward(self, arrival: Arrival, decision: Forward) -> None:
        if decision.answered is not None:
            self._answered[arrival.key] = decision.answered
        if decision.updated is not None:
            self._updated[arrival.key] = decision.updated
        if decision.others:
            first = (decision.request, Target(decision.hop, decision.fallback))
            holds = arrival.key in self._answered
            now_s = self.now_s()
            self._core.fork(arrival.key, (first, *decision.others), now_s, back=decision.back, holds_answer=holds)
            return
        self._core.forward(
            arrival.key,
            decision.request,
            decision.hop,
            self.now_s(),
            fallback=decision.fallback,
            back=decision.back,
            otherwise=partial(self._forward_elsewhere, arrival, decision.otherwise) if decision.otherwise else None,
            holds_answer=arrival.key in self._answered,
        )

    def _forward_elsewhere(self, arrival: Arrival, decide: Callable[[bool], Forward], is_gone: bool) -> None:
        try:
            self._forward(arrival, decide(is_gone))
        except RequestRefusal as refusal:
            self._answer(arrival, refusal.status, refusal.phrase, refusal.headers)

    def _answer(
        self, arrival: Arrival, status: int, phrase: str | None, headers: tuple[tuple[str, str], ...]
    ) -> None:
        self._core.answer(arrival.key, status, phrase, self.now_s(), headers)
