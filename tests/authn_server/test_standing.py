"""What the server makes of the ledger's answers about its certificate, and of its silence."""

import asyncio
import logging
from typing import Any

import pytest

from authn_server.config import FollowConfig, load_setup
from authn_server.standing import LedgerStanding, followed
from tests.clocks import SettableClock
from voice_dpki.effects import SystemClock
from voice_dpki.ledger.answers import InquiryCode, InquiryError, Resolution
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.names import CertDigest, Height, Tn
from voice_dpki.stir.sign import SigningRefused
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.tnauthlist import TnRange

from .conftest import Site

MEMBER = Member(
    organization="Operator A",
    kind=MemberKind.OPERATOR,
    ranges=(TnRange(Tn("493023125000"), 1000),),
    validators=(),
    endorsing_keys=(),
)


class ToldLedger:
    """Says what the test told it, as a ledger client would, and counts the questions."""

    def __init__(self, profile: CertificateProfile) -> None:
        self.profile = profile
        self.status: CertStatus = CertStatus.VALID
        self.member, self.silent = MEMBER, False
        self.asked = 0

    async def look_up(self, digest: CertDigest) -> Resolution:
        assert digest == self.profile.digest
        self.asked += 1
        await asyncio.sleep(0)
        if self.silent:
            raise InquiryError(InquiryCode.UNREACHABLE, "the ledger node does not answer")
        record = None
        if self.status is not CertStatus.UNKNOWN:
            record = CertRecord(
                status=self.status,
                organization="Operator A",
                not_before_s=self.profile.not_before_s,
                not_after_s=self.profile.not_after_s,
                recorded_height=Height(2),
                changed_height=Height(2),
                revision=0,
                reason=None,
                key_id=bytes(32),
            )
        return Resolution(digest, self.status, self.profile.der, record, self.member, Height(3), 0.0, 0.0)


class Followed:
    """A standing, the ledger that it asks and the time that it lives in."""

    def __init__(self, profile: CertificateProfile, **options: Any) -> None:
        self.clock = SettableClock(profile.not_before_s)
        self.ledger = ToldLedger(profile)
        config = FollowConfig(url="http://127.0.0.1:1", genesis="genesis.json", **options)
        self.standing = LedgerStanding(self.ledger, profile, config, self.clock)

    async def refusal(self) -> str:
        """Ask as the following does; returns why a call is refused, or an empty text."""
        await self.standing.ask()
        (outcome,) = await asyncio.gather(self.standing.check(), return_exceptions=True)
        health = self.standing.health()
        assert health.ok is (outcome is None)
        assert health.facts.get("reason", "") == str(outcome or "")
        assert getattr(outcome, "code", "not-on-ledger") == "not-on-ledger"
        return str(outcome or "")


@pytest.fixture
def profile(site: Site) -> CertificateProfile:
    return load_setup(site.config, SystemClock()).credential.value.profile


async def test_a_known_bad_status_stays_while_the_ledger_is_silent(profile: CertificateProfile) -> None:
    known = Followed(profile)
    known.ledger.status = CertStatus.REVOKED
    assert "was revoked" in await known.refusal()
    known.ledger.silent = True
    known.clock.elapse(1e6)
    assert "was revoked" in await known.refusal()


@pytest.mark.parametrize(("when_unheard", "refused"), [("sign", ""), ("refuse", "has not told for too long")])
async def test_silence_is_borne_for_its_time_and_then_as_configured(
    profile: CertificateProfile, when_unheard: str, refused: str
) -> None:
    silent = Followed(profile, when_unheard=when_unheard, max_unheard_s=300)
    silent.ledger.silent = True
    assert await silent.refusal() == ""
    silent.clock.elapse(300)
    silent.clock.set(3600)
    assert await silent.refusal() == ""
    assert "silent for 300 s: the ledger node does not answer" in silent.standing.health().facts["ledger"]
    silent.clock.elapse(1)
    assert refused in await silent.refusal()
    silent.ledger.silent = False
    assert await silent.refusal() == ""
    assert silent.standing.health().facts == {"ledger": "followed"}


async def test_a_certificate_that_has_just_become_good_signs_at_the_next_call(profile: CertificateProfile) -> None:
    fresh = Followed(profile)
    fresh.ledger.status = CertStatus.UNKNOWN
    assert "not recorded" in await fresh.refusal()
    fresh.ledger.status = CertStatus.VALID
    await fresh.standing.check()


async def test_a_good_status_costs_a_call_no_question_and_many_refused_calls_ask_once(
    profile: CertificateProfile,
) -> None:
    standing = Followed(profile)
    await standing.standing.ask()
    for _ in range(100):
        await standing.standing.check()
    assert standing.ledger.asked == 1
    standing.ledger.status = CertStatus.REVOKED
    await standing.standing.ask()
    outcomes = await asyncio.gather(*(standing.standing.check() for _ in range(100)), return_exceptions=True)
    assert all(isinstance(outcome, SigningRefused) for outcome in outcomes)
    assert standing.ledger.asked == 3


async def test_each_change_is_logged_once(profile: CertificateProfile, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "authn_server.standing")
    told = Followed(profile)
    for silent, status in ((False, CertStatus.REVOKED), (True, None), (False, None), (False, CertStatus.VALID)):
        told.ledger.silent, told.ledger.status = silent, status or told.ledger.status
        for _ in range(3):
            await told.refusal()
    assert [record.getMessage() for record in caplog.records] == [
        "signing stopped",
        "the ledger does not tell the certificate's status",
        "the ledger tells the certificate's status again",
        "the ledger holds the certificate valid",
    ]


async def test_a_server_without_a_ledger_says_that_it_follows_none(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with followed(None, None, load_setup(site.config, SystemClock()).credential, SystemClock()) as switch:
        standing = switch.current.standing
        await standing.check()
        assert standing.health().ok
        assert "not followed" in standing.health().facts["ledger"]
    assert "the ledger is not followed" in caplog.text


async def test_a_fault_of_our_own_counts_as_silence(
    profile: CertificateProfile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Followed(profile)
    monkeypatch.setattr(broken.ledger, "look_up", None)
    assert await broken.refusal() == ""
    assert "asking it failed" in broken.standing.health().facts["ledger"]
    assert "could not be asked" in caplog.text
