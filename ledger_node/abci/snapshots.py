"""Snapshots for state sync: the whole state in chunks, so that a new node need not replay the ledger's history.

    chunk    = [* [key, value, DER / null]]                                -- leaves, deterministic CBOR
    metadata = [* SHA-256 of a chunk]                                      -- its SHA-256 is the snapshot's hash

A snapshot is not trusted: each chunk must have the hash in the metadata, and the state assembled from the chunks
must have the AppHash that CometBFT's light client verified. Each snapshot is in a folder named by its height.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ledger_node.abci.abci_pb2 import (
    ApplySnapshotChunk,
    ListSnapshots,
    LoadSnapshotChunk,
    OfferSnapshot,
    Snapshot,
)
from ledger_node.abci.cometbft import KEPT_SNAPSHOTS
from ledger_node.abci.server import Handlers
from ledger_node.keep.store import StoreView
from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger import tree
from voice_dpki.ledger.records import CertRecord
from voice_dpki.ledger.state import MemoryState, Outcome
from voice_dpki.ledger.view import value_hashes
from voice_dpki.names import CertDigest, Height
from voice_dpki.x509.profile import digest_of

FORMAT = 2
CHUNK_BYTES = 1 << 20
"""A chunk ends with the entry that passes this size; CometBFT carries chunks of up to 16 MB."""

MAX_CHUNK_BYTES = 2 * CHUNK_BYTES
"""Largest chunk accepted: the thread that reads it also serves consensus and clients."""

MAX_CHUNKS = 100_000
"""CometBFT's own limit (max_snapshot_chunks)."""

_METADATA = "metadata"


class Snapshots:
    """Takes snapshots and serves them to other nodes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def handlers(self) -> Handlers:
        """The methods of ABCI for a node that has snapshots."""
        return {"list_snapshots": self.list_snapshots, "load_snapshot_chunk": self.load_snapshot_chunk}

    def take(self, view: StoreView) -> None:
        """Write a snapshot of the state in `view`, and remove all but the newest KEPT_SNAPSHOTS; raises OSError."""
        unfinished = self._folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        hashes: list[Cbor] = []
        for number, chunk in enumerate(_chunks(view)):
            (unfinished / str(number)).write_bytes(chunk)
            hashes.append(hashlib.sha256(chunk).digest())
        (unfinished / _METADATA).write_bytes(cbor.encode(hashes))
        shutil.rmtree(self._folder / str(view.height), ignore_errors=True)
        unfinished.rename(self._folder / str(view.height))
        for old in self._heights()[:-KEPT_SNAPSHOTS]:
            shutil.rmtree(self._folder / str(old))

    def list_snapshots(self, _: ListSnapshots.Request) -> ListSnapshots.Response:
        """Return a description of each snapshot."""
        return ListSnapshots.Response(snapshots=[self._describe(height) for height in self._heights()])

    def load_snapshot_chunk(self, request: LoadSnapshotChunk.Request) -> LoadSnapshotChunk.Response:
        """Return a chunk of a snapshot; an empty one where the snapshot is gone or of another format."""
        try:
            chunk = (self._folder / str(request.height) / str(request.chunk)).read_bytes()
        except OSError:
            chunk = b""
        return LoadSnapshotChunk.Response(chunk=chunk if request.format == FORMAT else b"")

    def _heights(self) -> list[int]:
        return sorted(int(path.name) for path in self._folder.glob("[0-9]*"))

    def _describe(self, height: int) -> Snapshot:
        metadata = (self._folder / str(height) / _METADATA).read_bytes()
        chunks = len(_hashes(metadata))
        digest = hashlib.sha256(metadata).digest()
        return Snapshot(height=height, format=FORMAT, chunks=chunks, hash=digest, metadata=metadata)


class Restoration:
    """Assembles a state from another node's snapshot, and passes it to `restored` once it is verified."""

    def __init__(self, chain_id: str, restored: Callable[[Height, Outcome], None]) -> None:
        self._chain_id = chain_id
        self._restored = restored
        self._height = Height(0)
        self._app_hash = b""
        self._hashes: list[bytes] = []
        self._state = MemoryState(chain_id)
        self.progress = (0, 0)
        """How many snapshots were offered, and how many good chunks of them came."""

    @property
    def handlers(self) -> Handlers:
        """The methods of ABCI for a node that has no state yet."""
        return {"offer_snapshot": self.offer_snapshot, "apply_snapshot_chunk": self.apply_snapshot_chunk}

    def offer_snapshot(self, request: OfferSnapshot.Request) -> OfferSnapshot.Response:
        """Accept a snapshot whose description is consistent, and start with an empty state."""
        snapshot = request.snapshot
        self.progress = (self.progress[0] + 1, self.progress[1])
        if snapshot.format != FORMAT:
            return OfferSnapshot.Response(verdict=OfferSnapshot.REJECT_FORMAT)
        try:
            self._hashes = _hashes(snapshot.metadata)
        except MalformedError:
            return OfferSnapshot.Response(verdict=OfferSnapshot.REJECT)
        if len(self._hashes) != snapshot.chunks or hashlib.sha256(snapshot.metadata).digest() != snapshot.hash:
            return OfferSnapshot.Response(verdict=OfferSnapshot.REJECT)
        self._height, self._app_hash = Height(snapshot.height), request.app_hash
        self._state = MemoryState(self._chain_id)
        return OfferSnapshot.Response(verdict=OfferSnapshot.ACCEPT)

    def apply_snapshot_chunk(self, request: ApplySnapshotChunk.Request) -> ApplySnapshotChunk.Response:
        """Read a chunk; after the last one, verify the state and hand it over."""
        if len(request.chunk) > MAX_CHUNK_BYTES:
            return ApplySnapshotChunk.Response(verdict=ApplySnapshotChunk.REJECT_SNAPSHOT)
        expected = self._hashes[request.index] if request.index < len(self._hashes) else None
        if hashlib.sha256(request.chunk).digest() != expected:
            return ApplySnapshotChunk.Response(
                verdict=ApplySnapshotChunk.RETRY,
                refetch_chunks=[request.index],
                reject_senders=[request.sender] if request.sender else [],
            )
        try:
            _read_chunk(request.chunk, self._state)
        except MalformedError:
            return ApplySnapshotChunk.Response(verdict=ApplySnapshotChunk.REJECT_SNAPSHOT)
        self.progress = (self.progress[0], self.progress[1] + 1)
        if request.index + 1 < len(self._hashes):
            return ApplySnapshotChunk.Response(verdict=ApplySnapshotChunk.ACCEPT)
        return self._finish()

    def _finish(self) -> ApplySnapshotChunk.Response:
        state = self._state
        update = tree.update(state, value_hashes(state.leaves))
        if update.root != self._app_hash:
            return ApplySnapshotChunk.Response(verdict=ApplySnapshotChunk.REJECT_SNAPSHOT)
        outcome = Outcome((), state.leaves, state.certificates, update)
        self._restored(self._height, outcome)
        self._state = MemoryState(self._chain_id)
        return ApplySnapshotChunk.Response(verdict=ApplySnapshotChunk.ACCEPT)


def _chunks(view: StoreView) -> Iterator[bytes]:
    """Cut the state into chunks."""
    entries: list[Cbor] = []
    size = 0
    for key, value in view.items(b"leaves"):
        der = view.certificate(CertDigest(key))
        entries.append([key, value, der])
        size += len(key) + len(value) + len(der or b"")
        if size >= CHUNK_BYTES:
            yield cbor.encode(entries)
            entries, size = [], 0
    if entries:
        yield cbor.encode(entries)


def _read_chunk(data: bytes, state: MemoryState) -> None:
    """Add a chunk's content to `state`; raises MalformedError."""
    entries = cbor.decode(data, "snapshot chunk")
    if not isinstance(entries, list):
        raise MalformedError("snapshot chunk: not a list of leaves")
    for entry in entries:
        _read_entry(entry, state)


def _read_entry(entry: Cbor, state: MemoryState) -> None:
    """Read a leaf; a certificate's record must come with the certificate, so that none can be withheld.

    Raises MalformedError.
    """
    match entry:
        case [bytes(key), bytes(value), bytes(der)] if CertRecord.is_one(value) and digest_of(der) == key:
            state.certificates[CertDigest(key)] = der
        case [bytes(key), bytes(value), None] if len(key) == 32 and not CertRecord.is_one(value):
            pass
        case _:
            raise MalformedError("snapshot chunk: an entry is not a leaf with what belongs to it")
    state.leaves[key] = value


def _hashes(metadata: bytes) -> list[bytes]:
    hashes = cbor.decode(metadata, "snapshot metadata")
    if not isinstance(hashes, list) or not 1 <= len(hashes) <= MAX_CHUNKS:
        raise MalformedError("snapshot metadata: not a list of hashes")
    return [_bytes(item) for item in hashes]


def _bytes(item: Cbor) -> bytes:
    if not isinstance(item, bytes):
        raise MalformedError("snapshot: not a byte string where one belongs")
    return item
