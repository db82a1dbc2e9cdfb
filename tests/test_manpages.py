"""Manual pages: man itself renders them, and no line of an example is broken."""

import subprocess
from pathlib import Path

import pytest

from tests.manpages import write
from voice_dpki.shell.completion import parser_of, programs

pytestmark = pytest.mark.peer("man")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages as man shows them, by program."""
    return {path.stem: _shown(path) for path in write(tmp_path_factory.mktemp("man"))}


def _shown(path: Path) -> str:
    command = ["man", "--warnings=mac,syntax,escape,missing", "-P", "cat", "-l", str(path)]
    environment = {"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if not line.endswith("cannot adjust line")]
    assert said == []  # a long word in a narrow column is no fault
    return done.stdout


def test_each_program_has_one(pages: dict[str, str]) -> None:
    assert tuple(sorted(pages)) == programs()
    for program, page in pages.items():
        assert page.startswith(f"{program.upper()}(1)")


def test_descriptions_keep_their_lines(pages: dict[str, str]) -> None:
    """Examples and configurations would be wrapped otherwise, and could not be copied."""
    for program in ("authn-server", "verify-server", "ledger-node", "segw-agent"):
        told = (parser_of(program).description or "").strip().split("\n")
        shown = [line.strip() for line in pages[program].split("\n")]
        assert [line for line in told if line.strip() and line.strip() not in shown] == []


def test_commands_of_commands_are_there(pages: dict[str, str]) -> None:
    for program, options in (
        ("authn-server", ("--submit-url", "COMMAND 'authn-server rotate'")),
        (
            "voice-dpki",
            ("COMMAND 'voice-dpki ledger propose'", "--organization", "COMMAND 'voice-dpki device attach'"),
        ),
    ):
        assert [each for each in options if each not in pages[program]] == []
