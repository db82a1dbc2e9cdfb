"""Nodes of several releases in one federation: an earlier commit's, and copies of this one with other rules."""

import asyncio
import io
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledger_node.command.federation import Processes
from ledger_node.command.federation_folder import OperatorNode
from voice_dpki.stage.processes import Program, Running

ROOT = Path(__file__).parents[2]
PACKAGES = ("ledger_node", "voice_dpki")
STOP_TIMEOUT_S = 60.0

RULES_FILE = "voice_dpki/ledger/rules.py"
Edit = tuple[str, str, str]
"""A file of the project, a passage that it has once, and what stands there instead."""


def within(code: Path) -> tuple[str, ...]:
    """Begin a command that shall find its code in a folder."""
    return ("env", f"--chdir={code}", f"PYTHONPATH={code}")


def from_history(commit: str, folder: Path) -> Path | None:
    """Put a commit's code into `folder` and return it; None where this copy has no such history."""
    command = ["git", "archive", commit, *PACKAGES]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder, **options)
    check_runs(folder)
    return folder


def altered(folder: Path, *edits: Edit) -> Path:
    """Put a copy of this code into `folder`, change it, and return it."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, passage, instead in edits:
        code = (folder / name).read_text()
        assert code.count(passage) == 1, f"{name} has changed: {passage}"
        (folder / name).write_text(code.replace(passage, instead))
    check_runs(folder)
    return folder


def check_runs(code: Path) -> None:
    """Check that the code in a folder is what runs there."""
    command = [*within(code), sys.executable, "-c", "import ledger_node; print(ledger_node.__file__)"]
    assert subprocess.check_output(command, text=True).startswith(str(code)), "its code is what runs"


class Mixed(Processes):
    """Runs each node on the code in its folder in `code`, and on this one's where there is none."""

    def __init__(self, nodes: Sequence[OperatorNode], code: Mapping[str, Path | None]) -> None:
        super().__init__(nodes)
        self._code = dict(code)

    def program(self, node: OperatorNode) -> Program:
        program, code = super().program(node), self._code.get(node.name)
        if code is None:
            return program
        module = "ledger_node" if (code / "ledger_node" / "__main__.py").exists() else "ledger_node.main"
        return replace(program, within=within(code), module=module)

    async def stop(self, node: OperatorNode) -> int:
        """End a node in order; returns its exit status."""
        running = self._running.pop(node.name)
        running.send(signal.SIGTERM)
        return await asyncio.to_thread(running.wait_end, STOP_TIMEOUT_S)

    def start_on(self, node: OperatorNode, code: Path | None) -> Running:
        """Start a stopped node on other code."""
        self._code[node.name] = code
        self.start(node)
        return self._running[node.name]
