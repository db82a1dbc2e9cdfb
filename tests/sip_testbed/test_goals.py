"""Attacks on what STIR protects, in this process: refused by the step that they name, and successful without it.

`tests/e2e/test_goals.py` does the same with whole calls between programs.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest
from sipmessage import Request

from sip_testbed import proxy_rules as rules
from sip_testbed.network_config import path_config
from sip_testbed.path import PathConfig, make_attack
from sip_testbed.provision import ADDRESSES, CALLEE, CALLER, OPERATORS, OUTSIDE, Site
from sip_testbed.scenarios import SCENARIOS, Key, Scenario
from tests.recorded import absent, recorded
from tests.without import removals
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.names import Tn
from voice_dpki.shell.config import load_config
from voice_dpki.shell.credentials import read_signer
from voice_dpki.sip.message import parse_message
from voice_dpki.sip.sdp import PLAIN, RtpMap, SessionDescription, audio_description
from voice_dpki.stage.addresses import Addresses
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.examine import Policy, examine
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.sign import make_credential, sign_call
from voice_dpki.stir.verdict import Verdict, VerificationFailed, Verstat
from voice_dpki.stir.verify import judge
from voice_dpki.wire.sip.invite import caller_uri, date_of, number_of
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.profile import digest_of, read_profile
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate

ROOT = Path(__file__).parents[2]
CLOCK, RANDOM = SystemClock(), SystemRandom()
MIKEY = "mikey AQAFgKCAkxMCAAARERERAAAAAAAiIiIiAAAAAAsA7q55Jtom1IABEJ6cCKG/l5jt5m6t4WI3Ur4="
OFFER = audio_description("127.0.0.2", 4000, [RtpMap(0, "PCMU/8000")], session_id=1, key_mgmt=[MIKEY]).serialize()
STIR = [s for s in SCENARIOS.values() if re.match("E1|E20|E21|E22", s.expected.refused_by or "")]
"""Scenarios that a step of the verification server refuses."""


@dataclass
class Way:
    """Operator A's proxy, the attacker of a scenario, and Operator B's verification server."""

    site: Site
    scenario: Scenario
    replays: ReplayCache = field(default_factory=lambda: ReplayCache(100, 120))

    def __post_init__(self) -> None:
        attack = self.scenario.attack
        assert attack is not None
        stolen = attack.key in (Key.NONE, Key.STOLEN)
        self.credential = self.site.signer if stolen else self.site.signing_credential("thief")
        file = self.site.config("path", path_config(self.site, attack, self.credential))
        self.attack = make_attack(load_config(file, PathConfig), file, CLOCK, RANDOM)
        self.rewrites_sdp = attack.rewrites_sdp
        status = {Key.UNRECORDED: CertStatus.UNKNOWN, Key.REVOKED: CertStatus.REVOKED}
        self.status = status.get(attack.key, CertStatus.VALID)

    @property
    def recorded(self) -> RecordedCertificate:
        """What the ledger says of the certificate that the attacker signs with, or Operator A."""
        if self.status is CertStatus.UNKNOWN:
            return absent(digest_of(self.credential.der))
        operator = OPERATORS[0]
        held = Allotment((operator.domain,), (operator.numbers,))
        return recorded(self.credential.der, held, operator.organization, status=self.status)

    def signed(self, caller: Tn) -> Request:
        """An INVITE as it leaves Operator A's proxy."""
        request = invite(caller)
        time_s = rules.date_call(request, CLOCK.now_s())
        facts = rules.call_facts(request, caller, time_s)
        wanted = SigningRequest(
            "A",
            caller,
            Destinations((facts.called,)),
            time_s,
            str(UUID(bytes=RANDOM.token(16), version=4)),
            facts.key_mgmt,
            None if self.rewrites_sdp else facts.sdp,
        )
        signer = self.site.signer
        credential = make_credential(
            read_signer(signer.key), read_profile(signer.der), "https://certs.a.example/{digest}.der", CLOCK.now_s()
        )
        request.headers.set("Identity", sign_call(wanted, credential, CLOCK.now_s()).serialize())
        return request

    def verified(self, request: Request) -> Verdict:
        """What Operator B's server finds; raises VerificationFailed."""
        caller = number_of(caller_uri(request))
        assert caller is not None
        time_s = date_of(request, CLOCK.now_s())
        facts = rules.call_facts(request, caller, time_s)
        identity = request.headers["Identity"]
        called = Destinations((facts.called,))
        told = Call(caller, called, time_s, (identity,), facts.key_mgmt, facts.sdp)
        call = replace(told, call_id=request.headers["Call-ID"])
        examined = examine(call, identity, Policy(), CLOCK.now_s())
        return judge(examined, self.recorded, Policy(), self.replays, CLOCK.now_s())

    async def attacked(self) -> Request:
        """An INVITE that has passed the attacker, who heard an earlier one if need be."""
        assert self.scenario.attack is not None
        if self.scenario.attack.listens_first:
            earlier = self.signed(CALLER)
            assert await self.attack.invite(earlier) is None
            assert self.verified(earlier).verstat is Verstat.PASSED
        request = self.signed(OTHER if self.scenario.attack.listens_first else CALLER)
        assert await self.attack.invite(request)
        return request


OTHER = Tn("493023125002")


def invite(caller: Tn, kind: str = "Content-Type: application/sdp") -> Request:
    request = parse_message(
        f"INVITE sip:+{CALLEE}@b.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK{caller}\r\n"
        f"From: <sip:+{caller}@a.example>;tag=1\r\nTo: <sip:+{CALLEE}@b.example>\r\nCall-ID: {caller}\r\n"
        f"CSeq: 1 INVITE\r\n{kind}\r\n\r\n".encode()
        + OFFER
    )
    assert isinstance(request, Request)
    return request


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("Content-Type: application/sdp", OFFER),
        ("c: application/sdp", OFFER),
        ("CONTENT-TYPE: Application/SDP;charset=utf-8", OFFER),
        ("Content-Type: text/plain", b"text/plain\r\n\r\n" + OFFER),
        ("X: y", b"\r\n\r\n" + OFFER),
    ],
)
def test_what_the_proxy_tells_of_a_body(given: str, told: bytes) -> None:
    request = invite(CALLER, given)
    assert rules.call_facts(request, CALLER, 1).sdp == sha256(told).digest()
    request.body = b""
    assert rules.call_facts(request, CALLER, 1).sdp == sha256(b"").digest()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    addresses = Addresses(ADDRESSES)
    yield Site(tmp_path_factory.mktemp("site"), addresses, CLOCK, RANDOM)
    addresses.close()


def gained(request: Request, way: Way) -> object:
    """What of the attack's goal shows in the INVITE that reaches the callee."""
    sdp = SessionDescription.parse(request.body)
    caller = number_of(caller_uri(request))
    return {
        "number-outside-range": caller == OUTSIDE,
        "identity-replayed": caller == CALLER != OTHER,
        "sdp-changed": sdp.audio_address == (way.site.addresses["path"].host, 4000) and sdp.key_mgmt == (MIKEY,),
        "key-mgmt-stripped": sdp.key_mgmt == () and sdp.audio.protocol == PLAIN,
        "media-added": len(sdp.media) == 2,
        "mikey-changed": sdp.key_mgmt != (MIKEY,) and sdp.audio_address == ("127.0.0.2", 4000),
    }.get(way.scenario.name, caller == CALLER)


@pytest.mark.parametrize("scenario", STIR, ids=lambda scenario: scenario.name)
async def test_an_attack_is_refused_by_its_step_and_by_nothing_else(
    scenario: Scenario, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way(site, scenario)
    request = await way.attacked()
    check = scenario.expected.refused_by or ""
    with pytest.raises(VerificationFailed) as refused:
        way.verified(request)
    assert refused.value.step.label == check
    for removed in removals(check, way.credential.certificate):
        monkeypatch.setattr(*removed)
    assert way.verified(request).verstat is Verstat.PASSED
    assert gained(request, way)


@pytest.mark.parametrize(
    "scenario", [s for s in SCENARIOS.values() if s.attack], ids=lambda scenario: scenario.name
)
def test_the_check_of_every_scenario_can_be_taken_away(scenario: Scenario) -> None:
    """Tests with whole calls, which would miss a check under another name, run seldom."""
    for owner, name, _ in removals(scenario.expected.refused_by or ""):
        assert callable(getattr(owner, name))


def test_a_program_runs_without_a_check() -> None:
    command = [sys.executable, "-m", "tests.without", "E21 replay", "verify_server.main", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "Verifies calls" in done.stdout) == (0, True), done.stderr


def test_these_are_the_scenarios_of_the_verification_server() -> None:
    assert len(STIR) == 9


async def test_on_a_way_with_sbcs_a_changed_address_is_verified(site: Site) -> None:
    """There the telephones have to notice."""
    way = Way(site, SCENARIOS["media-redirected"])
    request = await way.attacked()
    verdict = way.verified(request)
    assert (verdict.verstat, verdict.sdp, verdict.key_mgmt) == (Verstat.PASSED, "not-signed", "verified")
    assert SessionDescription.parse(request.body).audio_address[0] == site.addresses["path"].host
