"""NTP's timestamps of 64 bits, which MIKEY and RTCP share (RFC 5905 §6)."""

from typing import Final

NTP_EPOCH_S: Final = 2_208_988_800
"""Seconds from 1900 to 1970."""

NTP_WRAP: Final = 1 << 64
"""Timestamps count modulo this; an era has 136 years."""


def ntp_time(now_s: float) -> int:
    """Convert Unix time to NTP's 64 bits, in units of 2**-32 s; the era is dropped."""
    return round((now_s + NTP_EPOCH_S) * (1 << 32)) % NTP_WRAP
