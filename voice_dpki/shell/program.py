"""How every program runs: an event loop, a clean stop on SIGTERM, and errors that a person can act on."""

import argparse
import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import uvloop

from voice_dpki.shell.clock import watch_clock
from voice_dpki.shell.ending import EXIT_USAGE, guarded
from voice_dpki.shell.interrupts import interruptible
from voice_dpki.shell.log import LogConfig, setup_logging
from voice_dpki.shell.notify import STOPPING, notify, reloading, stay_alive
from voice_dpki.shell.reload import reload_all
from voice_dpki.shell.result import add_json, errors_in_json
from voice_dpki.shell.worker import is_worker, retire

log = logging.getLogger(__name__)

T = TypeVar("T")

COLLECTS_AFTER = (20_000, 20, 50)
"""How many new objects make the collector look at them, and how often it does so before it looks further."""

Main = Callable[[asyncio.Event], Coroutine[object, object, int | None]]
"""A program's work, which ends soon after the event is set; returns the exit status, None for 0."""


def run(main: Main, *, hangup_stops: bool = False, lives: Callable[[], bool] = lambda: True) -> int:
    """Run `main(stop)` on uvloop until it returns. SIGTERM and SIGINT set `stop`, and a second one cancels `main`.

    SIGINT stays ignored where it was ignored at the start, as in the background of a script. SIGHUP reloads what is
    reloadable (`voice_dpki.shell.reload`); with `hangup_stops` it sets `stop`, for commands that end with their
    terminal. SIGUSR1 has a worker give up its place, SIGUSR2 a supervisor replace its workers. systemd is told of
    all of them, and that the event loop is alive and `lives` holds (`voice_dpki.shell.notify`).

    Returns what `main` returned; raises what it raised, and KeyboardInterrupt if a signal cancelled it.
    """

    interrupted = False

    async def supervised() -> int:
        stop, loop, work = asyncio.Event(), asyncio.get_running_loop(), asyncio.current_task()
        assert work is not None

        def stopped() -> None:
            nonlocal interrupted
            if stop.is_set():
                interrupted = True
                work.cancel()
            notify(STOPPING)
            stop.set()

        def retired() -> None:
            if is_worker():
                retire()
                stopped()

        loop.add_signal_handler(signal.SIGTERM, stopped)
        loop.add_signal_handler(signal.SIGUSR1, retired)
        loop.add_signal_handler(signal.SIGUSR2, _say_no_successor)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGINT, stopped)
        if not hangup_stops:
            loop.add_signal_handler(signal.SIGHUP, _hang_up)
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, stopped)
        beside = [loop.create_task(watch_clock()), loop.create_task(stay_alive(lives))]
        try:
            return await main(stop) or 0
        finally:
            for each in beside:
                each.cancel()

    try:
        return uvloop.run(supervised())
    except StoppedError:
        raise KeyboardInterrupt from None
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise


class StoppedError(Exception):
    """A command was stopped before its work was done; `run` raises KeyboardInterrupt for it."""


async def unless_stopped(work: Coroutine[object, object, T], stop: asyncio.Event) -> T:
    """Await `work` and return its result; if `stop` is set first, cancel it and raise StoppedError."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise StoppedError
        return working.result()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def run_command(work: Coroutine[object, object, int | None]) -> int:
    """Run a command's `work` on uvloop; Ctrl-C, SIGTERM and SIGHUP cancel it, and raise KeyboardInterrupt."""

    async def worked() -> int:
        return await work or 0

    with interruptible():
        return uvloop.run(worked())


def ignore_hangup() -> None:
    """Only log SIGHUP from now on, until `run` sets its own handler."""
    signal.signal(signal.SIGHUP, lambda number, frame: _say_hangup())


def _hang_up() -> None:
    with reloading():
        if not reload_all():
            _say_hangup()


def _say_no_successor() -> None:
    log.warning("SIGUSR2 is ignored: a service that is to be replaced while it serves needs several workers")


def _say_hangup() -> None:
    log.warning("SIGHUP is ignored: to load a changed configuration, restart this service")


class Parser(argparse.ArgumentParser):
    """An argument parser whose help keeps the line breaks of its description and examples."""

    def __init__(self, *args: object, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def parse_args(self, *arguments: Any, **options: Any) -> Any:
        """Parse arguments as ArgumentParser does; inside `parser_made_by` this is as far as a program gets."""
        if _ONLY_MADE.get():
            raise _Made(self)
        return super().parse_args(*arguments, **options)

    def error(self, message: str) -> NoReturn:
        """End the program: print what is wrong with the arguments, and how to get help."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; {self.prog} --help explains\n")


class _Made(Exception):
    """A parser is complete, and its arguments are not parsed."""


_ONLY_MADE: ContextVar[bool] = ContextVar("only_made", default=False)


def parser_made_by(program: Callable[[], object]) -> Parser:
    """Return the parser that a program makes for its arguments; the program goes no further than that."""
    only_made = _ONLY_MADE.set(True)
    try:
        program()
    except _Made as made:
        parser: Parser = made.args[0]
        return parser
    finally:
        _ONLY_MADE.reset(only_made)
    raise AssertionError("a program ended before it parsed its arguments")


def indented(example: str) -> str:
    """Return a configuration, indented for a help text."""
    return "".join(f"  {line}".rstrip() + "\n" for line in example.splitlines())


def describe_configured(parser: argparse.ArgumentParser, text: str) -> None:
    """Describe a program whose only option is `--config FILE`; `text` keeps its line breaks in the help."""
    parser.description = text
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the TOML file")


Act = Callable[[argparse.Namespace], int]
"""A subcommand: takes its arguments, and returns the exit status; may raise VoiceDpkiError."""


class ServiceParser(Parser):
    """The arguments of a service: `start` and `check-config`, both with `--config FILE`, and what `add` adds."""

    def __init__(self, prog: str, text: str, *, start: Act, check: Act) -> None:
        """`text` describes the service and ends with its configuration. `check` has `--json` among its options."""
        super().__init__(prog=prog, description=text)
        self._commands = self.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
        for name, summary, act in (
            ("start", "serve until SIGTERM", start),
            ("check-config", "say whether it could start, and how", check),
        ):
            command = self.add(name, summary, act)
            describe_configured(command, f"{_sentence_begun(summary)}; {prog} --help has an example.")
            if act is check:
                add_json(command)

    def add(self, name: str, summary: str, act: Act) -> argparse.ArgumentParser:
        """Add a subcommand and return the parser for its arguments."""
        command = self._commands.add_parser(name, help=summary, description=f"{_sentence_begun(summary)}.")
        command.set_defaults(run=act)
        return command

    def run(self, arguments: list[str] | None) -> int:
        """Run the subcommand that `arguments` name and return its exit status; expected errors are printed."""

        return run_subcommand(lambda: self, arguments)


def _sentence_begun(summary: str) -> str:
    """Return a summary with a capital letter at its beginning; names in it, such as SIGTERM, stay as they are."""
    return summary[:1].upper() + summary[1:]


def run_subcommand(parser: Callable[[], argparse.ArgumentParser], arguments: list[str] | None) -> int:
    """Run the subcommand that `arguments` name: the default `run` of its parser. Return its exit status.

    The parser is made here, so that errors and interrupts meanwhile end as those of the subcommand do: in a line.
    """

    def act() -> int:
        options = parser().parse_args(arguments)
        with errors_in_json(options):
            return int(options.run(options))

    return guarded(act)


def spare_the_collector() -> None:
    """Have the garbage collector look at fewer objects, and less often; for services that answer many requests.

    What a service has loaded when it begins stays, so it need not be looked at again and again. Requests leave few
    cycles: what is collected is mostly freed without the collector.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTS_AFTER)


def start(
    name: str,
    setup: T,
    serve: Callable[[T, asyncio.Event], Coroutine[object, object, int | None]],
    log: LogConfig = LogConfig(),  # noqa: B008 - it is frozen
) -> int:
    """Set up logging as the program `name`, run `serve(setup, stop)` with `run`, and return the exit status."""
    setup_logging(name, log)
    return run(partial(serve, setup))
