"""The store: what is committed stays, and one that is damaged, in use or another ledger's is refused."""

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import pytest

from ledger_node.keep.integrity import check_store
from ledger_node.keep.store import DATA_FILE, UNFINISHED_FILE, Store, StoreError
from tests.present import present
from voice_dpki.ledger import tree
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.owners import owner_of
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.x509.profile import digest_of


class Stored:
    """A store with three certificates in four blocks."""

    def __init__(self, network: Any, folder: Path) -> None:
        self.genesis = network.genesis
        self.folder = folder
        self.ders = [network.certificate() for _ in range(3)]
        self.maker = network.maker()
        transactions = [[network.submission_of(der) for der in self.ders], [b"nonsense"], []]
        self.steps = self.maker.steps(*transactions)
        store = Store(folder, self.genesis)
        for step in self.steps:
            store.commit(step)
        store.close()

    def check(self) -> str:
        return check_store(self.folder, self.genesis, whole=True)

    def database(self, name: bytes) -> tuple[lmdb.Environment, Any]:
        environment = lmdb.open(str(self.folder / DATA_FILE), subdir=False, max_dbs=8, map_size=1 << 30)
        return environment, environment.open_db(name)


@pytest.fixture
def stored(network: Any, tmp_path: Path) -> Stored:
    return Stored(network, tmp_path / "data")


def test_what_was_committed_is_there_again(stored: Stored) -> None:
    store = Store(stored.folder, stored.genesis)
    view = store.view
    assert tree.root(view) == tree.root(stored.maker.state)
    assert (store.height, view.height, view.count(b"certificates")) == (4, 4, 3)
    for der in stored.ders:
        assert view.get(b"certificates", digest_of(der)) == der
        assert view.record(digest_of(der)) == stored.maker.state.record(digest_of(der))
        assert owner_of(view, present(view.record(digest_of(der))).key_id) == "Operator A"
    assert view.member("Operator B") == stored.genesis.member("Operator B")
    assert [len(present(view.block(height)).transactions) for height in range(1, 5)] == [3, 1, 0, 0]
    assert present(view.block(2)).codes == (2,)
    assert present(view.block(3)).signed_block() == stored.steps[2].executed[0].block
    assert view.block(5) is None
    store.close()


def test_a_snapshot_does_not_change(stored: Stored) -> None:
    store = Store(stored.folder, stored.genesis)
    with store.snapshot() as before:
        store.commit(stored.maker.take(stored.maker.block()))
        assert (before.height, store.view.height) == (4, 5)
    store.close()


def test_a_sound_store_passes(stored: Stored) -> None:
    assert stored.check() == "height 4: looked at 4 blocks and all 3 certificates"


def test_a_store_that_was_never_finished_is_made_anew(network: Any, tmp_path: Path) -> None:
    (tmp_path / UNFINISHED_FILE).write_bytes(b"half of it")
    assert check_store(tmp_path, network.genesis, whole=True) == "no store yet"
    Store(tmp_path, network.genesis).close()
    assert (
        check_store(tmp_path, network.genesis, whole=True) == "height 0: looked at 0 blocks and all 0 certificates"
    )
    assert not (tmp_path / UNFINISHED_FILE).exists()


def test_a_store_serves_one_process(stored: Stored) -> None:
    store = Store(stored.folder, stored.genesis)
    script = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    taken = subprocess.run([sys.executable, "-c", script, stored.folder / "node.lock"], capture_output=True)
    assert b"BlockingIOError" in taken.stderr
    with pytest.raises(StoreError, match="another ledger-node is running"):
        Store(stored.folder, stored.genesis)
    store.close()


def test_a_store_belongs_to_its_genesis(stored: Stored) -> None:
    other = replace(stored.genesis, chain_id="other")
    for refused in (lambda: Store(stored.folder, other), lambda: check_store(stored.folder, other, whole=False)):
        with pytest.raises(StoreError, match="another genesis"):
            refused()


def unrevoke(stored: Stored) -> None:
    environment, records = stored.database(b"leaves")
    with environment.begin(write=True) as transaction:
        digest = digest_of(stored.ders[0])
        record = CertRecord.parse(present(transaction.get(digest, db=records)))
        changed = replace(record, status=CertStatus.SUSPENDED)
        transaction.put(digest, changed.serialize(), db=records)
    environment.close()


def drop(name: bytes, key: Callable[[Stored], bytes]) -> Callable[[Stored], None]:
    def damage(stored: Stored) -> None:
        environment, database = stored.database(name)
        with environment.begin(write=True) as transaction:
            assert transaction.delete(key(stored), db=database)
        environment.close()

    return damage


def put(name: bytes, key: bytes, value: bytes) -> Callable[[Stored], None]:
    def damage(stored: Stored) -> None:
        environment, database = stored.database(name)
        with environment.begin(write=True) as transaction:
            transaction.put(key, value, db=database)
        environment.close()

    return damage


def cut(stored: Stored) -> None:
    path = stored.folder / DATA_FILE
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def overwrite(stored: Stored) -> None:
    (stored.folder / DATA_FILE).write_bytes(b"not a database" * 1000)


FIRST = bytes(7) + b"\1"


@pytest.mark.parametrize(
    "damage",
    [
        unrevoke,
        drop(b"leaves", lambda stored: digest_of(stored.ders[0])),
        drop(b"certificates", lambda stored: digest_of(stored.ders[0])),
        drop(b"leaves", lambda stored: member_key("Operator B")),
        drop(b"nodes", lambda stored: b"\0"),
        drop(b"blocks", lambda stored: FIRST),
        drop(b"meta", lambda stored: b"tip"),
        drop(b"meta", lambda stored: b"format"),
        put(b"certificates", bytes(32), b"der"),
        put(b"leaves", bytes(32), b"x"),
        put(b"blocks", FIRST, b"\xff"),
        put(b"meta", b"tip", b"{}"),
        put(b"meta", b"height", bytes(7) + b"\2"),
        put(b"meta", b"height", bytes(7) + b"\5"),
        cut,
        overwrite,
    ],
)
def test_damage_is_found_and_the_way_out_is_told(stored: Stored, damage: Callable[[Stored], None]) -> None:
    damage(stored)
    with pytest.raises(StoreError, match=r"damaged: .*Move this folder away"):
        stored.check()


def contents(stored: Stored) -> dict[bytes, list[tuple[bytes, bytes]]]:
    store = Store(stored.folder, stored.genesis, read_only=True)
    names = (b"nodes", b"leaves", b"certificates", b"blocks", b"meta")
    dump = {name: list(store.view.items(name)) for name in names}
    store.close()
    return dump


def test_any_changed_bytes_are_found_or_change_nothing_that_is_read(stored: Stored) -> None:
    path = stored.folder / DATA_FILE
    sound, whole = path.read_bytes(), contents(stored)
    seeded = random.Random(4)
    found = 0
    for _ in range(100):
        changed = bytearray(sound)
        at = seeded.randrange(0, len(sound) - 64)
        changed[at : at + 64] = seeded.randbytes(64)
        path.write_bytes(changed)
        try:
            stored.check()
        except StoreError:
            found += 1
        else:
            assert contents(stored) == whole, at
    assert found > 10


def test_a_node_does_not_start_on_a_damaged_store(network: Any) -> None:
    engine = network.engine()
    stored = Stored(network, engine.data)
    cut(stored)
    assert "damaged" in engine.fails()
    assert not (engine.data / "catalogue.sqlite").exists()


def test_a_lost_store_is_fetched_again(network: Any) -> None:
    engine = network.engine(heartbeat_s=0.3)
    Stored(network, engine.data)
    engine.start()
    follower = network.follower("a", engine.url).start()
    follower.reaches(5)
    follower.kill()
    (follower.data / DATA_FILE).write_bytes(b"x" * 20_000)
    assert "Move this folder away" in follower.fails()
    follower.data.rename(follower.data.with_name("away"))
    follower.start().reaches(5)
    engine.kill()
    engine.data.rename(engine.data.with_name("lost"))
    follower.stop()
    follower.data.rename(engine.data)
    engine.start().reaches(6)
