"""Members' shares of the mempool: no member can keep the transactions of all others out of it.

The mempool takes what other nodes pass on, so that bounds at one's own door (`ledger_node.shares`) do not suffice.
CometBFT has what it keeps judged again after each block: so the counts are made afresh between two blocks.
"""

import hashlib
from collections import Counter

from ledger_node.cometbft import MEMPOOL_TRANSACTIONS
from ledger_node.shares import sender_of
from voice_dpki.ledger.draft import TxResult
from voice_dpki.shell.limits import REFUSED

SHARE = MEMPOOL_TRANSACTIONS // 4
"""Transactions of one member, and as many by the owners of its certificates, in the mempool at a time."""

FULL = TxResult(99, "member-share", "Too many transactions of this member wait for a block already; come again.")
"""Keeps a transaction out of the mempool. It is no refusal of the ledger: blocks may hold the transaction."""

_NOT_TAKEN = REFUSED.labels("mempool-share")


class Pool:
    """Whose transactions are in the mempool."""

    def __init__(self, share: int = SHARE) -> None:
        self._share = share
        self._senders: dict[bytes, tuple[str, bool]] = {}
        self._before: dict[bytes, tuple[str, bool]] = {}
        self._counts: Counter[tuple[str, bool]] = Counter()

    def begin(self) -> None:
        """Begin to count afresh, after a block."""
        self._before, self._senders = self._senders, {}
        self._counts.clear()

    def enter(self, raw: bytes) -> bool:
        """Count a transaction that is new and signed by its sender; tell whether that has room for it."""
        sender = self._sender(raw)
        if self._counts[sender] > self._share:
            _NOT_TAKEN.inc()
            self._forget(raw)
            return False
        return True

    def keep(self, raw: bytes) -> None:
        """Count a transaction that stays."""
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
