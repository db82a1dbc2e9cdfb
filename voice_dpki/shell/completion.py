"""Completion in shells: scripts that know the commands and options of a program, written by shtab.

The parsers are those that the programs make themselves: a program is run until its parser is complete.
A program that only chooses among others, such as `sip-testbed`, has their names in `COMMANDS` of its module.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeAlias

from voice_dpki.errors import LocalError
from voice_dpki.shell.options import key_option
from voice_dpki.shell.program import Parser, parser_made_by

SHELLS = ("bash", "zsh", "tcsh", "fish")

PROGRAMS = "voice_dpki.programs"
"""Entry-point group: each entry is a program's `main(arguments: list[str]) -> int`."""

UMBRELLA = "voice-dpki"

Main: TypeAlias = Callable[[list[str]], int]

DESCRIPTION = """\
Prints a script that completes the commands and options of a program in a shell.

  voice-dpki completion bash authn-server > /etc/bash_completion.d/authn-server
  voice-dpki completion zsh voice-dpki > /usr/local/share/zsh/site-functions/_voice-dpki
  voice-dpki completion fish ledger-node > ~/.config/fish/completions/ledger-node.fish

It needs the extra `completion`: pip install "voice-dpki[completion]".
"""


def command(arguments: list[str]) -> int:
    """Print a script that completes commands and options in a shell."""
    parser = Parser(prog=f"{UMBRELLA} completion", description=DESCRIPTION)
    parser.add_argument("shell", choices=SHELLS)
    parser.add_argument("program", choices=programs())
    options = parser.parse_args(arguments)
    print(script(options.shell, options.program))
    return 0


def programs() -> tuple[str, ...]:
    """Return the names of all programs."""
    return tuple(sorted({UMBRELLA, *(entry.name for entry in entry_points(group=PROGRAMS))}))


def script(shell: str, program: str) -> str:
    """Return the script for one of `programs` in one of SHELLS; raises LocalError without the extra."""
    try:
        import shtab
    except ImportError:
        raise LocalError("completion needs the extra `completion`: pip install voice-dpki[completion]") from None
    parser = parser_of(program)
    for action in _actions(parser):
        if action.type in (Path, key_option):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks for it
    return str(shtab.complete(parser, shell))


def parser_of(program: str) -> Parser:
    """Return the parser of one of `programs`, with all its commands."""
    if program == UMBRELLA:
        parts: Iterable[EntryPoint] = entry_points(group="voice_dpki.commands")
        return _joined(program, [(each.name, _parser(f"{program} {each.name}", each.load())) for each in parts])
    (entry,) = entry_points(group=PROGRAMS, name=program)
    return _parser(program, entry.load())


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the options and arguments of a parser, and those of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
        else:
            yield action


def _parser(program: str, main: Main) -> Parser:
    names = getattr(sys.modules[main.__module__], "COMMANDS", ())
    if not names:
        return parser_made_by(partial(main, []))
    return _joined(program, [(name, parser_made_by(partial(main, [name]))) for name in names])


def _joined(program: str, parts: Iterable[tuple[str, Parser]]) -> Parser:
    """Return a parser that has others as its commands."""
    joined = Parser(prog=program)
    commands = joined.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, parser in sorted(parts, key=lambda part: part[0]):
        summary = (parser.description or "").strip().split("\n")[0]
        commands.add_parser(name, help=summary.replace("%", "%%"))
        commands.choices[name] = parser
    return joined
