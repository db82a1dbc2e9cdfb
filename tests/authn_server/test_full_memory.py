"""Workers whose memory for metrics is full: none is ended by SIGBUS, and none begins without room."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from authn_server.config import EXAMPLE
from tests.disks import fill
from tests.one_operator import Service, until
from tests.ports import free_port
from voice_dpki.metrics import COUNTS_AS
from voice_dpki.shell.worker_counts import METRICS_FOLDER, RESERVED_BYTES
from voice_dpki.stage.events import ReadyEvent
from voice_dpki.stage.patience import children

from .conftest import TOKEN, Site

WORKERS = 2
NEEDED_KB = sum(RESERVED_BYTES.values()) // 1024
SLACK_KB = 64

COUNTING = """
import sys
from voice_dpki.metrics import UNSHARED, counters
family = counters("test", "A test.", a=map(str, range(5000)), b="xy")
for number in range(5000):
    family.labels(str(number), "x").inc()
    family.labels(str(number), "x").inc()
values = {family.labels(str(number), "x")._value.get() for number in range(5000)}
print(len(UNSHARED), values)
"""


@pytest.fixture
def shared_memory(disk: Callable[[int], Path]) -> Iterator[Callable[[int], Path]]:
    """Have a small disk as /dev/shm, for this thread and what it starts."""
    mounted = []

    def mount(kilobytes: int) -> Path:
        folder = disk(kilobytes)
        subprocess.run(["mount", "--bind", folder, "/dev/shm"], check=True, timeout=60)
        mounted.append(folder)
        return folder

    yield mount
    for _ in mounted:
        subprocess.run(["umount", "/dev/shm"], check=True, timeout=60)


@pytest.fixture
def configured(site: Site) -> Site:
    text = EXAMPLE.replace("workers = 1 ", f"workers = {WORKERS} ").replace("port = 8091", f"port = {free_port()}")
    return site.write(text + '\n[trace]\nfile = "authn-a.jsonl"\n')


def test_a_service_without_room_for_its_workers_does_not_begin(
    configured: Site, shared_memory: Callable[[int], Path]
) -> None:
    shared_memory(WORKERS * NEEDED_KB - SLACK_KB)
    command = [sys.executable, "-m", "authn_server", "start", "--config", str(configured.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert f"each worker needs {NEEDED_KB} KiB there for its metrics" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(Path("/dev/shm").iterdir()) == []


def test_workers_go_on_in_a_full_memory_and_are_not_replaced(
    configured: Site,
    shared_memory: Callable[[int], Path],
    signing_request: Callable[..., dict[str, Any]],
) -> None:
    folder = shared_memory(WORKERS * NEEDED_KB + SLACK_KB)
    service = Service("authn_server", configured.config, configured.folder / "authn-a.jsonl")
    try:
        until(lambda: sum(isinstance(event, ReadyEvent) for event in service.events()) == WORKERS)
        before = sorted(children(service.pid))
        ballast = fill(folder)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        statuses = {
            httpx.post(
                f"{service.url}/stir/v1/signing",
                json=signing_request(attest=attest),
                headers=headers,
                trust_env=False,
                timeout=60,
            ).status_code
            for attest in ("A", "B", "C", "D")
            for _ in range(4)
        }
        assert statuses == {200, 400}
        os.kill(service.pid, signal.SIGUSR2)
        until(lambda: "a worker is not replaced" in service.log_path.read_text())
        assert sorted(children(service.pid)) == before
        ballast.unlink()
        assert "a worker has ended" not in service.log_path.read_text()
    finally:
        assert service.stop() == 0


def test_what_finds_no_room_is_counted_in_its_process_alone(disk: Callable[[int], Path]) -> None:
    folder = disk(128)
    environment = {**os.environ, METRICS_FOLDER: str(folder), COUNTS_AS: "0-0"}
    done = subprocess.run(
        [sys.executable, "-c", COUNTING], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    unshared, values = done.stdout.split(maxsplit=1)
    assert 0 < int(unshared) < 5000
    assert values == "{2.0}\n"
    assert done.stderr == "metrics count in one process alone\n"
