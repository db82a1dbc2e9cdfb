"""How long this server's certificate is still valid: a metric, and a warning while there is time to replace it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from voice_dpki.effects import Clock
from voice_dpki.metrics import gauge
from voice_dpki.shell.expiring import DAY_S, expires_soon, time_told
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.x509.profile import CertificateProfile

log = logging.getLogger(__name__)

LOOK_S: Final = 60.0
AGAIN_S: Final = 86_400.0
"""How often the log repeats the warning."""

NOT_AFTER = gauge("signing_certificate_not_after", "When this server's certificate expires, in Unix time.")


class Expiry:
    """Watches the validity of the certificate that `current` returns."""

    def __init__(self, current: Callable[[], CertificateProfile], clock: Clock, warn_days: float) -> None:
        self._current, self._clock, self._warn_s = current, clock, warn_days * DAY_S
        self._said: tuple[bytes, float] = (b"", 0.0)
        """The certificate last warned of in the log, and the time in Unix seconds."""
        SHORTFALLS.watch(self)

    async def follow(self) -> None:
        """Check at intervals until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Set the metric, and warn in the log once a day if the certificate expires soon."""
        profile, steady_s = self._current(), self._clock.steady_s()
        NOT_AFTER.set(profile.not_after_s)
        warning, (said_of, said_s) = self.shortfall(), self._said
        if warning and (said_of != profile.digest or steady_s >= said_s + AGAIN_S):
            self._said = profile.digest, steady_s
            log.warning("the certificate expires soon", extra={"fields": {"reason": warning}})

    def shortfall(self) -> str:
        """Return a warning while the certificate expires soon, or has expired."""
        profile = self._current()
        left_s = profile.not_after_s - self._clock.now_s()
        if not expires_soon(profile.not_before_s, profile.not_after_s, self._clock.now_s(), self._warn_s):
            return ""
        if left_s <= 0:
            return "this server's certificate has expired, and signs nothing: authn-server rotate replaces it"
        return f"this server's certificate expires in {time_told(left_s)}: authn-server rotate replaces it"
