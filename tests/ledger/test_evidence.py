"""Evidence is what CometBFT hashed and nothing else: real blocks, every changed bit, any bytes."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger_node.abci.evidence_json import parse_evidence_list
from voice_dpki.codec.protowire import bytes_field, message_field, varint_field
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.block import encode_block, part_set_header
from voice_dpki.ledger.evidence import (
    MAX_EVIDENCE_BYTES,
    DuplicateVote,
    EvidenceError,
    LightClientAttack,
    evidence_hash,
    misbehaving,
    parse_all,
    parse_evidence,
    serialize_evidence,
)
from voice_dpki.ledger.header import (
    NO_BLOCK,
    PRECOMMIT,
    BlockId,
    Commit,
    Header,
    PartSetHeader,
    Validator,
    ValidatorSet,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "cometbft" / "evidence"
NAMES = ["prevotes", "unsigned-parts-and-attack"]
CHAIN = "vectors-3"


def load(name: str) -> Any:
    return json.loads((VECTORS / f"block-{name}.json").read_text())


def raws(name: str) -> list[bytes]:
    return [serialize_evidence(each) for each in parse_evidence_list(load(name)["block"])]


def validator_key() -> bytes:
    """Key of the only validator, from the evidence of an attack."""
    attack = load(NAMES[1])["block"]["evidence"]["evidence"][1]["value"]
    (validator,) = ValidatorSet.from_json({"validators": attack["ByzantineValidators"]}).validators
    return validator.public_key


@pytest.mark.parametrize("name", NAMES)
def test_hashes_and_parts_of_real_blocks(name: str) -> None:
    answer = load(name)
    block = answer["block"]
    evidence = parse_evidence_list(block)
    header, last_commit = Header.from_json(block["header"]), Commit.from_json(block["last_commit"])
    assert evidence_hash(evidence) == header.evidence_hash
    parts = part_set_header(encode_block(header, [], last_commit, evidence))
    assert BlockId(header.hash(), parts).to_json() == answer["block_id"]
    assert parse_all(raws(name)) == evidence
    assert set(misbehaving(evidence)) == {header.proposer_address}


def test_what_real_evidence_says() -> None:
    ((prevotes,), (precommits, attack)) = (parse_all(raws(name)) for name in NAMES)
    assert isinstance(prevotes, DuplicateVote)
    assert isinstance(precommits, DuplicateVote)
    assert isinstance(attack, LightClientAttack)
    assert (prevotes.height, prevotes.vote_a.round, prevotes.vote_a.block_id) == (2, 3, NO_BLOCK)
    assert (precommits.height, precommits.vote_b.block_id.parts.total) == (3, 2**32 - 1)
    assert precommits.vote_b.extension == b"nobody signed this"
    assert (attack.height, attack.misbehaving) == (4, prevotes.misbehaving)
    for evidence in (prevotes, precommits):
        evidence.verify(CHAIN, validator_key())


def test_votes_that_the_accused_did_not_sign_are_no_proof() -> None:
    (evidence,) = parse_all(raws("prevotes"))
    assert isinstance(evidence, DuplicateVote)
    vote = evidence.vote_b
    for chain_id, key, changed in (
        ("other", validator_key(), vote),
        (CHAIN, bytes(32), vote),
        (CHAIN, b"short", vote),
        (CHAIN, validator_key(), replace(vote, time_ns=vote.time_ns + 1)),
        (CHAIN, validator_key(), replace(vote, signature=evidence.vote_a.signature)),
        (CHAIN, validator_key(), replace(vote, signature=b"")),
    ):
        with pytest.raises(EvidenceError, match="not signed"):
            replace(evidence, vote_b=changed).verify(chain_id, key)


@pytest.mark.parametrize("name", NAMES)
def test_every_changed_bit_changes_the_hash_or_is_malformed(name: str) -> None:
    (raw, *others) = raws(name)
    true = evidence_hash(parse_all([raw, *others]))
    for place in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[place // 8] ^= 1 << place % 8
        with suppress(MalformedError):
            assert evidence_hash(parse_all([bytes(changed), *others])) != true


def test_neither_kind_passes_for_the_other() -> None:
    for evidence in (*parse_all(raws("prevotes")), *parse_all(raws(NAMES[1]))):
        with pytest.raises(MalformedError):
            parse_evidence(message_field(3 - evidence.FIELD, evidence.encode()))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"round": 1}, "not of one validator"),
        ({"height": 2}, "not of one validator"),
        ({"kind": PRECOMMIT}, "not of one validator"),
        ({"validator_address": bytes(20)}, "not of one validator"),
        ({"block_id": BlockId(b"a" * 32, PartSetHeader(1, b"a" * 32))}, "same block"),
    ],
)
def test_two_votes_that_do_not_contradict_each_other_are_no_evidence(
    chain: Any, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(MalformedError, match=match):
        parse_evidence(serialize_evidence(chain.double_signing(**changes)))


def test_other_spellings_of_the_same_evidence_are_refused(chain: Any) -> None:
    evidence = chain.double_signing()
    raw, content = serialize_evidence(evidence), evidence.encode()
    for other in (
        raw + varint_field(3, 1),
        raw + raw,
        message_field(1, content + varint_field(9, 1)),
        message_field(1, b"\x18\x02" + content),
        message_field(1, content) + bytes_field(2, b"\x10\x01"),
    ):
        with pytest.raises(MalformedError, match="not encoded as CometBFT does"):
            parse_evidence(other)


def test_a_convict_without_an_address_or_key_is_malformed(chain: Any) -> None:
    key = chain.federation.genesis.validators.validators[0].public_key
    address = Validator(key, 1).address
    for validator in (
        bytes_field(1, address),
        bytes_field(1, bytes(20)) + message_field(2, bytes_field(1, key)),
        bytes_field(1, address) + message_field(2, bytes_field(2, key)),
        varint_field(1, 1),
    ):
        with pytest.raises(MalformedError):
            parse_evidence(message_field(2, varint_field(2, 1) + message_field(3, validator)))
    evidence = chain.double_signing()
    one, other = (replace(vote, validator_address=b"") for vote in (evidence.vote_a, evidence.vote_b))
    raw = serialize_evidence(replace(evidence, vote_a=one, vote_b=other))
    with pytest.raises(MalformedError, match="names no validator"):
        parse_evidence(raw)


def test_a_block_has_only_so_much_evidence(chain: Any) -> None:
    raw = serialize_evidence(chain.double_signing())
    with pytest.raises(MalformedError, match="more than"):
        parse_all([raw] * (MAX_EVIDENCE_BYTES // len(raw) + 1))


@given(st.binary(max_size=400))
def test_any_bytes_are_evidence_or_raise(data: bytes) -> None:
    for raw in (data, bytes_field(1, data), bytes_field(2, data)):
        with suppress(MalformedError):
            assert serialize_evidence(parse_evidence(raw)) == raw


@given(st.data())
def test_damaged_evidence_is_evidence_or_raises(data: st.DataObject) -> None:
    raw = bytearray(raws(NAMES[1])[data.draw(st.sampled_from([0, 1]))])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with suppress(MalformedError):
        assert serialize_evidence(parse_evidence(bytes(raw))) == bytes(raw)
