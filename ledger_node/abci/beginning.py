"""A node that has no block yet: it reports what it waits for, and restarts CometBFT to retry snapshots.

CometBFT drops a snapshot for good after any failure, such as an RPC server that still lacks the next header, and
after some errors it tries no other. Then it waits forever and logs nothing. After a restart it tries all again.
"""

import asyncio
import logging
from pathlib import Path

from ledger_node.abci.cometbft import SNAPSHOT_BLOCKS, CometbftSection
from ledger_node.abci.rpc import Rpc, RpcError
from ledger_node.abci.snapshots import Restoration
from ledger_node.keep.chain import Chain
from voice_dpki.errors import MalformedError
from voice_dpki.shortfalls import SHORTFALLS

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Interval at which a node without blocks checks its progress."""

PATIENCE_S = 60.0
"""How long a node waits for a snapshot, or for its next chunk, before it restarts CometBFT."""

PAUSE_S = 10.0
"""Pause before a CometBFT that has ended is restarted."""

MAX_LINE_BYTES = 1000
"""How much of the end of CometBFT's log is reported."""


class Beginning:
    """Watches a node until it has its first block; then it does nothing more."""

    def __init__(self, chain: Chain, rpc: Rpc, restoration: Restoration, settings: CometbftSection) -> None:
        self._chain = chain
        self._rpc = rpc
        self._restoration = restoration
        self._settings = settings
        self._note = ""
        SHORTFALLS.watch(self)

    async def run(self) -> None:
        """Return when CometBFT must be restarted, because it waits for a snapshot without progress."""
        quiet_s, progress = 0.0, self._restoration.progress
        while not self._chain.height:
            await asyncio.sleep(LOOK_S)
            await self._look()
            quiet_s = quiet_s + LOOK_S if progress == self._restoration.progress else 0.0
            progress = self._restoration.progress
            if self._settings.state_sync and quiet_s >= PATIENCE_S and not self._chain.height:
                log.warning("snapshots are tried again", extra={"fields": {"reason": self._note}})
                return
        await asyncio.Event().wait()

    async def try_again(self, comet_log: Path) -> bool:
        """Return, after a pause, whether a CometBFT that has ended could find a snapshot after a restart.

        It ends, for instance, if an RPC server does not answer.
        """
        if self._chain.height or self._settings.state_sync is None:
            return False
        why = await asyncio.to_thread(_last_line, comet_log)
        log.warning("snapshots are tried again", extra={"fields": {"reason": f"CometBFT ended: {why}"}})
        await asyncio.sleep(PAUSE_S)
        return True

    async def _look(self) -> None:
        """Note what the node waits for, and log it if that has changed."""
        try:
            peers = await self._rpc.peers()
        except (RpcError, MalformedError):
            peers = 0
        note = "" if self._chain.height else self._waited_for(peers)
        if note and note != self._note:
            log.warning("no block yet", extra={"fields": {"reason": note}})
        self._note = note

    def shortfall(self) -> str:
        """Return what the node waits for while it has no block."""
        return "" if self._chain.height else self._note

    def _waited_for(self, peers: int) -> str:
        wanted = len(self._settings.peers)
        if wanted and not peers:
            return (
                f"no block yet: none of the {wanted} configured peers lets this node connect: each must run, be "
                "reachable, and list this node's id (ledger-node id) in `peers` or `admitted`"
            )
        connected = f"no block yet, connected to {peers} nodes"
        sync = self._settings.state_sync
        if sync is None:
            return f"{connected}: a new ledger begins once more than two thirds of its validators run"
        return (
            f"{connected}: this node begins with a snapshot, and got {self._progress()} so far. Nodes take one "
            f"every `snapshot_blocks` blocks, {SNAPSHOT_BLOCKS} if not configured, and "
            f"{' and '.join(sync.rpc_servers)} must be reachable. Without [cometbft.state_sync] this node would "
            "fetch all blocks, if its peers have them still"
        )

    def _progress(self) -> str:
        offers, chunks = self._restoration.progress
        return f"{offers} offers and {chunks} chunks" if offers else "none"


def _last_line(path: Path) -> str:
    """Return the end of the last line of a log, for people; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - MAX_LINE_BYTES))
            lines = file.read(MAX_LINE_BYTES).decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
