"""The CDDL in docs/spec describes every transaction and every leaf of the history that has all kinds of them."""

import base64
import json
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from tests.cddl import Rules, check, names_in
from tests.described import spec_rules
from tests.ledger.conftest import make_federation
from tests.ledger.history import Given, blocks_of, further_version
from tests.ledger.history_4 import make
from tests.spec import FOLDER
from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.further import NeedsNewerError
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.ledger.refusals import Refused
from voice_dpki.ledger.state import LEAVES, apply
from voice_dpki.ledger.transactions import KINDS, Transaction
from voice_dpki.names import Height

PRELUDE = {"bytes", "text", "int", "uint", "bool", "null", "any"}
ANSWERS = {"several": "batch-answer", "prefix": "prefix-answer", "leaves": "leaves-answer"}
NOT_OF_THE_FORM = {
    "the proof is not base64",
    "a header with a member that is not known",
    "a number that is not text",
}
"""Questions of the vectors whose answers are refused for their form, as CDDL tells it."""

TOP = {"transaction", "change", "leaf", "listed-name", "trust-file", "block"}
TOP |= {"answer", "member-answer", "number-answer", "changes-answer", *ANSWERS.values()}
"""Rules that no other refers to, beside those that one does."""


@pytest.fixture(scope="module")
def rules() -> Rules:
    return spec_rules()


@pytest.fixture(scope="module")
def history() -> Given:
    return make(make_federation())


def test_every_name_is_defined_and_used(rules: Rules) -> None:
    used = {name for choice in rules.values() for name in names_in(choice)}
    assert used - PRELUDE == rules.keys() - (TOP - used)


def test_every_transaction_is_described(rules: Rules, history: Given) -> None:
    kinds = set()
    for raw in _transactions(history):
        try:
            Transaction.parse(raw)
        except Refused:
            with pytest.raises(MalformedError):
                check(rules, "transaction", cbor.decode(raw, "transaction"))
            continue
        value: Any = cbor.decode(raw, "transaction")
        check(rules, "transaction", value)
        body: Any = cbor.decode(value[1], "body")
        kinds.add(body["kind"])
        if body["kind"] == "propose":
            check(rules, "change", cbor.decode(body["change"], "change"))
        for member in body:
            less = {name: item for name, item in body.items() if name != member}
            with pytest.raises(MalformedError):
                check(rules, "body", less)
    assert kinds == {kind.name for kind in KINDS}


def test_every_leaf_is_described(rules: Rules, history: Given) -> None:
    kinds = set()
    for data in set(_leaves(history)):
        value: Any = cbor.decode(data, "leaf")
        check(rules, "leaf", value)
        kinds.add(value[0])
        least = value[:-1] if isinstance(value[-1], dict) else value  # further items may be left out
        for other in ([*value, 0], least[:-1], ["another", *value[1:]]):
            with pytest.raises(MalformedError):
                check(rules, "leaf", other)
    assert kinds == {leaf.kind for leaf in LEAVES}


def _transactions(history: Given) -> Iterator[bytes]:
    return (base64.b64decode(raw) for block in history["blocks"] for raw in block["transactions"])


def _leaves(history: Given) -> Iterator[bytes]:
    state = load_genesis(base64.b64decode(history["genesis"])).initial_state()
    yield from state.leaves.values()
    with further_version():
        for block in blocks_of(history):
            outcome = apply(state, block)
            state.commit(outcome)
            yield from (value for value in outcome.leaves.values() if value is not None)


@pytest.mark.parametrize(
    ("further", "is_described"),
    [
        ([{"later": 1}], True),
        ([{"later": [b"anything"], "!more": None}], True),
        ([{f"name-{number}": 0 for number in range(16)}], True),
        ([{f"name-{number}": 0 for number in range(17)}], False),
        ([{}], False),
        ([{"a name": 1}], False),
        ([{"n" * 65: 1}], False),
        ([{"later": 1}, {"later": 1}], False),
        ([1], False),
    ],
)
def test_further_items_are_described_as_they_are_parsed(
    rules: Rules, further: list[Any], is_described: bool
) -> None:
    record = CertRecord(CertStatus.VALID, "Operator A", 0, 1, Height(1), Height(1), 0, None, bytes(32))
    value: Any = cbor.decode(record.serialize(), "record")
    with nullcontext() if is_described else pytest.raises(MalformedError):
        check(rules, "leaf", [*value, *further])
    with nullcontext() if is_described else pytest.raises(MalformedError):
        _parse([*value, *further])


def _parse(value: list[Any]) -> None:
    with suppress(NeedsNewerError):
        CertRecord.parse(cbor.encode(value))


def test_answers_of_the_vectors_are_described(rules: Rules) -> None:
    """Answers that are malformed are not described, but for what CDDL cannot tell."""
    for question in _vectors("answers.json")["questions"]:
        _check_answer(rules, "answer", question)
    for question in _vectors("several.json")["questions"]:
        _check_answer(rules, ANSWERS[question["kind"]], question)
    for block in _vectors("headers.json")["blocks"].values():
        check(rules, "trust-file", block)


def _check_answer(rules: Rules, form: str, question: Any) -> None:
    with nullcontext() if question["name"] not in NOT_OF_THE_FORM else pytest.raises(MalformedError):
        check(rules, form, question["answer"])


def _vectors(name: str) -> Any:
    return json.loads((FOLDER / "vectors" / name).read_bytes())
