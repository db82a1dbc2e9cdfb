"""The interface of all engines that order transactions, and its errors."""

from typing import Protocol, Self

import msgspec

from ledger_node.keep.chain import TxOutcome
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.state import TxResult

MAX_OUTCOME_BYTES = 64 * 1024
"""Most bytes read of an answer to a transaction."""


class BusyError(PeerError):
    """No transaction is accepted now, for instance because the backlog is full."""


class UnavailableError(LocalError):
    """No answer came in time; whether a transaction was taken is unknown."""


class RefusedByLedgerError(PeerError):
    """The ledger refuses a request; `result` has the code, name and sentence."""

    def __init__(self, result: TxResult) -> None:
        super().__init__(result.detail)
        self.result = result


class OutcomeForm(msgspec.Struct):
    """A node's answer to a transaction, as JSON; `height` is that of its block, None without a block."""

    code: int
    name: str
    detail: str
    height: int | None = None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an answer; raises ValueError for anything else."""
        return msgspec.json.decode(data, type=cls)


class Orderer(Protocol):
    """The part that orders transactions: this node's engine, or the follower, which asks another node."""

    async def submit(self, raw: bytes) -> TxOutcome:
        """Hand over a transaction and return its verdict; raises BusyError, UnavailableError or TooManyError."""
        ...

    async def run(self) -> None:
        """Keep the chain going until cancelled; raises the error after which it cannot go on."""
        ...
