"""Proofs that a key is, or is not, in the ledger's tree: their wire form and their verification.

A proof is the path from the root towards the key in the binary tree that `tree` describes: the hashes beside the
path, and the leaf at which the path ends, if it ends at one. A verifier needs nothing but a trusted root hash.

Wire form, in bytes:

    2   n, the number of siblings, 0 to 256, big-endian
    1   1 if the path ends at a leaf, 0 if it ends at an empty place
    64  key and value hash of that leaf, only if it ends at one
    (n + 7) // 8   one bit a sibling from the root down, most significant bit first: 1 = given below, 0 = EMPTY
    32 each        the siblings that are not EMPTY, from the root down

Each proof has exactly one wire form: spare bits are 0, and an EMPTY sibling is never written out.

docs/spec/answers.md#tree-proofs specifies it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError, PeerError

HASH_BYTES = 32
KEY_BITS = 256

EMPTY = bytes(HASH_BYTES)
"""Hash of a subtree without a leaf."""

MAX_PROOF_BYTES = 2 + 1 + 2 * HASH_BYTES + KEY_BITS // 8 + KEY_BITS * HASH_BYTES

Leaf: TypeAlias = tuple[bytes, bytes]
"""Key and value hash, 32 bytes each."""


class ProofError(PeerError):
    """A proof does not show what it should."""


def leaf_hash(leaf: Leaf) -> bytes:
    """Return the hash of a subtree with exactly one leaf: SHA-256(00 ‖ key ‖ value hash)."""
    return sha256(b"\x00" + leaf[0] + leaf[1]).digest()


def inner_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a subtree with two or more leaves: SHA-256(01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Proof:
    """The hashes beside a path, from the root down, and the leaf at its end (None = an empty place)."""

    siblings: tuple[bytes, ...]
    leaf: Leaf | None

    def serialize(self) -> bytes:
        """Encode in the wire form of this module."""
        given = [sibling != EMPTY for sibling in self.siblings]
        return b"".join(
            (
                len(given).to_bytes(2, "big"),
                bytes([self.leaf is not None]),
                b"".join(self.leaf or ()),
                _pack(given),
                *(sibling for sibling in self.siblings if sibling != EMPTY),
            )
        )

    @classmethod
    def parse(cls, data: bytes) -> "Proof":
        """Decode the wire form; raises MalformedError on anything but the one encoding of a proof."""
        cursor = Cursor(data, "proof")
        count, ends_at_leaf = cursor.uint(2), cursor.uint(1)
        if count > KEY_BITS or ends_at_leaf > 1:
            raise MalformedError(f"proof: at most {KEY_BITS} siblings and a leaf flag of 0 or 1")
        leaf = (cursor.take(HASH_BYTES), cursor.take(HASH_BYTES)) if ends_at_leaf else None
        given = _unpack(cursor.take((count + 7) // 8), count)
        siblings = tuple(cursor.take(HASH_BYTES) if bit else EMPTY for bit in given)
        cursor.finish()
        proof = cls(siblings, leaf)
        if proof.serialize() != data:
            raise MalformedError("proof: not in its one encoding (spare bits set, or an EMPTY sibling spelt out)")
        return proof


def verify_inclusion(root: bytes, key: bytes, value_hash: bytes, proof: Proof) -> None:
    """Check that the tree with this root maps `key` to `value_hash`.

    Raises ProofError otherwise, also if the proof shows that the key is absent.
    """
    if proof.leaf != (key, value_hash):
        raise ProofError("the proof does not end at the leaf in question")
    _check_root(root, key, proof)


def verify_absence(root: bytes, key: bytes, proof: Proof) -> None:
    """Check that the tree with this root does not hold `key`; raises ProofError otherwise.

    The path of an absent key ends at an empty place, or at another key's leaf that is the only one in the subtree
    to which the absent key belongs.
    """
    if proof.leaf is not None:
        depth = len(proof.siblings)
        if proof.leaf[0] == key:
            raise ProofError("the proof ends at the key's own leaf: the key is present")
        if _prefix(proof.leaf[0], depth) != _prefix(key, depth):
            raise ProofError("the proof ends at a leaf that is not on the key's path")
    _check_root(root, key, proof)


@dataclass(frozen=True, slots=True)
class PrefixProof:
    """A proof of all leaves with a prefix: the hashes beside the path to it, from the root down, and these leaves.

    The path ends above the prefix as soon as at most one leaf is left. That leaf may have another prefix.
    """

    siblings: tuple[bytes, ...]
    leaves: tuple[Leaf, ...]
    """Sorted by key."""


def verify_prefix(root: bytes, prefix: bytes, proof: PrefixProof) -> dict[bytes, bytes]:
    """Return all leaves, key to value hash, of the tree with this root whose keys begin with the nibbles `prefix`.

    Raises ProofError if the proof does not show that these are all.
    """
    depth, keys = len(proof.siblings), [key for key, _ in proof.leaves]
    if depth > 4 * len(prefix) or any(nibble > 15 for nibble in prefix) or len(prefix) > KEY_BITS // 4:
        raise ProofError("the path is longer than the prefix, or the prefix is none")
    if depth < 4 * len(prefix) and len(keys) > 1:
        raise ProofError("the path ends above the prefix, though there is more than one leaf")
    wanted = int(prefix.hex()[1::2] or "0", 16)
    path = wanted >> 4 * len(prefix) - depth
    if any(len(key) != HASH_BYTES or _prefix(key, depth) != path for key in keys) or keys != sorted(set(keys)):
        raise ProofError("a leaf does not belong below the path, or leaves are out of order")
    if _fold(_subtree(proof.leaves, depth), path, proof.siblings) != root:
        raise ProofError("the proof does not lead to the root")
    return {key: value for key, value in proof.leaves if _prefix(key, 4 * len(prefix)) == wanted}


def _subtree(leaves: Sequence[Leaf], depth: int) -> bytes:
    """Return the hash of the subtree at `depth` (bits) that has exactly these leaves, which are sorted by key."""
    if len(leaves) < 2:
        return leaf_hash(leaves[0]) if leaves else EMPTY
    split = bisect_left(leaves, 1, key=lambda leaf: _prefix(leaf[0], depth + 1) & 1)
    return inner_hash(_subtree(leaves[:split], depth + 1), _subtree(leaves[split:], depth + 1))


def _fold(digest: bytes, path: int, siblings: Sequence[bytes]) -> bytes:
    """Return the root hash above `digest` at the end of a path; `path` has one bit for each sibling."""
    for sibling in reversed(siblings):
        digest = inner_hash(sibling, digest) if path & 1 else inner_hash(digest, sibling)
        path >>= 1
    return digest


def _check_root(root: bytes, key: bytes, proof: Proof) -> None:
    if len(key) != HASH_BYTES or len(proof.siblings) > KEY_BITS:
        raise ProofError(f"keys have {KEY_BITS} bits, and paths at most as many siblings")
    digest = EMPTY if proof.leaf is None else leaf_hash(proof.leaf)
    if _fold(digest, _prefix(key, len(proof.siblings)), proof.siblings) != root:
        raise ProofError("the proof does not lead to the root")


def _prefix(key: bytes, bits: int) -> int:
    return int.from_bytes(key, "big") >> KEY_BITS - bits


def _pack(flags: Sequence[bool]) -> bytes:
    size = (len(flags) + 7) // 8
    bits = sum(1 << 8 * size - 1 - place for place, flag in enumerate(flags) if flag)
    return bits.to_bytes(size, "big")


def _unpack(packed: bytes, count: int) -> list[bool]:
    return [bool(packed[place // 8] & 0x80 >> place % 8) for place in range(count)]
