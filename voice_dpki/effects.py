"""What a core may not do by itself, as arguments: read a clock, draw random bytes, sign.

Cores take these as parameters, so that a recorded run replays byte for byte. `SystemClock` and `SystemRandom`
are what the services pass in.
"""

import secrets  # noqa: TID251 (the one place where randomness enters)
import time  # noqa: TID251 (the one place where time enters)
from typing import Protocol


class Clock(Protocol):
    """The two clocks: instants that others compare are of the wall clock, intervals of the monotonic one."""

    def now_s(self) -> float:
        """Seconds since 1970-01-01T00:00:00Z, leap seconds not counted; it may be set at any time."""
        ...

    def steady_s(self) -> float:
        """Seconds since some moment, sleep of the machine included; nobody can set it."""
        ...


class Random(Protocol):
    """Source of unpredictable bytes."""

    def token(self, size: int) -> bytes:
        """Return `size` fresh bytes, fit for keys."""
        ...


class Signer(Protocol):
    """A private key that may live elsewhere (file, PKCS#11)."""

    @property
    def algorithm(self) -> str:
        """JOSE name of what `sign` computes: "ES256" or "PS256"."""
        ...

    @property
    def public_key_der(self) -> bytes:
        """DER SubjectPublicKeyInfo of the key."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign `data` with SHA-256.

        ES256 gives the 64 bytes r ‖ s of RFC 7518 §3.4; PS256 gives RSASSA-PSS with a salt of 32 bytes
        (RFC 7518 §3.5).
        """
        ...


_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux's CLOCK_MONOTONIC stands still while the machine sleeps: what was fresh before would be so after."""


class SystemClock:
    """The operating system's clocks."""

    def now_s(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def steady_s(self) -> float:
        """Seconds since the machine was started."""
        return time.clock_gettime(_STEADY)


class SystemRandom:
    """The operating system's random generator."""

    def token(self, size: int) -> bytes:
        """Return `size` bytes from the kernel."""
        return secrets.token_bytes(size)
