"""The treatment of a call by the verdict on its caller, as a value; `voice_dpki.stir.handling` has the rules."""

from dataclasses import dataclass
from enum import StrEnum


class Act(StrEnum):
    """What the proxy is to do."""

    PASS = "pass"  # noqa: S105 - no password
    """The call goes on without a verstat: the callee is told nothing."""
    TAG = "tag"
    """The call goes on with its verstat."""
    WITHHOLD = "withhold"
    """The call goes on, and the callee is not shown the caller's number."""
    REJECT = "reject"
    """The call is refused with `status`."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """The treatment of one call, and the reasons for it."""

    act: Act
    rule: str = ""
    """The rule that decided; "" if none matched."""
    status: int = 0
    """The SIP status that refuses the call, or would have refused it; 0 if no rule refuses."""
    text: str = ""
    """The reason phrase of `status`."""
    reasons: tuple[str, ...] = ()
    """Values of Reason, one for each Identity that failed (RFC 9410)."""
    verstat: str = ""
    """The verstat as the peer spells it; "" if the callee is told none."""
    instead_of: Act | None = None
    """The rule's act, where `act` differs: the call is an emergency call, or the rules only observe."""
    is_emergency: bool = False
