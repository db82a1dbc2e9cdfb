"""Headers, commits and validator sets in the forms of CometBFT v0.38: their hashes, vote bytes and RPC JSON.

Both engines of the ledger produce these, and one light client verifies them. Hashes are over the protobuf encodings
of `proto/tendermint/types/{types,validator,canonical}.proto`. The JSON is that of the RPC's `/commit` and
`/validators`. Times are integers, in nanoseconds since 1970-01-01T00:00:00Z.

docs/spec/answers.md#headers specifies it.
"""

import base64
import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from voice_dpki.codec import base64text
from voice_dpki.codec.protowire import bytes_field, delimited, message_field, sfixed64_field, varint_field
from voice_dpki.errors import MalformedError

BLOCK_PROTOCOL = 11
"""Version of the block format (version.block) in CometBFT v0.38."""

MAX_CHAIN_ID_BYTES = 50
MAX_VALIDATORS = 1000
"""Our own limit: a federation has tens of validators, CometBFT allows 10,000, and each costs a signature check."""

MAX_APP_HASH_BYTES = 64
"""Our own limit; CometBFT has none. Our AppHash and that of CometBFT's key-value example are shorter."""

MAX_TOTAL_POWER = (2**63 - 1) // 8
"""Limit of a validator set's total power (types/validator_set.go, MaxTotalVotingPower)."""

ADDRESS_BYTES = 20
SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32

NO_TIME_NS = -62_135_596_800 * 10**9
"""Go's zero time, 0001-01-01T00:00:00Z: the time of an absent vote."""

PREVOTE, PRECOMMIT = 1, 2
"""Types of votes (tendermint.types.SignedMsgType)."""

_NS = 10**9


def merkle_root(items: Sequence[bytes]) -> bytes:
    """Return the tree hash of RFC 6962 §2.1: leaf prefix 00, inner prefix 01, SHA-256 of nothing for no items."""
    if not items:
        return sha256().digest()
    if len(items) == 1:
        return sha256(b"\x00" + items[0]).digest()
    split = 1 << (len(items) - 1).bit_length() - 1
    return sha256(b"\x01" + merkle_root(items[:split]) + merkle_root(items[split:])).digest()


def encode_time(time_ns: int) -> bytes:
    """Encode as google.protobuf.Timestamp."""
    seconds, nanoseconds = divmod(time_ns, _NS)
    return varint_field(1, seconds) + varint_field(2, nanoseconds)


@dataclass(frozen=True, slots=True)
class PartSetHeader:
    """The number of parts into which a block is cut for gossip, and the Merkle root over them."""

    total: int
    hash: bytes

    def encode(self) -> bytes:
        """Encode as tendermint.types.PartSetHeader."""
        return varint_field(1, self.total) + bytes_field(2, self.hash)


@dataclass(frozen=True, slots=True)
class BlockId:
    """The identity of a block: its header's hash and its parts."""

    hash: bytes
    parts: PartSetHeader

    def encode(self) -> bytes:
        """Encode as tendermint.types.BlockID, or as CanonicalBlockID, which has the same fields."""
        return bytes_field(1, self.hash) + message_field(2, self.parts.encode())

    def to_json(self) -> dict[str, Any]:
        """Return the RPC's form."""
        return {"hash": _hex(self.hash), "parts": {"total": self.parts.total, "hash": _hex(self.parts.hash)}}


NO_BLOCK = BlockId(b"", PartSetHeader(0, b""))
"""The BlockId that the first block names as its predecessor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A block's header. It commits to the state before its own transactions: block H+1 has the AppHash after H."""

    version_block: int = BLOCK_PROTOCOL
    version_app: int = 1
    chain_id: str
    height: int
    time_ns: int
    last_block_id: BlockId
    last_commit_hash: bytes
    data_hash: bytes
    validators_hash: bytes
    next_validators_hash: bytes
    consensus_hash: bytes
    app_hash: bytes
    last_results_hash: bytes
    evidence_hash: bytes
    proposer_address: bytes

    def hash(self) -> bytes:
        """Return the Merkle root over the encodings of the fields; the `hash` of the block's BlockId."""
        return merkle_root(
            [
                self._version(),
                bytes_field(1, self.chain_id.encode("utf-8")),
                varint_field(1, self.height),
                encode_time(self.time_ns),
                self.last_block_id.encode(),
                *(bytes_field(1, value) for value in self._hashes()),
            ]
        )

    def encode(self) -> bytes:
        """Encode as tendermint.types.Header."""
        return b"".join(
            (
                message_field(1, self._version()),
                bytes_field(2, self.chain_id.encode("utf-8")),
                varint_field(3, self.height),
                message_field(4, encode_time(self.time_ns)),
                message_field(5, self.last_block_id.encode()),
                *(bytes_field(number, value) for number, value in enumerate(self._hashes(), 6)),
            )
        )

    def age_s(self, now_s: float) -> float:
        """Return the seconds since the header's time, negative if that is in the future."""
        return now_s - self.time_ns / _NS

    def to_json(self) -> dict[str, Any]:
        """Return the RPC's form."""
        return {
            "version": {"block": str(self.version_block), "app": str(self.version_app)},
            "chain_id": self.chain_id,
            "height": str(self.height),
            "time": format_time(self.time_ns),
            "last_block_id": self.last_block_id.to_json(),
            **{name: _hex(getattr(self, name)) for name in _HASH_FIELDS},
        }

    @classmethod
    def from_json(cls, value: object) -> "Header":
        """Read the RPC's form, already decoded from JSON; raises MalformedError on anything else."""
        return _header(_convert(value, _HeaderForm))

    def _version(self) -> bytes:
        return varint_field(1, self.version_block) + varint_field(2, self.version_app)

    def _hashes(self) -> Iterable[bytes]:
        return (getattr(self, name) for name in _HASH_FIELDS)


_HASH_FIELDS = (
    "last_commit_hash",
    "data_hash",
    "validators_hash",
    "next_validators_hash",
    "consensus_hash",
    "app_hash",
    "last_results_hash",
    "evidence_hash",
    "proposer_address",
)
"""The byte strings of a header in the order of their field numbers, 6 to 14."""


class BlockIdFlag(IntEnum):
    """How a validator voted (tendermint.types.BlockIDFlag)."""

    ABSENT = 1
    COMMIT = 2
    NIL = 3


@dataclass(frozen=True, slots=True)
class CommitSig:
    """One validator's precommit."""

    flag: BlockIdFlag
    validator_address: bytes
    time_ns: int
    signature: bytes

    def encode(self) -> bytes:
        """Encode as tendermint.types.CommitSig."""
        return b"".join(
            (
                varint_field(1, self.flag),
                bytes_field(2, self.validator_address),
                message_field(3, encode_time(self.time_ns)),
                bytes_field(4, self.signature),
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Return the RPC's form."""
        return {
            "block_id_flag": int(self.flag),
            "validator_address": _hex(self.validator_address),
            "timestamp": format_time(self.time_ns),
            "signature": base64.b64encode(self.signature).decode("ascii") if self.signature else None,
        }


ABSENT = CommitSig(BlockIdFlag.ABSENT, b"", NO_TIME_NS, b"")
"""The entry of a validator whose vote was not seen."""


@dataclass(frozen=True, slots=True)
class Commit:
    """The precommits for a block, one entry for each validator in the order of the set."""

    height: int
    round: int
    block_id: BlockId
    signatures: tuple[CommitSig, ...]

    def canonical_vote_bytes(self, chain_id: str, index: int) -> bytes:
        """Return the bytes that validator `index` signed: the delimited CanonicalVote, with that vote's time."""
        vote = self.signatures[index]
        return canonical_vote(
            chain_id,
            self.height,
            self.round,
            self.block_id if vote.flag is BlockIdFlag.COMMIT else None,
            vote.time_ns,
        )

    @property
    def signers(self) -> tuple[bytes, ...]:
        """Addresses of the validators that voted for the block, in the order of the set."""
        return tuple(vote.validator_address for vote in self.signatures if vote.flag is BlockIdFlag.COMMIT)

    def hash(self) -> bytes:
        """Return the Merkle root over the signatures; `last_commit_hash` of the next header."""
        return merkle_root([signature.encode() for signature in self.signatures])

    def encode(self) -> bytes:
        """Encode as tendermint.types.Commit."""
        return b"".join(
            (
                varint_field(1, self.height),
                varint_field(2, self.round),
                message_field(3, self.block_id.encode()),
                *(message_field(4, signature.encode()) for signature in self.signatures),
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Return the RPC's form."""
        return {
            "height": str(self.height),
            "round": self.round,
            "block_id": self.block_id.to_json(),
            "signatures": [signature.to_json() for signature in self.signatures],
        }

    @classmethod
    def from_json(cls, value: object) -> "Commit":
        """Read the RPC's form, already decoded from JSON; raises MalformedError on anything else."""
        return _commit(_convert(value, _CommitForm))


NO_COMMIT = Commit(0, 0, NO_BLOCK, ())
"""The empty commit that the first block holds as its last commit."""


def canonical_vote(
    chain_id: str, height: int, round_: int, block_id: BlockId | None, time_ns: int, kind: int = PRECOMMIT
) -> bytes:
    """Return the bytes that a validator signs for a vote; a `block_id` of None is a vote for no block."""
    return delimited(
        b"".join(
            (
                varint_field(1, kind),
                sfixed64_field(2, height),
                sfixed64_field(3, round_),
                message_field(4, None if block_id is None else block_id.encode()),
                message_field(5, encode_time(time_ns)),
                bytes_field(6, chain_id.encode("utf-8")),
            )
        )
    )


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A header and the commit of its own block."""

    header: Header
    commit: Commit

    def to_json(self) -> dict[str, Any]:
        """Return the value of `signed_header` in the RPC's answer to `/commit`."""
        return {"header": self.header.to_json(), "commit": self.commit.to_json()}

    @classmethod
    def from_json(cls, value: object) -> "SignedHeader":
        """Read the value of `signed_header`, already decoded from JSON, without verifying it.

        Raises MalformedError on anything that the RPC would not give.
        """
        form = _convert(value, SignedHeaderForm)
        return cls(_header(form.header), _commit(form.commit))


@dataclass(frozen=True, slots=True)
class Validator:
    """A validator's Ed25519 public key and its voting power."""

    public_key: bytes
    power: int

    @property
    def address(self) -> bytes:
        """The first 20 bytes of the key's SHA-256."""
        return sha256(self.public_key).digest()[:ADDRESS_BYTES]

    def encode(self) -> bytes:
        """Encode as tendermint.types.SimpleValidator, with the key as tendermint.crypto.PublicKey."""
        return message_field(1, bytes_field(1, self.public_key)) + varint_field(2, self.power)


@dataclass(frozen=True)
class ValidatorSet:
    """Validators in the order of their entries in a commit. Make one with `of`."""

    validators: tuple[Validator, ...]

    @classmethod
    def of(cls, validators: Iterable[Validator]) -> "ValidatorSet":
        """Make a set of validators, ordered by descending power and then by address.

        Raises MalformedError for no validators or more than MAX_VALIDATORS, a key that occurs twice or does not
        have 32 bytes, a power below 1, and a total power above MAX_TOTAL_POWER.
        """
        ordered = tuple(sorted(validators, key=lambda validator: (-validator.power, validator.address)))
        if not 1 <= len(ordered) <= MAX_VALIDATORS:
            raise MalformedError(f"a validator set has 1 to {MAX_VALIDATORS} validators, not {len(ordered)}")
        if any(len(validator.public_key) != PUBLIC_KEY_BYTES for validator in ordered):
            raise MalformedError(f"a validator's Ed25519 key has {PUBLIC_KEY_BYTES} bytes")
        if len({validator.address for validator in ordered}) != len(ordered):
            raise MalformedError("a validator stands twice in the set")
        if ordered[-1].power < 1 or sum(validator.power for validator in ordered) > MAX_TOTAL_POWER:
            raise MalformedError(f"each validator's power is at least 1, all together at most {MAX_TOTAL_POWER}")
        return cls(ordered)

    @cached_property
    def total_power(self) -> int:
        """The sum of the validators' powers."""
        return sum(validator.power for validator in self.validators)

    def hash(self) -> bytes:
        """Return the Merkle root over the validators in order; `validators_hash` of a header."""
        return self._hash

    @cached_property
    def _hash(self) -> bytes:
        return merkle_root([validator.encode() for validator in self.validators])

    @cached_property
    def addresses(self) -> tuple[bytes, ...]:
        """The validators' addresses, in order."""
        return tuple(validator.address for validator in self.validators)

    def to_json(self) -> dict[str, Any]:
        """Return the form of the RPC's answer to `/validators`, without proposer priorities."""
        return {
            "validators": [
                {
                    "address": _hex(validator.address),
                    "pub_key": {
                        "type": _ED25519,
                        "value": base64.b64encode(validator.public_key).decode("ascii"),
                    },
                    "voting_power": str(validator.power),
                }
                for validator in self.validators
            ]
        }

    @classmethod
    def from_json(cls, value: object) -> "ValidatorSet":
        """Read the `result` of `/validators`, already decoded from JSON; raises MalformedError on other data."""
        form = _convert(value, _ValidatorsForm)
        return cls.of(_validator(validator) for validator in form.validators)


def format_time(time_ns: int) -> str:
    """Format a time as RFC 3339 in UTC, with as many decimals as it needs (Go's RFC3339Nano)."""
    seconds, nanoseconds = divmod(time_ns, _NS)
    whole = _EPOCH + datetime.timedelta(seconds=seconds)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{whole.year:04d}-{whole:%m-%dT%H:%M:%S}{fraction}Z"


def parse_time(text: str) -> int:
    """Parse a time that `format_time` could have written, to nanoseconds; raises MalformedError on other text."""
    found = _TIME.match(text)
    try:
        if not found:
            raise ValueError
        whole = datetime.datetime.fromisoformat(found[1] + "+00:00")
    except ValueError:
        raise MalformedError("not a time in UTC of the form 2026-11-24T02:10:11.5Z") from None
    seconds = (whole - _EPOCH) // datetime.timedelta(seconds=1)
    return seconds * _NS + int((found[2] or "").ljust(9, "0"))


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{0,8}[1-9]))?Z\Z", re.ASCII)


# The JSON of the RPC: 64-bit integers as text, hashes in upper-case hexadecimal, signatures and keys in base64.

_ED25519 = "tendermint/PubKeyEd25519"

_Hash = Annotated[str, msgspec.Meta(pattern=r"^([0-9A-F]{64})?\Z")]
_Address = Annotated[str, msgspec.Meta(pattern=r"^([0-9A-F]{40})?\Z")]
_AppHash = Annotated[str, msgspec.Meta(pattern=rf"^([0-9A-F]{{2}}){{0,{MAX_APP_HASH_BYTES}}}\Z")]
_ChainId = Annotated[str, msgspec.Meta(pattern=rf"^[!-~]{{1,{MAX_CHAIN_ID_BYTES}}}\Z")]
_Int64Text = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,17})\Z")]
_Int32 = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_TimeText = Annotated[str, msgspec.Meta(max_length=30)]
_Signature = Annotated[str, msgspec.Meta(min_length=88, max_length=88)]


class _Form(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _VersionForm(_Form):
    block: _Int64Text
    app: _Int64Text = "0"


class _PartsForm(_Form):
    total: _Int32
    hash: _Hash


class _BlockIdForm(_Form):
    hash: _Hash
    parts: _PartsForm


class _HeaderForm(_Form):
    version: _VersionForm
    chain_id: _ChainId
    height: _Int64Text
    time: _TimeText
    last_block_id: _BlockIdForm
    last_commit_hash: _Hash
    data_hash: _Hash
    validators_hash: _Hash
    next_validators_hash: _Hash
    consensus_hash: _Hash
    app_hash: _AppHash
    last_results_hash: _Hash
    evidence_hash: _Hash
    proposer_address: _Address


class _CommitSigForm(_Form):
    block_id_flag: BlockIdFlag
    validator_address: _Address
    timestamp: _TimeText
    signature: _Signature | None


class _CommitForm(_Form):
    height: _Int64Text
    round: _Int32
    block_id: _BlockIdForm
    signatures: Annotated[tuple[_CommitSigForm, ...], msgspec.Meta(max_length=MAX_VALIDATORS)]


class SignedHeaderForm(_Form):
    """A signed header's JSON."""

    header: _HeaderForm
    commit: _CommitForm


class _PublicKeyForm(_Form):
    type: Literal["tendermint/PubKeyEd25519"]
    value: Annotated[str, msgspec.Meta(min_length=44, max_length=44)]


class ValidatorForm(_Form):
    """A validator's JSON."""

    address: _Address
    pub_key: _PublicKeyForm
    voting_power: _Int64Text
    proposer_priority: Annotated[str, msgspec.Meta(max_length=20)] = "0"


class _ValidatorsForm(_Form):
    validators: Annotated[tuple[ValidatorForm, ...], msgspec.Meta(max_length=MAX_VALIDATORS)]
    block_height: _Int64Text | None = None
    count: _Int64Text | None = None
    total: _Int64Text | None = None


_FormType = TypeVar("_FormType", bound=_Form)


def _convert(value: object, form: type[_FormType]) -> _FormType:
    try:
        return msgspec.convert(value, form)
    except (msgspec.ValidationError, UnicodeError, RecursionError) as error:
        raise MalformedError(f"not in the form of CometBFT's RPC: {error}") from None


def _header(form: _HeaderForm) -> Header:
    return Header(
        version_block=int(form.version.block),
        version_app=int(form.version.app),
        chain_id=form.chain_id,
        height=int(form.height),
        time_ns=parse_time(form.time),
        last_block_id=_block_id(form.last_block_id),
        **{name: bytes.fromhex(getattr(form, name)) for name in _HASH_FIELDS},
    )


def _block_id(form: _BlockIdForm) -> BlockId:
    return BlockId(bytes.fromhex(form.hash), PartSetHeader(form.parts.total, bytes.fromhex(form.parts.hash)))


def _commit(form: _CommitForm) -> Commit:
    return Commit(
        int(form.height),
        form.round,
        _block_id(form.block_id),
        tuple(_commit_sig(signature) for signature in form.signatures),
    )


def _commit_sig(form: _CommitSigForm) -> CommitSig:
    vote = CommitSig(
        form.block_id_flag,
        bytes.fromhex(form.validator_address),
        parse_time(form.timestamp),
        base64text.decode(form.signature or ""),
    )
    if vote.flag is BlockIdFlag.ABSENT:
        if vote != ABSENT:
            raise MalformedError("commit: an absent vote has an address, a time or a signature")
    elif len(vote.validator_address) != ADDRESS_BYTES or len(vote.signature) != SIGNATURE_BYTES:
        raise MalformedError("commit: a vote has no address or no Ed25519 signature")
    return vote


def _validator(form: ValidatorForm) -> Validator:
    validator = Validator(base64text.decode(form.pub_key.value), int(form.voting_power))
    if _hex(validator.address) != form.address:
        raise MalformedError("a validator's address is not that of its key")
    return validator


def _hex(data: bytes) -> str:
    return data.hex().upper()
