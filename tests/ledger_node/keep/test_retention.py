"""Which blocks a store keeps: both bounds hold, the state does not change, and the disk stays flat."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger_node.keep.integrity import check_store
from ledger_node.keep.retention import MAX_PRUNED, Retention
from ledger_node.keep.store import DATA_FILE, Store
from voice_dpki.ledger import tree

SECOND_NS = 10**9


def commit_idle(store: Store, maker: Any, count: int) -> None:
    """Commit empty blocks, a second apart."""
    for _ in range(count):
        time_ns = maker.genesis.time_ns + maker.replica.next_height * SECOND_NS
        store.commit(maker.take(maker.block(time_ns=time_ns)))


@pytest.fixture
def opened(network: Any, tmp_path: Path) -> Iterator[Any]:
    stores = []

    def open_(retention: Retention | None) -> Store:
        stores.append(Store(tmp_path / "data", network.genesis, retention=retention))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


@pytest.mark.parametrize(
    ("retention", "first"),
    [
        (Retention(age_s=10, blocks=5), 20),
        (Retention(age_s=5, blocks=10), 21),
        (Retention(age_s=0, blocks=0), 30),
        (Retention(age_s=1000, blocks=1), 1),
        (Retention(age_s=0, blocks=30), 1),
        (None, 1),
    ],
)
def test_a_block_goes_when_it_is_both_old_and_far_below(
    opened: Any, network: Any, retention: Retention | None, first: int
) -> None:
    store = opened(retention)
    commit_idle(store, network.maker(), 30)
    assert store.view.first == first
    assert [store.view.block(height) is not None for height in (first - 1, first, 30)] == [False, True, True]
    assert store.view.count(b"blocks") == 31 - first


def test_a_store_that_kept_all_shrinks_by_a_bounded_number_at_a_time(network: Any, tmp_path: Path) -> None:
    maker = network.maker()
    store = Store(tmp_path, network.genesis)
    commit_idle(store, maker, 3 * MAX_PRUNED)
    store.close()
    store = Store(tmp_path, network.genesis, retention=Retention(age_s=0, blocks=10))
    firsts = []
    for _ in range(4):
        commit_idle(store, maker, 1)
        firsts.append(store.view.first)
    assert firsts == [1 + MAX_PRUNED, 1 + 2 * MAX_PRUNED, 3 * MAX_PRUNED - 6, 3 * MAX_PRUNED - 5]
    store.close()


def test_the_state_is_that_of_a_node_that_keeps_all(opened: Any, network: Any) -> None:
    maker, store = network.maker(), opened(Retention(age_s=0, blocks=3))
    ders = [network.certificate() for _ in range(6)]
    for der in ders:
        for step in maker.steps([network.submission_of(der)]):
            store.commit(step)
    assert store.view.first > 1
    assert tree.root(store.view) == tree.root(maker.state)
    assert store.view.count(b"certificates") == len(ders)


def test_a_pruned_store_passes_its_check(network: Any, tmp_path: Path) -> None:
    store = Store(tmp_path, network.genesis, retention=Retention(age_s=0, blocks=7))
    commit_idle(store, network.maker(), 20)
    store.close()
    whole = check_store(tmp_path, network.genesis, whole=True)
    assert whole == "height 20: looked at 7 blocks and all 0 certificates"


def test_the_file_is_flat_after_the_second_window(network: Any, tmp_path: Path) -> None:
    maker, window = network.maker(), 40
    store = Store(tmp_path, network.genesis, retention=Retention(age_s=0, blocks=window))
    sizes = []
    for _ in range(6):
        commit_idle(store, maker, window)
        sizes.append((tmp_path / DATA_FILE).stat().st_size)
    store.close()
    assert sizes[0] < sizes[1]
    assert len(set(sizes[1:])) == 1, sizes
