"""Proofs: one wire form each, and no change to a proof, key, value or root is overlooked."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.ledger import tree
from voice_dpki.ledger.proof import (
    EMPTY,
    MAX_PROOF_BYTES,
    Proof,
    ProofError,
    inner_hash,
    leaf_hash,
    verify_absence,
    verify_inclusion,
)


def number(seed: int) -> bytes:
    return sha256(seed.to_bytes(4, "big")).digest()


def near(key: bytes, bits: int) -> bytes:
    """A key that shares exactly `bits` bits with `key`."""
    return (int.from_bytes(key, "big") ^ 1 << 255 - bits).to_bytes(32, "big")


BASE = number(1)
LEAVES = {number(seed): number(seed + 500) for seed in range(30)} | {
    near(BASE, bits): number(bits) for bits in (9, 77, 255)
}
NODES = {
    path: data
    for path, data in tree.update(type("No", (), {"node": lambda *_: None})(), LEAVES).nodes.items()
    if data
}


class Nodes:
    def node(self, path: bytes) -> bytes | None:
        return NODES.get(path)


ROOT = tree.root(Nodes())
PRESENT = sorted(LEAVES)
ABSENT = [near(key, bits) for key in PRESENT for bits in (0, 1, 5, 20, 100, 254) if near(key, bits) not in LEAVES]
HASHES = st.binary(min_size=32, max_size=32) | st.just(EMPTY)
PROOFS = st.builds(Proof, st.lists(HASHES, max_size=256).map(tuple), st.none() | st.tuples(HASHES, HASHES))


def check(root: bytes, key: bytes, value: bytes | None, proof: Proof) -> None:
    if value is None:
        verify_absence(root, key, proof)
    else:
        verify_inclusion(root, key, value, proof)


def test_absence_of_both_kinds_is_among_the_samples() -> None:
    ends = {tree.prove(Nodes(), key).leaf is None for key in ABSENT}
    assert ends == {True, False}


@pytest.mark.parametrize("key", [*PRESENT, *ABSENT])
def test_the_wire_form_proves_what_the_tree_holds(key: bytes) -> None:
    wire = tree.prove(Nodes(), key).serialize()
    assert len(wire) <= MAX_PROOF_BYTES
    check(ROOT, key, LEAVES.get(key), Proof.parse(wire))


@given(st.sampled_from([*PRESENT, *ABSENT]), st.data())
def test_no_bit_of_a_proof_can_change(key: bytes, data: st.DataObject) -> None:
    wire = bytearray(tree.prove(Nodes(), key).serialize())
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((MalformedError, ProofError)):
        check(ROOT, key, LEAVES.get(key), Proof.parse(bytes(wire)))


@given(st.sampled_from([*PRESENT, *ABSENT]), st.data())
def test_no_sibling_can_be_added_dropped_or_exchanged(key: bytes, data: st.DataObject) -> None:
    proof = tree.prove(Nodes(), key)
    siblings = list(proof.siblings)
    place = data.draw(st.integers(0, len(siblings) - 1))
    sibling = data.draw(HASHES)
    changed = data.draw(
        st.sampled_from(
            [
                [*siblings[:place], sibling, *siblings[place:]],
                [*siblings, EMPTY],
                siblings[:place] + siblings[place + 1 :],
                siblings[:place],
                [*siblings[:place], sibling, *siblings[place + 1 :]],
            ]
        ).filter(lambda other: other != siblings)
    )
    with pytest.raises(ProofError):
        check(ROOT, key, LEAVES.get(key), Proof(tuple(changed), proof.leaf))


@given(st.sampled_from(PRESENT), st.integers(0, 255))
def test_another_key_value_or_root_is_refused(key: bytes, bit: int) -> None:
    proof, value = tree.prove(Nodes(), key), LEAVES[key]
    for root, other, claimed in [
        (near(ROOT, bit), key, value),
        (ROOT, near(key, bit), value),
        (ROOT, key, near(value, bit)),
    ]:
        with pytest.raises(ProofError):
            verify_inclusion(root, other, claimed, proof)
    with pytest.raises(ProofError, match="present"):
        verify_absence(ROOT, key, proof)


@given(st.sampled_from(ABSENT), HASHES)
def test_an_absent_key_cannot_be_shown_present(key: bytes, value: bytes) -> None:
    proof = tree.prove(Nodes(), key)
    for leaf in (proof.leaf, (key, value)):
        with pytest.raises(ProofError):
            verify_inclusion(ROOT, key, value, Proof(proof.siblings, leaf))


@given(st.sampled_from(PRESENT), st.sampled_from(PRESENT))
def test_a_present_key_cannot_be_hidden_behind_another_leaf(key: bytes, other: bytes) -> None:
    """Nor behind an empty place, nor by a path that stops above it."""
    path = tree.prove(Nodes(), key).siblings
    for siblings, leaf in [
        (tree.prove(Nodes(), other).siblings, (other, LEAVES[other])),
        (path, (other, LEAVES[other])),
        (path, None),
        (path[:-1], None),
        ((), None),
    ]:
        with pytest.raises(ProofError):
            verify_absence(ROOT, key, Proof(siblings, leaf))


def test_a_leaf_beside_the_path_proves_no_absence() -> None:
    """Its hash leads to the root, but along its own path."""
    leaf, sibling = (bytes(32), number(1)), number(2)
    root = inner_hash(leaf_hash(leaf), sibling)
    verify_inclusion(root, bytes(32), number(1), Proof((sibling,), leaf))
    verify_absence(root, near(bytes(32), 1), Proof((sibling,), leaf))
    with pytest.raises(ProofError, match="not on the key's path"):
        verify_absence(root, near(bytes(32), 0), Proof((sibling,), leaf))


@pytest.mark.parametrize("bits", [1, 8, 255])
@pytest.mark.parametrize("first_bit", [0, 1])
def test_another_s_leaf_in_the_key_s_place_proves_no_absence(first_bit: int, bits: int) -> None:
    """A root that says so is of no tree that nodes agree on, whichever of the two keys is the lesser."""
    key = bytes([first_bit << 7]) + bytes(31)
    leaf, siblings = (near(key, 0), number(1)), tuple(number(seed) for seed in range(bits))
    root = leaf_hash(leaf)
    for depth, sibling in reversed([*enumerate(siblings)]):
        root = inner_hash(sibling, root) if depth == 0 and first_bit else inner_hash(root, sibling)
    with pytest.raises(ProofError, match="not on the key's path"):
        verify_absence(root, key, Proof(siblings, leaf))


def test_nothing_is_in_the_empty_tree() -> None:
    verify_absence(EMPTY, BASE, Proof((), None))
    with pytest.raises(ProofError):
        verify_absence(ROOT, BASE, Proof((), None))


@pytest.mark.parametrize("key", [b"", BASE[:31], BASE + b"\x00"])
def test_keys_of_another_size_are_refused(key: bytes) -> None:
    with pytest.raises(ProofError):
        verify_absence(EMPTY, key, Proof((), None))


def test_more_siblings_than_bits_are_refused() -> None:
    with pytest.raises(ProofError):
        verify_absence(EMPTY, BASE, Proof((EMPTY,) * 257, None))


@given(PROOFS)
def test_wire_form_round_trip(proof: Proof) -> None:
    assert Proof.parse(proof.serialize()) == proof


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda head, tail: head + tail, st.sampled_from([b"\x00\x01\x00", b"\x00\x02\x01"]), st.binary(max_size=140)
    )
)
def test_any_bytes_are_the_one_form_of_a_proof_or_refused(data: bytes) -> None:
    try:
        proof = Proof.parse(data)
    except MalformedError:
        return
    assert proof.serialize() == data


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"\x00\x00\x00x", "trailing byte"),
        (b"\x01\x01\x00" + bytes(33), "257 siblings"),
        (b"\x00\x00\x02", "leaf flag"),
        (b"\x00\x01\x00\x01", "spare bit"),
        (b"\x00\x01\x00\x80" + EMPTY, "EMPTY spelt out"),
        (b"\x00\x01\x00\x80" + bytes(31), "short sibling"),
        (b"\x00", "short head"),
    ],
)
def test_other_spellings_are_refused(wire: bytes, why: str) -> None:
    with pytest.raises(MalformedError):
        Proof.parse(wire)
