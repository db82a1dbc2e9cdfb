"""Taking a unix socket over from the process that serves on it: it is found by the socket, and ended."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.present import present
from voice_dpki.errors import LocalError
from voice_dpki.shell.files import take_lock
from voice_dpki.shell.predecessor import Predecessor
from voice_dpki.shell.unix_socket import claim, listen_at

SERVER = """\
import signal, sys
from pathlib import Path
from voice_dpki.shell.unix_socket import claim, listen_at
path = Path(sys.argv[1])
lock = claim(path)
served = listen_at(path, 8)
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("serves", flush=True)
while True:
    signal.pause()
"""


@contextmanager
def serving(path: Path, how: str = "willing") -> "Iterator[subprocess.Popen[str]]":
    """Have a process that has claimed a socket and serves on it."""
    command = [sys.executable, "-c", SERVER, str(path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert present(server.stdout).readline() == "serves\n"
            yield server
        finally:
            server.kill()


@pytest.mark.parametrize(("how", "number"), [("willing", signal.SIGTERM), ("stubborn", signal.SIGKILL)])
async def test_who_serves_is_ended(tmp_path: Path, how: str, number: int) -> None:
    path = tmp_path / "agent.sock"
    with serving(path, how) as server, closing(present(Predecessor.at(path))) as before:
        with listen_at(path, 8) as ours, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            ours.accept()[0].close()  # who connects reaches us, before the other has ended
            assert server.poll() is None
            await before.end(within_s=60 if how == "willing" else 0.1)
        assert server.wait() == -number
    claim(path).close()


async def test_who_has_ended_by_himself_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with serving(path) as server, closing(present(Predecessor.at(path))) as before:
        server.kill()
        server.wait()
        await asyncio.wait_for(before.end(), 60)


def test_nobody_serves(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    assert Predecessor.at(path) is None
    with take_lock(path, ""):
        assert Predecessor.at(path) is None, "it has claimed the socket, and does not listen yet"
        listen_at(path, 8).close()
        assert Predecessor.at(path) is None, "it has claimed the socket, and does not listen any more"


def test_who_has_not_claimed_the_socket_is_not_ended(tmp_path: Path) -> None:
    """It may be another program's; `claim` says so."""
    path = tmp_path / "agent.sock"
    with listen_at(path, 8):
        assert Predecessor.at(path) is None
        with pytest.raises(LocalError, match="another program serves on this socket"):
            claim(path)


def test_one_takes_over_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with serving(path):
        with closing(present(Predecessor.at(path))):
            with pytest.raises(LocalError, match="another process is taking it over at this moment"):
                Predecessor.at(path)
        present(Predecessor.at(path)).close()


def test_a_connection_is_made_to_the_one_or_the_other(tmp_path: Path) -> None:
    """However often the socket changes hands, there is one to connect to, and for its group only."""
    path = tmp_path / "agent.sock"
    listening = listen_at(path, 8)
    for _ in range(50):
        with listening, socket.socket(socket.AF_UNIX) as client:
            listening = listen_at(path, 8)
            client.connect(str(path))
            listening.accept()[0].close()
    listening.close()
    assert path.stat().st_mode & 0o777 == 0o660
    assert [each.name for each in tmp_path.iterdir()] == ["agent.sock"]
