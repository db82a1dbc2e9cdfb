"""Snapshots: a state given in chunks is the same state on the other side, and nothing false is taken in."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger_node.abci import snapshots as module
from ledger_node.abci.abci_pb2 import (
    ApplySnapshotChunk,
    ListSnapshots,
    LoadSnapshotChunk,
    OfferSnapshot,
    Snapshot,
)
from ledger_node.abci.snapshots import Restoration, Snapshots
from ledger_node.abci.tail import Tail
from ledger_node.keep.integrity import check_store
from ledger_node.keep.store import Store
from tests.present import present
from voice_dpki.codec import cbor
from voice_dpki.ledger import tree
from voice_dpki.ledger.block import NextBlock
from voice_dpki.ledger.replica import Executed, SignedBlock, Step
from voice_dpki.ledger.state import Block, Outcome, apply
from voice_dpki.names import Height
from voice_dpki.x509.profile import digest_of

START_S = 1_790_000_000


@pytest.fixture
def source(federation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A node with eight certificates, one of them revoked, and a snapshot in small chunks."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 1200)
    store = Store(tmp_path / "source", federation.genesis)
    certificates = [federation.certificate() for _ in range(8)]
    transactions = (*map(federation.submission, certificates), federation.revocation(certificates[3]))
    block = Block(Height(1), START_S + 1, transactions)
    outcome = apply(store.view, block)
    following = NextBlock(
        chain_id=federation.genesis.chain_id,
        previous=None,
        time_ns=block.time_s * 10**9,
        transactions=transactions,
        app_hash=federation.genesis.outcome().app_hash,
        last_results=[],
        validators=federation.genesis.validators,
        next_validators=federation.genesis.validators,
    )
    header = following.seal({})
    store.commit(Step((Executed(SignedBlock(header, transactions), outcome),), header))
    taken = Snapshots(tmp_path / "snapshots")
    with store.snapshot() as view:
        taken.take(view)
    yield store, taken, certificates
    store.close()


def described(taken: Snapshots) -> Snapshot:
    (snapshot,) = taken.list_snapshots(ListSnapshots.Request()).snapshots
    return snapshot


def chunk(taken: Snapshots, snapshot: Snapshot, index: int) -> bytes:
    request = LoadSnapshotChunk.Request(height=snapshot.height, format=snapshot.format, chunk=index)
    return taken.load_snapshot_chunk(request).chunk


def offer(restoration: Restoration, snapshot: Snapshot, app_hash: bytes) -> int:
    return restoration.offer_snapshot(OfferSnapshot.Request(snapshot=snapshot, app_hash=app_hash)).verdict


def apply_chunk(restoration: Restoration, index: int, data: bytes) -> ApplySnapshotChunk.Response:
    request = ApplySnapshotChunk.Request(index=index, chunk=data, sender="peer")
    return restoration.apply_snapshot_chunk(request)


def test_a_new_node_takes_over_the_state(federation: Any, tmp_path: Path, source: Any) -> None:
    store, taken, certificates = source
    snapshot, root = described(taken), tree.root(store.view)
    assert (snapshot.height, snapshot.format) == (1, 2)
    assert snapshot.chunks > 2
    target = Store(tmp_path / "target", federation.genesis)
    tail = Tail(target, federation.genesis)

    def restored(height: Height, outcome: Outcome) -> None:
        target.restore(height, outcome)
        tail.stored()

    restoration = Restoration(federation.genesis.chain_id, restored)
    assert offer(restoration, snapshot, root) == OfferSnapshot.ACCEPT
    for index in range(snapshot.chunks):
        answer = apply_chunk(restoration, index, chunk(taken, snapshot, index))
        assert answer.verdict == ApplySnapshotChunk.ACCEPT
    assert (tail.height, tree.root(tail.view)) == (1, root)
    for name in (b"nodes", b"leaves", b"certificates"):
        assert dict(target.view.items(name)) == dict(store.view.items(name))
    assert present(target.view.record(digest_of(certificates[3]))).status == "revoked"
    assert list(tail.wanted_headers(Height(2))) == [2], "the next header proves the state"
    tail.close()
    target.close()
    assert check_store(tmp_path / "target", federation.genesis, whole=True)


def test_a_changed_chunk_is_asked_for_again_elsewhere(federation: Any, source: Any) -> None:
    store, taken, _ = source
    restoration = Restoration(federation.genesis.chain_id, lambda *_: pytest.fail("restored"))
    assert offer(restoration, described(taken), tree.root(store.view)) == OfferSnapshot.ACCEPT
    answer = apply_chunk(restoration, 0, b"other bytes")
    assert answer.verdict == ApplySnapshotChunk.RETRY
    assert (list(answer.refetch_chunks), list(answer.reject_senders)) == ([0], ["peer"])
    assert apply_chunk(restoration, 99, b"").verdict == ApplySnapshotChunk.RETRY


def test_a_state_with_another_app_hash_is_refused(federation: Any, source: Any) -> None:
    _, taken, _ = source
    snapshot = described(taken)
    restoration = Restoration(federation.genesis.chain_id, lambda *_: pytest.fail("restored"))
    assert offer(restoration, snapshot, bytes(32)) == OfferSnapshot.ACCEPT
    verdicts = [
        apply_chunk(restoration, index, chunk(taken, snapshot, index)).verdict for index in range(snapshot.chunks)
    ]
    assert verdicts[-1] == ApplySnapshotChunk.REJECT_SNAPSHOT


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"format": 3}, OfferSnapshot.REJECT_FORMAT),
        ({"hash": bytes(32)}, OfferSnapshot.REJECT),
        ({"chunks": 1}, OfferSnapshot.REJECT),
        ({"metadata": b"\xff"}, OfferSnapshot.REJECT),
        ({"metadata": b"\x80"}, OfferSnapshot.REJECT),
    ],
    ids=str,
)
def test_a_false_description_is_refused(federation: Any, source: Any, change: dict[str, Any], verdict: int) -> None:
    snapshot = described(source[1])
    for name, value in change.items():
        setattr(snapshot, name, value)
    assert offer(Restoration(federation.genesis.chain_id, lambda *_: None), snapshot, b"") == verdict


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.binary(max_size=60)
    | st.lists(st.lists(st.none() | st.binary() | st.just(bytes(32)), min_size=3, max_size=3)).map(cbor.encode)
)
def test_any_chunk_is_refused_without_failing(federation: Any, data: bytes) -> None:
    metadata = cbor.encode([hashlib.sha256(data).digest()])
    snapshot = Snapshot(height=1, format=2, chunks=1, hash=hashlib.sha256(metadata).digest(), metadata=metadata)
    restoration = Restoration(federation.genesis.chain_id, lambda *_: pytest.fail("restored"))
    assert offer(restoration, snapshot, b"another") == OfferSnapshot.ACCEPT
    assert apply_chunk(restoration, 0, data).verdict == ApplySnapshotChunk.REJECT_SNAPSHOT


def test_only_the_newest_are_kept_and_what_is_gone_is_empty(source: Any, tmp_path: Path) -> None:
    store, taken, _ = source
    for height in (0, 5, 7):
        (tmp_path / "snapshots" / str(height)).mkdir()
        (tmp_path / "snapshots" / str(height) / "metadata").write_bytes(cbor.encode([bytes(32)]))
    with store.snapshot() as view:
        taken.take(view)
    listed = taken.list_snapshots(ListSnapshots.Request()).snapshots
    assert [snapshot.height for snapshot in listed] == [5, 7]
    assert chunk(taken, described_at(listed, 5), 3) == b""


def described_at(listed: Any, height: int) -> Snapshot:
    return next(snapshot for snapshot in listed if snapshot.height == height)


def test_a_chunk_larger_than_any_honest_one_is_not_read(federation: Any) -> None:
    data = b"\x00" * (module.MAX_CHUNK_BYTES + 1)
    metadata = cbor.encode([hashlib.sha256(data).digest()])
    told = Snapshot(height=1, format=2, chunks=1, hash=hashlib.sha256(metadata).digest(), metadata=metadata)
    restoration = Restoration(federation.genesis.chain_id, lambda *_: pytest.fail("restored"))
    assert offer(restoration, told, bytes(32)) == OfferSnapshot.ACCEPT
    assert apply_chunk(restoration, 0, data).verdict == ApplySnapshotChunk.REJECT_SNAPSHOT
