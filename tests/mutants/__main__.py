"""Change the code in one place at a time and see whether its package's tests notice: `make mutants`.

    python -m tests.mutants [PACKAGE[/MODULE] ...] [--sample N | --all] [--seed N] [--workers N]

A seeded sample of positions is drawn in each package, then one of cosmic-ray's operators (or ours, that removes a
statement) for each. A mutant is killed when the package's tests fail or do not end; a survivor is printed as the
difference that no test saw. Mutants that behave as the code does are listed, with the reason, in equivalent.toml.
The tests that run a mutant's line come first, and the whole only for who survives them.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from coverage import CoverageData

from tests.mutants.operators import RemoveStatement, ReplaceException, is_silent
from tests.scratch import ROOT, changed, copy_checkout, run_tests

PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "stir": ("voice_dpki/stir/*.py", ("tests/stir",)),
    "mikey": ("voice_dpki/mikey/*.py", ("tests/mikey",)),
    "x509": ("voice_dpki/x509/*.py", ("tests/x509",)),
    "ledger": ("voice_dpki/ledger/*.py", ("tests/ledger",)),
    "ikev2": ("voice_dpki/ikev2/*.py", ("tests/ikev2",)),
    "sip": ("voice_dpki/sip/*.py", ("tests/sip",)),
    "abci": ("ledger_node/abci/application.py", ("tests/ledger_node/abci",)),
    "policy": ("segw_agent/policy.py", ("tests/segw_agent/test_policy.py", "tests/segw_agent/test_rules.py")),
    "rules": ("segw_agent/rules.py", ("tests/segw_agent/test_rules.py",)),
}
"""By name: the code that is changed, and the tests that have to notice."""

_NOT_USED = frozenset(
    {
        "core/NoOp",
        "core/VariableReplacer",
        "core/VariableInserter",
        "core/RemoveDecorator",
        # What is compared by identity is None or a member of an enum, for which equality says the same.
        "core/ReplaceComparisonOperator_Is_Eq",
        "core/ReplaceComparisonOperator_IsNot_NotEq",
    }
)
LONGEST_S = 60.0
LONGEST = 8
"""Tests that take longer than this, and so many times longer than unchanged, do not end: the mutant is killed."""

UNCHANGED_S = 1800.0
"""Tests of unchanged code that take longer hang."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to one file."""

    path: str
    line: int
    operator: str
    code: str

    def difference(self) -> str:
        """Return what was changed, as a unified difference without context."""
        before = (ROOT / self.path).read_text().splitlines()
        lines = unified_diff(before, self.code.splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def main() -> int:
    """Run the campaign; returns 1 where a package keeps more survivors than the share that is allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE[/MODULE]", help=", ".join(PACKAGES))
    parser.add_argument("--sample", type=int, default=60, metavar="N", help="mutants a package (default: 60)")
    parser.add_argument("--all", action="store_true", help="one mutant at each position instead of a sample")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the sample (default: 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--allowed", type=float, default=5.0, metavar="PERCENT", help="survivors (default: 5)")
    args = parser.parse_args()
    for name in args.packages:
        if not _files(name):
            parser.error(f"there is no package or module {name}; there are {', '.join(PACKAGES)}")
    failed = False
    with tempfile.TemporaryDirectory(prefix="voice-dpki-mutants-") as folder:
        trees = [Path(folder) / str(number) for number in range(args.workers)]
        copy_checkout(trees[0])
        for package in args.packages or PACKAGES:
            failed |= _campaign(package, args, trees) > args.allowed
    return int(failed)


def _files(name: str) -> list[Path]:
    """Return the files of a package, or the one of PACKAGE/MODULE; none if there is no such."""
    package, _, module = name.partition("/")
    files = sorted(ROOT.glob(PACKAGES[package][0])) if package in PACKAGES else []
    return [path for path in files if module in ("", path.stem)]


def _campaign(package: str, args: argparse.Namespace, trees: Sequence[Path]) -> float:
    """Try the mutants of a package or a module, print what became of them, and return the survivors in percent."""
    began_s = time.monotonic()
    trial = _Trial(*PACKAGES[package.partition("/")[0]], trees)
    chance = random.Random(f"{args.seed} {package}")
    mutants = list(_sample(_files(package), sys.maxsize if args.all else args.sample, chance))
    known = _equivalent()
    equivalent = unexplained = 0
    with ThreadPoolExecutor(args.workers) as pool:
        killed = pool.map(trial.kills, mutants)
        for mutant, dead in zip(mutants, killed, strict=True):
            if not dead and (mutant.path, mutant.difference()) in known:
                equivalent += 1
            elif not dead:
                unexplained += 1
                print(f"  {mutant.path}:{mutant.line} {mutant.operator}", flush=True)
                print(_indented(mutant.difference()), flush=True)
    counted = len(mutants) - equivalent
    share = 100 * unexplained / max(counted, 1)
    print(
        f"{package}: {counted - unexplained} of {counted} killed, {share:.1f} % survive, "
        f"{equivalent} equivalent, {time.monotonic() - began_s:.0f} s",
        flush=True,
    )
    return share


def _sample(paths: Sequence[Path], size: int, chance: random.Random) -> Iterator[Mutant]:
    """Draw positions first and operators second, or comparisons with their many operators would be all there is."""
    places: dict[tuple[Path, Any], list[tuple[str, int]]] = defaultdict(list)
    for path in paths:
        nodes = [(node, is_silent(node)) for node in ast_nodes(get_ast(path.read_text()))]
        for name, operator in _operators().items():
            for occurrence, position in enumerate(_positions(nodes, operator)):
                if position is not None:
                    places[path, position].append((name, occurrence))
    for path, position in chance.sample(sorted(places), min(size, len(places))):
        name, occurrence = chance.choice(places[path, position])
        code = mutate_code(path.read_text(), _operators()[name], occurrence)
        yield Mutant(str(path.relative_to(ROOT)), position[0][0], name, code)


def _positions(nodes: Sequence[tuple[Any, bool]], operator: Any) -> Iterator[Any]:
    """Give where an operator applies, in its order of counting; None for a place that no test could see."""
    for node, silent in nodes:
        for position in operator.mutation_positions(node):
            yield None if silent else position


def _operators() -> dict[str, Any]:
    if not _OPERATORS:
        names = [name for name in operator_names() if name not in _NOT_USED]
        _OPERATORS.update({name: get_operator(name)() for name in names})
        _OPERATORS["core/ExceptionReplacer"] = ReplaceException()
        _OPERATORS["RemoveStatement"] = RemoveStatement()
    return _OPERATORS


_OPERATORS: dict[str, Any] = {}


class _Trial:
    """The tests of a package, which ran unchanged, and copies of the checkout to run them in."""

    def __init__(self, code: str, tests: Sequence[str], trees: Sequence[Path]) -> None:
        """Run the tests of `trees[0]` unchanged, and copy it to the others; exits if a test fails.

        All mutants would look killed then.
        """
        began_s = time.monotonic()
        measure = (f"--cov={Path(code).parent}", "--cov-context=test", "--cov-report=")
        ended = _run(trees[0], *measure, *tests, longest_s=UNCHANGED_S, keep_bytecode=True)
        if ended.returncode != 0:
            sys.exit(f"tests fail without a change: {ended.stdout[-2000:]}")
        self._longest_s = max(LONGEST_S, LONGEST * (time.monotonic() - began_s))
        self._tests = tests
        self._ran = CoverageData(str(trees[0] / ".coverage"))
        self._ran.read()
        self._measured = trees[0]
        self._free = SimpleQueue[Path]()
        for tree in trees:
            if tree != trees[0]:
                shutil.copytree(trees[0], tree, dirs_exist_ok=True)
            self._free.put(tree)

    def kills(self, mutant: Mutant) -> bool:
        """Tell whether a test fails for the mutant, or does not end."""
        tree = self._free.get()
        try:
            with changed(tree / mutant.path, mutant.code):
                first = self._first(mutant)
                return any(
                    _run(tree, "-x", *tests, longest_s=self._longest_s).returncode != 0
                    for tests in (first, self._tests)
                    if tests
                )
        except subprocess.TimeoutExpired:
            return True
        finally:
            self._free.put(tree)

    def _first(self, mutant: Mutant) -> list[str]:
        """Name the tests that run the mutant's line, or else the line before it: those of its own file first."""
        by_line = self._ran.contexts_by_lineno(str(self._measured / mutant.path))
        line = max((each for each in by_line if each <= mutant.line and any(by_line[each])), default=0)
        names = {context.rpartition("|")[0].partition("[")[0] for context in by_line.get(line, ()) if context}
        own = f"/test_{Path(mutant.path).stem}.py::"
        return sorted(names, key=lambda name: (own not in name, name))


def _run(
    tree: Path, *arguments: str, longest_s: float, keep_bytecode: bool = False
) -> subprocess.CompletedProcess[str]:
    return run_tests(tree, *arguments, longest_s=longest_s, profile="mutants", keep_bytecode=keep_bytecode)


def _equivalent() -> set[tuple[str, str]]:
    listed = tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text())
    return {(entry["path"], entry["difference"].strip("\n")) for entry in listed.get("mutant", [])}


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
