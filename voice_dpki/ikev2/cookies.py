"""Cookies against floods of IKE_SA_INIT from forged addresses (RFC 7296 §2.6).

cookie = number of the secret(1) ‖ HMAC-SHA-256(secret, Ni ‖ IPi ‖ SPIi)
"""

import hmac
import ipaddress

from voice_dpki.effects import Random
from voice_dpki.ikev2.crypto import prf

SECRET_BYTES = 32
SECRET_S = 60.0
"""Time in seconds for which a secret makes new cookies; it verifies them for the same time after that."""


class Cookies:
    """Maker and checker of cookies, which keeps no state for any peer."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._number = 0
        self._secrets = [random.token(SECRET_BYTES)]
        self._since_s: float | None = None

    def make(self, nonce: bytes, host: str, spi_i: bytes, now_s: float) -> bytes:
        """Return the cookie for a request."""
        self._rotate(now_s)
        return bytes((self._number,)) + _mac(self._secrets[0], nonce, host, spi_i)

    def holds(self, cookie: bytes, nonce: bytes, host: str, spi_i: bytes, now_s: float) -> bool:
        """Return whether `cookie` was made for the request that carries it."""
        self._rotate(now_s)
        age = (self._number - cookie[0]) % 256 if cookie else len(self._secrets)
        if age >= len(self._secrets):
            return False
        return hmac.compare_digest(cookie[1:], _mac(self._secrets[age], nonce, host, spi_i))

    def _rotate(self, now_s: float) -> None:
        if self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s >= SECRET_S:
            kept = self._secrets[:1] if now_s - self._since_s < 2 * SECRET_S else []
            self._secrets = [self._random.token(SECRET_BYTES), *kept]
            self._number, self._since_s = (self._number + 1) % 256, now_s


def _mac(secret: bytes, nonce: bytes, host: str, spi_i: bytes) -> bytes:
    return prf(secret, nonce + ipaddress.ip_address(host).packed + spi_i)
