"""The four transaction state machines as tables (RFC 3261 §17, corrected by RFC 6026 §7).

Everything that changes a transaction's state is in this module. A pair of state and input that a table does not
list has no effect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal, TypeAlias


class State(Enum):
    """States of RFC 3261 §17, with Accepted of RFC 6026."""

    CALLING = auto()
    TRYING = auto()
    PROCEEDING = auto()
    ACCEPTED = auto()
    COMPLETED = auto()
    CONFIRMED = auto()
    TERMINATED = auto()


class Input(Enum):
    """What happens to a transaction: messages in, responses from the transaction user, timers, transport."""

    REQUEST = auto()
    """A retransmission of the request."""
    ACK = auto()
    PROVISIONAL = auto()
    """A 1xx response: received by a client, or sent by a server's transaction user."""
    SUCCESS = auto()
    """A 2xx response, likewise."""
    FAILURE = auto()
    """A response from 300 to 699, likewise."""
    RETRANSMIT = auto()
    """Timer A, E or G."""
    TIMEOUT = auto()
    """Timer B, F or H; for an INVITE client in Proceeding, no answer came after its CANCEL (RFC 3261 §9.1)."""
    LINGER = auto()
    """Timer D, I, J, K, L or M."""
    TRYING_DUE = auto()
    """200 ms without a response to an INVITE (RFC 3261 §17.2.1)."""
    GIVE_UP = auto()
    """Timer C of a proxy (RFC 3261 §16.6 step 11)."""
    BROKEN = auto()
    """The transport could not send."""
    OVERDUE = auto()
    """The transaction user has not answered in time: its task died, or has no timeout of its own."""


class Action(Enum):
    """What a step does besides changing the state."""

    SEND = auto()
    """Send the request or the latest response once more."""
    DELIVER = auto()
    """Pass the message to the transaction user."""
    ACKNOWLEDGE = auto()
    """Send the ACK for a response from 300 to 699."""
    SEND_TRYING = auto()
    """Send 100 unless the transaction user has answered."""
    PATIENCE = auto()
    """Start timer C, or restart it unless the response is 100; or send a CANCEL that waited for this response."""
    EXTEND = auto()
    """Restart the time within which the transaction user must answer."""
    FAIL = auto()
    """Answer 500 in the transaction user's place."""
    CANCEL = auto()
    TELL_TIMEOUT = auto()
    TELL_BROKEN = auto()


Step: TypeAlias = tuple[State, tuple[Action, ...]]
Table: TypeAlias = Mapping[tuple[State, Input], Step]


@dataclass(frozen=True, slots=True)
class Timers:
    """Timer values in seconds (RFC 3261 table 4)."""

    t1_s: float = 0.5
    t2_s: float = 4.0
    t4_s: float = 5.0
    d_s: float = 32.0
    c_s: float = 185.0
    """Timer C: an INVITE is cancelled after this time without a response; over three minutes (§16.6 step 11)."""
    ring_s: float = 900.0
    """Longest wait for the final response to an INVITE, however many provisional ones restart timer C."""
    answer_s: float = 300.0
    """A request that the transaction user has not answered in this time is ended, an INVITE with 500.

    It is longer than timer C and the wait for a cancelled request's response together.
    """
    trying_after_s: float = 0.2
    flow_s: float = 5.0
    """Timeout of a request on a telephone's flow without any response: its NAT may have dropped the flow."""

    @property
    def patience_s(self) -> float:
        """64*T1: timers B, F, H, J, L and M."""
        return 64 * self.t1_s


@dataclass(frozen=True, slots=True)
class Arm:
    """A timer that a state starts: the input that it gives, and its length, which names a field of `Timers`.

    Over TCP and TLS, some timers have the same length, some are not needed, and some fire at once.
    """

    input: Input
    wait: Literal["t1_s", "patience_s", "d_s", "t4_s", "answer_s"]
    over_tcp: Literal["same", "never", "at once"] = "same"


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """One state machine: its start, its steps, and the timers that entering a state starts.

    Entering a state that `entry` lists stops all timers first; entering any other state keeps them running.
    """

    name: str
    start: State
    table: Table
    entry: Mapping[State, tuple[Arm, ...]]
    caps_interval: bool = True
    """Whether retransmission intervals stop growing at T2; those of an INVITE do not (§17.1.1.2)."""


S, I, A = State, Input, Action  # noqa: E741 - the tables read better with short names

INVITE_CLIENT: Final = Machine(
    "INVITE client",
    S.CALLING,
    {
        (S.CALLING, I.RETRANSMIT): (S.CALLING, (A.SEND,)),
        (S.CALLING, I.TIMEOUT): (S.TERMINATED, (A.TELL_TIMEOUT,)),
        (S.CALLING, I.BROKEN): (S.TERMINATED, (A.TELL_BROKEN,)),
        (S.CALLING, I.PROVISIONAL): (S.PROCEEDING, (A.PATIENCE, A.DELIVER)),
        (S.CALLING, I.SUCCESS): (S.ACCEPTED, (A.DELIVER,)),
        (S.CALLING, I.FAILURE): (S.COMPLETED, (A.ACKNOWLEDGE, A.DELIVER)),
        (S.PROCEEDING, I.PROVISIONAL): (S.PROCEEDING, (A.PATIENCE, A.DELIVER)),
        (S.PROCEEDING, I.SUCCESS): (S.ACCEPTED, (A.DELIVER,)),
        (S.PROCEEDING, I.FAILURE): (S.COMPLETED, (A.ACKNOWLEDGE, A.DELIVER)),
        (S.PROCEEDING, I.GIVE_UP): (S.PROCEEDING, (A.CANCEL,)),
        (S.PROCEEDING, I.TIMEOUT): (S.TERMINATED, (A.TELL_TIMEOUT,)),
        (S.ACCEPTED, I.SUCCESS): (S.ACCEPTED, (A.DELIVER,)),
        (S.ACCEPTED, I.LINGER): (S.TERMINATED, ()),
        (S.COMPLETED, I.FAILURE): (S.COMPLETED, (A.ACKNOWLEDGE,)),
        (S.COMPLETED, I.BROKEN): (S.TERMINATED, (A.TELL_BROKEN,)),
        (S.COMPLETED, I.LINGER): (S.TERMINATED, ()),
    },
    {
        S.CALLING: (Arm(I.RETRANSMIT, "t1_s", "never"), Arm(I.TIMEOUT, "patience_s")),
        S.PROCEEDING: (),
        S.ACCEPTED: (Arm(I.LINGER, "patience_s"),),
        S.COMPLETED: (Arm(I.LINGER, "d_s", "at once"),),
    },
    caps_interval=False,
)

CLIENT: Final = Machine(
    "client",
    S.TRYING,
    {
        (S.TRYING, I.RETRANSMIT): (S.TRYING, (A.SEND,)),
        (S.TRYING, I.TIMEOUT): (S.TERMINATED, (A.TELL_TIMEOUT,)),
        (S.TRYING, I.BROKEN): (S.TERMINATED, (A.TELL_BROKEN,)),
        (S.TRYING, I.PROVISIONAL): (S.PROCEEDING, (A.DELIVER,)),
        (S.TRYING, I.SUCCESS): (S.COMPLETED, (A.DELIVER,)),
        (S.TRYING, I.FAILURE): (S.COMPLETED, (A.DELIVER,)),
        (S.PROCEEDING, I.RETRANSMIT): (S.PROCEEDING, (A.SEND,)),
        (S.PROCEEDING, I.TIMEOUT): (S.TERMINATED, (A.TELL_TIMEOUT,)),
        (S.PROCEEDING, I.BROKEN): (S.TERMINATED, (A.TELL_BROKEN,)),
        (S.PROCEEDING, I.PROVISIONAL): (S.PROCEEDING, (A.DELIVER,)),
        (S.PROCEEDING, I.SUCCESS): (S.COMPLETED, (A.DELIVER,)),
        (S.PROCEEDING, I.FAILURE): (S.COMPLETED, (A.DELIVER,)),
        (S.COMPLETED, I.LINGER): (S.TERMINATED, ()),
    },
    {
        S.TRYING: (Arm(I.RETRANSMIT, "t1_s", "never"), Arm(I.TIMEOUT, "patience_s")),
        S.COMPLETED: (Arm(I.LINGER, "t4_s", "at once"),),
    },
)

INVITE_SERVER: Final = Machine(
    "INVITE server",
    S.PROCEEDING,
    {
        (S.PROCEEDING, I.REQUEST): (S.PROCEEDING, (A.SEND,)),
        (S.PROCEEDING, I.TRYING_DUE): (S.PROCEEDING, (A.SEND_TRYING,)),
        (S.PROCEEDING, I.PROVISIONAL): (S.PROCEEDING, (A.SEND, A.EXTEND)),
        (S.PROCEEDING, I.OVERDUE): (S.PROCEEDING, (A.FAIL, A.TELL_TIMEOUT)),
        (S.PROCEEDING, I.SUCCESS): (S.ACCEPTED, (A.SEND,)),
        (S.PROCEEDING, I.FAILURE): (S.COMPLETED, (A.SEND,)),
        (S.PROCEEDING, I.BROKEN): (S.PROCEEDING, (A.TELL_BROKEN,)),
        (S.ACCEPTED, I.SUCCESS): (S.ACCEPTED, (A.SEND,)),
        (S.ACCEPTED, I.ACK): (S.ACCEPTED, (A.DELIVER,)),
        (S.ACCEPTED, I.BROKEN): (S.ACCEPTED, (A.TELL_BROKEN,)),
        (S.ACCEPTED, I.LINGER): (S.TERMINATED, ()),
        (S.COMPLETED, I.REQUEST): (S.COMPLETED, (A.SEND,)),
        (S.COMPLETED, I.RETRANSMIT): (S.COMPLETED, (A.SEND,)),
        (S.COMPLETED, I.ACK): (S.CONFIRMED, ()),
        (S.COMPLETED, I.TIMEOUT): (S.TERMINATED, (A.TELL_TIMEOUT,)),
        (S.COMPLETED, I.BROKEN): (S.COMPLETED, (A.TELL_BROKEN,)),
        (S.CONFIRMED, I.LINGER): (S.TERMINATED, ()),
    },
    {
        S.PROCEEDING: (Arm(I.OVERDUE, "answer_s"),),
        S.ACCEPTED: (Arm(I.LINGER, "patience_s"),),
        S.COMPLETED: (Arm(I.RETRANSMIT, "t1_s", "never"), Arm(I.TIMEOUT, "patience_s")),
        S.CONFIRMED: (Arm(I.LINGER, "t4_s", "at once"),),
    },
)

SERVER: Final = Machine(
    "server",
    S.TRYING,
    {
        (S.TRYING, I.PROVISIONAL): (S.PROCEEDING, (A.SEND,)),
        (S.TRYING, I.OVERDUE): (S.TERMINATED, (A.TELL_TIMEOUT,)),
        (S.PROCEEDING, I.OVERDUE): (S.TERMINATED, (A.TELL_TIMEOUT,)),
        (S.TRYING, I.SUCCESS): (S.COMPLETED, (A.SEND,)),
        (S.TRYING, I.FAILURE): (S.COMPLETED, (A.SEND,)),
        (S.PROCEEDING, I.REQUEST): (S.PROCEEDING, (A.SEND,)),
        (S.PROCEEDING, I.PROVISIONAL): (S.PROCEEDING, (A.SEND,)),
        (S.PROCEEDING, I.SUCCESS): (S.COMPLETED, (A.SEND,)),
        (S.PROCEEDING, I.FAILURE): (S.COMPLETED, (A.SEND,)),
        (S.PROCEEDING, I.BROKEN): (S.TERMINATED, (A.TELL_BROKEN,)),
        (S.COMPLETED, I.REQUEST): (S.COMPLETED, (A.SEND,)),
        (S.COMPLETED, I.BROKEN): (S.TERMINATED, (A.TELL_BROKEN,)),
        (S.COMPLETED, I.LINGER): (S.TERMINATED, ()),
    },
    {
        S.TRYING: (Arm(I.OVERDUE, "answer_s"),),
        S.COMPLETED: (Arm(I.LINGER, "patience_s", "at once"),),
    },
)
