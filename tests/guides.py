"""Running a guide of docs/ as its reader does: command by command, in the folder of each operator.

A block of the guide that begins with `$` holds commands and what they print. `$ cat FILE` shows a file that the
reader has to write. A comment of HTML before the block says more, for instance which operator does this.
"""

import contextlib
import glob
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ledger_node.command.main import main

DOCS = Path(__file__).parents[1] / "docs"
BIN = Path(sys.executable).parent
TIMEOUT_S = 100

HERE = ("keys", "genesis", "id")
"""Commands of `ledger-node` that read and write files alone."""

_BLOCK = re.compile(r"(?:^<!-- (?P<note>.+?) -->\n)?^```\n(?P<text>\$ .*?)^```$", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"[0-9a-f]{12,}|[0-9A-F]{12,}|(?:[0-9a-f]{8} ){7}[0-9a-f]{8}")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Step:
    """A command of a guide, the lines that it prints there, and the note before its block."""

    command: str
    shown: tuple[str, ...]
    note: str = ""
    begins: bool = True
    """Whether it is the first of its block."""


def steps_of(page: str) -> list[Step]:
    """Return the commands of a page of docs/, in its order."""
    return [step for block in _BLOCK.finditer((DOCS / page).read_text()) for step in _steps(block)]


def _steps(block: re.Match[str]) -> Iterator[Step]:
    for at, part in enumerate(re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]):
        command, *shown = part.rstrip("\n").split("\n")
        yield Step(command, tuple(shown), block["note"] or "", begins=at == 0)


def plain(text: str) -> str:
    """Return a text without what differs from run to run: digests, numbers, white space at the ends of lines."""
    lines = _NUMBER.sub("N", _WORD.sub("H", text)).split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


@dataclass
class Reader:
    """Somebody who follows a guide in a folder, with names, addresses and numbers other than the guide's."""

    folder: Path
    words: dict[str, str] = field(default_factory=dict)
    """What the reader writes for words of the guide."""
    environment: dict[str, str] = field(default_factory=dict)

    def own(self, text: str) -> str:
        """Return the guide's text as this reader writes it."""
        for word, instead in self.words.items():
            text = text.replace(word, instead)
        return text

    def follow(self, step: Step, *, check: bool = True) -> str:
        """Do what a step says; return what it printed. Fails unless that is what the guide shows, if it does."""
        command = self.own(step.command)
        if command.startswith("cat ") and step.shown:
            path = self.folder / command.removeprefix("cat ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.own("\n".join(step.shown)) + "\n")
            return ""
        if exported := re.fullmatch(r'export (\w+)="(.*)"', command):
            self.environment[exported[1]] = self._filled(exported[2])
            return ""
        said = self.run(command)
        if check and step.shown:
            assert plain(said) == plain(self.own("\n".join(step.shown))), command
        return said

    def _filled(self, text: str) -> str:
        """Return what the shell makes of a text in double quotes, if commands are in it."""
        return self.run(f'printf %s "{text}"') if "$(" in text else text

    def run(self, command: str) -> str:
        """Run a command line in the folder; return what it printed."""
        program, *words = shlex.split(command)
        if program == "ledger-node" and words[0] in HERE:
            return self._run_here(words)
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "400", **self.environment},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode in (0, 1, 2), done.stderr
        return done.stdout + done.stderr

    def _run_here(self, words: Sequence[str]) -> str:
        """Run `ledger-node` in this process, which is faster than a new one."""
        said = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main([each for word in words for each in (sorted(glob.glob(word)) if "*" in word else [word])])
        return said.getvalue()


def until(steps: Sequence[Step], is_last: Callable[[Step], bool]) -> tuple[Sequence[Step], Sequence[Step]]:
    """Divide steps behind the first one that `is_last`."""
    at = next(number for number, step in enumerate(steps, 1) if is_last(step))
    return steps[:at], steps[at:]
