"""Changes are told completely or not believed, and what is held follows them."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.present import present
from voice_dpki.errors import MalformedError
from voice_dpki.ledger import tree
from voice_dpki.ledger.answers import Resolution
from voice_dpki.ledger.changes import (
    Holdings,
    StepForm,
    changed_keys,
    encode_step,
    parse_changes,
)
from voice_dpki.ledger.header import Header
from voice_dpki.ledger.members import Member, MemberKind, member_key
from voice_dpki.ledger.proof import ProofError
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.names import CertDigest, Height

from .test_tree import MemoryNodes, number


def states(*changes: dict[bytes, bytes | None]) -> list[MemoryNodes]:
    """A tree with 200 leaves, and how it changes."""
    nodes = [MemoryNodes()]
    nodes[0].apply({number(seed): number(seed + 1) for seed in range(200)})
    for change in changes:
        nodes.append(MemoryNodes(nodes[-1]))
        nodes[-1].apply(change)
    return nodes


def told(nodes: list[MemoryNodes]) -> list[bytes]:
    return [encode_step(tree.diff(before, after)) for before, after in pairwise(nodes)]


def heard(steps: list[bytes]) -> tuple[StepForm, ...]:
    answer = b'{"steps":[%s],"signed_header":{},"height":3}' % b",".join(steps)
    return parse_changes(answer).steps or ()


def test_steps_lead_from_state_to_state() -> None:
    nodes = states({number(3): None, number(900): number(1)}, {number(3): number(9), number(5): number(2)})
    before, after = tree.root(nodes[0]), tree.root(nodes[2])
    assert changed_keys(before, heard(told(nodes)), after) == {number(3), number(5), number(900)}
    assert changed_keys(before, (), before) == frozenset()


def test_no_step_and_no_change_can_be_kept_back() -> None:
    nodes = states({number(3): None, number(900): number(1)}, {number(5): number(2)})
    before, after, steps = tree.root(nodes[0]), tree.root(nodes[2]), told(nodes)
    for lie in (steps[:1], steps[1:], steps[::-1], [], steps * 2):
        with pytest.raises(ProofError):
            changed_keys(before, heard(lie), after)
    for key in (number(3), number(900)):
        step = json.loads(steps[0])
        del step["changes"][key.hex()]
        with pytest.raises(ProofError):
            changed_keys(before, heard([json.dumps(step).encode(), steps[1]]), after)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}",
        b'{"steps": 1, "signed_header": {}}',
        b'{"steps": [{"changes": {"00": null}, "nodes": {}}], "signed_header": {}}',
        b'{"steps": [{"changes": {}, "nodes": {"0g": "AAAA"}}], "signed_header": {}}',
        b'{"steps": null}',
    ],
)
def test_what_is_no_answer(answer: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_changes(answer)


def test_the_size_of_an_answer() -> None:
    widest = b'{"steps": null, "signed_header": {}}'.ljust(16_777_216)
    assert parse_changes(widest).steps is None
    with pytest.raises(MalformedError, match="more than 16777216 bytes"):
        parse_changes(widest + b" ")


@pytest.mark.parametrize(
    "step",
    [
        StepForm({"z" * 64: None}, {}),
        StepForm({"00" * 32: "?"}, {}),
        StepForm({"00" * 32: "AAAA"}, {}),
        StepForm({"00" * 32: None}, {"": "?"}),
        StepForm({"00" * 32: None}, {"": ""}),
        StepForm({"00" * 32: None}, {"": "/////w=="}),
    ],
)
def test_what_is_no_step(step: StepForm) -> None:
    with pytest.raises((ProofError, MalformedError)):
        changed_keys(tree.root(states()[0]), (step,), number(1))


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_changes(data)


# What is held


DIGESTS = [CertDigest(number(seed)) for seed in range(8)]


def _same(names: tuple[str, ...], value: Any) -> dict[str, Any]:
    return dict.fromkeys(names, value)


BLANK = Header(
    chain_id="",
    height=0,
    time_ns=0,
    last_block_id=None,  # type: ignore[arg-type]
    **_same(
        (
            "last_commit_hash",
            "data_hash",
            "validators_hash",
            "next_validators_hash",
            "consensus_hash",
            "app_hash",
            "last_results_hash",
            "evidence_hash",
            "proposer_address",
        ),
        b"",
    ),
)


def at(height: int) -> Header:
    return replace(BLANK, height=height, time_ns=height * 10**9)


def resolution(digest: CertDigest, height: int, organization: str = "A", **changes: Any) -> Resolution:
    parts: dict[str, Any] = {
        "status": CertStatus.VALID,
        "organization": organization,
        "not_before_s": 0,
        "not_after_s": 100,
        "recorded_height": Height(1),
        "changed_height": Height(1),
        "revision": 0,
        "reason": None,
        "key_id": bytes(32),
    }
    record = CertRecord(**parts | changes)
    member = Member(organization, MemberKind.VENDOR)
    return Resolution(digest, record.status, b"der", record, member, Height(height), float(height), 0.0)


def holding(height: int, *resolutions: Resolution, max_entries: int = 100) -> Holdings:
    holdings = Holdings(max_entries)
    holdings.advance(at(height), None)
    for each in resolutions:
        holdings.put(each)
    return holdings


def digests(resolutions: list[Resolution]) -> list[CertDigest]:
    return [each.digest for each in resolutions]


def test_what_nothing_touched_holds_at_the_newest_header() -> None:
    holdings = holding(5, resolution(DIGESTS[0], 5), resolution(DIGESTS[1], 5))
    assert digests(holdings.advance(at(9), frozenset({DIGESTS[1]}))) == [DIGESTS[1]]
    found = holdings.get(DIGESTS[0], 12.0)
    assert found is not None
    assert (found.height, found.time_s, found.age_s, found.certificate) == (9, 9.0, 3.0, b"der")
    assert holdings.get(DIGESTS[1], 12.0) is None
    assert holdings.advance(at(10), frozenset()) == []
    assert present(holdings.get(DIGESTS[0], 12.0)).age_s == 2.0


def test_the_status_is_that_of_now() -> None:
    holdings = holding(5, resolution(DIGESTS[0], 5))
    assert present(holdings.get(DIGESTS[0], 99.0)).status is CertStatus.VALID
    assert present(holdings.get(DIGESTS[0], 101.0)).status is CertStatus.EXPIRED


def test_a_change_of_the_member_drops_its_certificates() -> None:
    holdings = holding(5, resolution(DIGESTS[0], 5), resolution(DIGESTS[1], 5, "B"))
    assert digests(holdings.advance(at(6), frozenset({member_key("B")}))) == [DIGESTS[1]]
    assert len(holdings) == 1


def test_where_the_changes_are_not_known_all_is_dropped_that_is_not_newer() -> None:
    holdings = holding(5, resolution(DIGESTS[0], 5), resolution(DIGESTS[1], 7))
    assert digests(holdings.advance(at(7), None)) == [DIGESTS[0]]
    assert present(holdings.get(DIGESTS[1], 8.0)).height == 7


def test_what_was_proved_by_an_older_header_is_not_held() -> None:
    assert len(Holdings(5)) == 0
    early = Holdings(5)
    early.put(resolution(DIGESTS[0], 5))
    assert len(early) == len(holding(5, resolution(DIGESTS[0], 4))) == 0


def test_what_was_proved_by_a_newer_header_waits_for_it() -> None:
    """It knows of the changes up to its own header: they do not drop it, a jump over its header does."""
    for to, kept in ((6, True), (7, True), (8, False)):
        holdings = holding(5, resolution(DIGESTS[0], 7))
        assert present(holdings.get(DIGESTS[0], 7.0)).height == 7
        dropped = holdings.advance(at(to), frozenset({DIGESTS[0]} if to < 8 else ()))
        assert (dropped == []) is kept
    holdings = holding(5, resolution(DIGESTS[0], 7))
    holdings.advance(at(7), frozenset({DIGESTS[0]}))
    assert digests(holdings.advance(at(8), frozenset({DIGESTS[0]}))) == [DIGESTS[0]]


def test_an_older_answer_does_not_replace_a_newer_one_that_is_ahead() -> None:
    """Two inquiries may be answered out of order: here the revocation at 7 arrives first."""
    revoked = resolution(DIGESTS[0], 7, "B")
    holdings = holding(5, revoked, resolution(DIGESTS[0], 6))
    assert present(holdings.get(DIGESTS[0], 7.0)).height == 7
    assert present(holdings.get(DIGESTS[0], 7.0)).record == revoked.record
    holdings.advance(at(6), frozenset())
    assert present(holdings.get(DIGESTS[0], 7.0)).height == 7


def test_after_clearing_nothing_is_held() -> None:
    holdings = holding(5, resolution(DIGESTS[0], 7), resolution(DIGESTS[1], 5))
    holdings.clear()
    assert (len(holdings), holdings.header) == (0, None)
    holdings.advance(at(8), frozenset(DIGESTS))
    holdings.put(resolution(DIGESTS[0], 8))
    assert holdings.get(DIGESTS[0], 8.0) is not None


def test_the_least_used_gives_way_and_what_is_absent_is_not_held() -> None:
    holdings = holding(5, *(resolution(digest, 5) for digest in DIGESTS[:3]), max_entries=3)
    holdings.get(DIGESTS[0], 6.0)
    holdings.put(resolution(DIGESTS[3], 5))
    assert [holdings.get(digest, 6.0) is not None for digest in DIGESTS[:4]] == [True, False, True, True]
    holdings.put(replace(resolution(DIGESTS[4], 5), record=None, status=CertStatus.UNKNOWN))
    assert holdings.get(DIGESTS[4], 6.0) is None
    assert len(holdings) == 3


def test_what_is_judged_is_the_same_until_it_changes() -> None:
    holdings = holding(5, resolution(DIGESTS[0], 5), resolution(DIGESTS[1], 5, "B"))
    first = present(holdings.recorded(DIGESTS[0], 10.0, 20.0))
    assert first == present(holdings.get(DIGESTS[0], 10.0)).recorded
    assert holdings.recorded(DIGESTS[0], 20.0, 20.0) is first
    assert holdings.recorded(DIGESTS[0], 26.0, 20.0) is None, "the header is too old"
    expired = present(holdings.recorded(DIGESTS[0], 101.0, 1000.0))
    assert (expired.status, first.status) == (CertStatus.EXPIRED, CertStatus.VALID)
    holdings.advance(at(6), frozenset({member_key("B")}))
    later = present(holdings.recorded(DIGESTS[0], 10.0, 20.0))
    assert (later.height, later.status) == (6, CertStatus.VALID)
    assert holdings.recorded(DIGESTS[1], 10.0, 20.0) is None
    holdings.put(resolution(DIGESTS[1], 6, "B", status=CertStatus.REVOKED))
    assert present(holdings.recorded(DIGESTS[1], 10.0, 20.0)).status is CertStatus.REVOKED


def test_what_is_held_anew_was_used_last_and_hangs_on_its_member_alone() -> None:
    holdings = holding(5, *(resolution(digest, 5) for digest in DIGESTS[:2]), max_entries=2)
    holdings.put(resolution(DIGESTS[0], 5, "B"))
    holdings.put(resolution(DIGESTS[2], 5))
    assert [holdings.get(digest, 6.0) is not None for digest in DIGESTS[:3]] == [True, False, True]
    holdings.advance(at(6), frozenset({member_key("A")}))
    assert [holdings.get(digest, 6.0) is not None for digest in DIGESTS[:3]] == [True, False, False]
    holdings.advance(at(7), frozenset({member_key("B")}))
    assert len(holdings) == 0
