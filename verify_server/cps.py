"""The call placement service: keeps PASSporTs of calls whose path loses them, for the partners of the call alone.

    POST /passports/{SPC}/{DEST}/{ORIG}, /passports/{DEST}/{ORIG}    an operator publishes
    GET  the same                                                    the called party's operator retrieves

Each request has an access token (`voice_dpki.stir.access`). A PASSporT is kept only if it would pass verification
now: its signer is on the ledger with authority over the caller's number. So nobody can make another's call fail.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from verify_server.cps_config import CpsConfig
from verify_server.service import Resolver
from voice_dpki.clock_health import HEALTH
from voice_dpki.codec.openapi import OPENAPI_PATH, encode
from voice_dpki.effects import Clock
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.standing import holding_of
from voice_dpki.metrics import counters, follow, gauge
from voice_dpki.names import CertDigest, Tn, ascii_lower
from voice_dpki.shell.http import HttpApp, Request, Response, Route, problem
from voice_dpki.shell.metrics import HEALTH_ROUTE, METRICS_ROUTE
from voice_dpki.shell.readiness import Check, Finding, Readiness, failed_if
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.access import (
    CODES,
    Access,
    AccessAction,
    AccessRefused,
    Place,
    check_form,
    check_issuer,
    passports_digest,
)
from voice_dpki.stir.call import Call
from voice_dpki.stir.cps import (
    CALL_PATH,
    MAX_BODY_BYTES,
    MAX_PASSPORTS,
    PUBLISHER_PATH,
    PlacedForm,
    identity_of,
    passports_body,
    read_passports,
    read_place,
)
from voice_dpki.stir.cps_openapi import document
from voice_dpki.stir.examine import Examined, Policy
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.placement import NoRoomError, Placement, Placements
from voice_dpki.stir.replay import ReplayCache, Sighting, TokenUse, settle
from voice_dpki.stir.several import Records, examine_all, judging, numbers_of
from voice_dpki.stir.verdict import VerificationFailed, overall
from voice_dpki.wire.seldom import Seldom
from voice_dpki.x509.recorded import RecordedCertificate, TrustedCertificate

log = logging.getLogger(__name__)

OUTCOMES: Final = ("placed", "found", "none", "body", "full", "foreign", "unverified", "ledger", *CODES)

REQUESTS = counters(
    "cps_requests",
    "Requests to the call placement service, by what came of them.",
    action=AccessAction,
    outcome=OUTCOMES,
)
KEPT = gauge("cps_kept", "Publications that are kept now.")

_BEARER: Final = "bearer "
_STATUS: Final = {"bound": 403, "issuer": 403, "body": 400, "full": 429, "ledger": 503, "none": 404}
"""HTTP statuses of refusals by outcome; other faults of a token give 401, all else 403."""
_RETRY_AFTER_S: Final = {"full": 5, "ledger": 1}


class _Refused(PeerError):
    """A request that is refused; `outcome` is one of OUTCOMES."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Members(Protocol):
    """The members of the ledger, such as `voice_dpki.wire.ledger.members.KeptMembers`."""

    def members(self) -> Mapping[str, Member]:
        """Return them by organisation; raises InquiryError where they are not known."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request whose token and issuer are judged."""

    access: Access
    issuer: TrustedCertificate


class CallPlacementService:
    """Serves the called parties of some operators."""

    def __init__(
        self,
        config: CpsConfig,
        resolver: Resolver,
        members: Members,
        clock: Clock,
        tracer: Tracer,
        checks: Mapping[str, Check] = MappingProxyType({}),
    ) -> None:
        """`checks` are those of /readyz, besides that of the members."""
        self._readiness = Readiness({"members": self._members_known, **checks})
        self._config, self._resolver, self._members = config, resolver, members
        self._clock, self._tracer = clock, tracer
        self._terms = config.terms
        self._policy = Policy(config.freshness_s)
        self._placements = Placements(config.max_bytes)
        self._tokens = ReplayCache(config.tokens_max_entries, config.retention_s, int(clock.now_s()))
        """The access tokens that were used, each under its issuer's share."""
        self._said = {outcome: Seldom(log) for outcome in OUTCOMES}
        follow(KEPT, self._placements.__len__)

    def app(self) -> HttpApp:
        """Return the whole application."""
        publish, retrieve = self._guarded(AccessAction.PUBLISH), self._guarded(AccessAction.RETRIEVE)
        routes = []
        for path in (CALL_PATH, PUBLISHER_PATH):
            routes.append(Route("POST", path, publish, max_body_bytes=MAX_BODY_BYTES))
            routes.append(Route("GET", path, retrieve, max_body_bytes=0))
        described = Response(200, encode(document()))
        routes += [
            HEALTH_ROUTE,
            self._readiness.route(),
            METRICS_ROUTE,
            Route("GET", OPENAPI_PATH, lambda _request: described),
        ]
        # The path of existing services' health checks (docs/stir-oob.md).
        return HttpApp([*routes, replace(HEALTH_ROUTE, pattern="/health")])

    def _members_known(self) -> Finding:
        try:
            self._members.members()
        except InquiryError as error:
            return failed_if(str(error))
        return failed_if("")

    def _guarded(self, action: AccessAction) -> Callable[[Request], Awaitable[Response]]:
        work = {AccessAction.PUBLISH: self._publish, AccessAction.RETRIEVE: self._retrieve}[action]

        async def answer(request: Request) -> Response:
            try:
                place = _place_in(request)
                outcome, response = await work(await self._judged(request, action, place), place, request.body)
            except AccessRefused as refused:
                return self._refusal(action, refused.code, str(refused))
            except _Refused as refused:
                return self._refusal(action, refused.outcome, str(refused))
            REQUESTS.labels(action, outcome).inc()
            self._tracer.note(f"{action}: {outcome}", ok=True)
            return response

        return answer

    def _refusal(self, action: AccessAction, outcome: str, why: str) -> Response:
        REQUESTS.labels(action, outcome).inc()
        self._tracer.note(f"{action}: {outcome}", ok=False, reason=why)
        if outcome != "none":
            self._said[outcome].warning("request refused", action=str(action), outcome=outcome, reason=why)
        status = _STATUS.get(outcome, 401 if outcome in CODES else 403)
        headers: list[tuple[str, str]] = []
        if status == 401:
            headers.append(("WWW-Authenticate", 'Bearer realm="cps", error="invalid_token"'))
        if outcome in _RETRY_AFTER_S:
            headers.append(("Retry-After", str(_RETRY_AFTER_S[outcome])))
        return replace(problem(status, outcome, why), headers=tuple(headers))

    async def _judged(self, request: Request, action: AccessAction, place: Place) -> _Asked:
        """Judge a request's token; raises AccessRefused and _Refused."""
        access = Access.parse(_token_in(request))
        now_s = self._clock.now_s()
        check_form(access, self._terms, action, place, now_s)
        issuer = check_issuer(access, await self._recorded(access.digest, {place.dest}), now_s)
        self._check_unused(access, issuer.organization)
        return _Asked(access, issuer)

    async def _recorded(self, digest: CertDigest, numbers: Collection[Tn]) -> RecordedCertificate:
        if problem := HEALTH.problem():
            raise _Refused("ledger", problem)
        try:
            found = self._resolver.held(digest) or await self._resolver.look_up(digest)
            return await self._resolver.ask_numbers(found, numbers)
        except VerificationFailed as failure:
            raise _Refused("ledger", str(failure)) from None

    def _check_unused(self, access: Access, organization: str) -> None:
        """Step 8: the token was not used before. It comes last, so that nobody uses up another's tokens."""
        key = f"{organization}\0{access.jti}".encode("utf-8", "surrogatepass")
        sighting = self._tokens.claim(TokenUse(key, b"", organization, access.iat_s), self._clock.steady_s())
        if sighting is Sighting.FULL:
            raise _Refused("full", "the issuer's share of the memory of access tokens is full")
        if sighting is Sighting.UNKNOWN:
            raise AccessRefused("replay", "the access token is from before this service began: sign another one")
        if sighting is not Sighting.NEW:
            raise AccessRefused("replay", "the access token was used before")

    async def _publish(self, asked: _Asked, place: Place, body: bytes) -> tuple[str, Response]:
        await self._check_served(place.dest)
        try:
            tokens = read_passports(body)
        except MalformedError as error:
            raise _Refused("body", str(error)) from None
        if passports_digest(tokens) != asked.access.passports:
            raise AccessRefused("bound", "the access token is for other PASSporTs than those in the body")
        await self._check_verified(tokens, place)
        lifetime_s, now_s = self._lifetime_s(asked.access), self._clock.steady_s()
        name = asked.access.issuer
        held = Placement(place.orig, place.dest, asked.issuer.organization, name, tokens, now_s + lifetime_s)
        try:
            self._placements.put(held, now_s)
        except NoRoomError as error:
            raise _Refused("full", str(error)) from None
        return "placed", Response(201, msgspec.json.encode(PlacedForm(int(lifetime_s))))

    async def _check_served(self, dest: Tn) -> None:
        try:
            members = self._members.members()
        except InquiryError as error:
            raise _Refused("ledger", str(error)) from None
        for member in (members.get(name) for name in self._config.organizations):
            if member is not None and await self._holds(member, dest):
                return
        raise _Refused("foreign", "the called number is none of those that this service is for")

    async def _holds(self, member: Member, number: Tn) -> bool:
        try:
            found = await self._resolver.ask_numbers(holding_of(member), {number})
        except VerificationFailed as failure:
            raise _Refused("ledger", str(failure)) from None
        return found.allotment is not None and found.allotment.holds_number(number)

    def _lifetime_s(self, access: Access) -> float:
        """Return how long a publication is kept in seconds: until `exp`, within the configured bounds."""
        if access.exp_s is None:
            return min(self._config.default_lifetime_s, self._config.max_lifetime_s)
        return min(access.exp_s - self._clock.now_s(), self._config.max_lifetime_s)

    async def _check_verified(self, tokens: Sequence[str], place: Place) -> None:
        """Check that the PASSporTs would prove the caller's number now; raises _Refused."""
        try:
            identities = tuple(identity_of(token) for token in tokens)
        except MalformedError as error:
            raise _Refused("unverified", str(error)) from None
        now_s = self._clock.now_s()
        call = Call(place.orig, Destinations((place.dest,)), int(now_s), identities)
        found = examine_all(call, self._policy, now_s)
        numbers = numbers_of(found)
        records: Records = {
            digest: await self._recorded(digest, numbers.get(digest, frozenset()))
            for digest in dict.fromkeys(each.digest for each in found if isinstance(each, Examined))
        }
        verdicts = settle(judging(call, found, records, self._policy, now_s), ReplayCache(0, 0), 0)
        verdict = overall(verdicts)
        if not verdict.ok:
            raise _Refused("unverified", f"the PASSporTs prove no caller: {verdict.reasondesc}")

    async def _retrieve(self, asked: _Asked, place: Place, _body: bytes) -> tuple[str, Response]:
        found = list(self._visible(asked, place))
        if not found and not asked.issuer.allotment.holds_number(place.dest):
            raise _Refused("foreign", "PASSporTs are for the publisher's and the called party's operators alone")
        tokens = list(dict.fromkeys(token for each in found for token in each.tokens))
        if not tokens:
            raise _Refused("none", "there is no PASSporT of such a call")
        return "found", Response(200, passports_body(tokens[:MAX_PASSPORTS]))

    def _visible(self, asked: _Asked, place: Place) -> Iterable[Placement]:
        """Yield the placements of a call that the requesting operator may see, the newest first."""
        issuer = asked.issuer
        is_called = issuer.allotment.holds_number(place.dest)
        for each in self._placements.find(place.orig, place.dest, self._clock.steady_s()):
            is_meant = place.publisher in ("", each.name)
            if is_meant and (is_called or each.publisher == issuer.organization):
                yield each


def _place_in(request: Request) -> Place:
    args = request.path_args
    try:
        return read_place(args["dest"], args["orig"], args.get("spc", ""))
    except MalformedError as error:
        raise _Refused("body", str(error)) from None


def _token_in(request: Request) -> str:
    given = request.headers.get("authorization", "").strip(" \t")
    if ascii_lower(given[: len(_BEARER)]) != _BEARER:
        raise AccessRefused("token", "the request has no access token: send one as its bearer token")
    return given[len(_BEARER) :].strip(" ")
