"""When a node with a store is ready: a block that is young enough, room on its disk, peers, and its rules."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from ledger_node.abci.peer_count import PeerCount
from ledger_node.abci.rpc import RpcError
from ledger_node.answer.ready import BlockAge, release_check
from ledger_node.keep.chain import Chain
from ledger_node.keep.space import FULL_BYTES, Room, Space
from ledger_node.keep.store import Store, parse_signed_header
from tests.clocks import SettableClock
from voice_dpki.shell.metrics import Health

GB = 10**9


@pytest.fixture
def chain(network: Any, tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(Store(tmp_path / "data", network.genesis), network.genesis)
    yield chain
    if not chain.closed:
        chain.close()


def test_a_node_without_a_young_block_is_not_ready(chain: Chain, network: Any) -> None:
    clock = SettableClock(0)
    blocks = BlockAge(chain, clock, 60).watched()
    assert (blocks.check().state, blocks.check().reason) == ("failed", "this node has no block yet")
    assert REGISTRY.get_sample_value("voice_dpki_ledger_block_age_seconds") == math.inf
    for step in network.maker().steps([network.submission_of(network.certificate())], [], []):
        chain.store.commit(step)
    with chain.snapshot() as view:
        tip = view.tip_json
        assert tip
    made_s = parse_signed_header(tip).header.time_ns / 1e9
    clock.elapse(made_s + 60)
    assert blocks.check().state == "ok"
    assert REGISTRY.get_sample_value("voice_dpki_ledger_block_age_seconds") == pytest.approx(60)
    clock.elapse(1)
    assert (blocks.check().state, "61 s old" in blocks.check().reason) == ("failed", True)
    chain.close()
    assert blocks.age_s() == math.inf


def test_rules_that_this_release_lacks_fail_and_those_to_come_warn() -> None:
    told = {"now": "", "soon": ""}
    check = release_check(lambda: Health(not told["now"], {"detail": told["now"]}), lambda: told["soon"])
    assert check().state == "ok"
    told["soon"] = "from block 20 on"
    assert (check().state, check().reason) == ("warning", "from block 20 on")
    told["now"] = "this release knows versions 1 to 3"
    assert (check().state, check().reason) == ("failed", "this release knows versions 1 to 3")


@pytest.mark.parametrize(
    ("free", "state"), [(500 * GB, "ok"), (40 * GB, "warning"), (FULL_BYTES - 1, "failed"), (0, "failed")]
)
def test_a_disk_that_is_all_but_full_fails(free: int, state: str) -> None:
    space = Space([Path()])
    assert space.check().state == "ok"  # nobody has looked yet
    space.take(0, Room(GB, free, 1000 * GB))
    assert space.check().state == state


class ToldRpc:
    """A CometBFT that says how many peers it has, None if it does not answer."""

    def __init__(self, count: int | None) -> None:
        self.count = count

    async def peers(self) -> int:
        if self.count is None:
            raise RpcError("CometBFT does not answer")
        return self.count


@pytest.mark.parametrize(
    ("configured", "connected", "state"),
    [(3, 3, "ok"), (3, 5, "ok"), (3, 2, "warning"), (3, 0, "failed"), (3, None, "warning"), (0, 0, "ok")],
)
async def test_a_node_without_any_of_its_peers_is_not_ready(
    configured: int, connected: int | None, state: str
) -> None:
    count, rpc = PeerCount(configured), ToldRpc(connected)
    assert count.check().state == ("warning" if configured else "ok")
    await count.look(rpc)  # type: ignore[arg-type]
    assert count.check().state == state
    assert REGISTRY.get_sample_value("voice_dpki_ledger_peers") == (connected or 0)
    assert REGISTRY.get_sample_value("voice_dpki_ledger_peers_configured") == configured
