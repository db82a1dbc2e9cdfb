"""Several workers are one service: one address, one set of metrics, signals for all, a replacement for the dead."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from authn_server.config import EXAMPLE, load_setup
from tests.descriptors import open_files
from tests.one_operator import until
from tests.ports import free_port
from voice_dpki.effects import SystemClock
from voice_dpki.errors import LocalError

from .conftest import TOKEN, Site
from .pool import PATH, Pool

MakeRequest = Callable[..., dict[str, Any]]

ANSWERED = 'voice_dpki_stir_requests_total{operation="signing",outcome="answered"}'


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    pool = Pool(Site(tmp_path_factory.mktemp("authn")))
    yield pool
    folders = metrics_folders(pool.pids)
    assert len(folders) == 1
    assert pool.service.stop() == 0
    assert pool.pids == []
    assert not folders.pop().exists()


def metrics_folders(pids: list[int]) -> set[Path]:
    found = set()
    for pid in pids:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        (folder,) = [each.partition(b"=")[2] for each in variables if each.startswith(b"PROMETHEUS_MULTIPROC_DIR=")]
        found.add(Path(folder.decode()))
    return found


def accepted(pids: list[int], port: int) -> int:
    """How many of the processes listen at a port."""
    listening = {
        f"socket:[{line.split()[9]}]"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].partition(":")[2], 16) == port
    }
    return sum(not listening.isdisjoint(open_files(pid)) for pid in pids)


def test_all_listen_and_count_together(pool: Pool, signing_request: MakeRequest) -> None:
    assert len(pool.pids) == 3
    assert accepted(pool.pids, pool.port) == 3
    before = pool.metric(ANSWERED)
    assert [pool.ask(signing_request()) for _ in range(24)] == [200] * 24
    assert [pool.metric(ANSWERED) - before for _ in range(6)] == [24] * 6
    lines = httpx.get(f"{pool.service.url}/metrics", trust_env=False).text.splitlines()
    assert [line for line in lines if line.startswith("voice_dpki_clock_wrong")] == ["voice_dpki_clock_wrong 0.0"]


def test_a_worker_that_was_killed_is_replaced_and_what_it_counted_is_kept(
    pool: Pool, signing_request: MakeRequest
) -> None:
    assert [pool.ask(signing_request()) for _ in range(6)] == [200] * 6
    counted, before, ready = pool.metric(ANSWERED), pool.pids, pool.ready
    os.kill(before[0], signal.SIGKILL)
    until(lambda: pool.ready == ready + 1)
    assert len(pool.pids) == 3
    assert len(set(pool.pids) & set(before)) == 2
    assert pool.metric(ANSWERED) == counted
    assert '"event": "a worker has ended", "worker": ' in pool.service.log_path.read_text()
    assert [pool.ask(signing_request()) for _ in range(6)] == [200] * 6


def test_a_reload_reaches_all(pool: Pool, signing_request: MakeRequest) -> None:
    tokens = pool.site.folder / "proxy.tokens"
    text = tokens.read_text()
    for other, statuses in ((text + "a-new-one\n", {200}), (text, {401})):
        tokens.write_text(other)
        wanted = pool.reloads() + 3
        pool.service.hang_up("configuration read again")
        until(lambda wanted=wanted: pool.reloads() == wanted)  # type: ignore[misc]
        assert {pool.ask(signing_request(), "a-new-one") for _ in range(12)} == statuses


def test_workers_are_replaced_while_they_serve(pool: Pool, signing_request: MakeRequest) -> None:
    """Over connections that stay open and over new ones, to those that go and those that come."""
    before, request, statuses, failed = pool.pids, signing_request(), Counter[int](), list[Exception]()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    done = threading.Event()

    def ask(*, stays: bool) -> None:
        with httpx.Client(trust_env=False, headers=headers | ({} if stays else {"Connection": "close"})) as client:
            while not done.is_set():
                try:
                    statuses[client.post(f"{pool.service.url}{PATH}", json=request, timeout=60).status_code] += 1
                except httpx.HTTPError as error:
                    failed.append(error)
                done.wait(0.01)

    asking = [threading.Thread(target=ask, kwargs={"stays": number % 2 == 0}) for number in range(6)]
    for each in asking:
        each.start()
    logged = pool.replace("all workers are replaced")
    done.set()
    for each in asking:
        each.join()
    assert failed == []
    assert list(statuses) == [200]
    assert statuses[200] > 20
    assert len(pool.pids) == 3
    assert not set(pool.pids) & set(before)
    assert accepted(pool.pids, pool.port) == 3
    assert '"event": "a worker has ended"' not in logged


def test_files_of_metrics_do_not_grow_with_replacements(pool: Pool, signing_request: MakeRequest) -> None:
    """What ended processes have counted is in the files of those that took their places."""
    assert pool.ask(signing_request()) == 200
    (folder,), counted, files = metrics_folders(pool.pids), pool.metric(ANSWERED), []
    for _ in range(3):
        pool.replace("all workers are replaced")
        files.append(sorted(path.name for path in folder.glob("counter_*")))
    assert files == [[f"counter_{number}-{turn}.db" for number in range(3) for turn in range(2)]] * 3
    assert pool.metric(ANSWERED) == counted


def test_a_worker_that_cannot_be_replaced_goes_on(pool: Pool, signing_request: MakeRequest) -> None:
    before, text = pool.pids, pool.site.config.read_text()
    pool.site.config.write_text(text + "misspelt = 1\n")
    pool.replace("a worker is not replaced")
    pool.site.config.write_text(text)
    assert pool.pids == before
    assert {pool.ask(signing_request()) for _ in range(12)} == {200}


def test_nobody_else_shares_the_address(pool: Pool) -> None:
    command = [sys.executable, "-m", "authn_server", "start", "--config", str(pool.site.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr.endswith(f"cannot listen on 127.0.0.1:{pool.port}: Address already in use\n")


def test_a_supervisor_that_is_killed_takes_its_workers_along(tmp_path: Path) -> None:
    pool = Pool(Site(tmp_path))
    pids = pool.pids
    folders = metrics_folders(pids)
    pool.service.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    for each in folders:
        for file in each.iterdir():
            file.unlink()
        each.rmdir()


def test_what_no_worker_can_do_ends_the_service(site: Site) -> None:
    """The address of SIP is taken: worker 0 says so and ends, and the others with it."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind(("127.0.0.1", 0))
        sip = f'[sip]\nlisten = {{ host = "127.0.0.1", port = {taken.getsockname()[1]} }}\n'
        peer = '[[sip.peers]]\naddress = "127.0.0.1"\nattest = "A"\n'
        site.write(EXAMPLE.replace("workers = 1 ", "workers = 2 ") + sip + peer)
        site.config.write_text(site.config.read_text().replace("port = 0", f"port = {free_port()}"))
        command = [sys.executable, "-m", "authn_server", "start", "--config", str(site.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "cannot listen" in done.stderr


def test_several_need_a_port_that_is_named(site: Site) -> None:
    site.write(EXAMPLE.replace("workers = 1 ", "workers = 2 "))
    with pytest.raises(LocalError, match=r"authn\.toml: workers: several share one port"):
        load_setup(site.config, SystemClock())
