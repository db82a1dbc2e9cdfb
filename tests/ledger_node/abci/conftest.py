"""A small federation: members, keys, certificates, and the application over a state in memory."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ledger_node.abci.abci_pb2 import Commit, FinalizeBlock
from ledger_node.abci.application import Application
from ledger_node.order.verifier import Verifier
from tests.validator_keys import validator_key
from voice_dpki.effects import SystemRandom
from voice_dpki.ledger.genesis import Genesis, dump_genesis, load_genesis
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.state import Block, MemoryState, Outcome
from voice_dpki.ledger.transactions import ChangeStatus, Submit, endorse
from voice_dpki.names import Height, Tn
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import build_certificate, digest_of
from voice_dpki.x509.tnauthlist import TnRange

CHAIN = "abci-test"
START_S = 1_790_000_000
NOTHING = Height(0)
ORGANIZATIONS = ("Operator A", "Operator B")


@dataclass
class Federation:
    """Two operators with their keys."""

    genesis: Genesis
    keys: dict[str, LocalSigner]
    validators: dict[str, bytes]
    serial: int = 0

    def certificate(self, **options: Any) -> bytes:
        """Make a new certificate of Operator A."""
        self.serial += 1
        return build_certificate(
            generate_es256(),
            organization="Operator A",
            common_name=f"device {self.serial}",
            not_before_s=START_S - 100,
            not_after_s=START_S + 10**7,
            random=SystemRandom(),
            **options,
        )

    def submission(self, certificate: bytes | None = None, by: str = "Operator A", key: str | None = None) -> bytes:
        """Endorse a certificate (a new one unless given) in the name of `by`, with the key of `key`."""
        body = Submit(CHAIN, by, certificate or self.certificate())
        return endorse(body, [self.keys[key or by]])

    def revocation(self, certificate: bytes) -> bytes:
        """Revoke a certificate of Operator A."""
        body = ChangeStatus(CHAIN, "Operator A", digest_of(certificate), 0, "revoked", "keyCompromise")
        return endorse(body, [self.keys["Operator A"]])


@dataclass
class MemoryLedger:
    """Implements `ledger_node.abci.application.Ledger` in memory."""

    view: MemoryState
    height: Height = NOTHING
    time_s: int = START_S
    first: Height = NOTHING
    commits: list[Block] = field(default_factory=list)

    def commit(self, block: Block, outcome: Outcome) -> None:
        self.view.commit(outcome)
        self.height, self.time_s = block.height, block.time_s
        self.commits.append(block)


@dataclass
class Node:
    """An application with its state and the heights that it told of."""

    application: Application
    ledger: MemoryLedger
    progress: list[int]
    verifier: Verifier

    def decide(self, height: int, transactions: list[bytes]) -> FinalizeBlock.Response:
        """Take a block that others decided, as in a replay, and store it."""
        request = FinalizeBlock.Request(height=height, time=at(height), transactions=transactions)
        response = self.application.finalize_block(request)
        self.application.commit(Commit.Request())
        return response


def at(height: int) -> Timestamp:
    """Time of the block at a height."""
    return Timestamp(seconds=START_S + height, nanos=5)


def make_node(genesis: Genesis) -> Node:
    """Start an application at the genesis; unless the test runs its verifier, it verifies everything itself."""
    ledger = MemoryLedger(genesis.initial_state())
    progress: list[int] = []
    verifier = Verifier()
    application = Application(genesis, ledger, verifier, on_progress=progress.append)
    return Node(application, ledger, progress, verifier)


@pytest.fixture(scope="session")
def genesis_keys() -> tuple[Genesis, dict[str, LocalSigner], dict[str, bytes]]:
    keys = {name: generate_es256() for name in ORGANIZATIONS}
    validators = {name: validator_key(index) for index, name in enumerate(ORGANIZATIONS, 1)}
    members = [
        Member(
            organization=name,
            kind=MemberKind.OPERATOR,
            domains=(f"{name[-1].lower()}.example",),
            ranges=(TnRange(Tn(f"49302312{index}000"), 1000),),
            validators=(validators[name],),
            endorsing_keys=(keys[name].public_key_der,),
        )
        for index, name in enumerate(ORGANIZATIONS)
    ]
    return load_genesis(dump_genesis(CHAIN, START_S * 10**9, members)), keys, validators


@pytest.fixture
def federation(genesis_keys: tuple[Genesis, dict[str, LocalSigner], dict[str, bytes]]) -> Federation:
    return Federation(*genesis_keys)


@pytest.fixture
def node(federation: Federation) -> Node:
    return make_node(federation.genesis)


@pytest.fixture
def another_node(federation: Federation) -> Node:
    return make_node(federation.genesis)
