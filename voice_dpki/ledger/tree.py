"""Compact sparse Merkle tree: the ledger's content under one root hash, with proofs of presence and of absence.

Keys and value hashes have 32 bytes each. The tree is binary over the bits of the key, most significant first. Its
root depends only on its leaves, never on the order of the changes:

    no leaf in a subtree          EMPTY = 32 zero bytes
    exactly one leaf              SHA-256(00 ‖ key ‖ value hash), independent of its place in the subtree
    two leaves or more            SHA-256(01 ‖ left ‖ right), over the halves split by the next bit

It is stored with radix 16: one node for each nibble path with two or more leaves below it, and one for the root as
soon as there is a leaf. A node is stored under its path and describes its 16 slots:

    2   mask of the slots that hold a lone leaf, big-endian, bit i for slot i
    2   mask of the slots with a node of their own
    for each marked slot, in order: 64 bytes key and value hash, or the 32 bytes hash of the node

Only the current tree is kept: an update replaces the nodes on the paths to its changes. Everything here is a pure
function of what the NodeReader returns. The design follows the Jellyfish Merkle tree (Gao, Hu, Wu, 2021).

docs/spec/encodings.md#nodes-of-the-tree specifies it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeAlias

from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.proof import (
    EMPTY,
    HASH_BYTES,
    Leaf,
    PrefixProof,
    Proof,
    ProofError,
    inner_hash,
    leaf_hash,
)

RADIX = 16
_NO_SLOTS = bytes(4)
_NOTHING: "list[Slot]" = [None] * RADIX

Slot: TypeAlias = Leaf | bytes | None
"""Content of a subtree: nothing, a lone leaf, or two or more leaves under this hash."""

Change: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value hash; None deletes the leaf."""


class NodeReader(Protocol):
    """The stored nodes of a tree."""

    def node(self, path: bytes) -> bytes | None:
        """Return the node stored under a nibble path (a byte for each nibble, empty for the root), or None."""
        ...


@dataclass(frozen=True, slots=True)
class TreeUpdate:
    """The effect of changes on a tree: its new root hash, and the nodes to store (None = remove)."""

    root: bytes
    nodes: dict[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between two trees.

    It holds the later tree's value hashes of the leaves that differ (None = gone), and the earlier tree's nodes on
    the paths to these leaves.
    """

    changes: dict[bytes, bytes | None]
    nodes: dict[bytes, bytes]


class TreeStoreError(LocalError):
    """The stored nodes are damaged: one is missing or malformed."""


class TooManyLeavesError(PeerError):
    """More leaves have the prefix than the limit allows."""


def root(reader: NodeReader) -> bytes:
    """Return the hash of the whole tree, EMPTY if it has no leaf."""
    return _digest(_reduce(_load(reader, b"")))


def update(reader: NodeReader, changes: Mapping[bytes, bytes | None]) -> TreeUpdate:
    """Compute the tree after `changes` (key to value hash, None = delete); nothing is written.

    Deleting an absent key changes nothing. Raises ValueError if a key or a value hash does not have 32 bytes.
    """
    if any(len(each) != HASH_BYTES for change in changes.items() for each in change if each is not None):
        raise ValueError(f"keys and value hashes have {HASH_BYTES} bytes")
    nodes: dict[bytes, bytes | None] = {}
    top = _Update(reader, nodes).change_node(b"", _load(reader, b""), sorted(changes.items()))
    return TreeUpdate(_digest(top), nodes)


def get(reader: NodeReader, key: bytes) -> bytes | None:
    """Return the value hash of `key`, or None if the tree does not hold it."""
    path, slots = b"", _load(reader, b"")
    while isinstance(slot := slots[nibble := _nibble(key, len(path))], bytes):
        path += bytes((nibble,))
        slots = _load(reader, path)
    return slot[1] if slot is not None and slot[0] == key else None


def prove(reader: NodeReader, key: bytes) -> Proof:
    """Prove what the tree holds for `key`: the path ends at the key's leaf if it is present, elsewhere if not."""
    siblings: list[bytes] = []
    path = b""
    while True:
        nibble = _nibble(key, len(path))
        look_up = _hot_levels if len(path) < _HOT_DEPTH else _levels_of
        for above, level in enumerate(look_up(path, _read(reader, path))):
            place = nibble >> 4 - above
            if above:
                siblings.append(_digest(level[place ^ 1]))
            if not isinstance(slot := level[place], bytes):
                return Proof(tuple(siblings), slot)
        path += bytes((nibble,))


def prove_prefix(reader: NodeReader, prefix: bytes, limit: int) -> PrefixProof:
    """Prove which leaves have a key that begins with the nibbles `prefix` (one byte for each nibble).

    Raises TooManyLeavesError if there are more than `limit`.
    """
    siblings: list[bytes] = []
    for depth, nibble in enumerate(prefix):
        path = prefix[:depth]
        for above, level in enumerate(_levels_of(path, _read(reader, path))):
            place = nibble >> 4 - above
            if above:
                siblings.append(_digest(level[place ^ 1]))
            if not isinstance(slot := level[place], bytes):
                return PrefixProof(tuple(siblings), () if slot is None else (slot,))
    return PrefixProof(tuple(siblings), tuple(_collect(reader, prefix, limit)))


def diff(before: NodeReader, after: NodeReader) -> Difference:
    """Return the difference between two trees, reading only nodes on the paths to it."""
    found = Difference({}, {})
    _Diff(before, after, found).compare(b"", _load(before, b""), _load(after, b""))
    if found.changes and (top := before.node(b"")) is not None:
        found.nodes[b""] = top
    return found


def follow(root_before: bytes, difference: Difference) -> bytes:
    """Return the root of the tree that differs from the one with `root_before` in the leaves of `difference` only.

    If this equals the root of another known tree, every leaf that `difference` does not name is the same in both.
    Raises ProofError if its nodes are not those of the tree with `root_before`, or are not sufficient.
    """
    if not difference.changes:
        return root_before
    try:
        _check_nodes(root_before, difference.nodes)
        return update(_Given(difference.nodes), difference.changes).root
    except (TreeStoreError, ValueError) as error:
        raise ProofError(f"the nodes do not show the difference: {error}") from None


class _Given:
    """A reader of the nodes in a difference."""

    def __init__(self, nodes: Mapping[bytes, bytes]) -> None:
        self._nodes = nodes

    def node(self, path: bytes) -> bytes | None:
        return self._nodes.get(path)


def _check_nodes(top: bytes, nodes: Mapping[bytes, bytes]) -> None:
    """Check that each node has the hash that its parent holds for it, and that its lone leaves are in their slots.

    The slots need a check of their own, because a lone leaf's hash does not depend on its slot. Raises ProofError.
    """
    slots_of: dict[bytes, list[Slot]] = {}
    for path in sorted(nodes, key=len):
        slots = slots_of[path] = _decode(path, nodes[path])
        above = slots_of.get(path[:-1], _NOTHING)[path[-1]] if path else top
        below = _reduce(slots) if path else _digest(_reduce(slots))
        if not isinstance(below, bytes) or below != above:
            raise ProofError("a node is not the one that the tree has there")
        for place, slot in enumerate(slots):
            if isinstance(slot, tuple) and _nibbles(slot[0], len(path) + 1) != path + bytes((place,)):
                raise ProofError("a leaf stands in another one's place")
    if b"" not in nodes and top != EMPTY:
        raise ProofError("the tree's top node is missing")


class _Diff:
    """One run of `diff`: descends in both trees at once."""

    def __init__(self, before: NodeReader, after: NodeReader, found: Difference) -> None:
        self._before = before
        self._after = after
        self._found = found

    def compare(self, path: bytes, old: list[Slot], new: list[Slot]) -> None:
        """Compare the slots of a node in both trees, and add what differs to the difference."""
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            if one == other:
                continue
            below = path + bytes((place,))
            if isinstance(one, bytes) or isinstance(other, bytes):
                if isinstance(one, bytes):
                    self._found.nodes[below] = _read(self._before, below)
                self.compare(below, _open(self._before, below, one), _open(self._after, below, other))
                continue
            if one is not None:
                self._found.changes.setdefault(one[0], None)
            if other is not None:
                self._found.changes[other[0]] = other[1]


def _open(reader: NodeReader, path: bytes, slot: Slot) -> list[Slot]:
    """Return the slots of the node under `path`; those that it would have for a lone leaf or an empty slot."""
    if isinstance(slot, bytes):
        return _load(reader, path)
    slots: list[Slot] = [None] * RADIX
    if slot is not None:
        slots[_nibble(slot[0], len(path))] = slot
    return slots


def _collect(reader: NodeReader, path: bytes, limit: int) -> list[Leaf]:
    """Return all leaves under a node, sorted by key; raises TooManyLeavesError."""
    leaves: list[Leaf] = []
    for place, slot in enumerate(_load(reader, path)):
        if isinstance(slot, bytes):
            leaves += _collect(reader, path + bytes((place,)), limit - len(leaves))
        elif slot is not None:
            leaves.append(slot)
        if len(leaves) > limit:
            raise TooManyLeavesError("more leaves have this prefix than can be proved at once: make it longer")
    return leaves


class _Update:
    """One run of `update`: descends along the changes and collects the nodes to store."""

    def __init__(self, reader: NodeReader, nodes: dict[bytes, bytes | None]) -> None:
        self._reader = reader
        self._nodes = nodes

    def change_node(self, path: bytes, slots: list[Slot], changes: Sequence[Change]) -> Slot:
        """Apply sorted changes below `path` to the node's slots; return the subtree's new content."""
        depth = len(path)
        for nibble, group in groupby(changes, lambda change: _nibble(change[0], depth)):
            slots[nibble] = self._change_slot(path + bytes((nibble,)), slots[nibble], list(group))
        whole = _reduce(slots)
        stored = isinstance(whole, bytes) or (not path and whole is not None)
        self._nodes[path] = _encode(slots) if stored else None
        return whole

    def _change_slot(self, path: bytes, slot: Slot, changes: Sequence[Change]) -> Slot:
        if isinstance(slot, bytes):
            return self.change_node(path, _load(self._reader, path), changes)
        leaves = _merge(slot, changes)
        if len(leaves) > 1:
            return self.change_node(path, [None] * RADIX, leaves)
        return leaves[0] if leaves else None


def _merge(slot: Leaf | None, changes: Iterable[Change]) -> list[Leaf]:
    """Return the sorted leaves that result from changes to a lone leaf or to an empty slot."""
    leaves = dict(changes) if slot is None else {slot[0]: slot[1], **dict(changes)}
    return sorted((key, value) for key, value in leaves.items() if value is not None)


def _join(left: Slot, right: Slot) -> Slot:
    """Join two halves to one subtree: a lone leaf stays a leaf, two or more leaves become a hash."""
    if isinstance(left, bytes) and isinstance(right, bytes):  # most pairs, so tested first for speed
        return inner_hash(left, right)
    if left is None and not isinstance(right, bytes):
        return right
    if right is None and not isinstance(left, bytes):
        return left
    return inner_hash(_digest(left), _digest(right))


def _digest(slot: Slot) -> bytes:
    if slot is None:
        return EMPTY
    return slot if isinstance(slot, bytes) else leaf_hash(slot)


def _levels(slots: list[Slot]) -> list[list[Slot]]:
    """Return the binary levels inside a node, from its top (1 subtree) to its 16 slots."""
    levels = [slots]
    while len(slots) > 1:
        slots = _halve(slots)
        levels.insert(0, slots)
    return levels


def _reduce(slots: list[Slot]) -> Slot:
    while len(slots) > 1:
        slots = _halve(slots)
    return slots[0]


def _halve(slots: list[Slot]) -> list[Slot]:
    """Join neighbours. Most pairs in a deep node are empty, so this is tested first."""
    pairs = zip(slots[::2], slots[1::2], strict=True)
    return [None if left is None and right is None else _join(left, right) for left, right in pairs]


def _levels_of(path: bytes, data: bytes) -> Sequence[Sequence[Slot]]:
    return _levels(_decode(path, data))


_HOT_DEPTH = 4
_hot: dict[bytes, tuple[bytes, Sequence[Sequence[Slot]]]] = {}
"""The 4,369 nodes of the four upper levels, which every proof passes through: by path, the encoding and the levels.

Only the newest form of each is kept, so the cache has at most 15 MB, however long the tree changes.
"""


def _hot_levels(path: bytes, data: bytes) -> Sequence[Sequence[Slot]]:
    """Return the result of `_levels_of`, and keep it for the next proof."""
    known = _hot.get(path)
    if known is not None and known[0] == data:
        return known[1]
    levels = _levels_of(path, data)
    _hot[path] = data, levels
    return levels


def _nibble(key: bytes, at: int) -> int:
    octet = key[at >> 1]
    return octet & 15 if at & 1 else octet >> 4


def _nibbles(key: bytes, count: int) -> bytes:
    return bytes(_nibble(key, at) for at in range(count))


def _load(reader: NodeReader, path: bytes) -> list[Slot]:
    return _decode(path, _read(reader, path))


def _read(reader: NodeReader, path: bytes) -> bytes:
    data = reader.node(path)
    if data is None and path:
        raise TreeStoreError(f"tree: the node at {path.hex()[1::2]!r} is missing")
    return _NO_SLOTS if data is None else data


def _encode(slots: Iterable[Slot]) -> bytes:
    leaves = inner = 0
    parts = [b""]
    for place, slot in enumerate(slots):
        if isinstance(slot, bytes):
            inner |= 1 << place
            parts.append(slot)
        elif slot is not None:
            leaves |= 1 << place
            parts += slot
    parts[0] = leaves.to_bytes(2, "big") + inner.to_bytes(2, "big")
    return b"".join(parts)


def _decode(path: bytes, data: bytes) -> list[Slot]:
    leaves, inner = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
    if len(data) != 4 + 64 * leaves.bit_count() + 32 * inner.bit_count() or leaves & inner:
        raise TreeStoreError(f"tree: the node at {path.hex()[1::2]!r} is damaged")
    slots: list[Slot] = [None] * RADIX
    at = 4
    for place in range(RADIX):
        if leaves >> place & 1:
            slots[place] = (data[at : at + 32], data[at + 32 : at + 64])
            at += 64
        elif inner >> place & 1:
            slots[place] = data[at : at + 32]
            at += 32
    return slots
