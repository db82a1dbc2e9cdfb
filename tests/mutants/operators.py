"""Operators for cosmic-ray that it lacks, and which of its positions say nothing about a test.

A check that was left out is the fault that a verifier must not have, and neither cosmic-ray nor mutmut removes
statements: `RemoveStatement` does.
"""

from collections.abc import Iterator
from typing import Any

import parso
from cosmic_ray.operators.exception_replacer import ExceptionReplacer
from cosmic_ray.operators.operator import Example, Operator

Position = tuple[tuple[int, int], tuple[int, int]]
"""Where a mutation begins and ends: line (from 1) and column (from 0), each."""

_COMPOUND = frozenset({"if_stmt", "for_stmt", "while_stmt", "with_stmt", "try_stmt"})
_FUNCTIONS = frozenset({"funcdef"})
_NO_BEHAVIOUR = frozenset(
    {"pass_stmt", "import_name", "import_from", "global_stmt", "nonlocal_stmt", "assert_stmt"}
)
"""Statements that do nothing a test could see. An assert tells mypy, or a reader, what always holds."""

_ONE_PASS = frozenset({"suite", "if_stmt", "try_stmt", "with_stmt"})
"""What ends when the statement in it has ended."""


class RemoveStatement(Operator):  # type: ignore[misc]  # cosmic-ray has no types
    """Replaces one statement inside a function by `pass`."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        """Give the position of `node` if it is a statement that does something."""
        if _is_removable(node):
            yield (node.start_pos, node.end_pos)

    def mutate(self, node: Any, _index: int) -> Any:
        """Return `pass`, with the white space that stood before the statement."""
        prefix = node.get_first_leaf().prefix
        removed = parso.parse("pass\n").children[0]
        removed.get_first_leaf().prefix = prefix
        return removed

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Show what this operator does."""
        return (Example("def f():\n    check()\n    return 1\n", "def f():\n    pass\n    return 1\n"),)


def _is_removable(node: Any) -> bool:
    if not _inside(node, _FUNCTIONS):
        return False
    if node.type == "simple_stmt":
        statement = node.children[0]
        return (
            statement.type not in _NO_BEHAVIOUR and not _is_text(statement) and not _returns_as_the_end_does(node)
        )
    return node.type in _COMPOUND


def _returns_as_the_end_does(node: Any) -> bool:
    """Tell a `return None` after which a function would end and return None anyway."""
    if node.children[0].get_code().strip() not in ("return", "return None"):
        return False
    while (parent := node.parent).type != "funcdef":
        goes_on = parent.children[-1] is not node if parent.type == "suite" else "else" in _words(parent)
        if parent.type not in _ONE_PASS or (goes_on and parent.type != "if_stmt"):
            return False
        node = parent
    return True


def _words(node: Any) -> list[str]:
    """Return the keywords of a statement."""
    return [child.value for child in node.children if child.type == "keyword"]


def _is_text(node: Any) -> bool:
    """Tell a docstring, and the dots that stand for a body."""
    return node.type in ("string", "strings") or node.get_code().strip() == "..."


def _inside(node: Any, kinds: frozenset[str]) -> bool:
    """Tell whether an ancestor of `node` is of one of the kinds of parso."""
    while (node := node.parent) is not None:
        if node.type in kinds:
            return True
    return False


class ReplaceException(ExceptionReplacer):  # type: ignore[misc]
    """Replaces an exception of an except clause, but no qualified one, at which cosmic-ray's own operator fails."""

    @staticmethod
    def _name_nodes(node: Any) -> list[Any]:
        if node.children[1].type not in ("name", "atom"):
            return []
        return [name for name in ExceptionReplacer._name_nodes(node) if name.type == "name"]


_SILENT = frozenset({"annassign", "tfpdef", "decorator", "fstring", "assert_stmt"})
"""What holds no behaviour that a test could see: annotations, `slots=True`, the words of a message, assertions."""

_OF_A_CLASS = ("frozen=", "kw_only=")
"""Arguments of a Struct that a dataclass has in its decorator. mypy holds code to them, not tests."""


def is_silent(node: Any) -> bool:
    """Tell whether a mutation of `node` could not be seen by any test, for it is an annotation or a sentence."""
    while (parent := node.parent) is not None:
        if parent.type in _SILENT and not _is_value(parent, node):
            return True
        if parent.type == "funcdef" and node is parent.annotation:
            return True
        if parent.type == "argument" and parent.get_code(include_prefix=False).startswith(_OF_A_CLASS):
            return True
        node = parent
    return False


def _is_value(parent: Any, child: Any) -> bool:
    """Tell whether `child` is the value in `name: annotation = value`."""
    return parent.type == "annassign" and child is parent.children[-1] and len(parent.children) > 2
