"""Profiles of the verifier: a country's requirements for an Identity beyond RFC 8224, and its codes.

    atis   RFC 8224 and ATIS-1000082, whose codes the steps have (`voice_dpki.stir.verdict`)
    man    France's mechanism of trust (MAN), the verifier's table of its operating procedure, version 1.7, p. 59

MAN's table requires the parameters alg and ppt, which are optional in RFC 8224, and admits no others besides info.
It knows SHAKEN alone, and compares the caller with From before P-Asserted-Identity.
"""

from enum import StrEnum


class Profile(StrEnum):
    """The rules by which an Identity is read."""

    ATIS = "atis"
    MAN = "man"

    @property
    def needs_parameters(self) -> bool:
        """Whether an Identity must have the parameters info, alg and ppt, and no others."""
        return self is Profile.MAN

    @property
    def knows_shaken_alone(self) -> bool:
        """Whether all other types of PASSporT are unknown."""
        return self is Profile.MAN

    @property
    def from_first(self) -> bool:
        """Whether From names the caller before P-Asserted-Identity does."""
        return self is Profile.MAN
