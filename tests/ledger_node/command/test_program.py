"""The program's commands: what they make, teach and refuse."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from ledger_node.command.main import main


@pytest.mark.parametrize("command", [[], ["start"], ["init"], ["check"], ["status"]])
def test_help_teaches(ledger_node: Any, command: list[str]) -> None:
    shown = ledger_node(*command, "--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("usage: ledger-node")


def test_init_makes_keys_that_only_their_owner_reads(network: Any) -> None:
    made = {path.name for path in network.folder.iterdir()}
    assert {"genesis.json", "engine.toml", "operator-a.toml", "operator-b.toml", "tokens-operator-a"} <= made
    for path in [*(network.folder / "keys").iterdir(), network.folder / "tokens-operator-a"]:
        assert path.stat().st_mode & 0o077 == 0


def test_check_before_the_first_start(network: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for path in network.folder.glob("*.toml"):
        assert main(["check", "--config", str(path)]) == 0
        assert capsys.readouterr().out == "no store yet\n"


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ("", "chain_id"),
        ('chain_id = "x"\nmembers = []', "members"),
        ('chain_id = "x"\n[[members]]\norganization = "A"\nkind = "king"', "king"),
        ('chain_id = "x"\n[[members]]\norganization = "A"\nkind = "vendor"\nvalidators = 1', "only operators"),
        ('chain_id = "x"\n[[members]]\norganization = "A"\nkind = "vendor"', "validator"),
        (
            'chain_id = "x"\n[[members]]\norganization = "A"\nkind = "ca"\n'
            '[[members]]\norganization = "a"\nkind = "ca"',
            "alike",
        ),
        (
            'chain_id = "x"\n[[members]]\norganization = "A"\nkind = "ca"\nranges = [{ start = "x", count = 2 }]',
            "digits",
        ),
    ],
)
def test_init_refuses_members_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], members: str, why: str
) -> None:
    (tmp_path / "members.toml").write_text(members)
    assert main(["init", "--members", str(tmp_path / "members.toml"), "--out", str(tmp_path / "net")]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert len(said.splitlines()) == 1


def test_init_leaves_a_folder_that_is_in_use_alone(network: Any, ledger_node: Any) -> None:
    members = network.folder.parent / "members.toml"
    shown = ledger_node("init", "--members", members, "--out", network.folder)
    assert shown.returncode == 2
    assert "something in it already" in shown.stderr


def test_init_names_the_next_commands(network: Any, ledger_node: Any) -> None:
    members = network.folder.parent / "members.toml"
    shown = ledger_node("init", "--members", members, "--out", network.folder / "other")
    assert shown.returncode == 0
    assert f"ledger-node start --config {network.folder / 'other' / 'engine.toml'}" in shown.stdout


def test_status_prints_what_a_node_says(network: Any, ledger_node: Any) -> None:
    engine = network.engine()
    shown = ledger_node("status", "--url", engine.url)
    assert shown.returncode == 2
    assert "does not answer" in shown.stderr
    engine.start()
    assert json.loads(ledger_node("status", "--url", engine.url).stdout)["role"] == "engine"


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("[engine]", "[motor]", "motor"),
        ("heartbeat_s = 5.0", "heartbeat_s = 0", "heartbeat_s"),
        ("heartbeat_s = 5.0", '[follow]\nurl = "http://127.0.0.1"', "exactly one"),
        ("genesis.json", "nothing.json", "nothing.json"),
        ("genesis.json", "tokens", "genesis"),
        ('"keys/validator-operator-a-1.pem", ', "", "two thirds"),
        ("validator-operator-a-1", "endorsing-operator-a", "Ed25519"),
        ('"keys/validator-operator-a-1.pem"', '"tokens"', "private key"),
        ("endorsing-operator-a", "validator-operator-a-1", "neither ECDSA nor RSA"),
        ('tokens = "tokens"', 'tokens = "no-tokens"', "no-tokens"),
    ],
)
def test_start_refuses_a_configuration_that_cannot_be(
    network: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    after: str,
    why: str,
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers])  # the program sets its own
    engine = network.engine()
    text = engine.config.read_text().replace("'", '"')
    assert before in text
    engine.config.write_text(text.replace(before, after))
    assert main(["start", "--config", str(engine.config)]) == 2
    assert why in capsys.readouterr().err.splitlines()[-1]


def test_start_refuses_an_address_in_use(network: Any) -> None:
    engine = network.engine().start()
    other = network.follower("a", engine.url)
    other.config.write_text(other.config.read_text().replace(str(other.port), str(engine.port)))
    assert f"127.0.0.1:{engine.port}" in other.fails()


def test_a_store_in_use_is_left_alone(network: Any, ledger_node: Any) -> None:
    engine = network.engine().start()
    shown = ledger_node("check", "--config", engine.config)
    assert shown.returncode == 2
    assert "another ledger-node is running" in shown.stderr
    engine.stop()
    shown = ledger_node("check", "--config", engine.config)
    assert re.match(r"height (\d+): looked at \1 blocks", shown.stdout)


def test_it_stops_in_order(network: Any) -> None:
    engine = network.engine().start()
    follower = network.follower("a", engine.url).start()
    assert engine.stop() == 0
    assert follower.stop() == 0
    assert "Traceback" not in engine.log.read_text() + follower.log.read_text()
