"""The vectors of headers and of proofs (`tests.spec_vectors` has those of answers)."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.ledger.conftest import CHAIN, DAY_S, START_S
from tests.spec_vectors import Form, forged, text
from voice_dpki.ledger import tree
from voice_dpki.ledger.block import NextBlock
from voice_dpki.ledger.header import ABSENT, SignedHeader, Validator, ValidatorSet, format_time
from voice_dpki.ledger.state import MemoryState


def headers() -> Form:
    """Return light blocks of a chain whose validators change, and what follows from what."""
    sets = [_set(numbers) for numbers in _VALIDATORS]
    blocks = [_light_block(at, sets) for at in range(1, len(sets))]
    return {
        "chain_id": CHAIN,
        "genesis": {"time": format_time(START_S * 10**9), **sets[0].to_json()},
        "blocks": {f"{at}": block for at, block in enumerate(blocks, 1)} | _false_blocks(blocks, sets),
        "cases": [
            {"name": name, "trust": trust, "verified": verified, "block": block, **_HOW, **how, "result": result}
            for name, trust, verified, block, how, result in _CASES
        ],
    }


_VALIDATORS = ("0123", "0123", "0123", "0124", "0154", "0654", "7654", "7654")
"""Which validators the genesis and each block have; the last are those that the last block names as the next."""

_HOW = {"now_s": START_S + 40, "min_height": 0, "with_validators": True}

_CASES: tuple[tuple[str, str, list[str], str, Form, str], ...] = (
    ("the first block", "genesis", [], "1", {}, "trusted"),
    ("two of the four validators of the genesis", "genesis", [], "5", {}, "trusted"),
    ("one of them", "genesis", [], "6", {}, "too-little-trust"),
    ("one of them, after a block between", "genesis", ["5"], "6", {}, "trusted"),
    ("none of them, after a block between", "genesis", ["5"], "7", {}, "trusted"),
    ("none of them, after a block with all of them", "genesis", ["3"], "7", {}, "too-little-trust"),
    ("from a kept header", "4", [], "5", {}, "trusted"),
    ("validators that are known", "genesis", [], "2", {"with_validators": False}, "trusted"),
    ("validators that are not known", "genesis", [], "4", {"with_validators": False}, "validators-needed"),
    ("others' validators", "genesis", [], "4 with validators of 5", {}, "wrong-validators"),
    ("validators that the block before does not name", "genesis", ["1"], "2 by others", {}, "wrong-validators"),
    ("below all that is trusted", "4", [], "3", {}, "before-trust"),
    ("an earlier block", "genesis", ["4"], "3", {}, "trusted"),
    ("an old answer", "genesis", ["4"], "3", {"min_height": 4}, "went-back"),
    ("one of four votes is forged", "genesis", [], "2 with 1 forged", {}, "trusted"),
    ("two of four votes are forged", "genesis", [], "2 with 2 forged", {}, "too-little-power"),
    ("one of four votes is absent", "genesis", [], "2 with 1 absent", {}, "trusted"),
    ("two of four votes are absent", "genesis", [], "2 with 2 absent", {}, "too-little-power"),
    ("another block of a height", "genesis", ["2"], "2 again", {}, "fork"),
    ("another block before", "genesis", ["2 again"], "3", {}, "fork"),
    ("another ledger", "genesis", [], "2 of another ledger", {}, "wrong-chain"),
    ("newer records", "genesis", [], "2 of newer rules", {}, "newer-rules"),
    ("a block from before the genesis", "genesis", [], "2 too early", {}, "time-order"),
    ("10 s ahead of our clock", "genesis", [], "2", {"now_s": START_S}, "trusted"),
    ("11 s ahead of our clock", "genesis", [], "2", {"now_s": START_S - 1}, "future"),
    ("just within 14 days", "genesis", [], "2", {"now_s": START_S + 14 * DAY_S - 1}, "trusted"),
    ("after 14 days", "genesis", [], "2", {"now_s": START_S + 14 * DAY_S}, "trust-expired"),
)
"""Name, what is trusted at first, what was verified after it, the block in question, how, and the result."""


def _key(number: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha256(f"validator {number}".encode()).digest())


def _set(numbers: str) -> ValidatorSet:
    return ValidatorSet.of(Validator(_key(number).public_key().public_bytes_raw(), 1) for number in numbers)


def _light_block(at: int, sets: list[ValidatorSet], **changed: Any) -> Form:
    """Make the block at a height, and those before it."""
    previous = SignedHeader.from_json(_light_block(at - 1, sets)["signed_header"]) if at > 1 else None
    parts: Form = {
        "chain_id": CHAIN,
        "previous": previous,
        "time_ns": (START_S + 5 * at) * 10**9,
        "transactions": (),
        "app_hash": bytes(32),
        "last_results": (),
        "validators": sets[at - 1],
        "next_validators": sets[at],
    }
    keys = {_key(number).public_key().public_bytes_raw(): _key(number).sign for number in "01234567"}
    signers = {Validator(key, 1).address: sign for key, sign in keys.items()}
    block = NextBlock(**parts | changed)
    return {"signed_header": block.seal(signers).to_json(), **block.validators.to_json()}


def _false_blocks(blocks: list[Form], sets: list[ValidatorSet]) -> Form:
    return {
        "4 with validators of 5": blocks[3] | {"validators": blocks[4]["validators"]},
        "2 by others": _light_block(2, sets, validators=sets[5]),
        "2 again": _light_block(2, sets, transactions=(b"another",)),
        "2 of another ledger": _light_block(2, sets, chain_id="other"),
        "2 of newer rules": _light_block(2, sets, version_app=65536),
        "2 too early": _light_block(2, sets, time_ns=(START_S - 1) * 10**9),
        **{f"2 with {count} forged": _with_votes(blocks[1], count, forged) for count in (1, 2)},
        **{f"2 with {count} absent": _with_votes(blocks[1], count, lambda _: _ABSENT) for count in (1, 2)},
    }


_ABSENT = ABSENT.to_json()


def _with_votes(block: Form, count: int, change: Callable[[Form], Form]) -> Form:
    signed = block["signed_header"]
    votes = signed["commit"]["signatures"]
    changed = [*map(change, votes[:count]), *votes[count:]]
    commit = signed["commit"] | {"signatures": changed}
    return block | {"signed_header": signed | {"commit": commit}}


def proofs() -> list[Form]:
    """Return proofs about keys of small trees, and what each shows."""
    return [form for keys in _TREES for form in _of_tree([bytes.fromhex(key.ljust(64, "0")) for key in keys])]


_TREES = ((), ("00",), ("00", "80"), ("00", "80", "c0"), ("a5a5", "a5a4", "a5a5f"), ("40", "41", "4f", "80", "ff"))
"""Keys of trees, without the zeros at their ends."""


def _of_tree(keys: list[bytes]) -> Iterator[Form]:
    state = MemoryState("")
    leaves = {key: sha256(b"value of " + key).digest() for key in keys}
    state.nodes = {path: node for path, node in tree.update(state, leaves).nodes.items() if node is not None}
    root, absent = tree.root(state), bytes.fromhex("a5a5e".ljust(64, "0"))
    for key in (*keys, absent, bytes(31) + b"\1"):
        proof = tree.prove(state, key).serialize()
        form = {"root": root.hex(), "key": key.hex(), "proof": text(proof)}
        yield (
            {**form, "value_hash": leaves[key].hex(), "result": "present"}
            if key in leaves
            else {
                **form,
                "result": "absent",
            }
        )
        yield {**form, "proof": text(proof + b"\0"), "result": "malformed"}
        if key in leaves:
            yield {**form, "result": "unproven"}
            yield {**form, "value_hash": bytes(32).hex(), "result": "unproven"}
        else:
            yield {**form, "value_hash": bytes(32).hex(), "result": "unproven"}
