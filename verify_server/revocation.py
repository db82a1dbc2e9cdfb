"""Revocation lists of signers outside the federation: fetched beside calls, cached, and checked at each call."""

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
from voice_dpki.x509.revocation import (
    ListName,
    ListNotTrustedError,
    ListSigner,
    OlderListError,
    Revocable,
    RevocationList,
)

log = logging.getLogger(__name__)

_V = TypeVar("_V")

Unknown = Literal["accept", "refuse"]
"""Treatment of a call if no current list tells whether its signer's certificate is revoked."""

KEPT_S: Final = 3600.0
"""Seconds after which a list is fetched again if its server names no time, or a longer one."""
LEAST_KEPT_S: Final = 60.0
FAILED_S: Final = 30.0
"""Seconds after which a failed fetch of a list is retried."""
MAX_LISTS: Final = 64
"""Most lists that are kept, and most failures. SHAKEN has one list for each country."""

FETCHES = counters(
    "outside_list_fetches",
    "Revocation lists of certificates outside the federation that were fetched, by what came of it.",
    outcome=("read", "malformed", "not-trusted", "older", "failed"),
)
HELD = gauge("outside_lists", "Revocation lists of certificates outside the federation that are kept.")
STANDINGS = counters(
    "outside_standings",
    "Calls of signers outside the federation, by what revocation lists say of their certificates.",
    standing=("good", "revoked", "unknown"),
)

Fetch = Callable[[str], Awaitable[Fetched]]
"""Fetches what a URL names; raises FetchError."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A cached list with a trusted signature, and the time of the steady clock from which it is fetched again."""

    found: RevocationList
    fresh_until_s: float


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a list could not be fetched, and the time of the steady clock until which it is not retried."""

    why: str
    until_s: float


class RevocationLists:
    """The lists that certificates of signers name. Close it with `close`."""

    def __init__(
        self, signers: Sequence[ListSigner], fetch: Fetch, clock: Clock, unknown: Unknown = "accept"
    ) -> None:
        """`signers` sign the lists that are for several authorities."""
        self._signers, self._fetch, self._clock, self._unknown = signers, fetch, clock, unknown
        self._kept: OrderedDict[ListName, _Kept] = OrderedDict()
        self._failed: OrderedDict[ListName, _Failure] = OrderedDict()
        self._fetching: dict[ListName, asyncio.Task[object]] = {}
        self._background = Background(log)
        self._said = Seldom(log)
        SHORTFALLS.watch(self)

    async def close(self) -> None:
        """Stop fetching."""
        await self._background.close()

    async def have(self, listed: ListedCertificate) -> None:
        """Wait for the fetch of a certificate's lists that are not cached. No call may wait for this."""
        for each in listed.revocable:
            with suppress(MalformedError):
                self._list_for(each)
            if each.list_name in self._fetching:
                await asyncio.wait([self._fetching[each.list_name]])

    def check(self, listed: ListedCertificate) -> None:
        """Check that no certificate of a chain is revoked. Raises ListedError for one that is.

        Raises VerificationFailed if that is not known and such calls are not accepted.
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
        """Return a sentence for people if a cached list is outdated; otherwise an empty string."""
        now_s = self._clock.now_s()
        outdated = any(not each.found.is_current(now_s) for each in self._kept.values())
        return "a revocation list of signers outside the federation is outdated" if outdated else ""

    def _unknown_of(self, revocable: Revocable) -> str:
        """Return why the status of a certificate is unknown, "" if it is not revoked; raises ListedError if it is.

        A certificate on an outdated list stays revoked.
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
        if not revocable.url:
            raise MalformedError("the certificate names no revocation list")
        name = revocable.list_name
        kept = self._kept.get(name)
        if kept is None or self._clock.steady_s() >= kept.fresh_until_s:
            self._begin(revocable)
        if kept is None:
            failure = self._failed.get(name)
            raise MalformedError(failure.why if failure is not None else "the revocation list is being fetched")
        self._kept.move_to_end(name)
        return kept.found

    def _begin(self, revocable: Revocable) -> None:
        """Have a list fetched, unless it is being fetched, was tried just now, or too many are being fetched."""
        name = revocable.list_name
        failure = self._failed.get(name)
        rests = failure is not None and self._clock.steady_s() < failure.until_s
        if not (name in self._fetching or rests or len(self._fetching) >= MAX_LISTS):
            self._fetching[name] = self._background.run(self._fetched(revocable))

    async def _fetched(self, revocable: Revocable) -> None:
        """Fetch the list that would name a certificate, and keep it, or why there is none.

        A cached list is replaced only by one with a trusted signature that is not older. Otherwise the server at
        the URL could undo a revocation, with a list of its own or an old one.
        """
        name = revocable.list_name
        try:
            answer = await self._fetch(revocable.url)
            found = await asyncio.to_thread(self._read, answer.body, revocable)
            if name in self._kept:
                found.check_not_older(self._kept[name].found)
        except (FetchError, MalformedError) as error:
            self._note_failure(name, error)
        else:
            FETCHES.labels("read").inc()
            self._failed.pop(name, None)
            _put(self._kept, name, _Kept(found, self._in_s(self._kept_s(answer, found))))
        finally:
            self._fetching.pop(name, None)
            HELD.set(len(self._kept))

    def _read(self, body: bytes, revocable: Revocable) -> RevocationList:
        """Read a list that counts for a certificate, in a thread beside the calls; raises MalformedError."""
        found = RevocationList.parse(body)
        found.check_signed(revocable, self._signers, self._clock.now_s())
        return found

    def _note_failure(self, name: ListName, error: FetchError | MalformedError) -> None:
        """Count, log and remember why a list could not be fetched.

        If none is cached, one without a trusted signature is retried only after KEPT_S: it will not change soon,
        and its server should not bear the load.
        """
        outcome = next(outcome for kind, outcome in _OUTCOMES.items() if isinstance(error, kind))
        FETCHES.labels(outcome).inc()
        self._said.warning(
            "no revocation list of signers outside the federation", outcome=outcome, reason=str(error)
        )
        rest_s = KEPT_S if outcome == "not-trusted" and name not in self._kept else FAILED_S
        _put(self._failed, name, _Failure(f"the revocation list cannot be had: {error}", self._in_s(rest_s)))

    def _kept_s(self, answer: Fetched, found: RevocationList) -> float:
        """Return the seconds after which a list is fetched again: as its server says, and before it is outdated."""
        said_s = KEPT_S if answer.max_age_s is None else float(answer.max_age_s)
        left_s = found.next_update_s - self._clock.now_s()
        return max(FAILED_S, min(max(said_s, LEAST_KEPT_S), KEPT_S, left_s))

    def _in_s(self, seconds: float) -> float:
        return self._clock.steady_s() + seconds


_OUTCOMES: Final[dict[type[Exception], str]] = {
    FetchError: "failed",
    ListNotTrustedError: "not-trusted",
    OlderListError: "older",
    MalformedError: "malformed",
}
"""Outcomes of failed fetches; the last class is the base of the two before it, so they come first."""


def _put(kept: OrderedDict[ListName, _V], name: ListName, value: _V) -> None:
    kept[name] = value
    kept.move_to_end(name)
    while len(kept) > MAX_LISTS:
        kept.popitem(last=False)
