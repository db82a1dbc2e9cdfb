"""Parameters that a federation chooses for its ledger at genesis: delays, windows and quotas. They never change.

SHA-256("voice-dpki/parameters/v1" ‖ 00) -> ["parameters", each of the fields below, in their order]

docs/spec/encodings.md#leaves specifies it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from functools import lru_cache

from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.view import StateView

PARAMETERS_KEY = hashlib.sha256(b"voice-dpki/parameters/v1\0").digest()

DAY_S = 86_400
HOUR_S = 3600
_MAX = 1 << 53
"""Numbers stay below this, so that JSON carries them exactly."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """A ledger's parameters. Raises MalformedError for a number that is not whole or is out of bounds."""

    delay_s: int = DAY_S
    """Seconds between the quorum for a change of members and its effect, so that everyone can see it coming."""
    delay_blocks: int = 1
    """Blocks that must pass as well as `delay_s` before such a change takes effect; 0 counts as 1."""
    voting_s: int = 30 * DAY_S
    """Longest time for which a proposal can be open, in seconds."""
    proposals_per_operator: int = 8
    """Proposals of one operator on the ledger at a time."""
    retention_s: int = 30 * DAY_S
    """Seconds for which a record stays provable as a leaf after the day on which the certificate expires."""
    certificates_per_hour: int = 1_000_000
    """Certificates that one member may have recorded in a clock hour."""
    certificates_per_member: int = 50_000_000
    """Certificates of one member on the ledger at a time, including expired ones that are not yet pruned."""

    def __post_init__(self) -> None:
        if any(type(number) is not int or not 0 <= number < _MAX for number in astuple(self)):
            raise MalformedError("parameters: whole numbers from 0")
        if not (self.voting_s and self.proposals_per_operator):
            raise MalformedError("parameters: without proposals and time to vote on them nothing could change")

    @classmethod
    def of(cls, given: Mapping[str, int]) -> "Parameters":
        """Make parameters from those given by name, with defaults for the others; raises MalformedError."""
        unknown = given.keys() - {each.name for each in fields(cls)}
        if unknown:
            raise MalformedError(f"parameters: there is none called {min(unknown)}")
        return cls(**given)

    def serialize(self) -> bytes:
        """Encode as the leaf's value."""
        return cbor.encode(["parameters", *astuple(self)])


DEFAULT_PARAMETERS = Parameters()


def parameters_of(view: StateView) -> Parameters:
    """Return the ledger's parameters."""
    data = view.leaf(PARAMETERS_KEY)
    if data is None:
        raise LocalError("the ledger's state is damaged: it has no parameters")
    return parse_parameters(data)


@lru_cache(8)
def parse_parameters(data: bytes) -> Parameters:
    """Parse the value of the leaf; raises LocalError if it holds no parameters."""
    match cbor.decode(data, "parameters"):
        case ["parameters", *numbers]:
            return Parameters(*numbers)  # type: ignore[arg-type]  # checked by the class
    raise LocalError("the ledger's state is damaged: its parameters are not such")


PARAMETERS_LEAF = Leaf(kind="parameters", key=lambda: PARAMETERS_KEY, parse=parse_parameters)
