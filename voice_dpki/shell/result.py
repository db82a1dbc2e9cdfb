"""What a command prints: lines for people, whole in a pipe, or with `--json` one JSON object, for an error as well.

docs/commands.md documents the objects.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from voice_dpki.shell.ending import ending_of

if TYPE_CHECKING:
    from rich.console import Console

PIPE_COLUMNS = 1_000_000
"""Width where no terminal reads: wider than any table, so that nothing is cut or wrapped."""


def make_console(*, stderr: bool = False) -> "Console":
    """Return a console for standard output or standard error. What it is given is never taken for markup."""
    from rich.console import Console  # only here: services need none

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_COLUMNS
    return Console(highlight=False, markup=False, emoji=False, width=width, stderr=stderr)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json` to a command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(full_command=parser.prog)


def print_result(options: argparse.Namespace, result: object, *lines: str) -> None:
    """Print what a command has found or done: `result`, of what JSON can hold, with --json, otherwise the lines."""
    if options.json:
        print_object({"command": options.full_command, "result": result})
    elif lines:
        print("\n".join(lines))


def print_object(form: object) -> None:
    """Print one JSON object, indented."""
    print(msgspec.json.format(msgspec.json.encode(form), indent=2).decode("utf-8"))


def text_or_null(value: object) -> str | None:
    """Return what is said in JSON of a part of a configuration that may be absent."""
    return None if value is None else str(value)


@contextmanager
def errors_in_json(options: argparse.Namespace) -> Iterator[None]:
    """Print an expected error of a command as a JSON object, too, if it has `--json` among its options."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        ended = ending_of(error)
        if ended is not None and ended[0] and getattr(options, "json", False):
            print_object({"command": options.full_command, "error": ended[0]})
        raise
