"""Which blocks a configuration has a node keep, and which configurations of that are refused."""

import logging
from pathlib import Path

import pytest

from ledger_node.command.config import load, retention
from ledger_node.keep.retention import Retention
from voice_dpki.errors import LocalError

DAY_S = 86_400
ENGINE = "[engine]\nvalidator_keys = []\n"
FOLLOW = '[follow]\nurl = "http://127.0.0.1:1"\n'
EDGE = '[edge]\nurl = "http://127.0.0.1:1"\n'


def cometbft(snapshot_blocks: int) -> str:
    return f'[cometbft]\nhome = "cometbft"\nsnapshot_blocks = {snapshot_blocks}\n'


def written(folder: Path, sections: str) -> Path:
    path = folder / "node.toml"
    path.write_text(
        f'[node]\nname = "n"\ndata_dir = "data"\ngenesis = "genesis.json"\n[listen]\nport = 0\n{sections}'
    )
    return path


@pytest.mark.parametrize(
    ("sections", "kept"),
    [
        (ENGINE, Retention(30 * DAY_S, 10_000)),
        (FOLLOW, Retention(30 * DAY_S, 10_000)),
        (FOLLOW + "[keep]\ndays = 90\nblocks = 500\n", Retention(90 * DAY_S, 500)),
        (FOLLOW + "[keep]\narchive = true\n", None),
        (cometbft(1000) + "[keep]\nblocks = 200\n", Retention(30 * DAY_S, 3000)),
        (cometbft(100_000), Retention(30 * DAY_S, 300_000)),
        (cometbft(0), Retention(30 * DAY_S, 10_000)),
    ],
)
def test_a_configuration_says_which_blocks_stay(tmp_path: Path, sections: str, kept: Retention | None) -> None:
    assert retention(load(written(tmp_path, sections))) == kept


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        (EDGE + "[keep]\n", "has no blocks"),
        (FOLLOW + '[keep]\narchive = true\nhistory = "http://b"\n', "this node has all blocks itself"),
        (FOLLOW + "[keep]\ndays = -1\n", "days"),
        (FOLLOW + "[keep]\nblocks = 99\n", "blocks"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path: Path, sections: str, why: str) -> None:
    with pytest.raises(LocalError, match=why):
        load(written(tmp_path, sections))


@pytest.mark.parametrize(("days", "warned"), [(14.9, True), (15, False)])
def test_too_few_days_for_light_clients_are_warned_of(
    caplog: pytest.LogCaptureFixture, days: float, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        Retention(days * DAY_S, 100).warn()
    assert bool(caplog.records) == warned
