"""The verdict on a call, from those on its Identity header fields."""

import pytest

from voice_dpki.stir.verdict import Verdict, Verstat, overall

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
