"""The same blocks give the same AppHashes and results, whatever the hash seed, process and version of Python."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .history import Given, preparations, printable, replay
from .history_4 import make

ROOT = Path(__file__).parents[2]
HASH_SEEDS = ("0", "1", "4242")
MINORS = (11, 12, 13, 14)
PACKAGES = ("cryptography", "msgspec", "pynacl")
"""All that the state machine needs beside Python itself."""


@pytest.fixture(scope="module")
def history(federation: Any) -> Given:
    return make(federation)


@pytest.fixture(scope="module")
def expected(history: Given) -> dict[str, Any]:
    found = {"blocks": replay(history), "printable": printable(), "prepared": preparations()}
    return json.loads(json.dumps(found))


def replay_with(python: str, seed: str, history: Given) -> dict[str, Any]:
    """Replay in a process of another interpreter, which finds the library's source here."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [python, Path(__file__).with_name("history.py")],
        input=json.dumps(history),
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_history_has_something_of_everything(expected: dict[str, Any]) -> None:
    names = {name for _, results, *_ in expected["blocks"] for _, name, _ in results}
    assert names >= {
        "ok",
        "malformed",
        "wrong-chain",
        "unknown-signer",
        "certificate-malformed",
        "wrong-organization",
        "numbers-outside-ranges",
        "names-outside-domains",
        "key-of-another-organization",
        "already-recorded",
        "expired",
        "not-the-owner",
        "transition-not-allowed",
        "outranked",
        "other-subject",
        "domain-taken",
        "wrong-member-revision",
        "already-voted",
        "unknown-proposal",
        "unknown-change",
        "not-open",
        "compromised-key",
        "host-name-label",
        "uri-escape",
        "organization-form",
        "organization-scripts",
        "organization-taken",
        "common-name-form",
        "common-name-scripts",
        "no-possession",
        "claim-constraints",
    }
    varied = [results[-2][1] for _, results, *_ in expected["blocks"] if len(results) == 5]
    assert varied == ["signature-form", "ok"], "version 3, then one that no release has"
    updates = [power for *_, updates in expected["blocks"] for _, power in updates]
    assert updates == [0, 100, 1, 100], "one validator was removed, and a new one came and stayed"
    gone = [path for _, _, nodes, _ in expected["blocks"] for path, node in nodes if node is None]
    assert len(gone) > 20, "what expired was pruned"


@pytest.mark.parametrize("seed", HASH_SEEDS)
def test_other_hash_seeds_and_processes_give_the_same(history: Given, expected: dict[str, Any], seed: str) -> None:
    assert replay_with(sys.executable, seed, history) == expected


@pytest.mark.parametrize("minor", MINORS)
def test_other_versions_of_python_give_the_same(
    history: Given, expected: dict[str, Any], minor: int, tmp_path: Path
) -> None:
    python = interpreter(minor)
    if sys.version_info[:2] == (3, minor) or python is None:
        pytest.skip(f"Python 3.{minor} is the one that runs the tests" if python else f"no Python 3.{minor} here")
    prepared = prepare(python, tmp_path / "venv")
    for seed in HASH_SEEDS[:2]:
        assert replay_with(prepared, seed, history) == expected


def interpreter(minor: int) -> str | None:
    """Find an installed Python: what pyenv has, whichever version it has chosen for this folder, or on the PATH."""
    name = f"python3.{minor}"
    if pyenv := shutil.which("pyenv"):
        versions = subprocess.run([pyenv, "whence", name], capture_output=True, text=True).stdout.split()
        if versions:
            chosen = {**os.environ, "PYENV_VERSION": versions[-1]}
            return subprocess.check_output([pyenv, "which", name], env=chosen, text=True).strip()
    return shutil.which(name)


def prepare(python: str, folder: Path) -> str:
    """Make a virtual environment with the packages at the versions of `constraints.txt`; returns its Python."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    made = str(folder / "bin" / "python")
    options = [
        "--quiet",
        "--disable-pip-version-check",
        "--retries",
        "1",
        "--constraint",
        str(ROOT / "constraints.txt"),
    ]
    done = subprocess.run([made, "-m", "pip", "install", *options, *PACKAGES], capture_output=True, text=True)
    if done.returncode and "connection" in done.stderr.lower():
        pytest.skip("pip does not reach the package index")
    assert done.returncode == 0, done.stderr
    return made
