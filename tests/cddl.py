"""A judge of values by CDDL, as far as docs/spec uses it (RFC 8610): a parser of rules, and a matcher.

It knows types, literals, ranges, choices, `.size`, `.regexp` and `.cbor`; groups, arrays and maps with labels, `?`,
`*`, `+` and `n*m`. It refuses a rule with anything else.
Two libraries were tried: pycddl 0.6.4 panics on these rules; zcbor 0.9.1 knows no `.regexp`, refuses a `.size` on
`bytes` and `text`, and does not import with cbor2 6.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError

_TOKEN = re.compile(
    r"\s+|;[^\n]*|"
    r'("[^"]*"|\d+\.\.\d+|\d*[*+]\d*|\.[a-z]+|[A-Za-z][A-Za-z0-9_-]*|\d+|=>|[][(){}:,/=?])'
)

_PRELUDE: dict[str, type] = {"bytes": bytes, "text": str, "int": int, "uint": int, "bool": bool}


@dataclass(frozen=True)
class Type:
    """One alternative of a type: what it is, with the arguments that this needs."""

    what: str
    value: Any = None
    size: tuple[int, int] | None = None
    cbor: str = ""
    regexp: str = ""


@dataclass(frozen=True)
class Entry:
    """An entry of a group: how often, its label, or the type of its keys, and its type."""

    least: int
    most: float
    label: str
    choice: "Choice"
    key: "Choice" = ()


Choice: TypeAlias = tuple[Type, ...]
Group: TypeAlias = tuple[Entry, ...]
Rules: TypeAlias = Mapping[str, Choice]


class Parser:
    """Reads rules."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            assert found, f"CDDL: {text[at : at + 30]!r}"
            self._tokens += [found[1]] if found[1] else []
            at = found.end()

    def rules(self) -> Rules:
        """Return all rules by name."""
        rules: dict[str, Choice] = {}
        while self._tokens:
            name = self._take()
            assert name not in rules, f"{name} is defined twice"
            self._take("=")
            rules[name] = self._choice()
        return rules

    def _take(self, wanted: str = "") -> str:
        token = self._tokens.pop(0)
        assert wanted in ("", token), f"CDDL: {wanted} expected, not {token}"
        return token

    def _is(self, *tokens: str) -> bool:
        return self._tokens[: len(tokens)] == [*tokens]

    def _choice(self) -> Choice:
        types = [self._type()]
        while self._is("/"):
            self._take()
            types.append(self._type())
        return tuple(types)

    def _type(self) -> Type:
        token = self._take()
        if token in "([{":
            return Type(token, self._group({"(": ")", "[": "]", "{": "}"}[token]))
        if token.startswith('"'):
            return Type("literal", token[1:-1])
        if ".." in token:
            return Type("range", tuple(map(int, token.split(".."))))
        if token.isdigit():
            return Type("literal", int(token))
        if self._is(".size"):
            self._take()
            return Type("name", token, size=self._size())
        if self._is(".cbor"):
            self._take()
            return Type("name", token, cbor=self._take())
        if self._is(".regexp"):
            self._take()
            return Type("name", token, regexp=self._take()[1:-1])
        return Type("name", token)

    def _size(self) -> tuple[int, int]:
        in_brackets = self._is("(")
        if in_brackets:
            self._take()
        bounds = [int(bound) for bound in self._take().split("..")]
        if in_brackets:
            self._take(")")
        return bounds[0], bounds[-1]

    def _group(self, end: str) -> Group:
        entries = []
        while not self._is(end):
            least, most = self._occurrence()
            label = ""
            if len(self._tokens) > 1 and self._tokens[1] == ":":
                label = self._take()
                self._take(":")
            choice = self._choice()
            if self._is("=>"):
                self._take()
                entries.append(Entry(least, most, label, self._choice(), choice))
            else:
                entries.append(Entry(least, most, label, choice))
            if not self._is(end):
                self._take(",")
        self._take(end)
        return tuple(entries)

    def _occurrence(self) -> tuple[int, float]:
        if self._is("?"):
            self._take()
            return 0, 1
        found = re.fullmatch(r"(\d*)([*+])(\d*)", self._tokens[0])
        if found is None:
            return 1, 1
        self._take()
        return int(found[1] or found[2] == "+"), int(found[3]) if found[3] else float("inf")


def rules_of(pages: Iterable[str]) -> Rules:
    """Return the rules in the blocks of CDDL of several pages, in one name space."""
    blocks = (re.findall(r"^```cddl\n(.*?)^```", page, re.MULTILINE | re.DOTALL) for page in pages)
    return Parser("\n".join(block for found in blocks for block in found)).rules()


def check(rules: Rules, name: str, value: object) -> None:
    """Raise MalformedError unless a decoded value matches the rule."""
    if not _matches(rules, rules[name], value):
        raise MalformedError(f"{value!r:.200} is no {name}")


def names_in(choice: Choice) -> Iterator[str]:
    """Yield all names that a type refers to."""
    for each in choice:
        if each.what == "name":
            yield from (each.value, each.cbor) if each.cbor else (each.value,)
        elif each.what in "([{":
            for entry in each.value:
                yield from names_in(entry.key + entry.choice)


def _matches(rules: Rules, choice: Choice, value: object) -> bool:
    return any(_one(rules, each, value) for each in choice)


def _one(rules: Rules, each: Type, value: object) -> bool:
    if each.what == "literal":
        return type(value) is type(each.value) and value == each.value
    if each.what == "range":
        return type(value) is int and each.value[0] <= value <= each.value[1]
    if each.what == "[":
        return isinstance(value, list) and len(value) in _ends(rules, each.value, value, {0})
    if each.what == "{":
        return isinstance(value, dict) and _is_map(rules, each.value, value)
    return _named(rules, each, value)


def _named(rules: Rules, each: Type, value: object) -> bool:
    if each.value in ("any", "null"):
        return each.value == "any" or value is None
    if each.value not in _PRELUDE:
        return _matches(rules, rules[each.value], value)
    if type(value) is not _PRELUDE[each.value] or (each.value == "uint" and value < 0):  # type: ignore[operator]
        return False
    if each.size is not None and not each.size[0] <= len(value) <= each.size[1]:  # type: ignore[arg-type]
        return False
    if each.regexp and not re.fullmatch(each.regexp, value):  # type: ignore[call-overload]
        return False
    return not each.cbor or _matches(rules, rules[each.cbor], cbor.decode(value, each.cbor))  # type: ignore[arg-type]


def _is_map(rules: Rules, group: Group, value: dict[str, object]) -> bool:
    """Return whether a map has the labelled members that it needs, and no others but those of a key type."""
    fields = {entry.label: entry for entry in _fields(rules, tuple(entry for entry in group if not entry.key))}
    needed = {name for name, entry in fields.items() if entry.least}
    given = fields.keys() & value.keys()
    labelled = needed <= given and all(_matches(rules, fields[name].choice, value[name]) for name in given)
    others = value.keys() - fields.keys()
    for entry in group:
        if entry.key:
            own = {name for name in others if _matches(rules, entry.key, name)}
            if not entry.least <= len(own) <= entry.most:
                return False
            others -= {name for name in own if _matches(rules, entry.choice, value[name])}
    return labelled and not others


def _fields(rules: Rules, group: Group) -> Iterator[Entry]:
    """Yield the members of a map, those of groups that it names included."""
    for entry in group:
        assert entry.most == 1, "a map has a member at most once"
        if entry.label:
            yield entry
        else:
            inner = _group_of(rules, entry.choice)
            assert inner is not None, "a member of a map has a label"
            yield from _fields(rules, inner)


def _ends(rules: Rules, group: Group, items: list[object], starts: set[int]) -> set[int]:
    """Return where in a list a group can end that begins at one of `starts`."""
    for entry in group:
        reached = starts
        ends = set(starts) if entry.least == 0 else set()
        for count in range(1, len(items) + 1):
            if not reached or count > entry.most:
                break
            reached = _after(rules, entry.choice, items, reached)
            ends |= reached if count >= entry.least else set()
        starts = ends
    return starts


def _after(rules: Rules, choice: Choice, items: list[object], starts: set[int]) -> set[int]:
    """Return where an entry ends that occurs once, beginning at one of `starts`."""
    inner = _group_of(rules, choice)
    if inner is not None:
        return _ends(rules, inner, items, starts)
    return {at + 1 for at in starts if at < len(items) and _matches(rules, choice, items[at])}


def _group_of(rules: Rules, choice: Choice) -> Group | None:
    """Return the group that a name stands for, None if it is a type's."""
    if len(choice) == 1 and choice[0].what == "name" and choice[0].value in rules:
        choice = rules[choice[0].value]
    return choice[0].value if len(choice) == 1 and choice[0].what == "(" else None
