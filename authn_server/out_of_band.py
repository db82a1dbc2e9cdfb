"""Publication of PASSporTs at the call placement service of the called operator, for calls whose path loses them.

Publication never delays the call. A failure is counted, and the call then arrives without a PASSporT.
"""

import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec

from voice_dpki.effects import Clock, Random, SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.held_numbers import NumberHolder
from voice_dpki.ledger.members import Member
from voice_dpki.metrics import counters
from voice_dpki.names import Tn
from voice_dpki.shell.config import Config, PositiveSeconds
from voice_dpki.shell.rule_file import Listed, MemberError, PatternTexts, read_each
from voice_dpki.shell.tls import ClientTls, optional_client_context
from voice_dpki.stir.access import Place, issuer_of
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kinds import KINDS
from voice_dpki.stir.pattern import Pattern, Patterns, some_covered
from voice_dpki.stir.placement import MAX_LIFETIME_S
from voice_dpki.stir.sign import Credential
from voice_dpki.wire.cps_client import OUTCOMES, CpsClient, CpsError, Kept
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.wire.ledger.members import KeptMembers
from voice_dpki.wire.ledger.numbers import holder_of
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.tasks import Background
from voice_dpki.x509.holders import NumberHolders

log = logging.getLogger(__name__)
_SAID = Seldom(log)

MAX_SERVICES: Final = 256
"""Most services with open connections; the least recently used one is closed for another."""

PUBLICATIONS = counters(
    "oob_publications",
    "PASSporTs published out of band, by what came of it.",
    outcome=("placed", "full", "no-service", "ledger", *OUTCOMES),
)


class RouteConfig(Config, frozen=True, kw_only=True):
    """Calls whose path loses the Identity: those that meet every condition that is given."""

    peers: Listed | None = None
    """Clients by name: the proxy in front of such a gateway."""
    trunks: Listed | None = None
    """As requests name them."""
    dest: PatternTexts | None = None
    """Called numbers."""


class OobConfig(Config, frozen=True, kw_only=True):
    """`[oob]`: publishing out of band."""

    routes: Annotated[tuple[RouteConfig, ...], msgspec.Meta(min_length=1, max_length=256)]
    services: dict[str, str] = msgspec.field(default_factory=dict)
    """By organisation: the URL of its service, which overrides the one in its record on the ledger."""
    lifetime_s: Annotated[int, msgspec.Meta(ge=1, le=int(MAX_LIFETIME_S))] = 15
    """How long a service is to keep a PASSporT: longer than a call takes to arrive."""
    timeout_s: PositiveSeconds = 2.0
    max_waiting: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    """Most publications in progress; one service may have as many as there are free places."""
    tls: ClientTls | None = None
    """TLS with services that list their clients; otherwise a service's certificate is of a public authority."""


@dataclass(frozen=True, slots=True)
class OobSetup:
    """A checked section."""

    config: OobConfig
    routes: "tuple[LossyRoute, ...]"
    tls: ssl.SSLContext | None

    @classmethod
    def configured(cls, path: Path, config: OobConfig) -> "OobSetup":
        """Check the section of the configuration at `path`; raises LocalError."""
        try:
            routes = tuple(LossyRoute.configured(route) for route in config.routes)
        except MemberError as error:
            raise LocalError(f"{path}: oob.routes: {error}") from None
        setup = cls(config, routes, optional_client_context(path, config.tls))
        for organization, url in config.services.items():
            try:
                setup.client(url, SystemClock(), SystemRandom())
            except LocalError as error:
                raise LocalError(f"{path}: oob.services: {organization}: {error}") from None
        return setup

    def __str__(self) -> str:
        """Say in a few words what is published."""
        return f"calls of {len(self.routes)} routes, for {self.config.lifetime_s} s"

    def client(self, url: str, clock: Clock, random: Random) -> CpsClient:
        """Return a client of a service; raises LocalError for a URL that cannot be used."""
        return CpsClient(url, timeout_s=self.config.timeout_s, clock=clock, random=random, tls=self.tls)


@dataclass(frozen=True, slots=True)
class LossyRoute:
    """Calls whose path loses the Identity."""

    peers: frozenset[str]
    trunks: frozenset[str]
    dest: Patterns

    @classmethod
    def configured(cls, config: RouteConfig) -> "LossyRoute":
        """Return the route of a section; raises MemberError."""
        dest = read_each("dest", config.dest or (), Pattern.parse)
        return cls(config.peers or frozenset(), config.trunks or frozenset(), dest)

    def takes(self, call: SigningRequest) -> bool:
        """Tell whether a call goes this way."""
        source = call.source
        if self.peers and source.peer not in self.peers:
            return False
        if self.trunks and source.trunk not in self.trunks:
            return False
        return not self.dest or some_covered(self.dest, call.dest)


class Members(Protocol):
    """The members of the ledger, such as `voice_dpki.wire.ledger.members.KeptMembers`."""

    def members(self) -> Mapping[str, Member]:
        """Return them by organisation, the same until they are read again; raises InquiryError."""
        ...


AskHolder = Callable[[Tn], Awaitable[NumberHolder | None]]
"""Asks the ledger for the holder in a number's own leaf, None for a number without one; raises InquiryError."""


async def no_leaf_of_its_own(_: Tn) -> NumberHolder | None:
    """Return None, for a server without a ledger: every number belongs to its range's holder."""
    return None


class Services:
    """Lookup of the call placement service that is responsible for a called number."""

    def __init__(
        self, members: Members, configured: Mapping[str, str], holder_of: AskHolder = no_leaf_of_its_own
    ) -> None:
        """`holder_of` asks the ledger whom a number's own leaf names."""
        self._members, self._configured, self._ask = members, configured, holder_of
        self._made_of: Mapping[str, Member] | None = None
        self._holders = NumberHolders({})
        self._by_number = False

    def service_for(self, number: Tn) -> tuple[str, str]:
        """Return the organisation in whose ranges a number is, and the URL of its service, "" where there is none.

        Raises InquiryError where that is not known.
        """
        return self._service_of(self._read().get(self._holders.holder_of(number)))

    def must_ask(self, number: Tn) -> bool:
        """Tell whether the number's own leaf can name another holder than the ranges; raises InquiryError."""
        member = self._read().get(self._holders.holder_of(number))
        return self._by_number if member is None else member.by_number

    async def asked_for(self, number: Tn) -> tuple[str, str]:
        """Return the result of `service_for` after a lookup of the number's own leaf; raises InquiryError."""
        named = await self._ask(number)
        member = self._read().get(named.organization) if named is not None else None
        if named is not None and member is not None and named.is_of(member):
            return self._service_of(member)
        return self.service_for(number)

    def _read(self) -> Mapping[str, Member]:
        members = self._members.members()
        if members is not self._made_of:
            self._holders = NumberHolders({name: member.allotment for name, member in members.items()})
            self._by_number = any(member.by_number for member in members.values())
            self._made_of = members
        return members

    def _service_of(self, member: Member | None) -> tuple[str, str]:
        if member is None:
            return "", ""
        return member.organization, self._configured.get(member.organization) or member.cps


class Publisher:
    """Publishes the PASSporTs of calls that take a lossy route."""

    def __init__(self, setup: OobSetup, services: Services, clock: Clock, random: Random) -> None:
        self._setup, self._config, self._services = setup, setup.config, services
        self._clock, self._random = clock, random
        self._clients: dict[str, CpsClient] = {}
        self._waiting: Counter[str] = Counter()
        self._background = Background(log)

    def offer(self, call: SigningRequest, identity: IdentityHeader, credential: Credential) -> None:
        """Publish the PASSporT of a call that was just signed, if it needs that. Returns at once; never raises."""
        if not KINDS.of(call.ppt).proves_caller or not any(route.takes(call) for route in self._setup.routes):
            return
        for number in call.dest.tns:
            self._offer(Place(call.orig, number, issuer_of(credential)), identity.token, credential)

    def _offer(self, place: Place, token: str, credential: Credential) -> None:
        try:
            if not self._services.must_ask(place.dest):
                self._send(*self._services.service_for(place.dest), place, token, credential)
            elif self._takes_place(""):
                self._background.run(self._asked(place, token, credential))
        except InquiryError as error:
            self._count("ledger", "", str(error))

    async def _asked(self, place: Place, token: str, credential: Credential) -> None:
        """Ask the ledger who holds the called number, and publish there."""
        try:
            found = await self._services.asked_for(place.dest)
        except InquiryError as error:
            self._count("ledger", "", str(error))
            return
        finally:
            self._leave("")
        self._send(*found, place, token, credential)

    def _send(self, organization: str, url: str, place: Place, token: str, credential: Credential) -> None:
        if not url:
            self._count("no-service", organization, "the called number's operator has no call placement service")
        elif self._takes_place(organization):
            self._background.run(self._published(organization, url, place, token, credential))

    def _takes_place(self, organization: str) -> bool:
        """Take a place among those that wait for a service, or, with "", for the ledger; False if there is none."""
        free = self._config.max_waiting - self._waiting.total()
        if free <= 0 or self._waiting[organization] > free:
            self._count("full", organization, "too many publications wait for this service")
            return False
        self._waiting[organization] += 1
        return True

    def _leave(self, organization: str) -> None:
        self._waiting[organization] -= 1
        if not self._waiting[organization]:
            del self._waiting[organization]

    async def _published(
        self, organization: str, url: str, place: Place, token: str, credential: Credential
    ) -> None:
        try:
            await self._client(url).publish(credential, place, Kept((token,), self._config.lifetime_s))
        except (CpsError, LocalError) as error:
            self._count(error.outcome if isinstance(error, CpsError) else "unreachable", organization, str(error))
        else:
            PUBLICATIONS.labels("placed").inc()
        finally:
            self._leave(organization)

    def _count(self, outcome: str, organization: str, why: str) -> None:
        PUBLICATIONS.labels(outcome).inc()
        _SAID.warning("a PASSporT was not published", outcome=outcome, operator=organization, reason=why)

    def _client(self, url: str) -> CpsClient:
        """Return the client of a service, and mark it as most recently used; raises LocalError."""
        client = self._clients.pop(url, None)
        if client is None:
            client = self._setup.client(url, self._clock, self._random)
        self._clients[url] = client
        if len(self._clients) > MAX_SERVICES:
            self._background.run(self._clients.pop(next(iter(self._clients))).aclose())
        return client

    async def aclose(self) -> None:
        """Cancel publications in progress, and close the connections."""
        await self._background.close()
        for client in self._clients.values():
            await client.aclose()


@asynccontextmanager
async def publishing(setup: OobSetup, client: LedgerClient, clock: Clock) -> AsyncIterator[Publisher]:
    """Publish while the context lasts; the members are read through `client`, which it closes."""
    async with AsyncExitStack() as opened:
        members = KeptMembers(clock)
        await opened.enter_async_context(client)
        await opened.enter_async_context(members.kept(client))
        services = Services(members, setup.config.services, partial(holder_of, client))
        publisher = Publisher(setup, services, clock, SystemRandom())
        opened.push_async_callback(publisher.aclose)
        yield publisher
