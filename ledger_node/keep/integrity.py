"""Checking a store before a node starts on it: a node with a damaged store must not answer or sign."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import lmdb
import lmdb.verify

from ledger_node.keep.store import (
    DATA_FILE,
    Store,
    StoredBlock,
    StoreError,
    StoreView,
    damaged,
    parse_signed_header,
    take_lock,
)
from voice_dpki.errors import VoiceDpkiError
from voice_dpki.ledger import tree
from voice_dpki.ledger.block import NO_EVIDENCE_HASH
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.header import SignedHeader
from voice_dpki.ledger.records import CertRecord
from voice_dpki.ledger.replica import SignedBlock, check_link
from voice_dpki.ledger.view import value_hashes
from voice_dpki.x509.profile import digest_of

QUICK_RECORDS = 10_000
"""Largest number of certificates of which a start checks every one; that takes about a second."""

QUICK_BLOCKS = 500
"""Number of newest blocks that a start checks."""


class _DamageError(VoiceDpkiError):
    """The store is damaged; the message says where."""


def check_store(folder: Path, genesis: Genesis, *, whole: bool) -> str:
    """Check the store in `folder` and return one line that says what was checked.

    A check that is not `whole` covers what a start relies on: the file's structure, the newest header, the newest
    blocks, and the whole content of a small store. Raises StoreError, whose message says what to do, if anything is
    damaged or the store is in use.
    """
    if not (folder / DATA_FILE).exists():
        return "no store yet"
    try:
        with take_lock(folder):
            _check_structure(folder / DATA_FILE)
            with closing(Store(folder, genesis, read_only=True)) as store:
                return _check(store.view, genesis, whole)
    except StoreError:
        raise
    except (VoiceDpkiError, lmdb.Error, ValueError) as error:
        raise damaged(folder, str(error)) from None


def _check_structure(path: Path) -> None:
    """Check every page of the file before LMDB, which trusts them, reads it: about 2 s for each gigabyte."""
    try:
        problems: list[str] = lmdb.verify.verify(str(path), subdir=False)  # type: ignore[no-untyped-call]
    except (lmdb.verify.VerifyError, OSError) as error:
        raise _DamageError(str(error)) from None
    if problems:
        raise _DamageError(problems[0])


def _check(view: StoreView, genesis: Genesis, whole: bool) -> str:
    _check_tip(view, genesis)
    height, records = view.height, view.count(b"certificates")
    held = height + 1 - view.first
    blocks = held if whole else min(held, QUICK_BLOCKS)
    for number in range(height - blocks + 1, height + 1):
        _check_block(view, number)
    if not whole and records > QUICK_RECORDS:
        return f"height {height}: looked at {blocks} blocks and none of {records} certificates"
    _check_content(view)
    return f"height {height}: looked at {blocks} blocks and all {records} certificates"


def _check_tip(view: StoreView, genesis: Genesis) -> None:
    """Check that the newest header proves the stored state."""
    proved = genesis.outcome().app_hash
    if view.tip_json is not None:
        header = _committed(parse_signed_header(view.tip_json)).header
        proved = header.app_hash
        if header.chain_id != genesis.chain_id or header.height - view.height not in (0, 1):
            raise _DamageError("its newest header is of another ledger or height")
    elif view.height and view.height + 1 == view.first:
        return  # just restored from a snapshot: the header that proves it comes with the next block
    elif view.height:
        raise _DamageError("it has no header")
    if tree.root(view) != proved:
        raise _DamageError("its newest header does not prove its state")


def _check_block(view: StoreView, height: int) -> None:
    """Check that a block is complete and linked to the one before; raises a VoiceDpkiError."""
    stored = _block(view, height)
    block = stored.signed_block() if stored.has_evidence else _without_evidence(stored)
    if height == 1 or height > view.first:
        check_link(block, _block(view, height - 1).signed_header() if height > 1 else None)
    _committed(stored.signed_header())


def _without_evidence(stored: StoredBlock) -> SignedBlock:
    """Return the block as if it had no evidence, to check the rest of one that has only the convicts' addresses."""
    signed = stored.signed_header()
    header = replace(signed.header, evidence_hash=NO_EVIDENCE_HASH)
    return SignedBlock(replace(signed, header=header), stored.transactions)


def _block(view: StoreView, height: int) -> StoredBlock:
    block = view.block(height)
    if block is None:
        raise _DamageError(f"block {height} is missing")
    return block


def _committed(signed: SignedHeader) -> SignedHeader:
    if signed.header.hash() != signed.commit.block_id.hash:
        raise _DamageError(f"the header of block {signed.header.height} is not the one that was signed")
    return signed


def _check_content(view: StoreView) -> None:
    """Compute the tree from the leaves and compare it with the stored one; compare certificates with records."""
    leaves: dict[bytes, bytes | None] = dict(view.items(b"leaves"))
    nodes = {path[1:]: node for path, node in view.items(b"nodes")}
    if tree.update(_EmptyTree(), value_hashes(leaves)).nodes != nodes:
        raise _DamageError("its tree does not follow from its leaves")
    recorded = {key for key, value in leaves.items() if value is not None and CertRecord.is_one(value)}
    certificates = dict(view.items(b"certificates"))
    if certificates.keys() != recorded or any(digest_of(der) != name for name, der in certificates.items()):
        raise _DamageError("its certificates are not those that are recorded")


class _EmptyTree:
    def node(self, path: bytes) -> bytes | None:
        return None
