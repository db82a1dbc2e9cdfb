"""What a domain's proxy does with a request: admit its users, sign and route their calls, verify the others'."""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial

from prometheus_client import Counter, Gauge
from sipmessage import URI, Request

from sip_testbed import proxy_rules as rules
from sip_testbed.proxy_calls import CallSigner, CallVerifier
from sip_testbed.proxy_config import Setup, service_url
from sip_testbed.proxy_rules import Refusal, number_of
from sip_testbed.proxy_stir import StirService
from sip_testbed.registrar import Registrar
from voice_dpki.effects import Clock, Random
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.digest import Authenticator, DigestRefusedError
from voice_dpki.sip.endpoint import Endpoint
from voice_dpki.sip.location import ExpiryBounds, Location
from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import Hop, copy_request, uri_hop
from voice_dpki.sip.proxy import TIMER_C_S, Arrival, ProxyCore
from voice_dpki.sip.transaction import Event
from voice_dpki.stir.atis import SIGNING_PATH, VERIFICATION_PATH
from voice_dpki.stir.tn import canonical_tn

log = logging.getLogger(__name__)

ALLOW = ("Allow", "INVITE, ACK, CANCEL, BYE, REGISTER, OPTIONS")

ANSWERS = Counter("sip_answers", "Final responses of this proxy's own or of others", ["method", "status"])
TRANSACTIONS = Gauge("sip_transactions", "Open transactions")
IGNORED = Gauge("sip_ignored", "Messages dropped or refused without a transaction", ["cause"])


class ProxyService:
    """The proxy and registrar of one domain."""

    def __init__(self, setup: Setup, tracer: Tracer, clock: Clock, random: Random) -> None:
        config = setup.config
        self._config = config
        self._users = setup.users
        self._routes = setup.routes
        self._tracer = tracer
        self._random = random
        self._secret = setup.secret or random.token(32)
        bounds = config.registration
        self._location = Location(ExpiryBounds(bounds.min_s, bounds.default_s, bounds.max_s))
        self._authenticator = Authenticator(config.domain, self._secret, setup.users.secret, random=random)
        self._registrar = Registrar(self._authenticator, self._location)
        self._services: list[StirService] = []
        self._signer = self._make_signer(setup, clock)
        self._verifier = self._make_verifier(setup, clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._endpoint = Endpoint(
            config.listen.host,
            config.listen.port,
            self._handle,
            random=random,
            tracer=tracer,
            timers=Timers(c_s=TIMER_C_S, trying_after_s=0),
            udp_max_bytes=config.udp_max_bytes,
        )
        self._core = self._make_core()
        TRANSACTIONS.set_function(lambda: len(self._endpoint.layer))
        for cause in ("malformed", "stray_responses", "overload"):
            IGNORED.labels(cause).set_function(partial(getattr, self._endpoint.layer.counters, cause))

    def _make_signer(self, setup: Setup, clock: Clock) -> CallSigner | None:
        config, token = setup.config.signing, setup.signing_token
        if config is None or token is None:
            return None
        name = f"{setup.config.name}'s authentication server"
        service = StirService(name, service_url(config.url, SIGNING_PATH), token, config.timeout_ms)
        self._services.append(service)
        return CallSigner(config, service, self._tracer, clock, self._random)

    def _make_verifier(self, setup: Setup, clock: Clock) -> CallVerifier | None:
        config, token = setup.config.verification, setup.verification_token
        if config is None or token is None:
            return None
        name = f"{setup.config.name}'s verification server"
        service = StirService(name, service_url(config.url, VERIFICATION_PATH), token, config.timeout_ms)
        self._services.append(service)
        return CallVerifier(config, service, self._tracer, clock)

    def _make_core(self) -> ProxyCore:
        return ProxyCore(
            self._endpoint.layer,
            self._endpoint.address,
            secret=self._secret,
            random=self._random,
            resolve=self._resolve,
            on_answer=lambda response: ANSWERS.labels(response.cseq.method, str(response.code)).inc(),
        )

    @property
    def address(self) -> Hop:
        """Where the proxy listens, once it has started."""
        return self._endpoint.address

    async def start(self) -> None:
        """Bind the sockets; raises LocalError."""
        await self._endpoint.start()
        self._core = self._make_core()  # its own address is known now
        for service in self._services:
            self._run(service.warm_up())

    async def close(self) -> None:
        """Stop at once."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._endpoint.close()
        for service in self._services:
            await service.close()

    def _run(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Dispatch.

    def _handle(self, event: Event, now_s: float) -> None:
        arrival = self._core.handle(event, now_s)
        if arrival is None:
            return
        if arrival.request.method == "INVITE":
            self._run(self._call(arrival))
        else:
            self._answer(arrival, now_s)

    def _answer(self, arrival: Arrival, now_s: float) -> None:
        try:
            headers = self._own_answer(arrival, now_s)
            self._core.answer(arrival.key, 200, None, now_s, headers)
        except Exception as error:
            self._refuse(arrival, error)

    def _own_answer(self, arrival: Arrival, now_s: float) -> tuple[tuple[str, str], ...]:
        """Do what is the proxy's own: REGISTER, and OPTIONS about the proxy (RFC 3261 §11.2)."""
        method = arrival.request.method
        if method not in ("REGISTER", "OPTIONS"):
            raise Refusal(405, None, (ALLOW,))
        if not self._is_local(arrival.request.uri):
            raise Refusal(404, "Not Found: this proxy serves another domain")
        return self._registrar.register(arrival, now_s) if method == "REGISTER" else (ALLOW,)

    async def _call(self, arrival: Arrival) -> None:
        try:
            request = copy_request(arrival.request)
            own = self._is_own_caller(rules.caller_uri(request))
            hop = await (self._outbound(request) if own else self._inbound(request))
            self._core.forward(arrival.key, request, hop, self._endpoint.now_s())
        except Exception as error:
            self._refuse(arrival, error)
        self._endpoint.flush()

    def _refuse(self, arrival: Arrival, error: Exception) -> None:
        """Answer a request that a rule refused, or on which this proxy failed."""
        if isinstance(error, Refusal):
            refusal = error
        elif isinstance(error, MalformedError):
            refusal = Refusal(400, f"Bad Request: {error}")
        else:
            log.error("a request was not handled", exc_info=error)
            refusal = Refusal(500)
        now_s = self._endpoint.now_s()
        self._core.answer(arrival.key, refusal.status, refusal.phrase, now_s, refusal.headers)

    # Calls of the domain's own users.

    async def _outbound(self, request: Request) -> Hop:
        """Let a user's call out: authenticated, with the user's own number, and signed if it leaves the domain."""
        now_s = self._endpoint.now_s()
        caller = self._authenticate(request, now_s)
        if number_of(rules.caller_uri(request)) != caller:
            raise Refusal(403, "Forbidden: From is not the number of the authenticated user")
        if self._config.require_registration and not self._location.find(caller, now_s):
            raise Refusal(403, "Forbidden: the caller is not registered here")
        for name in ("Proxy-Authorization", "Identity"):
            request.headers.remove(name)
        rules.remove_assertions(request)
        rules.assert_identity(request, caller, self._config.domain)
        callee = self._own_user(request.uri)
        if callee is not None:
            return self._deliver(request, callee, now_s)
        hop = self._routes.find(request.uri, number_of(request.uri))
        if hop is None:
            raise Refusal(404, "Not Found: there is no route to this destination")
        if self._signer is not None:
            await self._signer.sign(request, caller)
        return hop

    def _authenticate(self, request: Request, now_s: float) -> Tn:
        values = request.headers.getlist("Proxy-Authorization")
        try:
            return canonical_tn(self._authenticator.authenticate(values, request.method, now_s))
        except DigestRefusedError as refused:
            claimed = rules.caller_uri(request).user or ""
            challenge = self._authenticator.challenge(claimed, now_s, stale=refused.stale)
            raise Refusal(407, None, (("Proxy-Authenticate", challenge),)) from None

    # Calls from other domains.

    async def _inbound(self, request: Request) -> Hop:
        """Let a call in to one of the users, with what was found out about its caller."""
        callee = self._own_user(request.uri)
        if callee is None:
            raise Refusal(404, "Not Found: this domain serves no such number")
        rules.remove_assertions(request)
        hop = self._deliver(request, callee, self._endpoint.now_s())
        if self._verifier is not None:
            verstat = await self._verifier.verify(request, callee)
            caller = number_of(rules.caller_uri(request))
            if caller is not None:
                rules.assert_identity(request, caller, self._config.domain, verstat)
        return hop

    def _deliver(self, request: Request, callee: Tn, now_s: float) -> Hop:
        """Send a call to where the user is registered (RFC 3261 §16.5)."""
        bindings = self._location.find(callee, now_s)
        if not bindings:
            raise Refusal(480, "Temporarily Unavailable: the user is not registered")
        request.uri = bindings[0].uri
        return uri_hop(request.uri) or bindings[0].source

    # Whose is what.

    def _is_local(self, uri: URI) -> bool:
        return uri.scheme == "tel" or uri.host.lower() in (self._config.domain.lower(), self._config.listen.host)

    def _own_user(self, uri: URI) -> Tn | None:
        """Return the number of the user here that `uri` names, or None."""
        number = number_of(uri)
        return number if number in self._users and self._is_local(uri) else None

    def _is_own_caller(self, uri: URI) -> bool:
        """Whether a From claims to be of this domain, and so must be authenticated here."""
        return self._is_local(uri) and (uri.scheme != "tel" or number_of(uri) in self._users)

    def _resolve(self, uri: URI) -> Hop | None:
        """Return where a request inside a dialog goes when its target is a name."""
        user = self._own_user(uri)
        if user is None:
            return self._routes.find(uri, number_of(uri))
        bindings = self._location.find(user, self._endpoint.now_s())
        return uri_hop(bindings[0].uri) if bindings else None
