"""The memory of used signatures in a file, which the servers of one machine share."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clocks import SettableClock
from verify_server.config import EXAMPLE, load_setup
from verify_server.file_link import FileLink
from verify_server.replay_store import SharedReplays, StoreError
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.stir.replay import ReplayCache, Sighting, TokenUse

from .conftest import Site

NOW_S = 1_790_000_000
LATER_S = int(SystemClock().now_s()) + 3600
"""Of tokens that are surely newer than the file."""

OTHER = """
import asyncio, json, sys
from pathlib import Path
from verify_server.file_link import FileLink
from verify_server.replay_store import SharedReplays
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.stir.replay import ReplayCache, TokenUse

async def main():
    clock = SystemClock()
    link = FileLink(Path(sys.argv[1]), 1 << 24, clock)
    replays = SharedReplays(ReplayCache(100_000, 180), link, 180, clock, SystemRandom())
    for line in sys.stdin:
        key, call, iat_s = json.loads(line)
        print((await replays.claim(TokenUse(key.encode(), call.encode(), "A", iat_s))).value, flush=True)

asyncio.run(main())
"""


class OtherServer:
    """A second process with the same file."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, *uses: tuple[str, str]) -> None:
        assert self.process.stdin
        self.process.stdin.write("".join(json.dumps([key, call, LATER_S]) + "\n" for key, call in uses))
        self.process.stdin.flush()

    def told(self) -> Sighting:
        assert self.process.stdout
        return Sighting(self.process.stdout.readline().strip())

    def claim(self, key: str, call: str) -> Sighting:
        self.ask((key, call))
        return self.told()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


def use(key: str = "k1", call: str = "call 1", signer: str = "A", iat_s: int = LATER_S) -> TokenUse:
    return TokenUse(key.encode(), call.encode(), signer, iat_s)


@asynccontextmanager
async def server(folder: Path, clock: Any = None, **options: Any) -> AsyncIterator[SharedReplays]:
    clock = clock or SystemClock()
    link = FileLink(folder, options.get("max_bytes", 1 << 24), clock, options.get("boot_id"))
    replays = SharedReplays(ReplayCache(100_000, 180), link, 180, clock, SystemRandom())
    try:
        yield replays
    finally:
        await link.close()


async def test_a_second_process_tells_a_replay_from_a_fork(tmp_path: Path) -> None:
    other = OtherServer(tmp_path)
    try:
        async with server(tmp_path) as one:
            assert await one.claim(use()) is Sighting.NEW
            assert other.claim("k1", "call 2") is Sighting.OTHER_CALL
            assert other.claim("k1", "call 1") is Sighting.SAME_CALL
            assert other.claim("k1", "") is Sighting.REPEATED
            assert other.claim("k2", "call 3") is Sighting.NEW
            assert await one.claim(use("k2")) is Sighting.OTHER_CALL
    finally:
        other.end()


async def test_of_two_processes_one_has_each_token(tmp_path: Path) -> None:
    other, keys = OtherServer(tmp_path), [f"key {n}" for n in range(300)]
    try:
        async with server(tmp_path) as one:
            assert other.claim("first", "both run") is Sighting.NEW
            other.ask(*((key, "call 2") for key in keys))
            told = [(await one.claim(use(key)), other.told()) for key in keys]
    finally:
        other.end()
    assert {frozenset(pair) for pair in told} == {frozenset({Sighting.NEW, Sighting.OTHER_CALL})}


async def test_a_server_that_starts_again_knows_what_was_used_before(tmp_path: Path) -> None:
    other = OtherServer(tmp_path)
    assert other.claim("k1", "call 1") is Sighting.NEW
    other.end()  # as kill -9 does
    async with server(tmp_path) as again:
        again.cache.since_s = LATER_S + 1
        assert await again.claim(use(call="call 2")) is Sighting.OTHER_CALL
        assert await again.claim(use()) is Sighting.SAME_CALL
        assert await again.claim(use("k2")) is Sighting.NEW


async def test_it_knows_nothing_from_before_it_began(tmp_path: Path) -> None:
    clock = SettableClock(NOW_S)
    async with server(tmp_path, clock) as one:
        assert await one.claim(use("first", iat_s=NOW_S)) is Sighting.NEW
        assert await one.claim(use(iat_s=NOW_S - 1)) is Sighting.UNKNOWN
    clock.elapse(50)
    async with server(tmp_path, clock) as again:
        assert await again.claim(use(iat_s=NOW_S)) is Sighting.NEW, "the file is as old as before"


async def test_after_a_reboot_it_begins_anew(tmp_path: Path) -> None:
    clock = SettableClock(NOW_S)
    async with server(tmp_path, clock, boot_id="one") as before:
        assert await before.claim(use(iat_s=NOW_S)) is Sighting.NEW
    clock.elapse(30)
    async with server(tmp_path, clock, boot_id="two") as after:
        assert await after.claim(use(call="call 2", iat_s=NOW_S + 31)) is Sighting.NEW
        assert await after.claim(use("k2", iat_s=NOW_S + 29)) is Sighting.UNKNOWN
    assert {path.name for path in tmp_path.iterdir()} == {"used-two.mdb", "used-two.mdb-lock"}


async def test_keys_end_with_the_window_and_leave_room(tmp_path: Path) -> None:
    clock = SettableClock(NOW_S)
    link = FileLink(tmp_path, 1 << 20, clock)
    for n in range(30_000):  # several times what there is room for at once
        assert await link.put(b"key %32d" % n, b"c" * 17, 180) is None
        clock.elapse(1)
    assert await link.get(b"key %32d" % 29_990) == b"c" * 17
    assert await link.get(b"key %32d" % 29_000) is None
    assert await link.put(b"key %32d" % 29_000, b"d" * 17, 180) is None
    await link.close()


async def test_a_file_that_is_full_or_gone_cannot_tell(tmp_path: Path) -> None:
    async with server(tmp_path / "small", max_bytes=1 << 16) as small:
        told = [await small.claim(use(f"key {n:100}")) for n in range(1000)]
        assert (told[0], told[-1]) == (Sighting.NEW, Sighting.UNKNOWN)
        assert Sighting.NEW not in told[told.index(Sighting.UNKNOWN) :]
        assert "does not answer" in small.shortfall()
        assert "Full" in small._fault
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError, match="this is no folder"):
        FileLink(tmp_path / "file", 1 << 20, SystemClock())
    link = FileLink(tmp_path / "file/below", 1 << 20, SystemClock())
    with pytest.raises(StoreError, match="cannot make this folder"):
        await link.get(b"key")
    link = FileLink(tmp_path / "other", 1 << 20, SystemClock(), "boot")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/used-boot.mdb").write_bytes(b"this is no database " * 1000)
    with pytest.raises(StoreError):
        await link.get(b"key")


async def test_what_is_removed_is_gone(tmp_path: Path) -> None:
    link = FileLink(tmp_path, 1 << 20, SystemClock())
    await link.put(b"key", b"c1", 180)
    await link.remove(b"key")
    await link.remove(b"another")
    assert await link.get(b"key") is None
    assert await link.put(b"key", b"c2", 180) is None
    await link.close()


async def test_a_key_that_is_used_again_is_kept_for_its_whole_time(tmp_path: Path) -> None:
    """What is left of its first use must not end it early."""
    clock = SettableClock(NOW_S)
    link = FileLink(tmp_path, 1 << 20, clock)
    names = [b"key %d" % n for n in range(40)]
    for name in names:
        await link.put(name, b"c1", 180)
    await link.remove(names[0])
    clock.elapse(100)
    await link.put(names[0], b"c2", 180)
    clock.elapse(81)
    await link.put(names[-1], b"c2", 180)  # it has ended, and was not pruned yet
    for n in range(20):
        await link.put(b"other %d" % n, b"c3", 180)
    assert [await link.get(name) for name in (names[0], names[-1], names[1])] == [b"c2", b"c2", None]
    await link.close()


def test_it_is_configured_by_its_folder(site: Site) -> None:
    site.write(f'{EXAMPLE}\n[replay.store]\nurl = "file://{site.folder}/replay"\n')
    link = load_setup(site.config).link
    assert isinstance(link, FileLink)
    assert not (site.folder / "replay").exists(), "root may have checked the configuration"
    assert asyncio.run(link.get(b"key")) is None
    assert (site.folder / "replay").stat().st_mode & 0o777 == 0o700
    asyncio.run(link.close())
