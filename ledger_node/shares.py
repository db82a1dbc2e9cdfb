"""Each member's share of the places where transactions wait for a block, so that none of them can take all.

Who a transaction is by is looked at only once so many wait that somebody may have too many. It need not be verified
here: an engine refuses what is not signed by whom it names at once, so that this never waits.
"""

from collections import Counter

from ledger_node.api import Orderer
from ledger_node.chain import Verdict
from ledger_node.engine import MAX_WAITING
from voice_dpki.ledger.refusals import Refused
from voice_dpki.ledger.transactions import OwnerStatus, Transaction
from voice_dpki.shell.limits import REFUSED, TooManyError

SHARE = MAX_WAITING // 4
"""Transactions of one member, and as many by the owners of its certificates, that may wait at a time."""

_NOT_TAKEN = REFUSED.labels("member-share")

_Name = tuple[str, bool]


class Shares:
    """Hands transactions to `orderer`, at most `share` of one member at a time."""

    def __init__(self, orderer: Orderer, share: int = SHARE) -> None:
        self._orderer = orderer
        self._share = share
        self._waiting: dict[object, bytes | _Name] = {}
        """What waits: the transaction itself, or who it is by where that was looked at."""

    async def submit(self, raw: bytes) -> Verdict:
        """Hand over a transaction; raises what `orderer` does, and TooManyError where its member has its share."""
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
    """Name whose share a transaction counts to; owners of a member's certificates have one of their own."""
    if not isinstance(waiting, bytes):
        return waiting
    try:
        body = Transaction.parse(waiting).body
    except Refused:
        return "", False
    return body.by, isinstance(body, OwnerStatus)
