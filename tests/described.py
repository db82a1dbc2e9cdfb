"""Holds every transaction that a test parses and every leaf that one writes to the CDDL in docs/spec."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.cddl import Rules, check, rules_of
from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger import transactions
from voice_dpki.ledger.draft import Draft, Outcome
from voice_dpki.ledger.proposals import parse_change

FOLDER = Path(__file__).parent.parent / "docs/spec"
UNDESCRIBED: list[str] = []
"""What was made and no rule describes."""

_KNOWN: set[bytes] = set()


@cache
def spec_rules() -> Rules:
    """Return the rules in docs/spec."""
    return rules_of((FOLDER / page).read_text() for page in ("encodings.md", "answers.md"))


@contextmanager
def watch() -> Iterator[None]:
    """Check each transaction that parses and each leaf that a block or a genesis writes."""
    parse, outcome = transactions._parse, Draft.outcome

    def parsed(raw: bytes) -> transactions.Transaction:
        found = parse(raw)
        _note("transaction", raw)
        if isinstance(found.body, transactions.Propose) and _is_change(found.body.change):
            _note("change", found.body.change)
        return found

    def written(draft: Draft, *parts: Any) -> Outcome:
        found = outcome(draft, *parts)
        for value in found.leaves.values():
            if value is not None:
                _note("leaf", value)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transactions, "_parse", parsed)
        patch.setattr(Draft, "outcome", written)
        yield


def _is_change(data: bytes) -> bool:
    try:
        parse_change(data)
    except MalformedError:
        return False
    return True


def _note(rule: str, data: bytes) -> None:
    digest = sha256(rule.encode() + data).digest()
    if digest not in _KNOWN:
        _KNOWN.add(digest)
        try:
            check(spec_rules(), rule, cbor.decode(data, rule))
        except MalformedError as error:
            UNDESCRIBED.append(f"{rule}: {error}")
