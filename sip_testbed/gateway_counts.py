"""What the gateway counts: its calls by their ends, and packets passed on or dropped."""

from enum import StrEnum

from voice_dpki.media.relay import Unrelayed
from voice_dpki.metrics import counters


class Way(StrEnum):
    """Which side called."""

    IN = "in"
    """The domain."""
    OUT = "out"
    """The telephone."""


class End(StrEnum):
    """How a call ended."""

    GOOD = "hung-up"
    NOT_ANSWERED = "not-answered"
    REFUSED = "refused"
    """We refused it: keys or media of one side were not acceptable."""
    BUSY = "full"
    SILENT = "silent"


class Unchanged(StrEnum):
    """Why a change within a call is refused, or does not come about."""

    UNACCEPTABLE = "unacceptable"
    """We refused its offer, by the same rules as offers of calls."""
    DECLINED = "declined"
    """The other side refused it."""
    PENDING = "pending"
    """Another one is under way, or the media of the telephone's side are not keyed yet."""
    TOO_OFTEN = "too-often"
    TIMED_OUT = "timed-out"
    """It was not done in time."""
    GIVEN_UP = "given-up"
    """Its own side cancelled it, ended the call or did not acknowledge our answer."""


CALLS = counters("gateway_calls", "Calls through the gateway, by who called and how they ended.", way=Way, end=End)
PACKETS = counters("gateway_packets", "RTP and RTCP packets passed on, by the side.", to=("inside", "outside"))
DROPPED = counters("gateway_dropped", "Authentic packets that were not passed on, by reason.", reason=Unrelayed)

UNCHANGED = counters(
    "gateway_changes_refused", "Changes of calls that did not come about, by reason.", reason=Unchanged
)


class Counts:
    """Counts the packets of all calls."""

    def relayed(self, to: str) -> None:
        """Count a packet that was passed on."""
        PACKETS.labels(to).inc()

    def dropped(self, why: str) -> None:
        """Count an authentic packet that was not passed on."""
        DROPPED.labels(why).inc()
