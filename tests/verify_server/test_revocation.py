"""Callers outside the federation whose certificates were revoked, with lists over https."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography.x509 import CRLNumber, DeltaCRLIndicator
from prometheus_client import REGISTRY

from tests.pki import Signer, list_at, pem_of, revocation_list, root
from tests.repository import Repository, endless, reply, slow
from verify_server import revocation as module
from voice_dpki.stir.verdict import Verdict, Verstat
from voice_dpki.x509.revocation import revocable_of

from .test_outside import MIDDLE, NOW_S, PA, ROOT, Domain, running, signed

LIST_TYPE = "application/pkix-crl"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with Repository(tmp_path_factory.mktemp("repository")) as running:
        yield running


@pytest.fixture
def signer(repository: Repository) -> Signer:
    """A carrier whose certificate names the administrator's list."""
    extension = list_at(repository.url("/crl"), PA.certificate.subject)
    signer = MIDDLE.issue("Carrier 1", NOW_S, extensions=(extension,))
    repository.replies["/shaken.pem"] = reply(pem_of(signer.certificate, MIDDLE.certificate))
    return signer


def publish(repository: Repository, *revoked: tuple[Signer, Signer | None], **changes: Any) -> None:
    text = revocation_list(PA, *revoked, **{"now_s": NOW_S, **changes})
    repository.replies["/crl"] = reply(text, LIST_TYPE)


async def verdict(domain: Domain, signer: Signer) -> Verdict:
    return await domain.verdict(signed(domain.repository.url(), signer))


def fetches(outcome: str) -> float:
    return REGISTRY.get_sample_value("voice_dpki_outside_list_fetches_total", {"outcome": outcome}) or 0.0


def numbered(number: int) -> dict[str, Any]:
    return {"extensions": ((CRLNumber(number), False),)}


def standing(which: str) -> float:
    return REGISTRY.get_sample_value("voice_dpki_outside_standings_total", {"standing": which}) or 0.0


async def lists_settled(domain: Domain) -> None:
    """Wait until no list is fetched any more."""
    for task in list(domain.signers._revocation._fetching.values()):
        await task


async def test_an_authority_that_names_no_list_is_not_known(repository: Repository, signer: Signer) -> None:
    publish(repository)
    async with running(repository, unknown="refuse") as domain:
        refused = await domain.second(repository.url(), signer)
        assert (refused.verstat, refused.step) == (Verstat.NONE, "E8 certificate")
        assert "names no revocation list" in refused.reasondesc
    async with running(repository) as domain:
        assert (await domain.second(repository.url(), signer)).ok


async def test_the_whole_chain_names_its_list(repository: Repository) -> None:
    publish(repository, (PA, ROOT))
    before = standing("good")
    extension = list_at(repository.url("/crl"), PA.certificate.subject)
    middle = ROOT.issue("Issuing CA", NOW_S, ca=True, extensions=(extension,))
    signer = middle.issue("Carrier 1", NOW_S, extensions=(extension,))
    repository.replies["/shaken.pem"] = reply(pem_of(signer.certificate, middle.certificate))
    async with running(repository, unknown="refuse") as domain:
        assert (await domain.second(repository.url(), signer)).ok
        assert repository.asked == ["/shaken.pem", "/crl"]
        assert standing("good") == before + 1
        publish(repository, (middle, ROOT))
        domain.clock.steady += module.KEPT_S + 1
        assert (await verdict(domain, signer)).ok  # by the list that is kept, while it is fetched again
        await lists_settled(domain)
        revoked = await verdict(domain, signer)
        assert (revoked.verstat, revoked.reasoncode, revoked.step) == (Verstat.FAILED, 437, "E17 certificate")
        assert "an authority's in its chain, is on a revocation list" in revoked.reasondesc


async def test_a_revoked_certificate_fails_whatever_is_accepted(repository: Repository, signer: Signer) -> None:
    publish(repository, (signer, MIDDLE))
    before = standing("revoked")
    async with running(repository) as domain:
        found = await domain.second(repository.url(), signer)
        assert (found.verstat, found.reasoncode, found.step) == (Verstat.FAILED, 437, "E17 certificate")
        assert standing("revoked") == before + 1
    publish(repository, (signer, MIDDLE), days=(-3, -1))  # outdated; what it has revoked stays so
    async with running(repository) as domain:
        assert (await domain.second(repository.url(), signer)).step == "E17 certificate"


FAULTS: dict[str, tuple[Any, str]] = {
    "missing": (reply(b"", status=404), "the answer is 404"),
    "endless": (endless, "has more than"),
    "slow": (slow, "no answer in time"),
    "no list": (reply(b"x", LIST_TYPE), "no revocation list"),
    "a page": (reply(b"x", "text/html"), "not of a type"),
    "elsewhere": (reply(b"", status=302, Location="https://127.0.0.1/crl"), "the answer is 302"),
    "of a stranger": (
        reply(revocation_list(ROOT, (PA, ROOT), now_s=NOW_S), LIST_TYPE),
        "another issuer",
    ),
    "outdated": (reply(revocation_list(PA, now_s=NOW_S, days=(-3, -1)), LIST_TYPE), "outdated"),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_what_is_not_known_is_accepted_or_refused(repository: Repository, signer: Signer, case: str) -> None:
    repository.replies["/crl"], says = FAULTS[case]
    before = standing("unknown")
    async with running(repository, timeout_s=2, unknown="refuse") as domain:
        found = await domain.second(repository.url(), signer)
        assert (found.verstat, found.reasoncode, found.step) == (Verstat.NONE, 436, "E8 certificate")
        assert found.reasondesc.startswith("It is not known whether the signer's certificate is revoked: ")
        assert says in found.reasondesc
        asked = repository.asked.count("/crl")
        await verdict(domain, signer)
        await lists_settled(domain)
        assert repository.asked.count("/crl") == asked == 1  # not tried again at once
        domain.clock.steady += module.KEPT_S + 1
        await verdict(domain, signer)
        await lists_settled(domain)
        assert repository.asked.count("/crl") == 2
    async with running(repository, timeout_s=2) as domain:
        assert (await domain.second(repository.url(), signer)).ok
    assert standing("unknown") == before + 4


DELTA = ((CRLNumber(8), False), (DeltaCRLIndicator(7), True))
LATER: dict[str, tuple[Signer, dict[str, Any], str]] = {
    "older": (PA, {"days": (-0.5, 1)}, "older"),
    "of a lower number": (PA, {"days": (-0.05, 1), **numbered(6)}, "older"),
    "older, of the same number": (PA, {"days": (-0.5, 1), **numbered(7)}, "older"),
    "of a stranger by the same name": (root("STI-PA", NOW_S), {"days": (-0.05, 1), **numbered(8)}, "not-trusted"),
    "of an authority": (MIDDLE, {"days": (-0.05, 1), **numbered(8)}, "not-trusted"),
    "of some certificates alone": (PA, {"days": (-0.05, 1), "extensions": DELTA}, "malformed"),
}


async def fetched_again(domain: Domain, signer: Signer, after_s: float) -> Verdict:
    """The verdict after the list was asked for once more."""
    domain.clock.steady += after_s + 1
    await verdict(domain, signer)
    await lists_settled(domain)
    return await verdict(domain, signer)


@pytest.mark.parametrize("case", LATER)
async def test_only_a_list_of_the_signer_that_is_not_older_replaces_one(
    repository: Repository, signer: Signer, case: str
) -> None:
    by, changes, outcome = LATER[case]
    publish(repository, (signer, MIDDLE), **numbered(7))
    async with running(repository) as domain:
        assert (await domain.second(repository.url(), signer)).step == "E17 certificate"
        repository.replies["/crl"] = reply(revocation_list(by, **{"now_s": NOW_S, **changes}), LIST_TYPE)
        before = fetches(outcome)
        assert (await fetched_again(domain, signer, module.KEPT_S)).step == "E17 certificate"
        assert fetches(outcome) == before + 1
        publish(repository, days=(-0.05, 1), **numbered(8))
        assert (await fetched_again(domain, signer, module.FAILED_S)).ok


async def test_the_times_decide_where_a_list_has_no_number(repository: Repository, signer: Signer) -> None:
    publish(repository, (signer, MIDDLE), **numbered(7))
    async with running(repository) as domain:
        assert (await domain.second(repository.url(), signer)).step == "E17 certificate"
        publish(repository, days=(-0.2, 1))
        assert (await fetched_again(domain, signer, module.KEPT_S)).step == "E17 certificate"
        publish(repository)  # of the same second
        assert (await fetched_again(domain, signer, module.FAILED_S)).ok


async def test_no_authority_replaces_the_list_of_another(repository: Repository) -> None:
    """Both are on the operator's list, and the certificates of both name one URL."""
    extension, other = list_at(repository.url("/crl")), ROOT.issue("Other CA", NOW_S, ca=True)
    first, second = (by.issue("Carrier 1", NOW_S, extensions=(extension,)) for by in (MIDDLE, other))
    repository.replies["/shaken.pem"] = reply(pem_of(first.certificate, MIDDLE.certificate))
    repository.replies["/other.pem"] = reply(pem_of(second.certificate, other.certificate))
    own = revocation_list(MIDDLE, (first, None), now_s=NOW_S, indirect=False)
    repository.replies["/crl"] = reply(own, LIST_TYPE)
    async with running(repository) as domain:
        assert (await domain.second(repository.url(), first)).step == "E17 certificate"
        repository.replies["/crl"] = reply(revocation_list(other, now_s=NOW_S, indirect=False), LIST_TYPE)
        domain.clock.steady += module.KEPT_S + 1
        assert (await domain.second(repository.url("/other.pem"), second)).ok
        assert (await fetched_again(domain, first, 0)).step == "E17 certificate"


async def test_a_list_that_never_counted_is_not_kept(repository: Repository, signer: Signer) -> None:
    repository.replies["/crl"] = reply(revocation_list(root("STI-PA", NOW_S), now_s=NOW_S), LIST_TYPE)
    async with running(repository) as domain:
        assert (await domain.second(repository.url(), signer)).ok
        assert not domain.signers._revocation._kept
        publish(repository, (signer, MIDDLE))
        assert (await fetched_again(domain, signer, module.FAILED_S)).ok, "its server is spared"
        assert (await fetched_again(domain, signer, module.KEPT_S)).step == "E17 certificate"


async def test_an_outdated_list_is_told(repository: Repository, signer: Signer) -> None:
    publish(repository)
    async with running(repository) as domain:
        assert (await domain.second(repository.url(), signer)).ok
        assert domain.signers._revocation.shortfall() == ""
        domain.clock.true_s += 86_400 + 1
        assert "is outdated" in domain.signers._revocation.shortfall()


async def test_lists_of_other_hosts_are_not_asked(repository: Repository) -> None:
    extension = list_at(repository.url("/crl").replace("localhost", "elsewhere.example"), PA.certificate.subject)
    signer = MIDDLE.issue("Carrier 1", NOW_S, extensions=(extension,))
    repository.replies["/shaken.pem"] = reply(pem_of(signer.certificate, MIDDLE.certificate))
    async with running(repository, unknown="refuse") as domain:
        found = await domain.second(repository.url(), signer)
        assert "not on this operator's list" in found.reasondesc


async def test_lists_that_are_kept_are_bounded(repository: Repository, signer: Signer) -> None:
    publish(repository)
    async with running(repository) as domain:
        lists = domain.signers._revocation
        (named,) = revocable_of((signer.certificate, MIDDLE.certificate))
        for number in range(module.MAX_LISTS + 5):
            repository.replies[f"/crl{number}"] = repository.replies["/crl"]
            await lists._fetched(replace(named, url=repository.url(f"/crl{number}")))
            await lists._fetched(replace(named, url=repository.url(f"/missing{number}")))
        assert len(lists._kept) == len(lists._failed) == module.MAX_LISTS
