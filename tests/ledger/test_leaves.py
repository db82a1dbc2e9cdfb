"""What is no leaf of its kind is damage or malformed, and what people and programs may write to name a leaf."""

from collections.abc import Callable
from typing import Any

import pytest

from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger import directory, expiry
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.governance import take_effect
from voice_dpki.ledger.leaf import Leaf, hashed, named
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.names import KINDS_OF_NAMES, number_keys
from voice_dpki.ledger.parameters import parameters_of
from voice_dpki.ledger.proposals import (
    LIST_KEY,
    BeginRules,
    Change,
    Proposal,
    ProposalState,
    RemoveMember,
    ResumeMember,
    SetStatus,
    SuspendMember,
    encode_change,
    parse_change,
)
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.ledger.rules import V1
from voice_dpki.ledger.state import LEAVES, MemoryState
from voice_dpki.names import CertDigest, Height, Tn

RECORDED = (CertStatus.VALID, CertStatus.SUSPENDED, CertStatus.REVOKED)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.kind)
def test_a_value_of_another_kind_is_none_of_this_one(leaf: Leaf[Any]) -> None:
    values: tuple[cbor.Cbor, ...] = (["other"], [], leaf.kind, [leaf.kind, {}], {})
    for value in values:
        with pytest.raises((MalformedError, LocalError)):
            leaf.parse(cbor.encode(value))


# --- how leaves are named -----------------------------------------------------------------------------------------


def refused(read: Callable[[Any], Any], value: Any, match: str) -> None:
    with pytest.raises(MalformedError, match=match):
        read(value)


def test_a_leaf_that_is_named() -> None:
    argument = named("organization", "an organisation")
    assert argument.name == "organization"
    assert argument.of_text("x" * 64) == "x" * 64
    refused(argument.of_text, "x" * 65, "an organisation has at most 64 characters")
    assert argument.of_bytes("Ünited".encode()) == "Ünited"
    refused(argument.of_bytes, b"\xff", "UTF-8")


def test_a_leaf_that_is_named_by_a_hash() -> None:
    argument = hashed("digest", "H(CERT)")
    assert argument.name == "digest"
    assert argument.of_text("aB" * 32) == b"\xab" * 32
    for text in ("ab" * 31, "ab" * 33, "xy" * 32, "ab " * 32, " " + "ab" * 32, "ab" * 31 + "a"):
        refused(argument.of_text, text, "64 hexadecimal digits")
    assert argument.of_bytes(bytes(32)) == bytes(32)
    for data in (bytes(31), bytes(33)):
        refused(argument.of_bytes, data, "32 bytes")


def test_a_number_as_people_write_it() -> None:
    keys_of = KINDS_OF_NAMES["number"]
    assert keys_of("+4930", "") == keys_of("4930", "") == number_keys(Tn("4930"))
    assert len(keys_of("1" * 15, "")) == 15
    for text in ("", "+", "1" * 16, "49 30", "++4930", "٣", "4930\n"):
        refused(lambda text: keys_of(text, ""), text, "1 to 15 digits")


# --- states that are damaged --------------------------------------------------------------------------------------


def test_a_state_that_lacks_what_every_state_has() -> None:
    empty = MemoryState("test-1")
    assert directory.organizations(empty) == ()
    with pytest.raises(LocalError, match="no parameters"):
        parameters_of(empty)
    with pytest.raises(LocalError, match="what is pruned"):
        expiry.pruned_before(empty)


def test_a_member_that_is_listed_must_be_there(federation: Any) -> None:
    state = federation.state()
    draft = Draft(state, V1)
    for member in directory.members_of(state):
        draft.put(member_key(member.organization), None)
    with pytest.raises(LocalError, match="a member is missing"):
        directory.members_of(draft)


def test_a_queued_certificate_must_be_there(federation: Any) -> None:
    draft = Draft(federation.state(), V1)
    with pytest.raises(LocalError, match="queued certificate is missing"):
        expiry._remove(draft, bytes(32))  # type: ignore[arg-type]


def test_a_proposal_that_is_listed_must_be_there(federation: Any) -> None:
    draft = Draft(federation.state(), V1)
    draft.put(LIST_KEY, ["proposals", [[bytes(32), "Operator A", 0, 0]]])
    with pytest.raises(LocalError, match="a proposal is missing"):
        take_effect(draft, Block(Height(9), 9, ()))


# --- what a value may hold ----------------------------------------------------------------------------------------

OPEN: list[cbor.Cbor] = ["proposal", "Operator A", b"change", 5, "open", None, ["Operator A"], [], 7, 9]


def test_a_proposal_holds_what_it_says() -> None:
    proposal = Proposal.parse(cbor.encode(OPEN))
    assert (proposal.state, proposal.why, proposal.approving, proposal.due_height, proposal.due_s) == (
        ProposalState.OPEN,
        None,
        ("Operator A",),
        7,
        9,
    )
    for at, value, match in (
        (4, "other", "state"),
        (5, 1, "state"),
        (6, "Operator A", "votes"),
        (7, [1], "votes"),
        (8, "7", "due"),
        (9, None, "due"),
        (3, "5", "not one"),
    ):
        refused(Proposal.parse, cbor.encode([*OPEN[:at], value, *OPEN[at + 1 :]]), match)
    refused(Proposal.parse, cbor.encode(OPEN[:9]), "due")


def test_a_record_is_made_of_what_is_recorded() -> None:
    parts: dict[str, Any] = {
        "status": CertStatus.VALID,
        "organization": "Operator A",
        "not_before_s": 0,
        "not_after_s": 0,
        "recorded_height": Height(0),
        "changed_height": Height(0),
        "revision": 0,
        "reason": None,
        "key_id": bytes(32),
    }
    assert CertRecord(**parts).status is CertStatus.VALID
    for changes, match in (
        ({"status": CertStatus.EXPIRED}, "not a status that is recorded"),
        ({"status": CertStatus.UNKNOWN}, "not a status that is recorded"),
        ({"changed_by": 0}, "who changed it"),
        ({"not_before_s": -1}, "whole numbers"),
        ({"key_id": bytes(33)}, "32 bytes"),
        ({"replaces": bytes(31)}, "32 bytes"),
        ({"replaced_by": "x" * 32}, "32 bytes"),
    ):
        refused(lambda changes: CertRecord(**parts | changes), changes, match)


@pytest.mark.parametrize(
    "change",
    [
        ["status", [bytes(32)], "expired", "unspecified"],
        ["status", [bytes(32)], "revoked", "because"],
        ["status", [bytes(32)], "because", "because"],
        ["status", [bytes(31)], "revoked", "unspecified"],
        ["status", [bytes(32), bytes(32)], "revoked", "unspecified"],
        ["status", ["0" * 32], "revoked", "unspecified"],
        ["status", [], "revoked", "unspecified"],
        ["status", [number.to_bytes(32, "big") for number in range(257)], "revoked", "unspecified"],
        ["rules", 0, 5],
        ["rules", 1 << 32, 5],
        ["rules", 2, -1],
        ["rules", 2, 10**12],
        ["rules", "2", 5],
        ["member", "0"],
        ["remove", None],
        ["other", "Operator A"],
    ],
)
def test_what_is_no_change(change: list[cbor.Cbor]) -> None:
    with pytest.raises(MalformedError):
        parse_change(cbor.encode(change))


@pytest.mark.parametrize(
    "change",
    [
        *(
            SetStatus((CertDigest(bytes(32)),), status, "unspecified")
            for status in CertStatus
            if status in RECORDED
        ),
        SetStatus(
            tuple(CertDigest(number.to_bytes(32, "big")) for number in range(256)),
            CertStatus.REVOKED,
            "unspecified",
        ),
        BeginRules(1, 0),
        BeginRules((1 << 32) - 1, 10**12 - 1),
        RemoveMember("Operator A"),
        SuspendMember("Operator A"),
        ResumeMember("Operator A"),
    ],
)
def test_a_change_is_read_as_it_was_written(change: Change) -> None:
    assert parse_change(encode_change(change)) == change
