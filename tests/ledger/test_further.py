"""Room to grow: what an unknown item of a record, a member, a proposal, an answer or a transaction means."""

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ledger_node.command.any_kind import describe
from ledger_node.order.orderer import OutcomeForm
from tests.present import present
from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger import tree
from voice_dpki.ledger.answer_forms import AnswerForm, BatchForm, LeavesForm, PrefixForm
from voice_dpki.ledger.answers import AnswerVerifier, InquiryCode, InquiryError, unreadable
from voice_dpki.ledger.changes import ChangesForm
from voice_dpki.ledger.further import (
    MAX_FURTHER_BYTES,
    MAX_ITEMS,
    MAX_VALUE_BYTES,
    Further,
    NeedsNewerError,
    further_items,
    parse_further,
)
from voice_dpki.ledger.light import LightBlock
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.proposals import Proposal, ProposalState, SetMember, encode_change, parse_change
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.rules import VERSIONS
from voice_dpki.ledger.transactions import KINDS, Transaction, kind_of
from voice_dpki.ledger.view import MemoryState, value_hashes
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import NodeInfo, light_client

from .history_4 import make
from .test_members import member
from .test_records import RECORD

DIGEST = CertDigest(bytes([7]) * 32)
KNOWN_LATER: Further = (("note", cbor.encode("a note")), ("seen", cbor.encode([1, "two"])))
REQUIRED: Further = (("!scope", cbor.encode("calls")),)
PROPOSAL = Proposal("Operator A", b"change", 9, ProposalState.OPEN, None, ("Operator A",), (), 0, 0)

LISTS: tuple[Any, ...] = (RECORD, member(), PROPOSAL)


def as_map(count: int, value: Any = None) -> dict[str, Any]:
    return {f"name-{number:02}": value for number in range(count)}


@pytest.mark.parametrize("known", LISTS, ids=lambda each: type(each).__name__)
def test_unknown_items_are_kept_with_their_bytes(known: Any) -> None:
    later = replace(known, further=KNOWN_LATER)
    data = later.serialize()
    assert type(known).parse(data) == later
    assert type(known).parse(data).serialize() == data
    assert data[1:].startswith(known.serialize()[1:]), "they stand last, and the rest is as it was"


@pytest.mark.parametrize("known", LISTS, ids=lambda each: type(each).__name__)
def test_an_item_that_must_be_understood_is_not_passed_over(known: Any) -> None:
    with pytest.raises(NeedsNewerError, match="needs a later release of voice-dpki, which knows !scope"):
        type(known).parse(replace(known, further=(*REQUIRED, *KNOWN_LATER)).serialize())


def test_unknown_items_count_for_nothing() -> None:
    for now_s in (500, 1500, 2500):
        assert replace(RECORD, further=KNOWN_LATER).status_at(now_s) is RECORD.status_at(now_s)


def test_a_record_is_known_with_further_items_and_without_them() -> None:
    assert CertRecord.is_one(RECORD.serialize())
    assert CertRecord.is_one(replace(RECORD, further=KNOWN_LATER).serialize())
    assert not CertRecord.is_one(member().serialize())


def test_unknown_items_are_shown() -> None:
    lines = describe(replace(RECORD, further=KNOWN_LATER))
    assert {"further item note: a note", "further item seen: 1, two"} <= set(lines)
    assert not any("further" in line for line in describe(RECORD))


@pytest.mark.parametrize(
    "found",
    [
        as_map(MAX_ITEMS),
        {"x" * 64: None},
        {"name": bytes(MAX_VALUE_BYTES - 3)},
        as_map(3, bytes(1021)) | {"last": bytes(MAX_FURTHER_BYTES - 3 * (8 + 1024) - 1 - 5 - 3)},
    ],
)
def test_the_largest_further_items(found: dict[str, Any]) -> None:
    assert further_items(parse_further([found], "record")) == [found]


@pytest.mark.parametrize(
    "items",
    [
        [{}],
        [None],
        [[1]],
        [{"name": 1}, {"name": 1}],
        [as_map(MAX_ITEMS + 1)],
        [{"x" * 65: None}],
        [{"": None}],
        [{"two words": None}],
        [{"näme": None}],
        [{"name\n": None}],
        [{"name": bytes(MAX_VALUE_BYTES - 2)}],
        [as_map(3, bytes(1021)) | {"last": bytes(MAX_FURTHER_BYTES - 3 * (8 + 1024) - 1 - 5 - 3 + 1)}],
    ],
)
def test_further_items_have_bounds(items: list[Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_further(items, "record")
    assert not isinstance(caught.value, NeedsNewerError)


# Answers


class Answers:
    """A node whose state has a record and its member, each with these further items."""

    def __init__(self, federation: Any, chain: Any, record: Further, of_member: Further, version: int = 1) -> None:
        self.state: MemoryState = chain.state
        member_ = replace(present(self.state.member("Operator A")), further=of_member)
        record_ = replace(RECORD, not_after_s=10**10, further=record)
        leaves = {DIGEST: record_.serialize(), member_key("Operator A"): member_.serialize()}
        update = tree.update(self.state, value_hashes(leaves))
        self.state.commit(SimpleNamespace(leaves=leaves, certificates={}, update=update))
        block = chain.next_block(app_hash=tree.root(self.state), version_app=version)
        self.signed_header = block.signed_header
        self.now_s = block.header.time_ns / 1e9 + 1
        self.verifier = AnswerVerifier(light_client(federation.genesis), max_age_s=30)

    def leaf(self, key: bytes) -> dict[str, Any]:
        value = present(self.state.leaf(key))
        return {"record": text(value), "proof": text(tree.prove(self.state, key).serialize())}

    def one(self) -> dict[str, Any]:
        of_member = self.leaf(member_key("Operator A"))
        return {**self.leaf(DIGEST), "member": of_member, "signed_header": self.signed_header.to_json()}

    def several(self) -> dict[str, Any]:
        entry = {"digest": DIGEST.hex(), **self.leaf(DIGEST)}
        members = {"Operator A": self.leaf(member_key("Operator A"))}
        return {"entries": [entry], "members": members, "signed_header": self.signed_header.to_json()}

    def ask(self) -> Any:
        data = json.dumps(self.one()).encode()
        return self.verifier.verify(data, DIGEST, self.now_s, min_height=1, with_certificate=False)

    def ask_several(self) -> Any:
        data = json.dumps(self.several()).encode()
        (found,) = self.verifier.verify_batch(data, [DIGEST], self.now_s, min_height=1)
        return found


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


ASK: tuple[Callable[[Answers], Any], ...] = (Answers.ask, Answers.ask_several)


@pytest.mark.parametrize("ask", ASK)
def test_an_answer_with_unknown_items_is_believed(
    federation: Any, chain: Any, ask: Callable[[Answers], Any]
) -> None:
    found = ask(Answers(federation, chain, KNOWN_LATER, KNOWN_LATER))
    assert found.status is CertStatus.VALID
    assert found.record.further == found.member.further == KNOWN_LATER


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(("record", "of_member"), [(REQUIRED, ()), ((), REQUIRED)])
def test_an_answer_that_must_be_understood_says_that_a_later_release_is_needed(
    federation: Any, chain: Any, ask: Callable[[Answers], Any], record: Further, of_member: Further
) -> None:
    with pytest.raises(InquiryError, match="needs a later release of voice-dpki") as caught:
        ask(Answers(federation, chain, record, of_member))
    assert caught.value.code is InquiryCode.NEWER_RULES


def test_under_newer_rules_the_version_that_is_needed_is_named(federation: Any, chain: Any) -> None:
    with pytest.raises(InquiryError, match=r"has version 9 of the ledger's rules") as caught:
        Answers(federation, chain, REQUIRED, (), version=9).ask()
    assert caught.value.code is InquiryCode.NEWER_RULES


def test_what_any_leaf_that_cannot_be_read_means() -> None:
    known, newer = VERSIONS[-1], VERSIONS[-1] + 1
    assert unreadable(MalformedError("odd"), known).code is InquiryCode.MALFORMED
    assert unreadable(MalformedError("odd"), newer).code is InquiryCode.NEWER_RULES
    assert unreadable(NeedsNewerError("later"), known).code is InquiryCode.NEWER_RULES


LEAF = {"key": "00" * 32, "value": "", "proof": ""}
NODE = {"name": "a", "role": "engine", "chain_id": "c", "height": 1, "app_hash": "", "time": None, "age_s": None}
RULES = {"versions": [1, 2], "present": 1, "next": {"version": 2, "height": 9}}

FORMS: tuple[tuple[type, dict[str, Any]], ...] = (
    (AnswerForm, {"record": "", "proof": "", "member": {"record": "", "proof": ""}, "signed_header": None}),
    (BatchForm, {"entries": [{"digest": "", "record": "", "proof": ""}], "members": {}, "signed_header": None}),
    (PrefixForm, {"proof": "", "leaves": [LEAF], "members": {}, "signed_header": None}),
    (LeavesForm, {"leaves": [LEAF], "signed_header": None}),
    (ChangesForm, {"steps": [{"changes": {}, "nodes": {}}], "signed_header": None}),
    (NodeInfo, {**NODE, "software": "voice-dpki 9", "rules": RULES}),
    (OutcomeForm, {"code": 0, "name": "ok", "detail": "", "height": 3}),
)

OF_DATA = ("members", "changes", "nodes")
"""Maps whose keys are names and digests, not fields."""


def with_more(value: Any) -> Any:
    """Return an answer with a field that nobody knows in each of its objects."""
    if isinstance(value, dict):
        grown = {key: each if key in OF_DATA else with_more(each) for key, each in value.items()}
        return {**grown, "later": {"than": "this"}}
    return [with_more(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("form", "answer"), FORMS, ids=lambda each: getattr(each, "__name__", ""))
def test_unknown_fields_of_answers_are_ignored(form: type, answer: dict[str, Any]) -> None:
    known, grown = (msgspec.json.encode(each) for each in (answer, with_more(answer)))
    assert len(grown) > len(known)
    assert msgspec.json.decode(grown, type=form) == msgspec.json.decode(known, type=form)


def test_a_header_is_in_cometbfts_form_and_what_stands_beside_it_is_ignored(federation: Any, chain: Any) -> None:
    chain.take(chain.next_block())
    block = LightBlock(chain.replica.last, federation.genesis.validators)
    assert LightBlock.from_json(block.to_json() | {"later": 1}) == block
    for part in ("header", "commit"):
        changed = block.to_json()
        changed["signed_header"] = {
            **changed["signed_header"],
            part: {**changed["signed_header"][part], "later": 1},
        }
        with pytest.raises(MalformedError):
            LightBlock.from_json(changed)


# What nobody can write


@pytest.fixture(scope="module")
def sent(federation: Any) -> dict[str, bytes]:
    """One transaction of each kind, from the history that has all of them."""
    found: dict[str, bytes] = {}
    for form in make(federation)["blocks"]:
        for raw in map(base64.b64decode, form["transactions"]):
            with suppress(Refused):
                found[kind_of(Transaction.parse(raw).body).name] = raw
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_unknown_member_of_a_transaction_is_refused(kind: Any, sent: dict[str, bytes]) -> None:
    """Its sender meant something by it, which would not happen."""
    version, body, signatures = decoded(sent[kind.name])
    assert Transaction.parse(cbor.encode([version, body, signatures]))
    for odd in (
        [version, cbor.encode({**decoded(body), "further": {"note": 1}}), signatures],
        [version, cbor.encode({**decoded(body), "!note": 1}), signatures],
        [version, body, signatures, {"note": 1}],
    ):
        with pytest.raises(Refused) as caught:
            Transaction.parse(cbor.encode(odd))
        assert caught.value.refusal is Refusal.MALFORMED


def test_no_proposal_brings_in_further_items() -> None:
    admit = SetMember(replace(member(), further=KNOWN_LATER), None)
    assert parse_change(encode_change(admit)) == SetMember(member(), None), "the ledger adds them, if anybody does"
    parts = decoded(encode_change(admit))
    for odd in ([*parts, {"note": 1}], [*parts, 0, 0, False, {"note": 1}]):
        with pytest.raises(MalformedError):
            parse_change(cbor.encode(odd))


def decoded(data: bytes) -> Any:
    return cbor.decode(data, "example")
