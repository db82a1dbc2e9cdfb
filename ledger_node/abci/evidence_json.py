"""Evidence from the JSON of CometBFT's RPC, which gives it in no other form.

The parsed evidence is encoded again, and the header's evidence_hash shows whether the result equals CometBFT's own.
"""

from typing import Annotated, Any, Literal

import msgspec

from voice_dpki.codec.protowire import bytes_field, message_field, varint_field
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.evidence import (
    ConsensusVote,
    DuplicateVote,
    Evidence,
    LightClientAttack,
    parse_evidence,
    serialize_evidence,
)
from voice_dpki.ledger.header import BlockId, PartSetHeader, SignedHeader, encode_time, parse_time

_Hex = Annotated[str, msgspec.Meta(pattern=r"^([0-9A-F]{2})*\Z")]
_Int64 = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,19}\Z")]


class _Parts(msgspec.Struct):
    total: int
    hash: _Hex


class _BlockId(msgspec.Struct):
    hash: _Hex
    parts: _Parts


class _Vote(msgspec.Struct):
    type: int
    height: _Int64
    round: int
    block_id: _BlockId
    timestamp: str
    validator_address: _Hex
    validator_index: int
    signature: bytes
    extension: bytes | None = None
    extension_signature: bytes | None = None


class _DuplicateVote(msgspec.Struct):
    vote_a: _Vote
    vote_b: _Vote
    total_power: _Int64 = msgspec.field(name="TotalVotingPower")
    validator_power: _Int64 = msgspec.field(name="ValidatorPower")
    timestamp: str = msgspec.field(name="Timestamp")


class _PublicKey(msgspec.Struct):
    type: Literal["tendermint/PubKeyEd25519"]
    value: bytes


class _Validator(msgspec.Struct):
    address: _Hex
    pub_key: _PublicKey
    voting_power: _Int64
    proposer_priority: _Int64 = "0"


class _Validators(msgspec.Struct):
    validators: list[_Validator]
    proposer: _Validator


class _LightBlock(msgspec.Struct):
    signed_header: dict[str, Any]
    validator_set: _Validators


class _LightClientAttack(msgspec.Struct):
    block: _LightBlock = msgspec.field(name="ConflictingBlock")
    common_height: _Int64 = msgspec.field(name="CommonHeight")
    byzantine: list[_Validator] | None = msgspec.field(name="ByzantineValidators")
    total_power: _Int64 = msgspec.field(name="TotalVotingPower")
    timestamp: str = msgspec.field(name="Timestamp")


class _List(msgspec.Struct):
    evidence: list[dict[str, Any]]


class _Block(msgspec.Struct):
    evidence: _List


def parse_evidence_list(block: object) -> tuple[Evidence, ...]:
    """Parse the evidence in a block: the member `block` of the answer to the RPC's `block` method.

    Raises MalformedError. Nothing is verified.
    """
    try:
        return tuple(_evidence(item) for item in msgspec.convert(block, _Block).evidence.evidence)
    except (msgspec.ValidationError, UnicodeError, RecursionError, ValueError) as error:
        raise MalformedError(f"CometBFT's evidence: {error}") from None


def _evidence(item: dict[str, Any]) -> Evidence:
    value = item.get("value")
    match item.get("type"):
        case "tendermint/DuplicateVoteEvidence":
            form = msgspec.convert(value, _DuplicateVote)
            return parse_evidence(serialize_evidence(_duplicate_vote(form)))
        case "tendermint/LightClientAttackEvidence":
            content = _light_client_attack(msgspec.convert(value, _LightClientAttack))
            return parse_evidence(message_field(LightClientAttack.FIELD, content))
    raise MalformedError("CometBFT's evidence: of a kind that this version does not know")


def _duplicate_vote(form: _DuplicateVote) -> DuplicateVote:
    return DuplicateVote(
        vote_a=_vote(form.vote_a),
        vote_b=_vote(form.vote_b),
        total_power=int(form.total_power),
        validator_power=int(form.validator_power),
        time_ns=parse_time(form.timestamp),
    )


def _vote(form: _Vote) -> ConsensusVote:
    parts = PartSetHeader(form.block_id.parts.total, bytes.fromhex(form.block_id.parts.hash))
    return ConsensusVote(
        kind=form.type,
        height=int(form.height),
        round=form.round,
        block_id=BlockId(bytes.fromhex(form.block_id.hash), parts),
        time_ns=parse_time(form.timestamp),
        validator_address=bytes.fromhex(form.validator_address),
        validator_index=form.validator_index,
        signature=form.signature,
        extension=form.extension or b"",
        extension_signature=form.extension_signature or b"",
    )


def _light_client_attack(form: _LightClientAttack) -> bytes:
    """Encode a tendermint.types.LightClientAttackEvidence."""
    return b"".join(
        (
            message_field(1, _light_block(form.block)),
            varint_field(2, int(form.common_height)),
            *(message_field(3, _validator(each)) for each in form.byzantine or ()),
            varint_field(4, int(form.total_power)),
            message_field(5, encode_time(parse_time(form.timestamp))),
        )
    )


def _light_block(form: _LightBlock) -> bytes:
    signed = SignedHeader.from_json(form.signed_header)
    validators = [message_field(1, _validator(each)) for each in form.validator_set.validators]
    return b"".join(
        (
            message_field(1, message_field(1, signed.header.encode()) + message_field(2, signed.commit.encode())),
            message_field(2, b"".join(validators) + message_field(2, _validator(form.validator_set.proposer))),
        )
    )


def _validator(form: _Validator) -> bytes:
    """Encode a tendermint.types.Validator."""
    return b"".join(
        (
            bytes_field(1, bytes.fromhex(form.address)),
            message_field(2, bytes_field(1, form.pub_key.value)),
            varint_field(3, int(form.voting_power)),
            varint_field(4, int(form.proposer_priority)),
        )
    )
