"""A store over years, in minutes: flat where nothing comes in, and growing with what does."""

from pathlib import Path
from typing import Any

import pytest

from ledger_node.keep import mapped
from ledger_node.keep.integrity import check_store
from ledger_node.keep.retention import Retention
from ledger_node.keep.store import DATA_FILE, Store
from voice_dpki.ledger import tree
from voice_dpki.ledger.transactions import Batch, endorse

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

WINDOW = 2000
WINDOWS = 10
CERTIFICATES = 100_000
IN_A_BATCH = 100
BATCHES = 5


def test_ten_windows_are_flat_after_the_second(network: Any, tmp_path: Path) -> None:
    maker = network.maker()
    store = Store(tmp_path, network.genesis, retention=Retention(age_s=0, blocks=WINDOW))
    sizes = []
    for _ in range(WINDOWS):
        for _ in range(WINDOW):
            store.commit(maker.take(maker.block()))
        sizes.append((tmp_path / DATA_FILE).stat().st_size)
    assert store.view.count(b"blocks") == WINDOW
    store.close()
    print(f"bytes after each window of {WINDOW} blocks: {sizes}")
    assert max(sizes[1:]) == min(sizes[1:]), sizes


def test_a_map_of_16_mib_grows_while_certificates_come_in(network: Any, tmp_path: Path) -> None:
    assert mapped.MAP_BYTES == 16 << 20
    maker, signer = network.maker(), network.signer("Operator A")
    store = Store(tmp_path, network.genesis)
    for _ in range(CERTIFICATES // (IN_A_BATCH * BATCHES)):
        batches = [tuple(network.certificate() for _ in range(IN_A_BATCH)) for _ in range(BATCHES)]
        raws = [endorse(Batch("test-1", "Operator A", ders), [signer]) for ders in batches]
        for step in maker.steps(raws):
            assert all(result.code == 0 for each in step.executed for result in each.outcome.results)
            store.commit(step)
    assert store.view.count(b"certificates") == CERTIFICATES
    assert tree.root(store.view) == tree.root(maker.state)
    store.close()
    size = (tmp_path / DATA_FILE).stat().st_size
    print(f"{CERTIFICATES} certificates take {size / 2**20:.0f} MiB")
    assert size > 2 * mapped.MAP_BYTES
    assert f"all {CERTIFICATES} certificates" in check_store(tmp_path, network.genesis, whole=True)
