"""How much room is left: metrics, a note in the health check, and a warning in the log, once."""

import asyncio
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from ledger_node.keep import space
from ledger_node.keep.space import DAY_S, Room, Space, measure
from voice_dpki.shortfalls import SHORTFALLS

GB = 10**9


def metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"voice_dpki_ledger_disk_{name}")


@pytest.mark.parametrize(
    ("hours", "grown", "free", "days"),
    [
        (24, 1, 100, 100),
        (12, 1, 100, 50),
        (2, 1, 12, 1),
        (0.5, 1, 100, math.inf),
        (24, 0, 100, math.inf),
        (24, -1, 100, math.inf),
    ],
)
def test_the_days_that_are_left_follow_from_the_last_day(hours: float, grown: int, free: int, days: float) -> None:
    watched = Space([Path()])
    watched.take(100, Room(2 * GB, (free + grown) * GB, 1000 * GB))
    watched.take(100 + hours * 3600, Room((2 + grown) * GB, free * GB, 1000 * GB))
    assert (metric("used_bytes"), metric("free_bytes")) == ((2 + grown) * GB, free * GB)
    assert metric("days_left") == pytest.approx(days)


def test_growth_of_before_yesterday_counts_no_more() -> None:
    watched = Space([Path()])
    for hour in range(73):
        watched.take(hour * 3600.0, Room(min(hour, 24) * GB, 100 * GB, 1000 * GB))
    assert metric("days_left") == math.inf


@pytest.mark.parametrize(
    ("room", "says"),
    [
        (
            Room(3 * GB, 10 * GB, 100 * GB),
            "10.0 GB are left on the disk of the ledger's store, which lasts 5.0 days: ",
        ),
        (Room(3 * GB, 10 * GB, 100 * GB), "its files grow by 2.00 GB a day"),
        (Room(1 * GB, 4 * GB, 100 * GB), "4.0 GB are left on the disk of the ledger's store, less than 5% of it"),
    ],
)
def test_a_disk_that_fills_up_is_told_once_and_noted_as_long_as_it_does(
    caplog: pytest.LogCaptureFixture, room: Room, says: str
) -> None:
    watched = Space([Path()])
    enough = Room(1 * GB, 90 * GB, 100 * GB)
    with caplog.at_level(logging.INFO):
        watched.take(0, enough)
        assert watched.shortfall() == ""
        watched.take(DAY_S, room)
        watched.take(DAY_S + 60, room)
        assert says in watched.shortfall()
        assert watched.shortfall() in SHORTFALLS.notes()
        watched.take(3 * DAY_S, enough)
        assert watched.shortfall() == ""
    assert [record.message for record in caplog.records] == ["disk is filling up", "disk has room again"]


def test_room_is_that_of_all_files_and_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(bytes(50_000))
    (tmp_path / "a" / "b" / "two").write_bytes(bytes(50_000))
    room = measure([tmp_path / "a", tmp_path / "missing"])
    assert 100_000 <= room.used < 150_000
    assert 0 < room.free < room.whole
    monkeypatch.setattr(space, "MAX_FILES", 1)
    assert 50_000 <= measure([tmp_path / "a"]).used < 75_000


async def test_a_disk_that_cannot_be_looked_at_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "LOOK_S", 0.001)
    looked = asyncio.Event()
    failures = [OSError("gone")]

    def look(_: Sequence[Path]) -> Room:
        if failures:
            raise failures.pop()
        looked.set()
        return Room(7, 8 * GB, 9 * GB)

    work = asyncio.create_task(Space([Path()], look=look).run())
    await asyncio.wait_for(looked.wait(), 60)
    while metric("used_bytes") != 7:
        await asyncio.sleep(0.001)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
