"""Inserts, proofs and sizes of the ledger's tree, from 1,000 to 1,000,000 keys, in memory and on LMDB.

    python bench/tree.py [--max 1000000] [--dir DIR]

Keys arrive in blocks of 1,000, each block one LMDB transaction that is synced to disk, as in the ledger node. A row
is measured when the tree has grown to its size: rate and processor time of the last blocks, bytes a key on disk
(LMDB) or of nodes and paths alone (memory), and the processor time of proofs of present keys once the upper
nodes are warm.
"""

import argparse
import contextlib
import hashlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import lmdb

from voice_dpki.ledger import tree
from voice_dpki.ledger.proof import Proof, verify_inclusion

BLOCK = 1000
SIZES = (1_000, 10_000, 100_000, 1_000_000)
SAMPLES = 5000
ROW = "{:>9} {:>7} {:>10} {:>14} {:>10} {:>9} {:>8} {:>9} {:>10}"
HEAD = ROW.format(
    "keys", "store", "inserts/s", "cpu us/insert", "bytes/key", "siblings", "proof B", "prove us", "verify us"
)


class Store(Protocol):
    """Where the nodes are."""

    def reading(self) -> contextlib.AbstractContextManager[tree.NodeReader]:
        """Open the current nodes."""
        ...

    def apply(self, nodes: Mapping[bytes, bytes | None]) -> None:
        """Make an update durable."""
        ...

    def size(self) -> int:
        """Bytes taken."""
        ...


class MemoryStore:
    """Nodes in a dictionary."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, bytes] = {}

    def node(self, path: bytes) -> bytes | None:
        """One node."""
        return self._nodes.get(path)

    def reading(self) -> contextlib.AbstractContextManager[tree.NodeReader]:
        """See Store."""
        return contextlib.nullcontext(self)

    def apply(self, nodes: Mapping[bytes, bytes | None]) -> None:
        """See Store."""
        for path, data in nodes.items():
            if data is None:
                self._nodes.pop(path, None)
            else:
                self._nodes[path] = data

    def size(self) -> int:
        """Bytes of paths and nodes, without Python's overhead."""
        return sum(len(path) + len(data) for path, data in self._nodes.items())


class LmdbReader:
    """Nodes in one LMDB read transaction."""

    def __init__(self, transaction: lmdb.Transaction) -> None:
        self._transaction = transaction

    def node(self, path: bytes) -> bytes | None:
        """One node; LMDB takes no empty keys, hence the prefix."""
        data = self._transaction.get(b"t" + path)
        return None if data is None else bytes(data)


class LmdbStore:
    """Nodes in LMDB, synced at each apply."""

    def __init__(self, directory: Path) -> None:
        self._environment = lmdb.open(str(directory), map_size=8 << 30)

    @contextlib.contextmanager
    def reading(self) -> Iterator[tree.NodeReader]:
        """See Store."""
        with self._environment.begin() as transaction:
            yield LmdbReader(transaction)

    def apply(self, nodes: Mapping[bytes, bytes | None]) -> None:
        """See Store."""
        with self._environment.begin(write=True) as transaction:
            for path, data in nodes.items():
                if data is None:
                    transaction.delete(b"t" + path)
                else:
                    transaction.put(b"t" + path, data)

    def size(self) -> int:
        """Bytes of the pages in use."""
        return int(self._environment.info()["last_pgno"]) * int(self._environment.stat()["psize"])


def key(number: int) -> bytes:
    """The key with a number, as well spread as H(CERT)."""
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def grow(store: Store, start: int) -> tuple[float, float]:
    """Insert a block from number `start` on; the seconds that it took, on the wall and of the processor."""
    changes: dict[bytes, bytes | None] = {key(number): key(number + 1) for number in range(start, start + BLOCK)}
    wall, processor = time.perf_counter(), time.process_time()
    with store.reading() as reader:
        update = tree.update(reader, changes)
    store.apply(update.nodes)
    return time.perf_counter() - wall, time.process_time() - processor


def measure(store: Store, size: int, recent: list[tuple[float, float]], name: str) -> str:
    """One row of the table; `recent` has the times of the last blocks."""
    sample = [key(number) for number in range(0, size, max(1, size // SAMPLES))][:SAMPLES]
    with store.reading() as reader:
        top = tree.root(reader)
        for _ in range(2):
            began = time.process_time()
            proofs = [tree.prove(reader, each) for each in sample]
            proving = time.process_time() - began
    wires = [proof.serialize() for proof in proofs]
    began = time.process_time()
    for each, wire in zip(sample, wires, strict=True):
        proof = Proof.parse(wire)
        verify_inclusion(top, each, proof.leaf[1] if proof.leaf else b"", proof)
    verifying = time.process_time() - began
    count = len(sample)
    return ROW.format(
        size,
        name,
        f"{BLOCK / statistics.median(wall for wall, _ in recent):,.0f}",
        f"{statistics.median(processor for _, processor in recent) / BLOCK * 1e6:.1f}",
        f"{store.size() / size:.0f}",
        f"{sum(len(proof.siblings) for proof in proofs) / count:.1f}",
        f"{sum(map(len, wires)) / count:.0f}",
        f"{proving / count * 1e6:.1f}",
        f"{verifying / count * 1e6:.1f}",
    )


def run(store: Store, name: str, largest: int) -> None:
    """Grow a store to the largest size and print a row at each size on the way."""
    recent: list[tuple[float, float]] = []
    for start in range(0, largest, BLOCK):
        recent = [*recent[-19:], grow(store, start)]
        if start + BLOCK in SIZES:
            print(measure(store, start + BLOCK, recent, name), flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max", type=int, default=SIZES[-1], help="largest size (default: %(default)s)")
    parser.add_argument("--dir", type=Path, help="where LMDB's file goes (default: a temporary folder)")
    arguments = parser.parse_args()
    print(HEAD)
    run(MemoryStore(), "memory", arguments.max)
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        run(LmdbStore(Path(directory)), "lmdb", arguments.max)


if __name__ == "__main__":
    main()
