"""Building blocks in CometBFT's form, for the embedded engine, which orders transactions in one process.

`NextBlock` derives every hash of a header from the block's content, cuts the block into parts as CometBFT does, and
has the validators sign the commit. One thing differs from a chain made by CometBFT: the engine sets the block's
time by its own clock and does not take the median of the last commit's times. An empty block, made only to show
freshness, therefore has the present time. Light clients do not check CometBFT's rule.

docs/spec/answers.md#headers specifies it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TypeAlias

from voice_dpki.codec.protowire import bytes_field, message_field, varint_field
from voice_dpki.ledger.evidence import Evidence, evidence_hash, serialize_evidence
from voice_dpki.ledger.header import (
    ABSENT,
    NO_BLOCK,
    NO_COMMIT,
    BlockId,
    BlockIdFlag,
    Commit,
    CommitSig,
    Header,
    PartSetHeader,
    SignedHeader,
    ValidatorSet,
    canonical_vote,
    merkle_root,
)

PART_BYTES = 65_536
"""Size of a block's parts (CometBFT types/params.go, BlockPartSizeBytes)."""

SignFunction: TypeAlias = Callable[[bytes], bytes]
"""Signs bytes with one validator's Ed25519 key; the signature has 64 bytes (RFC 8032 §5.1)."""


@dataclass(frozen=True, slots=True)
class ExecTxResult:
    """The part of a transaction's result on which all nodes must agree."""

    code: int
    data: bytes = b""
    gas_wanted: int = 0
    gas_used: int = 0

    def encode(self) -> bytes:
        """Encode as tendermint.abci.ExecTxResult, with its deterministic fields only."""
        return b"".join(
            (
                varint_field(1, self.code),
                bytes_field(2, self.data),
                varint_field(5, self.gas_wanted),
                varint_field(6, self.gas_used),
            )
        )


def data_hash(transactions: Iterable[bytes]) -> bytes:
    """Return the Merkle root over the SHA-256 of each transaction."""
    return merkle_root([sha256(transaction).digest() for transaction in transactions])


def results_hash(results: Iterable[ExecTxResult]) -> bytes:
    """Return the Merkle root over the results; `last_results_hash` of the next header."""
    return merkle_root([result.encode() for result in results])


def consensus_hash(max_bytes: int, max_gas: int) -> bytes:
    """Return the SHA-256 of tendermint.types.HashedParams: the block limits of the consensus parameters."""
    return sha256(varint_field(1, max_bytes) + varint_field(2, max_gas)).digest()


DEFAULT_CONSENSUS_HASH = consensus_hash(22_020_096, -1)
"""Hash of the block limits that `cometbft init` writes into a genesis."""

NO_EVIDENCE_HASH = evidence_hash([])


def part_set_header(block: bytes) -> PartSetHeader:
    """Cut an encoded block into parts of 64 KiB and hash them."""
    parts = [block[start : start + PART_BYTES] for start in range(0, len(block), PART_BYTES)]
    return PartSetHeader(len(parts), merkle_root(parts))


def sign_commit(
    header: Header,
    block_id: BlockId,
    validators: ValidatorSet,
    signers: Mapping[bytes, SignFunction],
    time_ns: int,
) -> Commit:
    """Return a commit to a block in round 0; validators whose address `signers` lacks are absent."""
    vote = canonical_vote(header.chain_id, header.height, 0, block_id, time_ns)
    signatures = (
        CommitSig(BlockIdFlag.COMMIT, address, time_ns, signers[address](vote)) if address in signers else ABSENT
        for address in validators.addresses
    )
    return Commit(header.height, 0, block_id, tuple(signatures))


@dataclass(frozen=True, kw_only=True)
class NextBlock:
    """The content of the block to make next, and the header, block id and commit that follow from it.

    `previous` is the block before it, or None for the first block, which has `initial_height`. `last_results` are
    the results of the previous block's transactions, and `app_hash` is the state after them. Proposers take turns
    by height.
    """

    chain_id: str
    previous: SignedHeader | None
    time_ns: int
    transactions: Sequence[bytes]
    app_hash: bytes
    last_results: Sequence[ExecTxResult]
    validators: ValidatorSet
    next_validators: ValidatorSet
    consensus_hash: bytes = DEFAULT_CONSENSUS_HASH
    version_app: int = 1
    initial_height: int = 1
    evidence: Sequence[Evidence] = ()

    @cached_property
    def header(self) -> Header:
        """The block's header."""
        last_commit = self.previous.commit if self.previous else NO_COMMIT
        height = self.previous.header.height + 1 if self.previous else self.initial_height
        proposers = self.validators.addresses
        return Header(
            version_app=self.version_app,
            chain_id=self.chain_id,
            height=height,
            time_ns=self.time_ns,
            last_block_id=last_commit.block_id if self.previous else NO_BLOCK,
            last_commit_hash=last_commit.hash(),
            data_hash=data_hash(self.transactions),
            validators_hash=self.validators.hash(),
            next_validators_hash=self.next_validators.hash(),
            consensus_hash=self.consensus_hash,
            app_hash=self.app_hash,
            last_results_hash=results_hash(self.last_results),
            evidence_hash=evidence_hash(self.evidence),
            proposer_address=proposers[height % len(proposers)],
        )

    def encode(self) -> bytes:
        """Encode as tendermint.types.Block."""
        last_commit = self.previous.commit if self.previous else NO_COMMIT
        return encode_block(self.header, self.transactions, last_commit, self.evidence)

    @cached_property
    def block_id(self) -> BlockId:
        """The header's hash, and the parts of the encoded block."""
        return BlockId(self.header.hash(), part_set_header(self.encode()))

    def seal(self, signers: Mapping[bytes, SignFunction], vote_time_ns: int | None = None) -> SignedHeader:
        """Have the validators sign the block; their votes carry the block's time unless another is given."""
        time_ns = self.time_ns if vote_time_ns is None else vote_time_ns
        commit = sign_commit(self.header, self.block_id, self.validators, signers, time_ns)
        return SignedHeader(self.header, commit)


def encode_block(
    header: Header, transactions: Iterable[bytes], last_commit: Commit, evidence: Iterable[Evidence] = ()
) -> bytes:
    """Encode a tendermint.types.Block."""
    return b"".join(
        (
            message_field(1, header.encode()),
            message_field(2, b"".join(message_field(1, transaction) for transaction in transactions)),
            message_field(3, b"".join(message_field(1, serialize_evidence(each)) for each in evidence)),
            message_field(4, last_commit.encode()),
        )
    )
