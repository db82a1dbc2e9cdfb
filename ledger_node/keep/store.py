"""The node's store: tree, records, certificates and blocks in LMDB, one durable transaction for each step.

A step holds blocks, their outcomes and the header that proves the last state. So a reader never sees a state
without its proof, except just after a snapshot was restored, and a kill at any moment leaves the state after one
step or the next.

    nodes         zero byte, then the nibble path           tree node
    leaves        key in the tree                           value of the leaf, CBOR
    certificates  H(CERT)                                   DER
    blocks        height, 8 bytes big-endian                CBOR: StoredBlock
    meta          "format", "genesis"                       FORMAT or FORMAT_WITH_RULES, the genesis's fingerprint
                  "height"                                  the last block's height, 8 bytes; 0 at the genesis
                  "first"                                   the lowest block's, if a snapshot was restored or
                                                            older blocks were removed; else 1
                  "tip"                                     the signed header that proves the state, JSON
                  "validators", then a validator set's hash the set, JSON: every set that the state ever named
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import lmdb
import msgspec

from ledger_node.keep.mapped import Mapped, Reading, Writing
from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.activation import RULES_KEY
from voice_dpki.ledger.evidence import parse_all, serialize_evidence
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.header import ADDRESS_BYTES, Commit, SignedHeader, ValidatorSet
from voice_dpki.ledger.replica import SignedBlock, Step
from voice_dpki.ledger.state import Outcome, StateView
from voice_dpki.ledger.validators import VALIDATORS_KEY, parse_validators
from voice_dpki.names import CertDigest, Height
from voice_dpki.shell.files import lock_file, make_folder

FORMAT = b"voice-dpki ledger store 2"
FORMAT_WITH_RULES = b"voice-dpki ledger store 3"
"""From version 2 of the rules on, so that releases that know version 1 alone leave the store alone."""

DATA_FILE = "ledger.mdb"
UNFINISHED_FILE = "unfinished.mdb"
LOCK_FILE = "node.lock"

_DATABASES = (b"nodes", b"leaves", b"certificates", b"blocks", b"meta")


class StoreError(LocalError):
    """The store is in use, belongs to another ledger, or is damaged; the message says what to do."""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block as stored: [signed header (JSON), [transactions], [result codes], [evidence], ? commit (JSON)]."""

    signed_header_json: bytes
    transactions: tuple[bytes, ...]
    codes: tuple[int, ...]
    evidence: tuple[bytes, ...] = ()
    """Each piece as `voice_dpki.ledger.evidence.serialize_evidence` returns it; but see `has_evidence`."""
    last_commit_json: bytes | None = None
    """The commit for the block before, in the RPC's form, where validators were on probation."""

    @classmethod
    def decode(cls, data: bytes) -> "StoredBlock":
        """Decode the bytes that `encode` returns; raises MalformedError."""
        match cbor.decode(data, "stored block"):
            case [bytes(header), list(transactions), list(codes), list(evidence)]:
                return cls(header, tuple(transactions), tuple(codes), tuple(evidence))
            case [bytes(header), list(transactions), list(codes), list(evidence), bytes(last_commit)]:
                return cls(header, tuple(transactions), tuple(codes), tuple(evidence), last_commit)
        raise MalformedError("stored block: not a header, transactions and codes")

    def encode(self) -> bytes:
        """Encode for the store."""
        last_commit = [] if self.last_commit_json is None else [self.last_commit_json]
        return cbor.encode([self.signed_header_json, self.transactions, self.codes, self.evidence, *last_commit])

    @property
    def has_evidence(self) -> bool:
        """Whether the evidence is here: the first versions stored only the addresses of those that it convicts."""
        return all(len(each) > ADDRESS_BYTES for each in self.evidence)

    def signed_header(self) -> SignedHeader:
        """Parse the signed header; raises MalformedError."""
        return parse_signed_header(self.signed_header_json)

    def signed_block(self) -> SignedBlock:
        """Return the block as nodes exchange it; raises MalformedError, also where its evidence was not stored."""
        given = self.last_commit_json
        last_commit = None if given is None else Commit.from_json(_parse_json(given))
        return SignedBlock(self.signed_header(), self.transactions, parse_all(self.evidence), last_commit)


def parse_signed_header(data: bytes) -> SignedHeader:
    """Parse a signed header's JSON; raises MalformedError."""
    return SignedHeader.from_json(_parse_json(data))


def _parse_json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
        raise MalformedError(f"signed header: {error}") from None


class Blocks(ABC):
    """The stored blocks."""

    @abstractmethod
    def get(self, database: bytes, key: bytes) -> bytes | None:
        """Return an entry of a database as stored, None if there is none."""

    def block(self, height: int) -> StoredBlock | None:
        """Return the block at a height."""
        data = self.get(b"blocks", _height_key(height))
        return None if data is None else StoredBlock.decode(data)

    @property
    def height(self) -> Height:
        """Number of the last block that was executed, 0 before the first."""
        return Height(int.from_bytes(self.get(b"meta", b"height") or b"", "big"))

    @property
    def first(self) -> Height:
        """Lowest block that the store holds, or will hold: 1 unless it began with a snapshot, or removed blocks."""
        return Height(int.from_bytes(self.get(b"meta", b"first") or b"\x01", "big"))


class _WrittenBlocks(Blocks):
    """The blocks as a transaction that is not done yet would leave them."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    def get(self, database: bytes, key: bytes) -> bytes | None:
        return self._writing.get(database, key)


class StoreView(Blocks, StateView):
    """The state within one LMDB transaction; reading raises MovedError (`ledger_node.keep.mapped`)."""

    def __init__(self, chain_id: str, reading: Reading) -> None:
        self.chain_id = chain_id
        self.reading = reading

    def close(self) -> None:
        """End the transaction; the view cannot be read afterwards."""
        self.reading.close()

    def get(self, database: bytes, key: bytes) -> bytes | None:
        """Return an entry of a database as stored, None if there is none."""
        return self.reading.get(database, key)

    def count(self, database: bytes) -> int:
        """Return the number of entries in a database."""
        return self.reading.count(database)

    def node(self, path: bytes) -> bytes | None:
        """Return a stored node of the tree."""
        return self.get(b"nodes", b"\0" + path)

    def leaf(self, key: bytes) -> bytes | None:
        """Return the value of a leaf."""
        return self.get(b"leaves", key)

    def certificate(self, digest: CertDigest) -> bytes | None:
        """Return a recorded certificate as DER."""
        return self.get(b"certificates", digest)

    @property
    def tip_json(self) -> bytes | None:
        """JSON of the signed header that proves this state; None before the first block."""
        return self.get(b"meta", b"tip")

    def validators(self, name: bytes) -> bytes | None:
        """Return the validator set with the hash `name`, as JSON; None if this node's state never named it."""
        return self.get(b"meta", b"validators" + name)

    def items(self, database: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over all entries of a database, in order of their keys."""
        return self.reading.items(database)


def _height_key(height: int) -> bytes:
    return height.to_bytes(8, "big")


class _Writer:
    """Writes entries to the databases within one LMDB transaction."""

    def __init__(self, writing: Writing) -> None:
        self.put = writing.put
        self.change = writing.change

    def put_genesis(self, genesis: Genesis) -> None:
        self.put(b"meta", b"format", FORMAT)
        self.put(b"meta", b"genesis", genesis.fingerprint())
        self.put(b"meta", b"height", _height_key(0))
        self.put_outcome(genesis.outcome())

    def put_block(self, block: SignedBlock, outcome: Outcome) -> None:
        header = msgspec.json.encode(block.signed_header.to_json())
        codes = tuple(result.code for result in outcome.results)
        evidence = tuple(map(serialize_evidence, block.evidence))
        last_commit = None if block.last_commit is None else msgspec.json.encode(block.last_commit.to_json())
        stored = StoredBlock(header, block.transactions, codes, evidence, last_commit)
        self.put(b"blocks", _height_key(block.height), stored.encode())
        self.put(b"meta", b"height", _height_key(block.height))
        self.put_outcome(outcome)

    def put_outcome(self, outcome: Outcome) -> None:
        for path, node in outcome.update.nodes.items():
            self.change(b"nodes", b"\0" + path, node)
        for key, value in outcome.leaves.items():
            self.change(b"leaves", key, value)
        for digest, der in outcome.certificates.items():
            self.change(b"certificates", digest, der)
        if RULES_KEY in outcome.leaves:
            self.put(b"meta", b"format", FORMAT_WITH_RULES)
        if validators := outcome.leaves.get(VALIDATORS_KEY):
            for each in parse_validators(validators):
                self.put_validators(each)

    def put_validators(self, validators: ValidatorSet) -> None:
        """Store a validator set, before any header names it: the state names each set first."""
        self.put(b"meta", b"validators" + validators.hash(), msgspec.json.encode(validators.to_json()))

    def remove_blocks(self, heights: range) -> None:
        """Remove the lowest blocks, which are at `heights`."""
        for height in heights:
            self.change(b"blocks", _height_key(height), None)
        self.put(b"meta", b"first", _height_key(heights.stop))


class RetentionRule(Protocol):
    """What says which blocks to keep (`ledger_node.keep.retention`)."""

    def first(self, blocks: Blocks) -> Height:
        """Return the lowest block to keep, not below the lowest one of `blocks`."""
        ...


class Store:
    """An open store; `view` is the state after the last commit, for the committing thread only."""

    def __init__(
        self, folder: Path, genesis: Genesis, *, read_only: bool = False, retention: RetentionRule | None = None
    ) -> None:
        """Open the store in `folder`; unless `read_only`, lock it, and make it with the genesis state if missing.

        Each commit removes the blocks that `retention` does not keep; without one, all blocks stay.

        Raises StoreError if the store is in use by another process, of another format or genesis, or unreadable.
        """
        self._folder = folder
        self._genesis = genesis
        self.retention = retention
        with ExitStack() as opened:
            if not read_only:
                opened.enter_context(take_lock(folder))
                _make_if_missing(folder, genesis)
            try:
                self._mapped = opened.enter_context(
                    closing(Mapped(folder / DATA_FILE, _DATABASES, read_only=read_only))
                )
                self.view = StoreView(genesis.chain_id, self._mapped.read())
            except lmdb.Error as error:
                raise damaged(folder, str(error)) from None
            opened.callback(self.view.close)
            self._check_identity()
            self._opened = opened.pop_all()
        self.height = self.view.height

    @contextmanager
    def snapshot(self) -> Iterator[StoreView]:
        """Yield the state after the last commit, which does not change while the context lasts."""
        with closing(StoreView(self._genesis.chain_id, self._mapped.read())) as view:
            yield view

    def commit(self, step: Step) -> None:
        """Store a step durably before returning; if it raises StoreError, nothing of the step is stored."""
        tip = msgspec.json.encode(step.tip.to_json())

        def write(writing: Writing) -> None:
            writer = _Writer(writing)
            for executed in step.executed:
                writer.put_block(executed.block, executed.outcome)
            writer.put(b"meta", b"tip", tip)
            self._prune(writer, _WrittenBlocks(writing))

        self._write("a block", write)

    def _prune(self, writer: _Writer, blocks: Blocks) -> None:
        if self.retention is None:
            return
        first, keep = blocks.first, self.retention.first(blocks)
        if keep > first:
            writer.remove_blocks(range(first, keep))

    def restore(self, height: Height, outcome: Outcome) -> None:
        """Store the whole state after block `height` durably, in place of the genesis state.

        Until a step brings the header that proves it, no inquiry can be answered. Raises StoreError if the store
        has blocks already, or cannot be written.
        """
        if self.height:
            raise StoreError(f"{self._folder}: a snapshot can only be restored into a store without blocks")

        def write(writing: Writing) -> None:
            for name in (b"nodes", b"leaves", b"certificates"):
                writing.empty(name)
            writer = _Writer(writing)
            writer.put(b"meta", b"height", _height_key(height))
            writer.put(b"meta", b"first", _height_key(height + 1))
            writer.put_outcome(outcome)

        self._write("a snapshot", write)

    def close(self) -> None:
        """Close the store and release its lock."""
        self._opened.close()

    def _write(self, what: str, work: Callable[[Writing], None]) -> None:
        """Do `work` in a transaction that is durable afterwards; if it raises StoreError, nothing is stored."""
        try:
            self._mapped.write(work)
        except lmdb.Error as error:
            raise StoreError(
                f"{self._folder}: {what} could not be stored: {error}. Make room on the disk and start again"
            ) from None
        self._mapped.renew(self.view.reading)
        self.height = self.view.height

    def _check_identity(self) -> None:
        found = self.view.get(b"meta", b"format")
        if found is None:
            raise damaged(self._folder, "it does not say which format it has")
        if found not in (FORMAT, FORMAT_WITH_RULES):
            raise StoreError(
                f"{self._folder}: the store has another format than this version's, which is "
                f'"{FORMAT.decode()}": {found[:64].decode(errors="replace")!a}. It is left as it is: go on with '
                "the version that wrote it, or treat this as a lost disk (docs/backup.md), and a following node or "
                "a validator fetches everything again"
            )
        if self.view.get(b"meta", b"genesis") != self._genesis.fingerprint():
            raise StoreError(
                f"{self._folder}: this store was made for another genesis than the one configured; "
                "configure that genesis, or another data_dir"
            )


def damaged(folder: Path, what: str) -> StoreError:
    """Return the error for a damaged store; its message says what to do."""
    return StoreError(
        f"{folder}: the store is damaged: {what}. Move this folder away, then: a node that follows starts on an "
        "empty one, or on a backup by `ledger-node restore`; an engine needs the newest backup of a node that "
        "follows it; with [cometbft] move the `data` in its `home` away as well, and run `ledger-node restore "
        "--peer URL`, so that nothing is signed twice (docs/backup.md)"
    )


def _make_if_missing(folder: Path, genesis: Genesis) -> None:
    """Make a store with the genesis state, under another name until it is complete."""
    if (folder / DATA_FILE).exists():
        return
    unfinished = folder / UNFINISHED_FILE
    unfinished.unlink(missing_ok=True)
    try:
        with closing(Mapped(unfinished, _DATABASES, make=True)) as mapped:
            mapped.write(lambda writing: _Writer(writing).put_genesis(genesis))
    except lmdb.Error as error:
        raise StoreError(f"{folder}: cannot make a store here: {error}") from None
    unfinished.rename(folder / DATA_FILE)
    _sync(folder)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_lock(folder: Path) -> IO[bytes]:
    """Lock the store in `folder`, made if missing, until the result is closed; raises StoreError if in use."""
    try:
        make_folder(folder, 0o700)
        return lock_file(folder / LOCK_FILE, folder, "another ledger-node is running on this store; stop it first")
    except LocalError as error:
        raise StoreError(str(error)) from None
