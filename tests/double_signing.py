"""Evidence as an honest chain would bring it: a validator's two votes of one height, signed with its key."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from voice_dpki.ledger.evidence import ConsensusVote, DuplicateVote
from voice_dpki.ledger.header import PREVOTE, BlockId, PartSetHeader

TIME_NS = 1_790_000_000 * 10**9


def signed_twice(
    chain_id: str, address: bytes, sign: Callable[[bytes], bytes], power: int = 2, **changes: Any
) -> DuplicateVote:
    """Have the validator with this address vote for two blocks; `changes` are of the second vote."""
    votes = []
    for name, differing in ((b"a", {}), (b"b", changes)):
        parts: dict[str, Any] = {
            "kind": PREVOTE,
            "height": 1,
            "round": 0,
            "block_id": BlockId(name * 32, PartSetHeader(1, name * 32)),
            "time_ns": TIME_NS,
            "validator_address": address,
            "validator_index": 0,
            "signature": b"",
        }
        vote = ConsensusVote(**parts | differing)
        votes.append(replace(vote, signature=sign(vote.signed_bytes(chain_id))))
    return DuplicateVote(vote_a=votes[0], vote_b=votes[1], total_power=power, validator_power=1, time_ns=TIME_NS)
