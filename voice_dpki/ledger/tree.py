"""Compact sparse Merkle tree: the ledger's content under one root hash, with proofs of presence and of absence.

Keys and value hashes are 32 bytes each. The tree is binary over the bits of the key, most significant first, and
its root depends only on what it maps, never on the order in which that came about:

    no leaf in a subtree          EMPTY = 32 zero bytes
    exactly one leaf              SHA-256(00 ‖ key ‖ value hash), wherever in the subtree it belongs
    two leaves or more            SHA-256(01 ‖ left ‖ right), over the halves split by the next bit

It is stored radix 16: one stored node for each nibble path under which two leaves or more live (and one for the
root as soon as there is a leaf), under that path, with what stands at its 16 slots:

    2   mask of the slots that hold a lone leaf, big-endian, bit i for slot i
    2   mask of the slots with a node of their own
    for each marked slot, in order: 64 bytes key and value hash, or the 32 bytes hash of the node

Only the live tree is kept: an update replaces the nodes on its way. Everything here is a pure function of what the
NodeReader gives; after the design of the Jellyfish Merkle tree (Gao, Hu, Wu, 2021).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
"""What a subtree holds: nothing, a lone leaf, or two leaves or more under this hash."""

Change: TypeAlias = tuple[bytes, bytes | None]
"""Key and its new value hash; None deletes."""


class NodeReader(Protocol):
    """The stored nodes of a tree."""

    def node(self, path: bytes) -> bytes | None:
        """Return the node stored under a nibble path (one byte a nibble, the root's is empty), if there is one."""
        ...


@dataclass(frozen=True, slots=True)
class TreeUpdate:
    """What a set of changes does to a tree: its new root hash, and the nodes to store (None = remove)."""

    root: bytes
    nodes: dict[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Difference:
    """In what two trees differ: the value hashes that leaves have in the later one (None = gone), and those nodes
    of the earlier one that stand on the way to these leaves."""

    changes: dict[bytes, bytes | None]
    nodes: dict[bytes, bytes]


class TreeStoreError(LocalError):
    """The stored nodes are damaged: one is missing or not of the form it must have."""


class TooManyLeavesError(PeerError):
    """More leaves have the prefix than were allowed for."""


def root(reader: NodeReader) -> bytes:
    """Hash of the whole tree, EMPTY if nothing is in it."""
    return _digest(_reduce(_load(reader, b"")))


def update(reader: NodeReader, changes: Mapping[bytes, bytes | None]) -> TreeUpdate:
    """Compute the tree after `changes` (key to value hash, None = delete); nothing is written.

    Deleting an absent key changes nothing. Raises ValueError where a key or a value hash has not 32 bytes.
    """
    if any(len(each) != HASH_BYTES for change in changes.items() for each in change if each is not None):
        raise ValueError(f"keys and value hashes have {HASH_BYTES} bytes")
    nodes: dict[bytes, bytes | None] = {}
    top = _Update(reader, nodes).change_node(b"", _load(reader, b""), sorted(changes.items()))
    return TreeUpdate(_digest(top), nodes)


def get(reader: NodeReader, key: bytes) -> bytes | None:
    """Value hash of `key`, or None where the tree does not hold it."""
    path, slots = b"", _load(reader, b"")
    while isinstance(slot := slots[nibble := _nibble(key, len(path))], bytes):
        path += bytes((nibble,))
        slots = _load(reader, path)
    return slot[1] if slot is not None and slot[0] == key else None


def prove(reader: NodeReader, key: bytes) -> Proof:
    """Prove what the tree holds for `key`: a path that ends at its leaf if present, elsewhere if absent."""
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
    """Prove which leaves have a key that begins with the nibbles `prefix` (one byte a nibble).

    Raises TooManyLeavesError where they are more than `limit`.
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
    """Find in what two trees differ, reading only what lies on the way to the differences."""
    found = Difference({}, {})
    _Diff(before, after, found).compare(b"", _load(before, b""), _load(after, b""))
    if found.changes and (top := before.node(b"")) is not None:
        found.nodes[b""] = top
    return found


def follow(root_before: bytes, difference: Difference) -> bytes:
    """Return the root of the one tree that differs from the tree with `root_before` in these leaves alone.

    If that is the root of a tree known otherwise, every leaf that `difference` does not name is the same in both.
    Raises ProofError where its nodes are not those of the tree with `root_before`, or do not suffice.
    """
    if not difference.changes:
        return root_before
    try:
        _check_nodes(root_before, difference.nodes)
        return update(_Given(difference.nodes), difference.changes).root
    except (TreeStoreError, ValueError) as error:
        raise ProofError(f"the nodes do not show the difference: {error}") from None


class _Given:
    """A reader of the nodes that came with a difference."""

    def __init__(self, nodes: Mapping[bytes, bytes]) -> None:
        self._nodes = nodes

    def node(self, path: bytes) -> bytes | None:
        return self._nodes.get(path)


def _check_nodes(top: bytes, nodes: Mapping[bytes, bytes]) -> None:
    """Each node hashes to what the one above holds at its place, and its lone leaves are where they belong.

    A lone leaf's hash does not depend on its place in the node, so that has to be looked at.
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
        """Compare what stands at the slots of a node."""
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
    """What stands at the slots of the node under `path`, as if a lone leaf had one too."""
    if isinstance(slot, bytes):
        return _load(reader, path)
    slots: list[Slot] = [None] * RADIX
    if slot is not None:
        slots[_nibble(slot[0], len(path))] = slot
    return slots


def _collect(reader: NodeReader, path: bytes, limit: int) -> list[Leaf]:
    """All leaves under a node, by key."""
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
        """Apply sorted changes below `path` to the node's slots; return what its subtree then is."""
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
    """Leaves, sorted, that a lone leaf or nothing turns into."""
    leaves = dict(changes) if slot is None else {slot[0]: slot[1], **dict(changes)}
    return sorted((key, value) for key, value in leaves.items() if value is not None)


def _join(left: Slot, right: Slot) -> Slot:
    """Two halves as one subtree: a lone leaf stays one, two leaves or more become a hash."""
    if isinstance(left, bytes) and isinstance(right, bytes):  # most pairs, and first for speed
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
    """The binary levels inside a node, from its top (1 subtree) to its 16 slots."""
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
    """Join neighbours; most pairs in a node far down are empty, so that is looked at first."""
    pairs = zip(slots[::2], slots[1::2], strict=True)
    return [None if left is None and right is None else _join(left, right) for left, right in pairs]


def _levels_of(path: bytes, data: bytes) -> Sequence[Sequence[Slot]]:
    return _levels(_decode(path, data))


_HOT_DEPTH = 4
_hot_levels = lru_cache(maxsize=6000)(_levels_of)
"""The 4,369 nodes of the four upper levels, which every proof passes through; at most 20 MB."""


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
