"""Publishing out of band: which calls, and that no service can hold a call or another service up."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from authn_server.config import EXAMPLE, load_setup
from authn_server.main import main
from authn_server.out_of_band import OobConfig, OobSetup, Publisher, RouteConfig, Services
from authn_server.rules import load_rules
from authn_server.service import AuthnService
from authn_server.standing import Unfollowed
from authn_server.switching import Switch
from tests.verify_server.conftest import Site as VerifySite
from tests.verify_server.cps_site import CALLED, CALLER, ORIGID, Client, Hung
from tests.verify_server.cps_site import Site as CpsSite
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.held_numbers import NumberHolder
from voice_dpki.ledger.members import Member
from voice_dpki.names import Tn
from voice_dpki.shell.reload import Live
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.access import AccessAction
from voice_dpki.stir.call import SigningRequest, Source
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.passport import Destinations, Passport
from voice_dpki.stir.shaken import SHAKEN
from voice_dpki.stir.sign import sign_call

from .conftest import Site

OOB = '\n[ledger]\nurl = "http://127.0.0.1:1"\ngenesis = "genesis.json"\n[oob]\n'
ROUTE = '[[oob.routes]]\ntrunks = ["tdm-1"]\n'


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("voice_dpki_oob_publications_total", {"outcome": outcome}) or 0.0


@pytest.fixture
async def cps() -> AsyncIterator[CpsSite]:
    async with CpsSite().serving() as site:
        yield site


def publisher(cps: CpsSite, services: dict[str, str], *routes: RouteConfig, **options: Any) -> Publisher:
    config = OobConfig(routes=routes or (RouteConfig(),), services=services, **options)
    setup = OobSetup.configured(Path("authn.toml"), config)
    return Publisher(setup, Services(cps, services), SystemClock(), SystemRandom())


def url_of(cps: CpsSite) -> str:
    return str(cps.http.base_url).replace("127.0.0.1", "localhost").rstrip("/")


def offer(publisher: Publisher, by: Client, dest: Tn = CALLED, source: Source = Source()) -> str:  # noqa: B008
    now_s = by.site.clock.now_s()
    request = SigningRequest("A", CALLER, Destinations((dest,)), int(now_s), ORIGID, source=source)
    identity = sign_call(request, by.credential, now_s)
    publisher.offer(request, identity, by.credential)
    return identity.token


async def until(outcome: str, value: float) -> None:
    async with asyncio.timeout(60):
        while count(outcome) < value:
            await asyncio.sleep(0.01)


async def test_the_called_partys_operator_gets_it() -> None:
    async with CpsSite(audiences=("localhost",)).serving() as cps:
        publishing, before = publisher(cps, {"Operator B": url_of(cps)}), count("placed")
        token = offer(publishing, cps.a)
        await until("placed", before + 1)
        client = Client(cps, cps.b.operator, cps.b.credential)
        answer = await client.retrieve(access=client.access(AccessAction.RETRIEVE, audience="localhost"))
        assert answer.json()["passports"] == [token]
        await publishing.aclose()


BY_RULE = """\
[[rules]]
name = "transit"
trunks = ["tdm-1"]
attest = "C"
"""


async def test_what_is_published_has_the_attestation_of_the_rules(tmp_path: Path) -> None:
    """And what the rules refuse is not published."""
    (tmp_path / "attestation.toml").write_text(BY_RULE)
    async with CpsSite(audiences=("localhost",)).serving() as cps:
        publishing, before = publisher(cps, {"Operator B": url_of(cps)}), count("placed")
        rules = load_rules(tmp_path / "attestation.toml", frozenset())
        switch, tracer = Switch(Live(cps.a.credential), Unfollowed()), Tracer(None, "a")
        service = AuthnService(switch, 60, cps.clock, tracer, rules=Live(rules), publisher=publishing)
        call = SigningRequest("A", CALLER, Destinations((CALLED,)), int(cps.clock.now_s()), ORIGID)
        with pytest.raises(RequestError):
            await service.identity_for(replace(call, source=Source(trunk="other")))
        signed = await service.identity_for(replace(call, source=Source(trunk="tdm-1")))
        await until("placed", before + 1)
        access = cps.b.access(AccessAction.RETRIEVE, audience="localhost")
        (token,) = (await cps.b.retrieve(access=access)).json()["passports"]
        assert (token, SHAKEN.parse(Passport.parse(token).payload_untrusted).attest) == (signed.token, "C")
        await publishing.aclose()
    assert count("placed") == before + 1


@pytest.mark.parametrize(
    ("route", "source", "is_taken"),
    [
        (RouteConfig(), Source(), True),
        (RouteConfig(trunks=frozenset({"tdm"})), Source(trunk="tdm"), True),
        (RouteConfig(trunks=frozenset({"tdm"})), Source(trunk="ip"), False),
        (RouteConfig(peers=frozenset({"gw"})), Source(peer="gw"), True),
        (RouteConfig(peers=frozenset({"gw"})), Source(peer="proxy"), False),
        (RouteConfig(peers=frozenset({"gw"}), trunks=frozenset({"tdm"})), Source(peer="gw"), False),
        (RouteConfig(dest=("4420*",)), Source(), True),
        (RouteConfig(dest=("33*",)), Source(), False),
    ],
)
async def test_which_calls(cps: CpsSite, route: RouteConfig, source: Source, is_taken: bool) -> None:
    publishing, before = publisher(cps, {}, route), count("no-service")
    offer(publishing, cps.a, source=source)
    assert count("no-service") == before + is_taken
    await publishing.aclose()


async def test_what_has_nowhere_to_go(cps: CpsSite) -> None:
    publishing, before = publisher(cps, {"Operator B": url_of(cps)}), count("no-service")
    for number in ("331234567001", "99", "4420794600011"):
        offer(publishing, cps.a, Tn(number))
    assert count("no-service") == before + 3
    cps.is_down, before = True, count("ledger")
    offer(publishing, cps.a)
    assert count("ledger") == before + 1
    await publishing.aclose()


async def test_the_ledger_says_where_the_service_is(cps: CpsSite) -> None:
    cps.services["Operator B"] = "https://cps.b.example"
    number = Tn(CALLED)
    assert Services(cps, {}).service_for(number) == ("Operator B", "https://cps.b.example")
    configured = {"Operator B": "https://cps.elsewhere.example"}
    assert Services(cps, configured).service_for(number) == ("Operator B", "https://cps.elsewhere.example")
    assert Services(cps, {}).service_for(Tn("493023125001")) == ("Operator A", "")


PORTED, OTHERS = Tn(CALLED), Tn("331234567001")


class Leaves:
    """What the ledger says of numbers' own leaves."""

    def __init__(self, holder: NumberHolder | None) -> None:
        self.holder, self.asked, self.is_silent = holder, list[Tn](), False

    async def __call__(self, number: Tn) -> NumberHolder | None:
        self.asked.append(number)
        if self.is_silent:
            raise InquiryError(InquiryCode.UNREACHABLE, "the ledger node does not answer")
        return self.holder


class MarkedSite(CpsSite):
    """Operator B takes part in giving numbers."""

    def members(self) -> Mapping[str, Member]:
        members = super().members()
        return {**members, "Operator B": replace(members["Operator B"], by_number=True)}


@pytest.mark.parametrize(
    ("holder", "wanted"),
    [
        (None, "Operator B"),
        (NumberHolder("Operator A", 0), "Operator A"),
        (NumberHolder("Operator A", 7), "Operator B"),
        (NumberHolder("Nobody", 0), "Operator B"),
    ],
)
async def test_a_ported_numbers_service_is_its_holders(holder: NumberHolder | None, wanted: str) -> None:
    site = MarkedSite()
    site.services |= {name: f"https://cps.{name[-1].lower()}.example" for name in ("Operator A", "Operator B")}
    leaves = Leaves(holder)
    services = Services(site, {}, leaves)
    assert services.must_ask(PORTED)
    assert services.must_ask(Tn("99")), "a number in no range may have a leaf"
    assert not services.must_ask(OTHERS), "its operator takes no part"
    assert await services.asked_for(PORTED) == (wanted, site.services[wanted])
    assert leaves.asked == [PORTED]


async def test_calls_to_marked_members_are_published_after_the_ledger_was_asked() -> None:
    async with MarkedSite(audiences=("localhost",)).serving() as cps:
        config = OobConfig(routes=(RouteConfig(),), services={"Operator B": url_of(cps)}, max_waiting=1)
        leaves = Leaves(None)
        setup = OobSetup.configured(Path("authn.toml"), config)
        services = Services(cps, config.services, leaves)
        publishing = Publisher(setup, services, SystemClock(), SystemRandom())
        before, full = count("placed"), count("full")
        offer(publishing, cps.a)
        offer(publishing, cps.a)
        assert count("full") == full + 1, "while the ledger is asked the place is taken"
        await until("placed", before + 1)
        leaves.is_silent, silent = True, count("ledger")
        offer(publishing, cps.a)
        await until("ledger", silent + 1)
        await publishing.aclose()
    assert (leaves.asked, count("placed")) == ([PORTED] * 2, before + 1)


async def test_a_refusal_is_counted(cps: CpsSite) -> None:
    publishing, before = publisher(cps, {"Operator B": url_of(cps)}), count("refused")
    offer(publishing, cps.a)  # the audience is another
    await until("refused", before + 1)
    await publishing.aclose()


async def test_a_dead_service_takes_no_place_of_another() -> None:
    async with Hung() as hung, CpsSite(audiences=("localhost",), organizations=("Operator B",)).serving() as cps:
        services = {"Operator B": url_of(cps), "Operator C": hung.url}
        publishing = publisher(cps, services, max_waiting=20, timeout_s=30)
        full, placed = count("full"), count("placed")
        for _ in range(40):
            offer(publishing, cps.a, Tn("331234567001"))
        assert count("full") - full in range(28, 31)
        offer(publishing, cps.a)
        await until("placed", placed + 1)
        await publishing.aclose()
        assert hung.connections


async def test_a_slow_service_is_given_up(cps: CpsSite) -> None:
    async with Hung() as hung:
        publishing, before = publisher(cps, {"Operator B": hung.url}, timeout_s=0.05), count("timeout")
        offer(publishing, cps.a)
        await until("timeout", before + 1)
        await publishing.aclose()


async def test_one_that_is_not_there(cps: CpsSite) -> None:
    publishing, before = publisher(cps, {"Operator B": "http://127.0.0.1:1"}), count("unreachable")
    offer(publishing, cps.a)
    await until("unreachable", before + 1)
    await publishing.aclose()


def test_the_configuration(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    VerifySite(site.folder).write()
    site.write(EXAMPLE + OOB + ROUTE)
    setup = load_setup(site.config, SystemClock())
    assert setup.oob is not None
    assert setup.oob.routes[0].trunks == {"tdm-1"}
    assert main(["check-config", "--config", str(site.config)]) == 0
    assert "out of band  calls of 1 routes, for 15 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("\n[oob]\n" + ROUTE, "oob: without"),
        (OOB, "oob: Object missing required field `routes`|routes"),
        (OOB + '[[oob.routes]]\npeers = ["nobody"]\n', "oob.routes: peers: no token has the name 'nobody'"),
        (OOB + '[[oob.routes]]\ndest = ["x*"]\n', r"oob.routes: dest\[1\]"),
        (OOB + "lifetime_s = 61\n" + ROUTE, "oob.lifetime_s"),
        (OOB + 'services = { "Operator B" = "ftp://b.example" }\n' + ROUTE, "oob.services: Operator B: ftp"),
    ],
)
def test_errors_say_what_to_mend(site: Site, text: str, match: str) -> None:
    VerifySite(site.folder).write()
    site.write(EXAMPLE + text)
    with pytest.raises(LocalError, match=match):
        load_setup(site.config, SystemClock())
