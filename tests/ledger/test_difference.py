"""In what two trees differ, and which leaves have a prefix: complete, and proved to be."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.ledger import tree
from voice_dpki.ledger.proof import EMPTY, PrefixProof, ProofError, inner_hash, leaf_hash, verify_prefix
from voice_dpki.ledger.tree import Difference, TooManyLeavesError

from .test_tree import CHANGES, LEAVES, VALUES, MemoryNodes, number

Leaves = dict[bytes, bytes]
MANY = {number(seed): number(seed + 1) for seed in range(300)}


def grown(leaves: Leaves) -> MemoryNodes:
    nodes = MemoryNodes()
    nodes.apply(leaves)
    return nodes


def nibbles(key: bytes) -> bytes:
    return bytes(int(digit, 16) for digit in key.hex())


# Prefixes


@given(LEAVES, st.data())
def test_all_leaves_with_a_prefix(leaves: Leaves, data: Any) -> None:
    nodes = grown(leaves)
    near = st.sampled_from(sorted(leaves)) if leaves else st.nothing()
    key = data.draw(near | st.binary(min_size=32, max_size=32))
    prefix = nibbles(key)[: data.draw(st.integers(0, 64))]
    proof = tree.prove_prefix(nodes, prefix, 30)
    below = {each: value for each, value in leaves.items() if nibbles(each).startswith(prefix)}
    assert verify_prefix(tree.root(nodes), prefix, proof) == below


@pytest.mark.parametrize("digits", ["", "3", "3f", "a0b", "00000", "f" * 64])
def test_no_leaf_can_be_left_out_added_or_changed(digits: str) -> None:
    nodes = grown(MANY)
    root, prefix = tree.root(nodes), bytes(int(digit, 16) for digit in digits)
    proof = tree.prove_prefix(nodes, prefix, 1000)
    assert verify_prefix(root, prefix, proof) == {key: MANY[key] for key in MANY if key.hex().startswith(digits)}
    leaves = list(proof.leaves)
    lies = [leaves[:index] + leaves[index + 1 :] for index in range(len(leaves))]
    lies += [[*leaves[:index], (key, number(7)), *leaves[index + 1 :]] for index, (key, _) in enumerate(leaves)]
    lies += [sorted([*leaves, (key, number(7))]) for key in (bytes(32), bytes.fromhex(digits.ljust(64, "0")))]
    lies += [leaves[::-1], leaves * 2]
    for lie in lies:
        if lie != leaves:
            with pytest.raises(ProofError):
                verify_prefix(root, prefix, PrefixProof(proof.siblings, tuple(lie)))
    for index in range(len(proof.siblings)):
        siblings = list(proof.siblings)
        siblings[index] = number(9)
        for beside in (siblings, siblings[:index]):
            with pytest.raises(ProofError):
                verify_prefix(root, prefix, PrefixProof(tuple(beside), proof.leaves))


def test_a_subtree_cannot_be_passed_off_as_a_leaf_above_the_prefix() -> None:
    nodes = grown(MANY)
    whole = tree.prove_prefix(nodes, b"\x03", 1000)
    for prefix in (b"\x03\x01", b"\x03\x0f\x00"):
        with pytest.raises(ProofError, match="more than one leaf"):
            verify_prefix(tree.root(nodes), prefix, whole)


def test_leaves_are_in_order_and_each_is_there_once() -> None:
    nodes = grown(MANY)
    proof = tree.prove_prefix(nodes, b"\x03", 1000)
    first, second, *rest = proof.leaves
    for leaves in (
        (first, first, second, *rest),
        (second, first, *rest),
        (first, second, *rest, rest[-1]),
        (*proof.leaves, first),
    ):
        with pytest.raises(ProofError, match="out of order"):
            verify_prefix(tree.root(nodes), b"\x03", PrefixProof(proof.siblings, leaves))


def test_too_many_and_impossible_prefixes() -> None:
    nodes = grown(MANY)
    with pytest.raises(TooManyLeavesError):
        tree.prove_prefix(nodes, b"", 299)
    assert len(tree.prove_prefix(nodes, b"", 300).leaves) == 300
    proof = PrefixProof((), ())
    assert verify_prefix(EMPTY, b"\x01", proof) == {}
    for bad, siblings in ((b"\x10", ()), (bytes(65), ()), (b"", (EMPTY,)), (b"\x01", (EMPTY,) * 5)):
        with pytest.raises(ProofError):
            verify_prefix(EMPTY, bad, PrefixProof(siblings, ()))
    with pytest.raises(ProofError):
        verify_prefix(EMPTY, b"", PrefixProof((), ((b"", b""),)))


# Differences


@given(LEAVES, CHANGES)
def test_a_difference_leads_from_one_tree_to_the_other(leaves: Leaves, changes: Any) -> None:
    before, after = grown(leaves), grown(leaves)
    after.apply(changes)
    found = tree.diff(before, after)
    real = {key: value for key, value in changes.items() if value != leaves.get(key)}
    assert found.changes == real
    assert tree.follow(tree.root(before), found) == tree.root(after)
    assert all(before[path] == node for path, node in found.nodes.items())
    back = tree.diff(after, before)
    assert tree.follow(tree.root(after), back) == tree.root(before)


@given(st.sets(st.integers(0, 400), min_size=1, max_size=5), st.integers(0, 10**6), VALUES)
def test_no_change_can_be_hidden(seeds: set[int], pick: int, value: bytes) -> None:
    before, after = grown(MANY), grown(MANY)
    after.apply({number(seed): None if seed % 3 == 0 and seed < 300 else value for seed in seeds})
    found = tree.diff(before, after)
    hidden = sorted(found.changes)[pick % len(found.changes)]
    for changes in (
        {key: to for key, to in found.changes.items() if key != hidden},
        {**found.changes, hidden: number(5)},
        {**found.changes, number(299): number(5)},
    ):
        with contextlib.suppress(ProofError):
            assert tree.follow(tree.root(before), Difference(changes, found.nodes)) != tree.root(after)


def test_nodes_that_are_not_the_trees_are_refused() -> None:
    before, after = grown(MANY), grown(MANY)
    after.apply({number(3): None, number(5): number(6000)})
    root, found = tree.root(before), tree.diff(before, after)
    for path, node in found.nodes.items():
        for at in range(0, len(node), 5):
            bad = {**found.nodes, path: node[:at] + bytes([node[at] ^ 1]) + node[at + 1 :]}
            with pytest.raises(ProofError):
                tree.follow(root, Difference(found.changes, bad))
        fewer = {other: data for other, data in found.nodes.items() if other != path}
        with pytest.raises(ProofError):
            tree.follow(root, Difference(found.changes, fewer))
    with pytest.raises(ProofError):
        tree.follow(root, Difference({b"short": None}, found.nodes))
    with pytest.raises(ProofError):
        tree.follow(number(1), found)


def test_a_lone_leaf_cannot_be_moved_to_where_it_is_not_looked_for() -> None:
    """Its hash would be the same at the slot beside it, and a change of it would look like a new leaf."""
    left, right = bytes(32), bytes([0x90]) + bytes(31)
    nodes = grown({left: number(1), right: number(2)})
    leaf, other = left + number(1), right + number(2)
    moved = (1 << 1 | 1 << 9).to_bytes(2, "big") + bytes(2) + leaf + other
    with pytest.raises(ProofError, match="another one's place"):
        tree.follow(tree.root(nodes), Difference({left: number(3)}, {b"": moved}))


def test_two_leaves_above_the_prefix_are_one_too_many() -> None:
    """Each set of leaves has one proof, which goes down until at most one leaf is left."""
    leaves = {bytes([first]) + bytes(31): number(first) for first in (0x00, 0x80)}
    whole = PrefixProof((), tuple(sorted(leaves.items())))
    root = tree.root(grown(leaves))
    assert verify_prefix(root, b"", whole) == leaves
    with pytest.raises(ProofError, match="more than one leaf"):
        verify_prefix(root, b"\x00", whole)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_leaf_s_key_takes_nothing_from_its_value(size: int) -> None:
    """The hash of a leaf covers both without a mark between them, so only the key's length tells them apart."""
    key, value = number(1), number(2)
    both = key + value
    with pytest.raises(ProofError, match="does not belong"):
        verify_prefix(tree.root(grown({key: value})), b"", PrefixProof((), ((both[:size], both[size:]),)))


@pytest.mark.parametrize("first", [0x00, 0x80])
def test_a_leaf_beside_the_path_is_none_below_it(first: int) -> None:
    """In a tree that no node has, a root may lead to it all the same."""
    leaf, sibling = (bytes([first]) + bytes(31), number(1)), number(2)
    left = (leaf_hash(leaf), sibling) if first else (sibling, leaf_hash(leaf))
    with pytest.raises(ProofError, match="does not belong"):
        verify_prefix(inner_hash(*left), bytes([0 if first else 8]), PrefixProof((sibling,), (leaf,)))
