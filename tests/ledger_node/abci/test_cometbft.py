"""CometBFT's home and program: what is written where, who may read it, and what is said when it is missing."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger_node.abci import cometbft
from ledger_node.abci.cometbft import CometbftSection, Home, find, node_id, node_key
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen, load_config, to_toml

PEER = "0123456789abcdef0123456789abcdef01234567@127.0.1.2:26656"


def home(folder: Path, **options: Any) -> Home:
    settings = CometbftSection(home="unused", rpc=Listen(host="127.0.1.1", port=26657), peers=(PEER,))
    return Home(folder=folder, name="operator-a", genesis=b"{}", settings=settings, **options)


def test_cometbft_serves_its_metrics_where_it_is_told_to(tmp_path: Path) -> None:
    section = CometbftSection(home="c", metrics=Listen(port=26660))
    cometbft.Home(folder=tmp_path, name="a", genesis=b"{}", settings=section).write()
    told = tomllib.loads((tmp_path / "config" / "config.toml").read_text())["instrumentation"]
    assert (told["prometheus"], told["prometheus_listen_addr"]) == (True, "127.0.0.1:26660")
    with pytest.raises(ValueError, match=r"others can reach 192\.0\.2\.1"):
        CometbftSection(home="c", metrics=Listen(host="192.0.2.1", port=26660))
    CometbftSection(home="c", metrics=Listen(host="192.0.2.1", port=26660, insecure=True))


def test_cometbft_waits_for_a_remote_signer_where_it_is_told_to(tmp_path: Path) -> None:
    section = CometbftSection(home="c", signer=Listen(port=26659))
    cometbft.Home(folder=tmp_path, name="a", genesis=b"{}", settings=section).write()
    assert _told(tmp_path)["priv_validator_laddr"] == "tcp://127.0.0.1:26659"
    home(tmp_path).write()
    assert _told(tmp_path)["priv_validator_laddr"] == ""
    with pytest.raises(ValueError, match=r"others can reach 192\.0\.2\.1"):
        CometbftSection(home="c", signer=Listen(host="192.0.2.1", port=26659))
    CometbftSection(home="c", signer=Listen(host="192.0.2.1", port=26659, insecure=True))
    with pytest.raises(ValueError, match="leave validator_key out"):
        CometbftSection(home="c", signer=Listen(port=26659), validator_key="keys/validator.pem")


def test_the_guide_to_the_remote_signer_has_a_configuration(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/remote-signer.md").read_text()
    signer, node = [tomllib.loads(each.partition("```")[0]) for each in page.split("```toml\n")[1:]]
    (tmp_path / "section.toml").write_text(to_toml(node["cometbft"]))
    section = load_config(tmp_path / "section.toml", CometbftSection)
    assert section.signer is not None
    assert signer["validator"][0]["addr"] == f"tcp://{section.signer.host}:{section.signer.port}"


def _told(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "config" / "config.toml").read_text())


def test_addresses_of_ipv6_are_in_brackets(tmp_path: Path) -> None:
    section = CometbftSection(
        home="c",
        rpc=Listen(host="::1", port=26657),
        p2p=Listen(host="::", port=26656),
        metrics=Listen(host="::1", port=26660),
    )
    cometbft.Home(folder=tmp_path, name="a", genesis=b"{}", settings=section).write()
    told = tomllib.loads((tmp_path / "config" / "config.toml").read_text())
    assert told["instrumentation"]["prometheus_listen_addr"] == "[::1]:26660"
    assert (told["rpc"]["laddr"], told["p2p"]["laddr"]) == ("tcp://[::1]:26657", "tcp://[::]:26656")


def test_home_has_what_cometbft_reads(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    home(tmp_path, validator_key=key).write()
    settings = tomllib.loads((tmp_path / "config" / "config.toml").read_text())
    assert settings["proxy_app"] == f"unix://{tmp_path}/abci.sock"
    assert settings["rpc"]["laddr"] == "tcp://127.0.1.1:26657"
    assert settings["p2p"]["laddr"] == "tcp://127.0.0.1:26656"
    assert settings["p2p"]["persistent_peers"] == PEER
    assert settings["consensus"]["timeout_propose"] == "300ms"
    assert settings["instrumentation"] == {"prometheus": False}
    written = json.loads((tmp_path / "config" / "priv_validator_key.json").read_text())
    assert written == cometbft.key_json(key)
    for private in ("config/priv_validator_key.json", "config/node_key.json", "data/priv_validator_state.json"):
        assert (tmp_path / private).stat().st_mode & 0o777 == 0o600


def test_what_a_validator_has_signed_and_who_it_is_stay(tmp_path: Path) -> None:
    """Forgetting the last vote could make it sign another block at the same height."""
    home(tmp_path).write()
    name = node_id(node_key(tmp_path))
    state = tmp_path / "data" / "priv_validator_state.json"
    state.write_text('{"height": "7", "round": 0, "step": 3}')
    observer = (tmp_path / "config" / "priv_validator_key.json").read_text()
    home(tmp_path).write()
    assert state.read_text() == '{"height": "7", "round": 0, "step": 3}'
    assert node_id(node_key(tmp_path)) == name
    assert (tmp_path / "config" / "priv_validator_key.json").read_text() == observer


def test_a_node_has_the_name_that_its_operator_made(tmp_path: Path) -> None:
    home(tmp_path).write()
    key = Ed25519PrivateKey.generate()
    home(tmp_path, node_key=key).write()
    assert json.loads((tmp_path / "config" / "node_key.json").read_text()) == cometbft.key_json(key)
    assert (tmp_path / "config" / "node_key.json").stat().st_mode & 0o777 == 0o600


def test_a_missing_program_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(LocalError, match="not installed; install it: ledger-node install-cometbft"):
        find()
    program = tmp_path / "cometbft"
    for script, message in (("echo 0.37.1", "this is CometBFT 0.37.1"), ("exit 3", "does not run")):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        with pytest.raises(LocalError, match=message):
            find()
    program.write_text(f"#!/bin/sh\necho {cometbft.VERSION}\n")
    assert find() == program


@pytest.mark.parametrize("peer", ["operator-b@127.0.1.2:26656", PEER + ",x", PEER.replace(":26656", "")])
def test_peers_are_ids_with_addresses(tmp_path: Path, peer: str) -> None:
    config = tmp_path / "section.toml"
    config.write_text(f'home = "h"\npeers = ["{peer}"]\n')
    with pytest.raises(LocalError, match="peers"):
        load_config(config, CometbftSection)
