"""Change the code in one place at a time and see whether its package's tests notice: `make mutants`.

    python -m tests.mutants [PACKAGE[/MODULE] ...] [--sample N | --all] [--seed N] [--workers N]

A seeded sample of positions is drawn in each package, then one of cosmic-ray's operators (or ours, that removes a
statement) for each. A mutant is killed when the package's tests fail or do not end; a survivor is printed as the
difference that no test saw. Mutants that behave as the code does are listed, with the reason, in equivalent.toml.
"""

import argparse
import os
import random
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
        trees = SimpleQueue[Path]()
        for number in range(args.workers):
            trees.put(copy_checkout(Path(folder) / str(number)))
        for package in args.packages or PACKAGES:
            failed |= _campaign(package, args, trees) > args.allowed
    return int(failed)


def _files(name: str) -> list[Path]:
    """Return the files of a package, or the one of PACKAGE/MODULE; none if there is no such."""
    package, _, module = name.partition("/")
    files = sorted(ROOT.glob(PACKAGES[package][0])) if package in PACKAGES else []
    return [path for path in files if module in ("", path.stem)]


def _campaign(package: str, args: argparse.Namespace, trees: "SimpleQueue[Path]") -> float:
    """Try the mutants of a package or a module, print what became of them, and return the survivors in percent."""
    began_s = time.monotonic()
    tests = PACKAGES[package.partition("/")[0]][1]
    longest_s = max(LONGEST_S, LONGEST * _time_unchanged(tests, trees))
    chance = random.Random(f"{args.seed} {package}")
    mutants = list(_sample(_files(package), sys.maxsize if args.all else args.sample, chance))
    known = _equivalent()
    equivalent = unexplained = 0
    with ThreadPoolExecutor(args.workers) as pool:
        killed = pool.map(lambda mutant: _is_killed(mutant, tests, trees, longest_s), mutants)
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


def _time_unchanged(tests: Sequence[str], trees: "SimpleQueue[Path]") -> float:
    """Return how long the tests take unchanged; exits if one fails, for then all mutants would look killed."""
    began_s = time.monotonic()
    for _ in range(trees.qsize()):
        tree = trees.get()
        ended = run_tests(tree, *tests, longest_s=UNCHANGED_S, profile="mutants", keep_bytecode=True)
        trees.put(tree)
        if ended.returncode != 0:
            sys.exit(f"tests fail without a change: {ended.stdout[-2000:]}")
    return time.monotonic() - began_s


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


def _is_killed(mutant: Mutant, tests: Sequence[str], trees: "SimpleQueue[Path]", longest_s: float) -> bool:
    tree = trees.get()
    try:
        with changed(tree / mutant.path, mutant.code):
            nearest = _nearest(tree, mutant, tests)
            return run_tests(tree, "-x", *nearest, *tests, longest_s=longest_s, profile="mutants").returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        trees.put(tree)


def _nearest(tree: Path, mutant: Mutant, tests: Sequence[str]) -> list[str]:
    """Name the module's own tests, if there are such: run first, they mostly save running the others."""
    name = f"test_{Path(mutant.path).stem}.py"
    return [f"{folder}/{name}" for folder in tests if (tree / folder / name).is_file()]


def _equivalent() -> set[tuple[str, str]]:
    listed = tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text())
    return {(entry["path"], entry["difference"].strip("\n")) for entry in listed.get("mutant", [])}


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
