"""The commands in docs/ and README: each is one that its program takes, and each is run by a test or says why not.

A page names the tests that run its blocks in a comment: `<!-- run by tests/e2e/test_keys.py -->`. A block that no
test runs has a comment of its own before it: `<!-- not run: it needs a terminal -->`.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.test_commands import COMMANDS, parser_of

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))

LEDGER = "--genesis genesis.json --url http://127.0.0.1:26680"
"""What `...` stands for in the commands of `voice-dpki ledger`."""
DECIDES = "--organization 'Operator A' --key endorsing.pem"
"""What `...` stands for besides in commands by which an operator decides."""

OTHERS = (
    "apparmor_parser apt-get cat cp curl echo export for install kamailio kamcmd make mkdir openssl sipp sngrep"
)
PROGRAMS = {*{name.split()[0] for name in COMMANDS}, *OTHERS.split(), "swanctl", "systemctl", "useradd", "promtool"}
"""Words that begin a block of commands."""

_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_RUN_BY = re.compile(r"<!-- run by (?P<tests>.+?) -->")


class Block(NamedTuple):
    """A block of a page, and the note before it."""

    note: str
    language: str
    text: str

    @property
    def commands(self) -> Iterator[str]:
        """The lines that begin with a program of ours, with what continues them."""
        for line in self.text.replace("\\\n", " ").split("\n"):
            bare = line.removeprefix("$ ").removeprefix(".venv/bin/")
            if bare.split(" ")[0] in {name.split()[0] for name in COMMANDS}:
                yield bare

    @property
    def is_for_a_shell(self) -> bool:
        """Whether the block holds commands."""
        first = self.text.removeprefix("$ ").removeprefix(".venv/bin/").split(None, 1)
        return self.language == "sh" or self.text.startswith("$ ") or (first[:1] != [] and first[0] in PROGRAMS)


def blocks(page: Path) -> list[Block]:
    return [
        Block(found["note"] or "", found["language"], found["text"]) for found in _BLOCK.finditer(page.read_text())
    ]


def commands() -> list[tuple[Path, str]]:
    """Return page and command of all commands of ours."""
    pages = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return [(page, command) for page in pages for block in blocks(page) for command in block.commands]


def words_of(page: Path, command: str) -> list[str]:
    """Return the command's own words, without what a shell does with its output."""
    for name, value in re.findall(r'^\$ export (\w+)="(.*)"$', page.read_text(), re.MULTILINE):
        command = command.replace(f"${name}", value)
    elided = LEDGER
    if re.search(r" (?:propose|vote|withdraw) ", command) and "--organization" not in command:
        elided += f" {DECIDES}"
    whole = re.sub(r"\$\([^)]*\)", "1", re.sub(r"(?<= )\.\.\.(?= |$)", elided, command))
    words = shlex.split(whole, comments=True)
    end = next(
        (at for at, word in enumerate(words) if word in ("|", "&", "&&", ";") or re.match(r"\d?[<>]", word)), None
    )
    return words[:end]


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda value: getattr(value, "name", value)[:60])
def test_its_program_takes_the_command(
    page: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(page, command)
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    if words[:3] in (["voice-dpki", "device", "attach"], ["voice-dpki", "device", "provision"]):
        name = " ".join(words[:3])
    parser = parser_of(COMMANDS[name], monkeypatch)
    status: object = 0
    try:
        parser.parse_args(words[len(name.split()) :])
    except SystemExit as ended:
        status = ended.code
    assert not status, f"{page.name}: {command}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_its_commands_are_run_by_a_test_or_say_why_not(page: Path) -> None:
    runners = [ROOT / name for found in _RUN_BY.finditer(page.read_text()) for name in found["tests"].split()]
    for runner in runners:
        assert page.name in runner.read_text(), f"{runner.name} does not read {page.name}"
    unsaid = [
        block.text for block in blocks(page) if block.is_for_a_shell and not block.note.startswith("not run: ")
    ]
    assert runners or unsaid == [], f"{page.name}: name the tests that run these, or say why none does"
