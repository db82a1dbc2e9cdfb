"""Break each rule of docs/requirements.toml in the code, and see its tests fail: `make requirements`.

    python -m tests.requirements [NAME ...] [--sample N] [--seed TEXT] [--workers N]

An entry is one rule of a standard. It names the code that keeps the rule, the tests that hold it, and one change to
the code that breaks it: `text`, which the file has once, and its `replacement`. The file is that of `code`, unless
the change names another. The change is made in a copy of the checkout. Then every test that the entry names has to
fail. NAME chooses entries by how they begin, for instance "RFC8224" or "RFC8224 6.2".
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import msgspec

from tests.scratch import ROOT, changed, copy_checkout, run_tests

TABLE = ROOT / "docs" / "requirements.toml"
LONGEST_S = 300.0
"""Tests of one entry that take longer do not end."""

MARGIN = 60
"""Characters of the column of names in the table that is printed."""


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change to the code that breaks a rule."""

    text: str
    replacement: str
    file: str = ""
    """Path from the root of the repository; empty for the file of the entry's `code`."""


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule: what it says in our words, the code as `module:name`, its tests, and a change that breaks it."""

    says: str
    code: str
    tests: tuple[str, ...]
    change: Change

    @property
    def file(self) -> str:
        """Path of the file that the change is made in."""
        return self.change.file or self.code.partition(":")[0].replace(".", "/") + ".py"


class RequirementError(Exception):
    """An entry is not true: its code has moved, or a test does not see its change. The message says which."""


def read_requirements() -> dict[str, Requirement]:
    """Return all entries by name, for instance "RFC8225 4 ES256"; raises msgspec.ValidationError."""
    table = msgspec.convert(tomllib.loads(TABLE.read_text()), dict[str, dict[str, Requirement]])
    return {f"{standard} {name}": entry for standard, entries in table.items() for name, entry in entries.items()}


def draw(entries: dict[str, Requirement], size: int, seed: str) -> dict[str, Requirement]:
    """Return `size` of the entries, the same ones for the same seed."""
    names = random.Random(seed).sample(sorted(entries), min(size, len(entries)))
    return {name: entries[name] for name in names}


def changed_code(entry: Requirement, tree: Path = ROOT) -> str:
    """Return the entry's file in `tree`, changed; raises RequirementError if the text is not there once."""
    code = (tree / entry.file).read_text()
    found = code.count(entry.change.text)
    if found != 1:
        raise RequirementError(f"the code moved: {entry.file} has {found} times {entry.change.text!r}")
    return code.replace(entry.change.text, entry.change.replacement)


def check_red(entry: Requirement, tree: Path) -> None:
    """Make the entry's change in a copy of the checkout and demand that every test it names fails.

    Raises RequirementError.
    """
    code = changed_code(entry, tree)
    try:
        with changed(tree / entry.file, code):
            ended = run_tests(tree, "--tb=no", "-rfE", *entry.tests, longest_s=LONGEST_S)
    except subprocess.TimeoutExpired:
        raise RequirementError(f"its tests do not end within {LONGEST_S:.0f} s") from None
    if broken := _summary(ended.stdout, "ERROR "):
        raise RequirementError(f"no test of the rule: the change breaks {', '.join(sorted(broken))} before it runs")
    if green := sorted(set(entry.tests) - _summary(ended.stdout, "FAILED ")):
        raise RequirementError(f"stays green: {', '.join(green)}")


def check_green(entries: Sequence[Requirement], tree: Path) -> None:
    """Demand that all tests of the entries pass in the copy as it is; raises RequirementError."""
    tests = sorted({test for entry in entries for test in entry.tests})
    ended = run_tests(tree, "--tb=short", "-rfE", *tests, longest_s=LONGEST_S * len(entries))
    if ended.returncode != 0:
        raise RequirementError(f"tests fail without any change:\n{ended.stdout}{ended.stderr}")


def _summary(output: str, mark: str) -> set[str]:
    """Return the tests, without their parameters, that pytest's short summary lists under a mark."""
    lines = [line.removeprefix(mark) for line in output.splitlines() if line.startswith(mark)]
    return {line.partition(" - ")[0].partition("[")[0].strip() for line in lines}


def main() -> int:
    """Try all entries, or those that are asked for; returns 1 if one is not true."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="entries whose name begins so (default: all)")
    parser.add_argument("--sample", type=int, metavar="N", help="so many of them (default: all)")
    parser.add_argument("--seed", default="", metavar="TEXT", help="of the sample")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    args = parser.parse_args()
    wanted = tuple(args.names) or ("",)
    entries = {name: entry for name, entry in read_requirements().items() if name.startswith(wanted)}
    entries = draw(entries, len(entries) if args.sample is None else args.sample, args.seed)
    if not entries:
        parser.error("there is no such entry")
    with tempfile.TemporaryDirectory(prefix="voice-dpki-requirements-") as folder:
        return _try_all(entries, [copy_checkout(Path(folder) / str(number)) for number in range(args.workers)])


def _try_all(entries: dict[str, Requirement], copies: Sequence[Path]) -> int:
    try:
        check_green(list(entries.values()), copies[0])
    except RequirementError as error:
        print(error)
        return 1
    trees = SimpleQueue[Path]()
    for tree in copies:
        trees.put(tree)
    with ThreadPoolExecutor(len(copies)) as pool:
        red = list(pool.map(lambda name: _try_one(name, entries[name], trees), sorted(entries)))
    print(f"{len(red)} entries, {sum(red)} red under their change")
    return int(not all(red))


def _try_one(name: str, entry: Requirement, trees: "SimpleQueue[Path]") -> bool:
    """Try one entry and print its line of the table."""
    began_s, tree = time.monotonic(), trees.get()
    verdict = "red"
    try:
        check_red(entry, tree)
    except RequirementError as error:
        verdict = f"NOT TRUE: {error}"
    finally:
        trees.put(tree)
    print(f"{name:<{MARGIN}} {time.monotonic() - began_s:5.1f} s  {verdict}", flush=True)
    return verdict == "red"


if __name__ == "__main__":
    sys.exit(main())
