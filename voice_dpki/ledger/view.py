"""The ledger's state as everyone reads it: one map of leaves, all of them in the tree.

A leaf has a key of 32 bytes and a value, deterministic CBOR whose first item names its kind; the tree holds the
value's SHA-256. So the AppHash stands for all that the state machine decides by, and whoever has all leaves has the
state. Certificates themselves are kept beside the tree: H(CERT) names them.
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
    """What was done to a state; None removes."""

    @property
    def leaves(self) -> Mapping[bytes, bytes | None]:
        """Values of changed leaves."""
        ...

    @property
    def certificates(self) -> Mapping[CertDigest, bytes | None]:
        """DER of certificates that came or went."""
        ...

    @property
    def update(self) -> TreeUpdate:
        """Nodes of the tree."""
        ...


class StateView(ABC):
    """The state after some block."""

    chain_id: str
    """Name of the ledger, from its genesis."""

    @abstractmethod
    def node(self, path: bytes) -> bytes | None:
        """Return a stored node of the tree (`voice_dpki.ledger.tree`)."""

    @abstractmethod
    def leaf(self, key: bytes) -> bytes | None:
        """Return the value of a leaf."""

    @abstractmethod
    def certificate(self, digest: CertDigest) -> bytes | None:
        """Return a recorded certificate as DER."""

    def record(self, digest: CertDigest) -> CertRecord | None:
        """Return the record of a certificate."""
        data = self.leaf(digest)
        return None if data is None else CertRecord.parse(data)

    def member(self, organization: str) -> Member | None:
        """Return a member."""
        data = self.leaf(member_key(organization))
        return None if data is None else _member(data)


@lru_cache(1024)
def _member(data: bytes) -> Member:
    return Member.parse(data)


@dataclass
class MemoryState(StateView):
    """A state held in memory: for replays, and as the start of every chain."""

    chain_id: str
    nodes: dict[bytes, bytes] = field(default_factory=dict)
    leaves: dict[bytes, bytes] = field(default_factory=dict)
    certificates: dict[CertDigest, bytes] = field(default_factory=dict)

    def node(self, path: bytes) -> bytes | None:
        """Return a stored node of the tree."""
        return self.nodes.get(path)

    def leaf(self, key: bytes) -> bytes | None:
        """Return the value of a leaf."""
        return self.leaves.get(key)

    def certificate(self, digest: CertDigest) -> bytes | None:
        """Return a recorded certificate as DER."""
        return self.certificates.get(digest)

    def commit(self, changes: Changes) -> None:
        """Take over what a block did."""
        _take(self.nodes, changes.update.nodes)
        _take(self.leaves, changes.leaves)
        _take(self.certificates, changes.certificates)


class Layered(StateView):
    """The state `view` with later changes on top, none of which the view knows of."""

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
        """Return a stored node of the tree."""
        return self.nodes[path] if path in self.nodes else self.view.node(path)

    def leaf(self, key: bytes) -> bytes | None:
        """Return the value of a leaf."""
        return self.leaves[key] if key in self.leaves else self.view.leaf(key)

    def certificate(self, digest: CertDigest) -> bytes | None:
        """Return a recorded certificate as DER."""
        return self.certificates[digest] if digest in self.certificates else self.view.certificate(digest)


def value_hashes(leaves: Mapping[bytes, bytes | None]) -> dict[bytes, bytes | None]:
    """Return the changes to the tree that changed leaves stand for."""
    return {key: None if value is None else hashlib.sha256(value).digest() for key, value in leaves.items()}


_K = TypeVar("_K", bound=bytes)


def _take(into: dict[_K, bytes], changes: Mapping[_K, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            into.pop(key, None)
        else:
            into[key] = value
