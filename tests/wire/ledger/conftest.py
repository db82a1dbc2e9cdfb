"""The fixtures of the ledger's cores, for its clients."""

from tests.ledger.conftest import chain, federation

__all__ = ["chain", "federation"]
