"""Members' shares of the mempool: no member can fill it and keep the others' transactions out.

The mempool also takes transactions from other nodes, so a limit on this node's own API
(`ledger_node.order.shares`) is not enough. CometBFT rechecks every transaction in the mempool after each block, and
the recheck counts them anew.
"""

import hashlib
from collections import Counter

from ledger_node.abci.cometbft import MEMPOOL_TRANSACTIONS
from ledger_node.order.shares import sender_of
from voice_dpki.ledger.draft import TxResult
from voice_dpki.shell.limits import REFUSED

SHARE = MEMPOOL_TRANSACTIONS // 4
"""Most transactions of one member in the mempool; the owners of its certificates together may have as many."""

FULL = TxResult(99, "member-share", "Too many transactions of this member wait for a block already; come again.")
"""Keeps a transaction out of this mempool only: the ledger does not refuse it, and a block can hold it."""

_NOT_TAKEN = REFUSED.labels("mempool-share")


class Pool:
    """A count of the mempool's transactions by sender."""

    def __init__(self, share: int = SHARE) -> None:
        self._share = share
        self._senders: dict[bytes, tuple[str, bool]] = {}
        self._before: dict[bytes, tuple[str, bool]] = {}
        self._counts: Counter[tuple[str, bool]] = Counter()

    @property
    def is_empty(self) -> bool:
        """Whether no transaction is in the mempool."""
        return not self._senders

    def begin(self) -> None:
        """Start a new count, after a block."""
        self._before, self._senders = self._senders, {}
        self._counts.clear()

    def enter(self, raw: bytes) -> bool:
        """Count a new transaction, which its sender signed; return whether the sender's share has room for it."""
        sender = self._sender(raw)
        if self._counts[sender] > self._share:
            _NOT_TAKEN.inc()
            self._forget(raw)
            return False
        return True

    def keep(self, raw: bytes) -> None:
        """Count a transaction that stays in the mempool."""
        self._sender(raw)

    def _sender(self, raw: bytes) -> tuple[str, bool]:
        name = hashlib.sha256(raw).digest()
        sender = self._before.get(name) or self._senders.get(name) or sender_of(raw)
        if name not in self._senders:
            self._senders[name] = sender
            self._counts[sender] += 1
        return sender

    def _forget(self, raw: bytes) -> None:
        self._counts[self._senders.pop(hashlib.sha256(raw).digest())] -= 1
