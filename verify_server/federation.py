"""What the members of the ledger hold together, read with proof now and then: nobody outside may claim it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from voice_dpki.effects import Clock
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.directory import DIRECTORY_KEY, DIRECTORY_LEAF
from voice_dpki.ledger.members import MEMBER_LEAF, member_key
from voice_dpki.stir.verdict import Step, VerificationFailed
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.tasks import running
from voice_dpki.x509.listed import Federation

log = logging.getLogger(__name__)
_SAID = Seldom(log)

EVERY_S: Final = 30.0
"""How often the members are read. A number that is allotted anew may be an outsider's for so long."""
AGAIN_S: Final = 1.0
MAX_AGE_S: Final = 120.0
"""For how long what was read is believed while the node cannot be asked."""


class Members:
    """The members of the ledger, as they were last read."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: Federation | None = None
        self._read_s = 0.0

    def federation(self) -> Federation:
        """Return what they hold; raises VerificationFailed where that is not known or too old."""
        if self._held is None or self._clock.steady_s() - self._read_s > MAX_AGE_S:
            raise VerificationFailed(
                Step.LEDGER, "what numbers the members of the federation hold is not known at this time"
            )
        return self._held

    async def read(self, client: LedgerClient) -> None:
        """Read all members; raises InquiryError."""
        began_s = self._clock.steady_s()
        (names,) = await client.read(DIRECTORY_LEAF, [DIRECTORY_KEY])
        members = await client.read(MEMBER_LEAF, [member_key(name) for name in names or ()])
        held = {member.organization: member.allotment for member in members if member is not None}
        self._held, self._read_s = Federation(held), began_s

    @asynccontextmanager
    async def kept(self, client: LedgerClient) -> AsyncIterator[None]:
        """Read them now and then while the context lasts."""
        async with running(self._run(client)):
            yield

    async def _run(self, client: LedgerClient) -> None:
        while True:
            try:
                await self.read(client)
            except InquiryError as error:
                _SAID.warning("the members of the federation could not be read", reason=str(error))
                await asyncio.sleep(AGAIN_S)
            except Exception as error:  # the task must go on, or no call from outside would be verified any more
                _SAID.error("the members of the federation could not be read", error)
                await asyncio.sleep(AGAIN_S)
            else:
                await asyncio.sleep(EVERY_S)
