"""IKE SAs that were admitted: each is ended as soon as its certificate would not be admitted any more.

The ledger's changes say which certificates are concerned, and only these are asked about. While the changes are not
heard of, all are asked about in turn. An SA whose certificate cannot be asked about stays: a ledger that is out of
reach stops new devices, but does not cut off those that are connected.
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
"""How often expired certificates are looked for, and ends that did not succeed are tried again."""

SWEEP_AT_ONCE = 64
"""Certificates that are asked about side by side."""

SETTLED_S = 2.0
"""An SA that was admitted so long ago stands, or never will."""

UNSEEN_S = 30.0
"""How long an admitted SA may take until it stands; one that never did is forgotten. So often all are looked at."""


class SaControl(Protocol):
    """What ends IKE SAs: the gateway itself, or an IKEv2 daemon over its control socket."""

    async def end(self, sa: LiveSa, reason: str) -> bool:
        """End an SA; False if there is none such. Raises VoiceDpkiError where nobody answers."""
        ...

    async def standing(self) -> frozenset[SaName] | None:
        """Return the SAs that stand, so that others can be forgotten; None if whoever ends them says so itself."""
        ...


class LiveSas:
    """The list of live SAs; `run` watches over it until cancelled."""

    def __init__(
        self, judge: Judge, watch: Watch, control: SaControl, clock: Clock, live_log: LiveLog | None = None
    ) -> None:
        """Begin with what `live_log` remembers from before a restart, all of which is asked about again."""
        self._judge, self._watch, self._control, self._clock = judge, watch, control, clock
        self._log = live_log
        self._sas: dict[SaName, LiveSa] = {}
        self._of_key: dict[bytes, set[SaName]] = {}
        self._ending: dict[SaName, Untrusted] = {}
        self._soonest_s = inf
        """No certificate of theirs expires before."""
        self._unsure: set[CertDigest] = set()
        """Certificates that may have changed between the answer about them and the moment their SA was added."""
        for sa in live_log.load() if live_log else ():
            self._insert(replace(sa, since_s=0.0))  # the monotonic clock may have begun anew since

    def __len__(self) -> int:
        return len(self._sas)

    def add(self, question: Question) -> None:
        """Note an SA whose peer was found to be trusted."""
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
        """Note that the daemon has rekeyed an SA, which has other SPIs and another number from now on."""
        sa = next((each for each in self._sas.values() if each.unique_id == unique_id), None)
        if sa is not None:
            self._rename(sa, sa.renamed(new, new_id))

    def moved(self, old: SaName, new: SaName) -> None:
        """Note that an SA was rekeyed, and has another name from now on."""
        sa = self._sas.get(old)
        if sa is not None:
            self._rename(sa, sa.renamed(new, sa.unique_id))

    def reconcile(self, standing: Mapping[SaName, Standing]) -> None:
        """Take over SAs that were rekeyed while nobody listened: unknown ones of a peer whose known one is gone."""
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
        """Keep an SA under other names; an end that was resolved on still comes."""
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
        """The certificates of all live SAs, or of those that depend on one of `keys`."""
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
        """End what has expired; a clock that is known to be wrong ends nothing."""
        try:
            now_s = self._watch.clock.checked_s()
        except ClockError:
            return
        if not self._watch.clock.set_forward_s():
            self._mark_expired(now_s)

    def _mark_expired(self, now_s: float) -> None:
        """Look at all only when one is due: there may be a hundred thousand."""
        if now_s <= self._soonest_s:
            return
        for sa in self._sas.values():
            if now_s > sa.not_after_s:
                self._ending[sa.name] = Untrusted("expired", "live SA", "the certificate has expired")
        later = (sa.not_after_s for sa in self._sas.values() if sa.not_after_s >= now_s)
        self._soonest_s = min(later, default=inf)

    async def _recheck(self, digests: list[CertDigest]) -> None:
        """Ask about certificates, and end the SAs of those that would not be admitted now."""
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
        """Forget what no longer stands, except what may still be about to."""
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
