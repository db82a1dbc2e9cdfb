"""A node whose release lacks the rules that the ledger is about to follow.

The node takes no block from the first one on that it cannot judge. It stays up, because its stored state is still
proved: it answers inquiries, with the age of its newest header, and refuses transactions.
"""

import asyncio
import logging

from ledger_node.keep.chain import Chain, TxOutcome
from ledger_node.order.orderer import Orderer, UnavailableError
from voice_dpki.ledger.activation import scheduled
from voice_dpki.ledger.rules import VERSIONS, MissingRulesError
from voice_dpki.metrics import gauge
from voice_dpki.shell.metrics import Health
from voice_dpki.shortfalls import SHORTFALLS

log = logging.getLogger(__name__)

OUTDATED = gauge("ledger_outdated", "1 while this release lacks the rules that the ledger follows, else 0.")


class UntilOutdated:
    """Hands everything to `orderer` until the ledger follows rules that this release lacks."""

    def __init__(self, orderer: Orderer, chain: Chain) -> None:
        self._orderer = orderer
        self._chain = chain
        self._problem = ""
        self._warned = False
        self._ended = False
        SHORTFALLS.watch(self)

    async def submit(self, raw: bytes) -> TxOutcome:
        """Hand over a transaction; raises as `orderer` does, and UnavailableError once this release is outdated."""
        try:
            if not self._problem:
                return await self._orderer.submit(raw)
        except MissingRulesError as error:
            raise UnavailableError(str(error)) from None
        raise UnavailableError(self._problem)

    async def run(self) -> None:
        """Keep the chain going until cancelled; wait if this release is outdated."""
        self.shortfall()
        try:
            await self._orderer.run()
        except MissingRulesError as error:
            self._problem = str(error)
            OUTDATED.set(1)
            log.critical("release is outdated", extra={"fields": {"reason": self._problem}})
            await asyncio.Event().wait()
        finally:
            self._ended = True  # the chain is closed next

    def health(self) -> Health:
        """Say whether this node can take part in the next block."""
        return Health(not self._problem, {"detail": self._problem} if self._problem else {})

    def shortfall(self) -> str:
        """Return a warning while rules are decided that this release lacks; log the first one."""
        if self._ended or self._problem:
            return ""
        with self._chain.snapshot() as view:
            coming = scheduled(view, view.height)
        if coming is None or coming[0] in VERSIONS:
            return ""
        note = str(MissingRulesError(*coming))
        if not self._warned:
            log.warning("release will be outdated", extra={"fields": {"reason": note}})
        self._warned = True
        return note
