"""A cache of all members of the ledger, read with proof at intervals, for lookups during calls."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from voice_dpki.effects import Clock
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.directory import DIRECTORY_KEY, DIRECTORY_LEAF
from voice_dpki.ledger.members import MEMBER_LEAF, Member, member_key
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.wire.seldom import Seldom
from voice_dpki.wire.tasks import running

log = logging.getLogger(__name__)
_SAID = Seldom(log)

EVERY_S: Final = 30.0
"""How often the members are read. For so long, a newly allotted number can still count as its former holder's."""
AGAIN_S: Final = 1.0
MAX_AGE_S: Final = 120.0
"""How long the cache is used while the node does not answer."""


class KeptMembers:
    """The members of the ledger by organisation, as last read."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: Mapping[str, Member] | None = None
        self._read_s = 0.0

    def members(self) -> Mapping[str, Member]:
        """Return them, the same object until they are read again; raises InquiryError where they are too old."""
        if self._held is None or self._clock.steady_s() - self._read_s > MAX_AGE_S:
            raise InquiryError(InquiryCode.STALE, "the members of the federation are not known at this time")
        return self._held

    async def read(self, client: LedgerClient) -> None:
        """Read all members; raises InquiryError."""
        began_s = self._clock.steady_s()
        (names,) = await client.read(DIRECTORY_LEAF, [DIRECTORY_KEY])
        members = await client.read(MEMBER_LEAF, [member_key(name) for name in names or ()])
        self._held = {member.organization: member for member in members if member is not None}
        self._read_s = began_s

    @asynccontextmanager
    async def kept(self, client: LedgerClient) -> AsyncIterator[None]:
        """Read the members every EVERY_S seconds while the context lasts."""
        async with running(self._run(client)):
            yield

    async def _run(self, client: LedgerClient) -> None:
        while True:
            try:
                await self.read(client)
            except InquiryError as error:
                _SAID.warning("the members of the federation could not be read", reason=str(error))
                await asyncio.sleep(AGAIN_S)
            except Exception as error:  # the task must go on, or nothing would be known of the members any more
                _SAID.error("the members of the federation could not be read", error)
                await asyncio.sleep(AGAIN_S)
            else:
                await asyncio.sleep(EVERY_S)
