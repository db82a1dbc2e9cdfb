"""Numbers on which all nodes of a ledger agree, written down once more.

The other tests take them from the code, so a changed number changes these tests with it. A node with another number
makes another state of the same block, or refuses what others send: who changes one needs a version of the rules.
"""

from dataclasses import asdict
from hashlib import sha256
from types import ModuleType

import pytest

from voice_dpki.ledger import (
    admission,
    answer_forms,
    batch,
    block,
    changes,
    clock,
    compromise,
    directory,
    evidence,
    expiry,
    further,
    genesis,
    header,
    held_numbers,
    kind,
    light,
    members,
    names,
    owners,
    probation,
    proof,
    proposals,
    quotas,
    records,
    refusals,
    replica,
    single_numbers,
    transactions,
    tree,
    validators,
)
from voice_dpki.ledger import numbers as given_numbers
from voice_dpki.ledger.activation import RULES_KEY
from voice_dpki.ledger.parameters import PARAMETERS_KEY, Parameters
from voice_dpki.ledger.rules import BY_VERSION
from voice_dpki.names import Tn

OF_THE_STATE: list[tuple[ModuleType, dict[str, float]]] = [
    (admission, {"MAX_NOT_YET_VALID_S": 2_592_000}),
    (batch, {"MAX_BATCH": 256}),
    (block, {"PART_BYTES": 65_536}),
    (compromise, {"MAX_FALLEN": 1000}),
    (directory, {"MAX_MEMBERS": 1000, "MAX_VALIDATORS": 200}),
    (evidence, {"MAX_EVIDENCE_BYTES": 1_048_576}),
    (expiry, {"MAX_PRUNED": 200, "MAX_DAYS": 64, "CHUNK": 64}),
    (further, {"MAX_ITEMS": 16, "MAX_VALUE_BYTES": 1024, "MAX_FURTHER_BYTES": 4096}),
    (genesis, {"MAX_GENESIS_BYTES": 4_194_304, "MAX_BLOCK_BYTES": 1_048_576}),
    (kind, {"MAX_SIGNATURE_BYTES": 1024, "MAX_KEY_BYTES": 2048, "MAX_TEXT_LENGTH": 64}),
    (members, {"MAX_ENTRIES": 256, "MAX_URL_LENGTH": 255}),
    (names, {"MAX_NAMES": 128, "MAX_LISTED": 256}),
    (given_numbers, {"MAX_GIVEN": 1000}),
    (records, {"MAX_NUMBERS": 60}),
    (owners, {"MAX_CERTIFICATES": 256}),
    (probation, {"FULL_POWER": 100, "WINDOW": 25, "NEEDED": 20}),
    (proof, {"HASH_BYTES": 32, "KEY_BITS": 256, "MAX_PROOF_BYTES": 8291}),
    (proposals, {"MAX_PROPOSALS": 256, "MAX_CERTIFICATES": 256, "MAX_VERSION": 4_294_967_296}),
    (proposals, {"MAX_HEIGHT": 1_000_000_000_000}),
    (quotas, {"MAX_BLOCK_CERTIFICATES": 4000}),
    (refusals, {"FIRST_CONTENT_CODE": 100}),
    (replica, {"MAX_TRANSACTIONS": 1000, "MAX_EVIDENCE": 8192}),
    (single_numbers, {"MAX_SINGLES": 240}),
    (transactions, {"VERSION": 1, "MAX_TRANSACTION_BYTES": 65_536, "MAX_SIGNATURES": 32}),
    (tree, {"RADIX": 16}),
    (validators, {"POWER": 1}),
]
OF_HEADERS: list[tuple[ModuleType, dict[str, float]]] = [
    (header, {"BLOCK_PROTOCOL": 11, "MAX_CHAIN_ID_BYTES": 50, "MAX_VALIDATORS": 1000, "MAX_APP_HASH_BYTES": 64}),
    (header, {"MAX_TOTAL_POWER": 1_152_921_504_606_846_975, "ADDRESS_BYTES": 20, "SIGNATURE_BYTES": 64}),
    (header, {"PUBLIC_KEY_BYTES": 32, "NO_TIME_NS": -62_135_596_800_000_000_000}),
    (
        light,
        {"TRUSTING_PERIOD_S": 1_209_600, "MAX_CLOCK_DRIFT_S": 10, "MAX_TRUSTED": 64, "MAX_APPROACH_STEPS": 256},
    ),
    (clock, {"FRESH_S": 60, "STEADY_RATE": 0.999, "REMEMBERED_S": 60}),
]
OF_ANSWERS: list[tuple[ModuleType, dict[str, float]]] = [
    (answer_forms, {"MAX_ANSWER_BYTES": 262_144, "MAX_BATCH": 1000, "MAX_LEAVES": 64, "MAX_PREFIX_LEAVES": 1000}),
    (answer_forms, {"MAX_BATCH_BYTES": 16_777_216, "MAX_RECORD_TEXT": 12_288, "MAX_PROOF_TEXT": 16_582}),
    (changes, {"MAX_CHANGES_BYTES": 16_777_216, "MAX_STEPS": 1024}),
]


KEYS: list[tuple[str, bytes, bytes]] = [
    ("expiry/v1", expiry._key(20_000), (20_000).to_bytes(8, "big")),
    ("expiry/v1", expiry._key(20_000, 3), (20_000).to_bytes(8, "big") + (3).to_bytes(8, "big")),
    ("key/v1", owners._leaf_key(bytes(32)), bytes(32)),
    ("member/v1", members.member_key("Bäcker"), "Bäcker".encode()),
    ("usage/v1", quotas._key("Bäcker"), "Bäcker".encode()),
    ("proposal/v1", proposals.proposal_key(bytes(32)), bytes(32)),
    ("name/v1", names.dns_key("A.example"), b"\x82\x63dns\x69a.example"),
    ("name/v1", names._number_key(12, "4930"), b"\x83\x66number\x0c\x644930"),
    ("number/v1", held_numbers.number_key(Tn("49301500")), b"49301500"),
    ("numbers/v1", held_numbers.count_key("Bäcker"), "Bäcker".encode()),
    ("members/v1", directory.DIRECTORY_KEY, b""),
    ("validators/v1", validators.VALIDATORS_KEY, b""),
    ("parameters/v1", PARAMETERS_KEY, b""),
    ("proposals/v1", proposals.LIST_KEY, b""),
    ("probation/v1", probation.PROBATION_KEY, b""),
    ("rules/v1", RULES_KEY, b""),
    ("pruned/v1", expiry._CURSOR_KEY, b""),
]
"""The domain, the key of a leaf, and what follows the domain in what is hashed (docs/spec/state.md)."""


@pytest.mark.parametrize(("domain", "key", "of"), KEYS)
def test_leaves_are_where_all_nodes_look_for_them(domain: str, key: bytes, of: bytes) -> None:
    assert key == sha256(f"voice-dpki/{domain}".encode() + b"\0" + of).digest()


@pytest.mark.parametrize(("module", "numbers"), [*OF_THE_STATE, *OF_HEADERS, *OF_ANSWERS])
def test_numbers_are_those_that_all_nodes_have(module: ModuleType, numbers: dict[str, float]) -> None:
    assert {name: getattr(module, name) for name in numbers} == numbers


def test_a_ledger_whose_genesis_says_nothing_else_has_these_parameters() -> None:
    assert asdict(Parameters()) == {
        "delay_s": 86_400,
        "delay_blocks": 1,
        "voting_s": 2_592_000,
        "proposals_per_operator": 8,
        "retention_s": 2_592_000,
        "certificates_per_hour": 1_000_000,
        "certificates_per_member": 50_000_000,
    }


OF_VERSION_2 = {"one_signature", "counts_all"}
OF_VERSION_3 = OF_VERSION_2 | {"sound_keys", "recounts", "withdraws"}
OF_VERSION_4 = OF_VERSION_3 | {
    "bars_keys", "probation", "reads_all_names", "prepares_names", "binds_anonymous", "reads_constraints",
}  # fmt: skip
OF_VERSION_5 = OF_VERSION_4 | {"lists_common_numbers"}


@pytest.mark.parametrize(
    ("version", "demands"),
    [(1, {"admits_refused"}), (2, OF_VERSION_2), (3, OF_VERSION_3), (4, OF_VERSION_4), (5, OF_VERSION_5)],
)
def test_what_each_version_of_the_rules_demands(version: int, demands: set[str]) -> None:
    """A ledger that has followed a version must go on to make the same of its blocks."""
    said = asdict(BY_VERSION[version])
    assert said.pop("version") == version
    assert {name for name, holds in said.items() if holds} == demands
