"""Signers outside the federation: judged by the list, never above what the ledger says, and told apart."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from tests.pki import SPC, Signer, numbers, root
from voice_dpki.names import CertDigest, Tn
from voice_dpki.stir import atis
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import Policy, examine
from voice_dpki.stir.handling import HandlingRule
from voice_dpki.stir.outside import OutsideSigner
from voice_dpki.stir.replay import ReplayCache, Sighting, TokenUse
from voice_dpki.stir.rph import RPH
from voice_dpki.stir.several import examine_all, judge_all
from voice_dpki.stir.sign import Credential, sign_call
from voice_dpki.stir.treatment import Act
from voice_dpki.stir.verdict import Step, Trust, Verdict, VerificationFailed, Verstat
from voice_dpki.stir.verify import judge
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.claimconstraints import ClaimConstraints, extension_for
from voice_dpki.x509.listed import Authorities, Federation
from voice_dpki.x509.tnauthlist import TnRange

from .conftest import NOW_S, RANGE_A, Operator

URL = "https://certs.carrier.example/shaken-318J.pem"
OUTSIDE = "12155551212"
ROOT = root("Root CA", NOW_S)
FEDERATION = Federation({"Operator A": Allotment(ranges=(RANGE_A,), spcs=("D123",)), "Operator B": Allotment()})


class Carrier:
    """An operator outside the federation, and the calls of its customers."""

    def __init__(self, name: str = "Carrier 1", **certificate: Any) -> None:
        self.issued: Signer = ROOT.issue(name, NOW_S, **certificate)
        listed = Authorities([ROOT.certificate]).judge([self.issued.certificate], NOW_S)
        self.outside = OutsideSigner(listed, FEDERATION)
        everything = tuple(TnRange(Tn("1" + "0" * (digits - 1)), 8 * 10 ** (digits - 1)) for digits in (11, 12))
        code = replace(listed.profile, tn_auth_list=SPC, claim_constraints=())
        self.credential = Credential(self.issued.signer, code, URL, everything)
        """It signs for any number, as nobody here would let a server do."""

    @property
    def policy(self) -> Policy:
        return Policy(digest_at=self._digest_at, priority={"Operator A": frozenset({"ets"})})

    def _digest_at(self, url: str) -> CertDigest:
        assert url == URL
        return self.outside.digest

    def call(self, operator: Operator, orig: str = OUTSIDE, **changes: Any) -> Call:
        request = operator.request(orig=Tn(orig), key_mgmt=(), **changes)
        identity = sign_call(request, self.credential, request.iat_s).serialize()
        return Call(request.orig, request.dest, request.iat_s, (identity,), call_id="c1")

    def verdict(self, call: Call, replays: ReplayCache | None = None, now_s: float = NOW_S) -> Verdict:
        found = examine_all(call, self.policy, now_s)
        records = {self.outside.digest: self.outside}
        kept = ReplayCache(100, 120) if replays is None else replays
        return judge_all(call, found, records, self.policy, kept, now_s, now_s)[0]


def test_a_good_call_passes_and_says_what_it_stands_on(operator: Operator) -> None:
    carrier = Carrier()
    verdict = carrier.verdict(carrier.call(operator))
    assert (verdict.verstat, verdict.trust, verdict.signer) == (Verstat.PASSED, Trust.LIST, "Carrier 1")
    assert b'"trust":"list"' in atis.verification_response(verdict)


def test_the_ledgers_trust_is_not_told_over_http(operator: Operator, verifier: Any) -> None:
    verdict = verifier.verify(operator.call(), operator.record)
    assert verdict.trust is Trust.LEDGER
    assert b"trust" not in atis.verification_response(verdict)


@pytest.mark.parametrize(
    ("name", "listed", "orig", "step"),
    [
        ("Carrier 1", SPC, "493023125001", Step.CERTIFICATE),
        ("Operator A", SPC, OUTSIDE, Step.CERTIFICATE),
        ("Operator B", SPC, OUTSIDE, Step.CERTIFICATE),
        ("Carrier 1", replace(SPC, spcs=("D123",)), OUTSIDE, Step.CERTIFICATE),
        ("Carrier 1", numbers("12155550000", 1000), OUTSIDE, Step.AUTHORITY),
        ("Carrier 1", numbers("493023125000", 1000), "493023125001", Step.CERTIFICATE),
    ],
)
def test_what_is_not_the_carriers_fails(operator: Operator, name: str, listed: Any, orig: str, step: Step) -> None:
    carrier = Carrier(name, listed=listed)
    verdict = carrier.verdict(carrier.call(operator, orig))
    assert (verdict.verstat, verdict.reasoncode, verdict.step) == (Verstat.FAILED, 437, step.label)
    assert verdict.trust is Trust.LIST


def test_a_chain_that_has_ended_fails(operator: Operator) -> None:
    carrier, now_s = Carrier(days=(-1, 2)), NOW_S + 3 * 86_400
    outside = replace(carrier.outside, listed=replace(carrier.outside.listed, not_after_s=NOW_S))
    call = carrier.call(operator)
    with pytest.raises(VerificationFailed, match="expired") as failed:
        judge(
            examine(call, call.identities[0], carrier.policy, NOW_S),
            outside,
            carrier.policy,
            ReplayCache(9, 9),
            now_s,
        )
    assert failed.value.step is Step.CERTIFICATE


def test_what_the_certificate_may_not_say_fails(operator: Operator) -> None:
    oid, value = extension_for(ClaimConstraints(permitted=(("attest", ("B", "C")),)))
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
    carrier = Carrier(extensions=((extension, False),))
    assert carrier.verdict(carrier.call(operator, attest="B")).ok
    verdict = carrier.verdict(carrier.call(operator, attest="A"))
    assert (verdict.reasoncode, verdict.step) == (437, Step.CONSTRAINTS.label)


def test_another_key_fails(operator: Operator) -> None:
    carrier, thief = Carrier(), Carrier()
    call = thief.call(operator)
    assert carrier.verdict(call).step == Step.SIGNATURE.label


def test_a_members_name_brings_no_priority(operator: Operator) -> None:
    carrier = Carrier("Operator A")
    lone = replace(carrier.outside, federation=Federation({}))
    own = {"rph": ("ets.0",)}
    request = operator.request(orig=Tn(OUTSIDE), key_mgmt=(), ppt="rph", attest="", origid="", own=own)
    credential = replace(carrier.credential, namespaces=frozenset({"ets"}))
    identity = sign_call(request, credential, NOW_S).serialize()
    call = Call(request.orig, request.dest, NOW_S, (identity,), resource_priority=frozenset({"ets.0"}))
    with pytest.raises(VerificationFailed) as failed:
        judge(examine(call, identity, carrier.policy, NOW_S), lone, carrier.policy, ReplayCache(9, 9), NOW_S)
    assert failed.value.step is Step.AUTHORITY
    assert RPH.authority.number is None


def test_an_outsider_has_no_share_of_a_members_replay_memory(operator: Operator) -> None:
    carrier, replays = Carrier("Operator A"), ReplayCache(3, 120)
    carrier.outside = replace(carrier.outside, federation=Federation({}))
    for _ in range(2):
        assert carrier.verdict(carrier.call(operator), replays).ok
    told = {
        signer: replays.look(TokenUse(b"x", b"", signer, NOW_S), NOW_S) for signer in ("Operator A", "\0Operator A")
    }
    assert told == {"Operator A": Sighting.NEW, "\0Operator A": Sighting.FULL}


def test_rules_for_a_member_do_not_match_an_outsider_of_its_name(operator: Operator) -> None:
    call = operator.call()
    rule = HandlingRule(name="one", act=Act.PASS, signers=frozenset({"Operator A"}))
    named = Verdict(Verstat.PASSED, signer="Operator A", trust=Trust.LIST)
    assert rule.mismatch(named, call) == "signers"
    assert not rule.mismatch(replace(named, trust=Trust.LEDGER), call)


def test_rules_tell_the_two_kinds_of_trust_apart(operator: Operator) -> None:
    rule = HandlingRule(name="one", act=Act.TAG, trusts=frozenset({Trust.LIST}))
    verdict = Verdict(Verstat.PASSED, trust=Trust.LIST)
    assert not rule.mismatch(verdict, operator.call())
    assert rule.mismatch(replace(verdict, trust=Trust.LEDGER), operator.call()) == "trusts"
    assert rule.mismatch(replace(verdict, trust=None), operator.call()) == "trusts"
