"""Each rule in each place: at admission, while an SA lives, and at the bridge, with the programs' own classes."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from segw_agent.bridge.responder import _REVOKED
from segw_agent.bridge.vouching import NotVouchedError, Vouching
from segw_agent.judge import Judge
from segw_agent.ledger import Found
from segw_agent.live import LiveSas
from segw_agent.nodes import Nodes
from segw_agent.peer_names import PeerNames
from segw_agent.policy import CertificatePolicy, IntegrityPolicy, Policy, Question, Side
from segw_agent.rules import (
    PROVED_STEPS,
    RULES,
    Attached,
    NotHere,
    Peer,
    PeerRefusedError,
    Rule,
    Step,
    _Broken,
    _run,
    check_live,
    check_names,
    inquiry_refusal,
)
from segw_agent.tracer import IkeTracer
from tests.certificates import with_usage
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.integrity import IntegrityInfo, Measurement, Result
from voice_dpki.ledger.answers import InquiryCode, InquiryError, Resolution
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.ledger.standing import status_of
from voice_dpki.names import CertDigest, Height, Tn
from voice_dpki.shell.reload import Live
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import CertificateProfile, build_certificate, digest_of, read_profile
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

NOW_S = 1_790_000_000
SA = SaName(b"\1" * 8, b"\2" * 8)
SIGNER = generate_es256()
NAMES = ("enb1.vendor.example",)
DIGEST = b"\7" * 32


def certificate(*dns_names: str, **changes: Any) -> CertificateProfile:
    parts: dict[str, Any] = {"organization": "Vendor V", "common_name": "enb1", "dns_names": dns_names}
    validity: dict[str, Any] = {"not_before_s": NOW_S - 10, "not_after_s": NOW_S + 10}
    return read_profile(build_certificate(SIGNER, random=SystemRandom(), **parts | validity | changes))


PROFILE = certificate(*NAMES)
RECORD = CertRecord(CertStatus.VALID, "Vendor V", NOW_S - 10, NOW_S + 10, Height(1), Height(1), 0, None, bytes(32))
MEMBER = Member(organization="Vendor V", kind=MemberKind.VENDOR, domains=("vendor.example",))


def statement(
    sa: SaName = SA, time_s: int = NOW_S, result: Result = Result.PASSED, digest: bytes = DIGEST
) -> bytes:
    return IntegrityInfo(result, time_s, (Measurement("boot", digest),)).sign(SIGNER, sa, PROFILE.digest)


def policy(**changes: Any) -> Policy:
    parts: dict[str, Any] = {
        "organizations": frozenset({"Vendor V"}),
        "allow": ("*.vendor.example",),
        "integrity": IntegrityPolicy.REQUIRE,
        "measurements": {"boot": frozenset({DIGEST.hex()})},
    }
    return Policy(**parts | changes)


@dataclass(frozen=True)
class Case:
    """A peer, what the ledger proves of it, the policy and the time; as it stands, nothing is wrong."""

    record: CertRecord | None = RECORD
    member: Member | None = MEMBER
    policy: Policy = field(default_factory=policy)
    content: bytes | None = field(default_factory=statement)
    now_s: float = NOW_S
    profile: CertificateProfile = PROFILE
    identity: str = "enb1.vendor.example"
    side: Side = Side.GATEWAY
    given: bytes | None = PROFILE.der
    """What an inquiry node gives for the certificate, where it is asked for it."""

    def question(self) -> Question:
        return Question(self.side, SA, self.identity, self.profile, self.content)

    def found(self) -> Resolution:
        return self._proved(self.profile.digest, None)

    def with_certificate(self) -> Resolution:
        der = self.given if self.profile is PROFILE else self.profile.der
        return self._proved(digest_of(der or PROFILE.der), der)

    def _proved(self, digest: CertDigest, der: bytes | None) -> Resolution:
        status = status_of(self.record, self.member, self.now_s)
        return Resolution(digest, status, der, self.record, self.member, Height(5), NOW_S, 1.0)


class At(SimpleNamespace):
    """A clock that stands still, and the doubles of what asks a ledger."""

    def now_s(self) -> float:
        return float(self.case.now_s)

    steady_s = checked_s = now_s

    def held(self, digest: bytes) -> Resolution:
        assert digest == self.case.profile.digest
        return self.case.found()

    async def find(self, digest: bytes, *, step: str, stapled: bytes | None) -> Found:
        return Found(self.held(digest), "inquiry")

    async def resolve(self, digest: bytes) -> Resolution:
        return self.case.with_certificate()

    async def light_block(self, height: int) -> Any:
        raise InquiryError(InquiryCode.UNREACHABLE, "the ledger node does not answer")


def nodes_of(outside: Any) -> Nodes:
    """Make one node of a double."""
    return Nodes({"node": outside}, outside, timeout_s=60)


def judge_of(case: Case) -> Judge:
    outside: Any = At(case=case)
    return Judge(outside, Live(case.policy), outside, IkeTracer(None, "gateway"))


def admit(case: Case) -> str | None:
    try:
        asyncio.run(judge_of(case).judge(case.question()))
    except PeerRefusedError as refusal:
        return refusal.code
    return None


def live(case: Case) -> str | None:
    outside: Any = At(case=case)
    outside.clock = outside
    sas = LiveSas(judge_of(case), outside, outside, outside)
    sas.add(case.question())
    assert sas._unsure == set()
    return sas._ending[SA].code if sas._ending else None


def vouch(case: Case) -> str | None:
    outside: Any = At(case=case)
    keys = {key: getattr(case.policy, key) for key in CertificatePolicy.__struct_fields__}
    bridges = CertificatePolicy(**keys)
    try:
        asyncio.run(Vouching(nodes_of(outside), bridges, outside).about(case.profile.digest))
    except NotVouchedError as refused:
        return refused.code
    return None


PLACES = {"admit": admit, "live": live, "vouch": vouch}
EVERYWHERE = frozenset(PLACES)
AT_ADMISSION = frozenset({"admit"})
AT_THE_BRIDGE = frozenset({"vouch"})
"""Which has the certificate of the ledger; the others, of the peer."""
BY_CERTIFICATE = frozenset({"admit", "vouch"})
"""What a certificate says never changes, and need not be judged again."""

WITH_URI = certificate(*NAMES, uris=("sip:+4930@enb1.vendor.example",))
WITH_NUMBER = certificate(*NAMES, tn_auth_list=TnAuthList(spcs=("1234",)))
UNFIT = read_profile(with_usage(PROFILE.der, SIGNER, "key_agreement"))

BROKEN: Mapping[str, tuple[Case, frozenset[str]]] = {
    "not-recorded": (Case(record=None, member=None), EVERYWHERE),
    "not-a-member": (Case(member=None), EVERYWHERE),
    "revoked": (Case(record=replace(RECORD, status=CertStatus.REVOKED)), EVERYWHERE),
    "suspended": (Case(member=replace(MEMBER, suspended=True)), EVERYWHERE),
    "expired": (Case(now_s=NOW_S + 11), EVERYWHERE),
    "not-yet-valid": (Case(now_s=NOW_S - 11), EVERYWHERE),
    "organization": (Case(policy=policy(organizations=frozenset({"Vendor W"}))), EVERYWHERE),
    "subject": (Case(profile=certificate(*NAMES, organization="Vendor W")), BY_CERTIFICATE),
    "key-usage": (Case(profile=UNFIT), BY_CERTIFICATE),
    "numbers": (Case(profile=WITH_NUMBER), EVERYWHERE),
    "domain": (Case(member=replace(MEMBER, domains=("elsewhere.example",))), EVERYWHERE),
    "uri-number": (Case(profile=WITH_URI), EVERYWHERE),
    "not-given": (Case(given=None), AT_THE_BRIDGE),
    "profile": (Case(given=b"no certificate"), AT_THE_BRIDGE),
    "identity-denied": (Case(policy=policy(deny=("ENB1.vendor.example",))), EVERYWHERE),
    "identity-not-allowed": (Case(policy=policy(allow=("vendor.example",))), EVERYWHERE),
    "integrity-missing": (Case(content=None), AT_ADMISSION),
    "integrity-malformed": (Case(content=b"\2" + statement()[1:]), AT_ADMISSION),
    "integrity-forged": (Case(content=statement(SaName(SA.spi_i, b"\3" * 8))), AT_ADMISSION),
    "integrity-stale": (Case(content=statement(time_s=NOW_S - 301)), AT_ADMISSION),
    "integrity-failed": (Case(content=statement(result=Result.FAILED)), AT_ADMISSION),
    "integrity-measurement": (Case(content=statement(digest=b"\x08" * 32)), AT_ADMISSION),
}
"""By code: a case that breaks the rule, and the places that refuse it."""


def test_the_table_has_every_code_of_every_rule() -> None:
    codes = [code for rule in RULES for code in rule.codes]
    assert sorted(codes) == sorted(BROKEN)


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_wrong(place: str) -> None:
    assert PLACES[place](Case()) is None


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("code", BROKEN)
def test_each_rule_in_each_place(code: str, place: str) -> None:
    case, places = BROKEN[code]
    assert PLACES[place](case) == (code if place in places else None)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.step is not Step.CERTIFICATE])
def test_a_rule_says_where_it_applies_and_why_not_elsewhere(rule: Rule) -> None:
    for place, check in {"admit": rule.admit, "live": rule.live, "vouch": rule.vouch}.items():
        assert {place in BROKEN[code][1] for code in rule.codes} == {not isinstance(check, NotHere)}
        assert not isinstance(check, NotHere) or check.why


def test_rules_after_one_that_does_not_apply_are_run() -> None:
    def broken(_: CertificatePolicy, __: Peer) -> None:
        raise _Broken("broken", "it is broken")

    peer = Peer(side=Side.GATEWAY, names=PeerNames(dns_names=NAMES), found=None, now_s=NOW_S)
    with pytest.raises(PeerRefusedError, match=r"^broken: it is broken$"):
        _run([(RULES[0], NotHere("for a reason")), (RULES[0], broken)], policy(), peer)


def test_nothing_is_proved_of_a_certificate_before_the_inquiry() -> None:
    peer = Peer(side=Side.GATEWAY, names=PeerNames(dns_names=NAMES), found=None, now_s=NOW_S)
    with pytest.raises(LocalError, match="has not been asked"):
        _ = peer.recorded


def test_ocsp_answers_each_refusal_on_purpose() -> None:
    """As a revocation, but for a certificate that the ledger does not show, or not as valid at this time."""
    codes = {code for rule in RULES if not isinstance(rule.vouch, NotHere) for code in rule.codes}
    unknown = {"not-recorded", "expired", "not-yet-valid", "not-given", "profile"}
    assert codes - _REVOKED.keys() == unknown
    assert _REVOKED.keys() <= codes


SIDES = [
    ("revoked", "5.4 certificate", "8 SeGW certificate"),
    ("domain", "5.4 certificate", "8 SeGW certificate"),
    ("identity-denied", "4 IDi", "8 IDr"),
    ("integrity-missing", "6 INTEGRITY_INFO", None),
]


@pytest.mark.parametrize(("code", "of_gateway", "of_device"), SIDES)
async def test_steps_are_named_by_side(code: str, of_gateway: str, of_device: str | None) -> None:
    for side, step in ((Side.GATEWAY, of_gateway), (Side.DEVICE, of_device)):
        case = replace(BROKEN[code][0], side=side)
        if step is None:
            assert await judge_of(case).judge(case.question())
            continue
        with pytest.raises(PeerRefusedError) as refused:
            await judge_of(case).judge(case.question())
        assert (refused.value.code, refused.value.step) == (code, step)


@pytest.mark.parametrize("code", InquiryCode)
async def test_no_answer_is_a_refusal(code: InquiryCode, monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(*_arguments: object, **_options: object) -> Found:
        raise InquiryError(code, "x")

    judge = judge_of(Case())
    monkeypatch.setattr(judge.ledger, "find", find)
    with pytest.raises(PeerRefusedError) as refused:
        await judge.judge(Case().question())
    assert (refused.value.code, refused.value.step) == (f"ledger-{code}", "5.3 inquiry")
    assert inquiry_refusal(Side.DEVICE, InquiryError(code, "x")).step == "8 SeGW inquiry"


async def test_strangers_cause_no_inquiry(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(BROKEN["identity-denied"][0], record=None)
    judge = judge_of(case)
    monkeypatch.delattr(At, "find")
    with pytest.raises(PeerRefusedError) as refused:
        await judge.judge(case.question())
    assert refused.value.code == "identity-denied"


async def test_a_fault_of_our_own_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = judge_of(Case())
    monkeypatch.delattr(At, "find")
    with pytest.raises(PeerRefusedError) as refused:
        await judge.judge(Case().question())
    assert (refused.value.code, refused.value.step) == ("internal", Step.CERTIFICATE.value[0])


TWO_NAMES = certificate("enb1.vendor.example", "enb1.elsewhere.example")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("profile", "code"), [(TWO_NAMES, "domain"), (WITH_URI, "uri-number"), (WITH_NUMBER, "numbers")]
)
def test_all_that_a_certificate_claims_must_be_its_organisations(
    profile: CertificateProfile, code: str, place: str
) -> None:
    """Also what is not the identity in IKE."""
    case = Case(profile=profile, policy=policy(allow=("*",), integrity=IntegrityPolicy.IGNORE))
    assert PLACES[place](case) == code
    holder = replace(
        MEMBER, domains=("vendor.example", "elsewhere.example"), spcs=("1234",), ranges=(TnRange(Tn("4930"), 2),)
    )
    assert PLACES[place](replace(case, member=holder)) is None


SUBJECT = "CN=enb1,O=Vendor V"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shown", [*TWO_NAMES.dns_names, SUBJECT])
def test_whichever_of_its_names_a_peer_shows(shown: str, place: str) -> None:
    """One that is denied by one name does not come in under another."""
    holder = replace(MEMBER, domains=("vendor.example", "elsewhere.example"))
    peer = Case(profile=TWO_NAMES, member=holder, identity=shown)
    loose = policy(allow=("*",), integrity=IntegrityPolicy.IGNORE)
    assert PLACES[place](replace(peer, policy=loose)) is None
    for denied in ("enb1.vendor.example", "*.elsewhere.example", "enb1", "O=Vendor V, CN=enb1"):
        listed = policy(allow=("*",), deny=(denied,), integrity=IntegrityPolicy.IGNORE)
        assert PLACES[place](replace(peer, policy=listed)) == "identity-denied"
    partly = policy(integrity=IntegrityPolicy.IGNORE)
    assert PLACES[place](replace(peer, policy=partly)) == "identity-not-allowed"


def test_the_bridge_vouches_for_no_certificate_without_names() -> None:
    nameless = certificate()
    assert vouch(Case(profile=nameless, policy=policy(allow=("*",)))) == "identity-not-allowed"


@pytest.mark.parametrize("content", [None, statement(time_s=NOW_S + 60), statement(time_s=NOW_S - 300), b"", b"\2"])
def test_treatments_of_integrity(content: bytes | None) -> None:
    lenient = Case(content=content, policy=policy(integrity=IntegrityPolicy.CHECK_IF_PRESENT))
    assert admit(lenient) == ("integrity-malformed" if content in (b"", b"\2") else None)
    assert admit(replace(lenient, policy=policy(integrity=IntegrityPolicy.IGNORE))) is None
    assert admit(Case(content=statement(time_s=NOW_S + 61))) == "integrity-stale"


def test_a_component_that_must_be_measured() -> None:
    assert admit(Case(policy=policy(measurements={"firmware": frozenset({"00" * 32})}))) == "integrity-measurement"


def test_names_of_a_live_sa_are_held_to_the_list_without_the_ledger() -> None:
    claims: Any = PROFILE
    peer = Attached(
        side=Side.GATEWAY,
        names=PeerNames.of(PROFILE, "enb1.vendor.example"),
        claims=claims,
        found=None,
        now_s=NOW_S,
    )
    check_names(policy(), peer)
    with pytest.raises(PeerRefusedError) as caught:
        check_names(policy(deny=("*.vendor.example",)), peer)
    assert caught.value.step == Step.IDENTITY.named(Side.GATEWAY)
    with pytest.raises(LocalError, match="has not been asked"):
        check_live(policy(), peer)


def test_what_the_ledger_proves_is_asked_of_the_steps_behind_the_inquiry() -> None:
    assert PROVED_STEPS == (Step.CERTIFICATE, Step.INTEGRITY)
    assert not [rule for rule in RULES if rule.step is Step.INQUIRY]


def test_a_broken_rule_tells_its_sentence() -> None:
    assert str(_Broken("code", "the sentence")) == "the sentence"
