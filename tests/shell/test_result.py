"""What commands print: JSON for results and for errors, and lines that nothing cuts or wraps."""

import argparse
import json

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.shell.ending import guarded
from voice_dpki.shell.program import run_subcommand
from voice_dpki.shell.result import add_json, errors_in_json, make_console, print_result

LONG = " ".join(["word"] * 100)


def _options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="program work")
    add_json(parser)
    return parser.parse_args(arguments)


def test_a_result_is_lines_or_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(_options(), {"number": 1}, "a line", LONG)
    assert capsys.readouterr().out == f"a line\n{LONG}\n"
    print_result(_options("--json"), {"number": 1}, "a line", LONG)
    assert json.loads(capsys.readouterr().out) == {"command": "program work", "result": {"number": 1}}


@pytest.mark.parametrize(
    ("error", "sentence", "status"),
    [
        (LocalError("a file is missing"), "a file is missing", 2),
        (PermissionError(13, "Permission denied", "file"), "file: Permission denied", 2),
        (KeyboardInterrupt(), "interrupted; what it started is stopped", 130),
        (ExceptionGroup("both", [LocalError("it is gone")]), "it is gone", 2),
    ],
)
def test_an_expected_error_is_an_object_and_a_line(
    error: BaseException, sentence: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: argparse.Namespace) -> int:
        raise error

    def parser() -> argparse.ArgumentParser:
        made = argparse.ArgumentParser(prog="program work")
        add_json(made)
        made.set_defaults(run=fail)
        return made

    assert run_subcommand(parser, ["--json"]) == status
    told = capsys.readouterr()
    assert json.loads(told.out) == {"command": "program work", "error": sentence}
    assert told.err.endswith(f": {sentence}\n")
    assert run_subcommand(parser, []) == status
    assert capsys.readouterr().out == ""


def test_commands_without_the_option_and_unexpected_errors_print_no_object(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> int:
        with errors_in_json(argparse.Namespace()):
            raise LocalError("no")

    assert guarded(fail) == 2
    with pytest.raises(ZeroDivisionError), errors_in_json(_options("--json")):
        raise ZeroDivisionError
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stderr", [False, True])
def test_a_console_in_a_pipe_wraps_nothing(
    stderr: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    make_console(stderr=stderr).print(LONG)
    told = capsys.readouterr()
    assert (told.err if stderr else told.out) == f"{LONG}\n"
