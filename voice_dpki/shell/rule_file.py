"""Rule files: TOML with a list of named rules, checked whole; an error names the file, the rule and its member.

    [[rules]]
    name = "own subscribers"
    ...

The first rule that matches decides, so the order of the rules counts. A name is given once.
"""

import tomllib
from collections.abc import Callable, Set
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.shell.config import Config, explained, read_file

MAX_RULES = 1000
MAX_LISTED = 1000
"""Values of one condition."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_ .:/-]+\Z")]
"""The name of a rule, which logs, metrics and exports tell."""
Listed = Annotated[frozenset[str], msgspec.Meta(min_length=1, max_length=MAX_LISTED)]
PatternTexts = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_LISTED)]

S = TypeVar("S", bound=Config)
T = TypeVar("T")
R = TypeVar("R")


def load_rule_file(path: Path, head: type[S], rule: type[T], make: Callable[[T], R]) -> tuple[S, tuple[R, ...]]:
    """Read the rule file `path`: its options beside the rules as a `head`, and each rule made of a `rule`.

    `make` turns a rule as it stands in the file into the value that decides; it raises MemberError. Raises
    LocalError with file, rule and member.
    """
    data = read_file(path, "rule")
    try:
        content = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LocalError(f"{path}: not TOML: {error}") from None
    raw = content.pop("rules", [])
    if not isinstance(raw, list) or not 1 <= len(raw) <= MAX_RULES:
        raise LocalError(f"{path}: rules: there must be 1 to {MAX_RULES} tables [[rules]]")
    try:
        options = msgspec.convert(content, head)
    except msgspec.ValidationError as error:
        raise LocalError(f"{path}: {explained(error)}") from None
    made = [_rule(path, number, each, rule, make) for number, each in enumerate(raw, 1)]
    _check_names(path, raw)
    return options, tuple(made)


class MemberError(MalformedError):
    """A member of a rule that cannot be used."""

    def __init__(self, member: str, what: str) -> None:
        super().__init__(f"{member}: {what}")


def check_clients(path: Path, where: str, names: Set[str], clients: Set[str]) -> None:
    """Check that each of the names at `where` in a rule file is a client's; raises LocalError for another."""
    for unknown in sorted(names - clients):
        raise LocalError(f"{path}: {where}: no token has the name {unknown!r}")


def read_each(member: str, texts: tuple[str, ...], read: Callable[[str], R]) -> tuple[R, ...]:
    """Read each text of a rule's member; raises MemberError that names the member and the text's place."""
    found = []
    for place, text in enumerate(texts, 1):
        try:
            found.append(read(text))
        except MalformedError as error:
            raise MemberError(f"{member}[{place}]", str(error)) from None
    return tuple(found)


def _rule(path: Path, number: int, raw: Any, kind: type[T], make: Callable[[T], R]) -> R:
    name = raw.get("name") if isinstance(raw, dict) else None
    who = f"rule {name!r}" if isinstance(name, str) else f"rule {number}"
    try:
        return make(msgspec.convert(raw, kind))
    except msgspec.ValidationError as error:
        raise LocalError(f"{path}: {who}: {explained(error)}") from None
    except MalformedError as error:
        raise LocalError(f"{path}: {who}: {error}") from None


def _check_names(path: Path, raw: list[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for each in raw:
        if each["name"] in seen:
            raise LocalError(f"{path}: rule {each['name']!r}: another rule before has this name")
        seen.add(each["name"])
