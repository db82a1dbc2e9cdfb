"""A map that grows: what was read stays what it is, in this process and in others."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from ledger_node.answer.feed import Feed
from ledger_node.keep.chain import Chain
from ledger_node.keep.mapped import Mapped, MovedError, Writing
from ledger_node.keep.store import Store
from tests.present import present

PAGE = bytes(4000)


def put(mapped: Mapped, name: bytes, count: int = 1) -> None:
    def work(writing: Writing) -> None:
        for number in range(count):
            writing.put(b"a", name + b"%d" % number, PAGE)

    mapped.write(work)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger_node.keep.mapped.MAP_BYTES", 1 << 16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Mapped(tmp_path / "made", [b"a"], make=True).close()
    return tmp_path / "made"


@pytest.fixture
def mapped(path: Path) -> Iterator[Mapped]:
    mapped = Mapped(path, [b"a"])
    yield mapped
    mapped.close()


def test_a_write_that_does_not_fit_makes_the_map_as_large_as_it_must_be(mapped: Mapped) -> None:
    before = mapped.bytes
    put(mapped, b"x", 200)
    reading = mapped.read()
    assert reading.count(b"a") == 200
    assert before < 200 * len(PAGE) < mapped.bytes
    reading.close()


def test_what_is_done_again_is_written_once(mapped: Mapped) -> None:
    times = 0

    def work(writing: Writing) -> None:
        nonlocal times
        times += 1
        assert writing.get(b"a", b"0") is None
        for number in range(100):
            writing.put(b"a", b"%d" % number, PAGE)

    mapped.write(work)
    assert times > 1
    reading = mapped.read()
    assert reading.count(b"a") == 100
    reading.close()


def test_readers_of_the_newest_state_notice_nothing(mapped: Mapped) -> None:
    put(mapped, b"x")
    reading = mapped.read()
    put(mapped, b"y", 200)
    assert reading.lives
    assert (reading.get(b"a", b"x0"), reading.get(b"a", b"y0"), reading.count(b"a")) == (PAGE, None, 1)
    assert [key for key, _ in reading.items(b"a")] == [b"x0"]
    mapped.renew(reading)
    assert reading.count(b"a") == 201
    reading.close()


def test_a_reader_of_an_older_state_is_told_and_not_misled(mapped: Mapped) -> None:
    put(mapped, b"x")
    older = mapped.read()
    items = older.items(b"a")
    next(items)
    put(mapped, b"y")
    assert older.get(b"a", b"y0") is None
    put(mapped, b"z", 200)
    for read in (lambda: older.get(b"a", b"x0"), lambda: older.count(b"a"), lambda: next(items)):
        with pytest.raises(MovedError):
            read()
    older.close()


def test_a_closed_reader_stays_closed(mapped: Mapped) -> None:
    put(mapped, b"x")
    reading = mapped.read()
    reading.close()
    put(mapped, b"y", 200)
    with pytest.raises(lmdb.Error):
        reading.get(b"a", b"x0")


def test_readers_in_other_threads_read_on_while_the_map_grows(mapped: Mapped) -> None:
    put(mapped, b"x", 10)
    read, problems = [0, 0], []
    ended = threading.Event()

    def run(at: int) -> None:
        try:
            while not ended.is_set():
                reading = mapped.read()
                assert all(reading.get(b"a", b"x%d" % number) == PAGE for number in range(10))
                assert sum(1 for _ in reading.items(b"a")) >= 10
                reading.close()
                read[at] += 1
        except MovedError:
            run(at)  # the state was not the newest any more: begun again, as callers do
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    before = mapped.bytes
    for number in range(60):
        put(mapped, b"%d-" % number, 1 << (number // 10))
    ended.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert mapped.bytes >= 16 * before
    assert min(read) > 0


OTHER = """
import sys
from pathlib import Path
from ledger_node.keep import mapped
mapped.MAP_BYTES = 1 << 16
opened = mapped.Mapped(Path(sys.argv[1]), [b"a"])
held = opened.read()
print("open", flush=True)
sys.stdin.readline()
print(held.count(b"a"), opened.read().count(b"a"), flush=True)
"""


def test_another_process_follows(path: Path, mapped: Mapped) -> None:
    put(mapped, b"x")
    command = [sys.executable, "-c", OTHER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        reader, writer = present(other.stdout), present(other.stdin)
        assert reader.readline() == "open\n"
        put(mapped, b"y", 200)
        writer.write("\n")
        writer.flush()
        assert reader.readline() == "1 201\n"


def test_a_file_that_is_larger_than_the_smallest_map_opens(path: Path, mapped: Mapped) -> None:
    put(mapped, b"x", 200)
    mapped.close()
    again = Mapped(path, [b"a"], read_only=True)
    assert again.read().count(b"a") == 200
    again.close()


async def test_subscribers_ask_anew_if_the_map_grew_before_a_step_was_told(network: Any, tmp_path: Path) -> None:
    chain = Chain(Store(tmp_path / "data", network.genesis), network.genesis)
    feed, maker = Feed(chain), network.maker()

    def record(count: int) -> None:
        for step in maker.steps([network.submission_of(network.certificate()) for _ in range(count)]):
            chain.store.commit(step)

    record(1)
    await feed._take()
    known = maker.replica.app_hash
    assert await feed.changes(known, 0, 0) is not None
    for _ in range(4):
        record(20)
    await feed._take()
    assert b'"steps":null' in present(await feed.changes(known, 0, 0))
    while not feed._steps:  # until the map has room for one more
        await feed.changes(known, 0, 0)  # for somebody who still asks
        record(1)
        await feed._take()
    assert b'"steps":[{' in present(await feed.changes(present(feed._steps[0]).before, 0, 0))
    present(feed._state).opened.close()
    chain.close()
