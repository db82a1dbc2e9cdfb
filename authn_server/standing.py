"""The standing of this server's own certificate, followed on the ledger while calls are signed.

A known bad status (revoked, suspended, expired, not recorded, its operator removed) stops signing at once. Signing
resumes when the status is good again. An unreachable ledger is not a bad status: signing goes on for
`max_unheard_s`, and after that `when_unheard` decides. /healthz and the metrics show the standing, and the log
shows each change.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from authn_server.config import FollowConfig
from authn_server.switching import Registry, Switch
from voice_dpki.effects import Clock
from voice_dpki.ledger.answers import InquiryError, Resolution
from voice_dpki.metrics import gauge
from voice_dpki.names import CertDigest
from voice_dpki.shell.ledger import LedgerAccess
from voice_dpki.shell.metrics import Health
from voice_dpki.shell.readiness import Finding, failed_if, warned_if
from voice_dpki.shell.reload import Live
from voice_dpki.stir.sign import Credential, SigningRefused
from voice_dpki.stir.standing import check_own_certificate
from voice_dpki.wire.tasks import running
from voice_dpki.x509.profile import CertificateProfile

log = logging.getLogger(__name__)

CAN_SIGN = gauge(
    "signing_possible", "1 while nothing known of this server's certificate forbids signing.", together="livemin"
)
UNHEARD_S = gauge("signing_ledger_unheard_seconds", "How long the ledger has not told the certificate's status.")

CERTIFICATES = 2
"""The certificate in use, and the one that is to take its place."""

NOT_ASKED = "it was not asked yet"
NOT_FOLLOWED = "not followed: there is no [ledger] in the configuration, so a revocation would not be noticed"


class Ledger(Protocol):
    """Something that looks certificates up, as `voice_dpki.wire.ledger.subscription.Subscription` does."""

    async def look_up(self, digest: CertDigest) -> Resolution:
        """Return what the ledger proves about a certificate; raises InquiryError."""
        ...


class UnknownStanding:
    """The standing of a server without a ledger: it signs, and reports that the status is unknown."""

    is_good = True

    async def check(self) -> None:
        """Refuse nothing."""

    async def ask(self) -> None:
        """Ask nobody."""

    async def close(self) -> None:
        """Do nothing."""

    def health(self) -> Health:
        """Report that no ledger is followed."""
        return Health(ok=True, facts={"ledger": NOT_FOLLOWED})

    def freshness(self) -> Finding:
        """Warn that no ledger is followed."""
        return warned_if(NOT_FOLLOWED)


class LedgerStanding:
    """The standing of a server that follows its certificate on `ledger`."""

    def __init__(
        self,
        ledger: Ledger,
        profile: CertificateProfile,
        config: FollowConfig,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._profile = profile
        self._config = config
        self._clock = clock
        self._heard_s = clock.steady_s()
        self._refusal = ""
        """Why verifiers would refuse the certificate, as the ledger last said; empty if they accept it."""
        self._silence = NOT_ASKED
        """Why the last inquiry had no answer; empty if it had one."""
        self._asking: asyncio.Task[None] | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing known forbids signing."""
        return not self._problem()

    async def check(self) -> None:
        """Raise SigningRefused for a bad status that the ledger confirms now; a good status needs no inquiry."""
        if self.is_good:
            return
        await self.ask()
        if problem := self._problem():
            raise SigningRefused("not-on-ledger", problem)

    async def ask(self) -> None:
        """Ask for the status; concurrent callers share one inquiry, so that refused calls cannot flood the node."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Cancel an inquiry that is still open."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def health(self) -> Health:
        """Return whether it may sign, the reason if not, and the ledger's silence in seconds."""
        problem = self._problem()
        heard = f"silent for {self._unheard_s():.0f} s: {self._silence}" if self._silence else "followed"
        return Health(ok=not problem, facts={"ledger": heard} | ({"reason": problem} if problem else {}))

    def freshness(self) -> Finding:
        """Warn of a ledger that is silent for longer than `max_age_s`; fail once its silence ends signing."""
        unheard_s = self._unheard_s()
        if not self._silence or (unheard_s <= self._config.max_age_s and self._silence != NOT_ASKED):
            return warned_if("")
        ends_signing = self._config.when_unheard == "refuse" and self._too_long_unheard()
        finding = failed_if if ends_signing else warned_if
        return finding(f"the ledger is silent for {unheard_s:.0f} s: {self._silence}")

    async def _ask(self) -> None:
        try:
            resolution = await self._ledger.look_up(self._profile.digest)
        except InquiryError as error:
            self._hear_nothing(str(error))
        except Exception:  # a fault of our own must neither stop the following nor pass for a good status
            log.exception("the ledger could not be asked")
            self._hear_nothing("asking it failed; the log says why")
        else:
            self._hear(self._refusal_by(resolution))
        CAN_SIGN.set(not self._problem())
        UNHEARD_S.set(self._unheard_s() if self._silence else 0.0)

    def _refusal_by(self, resolution: Resolution) -> str:
        try:
            check_own_certificate(self._profile, resolution.recorded, self._clock.now_s())
        except SigningRefused as refused:
            return str(refused)
        return ""

    def _hear(self, refusal: str) -> None:
        self._heard_s = self._clock.steady_s()
        if self._silence == NOT_ASKED or refusal != self._refusal:
            told = log.error if refusal else log.info
            text = "signing stopped" if refusal else "the ledger holds the certificate valid"
            told(text, extra={"fields": {"reason": refusal} if refusal else {}})
        elif self._silence:
            log.info("the ledger tells the certificate's status again")
        self._refusal, self._silence = refusal, ""

    def _hear_nothing(self, why: str) -> None:
        if self._silence in ("", NOT_ASKED):
            log.warning("the ledger does not tell the certificate's status", extra={"fields": {"reason": why}})
        self._silence = why

    def _problem(self) -> str:
        """Return why nothing may be signed now; empty if nothing known forbids it."""
        if not self._refusal and self._config.when_unheard == "refuse" and self._too_long_unheard():
            return "the ledger has not told for too long what this server's certificate is worth"
        return self._refusal

    def _too_long_unheard(self) -> bool:
        return bool(self._silence) and self._unheard_s() > self._config.max_unheard_s

    def _unheard_s(self) -> float:
        return self._clock.steady_s() - self._heard_s


class Unfollowed:
    """A registry without a ledger: every certificate will do."""

    async def vouch(self, profile: CertificateProfile) -> None:
        """Refuse nothing."""

    def standing(self, profile: CertificateProfile) -> UnknownStanding:
        """Return a standing that reports that no ledger is followed."""
        return UnknownStanding()


class LedgerRegistry:
    """A ledger as a registry of certificates."""

    def __init__(self, ledger: Ledger, config: FollowConfig, clock: Clock) -> None:
        self._ledger, self._config, self._clock = ledger, config, clock

    async def vouch(self, profile: CertificateProfile) -> None:
        """Return where verifiers accept the certificate; raises SigningRefused and InquiryError."""
        resolution = await self._ledger.look_up(profile.digest)
        check_own_certificate(profile, resolution.recorded, self._clock.now_s())

    def standing(self, profile: CertificateProfile) -> LedgerStanding:
        """Return the standing of a certificate."""
        return LedgerStanding(self._ledger, profile, self._config, self._clock)


@asynccontextmanager
async def followed(
    access: LedgerAccess | None, config: FollowConfig | None, wanted: Live[Credential], clock: Clock
) -> AsyncIterator[Switch]:
    """Ask for the certificate's status once, then follow it while the context lasts; log if there is no ledger.

    The same goes for a certificate that takes its place.
    """
    async with AsyncExitStack() as opened:
        registry: Registry = Unfollowed()
        if access is None or config is None:
            log.warning("the ledger is not followed", extra={"fields": {"reason": NOT_FOLLOWED}})
        else:
            following = access.subscription(clock, config.timeout_s, max_entries=CERTIFICATES)
            registry = LedgerRegistry(await opened.enter_async_context(following), config, clock)
        switch = Switch(wanted, registry)
        await switch.current.standing.ask()
        opened.push_async_callback(switch.close)
        async with running(switch.follow()):
            yield switch


async def check_now(access: LedgerAccess, config: FollowConfig, profile: CertificateProfile, clock: Clock) -> None:
    """Ask the ledger once whether verifiers accept the certificate; raises SigningRefused and InquiryError.

    The trust file is only read: if another user than the server's checks the configuration, a written file would
    belong to that user.
    """
    async with access.client(clock, config.timeout_s, keeps_trust=False) as client:
        resolution = await client.resolve(profile.digest)
    check_own_certificate(profile, resolution.recorded, clock.now_s())
