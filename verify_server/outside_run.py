"""The signers outside the federation of a configured server, while it runs."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from verify_server.config import VerifySetup
from verify_server.federation import FederationMembers
from verify_server.outside import OutsideSigners
from verify_server.revocation import RevocationLists
from voice_dpki.effects import Clock
from voice_dpki.ledger.answers import InquiryError


@asynccontextmanager
async def outside_signers(setup: VerifySetup, clock: Clock, *, once: bool = False) -> AsyncIterator[OutsideSigners]:
    """Keep the certificates of signers outside the federation while the context lasts.

    What the members hold is read now and then, or `once` before the context begins.
    """
    outside, members = setup.outside, FederationMembers(clock)
    assert outside is not None
    client = setup.ledger.client(clock, setup.config.ledger_timeout_s, keeps_trust=False)
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(client)
        if once:
            with suppress(InquiryError):  # then no call from outside passes, and its verdict says why
                await members.read(client)
        else:
            await opened.enter_async_context(members.kept(client))
        signers = OutsideSigners(
            outside.authorities,
            members.federation,
            outside.reach,
            outside.fetcher().fetch,
            clock,
            outside.config.max_certificates,
            RevocationLists(
                outside.list_signers, outside.list_fetcher().fetch, clock, outside.config.revocation_unknown
            ),
        )
        opened.push_async_callback(signers.close)
        yield signers
