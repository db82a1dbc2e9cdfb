"""The verdict on a call, from those on its Identity header fields."""

import pytest

from voice_dpki.stir.verdict import Step, Verdict, Verstat, overall

PROVEN = Verdict(Verstat.PASSED)
UNKNOWN_SIGNER = Verdict(Verstat.NONE, 436)
FORGED = Verdict(Verstat.FAILED, 438)
STALE = Verdict(Verstat.NONE, 403)
SAYS_NOTHING = Verdict(Verstat.NONE)


def test_success_is_a_proven_caller_and_not_the_absence_of_a_failure() -> None:
    assert [verdict.ok for verdict in (PROVEN, FORGED, SAYS_NOTHING)] == [True, False, False]


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        ([PROVEN], PROVEN),
        ([FORGED, PROVEN], PROVEN),
        ([UNKNOWN_SIGNER, PROVEN], PROVEN),
        ([UNKNOWN_SIGNER, FORGED], FORGED),
        ([UNKNOWN_SIGNER, SAYS_NOTHING], SAYS_NOTHING),
        ([FORGED, SAYS_NOTHING], FORGED),
        ([SAYS_NOTHING, FORGED], FORGED),
        ([FORGED, STALE], FORGED),
        ([STALE, FORGED], STALE),
        ([UNKNOWN_SIGNER, UNKNOWN_SIGNER], UNKNOWN_SIGNER),
    ],
)
def test_one_that_proves_the_caller_is_enough_and_436_is_told_only_if_all_have_it(
    verdicts: list[Verdict], found: Verdict
) -> None:
    assert overall(verdicts) is found


CODES = {
    403: "E3 time,E15 iat",  # Stale Date
    436: "E6 info,E7 info URL,E8 ledger,E8 certificate,E9 header claims,E10 x5u",  # Bad Identity-Info
    437: "E11 typ,E12 alg,E17 certificate,E17 authority,E17 constraints",  # Unsupported Credential
    438: (  # Invalid Identity Header
        "E4 form,E5 ppt parameter,E9 crit,E13 ppt,E14 claims,E16 numbers,E16 diversion,E16 priority,E18 signature,"
        "E16 rich call data,"
        "E18 compact form,E19 attest,E20 key-mgmt,E21 replay,E21 replay memory,E21 repeated,E22 SDP"
    ),
}
"""RFC 8224 §6.2.2: the code with which each step fails."""

FAILED = {
    "E17 certificate",
    "E17 authority",
    "E17 constraints",
    "E18 signature",
    "E20 key-mgmt",
    "E21 replay",
    "E22 SDP",
}
"""The steps whose failure shows that the call is not what it says, and not only that nothing is known."""


def test_each_step_fails_with_its_code_of_rfc_8224() -> None:
    expected = {label: code for code, labels in CODES.items() for label in labels.split(",")}
    assert {step.label: step.reasoncode for step in Step} == expected
    assert {step.label for step in Step if step.verstat is Verstat.FAILED} == FAILED
    assert {step.verstat for step in Step} == {Verstat.FAILED, Verstat.NONE}


def test_a_verdict_is_about_the_caller_unless_it_says_otherwise() -> None:
    beside = Verdict(Verstat.NONE, about_caller=False)
    assert SAYS_NOTHING.about_caller
    assert overall([beside, UNKNOWN_SIGNER]) is UNKNOWN_SIGNER
