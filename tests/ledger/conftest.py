"""Two operators and a vendor with their keys, and a ledger in memory that they use."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.double_signing import signed_twice
from voice_dpki.effects import SystemRandom
from voice_dpki.ledger.block import NextBlock
from voice_dpki.ledger.evidence import DuplicateVote
from voice_dpki.ledger.genesis import Genesis, dump_genesis, load_genesis
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.replica import Replica, SignedBlock, Step
from voice_dpki.ledger.state import MemoryState
from voice_dpki.ledger.transactions import ChangeStatus, Submit, endorse
from voice_dpki.names import CertDigest, Tn
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import build_certificate
from voice_dpki.x509.tnauthlist import TnRange

CHAIN = "test-1"
START_S = 1_790_000_000
DAY_S = 86_400


@dataclass
class Federation:
    """The members, what they can sign, and certificates for them."""

    keys: dict[str, LocalSigner]
    validator_keys: list[Ed25519PrivateKey]
    genesis: Genesis
    genesis_json: bytes

    def certificate(self, organization: str | None = "Operator A", **options: Any) -> bytes:
        """Make a certificate that is valid for a month from the start, under a new key unless one is given."""
        options = {
            "common_name": "device",
            "not_before_s": START_S - DAY_S,
            "not_after_s": START_S + 30 * DAY_S,
            "random": SystemRandom(),
            **options,
        }
        return build_certificate(options.pop("key", None) or generate_es256(), organization=organization, **options)

    def submission(
        self, der: bytes, by: str = "Operator A", *, key: str | None = None, chain: str = CHAIN
    ) -> bytes:
        """Endorse a certificate in the name of `by`, with the key of `key` (by default its own)."""
        return endorse(Submit(chain, by, der), [self.keys[key or by]])

    def change(
        self, digest: CertDigest, status: str, revision: int, by: str = "Operator A", reason: str = "unspecified"
    ) -> bytes:
        """Change a certificate's status in the name of `by`."""
        return endorse(ChangeStatus(CHAIN, by, digest, revision, status, reason), [self.keys[by]])

    def state(self) -> MemoryState:
        """Return the state of the genesis."""
        return self.genesis.initial_state()


@dataclass
class MemoryChain:
    """A chain in memory, with the blocks that an engine would make."""

    federation: Federation
    state: MemoryState
    replica: Replica
    blocks: list[SignedBlock] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def next_block(self, *transactions: bytes, **changes: Any) -> SignedBlock:
        """Make the next block without taking it; `changes` replace what it is made of."""
        genesis = self.federation.genesis
        signers = {
            Validator(key.public_key().public_bytes_raw(), 1).address: key.sign
            for key in self.federation.validator_keys
        }
        height = self.replica.next_height
        parts: dict[str, Any] = {
            "chain_id": CHAIN,
            "previous": self.replica.last,
            "time_ns": (START_S + 5 * height) * 10**9,
            "transactions": transactions,
            "app_hash": self.replica.app_hash,
            "last_results": self.replica.last_results,
            "validators": genesis.validators,
            "next_validators": genesis.validators,
            "consensus_hash": genesis.consensus_hash(),
        }
        following = NextBlock(**parts | changes)
        return SignedBlock(following.seal(signers), tuple(transactions), tuple(following.evidence))

    def double_signing(self, number: int = 0, **changes: Any) -> DuplicateVote:
        """Have a validator sign two blocks of one height, with its key; `changes` are of the second vote."""
        key = self.federation.validator_keys[number]
        address = Validator(key.public_key().public_bytes_raw(), 1).address
        return signed_twice(CHAIN, address, key.sign, **changes)

    def take(self, block: SignedBlock) -> Step:
        """Take a block and store what is to be stored."""
        step = self.replica.take(block)
        for executed in step.executed:
            self.state.commit(executed.outcome)
        self.blocks.append(block)
        self.steps.append(step)
        return step

    def add(self, transactions: Sequence[bytes]) -> None:
        """Take a block with transactions, and the empty one that proves it."""
        self.take(self.next_block(*transactions))
        self.take(self.next_block())


@pytest.fixture(scope="session")
def federation() -> Federation:
    return make_federation()


def make_federation() -> Federation:
    """Make the members and their keys."""
    keys = {name: generate_es256() for name in ("Operator A", "Operator B", "Vendor")}
    validator_keys = [Ed25519PrivateKey.generate() for _ in range(2)]
    public = [key.public_key().public_bytes_raw() for key in validator_keys]
    members = [
        Member(
            organization="Operator A",
            kind=MemberKind.OPERATOR,
            domains=("a.example",),
            ranges=(TnRange(Tn("493023125000"), 1000),),
            spcs=("1234",),
            validators=(public[0],),
            endorsing_keys=(keys["Operator A"].public_key_der,),
        ),
        Member(
            organization="Operator B",
            kind=MemberKind.OPERATOR,
            domains=("b.example",),
            ranges=(TnRange(Tn("442079460000"), 1000),),
            validators=(public[1],),
            endorsing_keys=(keys["Operator B"].public_key_der,),
        ),
        Member("Vendor", MemberKind.VENDOR, endorsing_keys=(keys["Vendor"].public_key_der,)),
    ]
    genesis = dump_genesis(CHAIN, START_S * 10**9, members)
    return Federation(keys, validator_keys, load_genesis(genesis), genesis)


@pytest.fixture
def chain(federation: Federation) -> MemoryChain:
    state = federation.state()
    return MemoryChain(federation, state, Replica(state, None))
