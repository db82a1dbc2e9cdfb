"""Callers outside the federation, with a repository over https; the ledger's answers are told by the test."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.clocks import SettableClock
from tests.pki import SPC, Signer, der_of, numbers, pem_of, root
from tests.recorded import recorded
from tests.repository import Repository, endless, reply, slow
from verify_server import outside as module
from verify_server.outside import OutsideSigners
from verify_server.revocation import RevocationLists, Unknown
from verify_server.service import VerifyService
from voice_dpki.names import Tn
from voice_dpki.shell.reload import Live
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.sign import Credential, sign_call
from voice_dpki.stir.verdict import Step, Trust, Verdict, VerificationFailed, Verstat, overall
from voice_dpki.wire.certificate_fetch import LIST_MEDIA_TYPES, CertificateFetcher, Reach
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.listed import Authorities, Federation
from voice_dpki.x509.profile import digest_of, read_issued
from voice_dpki.x509.recorded import CertStatus
from voice_dpki.x509.revocation import ListSigner
from voice_dpki.x509.tnauthlist import TnRange

from .conftest import RANGE_A, Caller
from .test_service import ToldResolver

OUTSIDE = "12155551212"
NOW_S = int(time.time())
ROOT, OTHER_ROOT = root("Root CA", NOW_S), root("Other Root CA", NOW_S)
PA = root("STI-PA", NOW_S)
MIDDLE = ROOT.issue("Issuing CA", NOW_S, ca=True)
LEAF = MIDDLE.issue("Carrier 1", NOW_S)
CHAIN = pem_of(LEAF.certificate, MIDDLE.certificate)
EVERY_NUMBER = (TnRange(Tn("10000000000"), 80_000_000_000), TnRange(Tn("100000000000"), 800_000_000_000))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with Repository(tmp_path_factory.mktemp("repository")) as running:
        yield running


def signed(url: str, signer: Signer = LEAF, orig: str = OUTSIDE) -> Call:
    """A call of now, under the certificate that is said to be at `url`."""
    now_s, dest = int(time.time()), Destinations((Tn("442079460001"),))
    profile = replace(read_issued(der_of(signer.certificate)), tn_auth_list=SPC, not_after_s=now_s + 99)
    credential = Credential(signer.signer, profile, url, EVERY_NUMBER)
    request = SigningRequest("B", Tn(orig), dest, now_s, "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d")
    return Call(Tn(orig), dest, now_s, (sign_call(request, credential, now_s).serialize(),))


class Domain:
    """A verification service that believes a list of authorities besides the ledger."""

    def __init__(
        self,
        repository: Repository,
        fetcher: CertificateFetcher,
        lists: CertificateFetcher,
        reach: Reach,
        unknown: Unknown,
    ) -> None:
        self.repository, self.clock, self.resolver = repository, SettableClock(time.time()), ToldResolver()
        self.authorities = Live(Authorities([ROOT.certificate]))
        self.federation = Federation({"Operator A": Allotment(ranges=(RANGE_A,), spcs=("D123",))})
        self.knows_members = True
        revocation = RevocationLists([ListSigner.of(PA.certificate)], lists.fetch, self.clock, unknown)
        self.signers = OutsideSigners(
            self.authorities, self._members, reach, fetcher.fetch, self.clock, 3, revocation
        )
        self.service = VerifyService(
            self.resolver,
            Policy(),
            ReplayCache(1000, 180),
            self.clock,
            Tracer(None, "verify-b"),
            outside=self.signers,
        )

    def _members(self) -> Federation:
        if not self.knows_members:
            raise VerificationFailed(Step.LEDGER, "what members hold is not known")
        return self.federation

    async def verdict(self, call: Call) -> Verdict:
        return overall(await self.service.verdicts_on(call))

    async def settled(self) -> None:
        """Wait until nothing is fetched any more."""
        while self.signers._fetching:
            await asyncio.sleep(0.005)

    async def second(self, url: str, signer: Signer = LEAF, orig: str = OUTSIDE) -> Verdict:
        """Have the certificate fetched by one call, and return the verdict on the next."""
        first = await self.verdict(signed(url, signer, orig))
        assert (first.verstat, first.step) == (Verstat.NONE, "E8 certificate")
        await self.settled()
        return await self.verdict(signed(url, signer, orig))


@asynccontextmanager
async def running(
    repository: Repository, timeout_s: float = 20, unknown: Unknown = "accept", **changes: Any
) -> AsyncIterator[Domain]:
    given = {
        "hosts": ("localhost",),
        "networks": (ip_network("127.0.0.0/8"),),
        "ports": frozenset({repository.port}),
    }
    reach = Reach(**{**given, **changes})
    repository.asked.clear()
    options: dict[str, Any] = {"timeout_s": timeout_s, "max_bytes": 100_000, "tls": repository.tls()}
    lists = CertificateFetcher(reach, **options, media_types=LIST_MEDIA_TYPES)
    domain = Domain(repository, CertificateFetcher(reach, **options), lists, reach, unknown)
    yield domain
    await domain.signers.close()


@pytest.fixture
async def domain(repository: Repository) -> AsyncIterator[Domain]:
    repository.replies["/shaken.pem"] = reply(CHAIN)
    async with running(repository) as domain:
        yield domain


async def test_the_second_call_of_a_signer_passes(domain: Domain) -> None:
    verdict = await domain.second(domain.repository.url())
    assert (verdict.verstat, verdict.trust, verdict.signer) == (Verstat.PASSED, Trust.LIST, "Carrier 1")
    assert verdict.certificate == digest_of(der_of(LEAF.certificate))
    assert (await domain.verdict(signed(domain.repository.url()))).ok
    assert domain.repository.asked == ["/shaken.pem"]


async def test_one_fetch_of_a_url_at_a_time(domain: Domain) -> None:
    verdicts = [await domain.verdict(signed(domain.repository.url())) for _ in range(5)]
    assert {each.step for each in verdicts} == {"E8 certificate"}
    await domain.settled()
    assert domain.repository.asked == ["/shaken.pem"]


async def test_what_the_ledger_says_goes_first(domain: Domain, caller: Caller) -> None:
    der, url = der_of(LEAF.certificate), domain.repository.url()
    assert (await domain.second(url)).ok
    profile = read_issued(der)
    told = recorded(caller.der(), Allotment(), "Carrier 1", status=CertStatus.REVOKED)
    domain.resolver.records[profile.digest] = replace(told, digest=profile.digest, der=der)
    verdict = await domain.verdict(signed(url))
    assert (verdict.verstat, verdict.step, verdict.trust) == (Verstat.FAILED, "E17 certificate", Trust.LEDGER)
    assert "revoked on the ledger" in verdict.reasondesc


async def test_nobody_outside_signs_for_a_members_number(domain: Domain) -> None:
    verdict = await domain.second(domain.repository.url(), orig="493023125001")
    assert (verdict.verstat, verdict.reasoncode, verdict.step) == (Verstat.FAILED, 437, "E17 certificate")
    assert "on the ledger" in verdict.reasondesc


async def test_a_members_number_has_nothing_fetched(domain: Domain) -> None:
    url = domain.repository.url(f"/{'ab' * 32}.pem")
    verdict = await domain.verdict(signed(url, orig="493023125001"))
    assert (verdict.verstat, verdict.step, verdict.trust) == (Verstat.FAILED, "E17 certificate", Trust.LEDGER)
    await domain.settled()
    assert not domain.repository.asked


async def test_a_member_is_not_judged_by_the_list(domain: Domain, caller: Caller) -> None:
    der = caller.der()
    domain.resolver.tell(digest_of(der), der)
    identity = caller.identity(der)
    call = Call(Tn("493023125001"), Destinations((Tn("442079460001"),)), int(time.time()), (identity,))
    assert (await domain.verdict(call)).trust is Trust.LEDGER
    assert not domain.repository.asked


async def test_a_url_with_a_digest_is_fetched_only_if_the_ledger_does_not_know_it(domain: Domain) -> None:
    url = domain.repository.url(f"/{digest_of(der_of(LEAF.certificate)).hex()}.pem")
    domain.repository.replies[url[url.rindex("/") :]] = reply(CHAIN)
    assert (await domain.second(url)).trust is Trust.LIST
    other = domain.repository.url(f"/{'cd' * 32}.pem")
    domain.repository.replies[other[other.rindex("/") :]] = reply(CHAIN)
    assert (await domain.second(other)).ok


async def test_while_members_are_not_known_nobody_passes(domain: Domain) -> None:
    assert (await domain.second(domain.repository.url())).ok
    domain.knows_members = False
    verdict = await domain.verdict(signed(domain.repository.url()))
    assert (verdict.verstat, verdict.step) == (Verstat.NONE, "E8 ledger")


async def test_while_the_ledger_is_silent_nobody_passes(domain: Domain) -> None:
    assert (await domain.second(domain.repository.url())).ok
    domain.resolver.reachable = False
    assert (await domain.verdict(signed(domain.repository.url()))).step == "E8 ledger"


NOT_TRUSTED = {
    "of another authority": lambda: OTHER_ROOT.issue("Carrier 1", NOW_S),
    "expired": lambda: MIDDLE.issue("Carrier 1", NOW_S, days=(-30, -1)),
    "without a code": lambda: MIDDLE.issue("Carrier 1", NOW_S, listed=None),
    "with a member's code": lambda: MIDDLE.issue("Carrier 1", NOW_S, listed=replace(SPC, spcs=("D123",))),
    "with a member's name": lambda: MIDDLE.issue("Operator A", NOW_S),
}


@pytest.mark.parametrize("case", NOT_TRUSTED)
async def test_certificates_that_are_not_trusted(domain: Domain, case: str) -> None:
    signer = NOT_TRUSTED[case]()
    domain.repository.replies["/bad.pem"] = reply(pem_of(signer.certificate, MIDDLE.certificate))
    verdict = await domain.second(domain.repository.url("/bad.pem"), signer)
    assert (verdict.verstat, verdict.reasoncode, verdict.step) == (Verstat.FAILED, 437, "E17 certificate")


async def test_numbers_that_the_certificate_does_not_list(domain: Domain) -> None:
    signer = MIDDLE.issue("Enterprise", NOW_S, listed=numbers("12155550000", 100))
    domain.repository.replies["/enterprise.pem"] = reply(pem_of(signer.certificate, MIDDLE.certificate))
    verdict = await domain.second(domain.repository.url("/enterprise.pem"), signer)
    assert (verdict.verstat, verdict.step) == (Verstat.FAILED, "E17 authority")


HOSTILE = {
    "endless": endless,
    "slow": slow,
    "another type": reply(CHAIN, "text/html"),
    "no certificate": reply(b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"),
    "redirected to loopback": reply(b"", status=302, Location="https://127.0.0.1/shaken.pem"),
    "missing": reply(b"", status=404),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_hostile_repositories_prove_nothing(repository: Repository, case: str) -> None:
    repository.replies["/hostile.pem"] = HOSTILE[case]
    async with running(repository, timeout_s=1) as domain:
        verdict = await domain.second(repository.url("/hostile.pem"))
        assert (verdict.verstat, verdict.reasoncode, verdict.step) == (Verstat.NONE, 436, "E8 certificate")
        assert "could not be fetched" in verdict.reasondesc
        await domain.verdict(signed(repository.url("/hostile.pem")))
        await domain.settled()
        assert repository.asked == ["/hostile.pem"]  # not tried again at once
        domain.clock.steady += module.FAILED_S + 1
        await domain.verdict(signed(repository.url("/hostile.pem")))
        await domain.settled()
        assert repository.asked == ["/hostile.pem"] * 2


async def test_other_hosts_are_not_asked(repository: Repository) -> None:
    async with running(repository, hosts=("certs.carrier.example",)) as domain:
        for path in ("/shaken.pem", f"/{'ab' * 32}.pem"):
            verdict = await domain.verdict(signed(repository.url(path)))
            assert (verdict.verstat, verdict.reasoncode, verdict.step) == (Verstat.NONE, 436, "E7 info URL")
            assert "not on this operator's list" in verdict.reasondesc
        assert not domain.signers._fetching


async def test_loopback_is_not_asked(repository: Repository) -> None:
    async with running(repository, hosts=("*",), networks=()) as domain:
        verdict = await domain.second(repository.url())
        assert "is not public" in verdict.reasondesc
        assert not repository.asked


async def test_a_certificate_is_fetched_again_as_its_server_says(domain: Domain) -> None:
    domain.repository.replies["/shaken.pem"] = reply(CHAIN, Cache_Control="max-age=600")
    assert (await domain.second(domain.repository.url())).ok
    domain.clock.steady += 601
    assert (await domain.verdict(signed(domain.repository.url()))).ok  # the one that is kept, while it is fetched
    await domain.settled()
    assert domain.repository.asked == ["/shaken.pem"] * 2


@pytest.mark.parametrize(
    ("said", "least_s", "most_s"), [("no-store", 60, 61), ("max-age=999999999", 86_400, 86_401)]
)
async def test_what_a_server_says_is_bounded(domain: Domain, said: str, least_s: int, most_s: int) -> None:
    domain.repository.replies["/shaken.pem"] = reply(CHAIN, Cache_Control=said)
    url = domain.repository.url()
    assert (await domain.second(url)).ok
    begun_s = domain.clock.steady_s()
    domain.clock.steady = begun_s + least_s - 1
    await domain.verdict(signed(url))
    await domain.settled()
    assert len(domain.repository.asked) == 1
    domain.clock.steady = begun_s + most_s
    await domain.verdict(signed(url))
    await domain.settled()
    assert len(domain.repository.asked) == 2


async def test_while_it_cannot_be_fetched_again_a_certificate_is_used_for_a_day(domain: Domain) -> None:
    url, begun_s = domain.repository.url(), domain.clock.steady_s()
    assert (await domain.second(url)).ok
    domain.repository.replies["/shaken.pem"] = reply(b"", status=503)
    domain.clock.steady = begun_s + module.MOST_KEPT_S - 10
    assert (await domain.verdict(signed(url))).ok
    await domain.settled()
    domain.clock.steady = begun_s + module.MOST_KEPT_S + 60
    assert (await domain.verdict(signed(url))).step == "E8 certificate"


async def test_a_certificate_that_is_replaced_by_an_untrusted_one_is_dropped(domain: Domain) -> None:
    url = domain.repository.url()
    assert (await domain.second(url)).ok
    domain.repository.replies["/shaken.pem"] = reply(pem_of(OTHER_ROOT.issue("Carrier 1", NOW_S).certificate))
    domain.clock.steady += module.KEPT_S + 1
    await domain.verdict(signed(url))
    await domain.settled()
    assert (await domain.verdict(signed(url))).step == "E17 certificate"


async def test_another_list_counts_at_once(domain: Domain) -> None:
    url = domain.repository.url()
    assert (await domain.second(url)).ok
    domain.authorities.value = Authorities([OTHER_ROOT.certificate])
    verdict = await domain.verdict(signed(url))
    assert (verdict.verstat, verdict.step) == (Verstat.FAILED, "E17 certificate")
    domain.authorities.value = Authorities([ROOT.certificate])
    assert (await domain.second(url)).ok
    assert domain.repository.asked == ["/shaken.pem"] * 2


async def test_an_expired_list_vouches_for_nobody_and_says_so(domain: Domain) -> None:
    domain.authorities.value = Authorities([ROOT.certificate], NOW_S - 1)
    verdict = await domain.second(domain.repository.url())
    assert (verdict.verstat, verdict.step) == (Verstat.NONE, "E8 certificate")
    assert "has expired" in verdict.reasondesc
    assert "has expired" in domain.signers.shortfall()


async def test_what_is_kept_is_bounded(domain: Domain) -> None:
    for number in range(5):
        domain.repository.replies[f"/{number}.pem"] = reply(CHAIN)
        assert (await domain.second(domain.repository.url(f"/{number}.pem"))).ok
    assert list(domain.signers._kept) == [domain.repository.url(f"/{number}.pem") for number in (2, 3, 4)]
    for number in range(module.MAX_FAILED + 5):
        domain.signers._remembered(f"https://localhost/{number}", VerificationFailed(Step.FETCH, "no"))
    assert len(domain.signers._failed) == module.MAX_FAILED


async def test_fetches_at_a_time_are_bounded(repository: Repository) -> None:
    async with running(repository) as domain:
        repository.replies |= {f"/slow{number}.pem": slow for number in range(module.MAX_FETCHES + 3)}
        for number in range(module.MAX_FETCHES + 3):
            await domain.verdict(signed(repository.url(f"/slow{number}.pem")))
        assert len(domain.signers._fetching) == module.MAX_FETCHES


async def test_it_is_counted(domain: Domain) -> None:
    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"voice_dpki_{name}_total", labels) or 0

    def both() -> tuple[float, float]:
        passed = counted("verdict_trusts", trust="list", verstat="TN-Validation-Passed")
        return counted("outside_fetches", outcome="trusted"), passed

    before = both()
    await domain.second(domain.repository.url())
    assert both() == (before[0] + 1, before[1] + 1)
    assert REGISTRY.get_sample_value("voice_dpki_outside_certificates") == 1
