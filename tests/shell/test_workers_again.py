"""The supervisor of workers, where a worker cannot begin or ends: it tries again, or says that it cannot go on."""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ports import free_port
from voice_dpki.errors import LocalError
from voice_dpki.shell import workers
from voice_dpki.shell.config import Listen
from voice_dpki.shell.workers import _Workers

WORKER = """
import os, signal, socket, sys, time
from pathlib import Path

failing = Path(sys.argv[1])
if failing.exists():
    sys.exit(int(failing.read_text()))
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
    telling.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(600)
"""


class Supervised:
    """A supervisor of one worker, which says that it is ready unless the file `failing` exists."""

    def __init__(self, folder: Path) -> None:
        self.failing = folder / "failing"
        command = [sys.executable, "-c", WORKER, str(self.failing)]
        self.workers = _Workers(command, folder, Listen(port=free_port()), 1)
        self.stop = asyncio.Event()
        self.running = asyncio.create_task(self.workers.run(self.stop))

    def kill(self) -> None:
        self.workers._kill(0)

    async def end(self) -> int:
        self.stop.set()
        return await self.running


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "AGAIN_S", (0.01,))


def said(caplog: pytest.LogCaptureFixture, event: str) -> Callable[[], bool]:
    return lambda: event in [record.message for record in caplog.records]


@pytest.mark.parametrize("error", [BlockingIOError(11, "no process"), LocalError("cannot listen")])
async def test_a_worker_that_cannot_begin_is_tried_again(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The address or the memory is away for a moment, when a worker has ended; meanwhile nobody serves."""
    supervised = Supervised(tmp_path)
    await until(supervised.workers.serves)

    def fail(*_arguments: object) -> None:
        raise error

    with monkeypatch.context() as away:
        away.setattr(workers._Slot, "hold", fail)
        supervised.kill()
        await until(said(caplog, "a worker cannot begin"))
        assert not supervised.workers.serves()
    await until(supervised.workers.serves)
    assert await supervised.end() == 0


async def test_an_error_that_nobody_foresaw_ends_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervised = Supervised(tmp_path)
    await until(supervised.workers.serves)

    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(workers._Slot, "vacate", fail)
    supervised.kill()
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(supervised.running, 60)


async def test_a_replacement_for_which_there_is_no_room_leaves_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    supervised = Supervised(tmp_path)
    await until(supervised.workers.serves)

    async def fail(*_arguments: object, **_options: object) -> None:
        raise BlockingIOError(11, "no process")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    signal.raise_signal(signal.SIGUSR2)
    await until(said(caplog, "a worker is not replaced"))
    assert supervised.workers.serves()
    assert await supervised.end() == 0


async def test_a_file_that_is_bad_for_a_time_does_not_end_a_service_that_has_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervised = Supervised(tmp_path)
    await until(supervised.workers.serves)
    supervised.failing.write_text("2")
    supervised.kill()
    await until(lambda: 2 in [getattr(record, "fields", {}).get("status") for record in caplog.records])
    assert not supervised.stop.is_set()
    supervised.failing.unlink()
    await until(supervised.workers.serves)
    assert await supervised.end() == 0


async def test_what_no_worker_can_do_from_the_start_ends_the_service(tmp_path: Path) -> None:
    (tmp_path / "failing").write_text("2")
    assert await asyncio.wait_for(Supervised(tmp_path).running, 60) == 2


async def test_a_start_that_does_harm_is_not_repeated_even_where_one_has_served(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path)
    await until(supervised.workers.serves)
    supervised.failing.write_text("3")
    supervised.kill()
    assert await asyncio.wait_for(supervised.running, 60) == 3


async def test_a_replacement_that_is_asked_for_during_another_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A second and a third request while the first is under way make one more of it."""
    caplog.set_level("INFO")
    supervised = Supervised(tmp_path)
    await until(supervised.workers.serves)
    replaced, go_on = 0, asyncio.Event()

    async def replace(*_arguments: object) -> None:
        nonlocal replaced
        replaced += 1
        await go_on.wait()

    monkeypatch.setattr(supervised.workers, "_replace_one", replace)
    signal.raise_signal(signal.SIGUSR2)
    await until(lambda: replaced == 1)
    for _ in range(2):
        signal.raise_signal(signal.SIGUSR2)
        await asyncio.sleep(0.1)
    go_on.set()
    await until(lambda: [each.message for each in caplog.records].count("all workers are replaced") == 2)
    assert replaced == 2
    assert await supervised.end() == 0


SLOW = """
import os, signal, socket, sys, time
from pathlib import Path

folder = Path(sys.argv[1])
(folder / "begun").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
signal.signal(signal.SIGHUP, lambda *_: (folder / "read").touch())
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
    telling.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    time.sleep(600)
"""


async def test_a_worker_that_begins_reads_its_configuration_again_once_it_serves(tmp_path: Path) -> None:
    """SIGHUP would end it before that."""
    supervised = _Workers([sys.executable, "-c", SLOW, str(tmp_path)], tmp_path, Listen(port=free_port()), 1)
    stop = asyncio.Event()
    running = asyncio.create_task(supervised.run(stop))
    await until((tmp_path / "begun").exists)
    begun = supervised._slots[0].process
    signal.raise_signal(signal.SIGHUP)
    await asyncio.sleep(0.05)
    (tmp_path / "go").touch()
    await until((tmp_path / "read").exists)
    assert supervised._slots[0].process is begun
    (tmp_path / "read").unlink()
    signal.raise_signal(signal.SIGHUP)
    await until((tmp_path / "read").exists)
    stop.set()
    assert await running == 0
