"""The feed of changes for subscribers, in steps whose completeness they can check (`voice_dpki.ledger.changes`).

The feed compares the states before and after each commit, so it does not depend on how blocks reach this node's
store or what is in them. It keeps the last steps, so that a subscriber that was away for a while can resume. It
computes no steps while there are no subscribers.
"""

import asyncio
import math
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass

from ledger_node.keep.chain import Chain
from ledger_node.keep.mapped import MovedError
from ledger_node.keep.store import StoreView, parse_signed_header
from ledger_node.keep.waiters import HeightWaiters
from voice_dpki.ledger import tree
from voice_dpki.ledger.answer_forms import tail_bytes
from voice_dpki.ledger.changes import MAX_STEPS, encode_step

KEPT_BYTES = 3 * 1024 * 1024
"""Most bytes of steps kept: those of some 400 blocks, but at least the newest step. A subscriber that was away for
longer asks again about the leaves that it holds. That costs less than the memory for more steps in every node."""

IDLE_S = 60.0
"""How long steps are still computed after the last inquiry for changes."""


@dataclass(frozen=True, slots=True)
class _Step:
    before: bytes
    after: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class _State:
    """A state, and the header that proves it."""

    view: StoreView
    opened: ExitStack
    """Holds the view's transaction open; close it when the view is no longer needed."""
    signed_header: bytes
    height: int
    root: bytes


class Feed:
    """The changes of one chain; `run` computes the steps."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._steps: deque[_Step] = deque(maxlen=MAX_STEPS)
        self._state: _State | None = None
        self._waiters = HeightWaiters()
        self._asked_s = -math.inf
        self._stopping = False

    async def run(self) -> None:
        """Follow the chain until cancelled."""
        try:
            while True:
                changed = self._chain.changed  # taken before the state is read, so that no write is missed
                await self._take()
                await changed.wait()
        finally:
            self.stop_waiting()
            if self._state is not None:
                self._state.opened.close()

    async def changes(self, root: bytes, height: int, wait_s: float) -> bytes | None:
        """Answer with the changes since the state with this root, as soon as there is a header above `height`.

        Waits at most `wait_s`. The steps are null where no state with this root is kept. Returns None while there
        is no header at all.
        """
        self._asked_s = asyncio.get_running_loop().time()
        if (self._state is None or self._state.height <= height) and not self._stopping:
            await self._waiters.wait(height + 1, wait_s)
        state = self._state
        if state is None:
            return None
        steps = self._since(root, state)
        known = b"null" if steps is None else b"[%s]" % b",".join(step.data for step in steps)
        return b'{"steps":%s%s' % (known, tail_bytes(state.height, state.signed_header))

    def stop_waiting(self) -> None:
        """End all waiting for changes, now and later."""
        self._stopping = True
        self._waiters.release()

    def _since(self, root: bytes, state: _State) -> list[_Step] | None:
        """Return the steps that lead on from the newest state with this root; None if no such state is kept."""
        if root == state.root:
            return []
        steps = list(self._steps)
        begins = [index for index, step in enumerate(steps) if step.before == root]
        return steps[begins[-1] :] if begins else None

    async def _take(self) -> None:
        """Read the newest state, and compute the step to it if there were subscribers lately."""
        before, after = self._state, _newest(self._chain)
        if after is None:
            return
        if before is not None and before.root != after.root:
            await self._step(before, after)
        self._state = after
        if before is not None:
            before.opened.close()
        self._waiters.reach(after.height)

    async def _step(self, before: _State, after: _State) -> None:
        if asyncio.get_running_loop().time() - self._asked_s > IDLE_S:
            self._steps.clear()
            return
        try:
            data = await asyncio.to_thread(lambda: encode_step(tree.diff(before.view, after.view)))
        except MovedError:  # subscribers ask again about what they hold
            self._steps.clear()
            return
        self._steps.append(_Step(before.root, after.root, data))
        while len(self._steps) > 1 and sum(len(step.data) for step in self._steps) > KEPT_BYTES:
            self._steps.popleft()


def _newest(chain: Chain) -> _State | None:
    """Open the newest proved state; None while there is none."""
    with ExitStack() as opened:
        view = opened.enter_context(chain.snapshot())
        signed_header = view.tip_json
        if signed_header is None:
            return None
        header = parse_signed_header(signed_header).header
        return _State(view, opened.pop_all(), signed_header, header.height, header.app_hash)
