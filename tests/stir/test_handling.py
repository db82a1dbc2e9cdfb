from dataclasses import replace
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from voice_dpki.names import Tn
from voice_dpki.stir.action import action_of
from voice_dpki.stir.call import NO_CALLER_NUMBER, Call, Source
from voice_dpki.stir.handling import Dialect, Handling, HandlingRule, Ppi, treatment_of
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.pattern import Pattern
from voice_dpki.stir.treatment import Act, Treatment
from voice_dpki.stir.unverified import NO_IDENTITY
from voice_dpki.stir.verdict import Step, Trust, Verdict, VerificationFailed, Verstat, verdict_of

CALL = Call(
    orig=Tn("493023125001"),
    dest=Destinations((Tn("442079460001"),)),
    time_s=1_790_000_000,
    identities=("aGVhZA.cGF5.c2ln;info=<https://a.example/x.der>;ppt=shaken",),
    source=Source(peer="proxy", trunk="t1", bypass="c"),
)
PROVEN = Verdict(Verstat.PASSED, signer="Operator A", attest="B", trust=Trust.LEDGER)
FORGED = verdict_of(VerificationFailed(Step.SIGNATURE, "it does not verify"), "Operator A")
REJECT = HandlingRule(name="no", act=Act.REJECT)


def coming(**source: str) -> Call:
    return replace(CALL, source=replace(CALL.source, **source))


MATCHING: dict[str, tuple[Any, Verdict, Call]] = {
    "peers": (frozenset({"proxy"}), PROVEN, coming(peer="other")),
    "trunks": (frozenset({"t1"}), PROVEN, coming(trunk="")),
    "bypasses": (frozenset({"c"}), PROVEN, coming(bypass="")),
    "signers": (frozenset({"Operator A"}), replace(PROVEN, signer="Operator B"), CALL),
    "trusts": (frozenset({Trust.LEDGER}), replace(PROVEN, trust=Trust.LIST), CALL),
    "verstats": (frozenset({Verstat.PASSED}), FORGED, CALL),
    "codes": (frozenset({None}), FORGED, CALL),
    "attests": (frozenset("AB"), replace(PROVEN, attest="C"), CALL),
    "out_of_band": (False, replace(PROVEN, retrieved="of a service"), CALL),
    "caller": (True, PROVEN, replace(CALL, orig=NO_CALLER_NUMBER)),
    "orig": ((Pattern.parse("4930*"),), PROVEN, replace(CALL, orig=Tn("4420"))),
    "dest": ((Pattern.parse("4420*"),), PROVEN, replace(CALL, dest=Destinations((Tn("442079460001"), Tn("33"))))),
}


@pytest.mark.parametrize("condition", MATCHING)
def test_each_condition_alone_decides(condition: str) -> None:
    value, verdict, call = MATCHING[condition]
    handling = Handling([HandlingRule(name="one", act=Act.PASS, **{condition: value}), REJECT])
    assert treatment_of(handling, [PROVEN], CALL).rule == "one"
    assert treatment_of(handling, [verdict], call).rule == "no"
    found = list(handling.considered(verdict, call))
    assert [(rule.name, why) for rule, why in found] == [("one", condition), ("no", "")]


def test_the_table_has_every_condition() -> None:
    assert set(MATCHING) == set(HandlingRule.__dataclass_fields__) - {"name", "act", "status", "monitor"}


def test_a_failed_token_s_attestation_counts_for_nothing() -> None:
    rule = HandlingRule(name="one", act=Act.PASS, attests=frozenset("A"))
    assert rule.mismatch(replace(FORGED, attest="A"), CALL) == "attests"


def test_without_a_rule_a_call_is_tagged() -> None:
    found = treatment_of(Handling([]), [FORGED], CALL)
    assert (found.act, found.rule, found.verstat, found.status) == (Act.TAG, "", "TN-Validation-Failed", 0)


@pytest.mark.parametrize(
    ("act", "verstat"), [(Act.PASS, ""), (Act.TAG, "TN-Validation-Failed"), (Act.WITHHOLD, "TN-Validation-Failed")]
)
def test_acts_that_let_the_call_go_on(act: Act, verstat: str) -> None:
    found = treatment_of(Handling([HandlingRule(name="one", act=act)]), [FORGED], CALL)
    assert (found.act, found.verstat, found.status, found.reasons, found.instead_of) == (act, verstat, 0, (), None)


@pytest.mark.parametrize(
    ("verdict", "status", "own", "text"),
    [
        (FORGED, 438, 0, "Invalid Identity Header"),
        (replace(FORGED, reasoncode=437, reasontext="Unsupported Credential"), 437, 0, "Unsupported Credential"),
        (NO_IDENTITY, 428, 0, "Use Identity Header"),
        (Verdict(Verstat.NONE), 438, 0, "Invalid Identity Header"),
        (FORGED, 608, 608, "Rejected"),
    ],
)
def test_a_rejection_has_the_verdict_s_code_or_the_rule_s(
    verdict: Verdict, status: int, own: int, text: str
) -> None:
    found = treatment_of(Handling([replace(REJECT, status=own)]), [verdict], CALL)
    assert (found.act, found.status, found.text, found.verstat) == (Act.REJECT, status, text, "")


REASON = 'STIR ;cause=438 ;text="Invalid Identity Header"'


@pytest.mark.parametrize(
    ("ppi", "reason"),
    [
        (Ppi.NONE, REASON),
        (Ppi.COMPACT, f'{REASON} ;ppi="..c2ln"'),
        (Ppi.FULL, f'{REASON} ;ppi="aGVhZA.cGF5.c2ln"'),
    ],
)
def test_a_reason_for_each_identity_that_failed(ppi: Ppi, reason: str) -> None:
    call = replace(CALL, identities=(CALL.identities[0], *CALL.identities, "x.y", "a.b+.c"))
    stale = verdict_of(VerificationFailed(Step.IAT, "it is old"))
    found = treatment_of(Handling([REJECT], ppi=ppi), [FORGED, Verdict(Verstat.NONE), stale, FORGED], call)
    assert found.reasons == (reason, 'STIR ;cause=403 ;text="Stale Date"', REASON)


def test_a_call_without_identity_has_a_reason() -> None:
    found = treatment_of(Handling([REJECT]), [NO_IDENTITY], replace(CALL, identities=()))
    assert found.reasons == ('STIR ;cause=428 ;text="Use Identity Header"',)


@pytest.mark.parametrize("act", [Act.REJECT, Act.WITHHOLD])
@pytest.mark.parametrize(
    "dest",
    [
        Destinations((Tn("112"),)),
        Destinations(uris=("urn:service:sos.fire",)),
        Destinations((Tn("4930"), Tn("911"))),
    ],
)
def test_emergency_calls_are_never_blocked(act: Act, dest: Destinations) -> None:
    handling = Handling([HandlingRule(name="no", act=act)])
    found = treatment_of(handling, [FORGED], replace(CALL, dest=dest))
    assert (found.act, found.instead_of, found.is_emergency) == (Act.TAG, act, True)
    assert found.verstat == "TN-Validation-Failed"
    found = treatment_of(handling, [FORGED], replace(CALL, dest=Destinations((Tn("1120"),))))
    assert (found.act, found.is_emergency) == (act, False)


@pytest.mark.parametrize("handling", [Handling([REJECT], monitor=True), Handling([replace(REJECT, monitor=True)])])
def test_rules_that_only_watch(handling: Handling) -> None:
    found = treatment_of(handling, [FORGED], CALL)
    assert (found.act, found.instead_of, found.status) == (Act.TAG, Act.REJECT, 438)
    assert found.reasons == (f'{REASON} ;ppi="..c2ln"',)


def test_verstat_is_spelled_as_the_peer_does() -> None:
    passed = {f"{Verstat.PASSED}": "passed", f"{Verstat.PASSED}-B": "passed-B"}
    handling = Handling([], dialects={"proxy": Dialect(passed)})
    assert treatment_of(handling, [PROVEN], CALL).verstat == "passed-B"
    assert treatment_of(handling, [replace(PROVEN, attest="A")], CALL).verstat == "passed"
    assert treatment_of(handling, [replace(FORGED, attest="B")], CALL).verstat == "TN-Validation-Failed"
    assert treatment_of(handling, [PROVEN], coming(peer="other")).verstat == "TN-Validation-Passed"


def test_what_an_answer_says_of_a_treatment() -> None:
    assert action_of(None) is UNSET
    watched = Treatment(Act.TAG, "r", 403, "Stale Date", ("STIR",), "x", Act.REJECT, is_emergency=True)
    action: Any = action_of(watched)
    assert (action.act, action.rule, action.status, action.text) == (Act.TAG, "r", 403, "Stale Date")
    assert (action.reasons, action.verstat, action.instead_of) == (("STIR",), "x", Act.REJECT)
    assert action.emergency
    assert msgspec.json.encode(action_of(Treatment(Act.PASS))) == b'{"act":"pass"}'
    plain: Any = action_of(replace(watched, instead_of=None, is_emergency=False))
    assert (plain.instead_of, plain.emergency) == (UNSET, False)


def test_no_number_is_one_however_it_was_made() -> None:
    handling = Handling([HandlingRule(name="one", act=Act.PASS, caller=False), REJECT])
    empty = Tn(str(bytes(1)[1:], "ascii"))
    assert treatment_of(handling, [PROVEN], replace(CALL, orig=empty)).rule == "one"
    assert treatment_of(handling, [PROVEN], CALL).rule == "no"


def test_a_verdict_on_one_of_several_identities_has_one_reason() -> None:
    call = replace(CALL, identities=CALL.identities * 2)
    assert len(treatment_of(Handling([REJECT]), [FORGED], call).reasons) == 1


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "Stale Date"),
        (428, "Use Identity Header"),
        (436, "Bad Identity Info"),
        (437, "Unsupported Credential"),
        (438, "Invalid Identity Header"),
        (603, "Decline"),
        (607, "Unwanted"),
        (608, "Rejected"),
        (604, ""),
    ],
)
def test_a_rejection_has_the_registered_phrase(status: int, text: str) -> None:
    """RFC 8224 §6.2.2, RFC 3261 §21.6.2, RFC 8197, RFC 8688."""
    found = treatment_of(Handling([replace(REJECT, status=status)]), [FORGED], CALL)
    assert (found.status, found.text) == (status, text)
