"""Common output of the commands that play scenarios: the scenarios, the checks, and the files written."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from rich.console import Console
from rich.text import Text

from voice_dpki.errors import LocalError
from voice_dpki.stage.report import Check

EXIT_NOT_HELD = 1
"""Exit status of such a command if a check did not hold."""


class Named(Protocol):
    """A scenario: its name, and in a sentence what it shows."""

    @property
    def name(self) -> str:
        """The name by which it is chosen."""
        ...

    @property
    def shows(self) -> str:
        """What it shows."""
        ...


S = TypeVar("S", bound=Named)


def list_scenarios(scenarios: Iterable[Named]) -> None:
    """Print the scenarios to standard output, one a line: the name, a tab, what it shows."""
    for scenario in scenarios:
        print(f"{scenario.name}\t{scenario.shows}")


def scenario_named(scenarios: Mapping[str, S], name: str) -> S:
    """Return a scenario by name; raises LocalError that lists the names."""
    if name not in scenarios:
        raise LocalError(f"there is no scenario {name!r}; there are: {', '.join(scenarios)}")
    return scenarios[name]


def show_checks(console: Console, checks: Iterable[Check], held: str, failed: str) -> None:
    """Print each check with what was observed, after the mark `held` or `failed`."""
    for check in checks:
        mark, style = (held, "green") if check.held else (failed, "bold red")
        line = Text(f"  {mark} ", style=style).append(f"{check.name}: ", style="not bold default")
        console.print(line.append(check.detail, style="not bold dim"), highlight=False, soft_wrap=True)


def show_files(console: Console, folder: Path, files: Mapping[str, str]) -> None:
    """Print a folder, and those of `files` (name to use) that are in it."""
    width = max(map(len, files))
    console.print(Text(f"{folder}/", style="bold"))
    for name, what in files.items():
        if (folder / name).exists():
            console.print(Text(f"  {name:<{width}}  ").append(what, style="dim"), highlight=False, soft_wrap=True)
