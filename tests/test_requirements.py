"""Every entry of docs/requirements.toml has its code, its tests and a change; of some the change is made."""

import ast
import importlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.requirements import Change, Requirement, RequirementError, changed_code, check_green, check_red, draw
from tests.requirements import read_requirements as read
from tests.scratch import ROOT, copy_checkout

ENTRIES = read()
SAMPLE = 8
"""Entries whose change is made in each run, others every day; `make requirements` makes all."""

CORES = tuple(f"tests/{name}/" for name in ("codec", "x509", "stir", "mikey", "sip", "ikev2", "ledger"))
"""The sample is of rules that these tests hold: they do no I/O, so a busy machine does not change what they say."""

SAMPLED = {name: entry for name, entry in ENTRIES.items() if all(test.startswith(CORES) for test in entry.tests)}

TODAY = datetime.now(UTC).date().isoformat()


def names_in(path: Path) -> set[str]:
    """Names of the tests in a file, with their class before them where there is one."""
    tree = ast.parse(path.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = {f"{c.name}::{f.name}" for c in classes for f in c.body if isinstance(f, functions)}
    return inside | {node.name for node in tree.body if isinstance(node, functions)}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_requirement_has_code_and_tests(name: str) -> None:
    entry = ENTRIES[name]
    module, _, called = entry.code.partition(":")
    assert hasattr(importlib.import_module(module), called), entry.code
    assert entry.tests
    for test in entry.tests:
        file, _, function = test.partition("::")
        assert function in names_in(ROOT / file), test


@pytest.mark.parametrize("name", ENTRIES)
def test_its_change_can_be_made(name: str) -> None:
    entry = ENTRIES[name]
    compile(changed_code(entry), entry.file, "exec")
    assert entry.change.text != entry.change.replacement


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("changed"))


@pytest.mark.sampled
@pytest.mark.parametrize("name", draw(SAMPLED, SAMPLE, TODAY))
def test_its_tests_fail_under_the_change(tree: Path, name: str) -> None:
    check_green([ENTRIES[name]], tree)
    check_red(ENTRIES[name], tree)


# --- the tool itself ----------------------------------------------------------------------------------------------

TYP = ENTRIES["RFC8225 4.2 typ"]
LITTLE = "tests/codec/test_base64url.py::test_refused"


def test_a_change_that_no_test_sees_is_told(tree: Path) -> None:
    entry = Requirement(TYP.says, TYP.code, (LITTLE,), TYP.change)
    before = (tree / entry.file).read_text()
    with pytest.raises(RequirementError, match=f"stays green: {LITTLE}"):
        check_red(entry, tree)
    assert (tree / entry.file).read_text() == before


def test_a_change_that_breaks_the_import_is_no_proof(tree: Path) -> None:
    change = Change("\ndef decode(", "\nraise OSError\ndef decode(")
    broken = Requirement(TYP.says, "voice_dpki.codec.base64url:decode", (LITTLE,), change)
    with pytest.raises(RequirementError, match="no test of the rule"):
        check_red(broken, tree)


@pytest.mark.parametrize("text", ["no such line", "\n"])
def test_a_text_must_be_there_once(text: str) -> None:
    with pytest.raises(RequirementError, match="the code moved"):
        changed_code(Requirement(TYP.says, TYP.code, TYP.tests, Change(text, "")))


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    assert draw(ENTRIES, 5, "a") == draw(ENTRIES, 5, "a") != draw(ENTRIES, 5, "b")
