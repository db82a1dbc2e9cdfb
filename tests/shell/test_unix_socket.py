"""A unix socket's name: taken over from the dead, never from the living."""

import socket
from pathlib import Path

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.shell.unix_socket import claim


def test_a_dead_socket_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    claim(path).close()
    assert not path.exists()


def test_a_socket_that_somebody_serves_is_left_to_him(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen(0)
        for _ in range(3):  # too busy to accept is alive, too
            with pytest.raises(LocalError, match=r"agent\.sock: another program serves on this socket"):
                claim(path)
    assert path.exists()


def test_of_two_at_the_same_time_one_has_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    held = claim(path)
    with pytest.raises(LocalError, match="another program serves on this socket"):
        claim(path)
    held.close()
    claim(path).close()


def test_what_is_no_socket_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("mine")
    with pytest.raises(LocalError, match="something else than a socket"):
        claim(path)
    assert path.read_text() == "mine"


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be reserved: No such file or directory"):
        claim(tmp_path / "nowhere" / "agent.sock")
