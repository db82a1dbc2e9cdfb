"""Each member's share of the backlog of transactions that wait for a block, so that no member can fill it.

The sender is checked only when the backlog is long enough for one member to exceed its share. Its signature is not
verified here: an engine refuses a badly signed transaction at once, so that it never waits.
"""

from collections import Counter

from ledger_node.keep.chain import TxOutcome
from ledger_node.order.engine import MAX_WAITING
from ledger_node.order.orderer import Orderer
from voice_dpki.ledger.refusals import Refused
from voice_dpki.ledger.transactions import Transaction, kind_of
from voice_dpki.metrics import follow, gauge
from voice_dpki.shell.limits import REFUSED, TooManyError

SHARE = MAX_WAITING // 4
"""Most transactions of one member in the backlog; the owners of its certificates together may have as many."""

WAITING = gauge("ledger_waiting_transactions", "Transactions that wait for a block here.")

_NOT_TAKEN = REFUSED.labels("member-share")

_Name = tuple[str, bool]


class Shares:
    """Hands transactions to `orderer`, at most `share` of one member at a time."""

    def __init__(self, orderer: Orderer, share: int = SHARE) -> None:
        self._orderer = orderer
        self._share = share
        self._waiting: dict[object, bytes | _Name] = {}
        """The backlog: each transaction's bytes, or its sender once that was parsed."""
        follow(WAITING, self._waiting.__len__)

    async def submit(self, raw: bytes) -> TxOutcome:
        """Hand over a transaction; raises as `orderer` does, and TooManyError if its member has used its share."""
        name = self._admitted(raw) if len(self._waiting) >= self._share else raw
        place = object()
        self._waiting[place] = name
        try:
            return await self._orderer.submit(raw)
        finally:
            del self._waiting[place]

    async def run(self) -> None:
        """Keep the chain going until cancelled."""
        await self._orderer.run()

    def _admitted(self, raw: bytes) -> _Name:
        for place, waiting in self._waiting.items():
            self._waiting[place] = sender_of(waiting)
        name = sender_of(raw)
        if Counter(self._waiting.values())[name] >= self._share:
            _NOT_TAKEN.inc()
            raise TooManyError("too many transactions of this member wait for a block already", 1)
        return name


def sender_of(waiting: bytes | _Name) -> _Name:
    """Return the member to whose share a transaction counts, and whether a certificate's owner sent it.

    Owners of a member's certificates have a share of their own. A transaction that cannot be parsed counts to "".
    """
    if not isinstance(waiting, bytes):
        return waiting
    try:
        body = Transaction.parse(waiting).body
    except Refused:
        return "", False
    return body.by, not kind_of(body).sender.is_member
