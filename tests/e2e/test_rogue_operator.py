"""An operator whose keys are all stolen, in a federation of four: what the thief tries, and what comes of it.

Everything goes over HTTP to real nodes. What is refused is refused by each of the four with the same code, name and
sentence.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from operator import methodcaller
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger_node.command.config import read_validator_key
from ledger_node.command.federation import Processes, agree
from ledger_node.command.federation_folder import OperatorNode
from ledger_node.order.engine import signers_of
from tests.present import present
from voice_dpki.effects import SystemRandom
from voice_dpki.ledger.block import sign_commit
from voice_dpki.ledger.genesis import Genesis
from voice_dpki.ledger.header import ABSENT, SignedHeader, Validator, ValidatorSet
from voice_dpki.ledger.kind import Endorsement
from voice_dpki.ledger.light import LightBlock, LightClient, LightCode, LightError
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.proposals import (
    Change,
    Proposal,
    ProposalState,
    RemoveMember,
    SetMember,
    SetStatus,
    proposal_id,
    proposal_key,
)
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.transactions import (
    Batch,
    ChangeStatus,
    OwnerStatus,
    Renew,
    Submit,
    Transaction,
    endorse,
    renewal_bytes,
)
from voice_dpki.names import Tn
from voice_dpki.wire.ledger.client import LedgerClient, light_client
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import build_certificate, digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

from . import versions
from .operators import at, reaches, require_cometbft

NETWORK, NARROW_NETWORK = "127.0.6", "127.0.7"
QUOTA = 40
A, B, C, ROGUE = (f"Operator {letter}" for letter in "ABCD")

pytestmark = pytest.mark.timeout(300)


class Federation(versions.Federation):
    """Four running nodes, and every operator's keys: the tests do with them what their owner or the thief does."""

    def __init__(self, folder: Path, network: str, **parameters: int) -> None:
        super().__init__(folder, network, **parameters)
        self.validator_key: Ed25519PrivateKey = read_validator_key(folder / "keys" / "validator-operator-d-1.pem")

    def certificate(self, organization: str | None, key: LocalSigner | None = None, **options: Any) -> bytes:
        now_s = int(time.time())
        options = {"common_name": "device", "not_before_s": now_s - 60, "not_after_s": now_s + 86_400, **options}
        signer = key or generate_es256()
        return build_certificate(signer, organization=organization, random=SystemRandom(), **options)

    def submission(self, der: bytes, by: str = ROGUE, key: LocalSigner | None = None) -> bytes:
        return self.endorsed(Submit(self.genesis.chain_id, by, der), key)

    def change(self, der: bytes, revision: int, status: str, by: str = ROGUE) -> bytes:
        body = ChangeStatus(self.genesis.chain_id, by, digest_of(der), revision, status, "unspecified")
        return self.endorsed(body)

    def proposal(self, change: Change, by: str = ROGUE) -> bytes:
        return super().proposal(change, by)

    async def accepted(self, *transactions: bytes) -> None:
        """Have transactions take effect, one after the other, and wait until all nodes have it."""
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            for raw in transactions:
                answer = await http.post(f"{self.nodes[0].url}/ledger/v1/transactions", content=raw)
                assert answer.json()["code"] == 0, answer.text
                await self.reach(answer.json()["height"] + 1)

    async def reach(self, height: int) -> None:
        for node in self.nodes:
            await reaches(partial(at, node, height), "all nodes have the block")

    async def refused(self, raw: bytes) -> str:
        """Hand a transaction to all nodes, which must refuse it alike; returns the refusal's name."""
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            urls = [f"{node.url}/ledger/v1/transactions" for node in self.nodes]
            answers = await asyncio.gather(*(http.post(url, content=raw) for url in urls))
        assert {answer.status_code for answer in answers} == {422}, [answer.text for answer in answers]
        ((code, name, detail),) = {
            tuple(answer.json()[each] for each in ("code", "name", "detail")) for answer in answers
        }
        assert code > 0
        assert detail.endswith(".")
        return name

    async def statuses(self, *ders: bytes) -> list[list[CertStatus]]:
        """Ask every node, and verify its proofs from the genesis."""
        return [
            [
                each.status
                for each in await self.ask(node, lambda client: client.resolve_all(list(map(digest_of, ders))))
            ]
            for node in self.nodes
        ]

    async def ask(self, node: OperatorNode, question: Callable[[LedgerClient], Any]) -> Any:
        async with LedgerClient.of_genesis(node.url, self.genesis, max_age_s=60, timeout_s=10) as client:
            return await question(client)


@contextmanager
def running(federation: Federation) -> Iterator[Federation]:
    """Run the nodes, which must agree after all that was tried."""
    with Processes(federation.nodes) as processes:
        asyncio.run(processes.ready())
        yield federation
        asyncio.run(agree(federation.nodes))


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """One for all tests that use nothing up."""
    require_cometbft()
    with running(Federation(tmp_path_factory.mktemp("r") / "net", NETWORK)) as federation:
        yield federation


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Federation]:
    """One in which a member may have QUOTA certificates recorded in an hour."""
    require_cometbft()
    with running(Federation(tmp_path / "net", NARROW_NETWORK, certificates_per_hour=QUOTA)) as federation:
        yield federation


async def test_it_cannot_record_for_anothers_organisation(federation: Federation) -> None:
    theirs, stolen = federation.certificate(A), federation.keys[ROGUE]
    assert await federation.refused(federation.submission(theirs)) == "wrong-organization"
    assert await federation.refused(federation.submission(theirs, A, stolen)) == "unknown-signer"
    assert await federation.refused(federation.submission(theirs, "Operator E", stolen)) == "unknown-member"
    batch = Batch(federation.genesis.chain_id, ROGUE, (federation.certificate(ROGUE), theirs))
    assert await federation.refused(federation.endorsed(batch)) == "wrong-organization"
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        rogue = federation.nodes[3]
        headers = {"Authorization": f"Bearer {rogue.token}"}
        answer = await http.post(f"{rogue.url}/ledger/v1/submissions", content=theirs, headers=headers)
        assert (answer.status_code, answer.json()["name"]) == (422, "wrong-organization")
        other = await http.post(f"{federation.nodes[0].url}/ledger/v1/submissions", content=theirs, headers=headers)
        assert other.status_code == 401, "its token opens no other operator's submission node"
    assert await federation.statuses(theirs) == [[CertStatus.UNKNOWN]] * 4


NUMBER = "493023125000"
"""Of A's range."""


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ({"tn_auth_list": TnAuthList(tns=(Tn(NUMBER),))}, "numbers-outside-ranges"),
        ({"tn_auth_list": TnAuthList(ranges=(TnRange(Tn(NUMBER), 1000),))}, "numbers-outside-ranges"),
        ({"tn_auth_list": TnAuthList(spcs=("1234",))}, "numbers-outside-ranges"),
        ({"uris": (f"sip:+{NUMBER}@d.example",)}, "names-outside-domains"),
        ({"uris": (f"tel:+{NUMBER}",)}, "names-outside-domains"),
        ({"uris": ("sip:alice@a.example",)}, "names-outside-domains"),
        ({"dns_names": ("sip.a.example",)}, "names-outside-domains"),
    ],
)
async def test_it_cannot_record_anothers_numbers_and_names(
    federation: Federation, names: dict[str, Any], why: str
) -> None:
    assert await federation.refused(federation.submission(federation.certificate(ROGUE, **names))) == why


async def test_it_cannot_take_anothers_key(federation: Federation) -> None:
    key = generate_es256()
    await federation.accepted(federation.submission(federation.certificate(A, key), A))
    for taken in (key, federation.keys[A]):
        again = federation.submission(federation.certificate(ROGUE, taken))
        assert await federation.refused(again) == "key-of-another-organization"
    nobodys = federation.submission(federation.certificate(None, key, common_name=None))
    assert await federation.refused(nobodys) == "key-of-another-organization"


async def test_it_cannot_forge_an_endorsement(federation: Federation) -> None:
    der = federation.certificate(A)
    mine = Transaction.parse(federation.submission(der, A))
    other = Transaction.parse(federation.submission(federation.certificate(A), A))
    key_id = mine.endorsements[0].key_id
    stolen = federation.keys[ROGUE].sign(b"voice-dpki/tx/v1\0" + mine.body_bytes)
    for signature in (bytes(64), other.endorsements[0].signature, stolen):
        forged = Transaction(mine.body, mine.body_bytes, (Endorsement(key_id, signature),))
        assert await federation.refused(forged.serialize()) == "bad-signature"
    beside = Transaction.parse(federation.submission(der, A, federation.keys[ROGUE])).endorsements
    both = Transaction(mine.body, mine.body_bytes, (*mine.endorsements, *beside))
    assert await federation.refused(both.serialize()) == "unknown-signer"


async def test_it_cannot_undo_a_revocation_or_a_suspension_by_others(federation: Federation) -> None:
    """Certificates of A, and its own: revoked by the owner's key, revoked and suspended by the quorum."""
    key, chain_id = generate_es256(), federation.genesis.chain_id
    theirs, own = federation.certificate(A), federation.certificate(ROGUE, key)
    bad, doubtful = (federation.certificate(ROGUE) for _ in range(2))
    by_owner = OwnerStatus(chain_id, ROGUE, digest_of(own), 0, "revoked", "keyCompromise", key.public_key_der)
    await federation.accepted(
        federation.submission(theirs, A),
        *(federation.submission(der) for der in (own, bad, doubtful)),
        federation.change(theirs, 0, "revoked", A),
        endorse(by_owner, [key]),
    )
    for der, status in ((bad, CertStatus.REVOKED), (doubtful, CertStatus.SUSPENDED)):
        proposal = federation.proposal(SetStatus((digest_of(der),), status, "keyCompromise"), A)
        await federation.accepted(proposal, federation.vote(proposal, B), federation.vote(proposal, C))
    resume_own = replace(by_owner, revision=1, status="valid")
    attempts = {
        federation.change(theirs, 1, "valid"): "not-the-owner",
        federation.submission(theirs): "already-recorded",
        federation.change(own, 1, "valid"): "transition-not-allowed",
        endorse(resume_own, [key]): "transition-not-allowed",
        federation.change(bad, 1, "valid"): "transition-not-allowed",
        federation.change(bad, 1, "suspended"): "transition-not-allowed",
        federation.submission(bad): "already-recorded",
        federation.change(doubtful, 1, "valid"): "outranked",
        federation.proposal(SetStatus((digest_of(bad),), CertStatus.VALID, "unspecified")): "unknown-change",
    }
    new = federation.certificate(ROGUE, key)
    signature = key.sign(renewal_bytes(chain_id, digest_of(own), digest_of(new)))
    renewal = Renew(chain_id, ROGUE, new, digest_of(own), key.public_key_der, signature)
    attempts[federation.endorsed(renewal)] = "not-valid"
    for raw, why in attempts.items():
        assert await federation.refused(raw) == why
    revoked = CertStatus.REVOKED
    assert await federation.statuses(theirs, own, bad, doubtful) == [[revoked] * 3 + [CertStatus.SUSPENDED]] * 4


async def test_it_cannot_replay(federation: Federation) -> None:
    """Neither what others signed before, nor what was signed for another ledger."""
    der = federation.certificate(A)
    old = [
        federation.submission(der, A),
        federation.change(der, 0, "suspended", A),
        federation.change(der, 1, "valid", A),
    ]
    await federation.accepted(*old, federation.change(der, 2, "suspended", A))
    reasons = [await federation.refused(raw) for raw in old]
    assert reasons == ["already-recorded", "wrong-revision", "wrong-revision"]
    elsewhere = ChangeStatus("another-ledger", A, digest_of(der), 3, "valid", "unspecified")
    assert await federation.refused(federation.endorsed(elsewhere)) == "wrong-chain"
    assert await federation.statuses(der) == [[CertStatus.SUSPENDED]] * 4


async def test_it_cannot_decide_alone(federation: Federation) -> None:
    """Not about another's numbers, domains and membership, nor with a member that it admits to vote for it."""
    mine, theirs = present(federation.genesis.member(ROGUE)), present(federation.genesis.member(A))
    for grab, why in (
        (replace(mine, ranges=(*mine.ranges, TnRange(Tn(NUMBER), 10))), "range-taken"),
        (replace(mine, domains=(*mine.domains, "sub.a.example")), "domain-taken"),
        (replace(mine, validators=(*mine.validators, *theirs.validators)), "validator-taken"),
        (
            replace(mine, endorsing_keys=(*mine.endorsing_keys, *theirs.endorsing_keys)),
            "endorsing-key-taken",
        ),
    ):
        assert await federation.refused(federation.proposal(SetMember(grab, 0))) == why
    puppet = Member("Puppet", MemberKind.OPERATOR, endorsing_keys=(generate_es256().public_key_der,))
    proposals = [
        federation.proposal(change)
        for change in (
            RemoveMember(A),
            SetMember(replace(theirs, ranges=()), 0),
            SetMember(replace(theirs, endorsing_keys=(generate_es256().public_key_der,)), 0),
            SetMember(puppet, None),
        )
    ]
    await federation.accepted(*proposals)
    for proposal in proposals:
        assert await federation.refused(proposal) == "already-proposed"
        assert await federation.refused(federation.vote(proposal, ROGUE)) == "already-voted"
        assert await federation.refused(federation.vote(proposal, A, federation.keys[ROGUE])) == "unknown-signer"
    await federation.accepted(*(federation.vote(proposal, B) for proposal in proposals))
    keys = [proposal_key(proposal_id(Transaction.parse(proposal).body_bytes)) for proposal in proposals]
    for node in federation.nodes:
        found = [Proposal.parse(value) for value in await federation.ask(node, lambda client: client.leaves(keys))]
        assert {(each.state, each.approving) for each in found} == {(ProposalState.OPEN, (B, ROGUE))}, "two of four"
    await federation.accepted(federation.submission(federation.certificate(A), A))


async def test_it_cannot_fill_the_ledger(narrow: Federation) -> None:
    """Its quota ends what it records, and the others go on. A clock hour may end amid this: it gets two quotas."""
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        for number in range(2 * 2 + 1):
            ders = tuple(narrow.certificate(ROGUE) for _ in range(QUOTA // 2))
            raw = narrow.endorsed(Batch(narrow.genesis.chain_id, ROGUE, ders))
            url = narrow.nodes[number % 4].url
            answer = (await http.post(f"{url}/ledger/v1/transactions", content=raw)).json()
            if answer["code"]:
                break
            await narrow.reach(answer["height"] + 1)
    assert await narrow.refused(raw) == "hourly-quota"
    await narrow.accepted(narrow.submission(narrow.certificate(A), A))
    assert await narrow.statuses(*ders) == [[CertStatus.UNKNOWN] * len(ders)] * 4


class Chain:
    """Real headers of the federation, and what the thief makes of them with the stolen validator key."""

    def __init__(self, genesis: Genesis, blocks: dict[int, LightBlock], key: Ed25519PrivateKey) -> None:
        self.genesis = genesis
        self.blocks = blocks
        self.key = key
        self.alone = ValidatorSet.of([Validator(key.public_key().public_bytes_raw(), 1)])

    def forged(self, height: int, *, keep_votes: bool = False, alone: bool = False, **changes: Any) -> SignedHeader:
        """Change a real header and sign it; `keep_votes`: with the others' votes for the real one beside."""
        real = self.blocks[height].signed_header
        validators = self.alone if alone else self.blocks[height].validators
        if alone:
            changes |= {"validators_hash": validators.hash(), "next_validators_hash": validators.hash()}
        header = replace(real.header, **changes)
        identity = replace(real.commit.block_id, hash=header.hash())
        commit = sign_commit(header, identity, validators, signers_of([self.key]), header.time_ns)
        if keep_votes:
            pairs = zip(real.commit.signatures, commit.signatures, strict=True)
            commit = replace(commit, signatures=tuple(b if b is not ABSENT else a for a, b in pairs))
        return SignedHeader(header, commit)

    def client(self, height: int = 0) -> LightClient:
        """A light client that trusts the genesis, and has verified the real header at a height."""
        light = light_client(self.genesis)
        if height:
            light.verify(self.blocks[height].signed_header, None, time.time())
        return light


@pytest.fixture
async def chain(federation: Federation) -> Chain:
    heights = (1, 2, 3, 4, 5)
    while not await at(federation.nodes[0], heights[-1] + 1):
        await federation.accepted(federation.submission(federation.certificate(A), A))
    blocks = {
        height: await federation.ask(federation.nodes[height % 4], methodcaller("light_block", height))
        for height in heights
    }
    return Chain(federation.genesis, blocks, federation.validator_key)


def why_not(light: LightClient, signed: SignedHeader, validators: ValidatorSet | None) -> LightCode:
    with pytest.raises(LightError) as refused:
        light.verify(signed, validators, time.time())
    assert light.fork is None, "a header that one validator signed is no evidence against the others"
    return refused.value.code


FALSE_ROOT = sha256(b"a state in which nothing is revoked").digest()


async def test_it_cannot_convince_the_light_client(chain: Chain) -> None:
    """A false state in the next header, in a later one and in one that is trusted already."""
    all_four = chain.genesis.validators
    power, trust = LightCode.TOO_LITTLE_POWER, LightCode.TOO_LITTLE_TRUST
    for known, height in ((0, 1), (1, 2), (1, 4), (3, 3)):
        light = chain.client(known)
        assert why_not(light, chain.forged(height, app_hash=FALSE_ROOT), None) is power
        light = chain.client(known)
        votes = chain.forged(height, keep_votes=True, app_hash=FALSE_ROOT)
        assert why_not(light, votes, all_four) is (power if height == known + 1 else trust)
    for known, height, code in (
        (0, 1, LightCode.WRONG_VALIDATORS),
        (1, 2, LightCode.WRONG_VALIDATORS),
        (1, 4, trust),
    ):
        fork = chain.forged(height, alone=True, app_hash=FALSE_ROOT)
        assert why_not(chain.client(known), fork, chain.alone) is code, "a chain of its own, of one validator"
        assert why_not(chain.client(known), fork, all_four) is LightCode.WRONG_VALIDATORS


async def test_it_cannot_make_its_vote_count_twice_or_bring_back_the_past(chain: Chain) -> None:
    forged = chain.forged(4, app_hash=FALSE_ROOT)
    (vote,) = [vote for vote in forged.commit.signatures if vote is not ABSENT]
    four_times = replace(forged, commit=replace(forged.commit, signatures=(vote,) * 4))
    assert why_not(chain.client(1), four_times, None) is LightCode.WRONG_FORM
    other = replace(forged, commit=chain.blocks[4].signed_header.commit)
    assert why_not(chain.client(1), other, None) is LightCode.WRONG_FORM, "the real commit is for another block"
    old = chain.blocks[2].signed_header
    assert why_not(chain.client(4), old, None) is LightCode.WENT_BACK
    assert why_not(chain.client(1), chain.forged(4, chain_id="another"), None) is LightCode.WRONG_CHAIN
