"""Programs as scripts run them: their output goes to a pipe, and the environment tells of a narrow terminal."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from voice_dpki.shell.ending import guarded

BIN = Path(sys.executable).parent

NARROW = {"COLUMNS": "20", "LINES": "5"}

Main = Callable[[list[str]], int]
"""A program, or a command of `voice-dpki`, as a function of its arguments."""


def piped(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program of ours with pipes for its output, and return what it printed."""
    return subprocess.run(
        [BIN / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | NARROW,
        timeout=120,
    )


def result_of(main: Main, *arguments: object, status: int = 0) -> Any:
    """Run a command with `--json` in this process, check its exit status, and return the result that it prints."""
    ended, told, err = _run(main, arguments)
    assert ended == status, err
    assert sorted(told) == ["command", "result"]
    return told["result"]


def error_of(main: Main, *arguments: object) -> str:
    """Run a command with `--json` that can do nothing, and return its error, which it prints as a line, too."""
    ended, told, err = _run(main, arguments)
    assert sorted(told) == ["command", "error"]
    assert ended == 2
    assert err.endswith(f": {told['error']}\n")
    return str(told["error"])


def _run(main: Main, arguments: tuple[object, ...]) -> tuple[int, dict[str, Any], str]:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = guarded(lambda: main([*map(str, arguments), "--json"]))
    return status, json.loads(out.getvalue()), err.getvalue()
