"""The matching of operators' rules: the first rule whose conditions all match decides. No I/O."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol, TypeVar


class Named(Protocol):
    """A rule: it has a name."""

    @property
    def name(self) -> str:
        """The rule's name in errors, metrics and explanations."""
        ...


R = TypeVar("R", bound=Named)


def unlisted(conditions: Iterable[tuple[str, Collection[object], object]]) -> str:
    """Return the name of the first condition whose list lacks the given value; "" if none does.

    An empty list admits everything.
    """
    return next((name for name, listed, given in conditions if listed and given not in listed), "")


def considered(rules: Iterable[R], mismatch: Callable[[R], str]) -> Iterator[tuple[R, str]]:
    """Yield the rules up to the deciding one, each with its first condition that does not match, or ""."""
    for rule in rules:
        found = mismatch(rule)
        yield rule, found
        if not found:
            return


def deciding(rules: Iterable[R], mismatch: Callable[[R], str]) -> R | None:
    """Return the rule that decides, or None if no rule matches."""
    return next((rule for rule, found in considered(rules, mismatch) if not found), None)


def explained(rules: Iterable[tuple[R, str]], outcome: Callable[[R], str]) -> list[str]:
    """Return a line for each rule that was considered; `outcome` returns the outcome of the deciding one."""
    return [
        f"rule {rule.name!r}: " + (f"does not match by {found}" if found else f"decides: {outcome(rule)}")
        for rule, found in rules
    ]
