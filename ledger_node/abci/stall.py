"""A ledger that makes no block: which validators' votes its CometBFT waits for, in log, metric and health."""

import asyncio
import logging
import time

from ledger_node.abci.rpc import Rpc, RpcError
from ledger_node.keep.chain import Chain
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.directory import members_of
from voice_dpki.ledger.validators import validator_sets
from voice_dpki.metrics import gauge
from voice_dpki.shortfalls import SHORTFALLS

log = logging.getLogger(__name__)

STALLED = gauge("ledger_stalled_seconds", "Seconds since the last block while blocks are overdue, else 0.")

LOOK_S = 5.0
"""How often a node looks whether a block has come."""

LATE_BEATS = 6
SHORTEST_S = 30.0
"""A block is overdue after LATE_BEATS heartbeats, and not before SHORTEST_S."""

MAX_NAMED = 8
"""Validators that are named; of the others only the number is told."""


class Stall:
    """Watches a node's CometBFT once the ledger has blocks."""

    def __init__(self, chain: Chain, rpc: Rpc, heartbeat_s: float) -> None:
        self._chain = chain
        self._rpc = rpc
        self._late_s = max(SHORTEST_S, LATE_BEATS * heartbeat_s)
        self._height, self._since_s = chain.height, time.monotonic()
        self._waited_for = ""
        SHORTFALLS.watch(self)

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                await self._look()
        finally:
            STALLED.set(0)

    async def _look(self) -> None:
        """Note for how long no block has come, and log it if it is waited for others than before."""
        quiet_s = self._quiet_s()
        STALLED.set(quiet_s)
        waited_for = await self._missing() if quiet_s else ""
        if waited_for != self._waited_for:
            self._waited_for = waited_for
            fields = {"reason": self.shortfall(), "height": self._chain.height}
            log.warning("no block" if waited_for else "blocks again", extra={"fields": fields})

    def _quiet_s(self) -> float:
        """Return the seconds since the last block if the next one is overdue, else 0."""
        if self._chain.height != self._height or not self._height:
            self._height, self._since_s = self._chain.height, time.monotonic()
        quiet_s = time.monotonic() - self._since_s
        return quiet_s if self._height and quiet_s >= self._late_s else 0.0

    def shortfall(self) -> str:
        """Say for how long no block has come, and what is waited for; empty if blocks come."""
        if not self._waited_for or not (quiet_s := self._quiet_s()):
            return ""
        return f"no block for {quiet_s:.0f} s, {self._waited_for}"

    async def _missing(self) -> str:
        try:
            voted = await self._rpc.voters()
        except (RpcError, MalformedError) as error:
            return f"and CometBFT does not tell whose votes are missing: {error}"
        with self._chain.snapshot() as view:
            keys = [validator.public_key for validator in validator_sets(view)[0].validators]
            owners = {key: member.organization for member in members_of(view) for key in member.validators}
        return waiting_for([(owners.get(key, "nobody"), key) for key in keys], voted)


def waiting_for(validators: list[tuple[str, bytes]], voted: frozenset[int]) -> str:
    """Return whose votes are missing: of `validators`, each with its owner, those not at a place in `voted`."""
    missing = sorted(each for place, each in enumerate(validators) if place not in voted)
    if not missing:
        return "though all validators vote"
    named = [f"{owner} ({key.hex()[:12]})" for owner, key in missing[:MAX_NAMED]]
    more = [f"{len(missing) - MAX_NAMED} more"] if len(missing) > MAX_NAMED else []
    return f"waiting for votes of {', '.join([*named, *more])}: {len(missing)} of {len(validators)} validators"
