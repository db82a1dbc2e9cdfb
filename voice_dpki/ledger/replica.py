"""Replaying a ledger: blocks in order, each checked against its predecessor and against the computed state.

The AppHash after block N is in header N+1. A replica therefore keeps the effects of a block until the next header
confirms them, and returns them with that header, to be stored together. So the stored header always proves the
stored state.

docs/spec/state.md#a-block specifies it.
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.ledger import tree
from voice_dpki.ledger.activation import version_at
from voice_dpki.ledger.block import ExecTxResult, data_hash, results_hash
from voice_dpki.ledger.draft import Block, Outcome
from voice_dpki.ledger.evidence import (
    MAX_EVIDENCE_BYTES,
    Evidence,
    evidence_hash,
    misbehaving,
    parse_all,
    serialize_evidence,
)
from voice_dpki.ledger.header import NO_BLOCK, Commit, Header, SignedHeader
from voice_dpki.ledger.probation import on_probation
from voice_dpki.ledger.state import apply
from voice_dpki.ledger.transactions import MAX_TRANSACTION_BYTES
from voice_dpki.ledger.view import Layered, StateView
from voice_dpki.names import Height

MAX_TRANSACTIONS = 1000
"""Transactions in a block: with one certificate each, a node executes this many in a few hundred milliseconds.

`quotas.MAX_BLOCK_CERTIFICATES` limits a block of batches.
"""

MAX_EVIDENCE = 8192
"""Pieces of evidence in a block: more than fit into MAX_EVIDENCE_BYTES, as two signatures alone have 128 bytes."""


class BlockError(PeerError):
    """A block does not follow from the one before, or its parts do not belong together."""


class DivergenceError(LocalError):
    """The validators agreed on another state than this replica computed, so it must stop."""


@dataclass(frozen=True, slots=True)
class SignedBlock:
    """A block: its header with the commit for it, its transactions, and its evidence of misbehaviour."""

    signed_header: SignedHeader
    transactions: tuple[bytes, ...]
    evidence: tuple[Evidence, ...] = ()
    last_commit: Commit | None = None
    """The commit for the previous block that this one holds; needed while validators are on probation."""

    @property
    def header(self) -> Header:
        """The block's header."""
        return self.signed_header.header

    @property
    def height(self) -> Height:
        """The block's number."""
        return Height(self.header.height)

    def content(self) -> Block:
        """Return the block as the state machine takes it."""
        signers = self.last_commit.signers if self.last_commit else ()
        return Block(
            self.height, self.header.time_ns // 10**9, self.transactions, misbehaving(self.evidence), signers
        )

    def to_json(self) -> dict[str, Any]:
        """Return the form of `GET /ledger/v1/blocks/{height}`."""
        raws = [serialize_evidence(each) for each in self.evidence]
        last_commit = {"last_commit": self.last_commit.to_json()} if self.last_commit else {}
        return {
            "signed_header": self.signed_header.to_json(),
            **content_json(self.transactions, raws),
            **last_commit,
        }

    @classmethod
    def from_json(cls, data: bytes) -> "SignedBlock":
        """Parse the JSON of `to_json` without verifying it; raises MalformedError."""
        try:
            form = msgspec.json.decode(data, type=BlockForm)
            transactions = tuple(base64.b64decode(raw, validate=True) for raw in form.transactions)
            evidence = tuple(base64.b64decode(raw, validate=True) for raw in form.evidence)
        except (ValueError, RecursionError) as error:  # msgspec, base64 and UTF-8 raise ValueErrors
            raise MalformedError(f"block: {error}") from None
        last_commit = None if form.last_commit is None else Commit.from_json(form.last_commit)
        return cls(SignedHeader.from_json(form.signed_header), transactions, parse_all(evidence), last_commit)


def content_json(transactions: Iterable[bytes], evidence: Sequence[bytes]) -> dict[str, list[str]]:
    """Return a block's JSON without the header: items in base64, and evidence only if there is any."""
    forms = {"transactions": [base64.b64encode(raw).decode("ascii") for raw in transactions]}
    if evidence:
        forms["evidence"] = [base64.b64encode(raw).decode("ascii") for raw in evidence]
    return forms


class BlockForm(msgspec.Struct, forbid_unknown_fields=True):
    """A block's JSON."""

    signed_header: dict[str, Any]
    transactions: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=MAX_TRANSACTION_BYTES * 2)], ...],
        msgspec.Meta(max_length=MAX_TRANSACTIONS),
    ]
    evidence: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=MAX_EVIDENCE_BYTES * 2)], ...],
        msgspec.Meta(max_length=MAX_EVIDENCE),
    ] = ()
    last_commit: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Executed:
    """A block and its effects."""

    block: SignedBlock
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Step:
    """Data to store together: blocks in order, and the header that proves the state after them."""

    executed: tuple[Executed, ...]
    tip: SignedHeader

    def then(self, later: "Step") -> "Step":
        """Join two steps, to be stored as one."""
        return Step(self.executed + later.executed, later.tip)


class Replica:
    """Executor of blocks in order. The caller verifies the headers.

    It has no side effects except that it remembers the last block.
    """

    def __init__(self, view: StateView, last: SignedHeader | None, codes: Sequence[int] = ()) -> None:
        """Start from a stored state, the last executed block's header (None: genesis), and its result codes."""
        self._view = view
        self._pending: Executed | None = None
        self.last = last
        self.app_hash = tree.root(view)
        """Root of the tree after the last block: the next header's app_hash."""
        self.codes = tuple(codes)

    @property
    def state(self) -> StateView:
        """The state after the last block."""
        return Layered(self._view, self._pending.outcome) if self._pending else self._view

    @property
    def next_height(self) -> Height:
        """Number of the block to take next."""
        return Height(self.last.header.height + 1 if self.last else 1)

    @property
    def last_results(self) -> list[ExecTxResult]:
        """Results of the last block, as the next header's last_results_hash commits to them."""
        return [ExecTxResult(code) for code in self.codes]

    def take(self, block: SignedBlock, outcome: Outcome | None = None) -> Step:
        """Execute the next block and return the step that the caller must store before the next call.

        A caller that has already executed the block on this replica's state passes the `outcome`.

        Raises BlockError if the block does not follow the last one, DivergenceError if its header does not commit
        to the state that this replica computed, and MissingRulesError if this release lacks its rules. In all cases
        the replica is unchanged.
        """
        check_link(block, self.last)
        self._check_state(block.header)
        if block.last_commit is None and on_probation(self.state):
            raise BlockError("the block lacks the commit for the one before, and validators are on probation")
        this = Executed(block, apply(self.state, block.content()) if outcome is None else outcome)
        executed = (self._pending,) if self._pending else ()
        if this.outcome.app_hash == block.header.app_hash:
            executed, self._pending = (*executed, this), None
        else:
            self._pending = this
        self.last, self.app_hash = block.signed_header, this.outcome.app_hash
        self.codes = tuple(result.code for result in this.outcome.results)
        return Step(executed, block.signed_header)

    def _check_state(self, header: Header) -> None:
        version = version_at(self.state, header.height)
        if header.version_app != version:
            raise DivergenceError(
                f"block {header.height} names version {header.version_app} of the rules, and the state before it "
                f"says {version}: this node's store is damaged, or its software is not that of the validators"
            )
        results = results_hash(self.last_results)
        if header.app_hash != self.app_hash or header.last_results_hash != results:
            raise DivergenceError(
                f"the state after block {header.height - 1} differs from the one that the validators agreed on: "
                "this node's store is damaged, or its software is not theirs"
            )


def check_link(block: SignedBlock, before: SignedHeader | None) -> None:
    """Raise BlockError unless `block` is the successor of `before` and holds what its header commits to."""
    header = block.header
    if header.height != (before.header.height if before else 0) + 1:
        raise BlockError("the block's height is not the next one")
    if header.last_block_id != (before.commit.block_id if before else NO_BLOCK):
        raise BlockError("the block does not name the one before it")
    if header.data_hash != data_hash(block.transactions):
        raise BlockError("the block's transactions are not those that its header commits to")
    if header.evidence_hash != evidence_hash(block.evidence):
        raise BlockError("the block's evidence of misbehaviour is not the one that its header commits to")
    if block.last_commit is not None and header.last_commit_hash != block.last_commit.hash():
        raise BlockError("the commit for the block before is not the one that the header commits to")
