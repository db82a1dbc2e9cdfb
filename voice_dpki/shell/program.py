"""How every program runs: an event loop, a clean stop on SIGTERM, and errors that a person can act on."""
# ruff: noqa: TID251 - this is a shell: it runs the event loop

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import uvloop

from voice_dpki.errors import VoiceDpkiError

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


def describe_configured(parser: argparse.ArgumentParser, text: str) -> None:
    """Describe a program that takes nothing but `--config FILE`; `text` keeps its line breaks in the help."""
    parser.description = text
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the TOML file")
