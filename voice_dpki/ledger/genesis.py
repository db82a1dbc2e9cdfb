"""Genesis: the initial content of a ledger, in the form of CometBFT's genesis.json with the members in app_state.

    {"genesis_time", "chain_id", "initial_height": "1", "consensus_params": {"block": {"max_bytes", "max_gas"}},
     "validators": [{"address", "pub_key": {"type", "value"}, "power", "name"}], "app_hash": "",
     "app_state": {"members": [{"organization", "kind", "domains", "ranges": [{"start", "count"}], "spcs",
                                "validators": [base64 Ed25519 key], "endorsing_keys": [base64 SPKI DER]}],
                   "parameters": {"delay_s", "delay_blocks", "voting_s", ...}}}

`voice_dpki.ledger.parameters` describes the parameters, all of which have defaults.

A holder of the genesis file can check every answer of the ledger, so the file itself must come from a trusted
source.

docs/spec/state.md#genesis specifies it.
"""

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import msgspec

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.block import consensus_hash
from voice_dpki.ledger.directory import MAX_MEMBERS, MAX_VALIDATORS
from voice_dpki.ledger.draft import Outcome
from voice_dpki.ledger.header import (
    MAX_CHAIN_ID_BYTES,
    Validator,
    ValidatorSet,
    format_time,
    merkle_root,
    parse_time,
)
from voice_dpki.ledger.members import Member, WrittenMember, check_apart
from voice_dpki.ledger.parameters import DEFAULT_PARAMETERS, Parameters
from voice_dpki.ledger.single_numbers import singles_of
from voice_dpki.ledger.state import found
from voice_dpki.ledger.view import MemoryState

MAX_GENESIS_BYTES = 4 * 1024 * 1024

MAX_BLOCK_BYTES = 1024 * 1024
"""consensus_params.block.max_bytes of a new genesis: 16 of the largest transactions, and four times what a node
proposes. For each proposal, CometBFT passes up to this much of its mempool to the application."""

_KEY_TYPE: Literal["tendermint/PubKeyEd25519"] = "tendermint/PubKeyEd25519"


class GenesisError(LocalError):
    """The genesis file is not valid; the message says where."""


@dataclass(frozen=True)
class Genesis:
    """The parts of a genesis file that the project reads."""

    chain_id: str
    time_ns: int
    validators: ValidatorSet
    members: tuple[Member, ...]
    max_block_bytes: int
    max_gas: int = -1
    parameters: Parameters = DEFAULT_PARAMETERS

    def consensus_hash(self) -> bytes:
        """Return the hash of the consensus parameters, as headers hold it."""
        return consensus_hash(self.max_block_bytes, self.max_gas)

    def outcome(self) -> Outcome:
        """Compute the initial content of the ledger; its AppHash is in the first header."""
        return found(self.members, self.validators, self.parameters, self.time_ns // 10**9)

    def initial_state(self) -> MemoryState:
        """Return the state before the first block."""
        state = MemoryState(self.chain_id)
        state.commit(self.outcome())
        return state

    def fingerprint(self) -> bytes:
        """Return a hash that identifies this genesis, over every part of it that the project reads."""
        parts = [
            self.chain_id.encode("ascii"),
            self.validators.hash(),
            self.consensus_hash(),
            self.outcome().app_hash,
        ]
        return merkle_root([*parts, self.time_ns.to_bytes(12, "big", signed=True)])

    def member(self, organization: str) -> Member | None:
        """Return the member of this name as it was at genesis, or None."""
        return next((member for member in self.members if member.organization == organization), None)


def load_genesis(data: bytes) -> Genesis:
    """Parse a genesis file.

    Raises GenesisError unless the file is valid, no two members share anything, and every validator is a member's.
    """
    if len(data) > MAX_GENESIS_BYTES:
        raise GenesisError(f"genesis: longer than {MAX_GENESIS_BYTES} bytes")
    try:
        form = msgspec.json.decode(data, type=_GenesisForm)
        genesis = _genesis(form)
    except (ValueError, MalformedError, RecursionError) as error:  # msgspec and UTF-8 raise ValueErrors
        raise GenesisError(f"genesis: {error}") from None
    _check(genesis)
    return genesis


def dump_genesis(
    chain_id: str,
    time_ns: int,
    members: Sequence[Member],
    *,
    max_block_bytes: int = MAX_BLOCK_BYTES,
    parameters: Parameters = DEFAULT_PARAMETERS,
) -> bytes:
    """Write a genesis file in which all validators of `members` have the power 1.

    Raises GenesisError if `load_genesis` would refuse the result.
    """
    validators = [
        {
            "address": Validator(key, 1).address.hex().upper(),
            "pub_key": {"type": _KEY_TYPE, "value": _base64(key)},
            "power": "1",
            "name": member.organization,
        }
        for member in members
        for key in member.validators
    ]
    block = {"max_bytes": str(max_block_bytes), "max_gas": "-1"}
    value = {
        "genesis_time": format_time(time_ns),
        "chain_id": chain_id,
        "initial_height": "1",
        "consensus_params": {"block": block, **_COMET_DEFAULTS},
        "validators": validators,
        "app_hash": "",
        "app_state": {
            "members": [_member_json(member) for member in members],
            "parameters": asdict(parameters),
        },
    }
    data = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    load_genesis(data)
    return data


_COMET_DEFAULTS: dict[str, Any] = {
    "evidence": {"max_age_num_blocks": "100000", "max_age_duration": "172800000000000", "max_bytes": "1048576"},
    "validator": {"pub_key_types": ["ed25519"]},
    "version": {"app": "1"},
    "abci": {"vote_extensions_enable_height": "0"},
}
"""Consensus parameters that a CometBFT node requires and the embedded engine does not use."""

_Int64Text = Annotated[str, msgspec.Meta(pattern=r"^(-1|0|[1-9][0-9]{0,17})\Z")]
_Base64 = Annotated[str, msgspec.Meta(max_length=1024)]


class _KeyForm(msgspec.Struct):
    type: Literal["tendermint/PubKeyEd25519"]
    value: _Base64


class _ValidatorForm(msgspec.Struct):
    pub_key: _KeyForm
    power: _Int64Text
    address: str = ""


class _BlockParamsForm(msgspec.Struct):
    max_bytes: _Int64Text
    max_gas: _Int64Text


class _ParamsForm(msgspec.Struct):
    block: _BlockParamsForm


class _MemberForm(WrittenMember, frozen=True, kw_only=True):
    validators: tuple[_Base64, ...] = ()
    endorsing_keys: tuple[_Base64, ...] = ()


class _StateForm(msgspec.Struct, forbid_unknown_fields=True):
    members: Annotated[tuple[_MemberForm, ...], msgspec.Meta(min_length=1, max_length=MAX_MEMBERS)]
    parameters: dict[str, int] = {}


class _GenesisForm(msgspec.Struct):
    """Fields of the file. Unknown ones, which new versions of CometBFT add, are ignored except in app_state."""

    genesis_time: str
    chain_id: Annotated[str, msgspec.Meta(pattern=rf"^[!-~]{{1,{MAX_CHAIN_ID_BYTES}}}\Z")]
    consensus_params: _ParamsForm
    validators: tuple[_ValidatorForm, ...]
    app_state: _StateForm
    initial_height: Literal["1"] = "1"
    app_hash: Literal[""] = ""


def _genesis(form: _GenesisForm) -> Genesis:
    block = form.consensus_params.block
    return Genesis(
        chain_id=form.chain_id,
        time_ns=parse_time(form.genesis_time),
        validators=ValidatorSet.of(_validator(item) for item in form.validators),
        members=tuple(_member(item) for item in form.app_state.members),
        max_block_bytes=int(block.max_bytes),
        max_gas=int(block.max_gas),
        parameters=Parameters.of(form.app_state.parameters),
    )


def _validator(form: _ValidatorForm) -> Validator:
    validator = Validator(_from_base64(form.pub_key.value), int(form.power))
    if form.address and form.address != validator.address.hex().upper():
        raise MalformedError("a validator's address is not that of its key")
    return validator


def _member(form: _MemberForm) -> Member:
    return form.member_with(map(_from_base64, form.validators), map(_from_base64, form.endorsing_keys))


def _member_json(member: Member) -> dict[str, Any]:
    return {
        "organization": member.organization,
        "kind": member.kind,
        "domains": member.domains,
        "ranges": [{"start": entry.start, "count": entry.count} for entry in member.ranges],
        "spcs": member.spcs,
        "validators": [_base64(key) for key in member.validators],
        "endorsing_keys": [_base64(key) for key in member.endorsing_keys],
    }


def _check(genesis: Genesis) -> None:
    try:
        check_apart(genesis.members)
    except MalformedError as error:
        raise GenesisError(f"genesis: {error}") from None
    theirs = {key for member in genesis.members for key in member.validators}
    if not {validator.public_key for validator in genesis.validators.validators} <= theirs:
        raise GenesisError("genesis: a validator belongs to no member")
    for member in genesis.members:
        _check_keys(member)
        if singles_of(member.ranges):
            raise GenesisError(
                f"genesis: {member.organization}: version 4 of the rules brings ranges of one number"
            )
    if len(theirs) > MAX_VALIDATORS:
        raise GenesisError(f"genesis: there are more than {MAX_VALIDATORS} validators")


def _check_keys(member: Member) -> None:
    try:
        member.check_validators()
    except MalformedError as error:
        raise GenesisError(f"genesis: {member.organization}: {error}") from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise MalformedError("a key is not base64") from None
