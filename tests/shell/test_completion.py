"""Completion, asked as bash asks for it: the words of docs/commands.md, and what a reader's Tab finds."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.guides import Reader, steps_of
from voice_dpki.shell.cli import main as umbrella
from voice_dpki.shell.completion import SHELLS, parser_of, programs, script

PAGE = "commands.md"


def completed(written: str, *words: str) -> list[str]:
    """Return what bash offers for the last of the words, when the script is loaded."""
    program, at = words[0], len(words) - 1
    function = re.search(rf"complete .*-F (\S+) {program}$", written, re.MULTILINE)
    assert function is not None
    line = " ".join(f"'{word}'" for word in words)
    asked = f"COMP_WORDS=({line}); COMP_CWORD={at}; {function[1]}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(
        ["bash", "-c", f"{written}\n{asked}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("authn-server", "ro"), ["rotate"]),
        (("authn-server", "rotate", "--submit"), ["--submit-url"]),
        (("authn-server", "explain", "--attest", ""), ["A", "B", "C"]),
        (("ledger-node", "keys", "ne"), ["new"]),
        (("sip-testbed", "user"), ["user-agent"]),
        (("voice-dpki", "ledger", "with"), ["withdraw"]),
        (("voice-dpki", "device", "att"), ["attach"]),
        (("voice-dpki", "completion", "f"), ["fish"]),
    ],
)
def test_bash_is_offered_commands_options_and_choices(words: tuple[str, ...], found: list[str]) -> None:
    assert completed(script("bash", words[0]), *words) == found


def test_bash_is_offered_files_where_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "authn.toml").write_text("")
    written = f"cd {tmp_path}\n{script('bash', 'authn-server')}"
    assert completed(written, "authn-server", "start", "--config", "au") == ["authn.toml"]
    assert completed(written, "authn-server", "make-credential", "--key", "au") == ["authn.toml"]


@pytest.mark.parametrize("program", programs())
def test_each_program_has_a_script_for_each_shell(program: str) -> None:
    assert program in parser_of(program).prog
    assert all(program in script(shell, program) for shell in SHELLS)


def test_the_commands_of_the_page_write_scripts(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for step in steps_of(PAGE):
        assert reader.follow(step) == ""
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("authn-server.bash", "_voice-dpki"))


def test_what_is_no_program_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        umbrella(["completion", "bash", "vim"])
    assert ended.value.code == 2
    assert "invalid choice: 'vim'" in capsys.readouterr().err
