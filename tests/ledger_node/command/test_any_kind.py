"""The commands for every kind of leaf and transaction read what is given, and show what was found."""

from typing import Any

import pytest

from ledger_node.command.any_kind import describe, read_member
from voice_dpki.errors import LocalError
from voice_dpki.ledger.kind import digest, flag, number, text
from voice_dpki.ledger.transactions import KINDS


@pytest.mark.parametrize(
    ("parse", "given", "value"),
    [
        (text, "12", "12"),
        (number, "12", 12),
        (flag, "true", True),
        (flag, "false", False),
        (digest, "0a" * 32, bytes([10]) * 32),
    ],
)
def test_a_value_is_read_as_its_parser_needs_it(parse: Any, given: str, value: object) -> None:
    found = read_member("about", parse, given)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(("parse", "given"), [(number, "x"), (flag, "1"), (digest, "0a"), (text, "")])
def test_a_value_of_another_form_is_refused(parse: Any, given: str) -> None:
    with pytest.raises(LocalError, match="about"):
        read_member("about", parse, given)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_member_of_a_body_but_lists_can_be_given(kind: Any) -> None:
    samples = ("word", "1", "true", "00" * 32, "00" * 64)
    for name, parse in kind.members.items():
        if name != "certificates":
            assert any(_is_read(name, parse, sample) for sample in samples), name


def _is_read(name: str, parse: Any, sample: str) -> bool:
    try:
        read_member(name, parse, sample)
    except LocalError:
        return False
    return True


def test_a_leaf_is_shown_with_its_fields(network: Any) -> None:
    lines = describe(network.genesis.member("Operator B"))
    assert "organization: Operator B" in lines
    assert any(line.startswith("endorsing_keys: 30") for line in lines)
    assert describe((b"\x01", "two", 3)) == ["01, two, 3"]
