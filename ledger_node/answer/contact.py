"""An edge's contact with its node: while it is lost, inquiries fail at once instead of timing out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.metrics import gauge
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.wire.http_client import HttpTimeoutError, HttpUnreachableError
from voice_dpki.wire.ledger.client import NodeSilentError

CUT_OFF = gauge("ledger_edge_cut_off", "Whether the node that the edge asks does not answer (1) or does (0).")


class Contact:
    """Whether the other node answers, judged by the inquiries made to it."""

    def __init__(self) -> None:
        self._reason = ""
        self._asking: set[asyncio.Timeout] = set()
        CUT_OFF.set(0)
        SHORTFALLS.watch(self)

    @property
    def lost(self) -> bool:
        """Whether the other node does not answer."""
        return bool(self._reason)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Make an inquiry in this context; raises InquiryError as soon as the contact is lost, or at once."""
        if self.lost:
            raise self._error()
        try:
            async with asyncio.timeout(None) as limit:
                self._asking.add(limit)
                try:
                    yield
                finally:
                    self._asking.discard(limit)
        except TimeoutError:
            raise self._error() from None
        except (NodeSilentError, HttpUnreachableError, HttpTimeoutError) as error:
            self.lose(str(error))
            raise
        self.regain()

    def lose(self, reason: str) -> None:
        """Note that the other node does not answer, and end all pending inquiries to it."""
        if self.lost:
            return
        self._reason = reason
        CUT_OFF.set(1)
        now_s = asyncio.get_running_loop().time()
        for limit in self._asking:
            with suppress(RuntimeError):  # its question ends already
                limit.reschedule(now_s)
        self._asking.clear()

    def regain(self) -> None:
        """Note that the other node has answered."""
        if self.lost:
            self._reason = ""
            CUT_OFF.set(0)

    def shortfall(self) -> str:
        """Return a sentence while the contact is lost."""
        return "the edge is cut off: it answers what it holds, and nothing else" if self.lost else ""

    def _error(self) -> InquiryError:
        return InquiryError(InquiryCode.UNREACHABLE, f"the edge is cut off from it: {self._reason}")
