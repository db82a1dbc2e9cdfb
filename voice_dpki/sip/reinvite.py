"""INVITEs within a dialog: when one may begin, and how two that cross are resolved (RFC 3261 §14)."""

from dataclasses import dataclass
from typing import Final

from voice_dpki.effects import Random
from voice_dpki.sip.uas import RequestRefusedError

MAX_RETRY_AFTER_S: Final = 10
"""Largest Retry-After for an INVITE that arrives before the previous one is answered (§14.2)."""

_STEP_S: Final = 0.01
_OWNER_STEPS: Final = (210, 400)
_OTHER_STEPS: Final = (0, 200)
"""Waits after a 491, in steps of 10 ms: that of the side that made the Call-ID, and that of the other (§14.1)."""


@dataclass(slots=True)
class InviteProgress:
    """The INVITE transactions of one dialog that are in progress, seen from one end."""

    sent: bool = False
    """Whether an INVITE of ours has no final response yet."""
    received: bool = False
    """Whether an INVITE of the other end has no final response of ours yet."""
    unacknowledged: bool = False
    """Whether a 2xx of ours has no ACK yet."""
    offered: bool = False
    """Whether that 2xx holds our offer, which the ACK will answer (§13.2.1)."""
    updated: bool = False
    """Whether an UPDATE of the other end with an offer has no final response of ours yet (RFC 3311)."""

    @property
    def may_send(self) -> bool:
        """Whether we may begin an INVITE transaction (§14.1)."""
        return not (self.sent or self.received or self.unacknowledged or self.updated)

    def check_received(self, random: Random) -> None:
        """Refuse an INVITE that arrives at the wrong time; raises RequestRefusedError.

        An INVITE that crosses ours, or our unanswered offer, gets 491. One that arrives before the previous one is
        answered gets 500 with a random Retry-After (§14.2).
        """
        if self.sent or self.offered:
            raise RequestRefusedError(491)
        if self.received or self.updated:
            raise _too_early(random)

    def check_updated(self, random: Random, *, offers: bool, answered: bool) -> None:
        """Refuse an UPDATE that arrives at the wrong time (RFC 3311 §5.2); raises RequestRefusedError.

        `offers` tells whether it holds an offer, `answered` whether we have answered all earlier offers.
        """
        if offers and (self.sent or self.offered):
            raise RequestRefusedError(491)
        if self.updated or (offers and not answered):
            raise _too_early(random)


def _too_early(random: Random) -> RequestRefusedError:
    """Return the refusal of a request that arrives before the previous one is answered, with a random wait."""
    wait_s = random.token(1)[0] % (MAX_RETRY_AFTER_S + 1)
    return RequestRefusedError(500, (("Retry-After", str(wait_s)),))


def glare_wait_s(random: Random, *, owns_call_id: bool) -> float:
    """Return the random time to wait after a 491 before the retry, in seconds (§14.1).

    The two ends take it from ranges that do not overlap, so that their retries do not cross again.
    """
    least, most = _OWNER_STEPS if owns_call_id else _OTHER_STEPS
    steps = least + int.from_bytes(random.token(2), "big") % (most - least + 1)
    return round(steps * _STEP_S, 2)
