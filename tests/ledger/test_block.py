"""Blocks that the project makes are CometBFT's to the byte, and a chain of them convinces the light client."""

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.ledger.block import (
    DEFAULT_CONSENSUS_HASH,
    NO_EVIDENCE_HASH,
    ExecTxResult,
    NextBlock,
    data_hash,
    encode_block,
    part_set_header,
    results_hash,
)
from voice_dpki.ledger.header import (
    ABSENT,
    NO_BLOCK,
    BlockId,
    Commit,
    Header,
    SignedHeader,
    Validator,
    ValidatorSet,
)
from voice_dpki.ledger.light import LightClient, TrustPoint

VECTORS = Path(__file__).parents[1] / "vectors" / "cometbft" / "changing"
HEIGHTS = [1, 208, 211, 212, 218]
NS = 10**9


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def transactions(block: Any) -> list[bytes]:
    texts = block["data"]["txs"]
    return [b"big=" + b"x" * 150_000] if texts is None else [base64.b64decode(text) for text in texts]


@pytest.mark.parametrize("height", HEIGHTS)
def test_hashes_and_parts_of_real_blocks(height: int) -> None:
    answer = load(f"block-{height}.json")
    block = answer["block"]
    header, last_commit = Header.from_json(block["header"]), Commit.from_json(block["last_commit"])
    assert data_hash(transactions(block)) == header.data_hash
    assert last_commit.hash() == header.last_commit_hash
    assert (header.consensus_hash, header.evidence_hash) == (DEFAULT_CONSENSUS_HASH, NO_EVIDENCE_HASH)
    parts = part_set_header(encode_block(header, transactions(block), last_commit))
    assert BlockId(header.hash(), parts).to_json() == answer["block_id"]


@pytest.mark.parametrize("height", HEIGHTS)
def test_results_stand_in_the_next_header(height: int) -> None:
    results = [
        ExecTxResult(
            each["code"], base64.b64decode(each["data"] or ""), int(each["gas_wanted"]), int(each["gas_used"])
        )
        for each in load(f"results-{height}.json")
    ]
    following = Header.from_json(load(f"commit-{height + 1}.json")["signed_header"]["header"])
    assert results_hash(results) == following.last_results_hash


def test_results_are_encoded_with_their_deterministic_fields() -> None:
    assert ExecTxResult(0).encode() == b""
    assert ExecTxResult(7, b"ok", 1, 2).encode().hex() == "0807" + "12026f6b" + "2801" + "3002"


KEYS = [Ed25519PrivateKey.from_private_bytes(sha256(bytes([seed])).digest()) for seed in range(4)]
VALIDATORS = ValidatorSet.of(Validator(key.public_key().public_bytes_raw(), 1) for key in KEYS)
SIGNERS = {Validator(key.public_key().public_bytes_raw(), 1).address: key.sign for key in KEYS}


def grow(previous: SignedHeader | None, **changes: Any) -> SignedHeader:
    time_ns = previous.header.time_ns + NS if previous else 1000 * NS
    fields: dict[str, Any] = {
        "chain_id": "made-1",
        "previous": previous,
        "time_ns": time_ns,
        "transactions": [],
        "app_hash": bytes(32),
        "last_results": [],
        "validators": VALIDATORS,
        "next_validators": VALIDATORS,
    }
    return NextBlock(**{**fields, **changes}).seal(SIGNERS)


def test_a_chain_is_linked_and_convinces_the_light_client() -> None:
    client = LightClient("made-1", TrustPoint.genesis(VALIDATORS, 1000 * NS))
    first = grow(None, transactions=[b"one", b"two"])
    second = grow(first, app_hash=b"\x01" * 32, last_results=[ExecTxResult(0), ExecTxResult(3, b"no")])
    assert (first.header.height, first.header.last_block_id) == (1, NO_BLOCK)
    assert second.header.last_block_id == first.commit.block_id
    assert second.header.last_commit_hash == first.commit.hash()
    assert first.header.proposer_address != second.header.proposer_address
    for signed in (first, second):
        assert client.verify(SignedHeader.from_json(signed.to_json()), None, 1001.0) == signed.header


def test_a_first_block_may_have_another_height_than_1() -> None:
    assert grow(None, initial_height=40).header.height == 40


def test_validators_without_a_key_here_are_absent() -> None:
    some = dict(list(SIGNERS.items())[:3])
    signed = NextBlock(
        chain_id="made-1",
        previous=None,
        time_ns=NS,
        transactions=[],
        app_hash=b"",
        last_results=[],
        validators=VALIDATORS,
        next_validators=VALIDATORS,
    ).seal(some, vote_time_ns=2 * NS)
    assert signed.commit.signatures.count(ABSENT) == 1
    assert {vote.time_ns for vote in signed.commit.signatures if vote != ABSENT} == {2 * NS}
