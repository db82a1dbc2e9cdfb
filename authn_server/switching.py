"""The credential with which calls are signed, and its replacement while the server runs.

The configuration names a certificate with its key, and SIGHUP reads them again. The server goes on with what it has
until the ledger vouches for the new one, so that no call is signed with a certificate that verifiers would refuse.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, Protocol

from voice_dpki.ledger.answers import InquiryError
from voice_dpki.shell.metrics import Health
from voice_dpki.shell.readiness import Finding
from voice_dpki.shell.reload import Live
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.stir.sign import Credential, SigningRefused
from voice_dpki.x509.profile import CertificateProfile

log = logging.getLogger(__name__)

POLL_S: Final = 0.5
"""How often certificates are checked; the subscription delivers the ledger's changes without a poll."""


class Standing(Protocol):
    """Whether this server may sign now."""

    @property
    def is_good(self) -> bool:
        """Whether nothing known forbids signing; if so, `check` returns without an inquiry."""
        ...

    async def check(self) -> None:
        """Raise SigningRefused where the certificate's status forbids signing."""
        ...

    async def ask(self) -> None:
        """Bring the status up to date."""
        ...

    async def close(self) -> None:
        """Cancel what is still open."""
        ...

    def health(self) -> Health:
        """Return whether it may sign, and if not, why."""
        ...

    def freshness(self) -> Finding:
        """Return whether the ledger tells the status now."""
        ...


class Registry(Protocol):
    """A source of certificates' standing."""

    async def vouch(self, profile: CertificateProfile) -> None:
        """Return where verifiers accept the certificate; raises SigningRefused and InquiryError."""
        ...

    def standing(self, profile: CertificateProfile) -> Standing:
        """Return the standing of a certificate, to be followed."""
        ...


@dataclass(frozen=True, slots=True)
class Signing:
    """A credential and its standing."""

    credential: Credential
    standing: Standing


class Switch:
    """The credential in use, and the one that the configuration names."""

    def __init__(self, wanted: Live[Credential], registry: Registry) -> None:
        self._wanted, self._registry = wanted, registry
        self.current = Signing(wanted.value, registry.standing(wanted.value.profile))
        """The credential in use, and its standing."""
        self._fault = ""
        """Why the configured credential is not in use; empty if it is."""
        SHORTFALLS.watch(self)

    async def follow(self) -> None:
        """Check both certificates every POLL_S until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.step()

    async def step(self) -> None:
        """Update the standing, and switch to the configured credential if the ledger vouches for it."""
        try:
            await self._take()
            await self.current.standing.ask()
        except Exception:  # a fault of our own must not stop the following unnoticed
            log.exception("the certificate could not be followed")

    async def _take(self) -> None:
        wanted = self._wanted.value
        if wanted.profile.digest == self.current.credential.profile.digest:
            self._fault = ""
            return
        try:
            await self._registry.vouch(wanted.profile)
        except (SigningRefused, InquiryError) as error:
            self._complain(str(error))
            return
        await self._use(Signing(wanted, self._registry.standing(wanted.profile)))

    async def _use(self, signing: Signing) -> None:
        await signing.standing.ask()
        before, self.current, self._fault = self.current, signing, ""
        fields = {"certificate": signing.credential.profile.digest.hex()}
        log.info("signing with another certificate", extra={"fields": fields})
        await before.standing.close()

    def _complain(self, why: str) -> None:
        if why != self._fault:
            log.error("the new certificate is not used", extra={"fields": {"reason": why}})
        self._fault = why

    async def close(self) -> None:
        """Cancel what is still open."""
        await self.current.standing.close()

    def shortfall(self) -> str:
        """Return a warning while the configured credential is not in use."""
        return f"the new certificate is not used yet: {self._fault}" if self._fault else ""
