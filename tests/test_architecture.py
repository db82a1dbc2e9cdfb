"""docs/architecture.md is about the code as it is: its drawing, and every name that it links to."""

import ast
import re
from itertools import chain
from pathlib import Path

import pytest

from tests.architecture import LIBRARY, PAGE, ROOT, SERVICES, circles_of, merge, redrawn, reduce

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[`([\w.]+)`\]\(([^)]+\.py)\)")


def test_the_drawing_is_that_of_todays_imports() -> None:
    page = PAGE.read_text()
    assert redrawn(page) == page, "run `make drawing`"


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    arrows = {"service": {"shell", "codec"}, "shell": {"codec", "errors"}, "codec": {"errors"}, "errors": set()}
    assert reduce(arrows) == {"service": {"shell"}, "shell": {"codec"}, "codec": {"errors"}, "errors": set()}


def test_rooms_in_a_circle_become_one() -> None:
    arrows = {"node": {"abci", "shell"}, "abci": {"node", "codec"}, "shell": {"codec"}, "codec": set()}
    (circle,) = circles_of(arrows)
    assert circle == {"node", "abci"}
    assert merge(arrows, [circle]) == {"abci": {"shell", "codec"}, "shell": {"codec"}, "codec": set()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_in_the_file(page: Path) -> None:
    for name, target in LINK.findall(page.read_text()):
        file = page.parent / target
        assert file.is_file(), target
        assert name == file.stem or name in names_in(file), f"{target} has no {name}"


def test_each_link_to_code_names_what_is_meant() -> None:
    page = PAGE.read_text()
    links = LINK.findall(page)
    assert len(links) > 100
    assert len(links) == page.count(".py)")


def test_a_class_has_a_name_of_its_own_in_its_room() -> None:
    """A room is a service, or a package of the library: who reads one there must not ask which is meant."""
    places: dict[tuple[str, str], list[str]] = {}
    for file in chain.from_iterable((ROOT / package).rglob("*.py") for package in (LIBRARY, *SERVICES)):
        path = file.relative_to(ROOT)
        room = "/".join(path.parts[: 2 if path.parts[0] == LIBRARY else 1])
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault((room, node.name), []).append(str(path))
    assert len(places) > 1000
    assert {key: files for key, files in places.items() if len(files) > 1} == {}


def names_in(file: Path) -> set[str]:
    """Return what a module defines, and what its classes do, with the class before it."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        found |= _defined(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for each in node.body for name in _defined(each)}
    return found


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = (
        node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    )
    return {target.id for target in targets if isinstance(target, ast.Name)}
