"""The tables against the figures of RFC 3261 §17 and RFC 6026 §7: what must hold of every machine."""

import pytest

from voice_dpki.sip.machines import CLIENT, INVITE_CLIENT, INVITE_SERVER, SERVER, Action, Input, Machine, State

MACHINES = [INVITE_CLIENT, CLIENT, INVITE_SERVER, SERVER]


def ends(machine: Machine, state: State) -> bool:
    """Whether a transaction in `state` ends by itself, with no message from anybody."""
    seen = set()
    while state not in seen:
        seen.add(state)
        timers = [arm.input for arm in machine.entry.get(state, ())]
        steps = [machine.table[(state, timer)][0] for timer in timers if (state, timer) in machine.table]
        if State.TERMINATED in steps:
            return True
    return False


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_every_state_is_reached_and_none_follows_the_last(machine: Machine) -> None:
    reached = {machine.start} | {after for after, _ in machine.table.values()}
    assert {state for state, _ in machine.table} | {State.TERMINATED} == reached
    assert not [state for state, _ in machine.table if state is State.TERMINATED]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_every_timer_that_a_state_starts_does_something_there(machine: Machine) -> None:
    for state, arms in machine.entry.items():
        for arm in arms:
            assert (state, arm.input) in machine.table


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_after_a_final_response_a_transaction_ends_by_itself(machine: Machine) -> None:
    for state in (State.ACCEPTED, State.COMPLETED, State.CONFIRMED):
        if any(at is state for at, _ in machine.table):
            assert ends(machine, state)


def test_a_success_is_never_acknowledged_by_the_transaction() -> None:
    for (_, what), (_, actions) in INVITE_CLIENT.table.items():
        assert (Action.ACKNOWLEDGE in actions) == (what is Input.FAILURE)


def test_an_accepted_invite_absorbs_its_retransmissions() -> None:
    assert (State.ACCEPTED, Input.REQUEST) not in INVITE_SERVER.table
    assert INVITE_SERVER.table[(State.ACCEPTED, Input.ACK)] == (State.ACCEPTED, (Action.DELIVER,))


def test_a_transport_error_never_ends_an_invite_server(  # RFC 6026 §7.1
) -> None:
    for (_, what), (after, _) in INVITE_SERVER.table.items():
        assert what is not Input.BROKEN or after is not State.TERMINATED
