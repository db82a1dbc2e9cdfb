"""Live IKE SAs: each is ended as soon as its certificate would no longer be admitted.

The ledger's changes say which certificates may have changed, and only these are checked again. While no changes are
received, all are checked in turn. An SA whose certificate cannot be checked stays: an unreachable ledger stops new
devices, but does not cut off those that are connected.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Protocol

from segw_agent.judge import Judge
from segw_agent.live_log import LiveLog, LiveSa, Standing
from segw_agent.metrics import ENDED, LIVE
from segw_agent.policy import Question
from segw_agent.watch import Watch
from voice_dpki.effects import Clock
from voice_dpki.errors import VoiceDpkiError
from voice_dpki.ikev2.events import SaName, Untrusted
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.clock import ClockError
from voice_dpki.names import CertDigest

log = logging.getLogger(__name__)

TICK_S = 0.5
"""How often expired certificates are looked for, and failed attempts to end an SA are retried."""

SWEEP_AT_ONCE = 64
"""Certificates that are checked at the same time."""

SETTLED_S = 2.0
"""How long after its admission an SA must be on the daemon's list; if it is not, `reconcile` takes it for gone."""

UNSEEN_S = 30.0
"""How long an admitted SA may take to be established; after that it is forgotten if the daemon does not list it.

Also how often every SA is checked against the daemon's list.
"""


class SaControl(Protocol):
    """The control over IKE SAs: the gateway itself, or an IKEv2 daemon's control socket."""

    async def end(self, sa: LiveSa, reason: str) -> bool:
        """End an SA; return False if it does not exist. Raises VoiceDpkiError if the daemon does not answer."""
        ...

    async def standing(self) -> frozenset[SaName] | None:
        """Return the established SAs, so that others can be forgotten; None if it reports closed SAs itself."""
        ...


class LiveSas:
    """The list of live SAs; `run` checks it until cancelled."""

    def __init__(
        self, judge: Judge, watch: Watch, control: SaControl, clock: Clock, live_log: LiveLog | None = None
    ) -> None:
        """Begin with the SAs that `live_log` kept from before a restart; `run` checks all of them again."""
        self._judge, self._watch, self._control, self._clock = judge, watch, control, clock
        self._log = live_log
        self._sas: dict[SaName, LiveSa] = {}
        self._of_key: dict[bytes, set[SaName]] = {}
        self._ending: dict[SaName, Untrusted] = {}
        self._soonest_s = inf
        """No certificate of a live SA expires before this time, in Unix seconds."""
        self._unsure: set[CertDigest] = set()
        """Certificates that may have changed between their judgement and the moment when their SA was added."""
        for sa in live_log.load() if live_log else ():
            self._insert(replace(sa, since_s=0.0))  # the monotonic clock may have restarted since

    def __len__(self) -> int:
        return len(self._sas)

    def add(self, question: Question) -> None:
        """Add an SA whose peer is trusted."""
        sa = LiveSa.of(question, self._clock.steady_s())
        self._keep(sa)
        if self._watch.held(sa.digest) is None:
            self._unsure.add(sa.digest)

    def remove(self, name: SaName) -> None:
        """Forget an SA that is gone."""
        sa = self._sas.pop(name, None)
        if sa is None:
            return
        self._ending.pop(name, None)
        for key in sa.leaves():
            self._of_key[key].discard(name)
            if not self._of_key[key]:
                del self._of_key[key]
        LIVE.set(len(self._sas))
        if self._log is not None:
            self._log.remove(name)

    def renamed(self, unique_id: int, new: SaName, new_id: int) -> None:
        """Note that the daemon has rekeyed an SA, which has new SPIs and a new number from now on."""
        sa = next((each for each in self._sas.values() if each.unique_id == unique_id), None)
        if sa is not None:
            self._rename(sa, sa.renamed(new, new_id))

    def moved(self, old: SaName, new: SaName) -> None:
        """Note that an SA was rekeyed, and has a new name from now on."""
        sa = self._sas.get(old)
        if sa is not None:
            self._rename(sa, sa.renamed(new, sa.unique_id))

    def reconcile(self, standing: Mapping[SaName, Standing]) -> None:
        """Take over SAs that were rekeyed while no events were received.

        These are the unknown SAs of a peer whose known SA is gone.
        """
        settled_s = self._clock.steady_s() - SETTLED_S
        gone = [sa for sa in self._sas.values() if sa.name not in standing and sa.since_s < settled_s]
        unknown = {name: each for name, each in standing.items() if name not in self._sas}
        for sa in gone:
            successors = [
                sa.renamed(name, each.unique_id) for name, each in unknown.items() if each.is_of(sa.identity)
            ]
            for successor in successors:
                log.info("SA taken over", extra={"fields": {"sa": str(successor.name), "identity": sa.identity}})
            if successors:
                self._rename(sa, *successors)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_changes())
            group.create_task(self._tick())

    def _rename(self, old: LiveSa, *new: LiveSa) -> None:
        """Replace an SA by its successors; if it was marked to be ended, so are they."""
        why = self._ending.get(old.name)
        for each in new:
            self._keep(each)
            if why is not None:
                self._ending[each.name] = why
        self.remove(old.name)

    def _keep(self, sa: LiveSa) -> None:
        self._insert(sa)
        if self._log is not None:
            self._log.add(sa)

    def _insert(self, sa: LiveSa) -> None:
        self._sas[sa.name] = sa
        self._soonest_s = min(self._soonest_s, sa.not_after_s)
        for key in sa.leaves():
            self._of_key.setdefault(key, set()).add(sa.name)
        LIVE.set(len(self._sas))

    async def _follow_changes(self) -> None:
        await self._recheck(self._digests())
        while True:
            changed = await self._watch.next_change()
            await self._recheck(self._digests() if changed is None else self._digests(changed))

    def _digests(self, keys: frozenset[bytes] | None = None) -> list[CertDigest]:
        """Return the certificates of all live SAs, or of those that depend on one of the ledger's `keys`."""
        if keys is None:
            return list(dict.fromkeys(sa.digest for sa in self._sas.values()))
        names = (name for key in keys for name in self._of_key.get(key, ()))
        return list(dict.fromkeys(self._sas[name].digest for name in names))

    async def _tick(self) -> None:
        swept_s = self._clock.steady_s()
        while True:
            await asyncio.sleep(TICK_S)
            if self._log is not None:
                self._log.catch_up()
            now_s = self._clock.steady_s()
            self._expire()
            unsure, self._unsure = self._unsure, set()
            await self._recheck(list(unsure) if self._watch.is_fresh() else self._digests())
            await self._end_marked()
            if now_s >= swept_s + UNSEEN_S:
                swept_s = now_s
                await self._forget_gone()

    def _expire(self) -> None:
        """Mark SAs with expired certificates to be ended, unless the clock is known to be wrong."""
        try:
            now_s = self._watch.clock.checked_s()
        except ClockError:
            return
        if not self._watch.clock.set_forward_s():
            self._mark_expired(now_s)

    def _mark_expired(self, now_s: float) -> None:
        """Mark expired SAs; scan the list only when one is due, for it may have a hundred thousand entries."""
        if now_s <= self._soonest_s:
            return
        for sa in self._sas.values():
            if now_s > sa.not_after_s:
                self._ending[sa.name] = Untrusted("expired", "live SA", "the certificate has expired")
        later = (sa.not_after_s for sa in self._sas.values() if sa.not_after_s >= now_s)
        self._soonest_s = min(later, default=inf)

    async def _recheck(self, digests: list[CertDigest]) -> None:
        """Check certificates again, and end the SAs of those that would not be admitted now."""
        for at in range(0, len(digests), SWEEP_AT_ONCE):
            await asyncio.gather(*map(self._recheck_one, digests[at : at + SWEEP_AT_ONCE]))
        await self._end_marked()

    async def _recheck_one(self, digest: CertDigest) -> None:
        try:
            found = await self._judge.ledger.ask(digest, step="live SA")
            now_s = self._watch.clock.checked_s()
        except (InquiryError, ClockError) as error:
            log.warning("live SA cannot be checked", extra={"fields": {"reason": str(error)}})
            return
        for name in self._of_key.get(digest, ()):
            refusal = self._judge.policy.check_certificate(self._sas[name].side, found, now_s)
            if refusal is not None:
                self._ending[name] = refusal

    async def _end_marked(self) -> None:
        for name, why in list(self._ending.items()):
            sa = self._sas.get(name)
            if sa is None:
                self._ending.pop(name, None)
                continue
            fields = {"sa": str(name), "code": why.code, "reason": why.sentence}
            try:
                ended = await self._control.end(sa, why.sentence)
            except VoiceDpkiError as error:
                log.error("live SA cannot be ended", extra={"fields": {**fields, "problem": str(error)}})
                continue
            if ended:
                ENDED.labels(why.code).inc()
                log.info("live SA ended", extra={"fields": fields})
                self.remove(name)

    async def _forget_gone(self) -> None:
        """Forget SAs that the daemon does not list, except new ones that may not be established yet."""
        if not self._sas:
            return
        try:
            standing = await self._control.standing()
        except VoiceDpkiError:
            return
        if standing is None:
            return
        oldest_s = self._clock.steady_s() - UNSEEN_S
        for name in [name for name, sa in self._sas.items() if name not in standing and sa.since_s < oldest_s]:
            self.remove(name)
