"""The proxy of a domain: it admits its users, signs and routes their calls, and verifies calls of other domains."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

from sipmessage import URI, Request

from sip_testbed import proxy_rules as rules
from sip_testbed.proxy_answers import AnswerSigner, AnswerVerifier
from sip_testbed.proxy_calls import CallSigner, CallVerifier
from sip_testbed.proxy_config import ProxySetup, service_url
from sip_testbed.proxy_element import Forward, ProxyElement, Reply
from sip_testbed.proxy_rules import RequestRefusal
from sip_testbed.proxy_stir import StirService
from sip_testbed.registrar import Registrar
from voice_dpki.effects import Clock, Random
from voice_dpki.errors import MalformedError
from voice_dpki.metrics import OTHER, counters, gauge, gauges
from voice_dpki.names import Tn, ascii_lower
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.assertions import remove_assertions
from voice_dpki.sip.digest import Authenticator, DigestRefusedError
from voice_dpki.sip.events import Counters
from voice_dpki.sip.hosts import bare_host
from voice_dpki.sip.location import Binding, ExpiryBounds, Location, target_of
from voice_dpki.sip.message import Hop, copy_request, header_values, parse_address, required_header
from voice_dpki.sip.proxy import Arrival
from voice_dpki.sip.uas import check_method, check_require
from voice_dpki.stir.forms import SIGNING_PATH, VERIFICATION_PATH
from voice_dpki.stir.tn import canonical_tn
from voice_dpki.wire.sip.invite import caller_uri, number_of

METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "REGISTER", "OPTIONS")
ALLOW = ("Allow", ", ".join(METHODS))

ANSWERS = counters(
    "sip_answers",
    "Final responses of this proxy's own or of others",
    method=(*METHODS, OTHER),
    status=map(str, range(200, 700)),
)
TRANSACTIONS = gauge("sip_transactions", "Open transactions")
IGNORED = gauges(
    "sip_ignored",
    "Messages without a transaction, and transactions that failed",
    cause=(field.name for field in fields(Counters)),
)


def _count(method: str, status: int) -> None:
    ANSWERS.labels(method if method in METHODS else OTHER, str(status)).inc()


class ProxyService:
    """The proxy and registrar of one domain."""

    def __init__(self, setup: ProxySetup, tracer: Tracer, clock: Clock, random: Random) -> None:
        config = setup.config
        self._config = config
        self._users = setup.users
        self._routes = setup.routes
        self._tracer = tracer
        self._random = random
        secret = setup.secret or random.token(32)
        bounds = config.registration
        self._location = Location(ExpiryBounds(bounds.min_s, bounds.default_s, bounds.max_s))
        self._authenticator = Authenticator(config.domain, setup.users.secret, random=random)
        self._registrar = Registrar(self._authenticator, self._location)
        self._services: list[StirService] = []
        self._answer_signer: AnswerSigner | None = None
        self._answer_verifier: AnswerVerifier | None = None
        self._signer = self._make_signer(setup, clock)
        self._verifier = self._make_verifier(setup, clock)
        self._element = ProxyElement(
            config.listen,
            self._decide,
            resolve=self._resolve,
            secret=secret,
            random=random,
            tracer=tracer,
            udp_max_bytes=config.udp_max_bytes,
            change_response=partial(rules.remove_challenges, realm=config.domain),
            on_answer=_count,
            own_names=(config.domain,),
            advertise=config.listen.advertise,
            tls=setup.tls.value.tls if setup.tls else None,
            known=setup.routes.hosts,
        )
        if setup.tls is not None:
            setup.tls.follow(lambda side: self._element.renew_tls(side.tls))
        TRANSACTIONS.set_function(lambda: len(self._element.layer))
        for cause in (field.name for field in fields(Counters)):
            IGNORED.labels(cause).set_function(partial(getattr, self._element.layer.counters, cause))

    def _make_signer(self, setup: ProxySetup, clock: Clock) -> CallSigner | None:
        config, access = setup.config.signing, setup.signing
        if config is None or access is None:
            return None
        name = f"{setup.config.name}'s authentication server"
        service = StirService(name, service_url(config.url, SIGNING_PATH), access, config.timeout_ms)
        self._services.append(service)
        if config.answers:
            self._answer_signer = AnswerSigner(service, self._tracer, clock)
        return CallSigner(config, service, self._tracer, clock, self._random)

    def _make_verifier(self, setup: ProxySetup, clock: Clock) -> CallVerifier | None:
        config, access = setup.config.verification, setup.verification
        if config is None or access is None:
            return None
        name = f"{setup.config.name}'s verification server"
        service = StirService(name, service_url(config.url, VERIFICATION_PATH), access, config.timeout_ms)
        self._services.append(service)
        if config.answers:
            self._answer_verifier = AnswerVerifier(setup.config.domain, service, self._tracer, clock)
        return CallVerifier(config, service, self._tracer, clock)

    @property
    def address(self) -> Hop:
        """The address at which the proxy listens, once it has started."""
        return self._element.address

    @property
    def tls_address(self) -> str:
        """The TLS listener's address as "host:port", or that of `address` if there is none."""
        return self._element.layer.tls_sent_by

    async def start(self) -> None:
        """Bind the sockets; raises LocalError."""
        await self._element.start()
        for service in self._services:
            self._element.run(service.warm_up())

    async def close(self) -> None:
        """Stop at once."""
        await self._element.close()
        for service in self._services:
            await service.close()

    async def _decide(self, arrival: Arrival) -> Forward | Reply:
        """Decide how a request is handled; raises RequestRefusal or MalformedError."""
        method = arrival.request.method
        if method == "INVITE":
            request = copy_request(arrival.request)
            if self._is_own_caller(caller_uri(request)):
                return await self._outbound(request, arrival)
            return await self._inbound(request)
        check_method(arrival.request, METHODS)
        if method not in ("REGISTER", "OPTIONS"):  # meaningless outside dialogs
            raise RequestRefusal(405, None, (ALLOW,))
        if not self._is_local(arrival.request.uri):
            raise RequestRefusal(404, "Not Found: this proxy serves another domain")
        if method == "OPTIONS" and arrival.request.uri.user:
            return self._asked_about_user(copy_request(arrival.request), arrival)
        check_require(arrival.request)
        if method == "OPTIONS":  # a question to the proxy itself (RFC 3261 §11.2)
            return Reply((ALLOW,))
        return Reply(self._registrar.register(arrival, self._element.now_s(), self._element.vouch))

    # Calls of the domain's own users.

    async def _outbound(self, request: Request, arrival: Arrival) -> Forward:
        """Forward a user's call: authenticated, with the user's own number, and signed if it leaves the domain."""
        back = _flow_back(arrival)
        caller = self._admit(request, arrival)
        remove_assertions(request)
        rules.assert_identity(request, caller, self._config.domain)
        callee = self._own_user(request.uri)
        if callee is not None:
            return replace(self._deliver(request, callee), back=back)
        way = self._routes.way(request.uri, number_of(request.uri))
        if way is None:
            raise RequestRefusal(404, "Not Found: there is no route to this destination")
        if way.to_domain is not None and self._is_local(request.uri):
            request.uri = rules.number_at(request.uri, way.to_domain)
        if self._signer is not None:
            await self._signer.sign(request, caller, bind_sdp=not way.rewrites_sdp)
        return Forward(request, way.hop, back=back, **self._answered(self._answer_verifier, request, caller))

    def _answered(
        self, party: AnswerSigner | AnswerVerifier | None, request: Request, caller: Tn | None
    ) -> dict[str, Any]:
        """Return the fields of Forward that change the answers to a call and the UPDATEs before them.

        Empty for an unsigned call, whose domain knows no STIR.
        """
        if party is None or caller is None or not request.headers.getlist("Identity"):
            return {}
        facts = rules.call_facts(request, caller, 0)
        return {"answered": party.of(facts), "updated": party.updates_of(facts)}

    def _admit(self, request: Request, arrival: Arrival) -> Tn:
        """Authenticate a request of a user of the domain and return the user's number; raises RequestRefusal."""
        now_s = self._element.now_s()
        caller = self._authenticate(request, now_s)
        self._element.vouch(arrival)
        if number_of(caller_uri(request)) != caller:
            raise RequestRefusal(403, "Forbidden: From is not the number of the authenticated user")
        if self._config.require_registration and not self._location.find(caller, now_s):
            raise RequestRefusal(403, "Forbidden: the caller is not registered here")
        for name in ("Proxy-Authorization", "Identity"):
            request.headers.remove(name)
        return caller

    def _authenticate(self, request: Request, now_s: float) -> Tn:
        values = request.headers.getlist("Proxy-Authorization")
        try:
            return canonical_tn(self._authenticator.authenticate(values, request.method, now_s))
        except DigestRefusedError as refused:
            claimed = caller_uri(request).user or ""
            challenge = self._authenticator.challenge(claimed, now_s, stale=refused.stale)
            raise RequestRefusal(407, None, (("Proxy-Authenticate", challenge),)) from None

    # Calls from other domains.

    async def _inbound(self, request: Request) -> Forward:
        """Forward a call to one of the users, with the verdict about its caller."""
        callee = self._own_user(request.uri)
        if callee is None:
            raise RequestRefusal(404, "Not Found: this domain serves no such number")
        remove_assertions(request)
        self._deliver(request, callee)  # refuses before a service is asked
        caller = number_of(caller_uri(request))
        if self._verifier is not None:
            verstat = await self._verifier.verify(request, callee)
            if caller is not None:
                rules.assert_identity(request, caller, self._config.domain, verstat)
        is_called = number_of(parse_address(required_header(request, "To")).uri) == callee
        signer = self._answer_signer if is_called else None
        return replace(self._deliver(request, callee), **self._answered(signer, request, caller))

    def _asked_about_user(self, request: Request, arrival: Arrival) -> Forward:
        """Forward OPTIONS to the user's telephone, which answers as to an INVITE (RFC 3261 §11.1)."""
        if self._is_own_caller(caller_uri(request)):
            self._admit(request, arrival)
        callee = self._own_user(request.uri)
        if callee is None:
            raise RequestRefusal(404, "Not Found: this domain serves no such number")
        remove_assertions(request)
        return self._deliver(request, callee)

    def _deliver(self, request: Request, callee: Tn, silent: Sequence[Binding] = ()) -> Forward:
        """Send a call to the newest of the user's registered contacts (RFC 3261 §16.5); raises RequestRefusal.

        `silent` are the bindings that gave no response. A binding whose flow is known to be gone is removed.
        """
        bindings = [each for each in self._location.find(callee, self._element.now_s()) if each not in silent]
        if not bindings:
            why = "no telephone of the user can be reached" if silent else "the user is not registered"
            raise RequestRefusal(480, f"Temporarily Unavailable: {why}")
        secure = request.uri.scheme == "sips"
        bindings = [each for each in bindings if not secure or each.uri.scheme == "sips"]
        if not bindings:
            warning = ("Warning", f'380 {self._config.domain} "SIPS Not Allowed"')
            raise RequestRefusal(480, "Temporarily Unavailable: no telephone of the user has TLS", (warning,))
        binding, target = bindings[0], bindings[0].target

        def otherwise(is_gone: bool) -> Forward:
            if is_gone and target.hop.flow is not None:
                self._location.drop(callee, binding)
            return self._deliver(request, callee, (*silent, binding))

        others = bindings[1:] if self._config.ring_all and request.method == "INVITE" else ()
        return Forward(
            _addressed(request, binding),
            target.hop,
            target.fallback,
            otherwise=otherwise,
            others=tuple((_addressed(request, other), other.target) for other in others),
        )

    # Classifying URIs.

    def _is_local(self, uri: URI) -> bool:
        own = (ascii_lower(self._config.domain), self._element.address.host)
        return uri.scheme == "tel" or ascii_lower(bare_host(uri.host)) in own

    def _own_user(self, uri: URI) -> Tn | None:
        """Return the number of the local user that `uri` names, or None."""
        number = number_of(uri)
        return number if number in self._users and self._is_local(uri) else None

    def _is_own_caller(self, uri: URI) -> bool:
        """Return whether a From claims to be of this domain and so must be authenticated here."""
        return self._is_local(uri) and (uri.scheme != "tel" or number_of(uri) in self._users)

    def _resolve(self, uri: URI) -> Hop | None:
        """Return the hop of a request inside a dialog if its target is not a numeric address; None without one."""
        user = self._own_user(uri)
        if user is None:
            return self._routes.find(uri, number_of(uri))
        bindings = self._location.find(user, self._element.now_s())
        return bindings[0].target.hop if bindings else None


def _addressed(request: Request, binding: Binding) -> Request:
    """Return the request for the telephone of a binding (RFC 5630 §5.3)."""
    request, secure = copy_request(request), request.uri.scheme == "sips"
    request.uri = binding.uri if secure else replace(binding.uri, scheme="sip")
    return request


def _flow_back(arrival: Arrival) -> Hop | None:
    """Return the hop for requests of this call to the calling user's telephone, with its flow if it needs one."""
    request = arrival.request
    contacts = header_values(request, "Contact")
    if len(contacts) != 1:
        raise MalformedError("an INVITE has exactly one Contact (RFC 3261 §8.1.1.8)")
    contact = parse_address(contacts[0]).uri
    return target_of(request, contact, arrival.source, flow_only="ob" in contact.parameters).hop
