"""A telephone's registration (RFC 3261 §10.2): made, refreshed, and retried while the telephone runs."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sipmessage import Request, Response

from voice_dpki.effects import Random
from voice_dpki.errors import PeerError
from voice_dpki.sip.account import Account
from voice_dpki.sip.keepalive import KeepAliveTimes
from voice_dpki.sip.message import Hop, header_values, parse_address
from voice_dpki.wire.sip.exchange import Exchange
from voice_dpki.wire.sip.flows import FlowKeeper
from voice_dpki.wire.sip.line import MAX_TRIES

log = logging.getLogger(__name__)

MAX_RETRY_AFTER_S: Final = 3_600
"""Longest Retry-After that is obeyed."""
_REFRESH: Final = 0.8
"""Part of the granted time after which a registration is refreshed."""
_PASSING: Final = (408, 500, 503, 504)
"""Temporary failures: the registrar is unreachable or busy, so a later REGISTER may succeed (RFC 3261 §21)."""


class RegistrationError(PeerError):
    """The registrar did not register the user; `status` is its answer's (408 or 503 also if none came)."""

    def __init__(self, status: int, phrase: str, retry_after_s: int = 0) -> None:
        super().__init__(f"the registrar answered {status} {phrase}")
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def passes(self) -> bool:
        """Whether the failure is temporary, so that a retry may succeed."""
        return self.status in _PASSING


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a registration is retried, in seconds (RFC 5626 §4.5)."""

    base_s: float = 30.0
    most_s: float = 1_800.0

    def wait_s(self, failures: int, random: Random) -> float:
        """Return the wait after `failures` failures in a row, counted from 1.

        The upper bound doubles each time, and the wait is drawn at random between half of it and all of it: ten
        thousand telephones whose proxy was down must not return within one second.
        """
        bound_s = min(self.most_s, self.base_s * float(1 << min(failures - 1, 16)))
        return bound_s * (0.5 + int.from_bytes(random.token(2), "big") / 131_072)


class Registration:
    """The registration of one contact at its domain's registrar.

    `contact` returns the Contact value without header parameters; `instance` is the URN that distinguishes the
    telephone from the user's others (RFC 5626 §4.1). With `keep_alive`, keep-alives at these intervals keep the
    flow to the proxy open, and the telephone registers again if the flow fails.
    """

    def __init__(
        self,
        account: Account,
        exchange: Exchange,
        proxy: Hop,
        contact: Callable[[], str],
        *,
        instance: str | None = None,
        backoff: Backoff | None = None,
        keep_alive: KeepAliveTimes | None = None,
    ) -> None:
        self._account = account
        self._exchange = exchange
        self._proxy = proxy
        self._contact = contact
        self._instance = instance
        self._backoff = backoff or Backoff()
        self._call_id = exchange.token()
        self._sequence = 0
        self._failures = 0
        self._expires_s = 0
        self._flow_timer_s = 0
        self._timer: asyncio.TimerHandle | None = None
        self._keeper: FlowKeeper | None = None
        if keep_alive is not None:
            self._keeper = FlowKeeper(proxy, keep_alive, exchange.random, exchange.keep_alive, self._flow_failed)
            exchange.on_stun_answer(self._keeper.receive)

    async def register(self, expires_s: int) -> int:
        """Register, and return the granted time in seconds; the registration is refreshed until `stop`.

        0 removes the registration. Raises RegistrationError and then does not retry; an earlier registration may
        still be valid.
        """
        self.stop()
        granted_s = await self._register(expires_s)
        self._expires_s = expires_s
        if granted_s > 0:
            self._failures = 0
            self._again_in(granted_s * _REFRESH)
            if self._keeper is not None:
                self._keeper.start(self._flow_timer_s)
        return granted_s

    async def register_until_done(self, expires_s: int) -> int:
        """Register as `register` does, but retry temporary failures; raises RegistrationError for others."""
        while True:
            try:
                return await self.register(expires_s)
            except RegistrationError as error:
                if not error.passes:
                    raise
                await asyncio.sleep(self._failed(error))

    def connection_lost(self) -> None:
        """Register again after a back-off: the flow that reached the telephone is gone (RFC 5626 §4.5)."""
        if self._expires_s > 0 and self._timer is not None:
            self._again_in(self._failed(RegistrationError(503, "the connection to the proxy is gone")))

    def _flow_failed(self, why: str) -> None:
        """Register again at once: the back-off is for flows that cannot be formed (RFC 5626 §4.5)."""
        if self._expires_s > 0 and self._timer is not None:
            log.warning("the flow to the proxy has failed", extra={"fields": {"reason": why}})
            self._again_in(0.0)

    def stop(self) -> None:
        """Stop refreshing the registration and keeping the flow open."""
        if self._keeper is not None:
            self._keeper.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again_in(self, wait_s: float) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._begin)

    def _begin(self) -> None:
        self._exchange.run(self._refresh())

    async def _refresh(self) -> None:
        """Register again, and retry after any failure: while the telephone runs, its user expects calls."""
        expires_s = self._expires_s
        try:
            granted_s = await self.register(expires_s)
            if granted_s > 0:
                return
            error = RegistrationError(200, "without this contact")
        except RegistrationError as failed:
            error = failed
        except PeerError as failed:
            error = RegistrationError(500, str(failed))
        if self._timer is None:
            self._again_in(self._failed(error))

    def _failed(self, error: RegistrationError) -> float:
        """Count a failure and return the time until the next try in seconds."""
        self._failures += 1
        wait_s = max(self._backoff.wait_s(self._failures, self._exchange.random), error.retry_after_s)
        fields = {"error": str(error), "failures": self._failures, "again_in_s": round(wait_s, 1)}
        log.warning("not registered", extra={"fields": fields})
        return wait_s

    async def _register(self, expires_s: int) -> int:
        response = await self._ask(expires_s)
        if response.code == 423:
            expires_s = _number(response.headers.get("Min-Expires"), expires_s)
            response = await self._ask(expires_s)
        if response.code != 200:
            retry_after_s = min(_number(response.headers.get("Retry-After"), 0), MAX_RETRY_AFTER_S)
            raise RegistrationError(response.code, response.phrase, retry_after_s)
        self._flow_timer_s = _number(response.headers.get("Flow-Timer"), 0)
        return self._granted_s(response, expires_s)

    async def _ask(self, expires_s: int) -> Response:
        request = self._request(expires_s)
        for _ in range(MAX_TRIES):
            response = await self._exchange.ask(request, self._proxy)
            self._sequence = int(request.headers["CSeq"].split()[0])
            if not self._account.authorize(request, response, self._exchange.random):
                break
        return response

    def _request(self, expires_s: int) -> Request:
        request = self._account.new_request(
            "REGISTER",
            f"sip:{self._account.domain}",
            self._account.name_addr,
            self._exchange.token(),
            self._call_id,
        )
        parameters = f";expires={expires_s}"
        if self._instance:
            parameters += f';+sip.instance="<{self._instance}>"'
            if self._proxy.reliable:
                parameters += ";reg-id=1"
                request.headers.set("Supported", "path, outbound")
        request.headers.set("Contact", self._contact() + parameters)
        request.headers.set("CSeq", f"{self._sequence + 1} REGISTER")
        return request

    def _granted_s(self, response: Response, asked_s: int) -> int:
        """Return the time that the registrar grants this contact, in seconds (RFC 3261 §10.2.4)."""
        own = parse_address(self._contact()).uri
        for value in header_values(response, "Contact"):
            address = parse_address(value)
            if (address.uri.user, address.uri.host, address.uri.port) == (own.user, own.host, own.port):
                return _number(address.parameters.get("expires"), asked_s)
        return 0


def _number(text: str | None, default: int) -> int:
    text = (text or "").split(";")[0].split("(")[0].strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
