"""Rules that change while a federation runs releases that have them, and one that does not."""

import asyncio
import base64
import json
from functools import partial
from pathlib import Path

import httpx
import pytest

from ledger_node.abci.cometbft import LOG_FILE, RPC_PORT
from ledger_node.command.federation import agree
from ledger_node.command.federation_folder import OperatorNode
from voice_dpki.ledger.activation import notice
from voice_dpki.ledger.proposals import BeginRules, SetMember
from voice_dpki.ledger.rules import NEWEST, VERSIONS, MissingRulesError
from voice_dpki.names import CertDigest
from voice_dpki.shell.ending import EXIT_USAGE

from .operators import blocks, certificate, host, load, lost, more, reaches, require_cometbft, submit
from .releases import RULES_FILE, Mixed, altered, from_history
from .versions import Federation, all_at, begun, empty, fails, health, height_of, read_by, versions_of

BEFORE = "994eb15"
"""The last commit that has version 1 of the rules alone."""

AHEAD = 25
"""Blocks between the proposal of a version and its first block."""

AFTER = 5
"""Blocks of the new version that are looked at."""

WITHOUT_2 = (
    (RULES_FILE, "for rules in (V1, V2, V3, V4, V5)", "for rules in (V1,)"),
    (RULES_FILE, "NEWEST = V5", "NEWEST = V1"),
)
"""Changes that make of this release one that knows version 1 alone, and knows that there are versions."""

FIRST = 20
"""The first block of version 2 where the genesis gives notice of it."""

OK = (200, {"status": "ok"})

pytestmark = [pytest.mark.timeout(600), pytest.mark.undescribed]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the release before versions of the rules."""
    require_cometbft()
    found = from_history(BEFORE, tmp_path_factory.mktemp("before") / "code")
    if found is None:
        pytest.skip(f"this copy of the repository lacks commit {BEFORE}, whose code is to run")
    return found


@pytest.fixture(scope="module")
def without_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_cometbft()
    return altered(tmp_path_factory.mktemp("lagging") / "code", *WITHOUT_2)


async def test_the_release_before_ends_where_version_2_begins(tmp_path: Path, before: Path) -> None:
    """Three of four run this release. The fourth agrees with them up to the last block of version 1.

    It cannot know why it goes no further, and its CometBFT's state is of no use to this release, which says so.
    """
    federation = Federation(tmp_path / "net", "127.0.20")
    *upgraded, old = nodes = federation.nodes
    with Mixed(nodes, {old.name: before}) as processes:
        await processes.ready()
        async with load(nodes[2:]) as acknowledged:
            await federation.decide(SetMember(notice(2, await height_of(old) + AHEAD), None))
            first = await begun(upgraded[0], 2)
            await all_at(upgraded, first + AFTER)
            await agreed_before(first, old, upgraded)
            assert "CONSENSUS FAILURE" in (old.home / LOG_FILE).read_text()
            assert await health(old) == OK, "it does not know better"
            assert await read_by(before, upgraded[0], federation, acknowledged[-10:]) == ["valid"] * 10
            assert await processes.stop(old) == 0
            running = processes.start_on(old, None)
            assert await asyncio.to_thread(running.wait_end, 60) == EXIT_USAGE
            assert f"from block {first} on the ledger follows other rules, of which" in old.log.read_text()
            empty(old)
            processes.start_on(old, None)
            await all_at([old], await height_of(upgraded[0]))
            await gain(acknowledged)
        await agree(nodes)
        assert [await lost(node, federation.genesis, acknowledged) for node in nodes] == [0] * 4
        versions = await versions_of(old)
        assert versions == [1] * (first - 1) + [2] * (len(versions) - first + 1)


async def agreed_before(first: int, old: OperatorNode, others: list[OperatorNode]) -> None:
    """Check that a release without version 2 has the others' blocks and states up to the one before `first`."""
    theirs = [await blocks(other) for other in others]
    for each in theirs:
        found = [block.header.version_app for block in each[: first + AFTER]]
        assert found == [1] * (first - 1) + [2] * (AFTER + 1)
    kept = [block.header.hash() for block in await blocks(old)]
    assert len(kept) in (first - 1, first - 2), "the state after a block stands in the next one's header"
    assert all(kept == [block.header.hash() for block in each[: len(kept)]] for each in theirs)
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        answer = await client.get(f"http://{host(old)}:{RPC_PORT}/abci_info")
    state = answer.json()["result"]["response"]
    assert state["last_block_height"] == str(first - 1)
    app_hash = base64.b64decode(state["last_block_app_hash"])
    assert [each[first - 1].header.app_hash for each in theirs] == [app_hash] * 3, "proved by the header after it"


async def test_a_validator_without_version_2_stops_before_it_and_says_so(tmp_path: Path, without_2: Path) -> None:
    federation = Federation(tmp_path / "net", "127.0.21", notice(2, FIRST))
    *others, lagging = nodes = federation.nodes
    sentence = missing(FIRST)
    with Mixed(nodes, {lagging.name: without_2}) as processes:
        await processes.ready()
        assert await health(lagging) == (200, {"status": "ok", "notes": [sentence]})
        early = certificate(lagging, "early")
        async with load(others[:2]) as acknowledged:
            assert await submit(lagging, early)
            await all_at(others, FIRST + AFTER)
            assert await health(lagging) == (503, {"status": "failed", "detail": sentence})
            assert [await health(node) for node in others] == [OK] * 3
            assert logged(lagging, "release will be outdated") == [sentence]
            assert logged(lagging, "release is outdated") == [sentence]
            assert await height_of(lagging) < FIRST
            assert await lost(lagging, federation.genesis, acknowledged[:1]) == 0, "it still answers"
            assert not await submit(lagging, certificate(lagging, "late"))
            assert await processes.stop(lagging) == 0
            processes.start_on(lagging, None)
            await all_at([lagging], await height_of(others[0]))
            assert await health(lagging) == OK
            await refuses_to_go_back(processes, lagging, without_2)
            await all_at([lagging], await height_of(others[0]))
        await agree(nodes)
        assert [await lost(node, federation.genesis, acknowledged) for node in nodes] == [0] * 4


async def refuses_to_go_back(processes: Mixed, node: OperatorNode, without_2: Path) -> None:
    """Start a node on a release without version 2 after that has begun, and on this one again."""
    assert await processes.stop(node) == 0
    processes.start_on(node, without_2)
    height = await height_of(node)
    await reaches(partial(fails, node), "it says that it cannot go on")
    assert (await health(node))[1]["detail"] == missing(height + 1)
    assert not await submit(node, certificate(node, "after the downgrade"))
    assert await height_of(node) == height
    assert await processes.stop(node) == 0
    processes.start_on(node, None)


def missing(height: int) -> str:
    """Return what a release that has version 1 alone says of version 2."""
    known = ", ".join(map(str, VERSIONS))
    return str(MissingRulesError(2, height)).replace(f"version {known} only", "version 1 only")


def logged(node: OperatorNode, event: str) -> list[str]:
    """Return the reasons that a node's log gives for an event."""
    lines = (json.loads(line) for line in node.log.read_text().splitlines() if line.startswith("{"))
    return [line["reason"] for line in lines if line["event"] == event]


async def test_the_release_before_leaves_a_store_of_version_2_alone(tmp_path: Path, before: Path) -> None:
    """An engine with all validators' keys comes to version 2; a release with version 1 alone then ends."""
    federation = Federation(tmp_path / "net", "127.0.23", notice(2, 2))
    with Mixed([], {}) as processes:
        engine = federation.engine(20)
        processes.start(engine)
        await all_at([engine], 3)
        assert await processes.stop(engine) == 0
        running = processes.start_on(engine, before)
        assert await asyncio.to_thread(running.wait_end, 60) == EXIT_USAGE
        assert "the store has another format than this version's" in engine.log.read_text()
        processes.start_on(engine, None)
        await all_at([engine], 4)


MEANWHILE = 15
"""Certificates that are recorded before and during each restart."""


@pytest.mark.long
async def test_all_go_over_one_by_one_and_versions_begin_without_a_stop(tmp_path: Path, before: Path) -> None:
    """Version 2 begins by a notice, and the newest one right after it."""
    federation = Federation(tmp_path / "net", "127.0.24")
    nodes = federation.nodes
    with Mixed(nodes, dict.fromkeys((node.name for node in nodes), before)) as processes:
        await processes.ready()
        async with load(nodes) as acknowledged:
            for number, node in enumerate(nodes):
                await gain(acknowledged)
                assert await processes.stop(node) == 0
                await gain(acknowledged)
                processes.start_on(node, None)
                await all_at([node], await height_of(nodes[number - 1]))
            await federation.decide(SetMember(notice(2, await height_of(nodes[0]) + AHEAD), None))
            first = await begun(nodes[0], 2)
            await all_at(nodes, first + AFTER)
            await federation.decide(BeginRules(NEWEST.version, await height_of(nodes[0]) + AHEAD))
            newest = await begun(nodes[0], NEWEST.version)
            await all_at(nodes, newest + AFTER)
            await gain(acknowledged)
        await agree(nodes)
        for node in nodes:
            versions = await versions_of(node)
            earlier = [1] * (first - 1) + [2] * (newest - first)
            assert versions == earlier + [NEWEST.version] * (len(versions) - newest + 1)
            assert await lost(node, federation.genesis, acknowledged) == 0
            assert "Traceback" not in node.log.read_text()


async def gain(acknowledged: list[CertDigest]) -> None:
    """Wait until MEANWHILE further certificates are recorded."""
    await reaches(partial(more, acknowledged, len(acknowledged) + MEANWHILE), "certificates are recorded")
