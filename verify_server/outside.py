"""Signers outside the federation: their certificates are fetched beside the calls, kept, and judged by the list.

No call waits for a fetch. A signer's first call starts the fetch, and gets No-TN-Validation with that reason; later
calls use the cached certificate. Cached certificates are refreshed before they expire from the cache.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from verify_server.revocation import RevocationLists
from voice_dpki.effects import Clock
from voice_dpki.errors import MalformedError
from voice_dpki.metrics import counters, gauge
from voice_dpki.names import CertDigest, Tn
from voice_dpki.shell.reload import Live
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.stir.examine import Examined, Policy
from voice_dpki.stir.outside import OutsideSigner, refused_by_list
from voice_dpki.stir.verdict import Step, VerificationFailed
from voice_dpki.stir.verify import Vouched
from voice_dpki.wire.certificate_fetch import Fetched, FetchError, Reach
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.tasks import Background
from voice_dpki.x509.listed import Authorities, Chain, Federation, ListedCertificate, ListedError, read_chain
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate
from voice_dpki.x509.reference import digest_in

log = logging.getLogger(__name__)

KEPT_S: Final = 3600.0
"""Default time after which a certificate is fetched again, if its server does not say."""
LEAST_KEPT_S: Final = 60.0
MOST_KEPT_S: Final = 86_400.0
"""How long it is kept at least and at most, whatever its server says, and used while it cannot be fetched again."""
FAILED_S: Final = 30.0
"""Time after which a URL that gave no certificate is retried."""
MAX_FETCHES: Final = 32
"""Most fetches at the same time, including those that wait for a connection."""
MAX_FAILED: Final = 1000
"""URLs that gave no certificate lately and are remembered; strangers can name as many as they like."""

FETCHES = counters(
    "outside_fetches",
    "Certificates of signers outside the federation that were fetched, by what came of it.",
    outcome=("trusted", "not-trusted", "malformed", "failed", "too-many"),
)
HELD = gauge("outside_certificates", "Certificates of signers outside the federation that are kept.")

Fetch = Callable[[str], Awaitable[Fetched]]
"""Returns the content of a URL; raises FetchError."""

_NOT_YET: Final = (
    "the signer is outside the federation, and its certificate is being fetched; "
    "calls after this one can be verified"
)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A certificate that is kept, by the steady clock."""

    chain: Chain
    listed: ListedCertificate
    by: Authorities
    """The list by which it was judged."""
    fresh_until_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a URL gave no certificate, and when it may be retried."""

    why: VerificationFailed
    by: Authorities
    until_s: float


class OutsideSigners:
    """The certificates of signers outside the federation. Close it with `close`."""

    def __init__(
        self,
        authorities: Live[Authorities],
        federation: Callable[[], Federation],
        reach: Reach,
        fetch: Fetch,
        clock: Clock,
        max_entries: int,
        revocation: RevocationLists,
    ) -> None:
        """`federation` returns what members hold now; it raises VerificationFailed where that is not known."""
        self._revocation = revocation
        self._authorities = authorities
        self._federation = federation
        self._reach = reach
        self._fetch = fetch
        self._clock = clock
        self._max_entries = max_entries
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._failed: OrderedDict[str, _Failure] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[object]] = {}
        self._background = Background(log)
        SHORTFALLS.watch(self)
        self._said = Seldom(log)

    async def close(self) -> None:
        """Stop fetching."""
        await self._background.close()
        await self._revocation.close()

    def policy(self, policy: Policy) -> Policy:
        """Return a policy that knows the certificates kept here by their URLs."""
        return replace(policy, digest_at=self.digest_at)

    def digest_at(self, url: str) -> CertDigest:
        """Return H(CERT) of the certificate at a URL: as it is kept here, or else as the URL itself says.

        Raises MalformedError, and VerificationFailed where it must be fetched first.
        """
        kept = self._kept.get(url)
        if kept is not None:
            return kept.listed.profile.digest
        try:
            return digest_in(url)
        except MalformedError:
            return self._signer_at(url).profile.digest

    def vouch(
        self, found: Sequence[Examined], recorded: Vouched | VerificationFailed
    ) -> Vouched | VerificationFailed:
        """Return what vouches for the signer of these Identities: the ledger, unless it proves not to know it.

        A call from a member's number is left to the ledger alone, and so is a signer with another kind of URL.
        """
        if not isinstance(recorded, RecordedCertificate) or recorded.status is not CertStatus.UNKNOWN:
            return recorded
        try:
            federation = self._federation()
            if any(federation.holds_number(number) for each in found for number in _numbers(each)):
                return recorded
            signer = OutsideSigner(self._signer_at(found[0].passport.header_text("x5u") or ""), federation)
        except MalformedError:
            return recorded
        except VerificationFailed as failure:
            return failure
        if signer.digest != found[0].digest:  # it came while the ledger was asked
            return VerificationFailed(Step.FETCH, _NOT_YET)
        return self._unless_revoked(signer)

    def _unless_revoked(self, signer: OutsideSigner) -> OutsideSigner | VerificationFailed:
        try:
            self._revocation.check(signer.listed)
        except ListedError as error:
            return refused_by_list(error)
        except VerificationFailed as failure:
            return failure
        return signer

    async def settled(self, url: str) -> None:
        """Have the certificate at a URL fetched unless it is here, and wait for it. No call may wait so."""
        with suppress(VerificationFailed, MalformedError):
            self._signer_at(url)
        if url in self._fetching:
            await asyncio.wait([self._fetching[url]])

    def shortfall(self) -> str:
        """Return a warning if no call from outside can be verified."""
        expired = self._clock.now_s() > self._authorities.value.until_s
        return "the list of certificate authorities for calls from outside has expired" if expired else ""

    def _signer_at(self, url: str) -> ListedCertificate:
        """Return the certificate at a URL; raises VerificationFailed, and MalformedError for no URL of SHAKEN's."""
        steady_s = self._clock.steady_s()
        kept = self._kept.get(url)
        if kept is not None and steady_s < kept.until_s:
            self._kept.move_to_end(url)
            if steady_s >= kept.fresh_until_s or self._clock.now_s() > kept.listed.not_after_s:
                self._begin(url)
            return self._judged(url, kept)
        failure = self._failure(url)
        if failure is not None:
            raise failure.why
        try:
            self._reach.check_url(url)
        except FetchError as error:
            raise VerificationFailed(Step.INFO_URL, f"the signer is outside the federation, and {error}") from None
        self._begin(url)
        raise VerificationFailed(Step.FETCH, _NOT_YET)

    def _judged(self, url: str, kept: _Kept) -> ListedCertificate:
        """Return a kept certificate, judged again if the list of authorities is another one now."""
        authorities = self._authorities.value
        if kept.by is not authorities:
            try:
                listed = authorities.judge(kept.chain, self._clock.now_s())
            except ListedError as error:
                del self._kept[url]
                raise self._remembered(url, refused_by_list(error)) from None
            self._kept[url] = kept = replace(kept, listed=listed, by=authorities)
        return kept.listed

    def _failure(self, url: str) -> _Failure | None:
        """Return why a URL has given no certificate lately, by the list as it is now; None if it may be asked."""
        failure = self._failed.get(url)
        if failure is None or failure.by is not self._authorities.value:
            return None
        return failure if self._clock.steady_s() < failure.until_s else None

    def _begin(self, url: str) -> None:
        """Have a URL fetched, unless it is being fetched, was tried just now, or too many are being fetched."""
        if url in self._fetching or self._failure(url) is not None:
            return
        if len(self._fetching) >= MAX_FETCHES:
            FETCHES.labels("too-many").inc()
            self._said.warning("too many certificates outside the federation are being fetched")
            return
        self._fetching[url] = self._background.run(self._fetched(url))

    async def _fetched(self, url: str) -> None:
        """Fetch what is behind a URL, judge it, and keep it or why there is none."""
        try:
            answer = await self._fetch(url)
            chain = read_chain(answer.body)
            authorities = self._authorities.value
            listed = authorities.judge(chain, self._clock.now_s())
            await self._revocation.have(listed)
        except FetchError as error:
            self._note(url, "failed", VerificationFailed(Step.FETCH, f"{_NO_CERTIFICATE}: {error}"))
        except MalformedError as error:
            self._note(url, "malformed", VerificationFailed(Step.FETCH, f"{_NO_CERTIFICATE}: {error}"))
        except ListedError as error:
            self._kept.pop(url, None)
            self._note(url, "not-trusted", refused_by_list(error))
        else:
            self._keep(url, _Kept(chain, listed, authorities, *self._times(answer)))
        finally:
            self._fetching.pop(url, None)
            HELD.set(len(self._kept))

    def _times(self, answer: Fetched) -> tuple[float, float]:
        steady_s = self._clock.steady_s()
        kept_s = KEPT_S if answer.max_age_s is None else float(answer.max_age_s)
        return steady_s + min(max(kept_s, LEAST_KEPT_S), MOST_KEPT_S), steady_s + MOST_KEPT_S

    def _keep(self, url: str, kept: _Kept) -> None:
        FETCHES.labels("trusted").inc()
        self._failed.pop(url, None)
        self._kept[url] = kept
        self._kept.move_to_end(url)
        while len(self._kept) > self._max_entries:
            self._kept.popitem(last=False)

    def _note(self, url: str, outcome: str, why: VerificationFailed) -> None:
        FETCHES.labels(outcome).inc()
        self._said.info("no certificate of a signer outside the federation", outcome=outcome, reason=str(why))
        self._remembered(url, why)

    def _remembered(self, url: str, why: VerificationFailed) -> VerificationFailed:
        self._failed[url] = _Failure(why, self._authorities.value, self._clock.steady_s() + FAILED_S)
        self._failed.move_to_end(url)
        while len(self._failed) > MAX_FAILED:
            self._failed.popitem(last=False)
        return why


def _numbers(found: Examined) -> list[Tn]:
    """Return the number over which a signer needs authority, if its kind of PASSporT is about one."""
    of = found.kind.authority.number
    return [] if of is None else [of(found.claims)]


_NO_CERTIFICATE: Final = "the signer is outside the federation, and its certificate could not be fetched"
