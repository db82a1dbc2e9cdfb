"""Versions after the newest: copies of this release know more of them than it does."""

from functools import partial
from pathlib import Path

import pytest

from ledger_node.command.federation import agree
from voice_dpki.ledger.activation import notice
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.proposals import BeginRules
from voice_dpki.ledger.rules import VERSIONS, MissingRulesError, needs
from voice_dpki.ledger.transactions import ChangeStatus

from .operators import load, lost, reaches, require_cometbft, status
from .releases import RULES_FILE, Mixed, altered
from .versions import Federation, all_at, begun, fails, health, height_of, read_by, versions_of

FURTHER = VERSIONS[-1] + 1
KNOWN = ", ".join(f"V{version}" for version in VERSIONS)
OTHER_FORM = (1 << 16) + FURTHER + 1
"""A version whose upper bits say that older clients would misread its records."""

NEWER = (
    (
        RULES_FILE,
        "BY_VERSION = {",
        f"F1 = replace(NEWEST, version={FURTHER}, counts_all=False)\nF2 = replace(NEWEST, version={OTHER_FORM})\n"
        "BY_VERSION = {",
    ),
    (RULES_FILE, f"({KNOWN})", f"({KNOWN}, F1, F2)"),
    (RULES_FILE, "READER = 0", "READER = 1"),
)
"""Changes that make of this release a later one."""

SECOND = 3
"""The first block of version 2, of which the genesis gives notice."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_cometbft()
    return altered(tmp_path_factory.mktemp("newer") / "code", *NEWER)


async def test_two_further_versions_begin_and_a_follower_replays_all(tmp_path: Path, newer: Path) -> None:
    """This release's clients read a version that they do not know, and say of the next what they need."""
    federation = Federation(tmp_path / "net", "127.0.22", notice(2, SECOND))
    nodes, genesis = federation.nodes, federation.genesis
    follower, lagging = federation.follower("follower", 10), federation.follower("lagging", 11)
    with Mixed(nodes, {node.name: newer for node in (*nodes, follower)}) as processes:
        await processes.ready()
        async with load(nodes[:1]) as acknowledged:
            await begun(nodes[0], 2)
            await federation.decide(BeginRules(FURTHER, await height_of(nodes[0]) + 8))
            further = await begun(nodes[0], FURTHER)
            raw = federation.endorsed(
                ChangeStatus(
                    genesis.chain_id, nodes[0].organization, acknowledged[0], 0, "suspended", "unspecified"
                )
            )
            await federation.send(
                raw
            )  # it counts in the hour of its sender by version 2, and not by the further one
            assert await lost(nodes[0], genesis, acknowledged[1:]) == 0, "it is not known, and readable"
            await federation.decide(BeginRules(OTHER_FORM, 0))
            last = await begun(nodes[0], OTHER_FORM)
            await all_at(nodes[:1], last + 2)
        with pytest.raises(InquiryError, match=needs(OTHER_FORM)) as refused:
            await status(nodes[0], genesis, acknowledged[1])
        assert refused.value.code is InquiryCode.NEWER_RULES
        processes.start(follower)
        processes.start(lagging)
        await agree([*nodes, follower])
        assert await read_by(newer, follower, federation, acknowledged[-5:]) == ["valid"] * 5
        versions = await versions_of(follower)
        before = [1] * (SECOND - 1) + [2] * (further - SECOND) + [FURTHER] * (last - further)
        assert versions[:last] == [*before, OTHER_FORM]
        await reaches(partial(fails, lagging), "it says that it cannot go on")
        detail = str(MissingRulesError(FURTHER, further))
        assert await health(lagging) == (503, {"status": "failed", "detail": detail})
        assert await height_of(lagging) < further
