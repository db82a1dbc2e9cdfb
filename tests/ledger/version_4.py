"""A federation whose ledger follows version 4 of the rules from its second block on, and what it sends."""

from typing import Any

from voice_dpki.effects import SystemRandom
from voice_dpki.ledger.activation import notice, rules_at
from voice_dpki.ledger.genesis import dump_genesis, load_genesis
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.parameters import Parameters
from voice_dpki.ledger.rules import V4, Rules
from voice_dpki.ledger.state import Block, apply, check, compose
from voice_dpki.ledger.transactions import ChangeStatus, Submit, endorse
from voice_dpki.names import CertDigest, Height
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import build_certificate

from .test_governance import CHAIN, DELAY_S, KEYS, MEMBERS, START_S, VENDOR, Ledger

A, B, C, D = (each.organization for each in MEMBERS)


def ledger_of(rules: Rules = V4, members: tuple[Member, ...] = (), **parameters: int) -> Ledger:
    """Return a ledger that has just begun a version; `members` are more of its genesis."""
    asked = Parameters(**{"delay_s": DELAY_S, "delay_blocks": 2, "voting_s": 10**6, **parameters})
    found = [*MEMBERS, VENDOR, *members, notice(rules.version, 2)]
    ledger = Ledger(load_genesis(dump_genesis(CHAIN, START_S * 10**9, found, parameters=asked)))
    ledger.block()
    ledger.block()
    assert rules_at(ledger.state, ledger.height) is rules
    return ledger


def certificate(key: LocalSigner | None = None, organization: str | None = A, **options: Any) -> bytes:
    """Make a certificate that is valid for some months, under a new key unless one is given."""
    options = {
        "common_name": "device",
        "not_before_s": START_S - 1,
        "not_after_s": START_S + 10**7,
        "random": SystemRandom(),
        **options,
    }
    return build_certificate(key or generate_es256(), organization=organization, **options)


def submission(der: bytes, by: str = A) -> bytes:
    return endorse(Submit(CHAIN, by, der), [KEYS[by]])


def change(
    digest: CertDigest, status: str = "revoked", revision: int = 0, reason: str = "keyCompromise", by: str = A
) -> bytes:
    return endorse(ChangeStatus(CHAIN, by, digest, revision, status, reason), [KEYS[by]])


def refusal(ledger: Ledger, raw: bytes) -> str:
    """Return the name of the refusal, having shown that a rogue proposer's block with it is not accepted.."""
    found = check(ledger.state, Height(ledger.height + 1), ledger.time_s, raw)
    block = Block(Height(ledger.height + 1), ledger.time_s + 1, (raw,))
    entered = compose(V4, block, apply(ledger.state, block)).block.transactions
    assert entered == ((raw,) if found.code == 0 else ())
    return found.name
