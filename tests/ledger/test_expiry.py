"""Pruning: what has expired stays for the window, then leaves without a trace, a bounded number in each block."""

from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.present import present
from voice_dpki.errors import LocalError
from voice_dpki.ledger import expiry, names, tree
from voice_dpki.ledger.owners import owner_of
from voice_dpki.ledger.proof import verify_absence
from voice_dpki.ledger.quotas import usage
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.state import Block, MemoryState, Outcome, apply
from voice_dpki.ledger.transactions import Batch, endorse
from voice_dpki.ledger.view import value_hashes
from voice_dpki.names import CertDigest, Height
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import digest_of

START_S = 1_790_000_000
DAY_S = 86_400
END_S = START_S + 2 * DAY_S
DUE_S = (END_S // DAY_S + 1) * DAY_S + 7 * DAY_S
"""The day is over on which the certificates expire, and so is the window of a week."""


@pytest.fixture
def state(federation: Any) -> MemoryState:
    genesis = federation.genesis
    return replace(genesis, parameters=replace(genesis.parameters, retention_s=7 * DAY_S)).initial_state()


def execute(state: MemoryState, *transactions: bytes, time_s: int = START_S) -> Outcome:
    outcome = apply(state, Block(Height(1), time_s, transactions))
    state.commit(outcome)
    return outcome


def batch(federation: Any, ders: list[bytes]) -> bytes:
    return endorse(Batch("test-1", "Operator A", tuple(ders)), [federation.keys["Operator A"]])


def test_a_certificate_stays_for_the_window_and_then_is_proved_absent(federation: Any, state: MemoryState) -> None:
    key = generate_es256()
    der = federation.certificate(key=key, not_after_s=END_S)
    digest = digest_of(der)
    execute(state, federation.submission(der), federation.change(digest, "revoked", 0, reason="keyCompromise"))
    key_id = present(state.record(digest)).key_id
    execute(state, time_s=DUE_S - 1)
    assert present(state.record(digest)).status is CertStatus.REVOKED, "what was revoked shows it to the end"
    assert expiry.pruned_before(state) <= END_S
    outcome = execute(state, time_s=DUE_S)
    assert expiry.pruned_before(state) > END_S
    verify_absence(outcome.app_hash, digest, tree.prove(state, digest))
    assert state.certificates == {}
    assert owner_of(state, key_id) is None
    assert state.leaf(names.subject_key("Operator A", "device")) is None
    assert usage(state, "Operator A")[0] == 0
    assert execute(state, federation.submission(der), time_s=DUE_S).results[0].name == "expired"


def test_nothing_is_left_of_what_was_pruned(federation: Any, state: MemoryState) -> None:
    untouched = dict(state.leaves)
    ders = [federation.certificate(not_after_s=END_S + at) for at in range(150)]
    for start in range(0, 150, 50):
        execute(state, batch(federation, ders[start : start + 50]))
    execute(state, time_s=DUE_S)
    execute(state, time_s=DUE_S)
    left = {key: value for key, value in state.leaves.items() if untouched.get(key) != value}
    assert len(left) == 2, "how far pruning is, and how much the member has used"
    assert tree.update(MemoryState(""), value_hashes(state.leaves)).nodes == state.nodes


def test_a_block_removes_a_bounded_number(
    federation: Any, state: MemoryState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "MAX_PRUNED", 10)
    monkeypatch.setattr(expiry, "CHUNK", 4)
    ders = [federation.certificate(not_after_s=END_S) for _ in range(25)]
    later = federation.certificate(not_after_s=END_S + 30 * DAY_S)
    execute(state, batch(federation, [*ders, later]))
    left = []
    for _ in range(5):
        execute(state, time_s=DUE_S)
        left.append(len(state.certificates))
    assert left == [16, 6, 1, 1, 1]
    assert state.record(digest_of(later)) is not None


def test_days_without_certificates_are_passed_over_in_steps(federation: Any, state: MemoryState) -> None:
    far_s = START_S + 1000 * DAY_S
    steps: list[int] = []
    while not steps or steps[-1] < far_s - 8 * DAY_S:
        execute(state, time_s=far_s)
        steps.append(expiry.pruned_before(state))
    assert len(steps) == 16
    assert execute(state, time_s=far_s).leaves == {}


@pytest.mark.parametrize(
    "missing", [{"record": None}, {"certificate": None}, {"record": None, "certificate": None}]
)
def test_a_queued_certificate_of_which_a_part_is_missing_is_damage(missing: dict[str, None]) -> None:
    draft = MagicMock(**{f"{name}.return_value": value for name, value in missing.items()})
    with pytest.raises(LocalError, match="a queued certificate is missing"):
        expiry._remove(draft, CertDigest(bytes(32)))
