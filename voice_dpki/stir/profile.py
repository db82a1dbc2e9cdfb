"""Profiles of the verifier: what the rules of a country demand of an Identity beyond RFC 8224, and its codes.

    atis   RFC 8224 and ATIS-1000082, whose codes the steps have (`voice_dpki.stir.verdict`)
    man    France's mechanism of trust (MAN), the verifier's table of its operating procedure, version 1.7, p. 59

MAN's table asks for the parameters alg and ppt, to which RFC 8224 gives defaults, admits no others, knows SHAKEN
alone, and compares the caller with From before P-Asserted-Identity.
"""

from enum import StrEnum


class Profile(StrEnum):
    """By whose rules an Identity is read."""

    ATIS = "atis"
    MAN = "man"

    @property
    def needs_parameters(self) -> bool:
        """Whether an Identity has the parameters info, alg and ppt, and no others."""
        return self is Profile.MAN

    @property
    def knows_shaken_alone(self) -> bool:
        """Whether all other types of PASSporT are unknown."""
        return self is Profile.MAN

    @property
    def from_first(self) -> bool:
        """Whether From names the caller before P-Asserted-Identity does."""
        return self is Profile.MAN
