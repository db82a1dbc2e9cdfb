"""The stored tree against a recursive model written from its definition, for any history of changes."""

import contextlib
from collections.abc import Mapping
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.ledger import tree
from voice_dpki.ledger.proof import EMPTY, Proof, inner_hash, leaf_hash, verify_absence, verify_inclusion
from voice_dpki.ledger.tree import TreeStoreError

Changes = dict[bytes, bytes | None]


class MemoryNodes(dict[bytes, bytes]):
    """Stored nodes in memory."""

    def node(self, path: bytes) -> bytes | None:
        return self.get(path)

    def apply(self, changes: Mapping[bytes, bytes | None]) -> bytes:
        update = tree.update(self, changes)
        for path, data in update.nodes.items():
            if data is None:
                self.pop(path, None)
            else:
                self[path] = data
        return update.root


def model_root(leaves: Mapping[bytes, bytes], depth: int = 0) -> bytes:
    """The definition, bit by bit."""
    if len(leaves) < 2:
        return next((leaf_hash(leaf) for leaf in leaves.items()), EMPTY)
    right = {key: value for key, value in leaves.items() if key[depth // 8] >> 7 - depth % 8 & 1}
    left = {key: value for key, value in leaves.items() if key not in right}
    return inner_hash(model_root(left, depth + 1), model_root(right, depth + 1))


def number(seed: int) -> bytes:
    return sha256(seed.to_bytes(4, "big")).digest()


# Few bases, each with any one bit flipped: keys that part after any number of bits, down to the last.
KEYS = st.builds(
    lambda base, bit: (int.from_bytes(base, "big") ^ 1 << bit).to_bytes(32, "big"),
    st.sampled_from([EMPTY, number(0), number(1)]),
    st.integers(0, 255),
) | st.integers(0, 40).map(number)
VALUES = st.integers(0, 3).map(lambda seed: number(1000 + seed))
CHANGES = st.dictionaries(KEYS, st.none() | VALUES, max_size=12)
LEAVES = st.dictionaries(KEYS, VALUES, max_size=30)


def test_root_of_nothing_of_one_leaf_and_of_two() -> None:
    nodes = MemoryNodes()
    left, right, value = bytes(32), b"\x80" + bytes(31), number(7)
    assert tree.root(nodes) == EMPTY == bytes(32)
    assert nodes.apply({left: value}) == sha256(b"\x00" + left + value).digest()
    both = sha256(b"\x01" + leaf_hash((left, value)) + leaf_hash((right, value))).digest()
    assert nodes.apply({right: value}) == tree.root(nodes) == both


def test_keys_that_part_at_the_last_bit_have_a_path_of_256() -> None:
    nodes = MemoryNodes()
    last = bytes(31) + b"\x01"
    root = nodes.apply({EMPTY: number(1), last: number(2)})
    proof = tree.prove(nodes, last)
    assert len(proof.siblings) == 256
    assert len(nodes) == 64
    verify_inclusion(root, last, number(2), proof)
    assert nodes.apply({EMPTY: None}) == leaf_hash((last, number(2)))
    assert list(nodes) == [b""]


@given(st.lists(CHANGES, max_size=8))
def test_equals_the_model_after_every_step(history: list[Changes]) -> None:
    nodes = MemoryNodes()
    leaves: dict[bytes, bytes] = {}
    for changes in history:
        root = nodes.apply(changes)
        leaves = {key: value for key, value in {**leaves, **changes}.items() if value is not None}
        assert root == tree.root(nodes) == model_root(leaves)
        assert all(tree.get(nodes, key) == leaves.get(key) for key in [*leaves, *changes])


@given(LEAVES, st.lists(CHANGES, max_size=4), st.data())
def test_nodes_depend_on_the_content_only(
    leaves: dict[bytes, bytes], detour: list[Changes], data: st.DataObject
) -> None:
    at_once, wandering = MemoryNodes(), MemoryNodes()
    at_once.apply(leaves)
    for changes in detour:
        wandering.apply(changes)
    wandering.apply(dict.fromkeys((key for changes in detour for key in changes), None))
    assert not wandering
    for key in data.draw(st.permutations(sorted(leaves))):
        wandering.apply({key: leaves[key]})
    assert wandering == at_once


@given(LEAVES, CHANGES)
def test_update_writes_nothing_itself(leaves: dict[bytes, bytes], changes: Changes) -> None:
    nodes = MemoryNodes()
    nodes.apply(leaves)
    before = dict(nodes)
    tree.update(nodes, changes)
    assert nodes == before


@given(LEAVES, st.lists(KEYS, max_size=10))
def test_every_key_is_proved_present_or_absent(leaves: dict[bytes, bytes], others: list[bytes]) -> None:
    nodes = MemoryNodes()
    root = nodes.apply(leaves)
    for key in [*leaves, *others]:
        proof = Proof.parse(tree.prove(nodes, key).serialize())
        if key in leaves:
            verify_inclusion(root, key, leaves[key], proof)
        else:
            verify_absence(root, key, proof)


@pytest.mark.parametrize("changes", [{b"short": number(1)}, {number(1): b"short"}, {number(1) + b"x": None}])
def test_keys_and_values_of_other_sizes_are_refused(changes: Changes) -> None:
    with pytest.raises(ValueError):
        tree.update(MemoryNodes(), changes)


def test_a_missing_node_is_reported() -> None:
    nodes = MemoryNodes()
    nodes.apply({number(seed): number(seed) for seed in range(200)})
    key = number(0)
    del nodes[bytes([key[0] >> 4])]
    for use in (tree.prove, tree.get, lambda reader, key: tree.update(reader, {key: None})):
        with pytest.raises(TreeStoreError, match="missing"):
            use(nodes, key)


@given(st.data())
def test_damaged_nodes_are_reported_or_give_another_root(data: st.DataObject) -> None:
    nodes = MemoryNodes()
    root = nodes.apply({number(seed): number(seed) for seed in range(3)})
    whole = nodes[b""]
    place, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    nodes[b""] = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
    with contextlib.suppress(TreeStoreError):
        assert tree.root(nodes) != root
    nodes[b""] = whole[:place]
    with pytest.raises(TreeStoreError):
        tree.root(nodes)


def test_a_tree_that_changes_for_long_takes_no_more_memory_for_its_proofs() -> None:
    nodes = MemoryNodes()
    nodes.apply({number(seed): number(seed) for seed in range(500)})
    kept = set[int]()
    for change in range(200):
        root = nodes.apply({number(change): number(change + 1000)})
        for seed in (change, change + 1, change + 200):
            key = number(seed)
            value = number(seed + 1000) if seed <= change else number(seed)
            verify_inclusion(root, key, value, tree.prove(nodes, key))
        kept.add(len(tree._hot))
    assert max(kept) <= 1 + 16 + 16**2 + 16**3
    assert max(kept) - min(kept) < 300, "each node once, not each of its versions"
