"""Calls that were diverted: the tokens of the call together, in any order (RFC 8946 §4.2)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, permutations
from typing import Any

import pytest

from tests.recorded import recorded
from voice_dpki.codec import base64url
from voice_dpki.errors import MalformedError
from voice_dpki.names import CertDigest, Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.div import DIV, Diverting, read_div
from voice_dpki.stir.examine import Examined, Policy
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import ClaimError, Destinations, signing_input_of
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.several import Records, examine_all, judge_all
from voice_dpki.stir.sign import SigningRefused, sign_call
from voice_dpki.stir.verdict import Step, Verdict, VerificationFailed, Verstat, overall
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.recorded import CertStatus
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

from .conftest import NOW_S, Operator, make_operator

CALLER = Tn("493023125001")
CALLED = [Tn(f"44207946000{n}") for n in range(9)]
"""Numbers of the operator that diverts; the caller dialled the first one."""
RANGE_B = TnRange(Tn("442079460000"), 100)
DIVERTED = "E16 diversion"


@pytest.fixture(scope="module")
def other() -> Operator:
    """The operator of those who are called."""
    made = make_operator(listed=TnAuthList(ranges=(RANGE_B,)), organization="Operator B")
    return replace(made, record=recorded(made.der, Allotment(ranges=(RANGE_B,)), "Operator B"))


@dataclass
class Domain:
    """A verification server's core, which knows both operators."""

    operators: Sequence[Operator]
    policy: Policy = field(default_factory=Policy)
    replays: ReplayCache = field(default_factory=lambda: ReplayCache(1000, 120))

    def verify(self, call: Call, now_s: float = NOW_S, **told: Any) -> list[Verdict]:
        records: Records = {each.credential.profile.digest: each.record for each in self.operators}
        found = examine_all(call, self.policy, now_s)
        signers: dict[CertDigest, Any] = {each.digest: None for each in found if isinstance(each, Examined)}
        asked = {digest: told.get("ledger") or records[digest] for digest in signers}
        return judge_all(call, found, asked, self.policy, self.replays, now_s, now_s)


@pytest.fixture
def domain(operator: Operator, other: Operator) -> Domain:
    return Domain((operator, other))


def shaken(operator: Operator, to: Tn = CALLED[0], **changes: Any) -> str:
    return operator.call(dest=Destinations((to,)), key_mgmt=(), **changes).identities[0]


def div(operator: Operator, by: Tn, to: Tn, orig: Tn = CALLER, iat_s: int = NOW_S) -> str:
    request = replace(
        operator.request(orig=orig, dest=Destinations((to,)), iat_s=iat_s), ppt="div", own={"div": Diverting(by)}
    )
    return sign_call(request, operator.credential, iat_s).serialize()


def chain(operator: Operator, other: Operator, count: int) -> list[str]:
    hops = pairwise(CALLED[: count + 1])
    return [shaken(operator), *(div(other, by, to) for by, to in hops)]


def call_to(target: Tn, *identities: str, to: Tn = CALLED[0], call_id: str = "c1") -> Call:
    """A call with its target in the Request-URI and the number that was dialled in To."""
    dest = Destinations(tuple(dict.fromkeys((to, target))))
    return Call(CALLER, dest, NOW_S, identities, target=Destinations((target,)), call_id=call_id)


def steps(verdicts: Sequence[Verdict]) -> list[str]:
    return [verdict.step for verdict in verdicts]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_diverted_call_passes(operator: Operator, other: Operator, domain: Domain, count: int) -> None:
    verdicts = domain.verify(call_to(CALLED[count], *chain(operator, other, count)))
    assert steps(verdicts) == [""] * (count + 1)
    assert [verdict.verstat for verdict in verdicts] == [Verstat.PASSED, *[Verstat.NONE] * count]
    assert [verdict.signer for verdict in verdicts] == ["Operator A", *["Operator B"] * count]
    assert overall(verdicts) is verdicts[0]


def test_header_fields_have_no_order(operator: Operator, other: Operator, domain: Domain) -> None:
    for order in permutations(range(3)):
        identities = chain(operator, other, 2)
        verdicts = domain.verify(call_to(CALLED[2], *(identities[at] for at in order)))
        assert overall(verdicts).verstat is Verstat.PASSED
        assert steps(verdicts) == ["", "", ""]


def test_a_chain_of_six(operator: Operator, other: Operator, domain: Domain) -> None:
    verdicts = domain.verify(call_to(CALLED[6], *chain(operator, other, 6)))
    assert set(steps(verdicts)) == {DIVERTED}
    assert "more than 5 times" in verdicts[0].reasondesc
    assert (overall(verdicts).verstat, overall(verdicts).reasoncode) == (Verstat.NONE, 438)


def test_to_is_not_compared_when_the_call_was_diverted(operator: Operator, other: Operator, domain: Domain) -> None:
    verdicts = domain.verify(call_to(CALLED[1], *chain(operator, other, 1), to=CALLED[1]))
    assert steps(verdicts) == ["", ""]


def test_a_target_that_is_not_told_apart_is_the_destination(
    operator: Operator, other: Operator, domain: Domain
) -> None:
    call = replace(call_to(CALLED[1], *chain(operator, other, 1), to=CALLED[1]), target=None)
    assert steps(domain.verify(call)) == ["", ""]


def test_a_chain_with_a_link_missing(operator: Operator, other: Operator, domain: Domain) -> None:
    identities = chain(operator, other, 3)
    for missing, wrong in ((0, [DIVERTED] * 3), (1, [DIVERTED] * 3), (2, [DIVERTED] * 3), (3, [DIVERTED] * 3)):
        left = [identity for at, identity in enumerate(identities) if at != missing]
        assert steps(domain.verify(call_to(CALLED[3], *left))) == wrong, missing


def test_a_diversion_by_itself_is_none(operator: Operator, other: Operator, domain: Domain) -> None:
    (verdict,) = domain.verify(call_to(CALLED[1], div(other, CALLED[0], CALLED[1])))
    assert (verdict.step, verdict.reasoncode, verdict.verstat) == (DIVERTED, 438, Verstat.NONE)
    assert "from which this one diverts the call is not there" in verdict.reasondesc


def test_a_diversion_by_somebody_without_authority(operator: Operator, other: Operator, domain: Domain) -> None:
    """Whoever pastes a good Identity into a call to somebody else cannot sign the diversion to them."""
    boundless: Any = type("Boundless", (), {
        "profile": operator.credential.profile, "info": operator.credential.info, "signer": operator.signer,
        "authorises": lambda self, tn: True,
    })()  # fmt: skip
    forged = div(replace(operator, credential=boundless), CALLED[0], CALLED[1])
    verdicts = domain.verify(call_to(CALLED[1], shaken(operator), forged))
    assert steps(verdicts) == [DIVERTED, "E17 authority"]
    assert [verdict.reasoncode for verdict in verdicts] == [438, 437]
    assert verdicts[1].reasondesc.startswith("The signer's certificate has no authority over the diverting number")
    assert overall(verdicts).verstat is Verstat.NONE
    with pytest.raises(SigningRefused, match="the diverting number is not among those"):
        div(operator, CALLED[0], CALLED[1])


def test_a_caller_is_not_proven_by_who_diverts(operator: Operator, other: Operator, domain: Domain) -> None:
    """Operator B signs both: the diversion is its own, the caller is not."""
    forged = IdentityHeader.parse(shaken(operator))
    signing_input, _, _ = forged.token.rpartition(".")
    token = f"{signing_input}.{base64url.encode(other.signer.sign(signing_input.encode()))}"
    identities = (replace(forged, token=token).serialize(), div(other, CALLED[0], CALLED[1]))
    verdicts = domain.verify(call_to(CALLED[1], *identities))
    assert steps(verdicts) == ["E18 signature", ""]
    assert overall(verdicts).verstat is Verstat.FAILED


def test_the_caller_is_the_same_all_the_way(operator: Operator, other: Operator, domain: Domain) -> None:
    identities = (shaken(operator), div(other, CALLED[0], CALLED[1], orig=Tn("493023125002")))
    assert steps(domain.verify(call_to(CALLED[1], *identities))) == ["E16 numbers"] * 2


@pytest.mark.parametrize(("stale", "wrong"), [(0, ["E15 iat", DIVERTED]), (1, ["E16 numbers", "E15 iat"])])
def test_every_token_is_fresh(
    operator: Operator, other: Operator, domain: Domain, stale: int, wrong: list[str]
) -> None:
    iats = [NOW_S - 61 if at == stale else NOW_S for at in range(2)]
    identities = shaken(operator, iat_s=iats[0]), div(other, CALLED[0], CALLED[1], iat_s=iats[1])
    assert steps(domain.verify(call_to(CALLED[1], *identities))) == wrong


def test_the_diversions_behind_a_caller_have_passed(operator: Operator, other: Operator, domain: Domain) -> None:
    revoked = recorded(other.der, Allotment(ranges=(RANGE_B,)), "Operator B", status=CertStatus.REVOKED)
    domain.operators = (operator, replace(other, record=revoked))
    verdicts = domain.verify(call_to(CALLED[2], *chain(operator, other, 2)))
    assert steps(verdicts) == [DIVERTED, "E17 certificate", "E17 certificate"]
    assert "its own verdict says why" in verdicts[0].reasondesc


def test_a_worthless_token_beside_a_chain_changes_nothing(
    operator: Operator, other: Operator, domain: Domain
) -> None:
    good = chain(operator, other, 2)
    junk = good[2].replace(IdentityHeader.parse(good[2]).token.rpartition(".")[2], "A" * 86)
    verdicts = domain.verify(call_to(CALLED[2], good[0], junk, good[1], good[2], "e30.e30.c2ln;ppt=msg"))
    assert overall(verdicts).verstat is Verstat.PASSED
    assert [verdict.ok or not verdict.step for verdict in verdicts] == [True, False, True, True, False]


def test_calls_go_round_in_a_ring(operator: Operator, other: Operator, domain: Domain) -> None:
    """B sends to C, C back to B, and B on to D."""
    hops = [(CALLED[0], CALLED[1]), (CALLED[1], CALLED[0]), (CALLED[0], CALLED[2])]
    identities = [shaken(operator), *(div(other, by, to) for by, to in hops)]
    assert steps(domain.verify(call_to(CALLED[2], *identities))) == ["", "", "", ""]
    ring = [shaken(operator), *(div(other, by, to) for by, to in hops[:2])]
    assert steps(domain.verify(call_to(CALLED[3], *ring))) == [DIVERTED] * 3


def test_a_diverted_call_is_accepted_once(operator: Operator, other: Operator, domain: Domain) -> None:
    call = call_to(CALLED[2], *chain(operator, other, 2))
    assert steps(domain.verify(call)) == ["", "", ""]
    assert steps(domain.verify(call)) == ["", "", ""], "a fork is the same call"
    verdicts = domain.verify(replace(call, call_id="c2"))
    assert set(steps(verdicts)) == {"E21 replay"}
    assert overall(verdicts).verstat is Verstat.FAILED


def test_who_verified_a_call_before_it_was_diverted_verifies_it_again(
    operator: Operator, other: Operator, domain: Domain
) -> None:
    """The callee's domain sees the call, sends it on within the domain, and sees it again with a diversion more."""
    identities = chain(operator, other, 2)
    for count in (0, 1, 2):
        verdicts = domain.verify(call_to(CALLED[count], *identities[: count + 1]))
        assert steps(verdicts) == [""] * (count + 1)
    assert overall(domain.verify(call_to(CALLED[0], identities[0], call_id="c2"))).step == "E21 replay"


def test_of_tokens_before_a_diversion_only_a_full_memory_is_told(
    operator: Operator, other: Operator, domain: Domain
) -> None:
    """Another call may have used them, for who diverts has verified them. What cannot be told is refused."""
    identities = chain(operator, other, 1)
    assert steps(domain.verify(call_to(CALLED[0], identities[0], call_id="c0"))) == [""]
    assert steps(domain.verify(call_to(CALLED[1], *identities, call_id="c1"))) == ["", ""]
    full = replace(domain, replays=ReplayCache(1, 120))
    assert steps(full.verify(call_to(CALLED[1], *chain(operator, other, 1)))) == ["E21 replay memory", ""]


def test_one_token_alone_is_told_what_it_would_be_by_itself(
    operator: Operator, other: Operator, domain: Domain
) -> None:
    (verdict,) = domain.verify(call_to(CALLED[1], div(other, CALLED[0], CALLED[1])))
    assert (verdict.step, "is not there (RFC 8946 §4.2)" in verdict.reasondesc) == (DIVERTED, True)


def test_a_diversion_is_not_used_for_a_second_call(operator: Operator, other: Operator, domain: Domain) -> None:
    diversion = div(other, CALLED[0], CALLED[1])
    assert steps(domain.verify(call_to(CALLED[1], shaken(operator), diversion))) == ["", ""]
    again = domain.verify(call_to(CALLED[1], shaken(operator), diversion, call_id="c2"))
    assert steps(again) == ["E21 replay", "E21 replay"]


def test_without_the_ledger_nothing_passes(operator: Operator, other: Operator, domain: Domain) -> None:
    silent = VerificationFailed(Step.LEDGER, "the inquiry node does not answer")
    verdicts = domain.verify(call_to(CALLED[1], *chain(operator, other, 1)), ledger=silent)
    assert steps(verdicts) == ["E8 ledger", "E8 ledger"]


def test_the_claims_in_their_order(other: Operator) -> None:
    """The octets of RFC 8946 §3 and §8, with our numbers."""
    request = replace(
        other.request(dest=Destinations((CALLED[1],))), ppt="div", own={"div": Diverting(CALLED[0], "1.2.1")}
    )
    _, payload, _ = sign_call(request, other.credential, NOW_S).token.split(".")
    assert base64url.decode(payload).decode() == (
        '{"dest":{"tn":["442079460001"]},"div":{"hi":"1.2.1","tn":"442079460000"},'
        f'"iat":{NOW_S},"orig":{{"tn":"493023125001"}}}}'
    )


PAYLOAD = {"dest": {"tn": [CALLED[1]]}, "div": {"tn": CALLED[0]}, "iat": NOW_S, "orig": {"tn": CALLER}}


@pytest.mark.parametrize(
    "changes",
    [
        {"div": None},
        {"div": []},
        {"div": {}},
        {"div": {"tn": [CALLED[0]]}},
        {"div": {"tn": "+442079460000"}},
        {"div": {"uri": "sip:alice@b.example"}},
        {"div": {"tn": CALLED[0], "uri": "sip:alice@b.example"}},
        {"div": {"tn": CALLED[0], "hi": 1}},
        {"div": {"tn": CALLED[0], "hi": "1.2.1\n"}},
        {"div": {"tn": "1" * 33}},
        {"opt": "e30.e30.c2ln"},
        {"orig": {"uri": "sip:alice@b.example"}},
        {"dest": {}},
        {"iat": str(NOW_S)},
    ],
)
def test_claims_that_cannot_be_used(changes: dict[str, Any]) -> None:
    DIV.parse(json.dumps(PAYLOAD).encode())
    with pytest.raises(ClaimError):
        DIV.parse(json.dumps({**PAYLOAD, **changes}).encode())


@pytest.mark.parametrize("value", [None, [], {}, {"tn": 1}, {"tn": ["1"]}, {"uri": 1}, {"tn": "1", "uri": "tel:1"}])
def test_diverting_parties_that_cannot_be_signed(value: Any) -> None:
    assert read_div({"tn": CALLED[0]}) == Diverting(CALLED[0])
    with pytest.raises(MalformedError):
        read_div(value)


def test_members_of_div_that_are_not_known_are_let_be() -> None:
    claims = DIV.parse(json.dumps({**PAYLOAD, "div": {"tn": CALLED[0], "reason": "busy"}}).encode())
    assert claims.div == Diverting(CALLED[0])


def test_a_diversion_to_where_it_was(operator: Operator, other: Operator, domain: Domain) -> None:
    payload = json.dumps({**PAYLOAD, "dest": {"tn": [CALLED[0]]}}).encode()
    header = {"alg": "ES256", "ppt": "div", "typ": "passport", "x5u": other.credential.info}
    signed = signing_input_of(header, payload)
    token = f"{signed.decode()}.{base64url.encode(other.signer.sign(signed))}"
    identity = IdentityHeader(token, other.credential.info, "ES256", "div").serialize()
    assert steps(domain.verify(call_to(CALLED[0], shaken(operator), identity))) == ["", DIVERTED]
