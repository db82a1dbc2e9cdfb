"""A telephone without media: it registers at its domain's proxy and places, answers and ends calls.

This module handles SIP only; its user makes the session descriptions and agrees the media keys.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sipmessage import URI, Request

from voice_dpki.effects import Random, SystemRandom
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.names import ascii_lower
from voice_dpki.sip.account import Account
from voice_dpki.sip.dialog import Dialog
from voice_dpki.sip.hosts import bare_host
from voice_dpki.sip.keepalive import KeepAliveTimes
from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import Hop, make_response, parse_uri, set_body
from voice_dpki.sip.refer import REPLACES, replaces_in
from voice_dpki.sip.sdp import CONTENT_TYPE
from voice_dpki.sip.transaction import UDP_MAX_BYTES, AckReceived, RequestReceived
from voice_dpki.sip.uas import RequestRefusedError, check_request
from voice_dpki.wire.sip.call import Call, Leg
from voice_dpki.wire.sip.exchange import Exchange
from voice_dpki.wire.sip.incoming_call import IncomingCall
from voice_dpki.wire.sip.line import ALLOW as ALLOW_OF_CALLS
from voice_dpki.wire.sip.line import SUPPORTED, FinalAnswer, Line
from voice_dpki.wire.sip.registration import Backoff, Registration, RegistrationError
from voice_dpki.wire.sip.transport import SipTracer, Tls

__all__ = ["Account", "Call", "FinalAnswer", "IncomingCall", "Leg", "RegistrationError", "UserAgent"]

log = logging.getLogger(__name__)

MAX_CALLS: Final = 256

TRANSFERS: Final = "REFER,NOTIFY"
"""The methods of transfers (RFC 3515), for telephones that support them."""

IN_EARLY_DIALOGS: Final = ("UPDATE", "OPTIONS")
"""Methods that a called telephone may use before it has answered."""


class UserAgent:
    """One user's telephone at one address, behind its domain's proxy.

    `on_invite` runs as a task for each incoming call; without it, calls are refused with 480. With `proxy_only`,
    requests from other hosts are refused, as requests that bypass the proxy were not verified. `instance` is the
    URN that distinguishes this telephone from the user's others and stays the same after a restart (RFC 5626 §4.1).
    `advertise` is the host to announce to others if `host` means all addresses. With `keep_alive`, the flow to the
    proxy is kept open while the telephone is registered (RFC 5626 §4.4); its UDP port must support STUN.
    `session_s` is the interval within which calls are to be refreshed (RFC 4028); that of others is taken anyway.
    With `transfers`, REFER (RFC 3515) and Replaces (RFC 3891) are understood.
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
        proxy_only: bool = True,
        instance: str | None = None,
        backoff: Backoff | None = None,
        advertise: str | None = None,
        tls: Tls | None = None,
        keep_alive: KeepAliveTimes | None = None,
        session_s: int | None = None,
        transfers: bool = False,
    ) -> None:
        self.on_invite: Callable[[IncomingCall], Awaitable[None]] | None = None
        self._account = account
        self._proxy = proxy
        self._proxy_only = proxy_only
        self._session_s = session_s
        self._allow = f"{ALLOW_OF_CALLS},{TRANSFERS}" if transfers else ALLOW_OF_CALLS
        self._options = (REPLACES,) if transfers else ()
        self._exchange = Exchange(
            host,
            port,
            on_request=self._request,
            on_ack=self._ack,
            random=random or SystemRandom(),
            tracer=tracer or _NoTrace(),
            timers=timers or Timers(),
            udp_max_bytes=udp_max_bytes,
            on_lost=self._connection_lost,
            advertise=advertise,
            tls=tls,
            known=(proxy.host,),
        )
        self._legs: dict[tuple[str, str], Leg] = {}
        self._placed: list[Call] = []
        self._registration = Registration(
            account,
            self._exchange,
            proxy,
            lambda: self._contact,
            instance=instance,
            backoff=backoff,
            keep_alive=keep_alive,
        )

    @property
    def address(self) -> Hop:
        """The address at which others reach the user agent, once it has started."""
        return self._exchange.address

    async def start(self) -> None:
        """Bind the sockets; raises LocalError."""
        await self._exchange.start()

    async def close(self) -> None:
        """End all calls without waiting for answers, and close the sockets."""
        self._registration.stop()
        for leg in list(self._legs.values()):
            leg.hang_up()
        for call in self._placed:
            if not call.is_answered:
                call.cancel()
        await asyncio.sleep(0)  # lets the tasks send the BYEs
        await self._exchange.close()

    async def register(self, expires_s: int = 600, *, until_done: bool = False) -> int:
        """Register this address, and return the granted time in seconds; it is refreshed until `close`.

        0 removes the registration. With `until_done`, temporary failures are retried. Raises RegistrationError.
        """
        if until_done:
            return await self._registration.register_until_done(expires_s)
        return await self._registration.register(expires_s)

    # Calls.

    async def invite(self, target: str, sdp: bytes, headers: Sequence[tuple[str, str]] = ()) -> Call:
        """Place a call to the URI `target` and return at once.

        Raises MalformedError for a bad URI, and LocalError for a sips: URI if the proxy is not reached over TLS.
        """
        if target.lower().startswith("sips:") and self._proxy.transport != "tls":
            raise LocalError("a sips: URI cannot be called: the proxy is not reached over TLS")
        request = self._new_request("INVITE", target, f"<{target}>")
        request.headers.set("CSeq", "1 INVITE")
        line = self._line(request)
        request.headers.set("Contact", line.contact)
        request.headers.set("Allow", self._allow)
        for name, value in headers:
            request.headers.add(name, value)
        set_body(request, sdp, CONTENT_TYPE)
        self._placed = [call for call in self._placed if not call.is_answered]
        self._placed.append(Call(line, request))
        return self._placed[-1]

    def _line(self, request: Request) -> Line:
        contact = self._contact if request.uri.scheme == "sips" else self._contact.replace("<sips:", "<sip:")
        return Line(
            self._account,
            self._exchange,
            self._proxy,
            contact,
            self._opened,
            self._closed,
            self._session_s,
            self._allow,
        )

    def _opened(self, leg: Leg) -> None:
        if leg.key is not None:
            self._legs[leg.key] = leg

    def _closed(self, leg: Leg) -> None:
        if leg.key is not None:
            self._legs.pop(leg.key, None)

    @property
    def _contact(self) -> str:
        address = self.address
        transport = ";transport=tcp" if self._proxy.transport == "tcp" else ""
        user = parse_uri(self._account.aor).user
        scheme = "sips" if self._proxy.transport == "tls" else "sip"
        return f"<{scheme}:{user}@{address.address}{transport}>"

    def _new_request(self, method: str, target: str, to: str) -> Request:
        return self._account.new_request(method, target, to, self._exchange.token(), self._exchange.token())

    # Received requests.

    def _connection_lost(self, peer: Hop) -> None:
        if peer == self._proxy:
            self._registration.connection_lost()

    def _request(self, event: RequestReceived) -> None:
        leg = self._legs.get((event.envelope.call_id, event.envelope.to_tag))
        if event.request.uri.scheme == "sips" and event.source.transport != "tls":
            self._answer(event, 416, "Unsupported URI Scheme: a sips: URI came without TLS (RFC 5630)")
        elif self._proxy_only and not self._is_from_proxy(event.source, leg):
            self._answer(event, 403, "Forbidden: requests come through the user's proxy")
        elif event.request.method == "CANCEL":
            self._cancel(event)
        else:
            try:
                check_request(event.request, self._allow.split(","), self._options)
            except RequestRefusedError as refusal:
                self._answer(event, refusal.status, headers=refusal.headers)
            else:
                self._process(event, leg)

    def _process(self, event: RequestReceived, leg: Leg | None) -> None:
        """Process a request, of `leg` if it belongs to a dialog."""
        if event.envelope.to_tag and leg is None:
            self._answer(event, 481)
        elif leg is not None:
            self._in_dialog(leg, event)
        elif event.request.method == "INVITE":
            self._invited(event)
        elif event.request.method == "REFER":
            self._answer(event, 403, "Forbidden: only the other side of a call may pass us on")
        else:
            self._answer(event, 200 if event.request.method == "OPTIONS" else 481)

    def _is_from_proxy(self, source: Hop, leg: Leg | None) -> bool:
        """Return whether a request comes from the proxy, or within a call from the host of that call's next hop."""
        beside = leg.dialog.next_hop() if leg is not None and leg.dialog is not None else self._proxy
        return source.is_from(self._proxy) or (beside.host != self._proxy.host and source.is_from(beside))

    def _is_for_us(self, uri: URI) -> bool:
        """Whether a Request-URI is this user's address of record, or its contact here."""
        own = uri.scheme == "tel" or ascii_lower(bare_host(uri.host)) in (
            ascii_lower(self._account.domain),
            self.address.host,
        )
        return own and self._account.is_named_by(uri)

    def _in_dialog(self, leg: Leg, event: RequestReceived) -> None:
        """Answer a request within a call: BYE ends it, INVITE may change it, and REFER transfer it."""
        method, dialog = event.request.method, leg.dialog_with(event.envelope.from_tag)
        if dialog is None or (dialog is not leg.dialog and method not in IN_EARLY_DIALOGS):
            self._answer(event, 481)
        elif not dialog.accept(event.envelope):
            self._answer(event, 500, "Server Internal Error: CSeq out of order")
        elif method == "BYE":
            self._answer(event, 200)
            leg.bye_received(event.request.headers)
        elif method in ("INVITE", "PRACK", "UPDATE", "REFER", "NOTIFY"):
            try:
                self._change(leg, dialog, event)
            except RequestRefusedError as refusal:
                self._answer(event, refusal.status, headers=refusal.headers)
        else:
            self._answer(event, 200 if method == "OPTIONS" else 405)

    def _change(self, leg: Leg, dialog: Dialog, event: RequestReceived) -> None:
        """Let a call process a change, a PRACK, a REFER or a NOTIFY; raises RequestRefusedError."""
        match event.request.method:
            case "INVITE":
                leg.reinvite_received(event)
            case "PRACK":
                leg.prack_received(event)
            case "UPDATE":
                leg.update_received(dialog, event)
            case "REFER":
                leg.referrals.receive(event)
            case _:
                leg.referrals.notified(event)
                self._answer(event, 200)

    def _invited(self, event: RequestReceived) -> None:
        """Accept a new call for processing, unless it is a duplicate (RFC 3261 §8.2.2.2, §13.3.1)."""
        if any(_same_request(call, event) for call in self._incoming()):
            self._answer(event, 482)
        elif not self._is_for_us(event.request.uri):
            self._answer(event, 404, "Not Found: this telephone is another user's")
        elif len(self._legs) >= MAX_CALLS:
            self._answer(event, 480)
        else:
            try:
                owner = self._owner(event.request)
                call = IncomingCall(self._line(event.request), event)
            except MalformedError as error:
                self._answer(event, 400, f"Bad Request: {error}")
            except RequestRefusedError as refusal:
                self._answer(event, refusal.status)
            else:
                self._opened(call)
                self._exchange.run(self._serve(owner, call))

    def _owner(self, request: Request) -> Callable[[IncomingCall], Awaitable[None]]:
        """Return the handler of a new call: with Replaces, that of the call to be replaced (RFC 3891 §3).

        Raises RequestRefusedError without a handler, without such a call, or if that call is up although Replaces
        is `early-only`. A call that rings here cannot be replaced.
        """
        wanted = replaces_in(request)
        if wanted is None:
            if self.on_invite is None:
                raise RequestRefusedError(480)
            return self.on_invite
        leg = self._legs.get((wanted.call_id, wanted.to_tag))
        dialog = None if leg is None else leg.dialog
        if leg is None or not leg.is_up or dialog is None or dialog.remote_tag != wanted.from_tag:
            raise RequestRefusedError(481)
        if wanted.early_only:
            raise RequestRefusedError(486)
        if leg.on_replaced is None:
            raise RequestRefusedError(603)
        return leg.on_replaced

    async def _serve(self, on_invite: Callable[[IncomingCall], Awaitable[None]], call: IncomingCall) -> None:
        """Let the owner handle a call; if it raises, end the call."""
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
        if key is not None:
            for leg in list(self._legs.values()):
                leg.cancel_received(key)

    def _ack(self, event: AckReceived) -> None:
        leg = self._legs.get((event.envelope.call_id, event.envelope.to_tag))
        if leg is not None:
            leg.ack_received(event.envelope.sequence, event.request.body)

    def _answer(
        self,
        event: RequestReceived,
        status: int,
        phrase: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        if status == 200:
            supported = ", ".join((SUPPORTED, *self._options))
            headers = (*headers, ("Allow", self._allow), ("Supported", supported))
        tag = self._exchange.token()
        self._exchange.respond(event.key, make_response(event.request, status, phrase, to_tag=tag, headers=headers))


class _NoTrace:
    on = False

    def sip(self, transport: str, src: str, dst: str, data: bytes) -> None:
        """Keep nothing."""


def _same_request(call: IncomingCall, event: RequestReceived) -> bool:
    """Return whether a request is a call's INVITE that came by another path (RFC 3261 §8.2.2.2).

    Call-ID, From tag and CSeq are then the same.
    """
    dialog, envelope = call.dialog, event.envelope
    return (dialog.call_id, dialog.remote_tag, dialog.remote_sequence) == (
        envelope.call_id,
        envelope.from_tag,
        envelope.sequence,
    )
