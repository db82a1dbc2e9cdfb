"""Effects that cores take as arguments: reading a clock, drawing random bytes, signing.

With them as parameters, a recorded run replays byte for byte. Services pass in `SystemClock` and `SystemRandom`.
"""

import secrets  # noqa: TID251 (the one place where randomness enters)
import time  # noqa: TID251 (the one place where time enters)
from typing import Protocol


class Clock(Protocol):
    """The wall clock, for times that others compare, and the monotonic clock, for intervals."""

    def now_s(self) -> float:
        """Return the wall clock's seconds since 1970-01-01T00:00:00Z, without leap seconds.

        The wall clock may be set at any time.
        """
        ...

    def steady_s(self) -> float:
        """Return the monotonic clock's seconds, including time that the machine sleeps.

        The starting point is arbitrary. Nobody can set this clock.
        """
        ...


class Random(Protocol):
    """A source of unpredictable bytes."""

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

        ES256 gives the 64 bytes r ‖ s of RFC 7518 §3.4. PS256 gives RSASSA-PSS with a salt of 32 bytes
        (RFC 7518 §3.5). A key that is elsewhere may be out of reach: that raises LocalError.
        """
        ...


class Decrypter(Protocol):
    """A private RSA key that opens what others encrypted to it, and may live elsewhere (file, PKCS#11)."""

    @property
    def public_key_der(self) -> bytes:
        """DER SubjectPublicKeyInfo of the key."""
        ...

    def decrypt(self, algorithm: str, data: bytes) -> bytes:
        """Decrypt `data`, by "RSA1_5" or "RSA-OAEP-256" (RFC 7518 §4.2, §4.3); raises PeerError if it cannot.

        For RSA1_5 it may return random bytes instead.
        """
        ...


_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""CLOCK_MONOTONIC stops on Linux while the machine sleeps, so data that was fresh before would look fresh after."""


class SystemClock:
    """The operating system's clocks."""

    def now_s(self) -> float:
        """Return the seconds since the Unix epoch."""
        return time.time()

    def steady_s(self) -> float:
        """Return the seconds since the machine was started."""
        return time.clock_gettime(_STEADY)


class SystemRandom:
    """The operating system's random generator."""

    def token(self, size: int) -> bytes:
        """Return `size` bytes from the kernel."""
        return secrets.token_bytes(size)
