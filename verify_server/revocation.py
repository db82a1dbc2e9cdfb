"""Revocation lists of signers outside the federation: fetched beside the calls, kept, and asked at each call."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from voice_dpki.effects import Clock
from voice_dpki.errors import MalformedError
from voice_dpki.metrics import counters, gauge
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.stir.verdict import Step, VerificationFailed
from voice_dpki.wire.certificate_fetch import Fetched, FetchError
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.tasks import Background
from voice_dpki.x509.listed import ListedCertificate, ListedError, Refusal
from voice_dpki.x509.revocation import ListSigner, Revocable, RevocationList

log = logging.getLogger(__name__)

_V = TypeVar("_V")

Unknown = Literal["accept", "refuse"]
"""What is done with a call where nothing current tells whether its signer's certificate is revoked."""

KEPT_S: Final = 3600.0
"""After which a list is fetched again where its server does not say, or says more."""
LEAST_KEPT_S: Final = 60.0
FAILED_S: Final = 30.0
"""After which a URL is tried again that gave no list."""
MAX_LISTS: Final = 64
"""Lists that are kept, and as many URLs that gave none. SHAKEN has one list for each country."""

FETCHES = counters(
    "outside_list_fetches",
    "Revocation lists of certificates outside the federation that were fetched, by what came of it.",
    outcome=("read", "malformed", "failed"),
)
HELD = gauge("outside_lists", "Revocation lists of certificates outside the federation that are kept.")
STANDINGS = counters(
    "outside_standings",
    "Calls of signers outside the federation, by what revocation lists say of their certificates.",
    standing=("good", "revoked", "unknown"),
)

Fetch = Callable[[str], Awaitable[Fetched]]
"""Returns what is behind a URL; raises FetchError."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A list that is kept; fetched again from a time of the steady clock on."""

    found: RevocationList
    fresh_until_s: float


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a URL gave no list, and until when nobody asks again."""

    why: str
    until_s: float


class RevocationLists:
    """The lists that certificates of signers name. Close it with `close`."""

    def __init__(
        self, signers: Sequence[ListSigner], fetch: Fetch, clock: Clock, unknown: Unknown = "accept"
    ) -> None:
        """`signers` sign the lists that are for several authorities."""
        self._signers, self._fetch, self._clock, self._unknown = signers, fetch, clock, unknown
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._failed: OrderedDict[str, _Failure] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[object]] = {}
        self._background = Background(log)
        self._said = Seldom(log)
        SHORTFALLS.watch(self)

    async def close(self) -> None:
        """Stop fetching."""
        await self._background.close()

    async def have(self, listed: ListedCertificate) -> None:
        """Wait for the lists of a certificate to be fetched that are not here. No call may wait so."""
        for each in listed.revocable:
            with suppress(MalformedError):
                self._list_for(each)
            if each.url in self._fetching:
                await asyncio.wait([self._fetching[each.url]])

    def check(self, listed: ListedCertificate) -> None:
        """Check that no certificate of a chain is revoked. Raises ListedError for one that is.

        Raises VerificationFailed where that is not known and such calls are not accepted.
        """
        reasons = [why for each in listed.revocable if (why := self._unknown_of(each))]
        STANDINGS.labels("unknown" if reasons else "good").inc()
        if not reasons:
            return
        self._said.warning(
            "it is not known whether a certificate outside the federation is revoked", reason=reasons[0]
        )
        if self._unknown == "refuse":
            raise VerificationFailed(
                Step.FETCH, f"it is not known whether the signer's certificate is revoked: {reasons[0]}"
            )

    def shortfall(self) -> str:
        """Return what people should know if a list that is needed is outdated."""
        now_s = self._clock.now_s()
        outdated = any(not each.found.is_current(now_s) for each in self._kept.values())
        return "a revocation list of signers outside the federation is outdated" if outdated else ""

    def _unknown_of(self, revocable: Revocable) -> str:
        """Return why it is not known whether a certificate is revoked, "" if it is not; raises ListedError if so.

        What an outdated list has revoked stays so.
        """
        try:
            found = self._list_for(revocable)
            found.check_signed(revocable, self._signers, self._clock.now_s())
        except MalformedError as error:
            return str(error)
        if found.names(revocable):
            STANDINGS.labels("revoked").inc()
            raise ListedError(
                Refusal.REVOKED, "the signer's certificate, or an authority's in its chain, is on a revocation list"
            )
        return "" if found.is_current(self._clock.now_s()) else "the revocation list is outdated"

    def _list_for(self, revocable: Revocable) -> RevocationList:
        """Return the list that would name a certificate, and have it fetched if needed; raises MalformedError."""
        url, steady_s = revocable.url, self._clock.steady_s()
        if not url:
            raise MalformedError("the certificate names no revocation list")
        kept = self._kept.get(url)
        if kept is None or steady_s >= kept.fresh_until_s:
            self._begin(url)
        if kept is None:
            failure = self._failed.get(url)
            raise MalformedError(failure.why if failure is not None else "the revocation list is being fetched")
        self._kept.move_to_end(url)
        return kept.found

    def _begin(self, url: str) -> None:
        """Have a URL fetched, unless it is being fetched, was tried just now, or too many are being fetched."""
        failure = self._failed.get(url)
        rests = failure is not None and self._clock.steady_s() < failure.until_s
        if not (url in self._fetching or rests or len(self._fetching) >= MAX_LISTS):
            self._fetching[url] = self._background.run(self._fetched(url))

    async def _fetched(self, url: str) -> None:
        """Fetch a list and keep it, or why there is none. A long one is read beside the calls."""
        try:
            answer = await self._fetch(url)
            found = await asyncio.to_thread(RevocationList.parse, answer.body)
        except (FetchError, MalformedError) as error:
            outcome = "failed" if isinstance(error, FetchError) else "malformed"
            FETCHES.labels(outcome).inc()
            self._said.warning(
                "no revocation list of signers outside the federation", outcome=outcome, reason=str(error)
            )
            _put(self._failed, url, _Failure(f"the revocation list cannot be had: {error}", self._in_s(FAILED_S)))
        else:
            FETCHES.labels("read").inc()
            self._failed.pop(url, None)
            _put(self._kept, url, _Kept(found, self._in_s(self._kept_s(answer, found))))
        finally:
            self._fetching.pop(url, None)
            HELD.set(len(self._kept))

    def _kept_s(self, answer: Fetched, found: RevocationList) -> float:
        """Return after how long a list is fetched again: as its server says, and before it is outdated."""
        said_s = KEPT_S if answer.max_age_s is None else float(answer.max_age_s)
        left_s = found.next_update_s - self._clock.now_s()
        return max(FAILED_S, min(max(said_s, LEAST_KEPT_S), KEPT_S, left_s))

    def _in_s(self, seconds: float) -> float:
        return self._clock.steady_s() + seconds


def _put(kept: OrderedDict[str, _V], url: str, value: _V) -> None:
    kept[url] = value
    kept.move_to_end(url)
    while len(kept) > MAX_LISTS:
        kept.popitem(last=False)
