"""What people are told of faults that some rules know; the table is held by `tests/verify_server/test_codes.py`."""

import pytest

from voice_dpki.stir.examine import Policy
from voice_dpki.stir.explain import Finding, explain_identity
from voice_dpki.stir.kinds import Kinds
from voice_dpki.stir.profile import Profile
from voice_dpki.stir.shaken import SHAKEN

from .cases import FAULTS
from .conftest import NOW_S, Operator


@pytest.mark.parametrize("what", ["the Identity has no alg", "the Identity has another parameter"])
def test_people_are_told_why(operator: Operator, what: str) -> None:
    call = FAULTS[what](operator).call
    policy = Policy(profile=Profile.MAN, kinds=Kinds(SHAKEN))
    found = explain_identity(call, call.identities[0], policy, NOW_S)
    assert len([each for each in found.results if each.finding is Finding.FAILED]) == 1
