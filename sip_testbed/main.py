"""The program `sip-testbed`: the parts of a telephone network between two operators, and whole calls through it."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from voice_dpki.shell.ending import EXIT_USAGE, guarded, say
from voice_dpki.shell.entry import loading
from voice_dpki.shell.program import Parser

COMMANDS = {
    "call": ("sip_testbed.call", "start two operators' networks, place a call, and report what was seen"),
    "proxy": ("sip_testbed.proxy", "registrar and proxy of one domain"),
    "user-agent": ("sip_testbed.user_agent", "a telephone that plays and records"),
    "pins": ("sip_testbed.pins", "the keys that a telephone has pinned"),
    "gateway": (
        "sip_testbed.gateway",
        "from MIKEY to ordinary telephones with SDES or DTLS-SRTP",
    ),
    "path": ("sip_testbed.path", "an attacker on the path between the operators"),
}
"""Subcommand to its module and summary. Only the requested module is imported."""

HELP = """\
Parts of a telephone network between two operators, each a program of its own, and whole calls through it.

{commands}

Begin with

  sip-testbed call                        one authenticated, encrypted call, with a ladder and a report in out/call
  sip-testbed call --list-scenarios       the attacks that can be tried on it

The other commands run one part for longer: sip-testbed proxy --help shows a proxy's configuration, for instance.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run `sip-testbed ...` and return its exit status; an error that ends it is reported in one line."""
    given = sys.argv[1:] if arguments is None else arguments
    return guarded(lambda: _choose(given))


def _choose(given: Sequence[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0 if given else EXIT_USAGE
    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        say(f"there is no command {name!r}; there are: {', '.join(COMMANDS)}")
        return EXIT_USAGE
    with loading():
        module = import_module(COMMANDS[name][0])
    return _run(name, module, rest)


def _run(name: str, module: Any, arguments: Sequence[str]) -> int:
    parser = Parser(prog=f"sip-testbed {name}")
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(arguments)))


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    return HELP.format(commands=commands).rstrip()


if __name__ == "__main__":
    sys.exit(main())
