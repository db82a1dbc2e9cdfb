"""Manual pages of all programs, which argparse-manpage writes from their own parsers.

`python -m tests.manpages FOLDER` writes them, as `make man` does before a release. They are not kept in the
repository, for each option would stand there twice.
"""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from argparse_manpage.manpage import Manpage

from voice_dpki.shell.completion import parser_of, programs


def page(program: str) -> str:
    """Return a program's manual page, in the language of man(7)."""
    parser = parser_of(program)
    parser.man_short_description = _summary(parser)  # type: ignore[attr-defined]  # where argparse-manpage looks
    _keep_lines(parser)
    data = {"project_name": "voice-dpki", "version": version("voice-dpki"), "manual_title": "voice-dpki"}
    return str(Manpage(parser, _data=data))


def write(folder: Path) -> list[Path]:
    """Write the manual pages of all programs into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for program in programs():
        path = folder / f"{program}.1"
        path.write_text(page(program))
        written.append(path)
    return written


def _summary(parser: argparse.ArgumentParser) -> str:
    return (parser.description or "").strip().split("\n")[0].rstrip(".")


def _keep_lines(parser: argparse.ArgumentParser) -> None:
    """Have man keep the lines of descriptions as they are: they hold examples and configurations."""
    if parser.description:
        parser.description = f".nf\n{parser.description.strip()}\n.fi"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _keep_lines(below)


if __name__ == "__main__":
    for path in write(Path(sys.argv[1])):
        print(path)
