"""How every program runs: an event loop, a clean stop on SIGTERM, and errors that a person can act on."""
# ruff: noqa: TID251 - this is a shell: it runs the event loop

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

import uvloop

from voice_dpki.errors import VoiceDpkiError
from voice_dpki.shell.log import setup_logging

T = TypeVar("T")

EXIT_USAGE = 2
"""Exit status when the configuration, the arguments or the surroundings do not allow a start."""


def run(main: Callable[[asyncio.Event], Coroutine[object, object, int | None]]) -> int:
    """Run `main(stop)` on uvloop until it returns; SIGTERM and SIGINT set `stop`.

    Returns the program's exit status: what `main` returned (None is 0), or 2 after a VoiceDpkiError, whose message
    is printed on standard error.
    """

    async def supervised() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        return await main(stop) or 0

    try:
        return uvloop.run(supervised())
    except VoiceDpkiError as error:
        return fail(error)


def fail(error: VoiceDpkiError) -> int:
    """Print `error` for the person at the terminal and return the exit status for it."""
    print(f"{sys.argv[0].rsplit('/', 1)[-1]}: {error}", file=sys.stderr)
    return EXIT_USAGE


class Parser(argparse.ArgumentParser):
    """An argument parser whose help keeps the line breaks of its description and examples."""

    def __init__(self, *args: object, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """End the program: say what is wrong with the arguments, and what explains them."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; {self.prog} --help explains\n")


def indented(example: str) -> str:
    """Return a configuration as it stands in a help text."""
    return "".join(f"  {line}".rstrip() + "\n" for line in example.splitlines())


def describe_configured(parser: argparse.ArgumentParser, text: str) -> None:
    """Describe a program that takes nothing but `--config FILE`; `text` keeps its line breaks in the help."""
    parser.description = text
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the TOML file")


Act = Callable[[argparse.Namespace], int]
"""What a subcommand does with its arguments; returns the exit status, may raise VoiceDpkiError."""


class ServiceParser(Parser):
    """The arguments of a service: `start` and `check-config`, both with `--config FILE`, and what `add` adds."""

    def __init__(self, prog: str, text: str, *, start: Act, check: Act) -> None:
        """`text` describes the service and ends with its configuration."""
        super().__init__(prog=prog, description=text)
        self._commands = self.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
        for name, summary, act in (
            ("start", "serve until SIGTERM", start),
            ("check-config", "say whether it could start, and how", check),
        ):
            describe_configured(
                self.add(name, summary, act), f"{summary.capitalize()}; {prog} --help has an example."
            )

    def add(self, name: str, summary: str, act: Act) -> argparse.ArgumentParser:
        """Add a subcommand and return the parser for its arguments."""
        command = self._commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        command.set_defaults(act=act)
        return command

    def run(self, arguments: list[str] | None) -> int:
        """Run the subcommand that `arguments` name and return its exit status; errors are printed."""
        options = self.parse_args(arguments)
        try:
            return int(options.act(options))
        except VoiceDpkiError as error:
            return fail(error)


def start(name: str, setup: T, serve: Callable[[T, asyncio.Event], Coroutine[object, object, int | None]]) -> int:
    """Log as the program `name` and run `serve(setup, stop)` as `run` does; returns the exit status."""
    setup_logging(name)
    return run(partial(serve, setup))
