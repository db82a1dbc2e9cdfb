"""kill -9 in the middle of many submissions: nothing that was acknowledged is lost, and all replicas agree."""

import asyncio
from typing import Any

from voice_dpki.ledger import tree
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.replica import Replica, SignedBlock
from voice_dpki.ledger.state import MemoryState
from voice_dpki.wire.ledger.client import LedgerClient, SubmissionError
from voice_dpki.x509.profile import digest_of

SUBMISSIONS = 1000
CLIENTS = 20


class Submitters:
    """Clients that submit at the same time, each repeating what failed, and kill a node as they go."""

    def __init__(self, client: LedgerClient, token: str, victim: Any, kills: set[int]) -> None:
        """Kill `victim` at the moment when the number of acknowledged submissions is one of `kills`."""
        self.client = client
        self.token = token
        self.victim = victim
        self.kills = kills
        self.acknowledged: list[bytes] = []
        self.waiting: list[bytes] = []
        self.starts: list[asyncio.Task[Any]] = []

    async def submit(self, ders: list[bytes]) -> None:
        self.waiting = list(ders)
        await asyncio.gather(*(self._work() for _ in range(CLIENTS)))
        await asyncio.gather(*self.starts)

    async def _work(self) -> None:
        while self.waiting:
            der = self.waiting.pop()
            try:
                receipt = await self.client.submit(der, self.token)
            except SubmissionError as error:
                if error.name != "unavailable":
                    raise
                self.waiting.append(der)
                await asyncio.sleep(0.05)
            else:
                assert receipt.status is CertStatus.VALID
                self.acknowledged.append(der)
                if len(self.acknowledged) in self.kills:
                    self.victim.kill()
                    self.starts.append(asyncio.create_task(asyncio.to_thread(self.victim.start)))


def status(node: Any, der: bytes) -> str:
    return str(node.http.get(f"/ledger/v1/status/{digest_of(der).hex()}").json()["status"])


def replay(network: Any, node: Any) -> MemoryState:
    """Fetch all blocks and execute them anew in memory."""
    state = network.genesis.initial_state()
    replica = Replica(state, None)
    for height in range(1, node.info()["height"] + 1):
        block = node.http.get(f"/ledger/v1/blocks/{height}").content
        for executed in replica.take(SignedBlock.from_json(block)).executed:
            state.commit(executed.outcome)
    return state


async def test_kill_in_the_middle_of_a_thousand_submissions(network: Any, token: str) -> None:
    engine = network.engine(heartbeat_s=0.5).start()
    replica = network.follower("replica", engine.url).start()
    ders = [network.certificate() for _ in range(SUBMISSIONS)]
    async with network.client(engine) as client:
        submitters = Submitters(client, token, engine, {250, 500, 750})
        await submitters.submit(ders)
    assert len(submitters.starts) == 3
    assert sorted(submitters.acknowledged) == sorted(ders)

    replica.reaches(engine.info()["height"])
    engine.stop()
    never_killed = replica.info()
    state = replay(network, replica)
    assert sorted(state.certificates.values()) == sorted(ders)
    assert tree.root(state).hex() == never_killed["app_hash"]
    engine.start()
    assert engine.info()["app_hash"] == never_killed["app_hash"]


async def test_kill_of_a_follower_that_submits(network: Any, token: str) -> None:
    engine = network.engine(heartbeat_s=0.5).start()
    follower = network.follower("a", engine.url, "Operator A").start()
    ders = [network.certificate() for _ in range(60)]
    async with network.client(follower) as client:
        await Submitters(client, token, follower, {20}).submit(ders)
    assert {status(follower, der) for der in ders} == {"valid"}
    follower.reaches(engine.info()["height"])
    assert follower.info()["app_hash"] == engine.info()["app_hash"]
