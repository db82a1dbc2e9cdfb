"""The umbrella command `voice-dpki`: it finds its subcommands through entry points, so it imports no service."""

import sys
from importlib.metadata import EntryPoint, entry_points

from voice_dpki.shell.ending import EXIT_USAGE, guarded, say
from voice_dpki.shell.entry import loading

GROUP = "voice_dpki.commands"
"""Entry-point group: each entry is a function `command(arguments: list[str]) -> int` whose first docstring line
is the help text."""


def main(arguments: list[str] | None = None) -> int:
    """Run `voice-dpki COMMAND ...` and return its exit status; an error is printed as one line."""
    given = sys.argv[1:] if arguments is None else arguments
    return guarded(lambda: _run(given))


def _run(arguments: list[str]) -> int:
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help(commands))
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in commands:
        known = ", ".join(sorted(commands))
        say(f"there is no command {name!r}; there are: {known}")
        return EXIT_USAGE
    with loading():
        command = commands[name].load()
    return int(command(rest))


def _help(commands: dict[str, EntryPoint]) -> str:
    lines = [
        "Usage: voice-dpki COMMAND ...",
        "",
        "Call authentication and media keying between telephone operators, on a shared ledger.",
        "",
        "Commands (each explains itself with --help):",
    ]
    for name, entry in sorted(commands.items()):
        summary = (entry.load().__doc__ or "").strip().splitlines()[0]
        lines.append(f"  {name:<12} {summary}")
    lines += [
        "",
        "Services are programs of their own: authn-server, verify-server, ledger-node, segw-agent, sip-testbed.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
