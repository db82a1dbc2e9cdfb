"""Make the blocks in this folder: a real CometBFT is handed evidence against its only validator.

    .venv/bin/python tests/vectors/cometbft/evidence/make.py

Each block-NAME.json is the `result` of the RPC's answer to `/block`. The signatures are made here, with the
validator's key; CometBFT has verified them before it put the evidence into a block.
"""

import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.ledger.evidence import ConsensusVote
from voice_dpki.ledger.header import (
    NO_BLOCK,
    PRECOMMIT,
    PREVOTE,
    BlockId,
    BlockIdFlag,
    Commit,
    CommitSig,
    Header,
    PartSetHeader,
    SignedHeader,
    Validator,
    format_time,
)

HERE = Path(__file__).parent
COMETBFT = Path(sys.executable).with_name("cometbft")
RPC = "http://127.0.7.30:26657"
CHAIN = "vectors-3"
POWER = 10
DEADLINE_S = 60.0


def block_id(name: bytes, parts: int = 1) -> BlockId:
    return BlockId(name * 32, PartSetHeader(parts, name * 32))


def text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


class Validating:
    """The running CometBFT and its validator's key."""

    def __init__(self, home: Path) -> None:
        value = json.loads((home / "config" / "priv_validator_key.json").read_bytes())["priv_key"]["value"]
        self.key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(value)[:32])
        self.validator = Validator(self.key.public_key().public_bytes_raw(), POWER)

    def call(self, method: str, **parameters: object) -> Any:
        body = {"jsonrpc": "2.0", "id": 0, "method": method, "params": parameters}
        return httpx.post(RPC, json=body, trust_env=False).json()

    def reach(self, height: int) -> None:
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            try:
                if int(self.call("status")["result"]["sync_info"]["latest_block_height"]) >= height:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise TimeoutError

    def header(self, height: int) -> SignedHeader:
        return SignedHeader.from_json(self.call("commit", height=str(height))["result"]["signed_header"])

    def vote(self, kind: int, height: int, **parts: Any) -> dict[str, object]:
        """A signed vote in the form of the RPC."""
        vote = ConsensusVote(
            kind=kind,
            height=height,
            validator_address=self.validator.address,
            signature=b"",
            **{"round": 0, "validator_index": 0, "time_ns": time.time_ns()} | parts,
        )
        return {
            "type": vote.kind,
            "height": str(vote.height),
            "round": vote.round,
            "block_id": vote.block_id.to_json(),
            "timestamp": format_time(vote.time_ns),
            "validator_address": vote.validator_address.hex().upper(),
            "validator_index": vote.validator_index,
            "signature": text(self.key.sign(vote.signed_bytes(CHAIN))),
            "extension": text(vote.extension),
            "extension_signature": text(vote.extension_signature),
        }

    def duplicate_vote(self, height: int, one: dict[str, object], other: dict[str, object]) -> dict[str, object]:
        value = {
            "vote_a": one,
            "vote_b": other,
            "TotalVotingPower": str(POWER),
            "ValidatorPower": str(POWER),
            "Timestamp": format_time(self.header(height).header.time_ns),
        }
        return {"type": "tendermint/DuplicateVoteEvidence", "value": value}

    def attack(self, height: int) -> dict[str, object]:
        """The validator signs another block beside one of the chain, in the same round."""
        header = replace(self.header(height).header, data_hash=b"d" * 32)
        validator = {
            "address": self.validator.address.hex().upper(),
            "pub_key": {"type": "tendermint/PubKeyEd25519", "value": text(self.validator.public_key)},
            "voting_power": str(POWER),
            "proposer_priority": "-7",
        }
        value = {
            "ConflictingBlock": {
                "signed_header": self.signed(header).to_json(),
                "validator_set": {"validators": [validator], "proposer": validator},
            },
            "CommonHeight": str(height),
            "ByzantineValidators": [validator],
            "TotalVotingPower": str(POWER),
            "Timestamp": format_time(header.time_ns),
        }
        return {"type": "tendermint/LightClientAttackEvidence", "value": value}

    def signed(self, header: Header) -> SignedHeader:
        identity = BlockId(header.hash(), PartSetHeader(1, b"p" * 32))
        vote = CommitSig(BlockIdFlag.COMMIT, self.validator.address, header.time_ns, b"")
        commit = Commit(header.height, 0, identity, (vote,))
        signature = self.key.sign(commit.canonical_vote_bytes(CHAIN, 0))
        return SignedHeader(header, replace(commit, signatures=(replace(vote, signature=signature),)))

    def accuse(self, name: str, *evidence: dict[str, object]) -> None:
        """Hand over evidence and keep the block that all of it comes into; TimeoutError where none does."""
        height = int(self.call("status")["result"]["sync_info"]["latest_block_height"]) + 1
        for each in evidence:
            answer = self.call("broadcast_evidence", evidence=each)
            if "error" in answer:
                raise RuntimeError(answer["error"])
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            self.reach(height)
            result = self.call("block", height=str(height))["result"]
            if len(result["block"]["evidence"]["evidence"]) == len(evidence):
                (HERE / f"block-{name}.json").write_text(json.dumps(result, indent=1) + "\n")
                return
            height += 1
        raise TimeoutError


@contextmanager
def cometbft() -> Iterator[Validating]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        subprocess.run([COMETBFT, "init", "--home", home], check=True, capture_output=True)
        genesis = json.loads((home / "config" / "genesis.json").read_bytes())
        (home / "config" / "genesis.json").write_text(json.dumps(genesis | {"chain_id": CHAIN}))
        listen = ["--rpc.laddr", RPC.replace("http", "tcp"), "--p2p.laddr", "tcp://127.0.7.30:26656"]
        command = [str(COMETBFT), "start", "--home", str(home), "--proxy_app", "kvstore", *listen]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield Validating(home)
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    """Make all of them anew."""
    with cometbft() as running:
        running.reach(6)
        nil = running.vote(PREVOTE, 2, block_id=NO_BLOCK, round=3)
        for_a_block = running.vote(PREVOTE, 2, block_id=block_id(b"a"), round=3)
        running.accuse("prevotes", running.duplicate_vote(2, nil, for_a_block))
        one = running.vote(PRECOMMIT, 3, block_id=block_id(b"b"))
        other = running.vote(
            PRECOMMIT,
            3,
            block_id=block_id(b"c", parts=2**32 - 1),
            time_ns=time.time_ns() // 10**9 * 10**9,
            validator_index=2**31 - 1,
            extension=b"nobody signed this",
            extension_signature=b"nor is this a signature",
        )
        both = running.duplicate_vote(3, one, other), running.attack(4)
        running.accuse("unsigned-parts-and-attack", *both)


if __name__ == "__main__":
    main()
