"""The outer side of the gateway in SIP: ordinary telephones register here, call, and are called on their flows."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

from sipmessage import Request

from sip_testbed.gateway_config import GatewaySetup, GatewayTelephone
from sip_testbed.proxy_rules import RequestRefusal
from sip_testbed.registrar import Registrar
from voice_dpki.effects import Random
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.account import Account
from voice_dpki.sip.digest import Authenticator, DigestRefusedError, Secret
from voice_dpki.sip.events import AckReceived, RequestReceived
from voice_dpki.sip.location import Binding, Location, target_of
from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import Hop, header_values, make_response, parse_address, set_body
from voice_dpki.sip.proxy import Arrival
from voice_dpki.sip.sdp import CONTENT_TYPE
from voice_dpki.sip.transaction import UDP_MAX_BYTES
from voice_dpki.sip.uas import RequestRefusedError, check_request
from voice_dpki.stir.tn import canonical_tn
from voice_dpki.wire.sip.call import Call, Leg
from voice_dpki.wire.sip.exchange import Exchange, OnResponse
from voice_dpki.wire.sip.incoming_call import IncomingCall
from voice_dpki.wire.sip.invite import caller_uri, number_of
from voice_dpki.wire.sip.line import ALLOW, Line
from voice_dpki.wire.sip.user_agent import IN_EARLY_DIALOGS

log = logging.getLogger(__name__)

METHODS: Final = (*ALLOW.split(","), "REGISTER")

Headers = Sequence[tuple[str, str]]


class NotRegisteredError(PeerError):
    """The telephone has no registration here that is valid."""


class OnFlow:
    """The exchange of one call: everything goes to the telephone on the flow `hop`, wherever its Contact points.

    A Contact behind a NAT, or on a connection, cannot be reached otherwise (RFC 5626).
    """

    def __init__(self, exchange: Exchange, hop: Hop) -> None:
        self._exchange = exchange
        self._hop = hop

    def __getattr__(self, name: str) -> object:
        return getattr(self._exchange, name)

    def send(self, request: Request, hop: Hop, on_response: OnResponse) -> object:
        """Send a request on the flow."""
        return self._exchange.send(request, self._hop, on_response)

    async def ask(self, request: Request, hop: Hop) -> object:
        """Send a request on the flow, and wait for its final response."""
        return await self._exchange.ask(request, self._hop)

    def send_ack(self, ack: Request, hop: Hop) -> None:
        """Send an ACK on the flow."""
        self._exchange.send_ack(ack, self._hop)


OnCall = Callable[[GatewayTelephone, IncomingCall, Hop], Awaitable[None]]
"""Handles a call of an authenticated telephone; the hop is the source of its INVITE."""


class Phones:
    """Registrar and user agent towards the telephones of a setup, at one address."""

    def __init__(self, setup: GatewaySetup, on_call: OnCall, tracer: Tracer, random: Random) -> None:
        self._setup = setup
        self._on_call = on_call
        self._location = Location()
        self._authenticator = Authenticator(setup.name, self._secret, random=random)
        self._registrar = Registrar(self._authenticator, self._location)
        self._legs: dict[tuple[str, str], Leg] = {}
        outside = setup.config.outside
        self._exchange = Exchange(
            outside.host,
            outside.port,
            on_request=self._request,
            on_ack=self._ack,
            random=random,
            tracer=tracer,
            timers=Timers(),
            udp_max_bytes=UDP_MAX_BYTES,
            advertise=outside.advertise,
            tls=setup.outside_tls,
        )

    @property
    def address(self) -> Hop:
        """Where telephones register over UDP and TCP, once started."""
        return self._exchange.address

    @property
    def tls_address(self) -> str:
        """Where telephones register over TLS."""
        return self._exchange.tls_address

    async def start(self) -> None:
        """Bind the sockets; raises LocalError."""
        await self._exchange.start()

    async def close(self) -> None:
        """End all calls without waiting for answers, and close the sockets."""
        for leg in list(self._legs.values()):
            leg.hang_up()
        await asyncio.sleep(0)  # lets the tasks send the BYEs
        await self._exchange.close()

    def binding_of(self, telephone: GatewayTelephone) -> Binding:
        """Return the telephone's latest registration; raises NotRegisteredError."""
        bindings = self._location.find(telephone.number, self._now_s())
        if not bindings:
            raise NotRegisteredError("the telephone is not registered at the gateway")
        return bindings[0]

    def ring(
        self, telephone: GatewayTelephone, binding: Binding, caller: Account, sdp: bytes, headers: Headers
    ) -> Call:
        """Call a telephone in the name of `caller` on the flow of `binding`, and on no later one.

        Raises MalformedError for a Contact that cannot be called.
        """
        hop, token = binding.target.hop, self._exchange.token
        request = caller.new_request("INVITE", str(binding.uri), f"<{telephone.account.aor}>", token(), token())
        line = self._line(caller, hop)
        request.headers.set("CSeq", "1 INVITE")
        request.headers.set("Contact", line.contact)
        request.headers.set("Allow", ALLOW)
        for name, value in headers:
            request.headers.add(name, value)
        set_body(request, sdp, CONTENT_TYPE)
        return Call(line, request)

    def _line(self, account: Account, hop: Hop) -> Line:
        exchange = cast(Exchange, OnFlow(self._exchange, hop))
        return Line(account, exchange, hop, self._contact(hop), self._opened, self._closed)

    def _contact(self, hop: Hop) -> str:
        if hop.transport == "tls":
            return f"<sip:{self._exchange.tls_address};transport=tls>"
        transport = ";transport=tcp" if hop.transport == "tcp" else ""
        return f"<sip:{self.address.address}{transport}>"

    def _opened(self, leg: Leg) -> None:
        if leg.key is not None:
            self._legs[leg.key] = leg

    def _closed(self, leg: Leg) -> None:
        if leg.key is not None:
            self._legs.pop(leg.key, None)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _secret(self, username: str) -> Secret | None:
        try:
            telephone = self._setup.telephones.get(canonical_tn(username))
        except MalformedError:
            return None
        return telephone.secret if telephone else None

    # Received requests.

    def _request(self, event: RequestReceived) -> None:
        leg = self._legs.get((event.envelope.call_id, event.envelope.to_tag))
        try:
            check_request(event.request, METHODS)
            headers = self._process(event, leg)
        except (RequestRefusedError, RequestRefusal) as refusal:
            self._answer(event, refusal.status, getattr(refusal, "phrase", None), refusal.headers)
        except MalformedError as error:
            self._answer(event, 400, f"Bad Request: {error}")
        else:
            if headers is not None:
                self._answer(event, 200, None, headers)

    def _process(self, event: RequestReceived, leg: Leg | None) -> Headers | None:
        """Process a request; returns the header fields of its 200, or None if it is answered otherwise."""
        method = event.request.method
        if method == "CANCEL":
            return self._cancel(event)
        if leg is not None:
            return self._in_dialog(leg, event)
        if event.envelope.to_tag:
            raise RequestRefusal(481)
        if method == "REGISTER":
            arrival = Arrival(event.key, event.request, event.envelope, event.source)
            return self._registrar.register(arrival, self._now_s(), lambda _: None)
        if method == "INVITE":
            self._invited(event, self._caller(event.request))
            return None
        if method == "OPTIONS":
            return ()
        raise RequestRefusal(481)

    def _caller(self, request: Request) -> GatewayTelephone:
        """Return the calling telephone, which must authenticate itself (RFC 3261 §22.2); raises RequestRefusal."""
        values = request.headers.getlist("Authorization")
        try:
            username = self._authenticator.authenticate(values, "INVITE", self._now_s())
        except DigestRefusedError as refused:
            user = caller_uri(request).user or ""
            challenge = self._authenticator.challenge(user, self._now_s(), stale=refused.stale)
            raise RequestRefusal(401, None, (("WWW-Authenticate", challenge),)) from None
        number = canonical_tn(username)
        if number_of(caller_uri(request)) != number:
            raise RequestRefusal(403, "Forbidden: a telephone calls in its own name alone")
        return self._setup.telephones[number]

    def _invited(self, event: RequestReceived, telephone: GatewayTelephone) -> None:
        contact = parse_address(header_values(event.request, "Contact")[0]).uri
        hop = target_of(event.request, contact, event.source).hop
        call = IncomingCall(self._line(telephone.account, hop), event)
        self._opened(call)
        self._exchange.run(self._serve(telephone, call, event.source))

    async def _serve(self, telephone: GatewayTelephone, call: IncomingCall, source: Hop) -> None:
        """Let the owner handle a call; if it raises, end the call."""
        try:
            await self._on_call(telephone, call, source)
        except Exception:
            log.exception("a telephone's call was not handled")
            await call.reject(500)
            await call.bye()

    def _in_dialog(self, leg: Leg, event: RequestReceived) -> Headers | None:
        """Process a request within a call: BYE ends it, and INVITE can change it."""
        dialog, method = leg.dialog_with(event.envelope.from_tag), event.request.method
        if dialog is None or (dialog is not leg.dialog and method not in IN_EARLY_DIALOGS):
            raise RequestRefusal(481)
        if not dialog.accept(event.envelope):
            raise RequestRefusal(500, "Server Internal Error: CSeq out of order")
        if method == "BYE":
            self._answer(event, 200)
            leg.bye_received(event.request.headers)
            return None
        if method in ("INVITE", "PRACK"):
            (leg.reinvite_received if method == "INVITE" else leg.prack_received)(event)
            return None
        if method == "UPDATE":
            leg.update_received(dialog, event)
            return None
        if method == "OPTIONS":
            return ()
        raise RequestRefusal(405)

    def _cancel(self, event: RequestReceived) -> Headers:
        key = self._exchange.cancelled_invite(event.envelope)
        if key is None:
            raise RequestRefusal(481)
        for leg in list(self._legs.values()):
            leg.cancel_received(key)
        return ()

    def _ack(self, event: AckReceived) -> None:
        leg = self._legs.get((event.envelope.call_id, event.envelope.to_tag))
        if leg is not None:
            leg.ack_received(event.envelope.sequence, event.request.body)

    def _answer(
        self, event: RequestReceived, status: int, phrase: str | None = None, headers: Headers = ()
    ) -> None:
        tag = self._exchange.token()
        response = make_response(event.request, status, phrase, to_tag=tag, headers=tuple(headers))
        self._exchange.respond(event.key, response)
