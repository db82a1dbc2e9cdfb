"""The folder of `voice-dpki federation`: for one command at a time, and whole or not there."""

from pathlib import Path

import pytest

from ledger_node.command import federation, federation_folder
from voice_dpki.errors import LocalError
from voice_dpki.shell.output import locked


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here gets as far as CometBFT."""
    monkeypatch.setattr(federation, "find", lambda: None)


def test_two_commands_do_not_run_in_one_folder(tmp_path: Path) -> None:
    federation_folder.provision(tmp_path / "net", 2)
    with locked(tmp_path / "net"):
        for command in ("up", "check"):
            with pytest.raises(LocalError, match="net: another command is running in this folder"):
                federation.command([command, "--folder", str(tmp_path / "net")])


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LocalError, match="there is something in it already; name a new folder"):
        federation.command(["up", "--folder", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_making_that_was_killed_is_not_taken_for_a_federation(tmp_path: Path) -> None:
    """It leaves the configurations as `ledger-node init` writes them: of nodes that follow an engine."""
    first, *_ = federation_folder.provision(tmp_path / "net", 2)
    text = first.config.read_text()
    start, end = text.index("[cometbft]"), text.index("[submission]")
    first.config.write_text(text[:start] + '[follow]\nurl = "http://127.0.0.1:26680"\n\n' + text[end:])
    with pytest.raises(LocalError, match="the making of this federation was broken off; remove the folder"):
        federation.command(["up", "--folder", str(tmp_path / "net")])


def test_a_making_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(federation_folder, "_configuration", fail)
    with pytest.raises(KeyboardInterrupt):
        federation_folder.provision(tmp_path / "net", 2)
    assert not (tmp_path / "net").exists()
