"""Evidence of misbehaviour in blocks, in the form in which CometBFT v0.38 hashes it.

A header's evidence_hash is the Merkle root over the encodings of DuplicateVoteEvidence and
LightClientAttackEvidence (types/evidence.go, EvidenceList.Hash). It commits to every byte of them, but not to their
types. Field 2 tells the types apart: it is a message in the first and a number in the second, so neither can pass
for the other.

    tendermint.types.Evidence: 1 DuplicateVoteEvidence | 2 LightClientAttackEvidence
    DuplicateVoteEvidence:     1 Vote, 2 Vote, 3 total power, 4 validator's power, 5 time
    LightClientAttackEvidence: 1 LightBlock, 2 common height, 3 repeated Validator, 4 total power, 5 time
    Vote: 1 kind, 2 height, 3 round, 4 BlockID, 5 time, 6 validator's address, 7 its index, 8 signature,
          9 extension, 10 the extension's signature

docs/spec/encodings.md#evidence specifies it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from voice_dpki.codec.protowire import Message, bytes_field, message_field, varint_field
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.ledger.header import (
    ADDRESS_BYTES,
    NO_BLOCK,
    PUBLIC_KEY_BYTES,
    BlockId,
    PartSetHeader,
    Validator,
    canonical_vote,
    encode_time,
    merkle_root,
)

MAX_EVIDENCE_BYTES = 1024 * 1024
"""Limit for all evidence of a block (consensus_params.evidence.max_bytes of our genesis, CometBFT's default)."""

_NS = 10**9


class EvidenceError(PeerError):
    """A signature that the evidence depends on does not verify."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusVote:
    """A validator's vote. Only kind, height, round, block and time are signed; anybody can set the other fields."""

    kind: int
    height: int
    round: int
    block_id: BlockId
    time_ns: int
    validator_address: bytes
    validator_index: int
    signature: bytes
    extension: bytes = b""
    extension_signature: bytes = b""

    def encode(self) -> bytes:
        """Encode as tendermint.types.Vote."""
        return b"".join(
            (
                varint_field(1, self.kind),
                varint_field(2, self.height),
                varint_field(3, self.round),
                message_field(4, self.block_id.encode()),
                message_field(5, encode_time(self.time_ns)),
                bytes_field(6, self.validator_address),
                varint_field(7, self.validator_index),
                bytes_field(8, self.signature),
                bytes_field(9, self.extension),
                bytes_field(10, self.extension_signature),
            )
        )

    def signed_bytes(self, chain_id: str) -> bytes:
        """Return the bytes that the validator signed."""
        block_id = None if self.block_id == NO_BLOCK else self.block_id
        return canonical_vote(chain_id, self.height, self.round, block_id, self.time_ns, self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateVote:
    """Two votes of one validator for different blocks at the same height, round and stage of consensus."""

    KIND: ClassVar[str] = "DUPLICATE_VOTE"
    FIELD: ClassVar[int] = 1

    vote_a: ConsensusVote
    vote_b: ConsensusVote
    total_power: int
    validator_power: int
    time_ns: int

    @property
    def height(self) -> int:
        """Height of the votes."""
        return self.vote_a.height

    @property
    def misbehaving(self) -> tuple[bytes, ...]:
        """Address of the validator."""
        return (self.vote_a.validator_address,)

    def encode(self) -> bytes:
        """Encode as tendermint.types.DuplicateVoteEvidence, to which evidence_hash commits."""
        return b"".join(
            (
                message_field(1, self.vote_a.encode()),
                message_field(2, self.vote_b.encode()),
                varint_field(3, self.total_power),
                varint_field(4, self.validator_power),
                message_field(5, encode_time(self.time_ns)),
            )
        )

    def verify(self, chain_id: str, public_key: bytes) -> None:
        """Raise EvidenceError unless the validator with this Ed25519 key signed both votes (RFC 8032)."""
        try:
            key = Ed25519PublicKey.from_public_bytes(public_key)
            for vote in (self.vote_a, self.vote_b):
                key.verify(vote.signature, vote.signed_bytes(chain_id))
        except (InvalidSignature, ValueError):  # ValueError: the bytes are no point of the curve
            raise EvidenceError("a vote in the evidence is not signed by the validator that it accuses") from None


@dataclass(frozen=True, slots=True)
class LightClientAttack:
    """A block outside the chain that validators of the chain signed. Only their identity matters here."""

    KIND: ClassVar[str] = "LIGHT_CLIENT_ATTACK"
    FIELD: ClassVar[int] = 2

    content: bytes
    height: int
    """The last height that both histories share."""
    misbehaving: tuple[bytes, ...]
    """Addresses of the validators; empty if CometBFT cannot identify them."""

    def encode(self) -> bytes:
        """Return the tendermint.types.LightClientAttackEvidence as received, to which evidence_hash commits."""
        return self.content


Evidence: TypeAlias = DuplicateVote | LightClientAttack


def serialize_evidence(evidence: Evidence) -> bytes:
    """Encode as tendermint.types.Evidence."""
    return message_field(evidence.FIELD, evidence.encode())


def parse_evidence(data: bytes) -> Evidence:
    """Parse tendermint.types.Evidence, in CometBFT's encoding only, without verifying signatures.

    Raises MalformedError, also for two votes that do not contradict each other.
    """
    sum_ = Message(data, "evidence")
    duplicate, attack = sum_.octets(DuplicateVote.FIELD), sum_.octets(LightClientAttack.FIELD)
    evidence = _duplicate_vote(duplicate) if duplicate else _light_client_attack(attack)
    if serialize_evidence(evidence) != data:
        raise MalformedError("evidence: not encoded as CometBFT does")
    return evidence


def evidence_hash(evidence: Iterable[Evidence]) -> bytes:
    """Return the Merkle root over the pieces of evidence; `evidence_hash` of their block's header."""
    return merkle_root([each.encode() for each in evidence])


def misbehaving(evidence: Iterable[Evidence]) -> tuple[bytes, ...]:
    """Return the addresses of the validators that the evidence convicts, in CometBFT's order."""
    return tuple(address for each in evidence for address in each.misbehaving)


def parse_all(items: Sequence[bytes]) -> tuple[Evidence, ...]:
    """Parse a block's evidence; raises MalformedError, also if it exceeds the limit of a block."""
    if sum(map(len, items)) > MAX_EVIDENCE_BYTES:
        raise MalformedError(f"evidence: more than {MAX_EVIDENCE_BYTES} bytes in a block")
    return tuple(map(parse_evidence, items))


def _duplicate_vote(data: bytes) -> DuplicateVote:
    message = Message(data, "duplicate vote evidence")
    evidence = DuplicateVote(
        vote_a=_vote(message.message(1)),
        vote_b=_vote(message.message(2)),
        total_power=message.integer(3),
        validator_power=message.integer(4),
        time_ns=_time(message.message(5)),
    )
    _check_conflict(evidence.vote_a, evidence.vote_b)
    return evidence


def _check_conflict(one: ConsensusVote, other: ConsensusVote) -> None:
    """Check what CometBFT's VerifyDuplicateVote (evidence/verify.go) can check without that height's validators."""
    if len(one.validator_address) != ADDRESS_BYTES:
        raise MalformedError("duplicate vote evidence: names no validator")
    if _place(one) != _place(other):
        raise MalformedError("duplicate vote evidence: the votes are not of one validator, height, round and kind")
    if one.block_id == other.block_id:
        raise MalformedError("duplicate vote evidence: both votes are for the same block")


def _place(vote: ConsensusVote) -> tuple[bytes, int, int, int]:
    return vote.validator_address, vote.height, vote.round, vote.kind


def _vote(message: Message) -> ConsensusVote:
    block_id = message.message(4)
    parts = block_id.message(2)
    return ConsensusVote(
        kind=message.integer(1),
        height=message.integer(2),
        round=message.integer(3),
        block_id=BlockId(block_id.octets(1), PartSetHeader(parts.integer(1), parts.octets(2))),
        time_ns=_time(message.message(5)),
        validator_address=message.octets(6),
        validator_index=message.integer(7),
        signature=message.octets(8),
        extension=message.octets(9),
        extension_signature=message.octets(10),
    )


def _time(message: Message) -> int:
    return message.integer(1) * _NS + message.integer(2)


def _light_client_attack(data: bytes) -> LightClientAttack:
    message = Message(data, "light client attack evidence")
    height = message.integer(2)
    if height < 1:
        raise MalformedError("light client attack evidence: no common height")
    return LightClientAttack(data, height, tuple(map(_address, message.messages(3))))


def _address(validator: Message) -> bytes:
    """Return the address of a tendermint.types.Validator, which CometBFT derives from the key."""
    key = validator.message(2).octets(1)
    address = Validator(key, 1).address
    if len(key) != PUBLIC_KEY_BYTES or validator.octets(1) != address:
        raise MalformedError("light client attack evidence: a validator's address is not that of an Ed25519 key")
    return address
