"""The states of an IKE SA: everything that moves one is in this table."""

from collections.abc import Mapping
from enum import StrEnum

from voice_dpki.errors import LocalError


class State(StrEnum):
    """Where an IKE SA stands. The Responder begins at AUTH: it has answered IKE_SA_INIT, the SA is half open.

    An SA that was rekeyed is REPLACED until it is deleted; the one that replaces it begins ESTABLISHED.
    """

    IDLE = "idle"
    INIT = "init"
    AUTH = "auth"
    JUDGING = "judging"
    ESTABLISHED = "established"
    REPLACED = "replaced"
    DELETING = "deleting"
    CLOSED = "closed"


class Move(StrEnum):
    """What moves it."""

    START = "start"
    KEYED = "keyed"
    AUTHENTICATED = "authenticated"
    TRUSTED = "trusted"
    REFUSED = "refused"
    REPLACE = "replace"
    DELETE = "delete"
    CLOSE = "close"


TRANSITIONS: Mapping[tuple[State, Move], State] = {
    (State.IDLE, Move.START): State.INIT,
    (State.INIT, Move.KEYED): State.AUTH,
    (State.AUTH, Move.AUTHENTICATED): State.JUDGING,
    (State.JUDGING, Move.TRUSTED): State.ESTABLISHED,
    # The Initiator tells a peer that it refuses, and waits for the answer; the Responder's answer is its refusal.
    (State.JUDGING, Move.REFUSED): State.DELETING,
    (State.ESTABLISHED, Move.REPLACE): State.REPLACED,
    (State.ESTABLISHED, Move.DELETE): State.DELETING,
    (State.REPLACED, Move.DELETE): State.DELETING,
    (State.IDLE, Move.CLOSE): State.CLOSED,
    (State.INIT, Move.CLOSE): State.CLOSED,
    (State.AUTH, Move.CLOSE): State.CLOSED,
    (State.JUDGING, Move.CLOSE): State.CLOSED,
    (State.ESTABLISHED, Move.CLOSE): State.CLOSED,
    (State.REPLACED, Move.CLOSE): State.CLOSED,
    (State.DELETING, Move.CLOSE): State.CLOSED,
}

HALF_OPEN = frozenset({State.AUTH, State.JUDGING})
"""States in which a Responder holds an SA for a peer that nobody has judged."""


def moved(state: State, move: Move) -> State:
    """Return the state after `move`; raises LocalError where the table has none."""
    try:
        return TRANSITIONS[state, move]
    except KeyError:
        raise LocalError(f"an IKE SA that is {state} cannot {move}") from None
