"""A telephone without sound: registers at its domain's proxy, places, answers and ends calls.

Session descriptions and what they key belong to whoever uses this module; here is SIP alone.
"""
# ruff: noqa: TID251 - this is a shell: it runs on the event loop

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sipmessage import Request, Response

from voice_dpki.effects import Random, SystemRandom
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.sip.account import Account
from voice_dpki.sip.call import ALLOW, MAX_TRIES, Answer, Call, IncomingCall, Leg, Line
from voice_dpki.sip.exchange import Exchange
from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import Hop, header_values, make_response, parse_address, parse_uri, set_body
from voice_dpki.sip.sdp import CONTENT_TYPE
from voice_dpki.sip.transaction import UDP_MAX_BYTES, AckReceived, RequestReceived
from voice_dpki.sip.transport import SipTracer

__all__ = ["Account", "Answer", "Call", "IncomingCall", "RegistrationError", "UserAgent"]

log = logging.getLogger(__name__)

MAX_CALLS: Final = 256
_REFRESH: Final = 0.8
"""Part of a registration's time after which it is made again."""


class RegistrationError(PeerError):
    """The registrar did not register the user; `status` is its answer (408 and 503 also where none came)."""

    def __init__(self, status: int, phrase: str) -> None:
        super().__init__(f"the registrar answered {status} {phrase}")
        self.status = status


class UserAgent:
    """One user's telephone at one address, behind its domain's proxy.

    `on_invite` is run as a task for each incoming call; without it calls are refused with 480.
    """

    def __init__(
        self,
        account: Account,
        *,
        host: str,
        port: int = 0,
        proxy: Hop,
        tracer: SipTracer | None = None,
        random: Random | None = None,
        timers: Timers | None = None,
        udp_max_bytes: int = UDP_MAX_BYTES,
    ) -> None:
        self.on_invite: Callable[[IncomingCall], Awaitable[None]] | None = None
        self._account = account
        self._domain = parse_uri(account.aor).host
        self._proxy = proxy
        self._exchange = Exchange(
            host,
            port,
            on_request=self._request,
            on_ack=self._ack,
            random=random or SystemRandom(),
            tracer=tracer or _NoTrace(),
            timers=timers or Timers(),
            udp_max_bytes=udp_max_bytes,
        )
        self._legs: dict[tuple[str, str], Leg] = {}
        self._placed: list[Call] = []
        self._register_call_id = self._exchange.token()
        self._register_sequence = 0
        self._refreshing: asyncio.TimerHandle | None = None

    @property
    def address(self) -> Hop:
        """Where the user agent listens, once it has started."""
        return self._exchange.address

    async def start(self) -> None:
        """Bind the sockets; raises LocalError."""
        await self._exchange.start()

    async def close(self) -> None:
        """End all calls, without waiting for answers, and free the sockets."""
        self._stop_refreshing()
        for leg in list(self._legs.values()):
            leg.hang_up()
        for call in self._placed:
            if not call.is_answered:
                call.cancel()
        await asyncio.sleep(0)  # lets the BYEs out
        await self._exchange.close()

    # Registration (RFC 3261 §10.2).

    async def register(self, expires_s: int = 600) -> int:
        """Register this address and return the seconds granted; it is kept up until `close`. 0 removes it.

        Raises RegistrationError.
        """
        self._stop_refreshing()
        response = await self._register(expires_s)
        if response.code == 423:
            expires_s = _number(response.headers.get("Min-Expires"), expires_s)
            response = await self._register(expires_s)
        if response.code != 200:
            raise RegistrationError(response.code, response.phrase)
        granted_s = self._granted_s(response, expires_s)
        if granted_s > 0:
            loop = asyncio.get_running_loop()
            self._refreshing = loop.call_later(granted_s * _REFRESH, self._refresh, expires_s)
        return granted_s

    async def _register(self, expires_s: int) -> Response:
        uri = f"sip:{self._domain}"
        request = self._new_request("REGISTER", uri, self._account.name_addr)
        request.headers.set("Call-ID", self._register_call_id)
        request.headers.set("Contact", f"{self._contact};expires={expires_s}")
        request.headers.set("CSeq", f"{self._register_sequence + 1} REGISTER")
        for _ in range(MAX_TRIES):
            response = await self._exchange.ask(request, self._proxy)
            self._register_sequence = int(request.headers["CSeq"].split()[0])
            if not self._account.authorize(request, response, self._exchange.random):
                break
        return response

    def _granted_s(self, response: Response, asked_s: int) -> int:
        """Return what the registrar grants this contact (RFC 3261 §10.2.4)."""
        own = parse_address(self._contact).uri
        for value in header_values(response, "Contact"):
            address = parse_address(value)
            if (address.uri.user, address.uri.host, address.uri.port) == (own.user, own.host, own.port):
                return _number(address.parameters.get("expires"), asked_s)
        return 0

    def _refresh(self, expires_s: int) -> None:
        self._exchange.run(self._register_again(expires_s))

    async def _register_again(self, expires_s: int) -> None:
        try:
            await self.register(expires_s)
        except PeerError as error:
            log.warning("registration lost", extra={"fields": {"error": str(error)}})

    def _stop_refreshing(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            self._refreshing = None

    # Calls.

    async def invite(self, target: str, sdp: bytes, headers: Sequence[tuple[str, str]] = ()) -> Call:
        """Place a call to the URI `target` and return at once; raises MalformedError for a bad URI."""
        request = self._new_request("INVITE", target, f"<{target}>")
        request.headers.set("CSeq", "1 INVITE")
        request.headers.set("Contact", self._contact)
        request.headers.set("Allow", ALLOW)
        for name, value in headers:
            request.headers.add(name, value)
        set_body(request, sdp, CONTENT_TYPE)
        self._placed = [call for call in self._placed if not call.is_answered]
        self._placed.append(Call(self._line(), request))
        return self._placed[-1]

    def _line(self) -> Line:
        return Line(self._account, self._exchange, self._proxy, self._contact, self._opened, self._closed)

    def _opened(self, leg: Leg) -> None:
        if leg.dialog is not None:
            self._legs[(leg.dialog.call_id, leg.dialog.local_tag)] = leg

    def _closed(self, leg: Leg) -> None:
        if leg.dialog is not None:
            self._legs.pop((leg.dialog.call_id, leg.dialog.local_tag), None)

    @property
    def _contact(self) -> str:
        address = self.address
        transport = ";transport=tcp" if self._proxy.transport == "tcp" else ""
        user = parse_uri(self._account.aor).user
        return f"<sip:{user}@{address.address}{transport}>"

    def _new_request(self, method: str, target: str, to: str) -> Request:
        request = Request(method, parse_uri(target))
        request.headers.set("Max-Forwards", "70")
        request.headers.set("From", f"{self._account.name_addr};tag={self._exchange.token()}")
        request.headers.set("To", to)
        request.headers.set("Call-ID", self._exchange.token())
        return request

    # What comes in.

    def _request(self, event: RequestReceived) -> None:
        leg = self._legs.get((event.envelope.call_id, event.envelope.to_tag))
        if event.request.method == "CANCEL":
            self._cancel(event)
        elif event.envelope.to_tag and leg is None:
            self._answer(event, 481)
        elif leg is not None:
            self._in_dialog(leg, event)
        elif event.request.method == "INVITE":
            self._invited(event)
        else:
            self._answer(event, 200 if event.request.method == "OPTIONS" else 405)

    def _in_dialog(self, leg: Leg, event: RequestReceived) -> None:
        """Answer a request within a call: BYE ends it, and nothing changes it."""
        method = event.request.method
        if leg.dialog is None or not leg.dialog.accept(event.envelope):
            self._answer(event, 500, "Server Internal Error: CSeq out of order")
        elif method == "BYE":
            self._answer(event, 200)
            leg.bye_received()
        else:
            self._answer(event, {"INVITE": 488, "OPTIONS": 200}.get(method, 405))

    def _invited(self, event: RequestReceived) -> None:
        """Take in a new call, once (RFC 3261 §8.2.2.2, §13.3.1)."""
        if any(_same_request(call, event) for call in self._incoming()):
            self._answer(event, 482)
        elif header_values(event.request, "Require"):
            unsupported = ", ".join(header_values(event.request, "Require"))
            self._answer(event, 420, headers=(("Unsupported", unsupported),))
        elif self.on_invite is None or len(self._legs) >= MAX_CALLS:
            self._answer(event, 480)
        else:
            try:
                call = IncomingCall(self._line(), event)
            except MalformedError as error:
                self._answer(event, 400, f"Bad Request: {error}")
                return
            self._opened(call)
            self._exchange.run(self._serve(self.on_invite, call))

    async def _serve(self, on_invite: Callable[[IncomingCall], Awaitable[None]], call: IncomingCall) -> None:
        """Let the owner handle a call; where that fails, the call is over."""
        try:
            await on_invite(call)
        except Exception:
            log.exception("an incoming call was not handled")
            await call.reject(480)
            await call.bye()

    def _incoming(self) -> list[IncomingCall]:
        return [leg for leg in self._legs.values() if isinstance(leg, IncomingCall)]

    def _cancel(self, event: RequestReceived) -> None:
        key = self._exchange.cancelled_invite(event.envelope)
        self._answer(event, 200 if key else 481)
        for call in self._incoming():
            if call.key == key:
                call.cancel_received()

    def _ack(self, event: AckReceived) -> None:
        leg = self._legs.get((event.envelope.call_id, event.envelope.to_tag))
        if leg is not None:
            leg.ack_received()

    def _answer(
        self,
        event: RequestReceived,
        status: int,
        phrase: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        if status in (200, 405):
            headers = (*headers, ("Allow", ALLOW))
        tag = self._exchange.token()
        self._exchange.respond(event.key, make_response(event.request, status, phrase, to_tag=tag, headers=headers))


class _NoTrace:
    on = False

    def sip(self, transport: str, src: str, dst: str, data: bytes) -> None:
        """Keep nothing."""


def _same_request(call: IncomingCall, event: RequestReceived) -> bool:
    """Whether a request came before by another way: same Call-ID, From tag and CSeq (RFC 3261 §8.2.2.2)."""
    dialog, envelope = call.dialog, event.envelope
    return (dialog.call_id, dialog.remote_tag, dialog.remote_sequence) == (
        envelope.call_id,
        envelope.from_tag,
        envelope.sequence,
    )


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else default
