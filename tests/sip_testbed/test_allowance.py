"""How often one side of a call may have it changed."""

import pytest

from sip_testbed import allowance as module
from sip_testbed.allowance import CHANGE_S, MAX_CHANGES, Allowance, TooOftenError
from sip_testbed.session import ChangeRefusedError
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import Begin
from tests.sip_testbed.test_session import begin as begin  # a fixture
from voice_dpki.mikey.replay import MAX_REPLAY_ENTRIES, MAX_SKEW_S, SET_S


def taken(allowance: Allowance, now_s: float) -> bool:
    try:
        allowance.take(now_s)
    except TooOftenError:
        return False
    return True


def test_a_side_that_has_asked_for_all_gets_another_one_now_and_then() -> None:
    allowance = Allowance()
    assert [taken(allowance, 100.0) for _ in range(MAX_CHANGES + 2)] == [True] * MAX_CHANGES + [False] * 2
    at_s = [100 + CHANGE_S * part for part in (0.5, 0.9, 1.0, 1.5, 2.0, 2.1)]
    assert [taken(allowance, now_s) for now_s in at_s] == [False, False, True, False, True, False]


def test_a_quiet_side_saves_no_more_than_it_has_at_first() -> None:
    allowance = Allowance()
    for now_s in (-1e9, 1e9):
        assert sum(taken(allowance, now_s) for _ in range(2 * MAX_CHANGES)) == MAX_CHANGES


def test_who_asks_again_when_it_is_told_to_is_served() -> None:
    allowance, now_s = Allowance(), 5.25
    for _ in range(MAX_CHANGES):
        allowance.take(now_s)
    for _ in range(3):
        with pytest.raises(TooOftenError) as caught:
            allowance.take(now_s)
        ((name, value),) = caught.value.headers
        assert name == "Retry-After"
        now_s += int(value)
        allowance.take(now_s)


def test_one_call_takes_few_of_the_places_among_the_replays() -> None:
    """A message is remembered for twice the skew at most, and for a step of the clock."""
    allowance = Allowance()
    kept_s = 2 * MAX_SKEW_S + SET_S
    assert sum(taken(allowance, float(now_s)) for now_s in range(int(kept_s))) < MAX_REPLAY_ENTRIES / 50


async def test_a_telephone_answers_so_many_new_keys_and_the_call_goes_on(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHANGE_S", 3600.0)
    talk = await begin()
    await talk.flows("caller", "callee")
    for _ in range(MAX_CHANGES):
        await talk.caller.rekey()
    keys = talk.callee._now.own_keys
    with pytest.raises(ChangeRefusedError, match=r"\(rekey\) was refused: 500 "):
        await talk.caller.rekey()
    assert talk.callee._now.own_keys == keys
    await talk.caller.hold()
    await talk.callee.rekey()
    await talk.caller.resume()
    await talk.flows("caller", "callee")
    assert talk.callee._media.statistics().unauthentic == 0
