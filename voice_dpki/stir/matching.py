"""How the rules that operators write match a call: the first one whose conditions all do decides. No I/O."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol, TypeVar


class Named(Protocol):
    """A rule: it has a name."""

    @property
    def name(self) -> str:
        """The name, which errors, metrics and explanations tell."""
        ...


R = TypeVar("R", bound=Named)


def unlisted(conditions: Iterable[tuple[str, Collection[object], object]]) -> str:
    """Return the name of the first condition whose list lacks what is given, or "" if none does.

    An empty list admits everything.
    """
    return next((name for name, listed, given in conditions if listed and given not in listed), "")


def considered(rules: Iterable[R], mismatch: Callable[[R], str]) -> Iterator[tuple[R, str]]:
    """Give the rules up to the one that decides, each with its first condition that does not match."""
    for rule in rules:
        found = mismatch(rule)
        yield rule, found
        if not found:
            return


def deciding(rules: Iterable[R], mismatch: Callable[[R], str]) -> R | None:
    """Return the rule that decides, or None if no rule matches."""
    return next((rule for rule, found in considered(rules, mismatch) if not found), None)


def explained(rules: Iterable[tuple[R, str]], outcome: Callable[[R], str]) -> list[str]:
    """Return a line for each of the rules that were considered; `outcome` is what the deciding one says."""
    return [
        f"rule {rule.name!r}: " + (f"does not match by {found}" if found else f"decides: {outcome(rule)}")
        for rule, found in rules
    ]
