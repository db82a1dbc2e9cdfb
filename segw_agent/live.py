"""Live IKE SAs: each is ended as soon as its certificate would no longer be admitted.

The ledger's changes say which certificates may have changed, and only these are checked again. While no changes are
received, all are checked in sweeps; a sweep ends when no node answers. An SA whose certificate cannot be checked
stays: an unreachable ledger stops new devices, but does not cut off those that are connected.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import Protocol

from segw_agent.departed import Departed
from segw_agent.judge import Judge
from segw_agent.live_log import LiveLog, LiveSa, Standing
from segw_agent.metrics import ENDED, LIVE, REPLACED, UNCHECKED
from segw_agent.policy import Policy, Question, Side
from segw_agent.rules import PeerRefusedError, check_live, check_names
from segw_agent.watch import Watch
from voice_dpki.effects import Clock
from voice_dpki.errors import VoiceDpkiError
from voice_dpki.ikev2.events import SaName, Untrusted
from voice_dpki.ledger.answers import InquiryError, Resolution
from voice_dpki.ledger.clock import ClockError
from voice_dpki.names import CertDigest
from voice_dpki.wire.seldom import Seldom

log = logging.getLogger(__name__)

TICK_S = 0.5
"""How often expired certificates are looked for, and failed attempts to end an SA are retried."""

SWEEP_AT_ONCE = 64
"""Certificates that are checked at the same time."""

END_AT_ONCE = 256
"""SAs that the daemon is told to end at the same time: a removed vendor can have thousands.

Twice a batch for charon, so that it has work while we check the outcomes of the other batch.
"""

SETTLED_S = 2.0
"""Time from admission by which an SA must be on the daemon's list; otherwise `reconcile` treats it as gone."""

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
        self._log: LiveLog | None = None
        self._sas: dict[SaName, LiveSa] = {}
        self._of_key: dict[bytes, set[SaName]] = {}
        self._ending: dict[SaName, Untrusted] = {}
        self._departed = Departed(UNSEEN_S)
        self._under_way: set[SaName] = set()
        """SAs that the daemon is being told to end."""
        self._trusted: set[SaName] = set()
        """SAs whose peer the daemon is known to have authenticated, as the log says."""
        self._soonest_s = inf
        """Earliest possible expiry of a live SA's certificate, in Unix seconds."""
        self._held_to: Policy | None = None
        """The policy by whose lists all live SAs were last checked."""
        self._unsure: set[CertDigest] = set()
        """Certificates that may have changed since they were last found trusted."""
        self._unanswered: set[CertDigest] = set()
        """The last batch without an answer; it comes last in the next sweep, so as not to delay the others."""
        self._unendable = Seldom(log)
        self._silent = False
        """Whether the log says that live SAs cannot be checked."""
        self._wake = asyncio.Event()
        """Set when an SA is to be ended without waiting for the next tick."""
        if live_log is not None:
            self.keep_in(live_log)

    def __len__(self) -> int:
        return len(self._sas)

    def keep_in(self, live_log: LiveLog) -> None:
        """Keep the list in a file from now on, and take over the SAs that are in it; raises LocalError."""
        admitted = list(self._sas.values())
        for sa in live_log.load():
            if sa.name not in self._sas:
                self._insert(replace(sa, since_s=0.0))  # the monotonic clock may have restarted since
        self._log = live_log
        for sa in admitted:
            live_log.add(sa)

    def add(self, question: Question) -> None:
        """Add an SA whose peer is trusted."""
        sa = LiveSa.of(question, self._clock.steady_s())
        self._keep(sa)
        held = self._watch.held(sa.digest)  # the cached answer may be newer than the judgement
        if held is None or not self._checked(sa.digest, held):
            self._unsure.add(sa.digest)

    def established(self, name: SaName) -> None:
        """Note that the daemon has verified AUTH, by the certificate that it was told is vouched for."""
        sa = self._sas.get(name)
        if sa is None:
            return
        if name not in self._trusted:
            self._trusted.add(name)
            log.info("trusted", extra={"fields": {"sa": str(name), "identity": sa.identity}})
        self._replace_older_than(name)

    def _replace_older_than(self, name: SaName) -> None:
        """End a device's older SAs with the same gateway by the same connection (step 9 of the flow).

        In strongSwan only a responder replaces SAs, so the device's agent does it, once the device has judged.
        """
        new = self._sas.get(name)
        if new is None or new.side is not Side.DEVICE:
            return
        for sa in self._sas.values():
            if sa.replaceable_by(new):
                self._ending[sa.name] = Untrusted(REPLACED, "9 old IKE SA", "a new IKE SA has replaced it")
        self._wake.set()

    def remove(self, name: SaName) -> None:
        """Forget an SA that is gone."""
        sa = self._sas.pop(name, None)
        if sa is None:
            return
        self._ending.pop(name, None)
        self._trusted.discard(name)
        self._unlink(sa)
        LIVE.set(len(self._sas))
        if self._log is not None:
            self._log.remove(name)

    def renamed(self, unique_id: int, new: SaName, new_id: int) -> None:
        """Note that the daemon has rekeyed an SA, and its new SPIs and number."""
        sa = next((each for each in self._sas.values() if each.unique_id == unique_id), None)
        sa = sa or self._departed.numbered(unique_id)
        if sa is not None:
            self._rename(sa, sa.renamed(new, new_id))

    def moved(self, old: SaName, new: SaName) -> None:
        """Note that an SA was rekeyed, and its new name."""
        sa = self._sas.get(old)
        if sa is not None:
            self._rename(sa, sa.renamed(new, sa.unique_id))

    def reconcile(self, standing: Mapping[SaName, Standing]) -> None:
        """Make up for missed events: note SAs that were authenticated or rekeyed, and end those that were replaced.

        An unknown SA of a peer whose known SA is gone counts as rekeyed. Its predecessor is the peer's newest SA
        that is gone; one marked to be ended comes before all others, because its successor must end too.
        """
        settled_s = self._clock.steady_s() - SETTLED_S
        gone = [sa for sa in self._sas.values() if sa.name not in standing and sa.since_s < settled_s]
        unknown = {name: each for name, each in standing.items() if name not in self._sas}
        gone.reverse()  # the list is in the order of admission, and SAs from before a restart have no time
        gone.sort(key=lambda sa: (sa.name in self._ending, sa.since_s), reverse=True)
        for sa in gone:
            names = [name for name, each in unknown.items() if each.is_of(sa.identity)]
            successors = [sa.renamed(name, unknown.pop(name).unique_id) for name in names]
            for successor in successors:
                log.info("SA taken over", extra={"fields": {"sa": str(successor.name), "identity": sa.identity}})
            if successors:
                self._rename(sa, *successors)
        for name, each in standing.items():
            if each.is_established:
                before = self._sas.get(name)
                if before is not None and not before.since_s:
                    self._trusted.add(name)  # logged by the agent before the restart
                self.established(name)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_changes())
            group.create_task(self._sweep())
            group.create_task(self._tick())

    def _rename(self, old: LiveSa, *new: LiveSa) -> None:
        """Replace an SA by its successors; if it was marked to be ended, so are they."""
        why, departure = self._ending.get(old.name), self._departed.take(old.name)
        if departure is not None:
            why = departure.why
            self._unsure.add(old.digest)  # it may have changed between the two names
        for each in new:
            self._keep(each)
            if old.name in self._trusted:
                self._trusted.add(each.name)
            if why is not None:
                self._ending[each.name] = why
                self._wake.set()
        self.remove(old.name)

    def _keep(self, sa: LiveSa) -> None:
        self._insert(sa)
        if self._log is not None:
            self._log.add(sa)

    def _insert(self, sa: LiveSa) -> None:
        before = self._sas.get(sa.name)
        if before is not None:
            self._unlink(before)  # it may depend on another certificate
        self._sas[sa.name] = sa
        self._soonest_s = min(self._soonest_s, sa.not_after_s)
        for key in sa.leaves():
            self._of_key.setdefault(key, set()).add(sa.name)
        LIVE.set(len(self._sas))

    def _unlink(self, sa: LiveSa) -> None:
        for key in sa.leaves():
            names = self._of_key.get(key, set())
            names.discard(sa.name)
            if not names:
                self._of_key.pop(key, None)

    async def _follow_changes(self) -> None:
        left = await self._recheck(self._digests())
        while True:
            self._unsure |= left  # in a statement of its own, because others replace the set while this task waits
            changed = await self._watch.next_change()
            left = await self._recheck(self._digests(changed))

    def _digests(self, keys: frozenset[bytes] | None = None) -> list[CertDigest]:
        """Return the certificates of all live SAs, or of those that depend on one of the ledger's `keys`."""
        if keys is None:
            return list(dict.fromkeys(sa.digest for sa in self._sas.values()))
        names = (name for key in keys for name in self._of_key.get(key, ()))
        found = (self._sas.get(name) for name in names)
        return list(dict.fromkeys(sa.digest for sa in found if sa is not None))

    async def _tick(self) -> None:
        swept_s = self._clock.steady_s()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_S)
            self._wake.clear()
            if self._log is not None:
                self._log.catch_up()
            now_s = self._clock.steady_s()
            self._hold_to_lists()
            self._expire()
            await self._end_marked()
            self._departed.forget_old(now_s)
            if now_s >= swept_s + UNSEEN_S:
                swept_s = now_s
                await self._forget_gone()

    async def _sweep(self) -> None:
        """Check certificates that may have changed, and all of them while no changes are received.

        A sweep of all, or one without answers, is followed by a pause as long as the bound.
        """
        while True:
            await asyncio.sleep(TICK_S)
            fresh = self._watch.is_fresh()
            unsure = {digest for digest in self._unsure if digest in self._of_key}
            self._unsure = set()
            left = await self._recheck([*unsure] if fresh else [*dict.fromkeys([*unsure, *self._digests()])])
            self._unsure |= left & unsure
            UNCHECKED.set(len(left))
            if left or not fresh:
                await asyncio.sleep(self._watch.bound_s)

    def _hold_to_lists(self) -> None:
        """Check all SAs by changed lists, also while no node answers; a sweep checks the other rules."""
        if self._judge.policy == self._held_to:
            return
        self._held_to = self._judge.policy
        self._unsure.update(self._digests())
        for sa in self._sas.values():
            self._hold_to_list(sa)

    def _hold_to_list(self, sa: LiveSa) -> None:
        try:
            check_names(self._judge.policy, sa.peer(None, self._clock.now_s()))
        except PeerRefusedError as refusal:
            self._ending[sa.name] = refusal.untrusted()

    def _expire(self) -> None:
        """Mark SAs with expired certificates to be ended, unless the clock is known to be wrong."""
        try:
            now_s = self._watch.clock.checked_s()
        except ClockError:
            return
        if not self._watch.clock.set_forward_s():
            self._mark_expired(now_s)

    def _mark_expired(self, now_s: float) -> None:
        """Mark expired SAs; scan the list only when one is due, because it can have 100,000 entries."""
        if now_s <= self._soonest_s:
            return
        for sa in self._sas.values():
            if now_s > sa.not_after_s:
                self._ending[sa.name] = Untrusted("expired", "live SA", "the certificate has expired")
        later = (sa.not_after_s for sa in self._sas.values() if sa.not_after_s >= now_s)
        self._soonest_s = min(later, default=inf)

    async def _recheck(self, digests: list[CertDigest]) -> set[CertDigest]:
        """Check certificates again, and end the SAs of those that would not be admitted now.

        Stop at the first batch without any answer. Return the certificates that were not checked.
        """
        ordered = sorted(digests, key=self._unanswered.__contains__)
        left: set[CertDigest] = set()
        for at in range(0, len(ordered), SWEEP_AT_ONCE):
            batch = ordered[at : at + SWEEP_AT_ONCE]
            checked = await asyncio.gather(*map(self._recheck_one, batch))
            silent = {digest for digest, done in zip(batch, checked, strict=True) if not done}
            left |= silent
            if self._ending:
                self._wake.set()  # so that the daemon ends these while the next ones are checked
            if len(silent) == len(batch):
                self._unanswered = silent
                left.update(ordered[at + SWEEP_AT_ONCE :])
                break
        await self._end_marked()
        return left

    async def _recheck_one(self, digest: CertDigest) -> bool:
        """Check a certificate again; return whether that was possible."""
        try:
            found = await self._judge.ledger.ask(digest, step="live SA")
        except InquiryError as error:
            self._say_unchecked(str(error))
            return False
        if not self._checked(digest, found):
            return False
        if self._silent:
            self._silent = False
            log.info("live SAs can be checked again")
        return True

    def _say_unchecked(self, reason: str) -> None:
        """Log that live SAs cannot be checked: once, until a check succeeds again."""
        if not self._silent:
            self._silent = True
            log.warning("live SAs cannot be checked", extra={"fields": {"reason": reason}})

    def _checked(self, digest: CertDigest, found: Resolution) -> bool:
        """Mark the SAs of a certificate that would not be admitted now; return False if the clock is wrong."""
        try:
            now_s = self._watch.clock.checked_s()
        except ClockError as error:
            self._say_unchecked(str(error))
            return False
        for sa in filter(None, map(self._sas.get, self._of_key.get(digest, ()))):
            try:
                check_live(self._judge.policy, sa.peer(found, now_s))
            except PeerRefusedError as refusal:
                self._ending[sa.name] = refusal.untrusted()
        return True

    async def _end_marked(self) -> None:
        """End all marked SAs, END_AT_ONCE at a time; failures are retried at the next tick."""
        waiting = deque(self._ending.keys() - self._under_way)
        failed = 0

        async def work() -> None:
            nonlocal failed
            while waiting and failed < END_AT_ONCE:  # with the daemon gone, each attempt fails slowly
                name = waiting.popleft()
                if name not in self._under_way and not await self._end_one(name):
                    failed += 1

        await asyncio.gather(*(work() for _ in range(min(END_AT_ONCE, len(waiting)))))

    async def _end_one(self, name: SaName) -> bool:
        """End an SA that is marked; return False if the daemon does not answer."""
        sa, why = self._sas.get(name), self._ending.get(name)
        if sa is None or why is None:
            self._ending.pop(name, None)
            return True
        fields = {"sa": str(name), "code": why.code, "reason": why.sentence}
        self._under_way.add(name)
        try:
            ended = await self._control.end(sa, why.sentence)
        except VoiceDpkiError as error:
            self._unendable.warning("live SA cannot be ended", **fields, problem=str(error))
            return False
        finally:
            self._under_way.discard(name)
        if ended:
            ENDED.labels(why.code).inc()
            log.info("live SA ended", extra={"fields": fields})
            self._depart(sa, why)
        return True

    def _depart(self, sa: LiveSa, why: Untrusted | None) -> None:
        self._departed.add(sa, why, self._clock.steady_s())
        self.remove(sa.name)

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
        for sa in [sa for sa in self._sas.values() if sa.name not in standing and sa.since_s < oldest_s]:
            self._depart(sa, None)
