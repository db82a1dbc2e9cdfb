"""The number of peers that a node is connected to, as metric and readiness check."""

import asyncio

from ledger_node.abci.rpc import Rpc, RpcError
from voice_dpki.errors import MalformedError
from voice_dpki.metrics import gauge
from voice_dpki.shell.readiness import Finding, failed_if, warned_if

PEERS = gauge("ledger_peers", "Nodes that this node's CometBFT is connected to.")
CONFIGURED = gauge("ledger_peers_configured", "Nodes in this node's list of peers, to which it keeps connecting.")

LOOK_S = 5.0
"""How often CometBFT is asked."""


class PeerCount:
    """Asks a node's CometBFT for the number of its peers; `configured` of them should always be there."""

    def __init__(self, configured: int) -> None:
        self._configured = configured
        self._count: int | None = None
        """None while CometBFT does not answer."""
        CONFIGURED.set(configured)

    async def run(self, rpc: Rpc) -> None:
        """Ask every LOOK_S seconds, until cancelled."""
        while True:
            await self.look(rpc)
            await asyncio.sleep(LOOK_S)

    async def look(self, rpc: Rpc) -> None:
        """Ask once."""
        try:
            self._count = await rpc.peers()
        except (RpcError, MalformedError):
            self._count = None
        PEERS.set(self._count or 0)

    def check(self) -> Finding:
        """Return a finding on whether all configured peers are connected; without peers there is no consensus."""
        if not self._configured:
            return failed_if("")
        if self._count is None:
            return warned_if("CometBFT has not told how many peers it has")
        if not self._count:
            return failed_if(f"none of {self._configured} configured peers is connected")
        fewer = self._count < self._configured
        return warned_if(f"{self._count} of {self._configured} peers are connected" if fewer else "")
