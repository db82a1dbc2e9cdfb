"""Every requirement in docs/requirements.toml has code that does it and a test that fails without it."""

import ast
import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TABLE = tomllib.loads((ROOT / "docs" / "requirements.toml").read_text())
ENTRIES = [
    pytest.param(entry, id=f"{standard} {name}")
    for standard, entries in TABLE.items()
    for name, entry in entries.items()
]


def _names(path: Path) -> set[str]:
    """Names of the tests in a file, with their class before them where there is one."""
    tree = ast.parse(path.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = {f"{c.name}::{f.name}" for c in classes for f in c.body if isinstance(f, functions)}
    return inside | {node.name for node in tree.body if isinstance(node, functions)}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_requirement_has_code_and_tests(entry: dict[str, object]) -> None:
    assert set(entry) == {"says", "code", "tests"}
    module, _, name = str(entry["code"]).partition(":")
    assert hasattr(importlib.import_module(module), name), entry["code"]
    tests = entry["tests"]
    assert isinstance(tests, list)
    assert tests
    for test in tests:
        file, _, function = test.partition("::")
        assert (ROOT / file).is_file(), file
        assert not function or function in _names(ROOT / file), test
