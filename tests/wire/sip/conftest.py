"""The fixtures of SIP's shells, and those of its cores for them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.sip.conftest import make_random, random, request_text
from tests.wire.sip.agents import CALLEE, CALLER, FAST, HOST, Make, Peer
from voice_dpki.sip.message import Hop
from voice_dpki.wire.sip.registration import Backoff
from voice_dpki.wire.sip.user_agent import Account, UserAgent

__all__ = ["make_random", "random", "request_text"]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    agents = []

    async def make_one(account: Account, proxy: Hop, **options: Any) -> UserAgent:
        options = {"udp_max_bytes": 9000, "backoff": Backoff(0.02, 0.1), "transfers": True, **options}
        agent = UserAgent(account, host=HOST, proxy=proxy, timers=FAST, **options)
        await agent.start()
        agents.append(agent)
        return agent

    yield make_one
    for agent in agents:
        await agent.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Peer, local_addr=(HOST, 0))
    protocol.transport = transport
    yield protocol
    transport.close()


@pytest.fixture
async def pair(make: Make) -> tuple[UserAgent, UserAgent]:
    """A callee, and a caller for whom it is the next hop."""
    callee = await make(CALLEE, Hop("udp", HOST, 9))
    return await make(CALLER, callee.address), callee
