"""What systemd is told of a service: the octets of sd_notify(3) at its socket, from processes as it starts them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.one_operator import until
from voice_dpki.errors import LocalError
from voice_dpki.shell.notify import notify, reloading, stay_alive, tell_ready, watchdog_s
from voice_dpki.shell.worker_signs import WorkerSigns
from voice_dpki.stage.patience import children

SERVICE = """
import asyncio, sys
from voice_dpki.shell.notify import tell_ready
from voice_dpki.shell.program import run

async def main(stop):
    tell_ready(http="127.0.0.1:8080")
    await stop.wait()

sys.exit(run(main))
"""

SUPERVISOR = """
import sys
from pathlib import Path
from types import SimpleNamespace
from voice_dpki.shell.config import Listen
from voice_dpki.shell.log import LogConfig
from voice_dpki.shell.workers import supervise

config = SimpleNamespace(workers=2, listen=Listen(port=0), log=LogConfig())
sys.exit(supervise("service", config, "worker", Path("service.toml")))
"""


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """systemd's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield listening


def told(systemd: socket.socket) -> list[str]:
    return systemd.recv(10_000).decode().split("\n")


def test_a_service_tells_that_it_is_ready_alive_reloads_and_stops(systemd: socket.socket) -> None:
    environment = {**os.environ, "WATCHDOG_USEC": "120000000"}
    with subprocess.Popen([sys.executable, "-c", SERVICE], env=environment) as service:
        first = [told(systemd) for _ in range(2)]  # the order is not said
        assert ["WATCHDOG=1"] in first
        assert ["READY=1", "STATUS=Ready: http 127.0.0.1:8080"] in first
        service.send_signal(signal.SIGHUP)
        begun, monotonic = told(systemd)
        assert begun == "RELOADING=1"
        assert monotonic.removeprefix("MONOTONIC_USEC=").isdigit()
        assert told(systemd) == ["READY=1"]
        service.terminate()
        assert told(systemd) == ["STOPPING=1"]
        assert service.wait(60) == 0


def test_a_reload_before_a_service_is_ready_does_not_make_it_ready(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voice_dpki.shell.notify._Told.ready", False)
    with reloading():
        pass
    tell_ready(http="127.0.0.1:8080")
    with reloading():
        pass
    assert told(systemd) == ["READY=1", "STATUS=Ready: http 127.0.0.1:8080"]
    assert told(systemd)[0] == "RELOADING=1"
    assert told(systemd) == ["READY=1"]


def test_an_abstract_socket_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0voice-dpki-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@voice-dpki-test-{os.getpid()}")
        notify("READY=1")
        assert told(listening) == ["READY=1"]


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_nobody_to_tell_stops_nobody(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with reloading():
        tell_ready(http="127.0.0.1:8080")


def test_a_full_socket_is_not_waited_for(systemd: socket.socket) -> None:
    for _ in range(2000):
        notify("x" * 10_000)
    assert len(systemd.recv(100_000)) == 4096


@pytest.mark.parametrize(
    ("given", "expected_s"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({"WATCHDOG_USEC": "٣"}, 0),
    ],
)
def test_signs_are_given_where_systemd_expects_them(
    given: dict[str, str], expected_s: float, systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert watchdog_s() == expected_s


async def test_signs_come_again_and_again(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    giving = asyncio.create_task(stay_alive())
    heard = [await asyncio.to_thread(told, systemd) for _ in range(3)]
    giving.cancel()
    assert heard == [["WATCHDOG=1"]] * 3


def says(signs: WorkerSigns, number: int, *lines: str) -> None:
    """Have a worker say something, as its environment tells it to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as worker:
        worker.sendto("\n".join(lines).encode(), signs.environment(number)["NOTIFY_SOCKET"])


async def test_several_workers_are_ready_when_the_last_one_is(systemd: socket.socket, tmp_path: Path) -> None:
    with closing(WorkerSigns(2, tmp_path)) as signs:
        for _ in range(2):
            says(signs, 1, "READY=1", "STATUS=Ready: http 127.0.0.1:1")
        await asyncio.sleep(0.05)
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            told(systemd)
        says(signs, 0, "READY=1")
        await asyncio.sleep(0.05)
        assert told(systemd) == ["READY=1", "STATUS=Ready: workers 2"]


async def test_a_worker_that_hangs_is_killed_and_no_other(
    systemd: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worker 0 keeps giving signs, worker 1 gives one, worker 2 has ended, worker 3 is not yet up."""
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    killed: list[int] = []
    with closing(WorkerSigns(4, tmp_path)) as signs:
        given = signs.environment(0)
        assert given["WATCHDOG_USEC"] == "1000000"
        assert "WATCHDOG_PID" not in given
        watching = asyncio.create_task(signs.watch(killed.append))
        for number in (1, 2):
            says(signs, number, "WATCHDOG=1")
        await asyncio.sleep(0.05)
        signs.forget(2)
        while not killed:
            says(signs, 0, "WATCHDOG=1")
            await asyncio.sleep(0.02)
        watching.cancel()
    assert killed == [1]


@pytest.mark.long
def test_a_stopped_worker_is_replaced_while_its_supervisor_lives_on(systemd: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(SERVICE)
    environment = {**os.environ, "WATCHDOG_USEC": "3000000", "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR], env=environment) as service:
        while told(systemd) != ["READY=1", "STATUS=Ready: workers 2"]:
            continue
        stopped, _ = sorted(children(service.pid))
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: len(found := children(service.pid)) == 2 and stopped not in found)
        service.terminate()
        while told(systemd) != ["STOPPING=1"]:
            continue
        assert service.wait(60) == 0


async def test_workers_tell_their_supervisor_also_where_systemd_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    ready: list[int] = []
    with closing(WorkerSigns(2, tmp_path, ready.append)) as signs:
        says(signs, 1, "READY=1")
        await asyncio.sleep(0.05)
    assert ready == [1]


async def test_no_sign_is_given_by_who_does_no_work(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    giving = asyncio.create_task(stay_alive(lambda: False))
    await asyncio.sleep(0.1)
    giving.cancel()
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        told(systemd)


async def test_a_folder_where_nobody_can_listen_is_told(systemd: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot listen to a worker"):
        WorkerSigns(1, tmp_path / "missing")
