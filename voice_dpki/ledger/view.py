"""Read access to the ledger's state: one map of leaves, all of them in the tree.

A leaf has a key of 32 bytes and a value, deterministic CBOR whose first item names its kind. The tree holds the
value's SHA-256. So the AppHash commits to everything that the state machine's decisions depend on, and all leaves
together are the state. The certificates themselves are kept outside the tree, under H(CERT).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, TypeVar

from voice_dpki.ledger.members import Member, member_key
from voice_dpki.ledger.records import CertRecord
from voice_dpki.ledger.tree import TreeUpdate
from voice_dpki.names import CertDigest


class Changes(Protocol):
    """Changes to a state; None removes an entry."""

    @property
    def leaves(self) -> Mapping[bytes, bytes | None]:
        """Values of changed leaves."""
        ...

    @property
    def certificates(self) -> Mapping[CertDigest, bytes | None]:
        """DER of added certificates, None for removed ones."""
        ...

    @property
    def update(self) -> TreeUpdate:
        """The changed nodes of the tree, and its root."""
        ...


class StateView(ABC):
    """The state after some block."""

    chain_id: str
    """Name of the ledger, from its genesis."""

    @abstractmethod
    def node(self, path: bytes) -> bytes | None:
        """Return a stored node of the tree (`voice_dpki.ledger.tree`), or None."""

    @abstractmethod
    def leaf(self, key: bytes) -> bytes | None:
        """Return the value of a leaf, or None."""

    @abstractmethod
    def certificate(self, digest: CertDigest) -> bytes | None:
        """Return a recorded certificate as DER, or None."""

    def record(self, digest: CertDigest) -> CertRecord | None:
        """Return the record of a certificate, or None if it is not recorded."""
        data = self.leaf(digest)
        return None if data is None else CertRecord.parse(data)

    def member(self, organization: str) -> Member | None:
        """Return the member of this name, or None."""
        data = self.leaf(member_key(organization))
        return None if data is None else _member(data)


@lru_cache(1024)
def _member(data: bytes) -> Member:
    return Member.parse(data)


@dataclass
class MemoryState(StateView):
    """A state held in memory, for replays and for the start of every chain."""

    chain_id: str
    nodes: dict[bytes, bytes] = field(default_factory=dict)
    leaves: dict[bytes, bytes] = field(default_factory=dict)
    certificates: dict[CertDigest, bytes] = field(default_factory=dict)

    def node(self, path: bytes) -> bytes | None:
        """Return a stored node of the tree, or None."""
        return self.nodes.get(path)

    def leaf(self, key: bytes) -> bytes | None:
        """Return the value of a leaf, or None."""
        return self.leaves.get(key)

    def certificate(self, digest: CertDigest) -> bytes | None:
        """Return a recorded certificate as DER, or None."""
        return self.certificates.get(digest)

    def commit(self, changes: Changes) -> None:
        """Apply the changes of a block."""
        _take(self.nodes, changes.update.nodes)
        _take(self.leaves, changes.leaves)
        _take(self.certificates, changes.certificates)


class Layered(StateView):
    """The state `view` with later changes on top, which are not made in `view` itself."""

    def __init__(self, view: StateView, *later: Changes) -> None:
        self.view = view
        self.chain_id = view.chain_id
        self.nodes: dict[bytes, bytes | None] = {}
        self.leaves: dict[bytes, bytes | None] = {}
        self.certificates: dict[CertDigest, bytes | None] = {}
        for changes in later:
            self.add(changes)

    def add(self, changes: Changes) -> None:
        """Put the next changes on top."""
        self.nodes.update(changes.update.nodes)
        self.leaves.update(changes.leaves)
        self.certificates.update(changes.certificates)

    def node(self, path: bytes) -> bytes | None:
        """Return a stored node of the tree, or None."""
        return self.nodes[path] if path in self.nodes else self.view.node(path)

    def leaf(self, key: bytes) -> bytes | None:
        """Return the value of a leaf, or None."""
        return self.leaves[key] if key in self.leaves else self.view.leaf(key)

    def certificate(self, digest: CertDigest) -> bytes | None:
        """Return a recorded certificate as DER, or None."""
        return self.certificates[digest] if digest in self.certificates else self.view.certificate(digest)


def value_hashes(leaves: Mapping[bytes, bytes | None]) -> dict[bytes, bytes | None]:
    """Return the changes to the tree that correspond to changed leaves."""
    return {key: None if value is None else hashlib.sha256(value).digest() for key, value in leaves.items()}


_K = TypeVar("_K", bound=bytes)


def _take(into: dict[_K, bytes], changes: Mapping[_K, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            into.pop(key, None)
        else:
            into[key] = value
