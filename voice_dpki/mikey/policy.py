"""SRTP profiles and the policies that stand for them in MIKEY (RFC 3830 §6.10.1, RFC 7714 §15)."""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.payloads import SecurityPolicy
from voice_dpki.mikey.registry import SRTP, SrtpParameter

_DEFAULTS: dict[int, int] = {
    SrtpParameter.ENCRYPTION_ALGORITHM: 1,
    SrtpParameter.ENCRYPTION_KEY_LENGTH: 16,
    SrtpParameter.AUTHENTICATION_ALGORITHM: 1,
    SrtpParameter.AUTHENTICATION_KEY_LENGTH: 20,
    SrtpParameter.PRF: 0,
    SrtpParameter.KEY_DERIVATION_RATE: 0,
    SrtpParameter.SRTP_ENCRYPTION: 1,
    SrtpParameter.SRTCP_ENCRYPTION: 1,
    SrtpParameter.FEC_ORDER: 0,
    SrtpParameter.SRTP_AUTHENTICATION: 1,
    SrtpParameter.TAG_LENGTH: 10,
    SrtpParameter.PREFIX_LENGTH: 0,
}
"""SRTP's defaults for parameters that a policy leaves out (RFC 3711 §8.2); the salt length's is the transform's."""


_OWN = frozenset({SrtpParameter.SALT_LENGTH})
"""Parameters whose default is the transform's own."""


class SrtpProfile(StrEnum):
    """SRTP protection profiles that this project offers and accepts."""

    AES_CM_128_HMAC_SHA1_80 = "AES_CM_128_HMAC_SHA1_80"
    AEAD_AES_128_GCM = "AEAD_AES_128_GCM"

    @property
    def key_bytes(self) -> int:
        """Length of the master key."""
        return _TRANSFORMS[self].key_bytes

    @property
    def salt_bytes(self) -> int:
        """Length of the master salt."""
        return _TRANSFORMS[self].salt_bytes


_HMAC = frozenset(
    {
        SrtpParameter.AUTHENTICATION_ALGORITHM,
        SrtpParameter.AUTHENTICATION_KEY_LENGTH,
        SrtpParameter.SRTP_AUTHENTICATION,
        SrtpParameter.TAG_LENGTH,
    }
)


@dataclass(frozen=True, slots=True)
class _Transform:
    """Sizes of a profile, the parameters that a policy for it lists, and those that mean nothing to it."""

    key_bytes: int
    salt_bytes: int
    parameters: dict[int, int]
    ignored: frozenset[int] = frozenset()

    def means(self, given: dict[int, int]) -> bool:
        """Tell whether a policy with the parameters `given` stands for this transform."""
        expected, meant = _DEFAULTS | self.parameters, _DEFAULTS | given
        # The transform's own salt length is the default: SRTP's 14 bytes would exclude AES-GCM, which has 12.
        if SrtpParameter.SALT_LENGTH not in given:
            meant[SrtpParameter.SALT_LENGTH] = self.salt_bytes
        return all(meant.get(n) == expected.get(n) for n in (meant.keys() | expected.keys()) - self.ignored)


_TRANSFORMS = {
    SrtpProfile.AES_CM_128_HMAC_SHA1_80: _Transform(
        key_bytes=16,
        salt_bytes=14,
        parameters={
            SrtpParameter.ENCRYPTION_ALGORITHM: 1,
            SrtpParameter.ENCRYPTION_KEY_LENGTH: 16,
            SrtpParameter.AUTHENTICATION_ALGORITHM: 1,
            SrtpParameter.AUTHENTICATION_KEY_LENGTH: 20,
            SrtpParameter.SALT_LENGTH: 14,
            SrtpParameter.PRF: 0,
            SrtpParameter.SRTP_ENCRYPTION: 1,
            SrtpParameter.SRTCP_ENCRYPTION: 1,
            SrtpParameter.SRTP_AUTHENTICATION: 1,
            SrtpParameter.TAG_LENGTH: 10,
        },
    ),
    # The AEAD's own tag authenticates, so the parameters of HMAC are left out and mean nothing (RFC 7714 §15).
    SrtpProfile.AEAD_AES_128_GCM: _Transform(
        key_bytes=16,
        salt_bytes=12,
        parameters={
            SrtpParameter.ENCRYPTION_ALGORITHM: 6,
            SrtpParameter.ENCRYPTION_KEY_LENGTH: 16,
            SrtpParameter.SALT_LENGTH: 12,
            SrtpParameter.PRF: 0,
            SrtpParameter.SRTP_ENCRYPTION: 1,
            SrtpParameter.SRTCP_ENCRYPTION: 1,
            SrtpParameter.AEAD_TAG_LENGTH: 16,
        },
        ignored=_HMAC,
    ),
}


def policy_for(profile: SrtpProfile, policy_no: int = 0) -> SecurityPolicy:
    """Write the policy of `profile`; every value fits one byte."""
    parameters = _TRANSFORMS[profile].parameters.items()
    return SecurityPolicy(policy_no, SRTP, tuple((int(number), bytes([value])) for number, value in parameters))


def short_policy_for(profile: SrtpProfile) -> SecurityPolicy:
    """Write the policy of `profile` without the parameters that have SRTP's defaults, for small offers."""
    parameters = _TRANSFORMS[profile].parameters.items()
    told = [(int(n), bytes([value])) for n, value in parameters if value != _DEFAULTS.get(n) and n not in _OWN]
    return SecurityPolicy(0, SRTP, tuple(told))


@lru_cache(maxsize=64)
def profile_of(policy: SecurityPolicy) -> SrtpProfile:
    """Return the profile that a received policy stands for, with SRTP's defaults for what it leaves out.

    Raises MikeyError if we support no such profile, or if a parameter is given twice. The same few policies occur
    in call after call, so their meaning is cached.
    """
    if policy.prot_type != SRTP:
        raise MikeyError(Failure.POLICY, f"security protocol {policy.prot_type} is not SRTP")
    given = {number: int.from_bytes(value, "big") for number, value in policy.parameters}
    if len(given) != len(policy.parameters):
        raise MikeyError(Failure.POLICY, "the SRTP policy gives a parameter twice")
    for profile, transform in _TRANSFORMS.items():
        if transform.means(given):
            return profile
    raise MikeyError(Failure.POLICY, "the SRTP policy is none of " + ", ".join(SrtpProfile))
