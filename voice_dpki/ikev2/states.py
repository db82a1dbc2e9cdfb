"""The states of an IKE SA; one table holds every transition."""

from collections.abc import Mapping
from enum import StrEnum

from voice_dpki.errors import LocalError


class State(StrEnum):
    """State of an IKE SA. A Responder's SA begins half open, in AUTH, with IKE_SA_INIT already answered.

    An SA that was rekeyed is REPLACED until it is deleted; its successor begins in ESTABLISHED.
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
    """Input that moves an IKE SA from one state to another."""

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
    # The Initiator sends its refusal and waits for the answer. The Responder refuses in its answer.
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
"""States of a Responder's SA whose peer is not yet judged."""


def moved(state: State, move: Move) -> State:
    """Return the state after `move`; raises LocalError if the table has none."""
    try:
        return TRANSITIONS[state, move]
    except KeyError:
        raise LocalError(f"an IKE SA that is {state} cannot {move}") from None
