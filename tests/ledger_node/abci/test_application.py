"""The application: a block's way through ABCI's methods, and the state machine's AppHash for the same blocks."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ledger_node.abci.abci_pb2 import (
    CheckTx,
    Commit,
    FinalizeBlock,
    Info,
    InitChain,
    Misbehavior,
    PrepareProposal,
    ProcessProposal,
    PublicKey,
    Query,
    ValidatorPower,
)
from ledger_node.abci.application import (
    CODESPACE,
    MAX_PROPOSED_BYTES,
    MIN_PROPOSED_BYTES,
    PROOF_TYPE,
    _affordable,
    validator_updates,
)
from ledger_node.order.verifier import running_verifier
from voice_dpki.errors import LocalError
from voice_dpki.ledger import tree
from voice_dpki.ledger.admission import read_admitted
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.members import Member, member_key
from voice_dpki.ledger.proof import Proof, verify_absence, verify_inclusion
from voice_dpki.ledger.records import CertRecord
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.ledger.replica import MAX_TRANSACTIONS
from voice_dpki.ledger.rules import NEWEST
from voice_dpki.ledger.signatures import verify
from voice_dpki.ledger.state import LEAVES, OK, Block, TxResult, apply, forget_verdicts
from voice_dpki.ledger.transactions import KINDS
from voice_dpki.names import Height
from voice_dpki.x509.profile import digest_of

FIRST = Timestamp(seconds=1_790_000_001, nanos=5)


def check(node: Any, transaction: bytes, occasion: Any = CheckTx.NEW) -> CheckTx.Response:
    return node.application.check_tx(CheckTx.Request(transaction=transaction, occasion=occasion))


def propose(node: Any, transactions: list[bytes]) -> list[bytes]:
    request = PrepareProposal.Request(
        max_bytes=10**6, height=node.ledger.height + 1, time=FIRST, transactions=transactions
    )
    return list(node.application.prepare_proposal(request).transactions)


def judge(node: Any, transactions: list[bytes]) -> int:
    request = ProcessProposal.Request(height=node.ledger.height + 1, time=FIRST, transactions=transactions)
    return node.application.process_proposal(request).verdict


def query(node: Any, path: str, data: bytes) -> Query.Response:
    return node.application.query(Query.Request(path=path, data=data))


def test_chain_begins_with_the_genesis_state(federation: Any, node: Any) -> None:
    assert node.application.info(Info.Request()).last_block_height == 0
    request = InitChain.Request(chain_id=federation.genesis.chain_id, initial_height=1)
    with pytest.raises(LocalError, match="another genesis"):
        node.application.init_chain(request)
    later = InitChain.Request(chain_id=federation.genesis.chain_id, initial_height=2)
    for key in federation.validators.values():
        later.validators.append(ValidatorPower(public_key=PublicKey(ed25519=key), power=1))
    with pytest.raises(LocalError, match="another genesis"):
        node.application.init_chain(later)
    for key in federation.validators.values():
        request.validators.append(ValidatorPower(public_key=PublicKey(ed25519=key), power=1))
    assert node.application.init_chain(request).app_hash == federation.genesis.outcome().app_hash


def test_same_blocks_give_the_app_hash_and_codes_of_the_state_machine(federation: Any, node: Any) -> None:
    """Whatever order CometBFT asks in, the outcome is `apply`'s, which is the embedded engine's."""
    certificates = [federation.certificate() for _ in range(4)]
    blocks = [
        [federation.submission(certificates[0]), federation.submission(certificates[1])],
        [],
        [federation.submission(certificates[0]), federation.revocation(certificates[1])],
        [federation.submission(certificates[2], key="Operator B"), federation.submission(certificates[3])],
    ]
    state = federation.genesis.initial_state()
    for height, transactions in enumerate(blocks, 1):
        outcome = apply(state, Block(Height(height), 1_790_000_000 + height, tuple(transactions)))
        state.commit(outcome)
        response = node.decide(height, transactions)
        assert response.app_hash == outcome.app_hash
        assert [item.code for item in response.results] == [item.code for item in outcome.results]
        info = node.application.info(Info.Request())
        assert (info.last_block_height, info.last_block_app_hash) == (height, outcome.app_hash)
    assert [item.code for item in response.results] == [Refusal.SIGNER.code, 0]


def test_a_proposal_is_executed_once(
    federation: Any, node: Any, another_node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[Block] = []

    def counting(view: Any, block: Block) -> Any:
        executed.append(block)
        return apply(view, block)

    for module in ("ledger_node.abci.application", "voice_dpki.ledger.state"):
        monkeypatch.setattr(f"{module}.apply", counting)
    transactions = propose(node, [federation.submission(), federation.submission(key="Operator B"), b"garbage"])
    assert len(transactions) == 1
    assert judge(node, transactions) == ProcessProposal.ACCEPT
    assert judge(another_node, transactions) == ProcessProposal.ACCEPT
    request = FinalizeBlock.Request(height=1, time=FIRST, transactions=transactions)
    answers = [peer.application.finalize_block(request) for peer in (node, another_node)]
    assert answers[0] == answers[1]
    assert len(executed) == 2, "once by the proposer, once by the other"


def test_transactions_are_judged_as_of_the_next_block(federation: Any, node: Any) -> None:
    seen = list[int]()

    def judged(_view: Any, height: int, _time_s: int, _raw: bytes) -> TxResult:
        seen.append(height)
        return OK

    node.application.judge(judged, b"")
    node.decide(1, [federation.submission()])
    node.application.judge(judged, b"")
    assert seen == [1, 2]


def test_a_proposal_is_filled_to_the_last_byte() -> None:
    raws = [b"x" * 10] * 5
    assert [len(_affordable(raws, size)) for size in (1, 10, 11, 20, 21, 1000)] == [1, 1, 2, 2, 3, 5]


def test_a_first_block_that_took_rounds_leaves_the_smallest_proposal(federation: Any, node: Any) -> None:
    """Nothing is known of a block before it."""
    transactions = [federation.submission()] * 3
    node.application._pace(Block(Height(1), 0, tuple(transactions)), 1)
    assert node.application._affordable_bytes == MIN_PROPOSED_BYTES
    with pytest.raises(LocalError):
        node.application.commit(Commit.Request())


def test_what_no_member_signed_enters_no_block(federation: Any, node: Any) -> None:
    good, foreign = federation.submission(), federation.submission(key="Operator B")
    assert judge(node, [good]) == ProcessProposal.ACCEPT
    assert judge(node, [good, foreign]) == ProcessProposal.REJECT
    assert judge(node, [b"garbage"]) == ProcessProposal.REJECT
    assert judge(node, []) == ProcessProposal.ACCEPT


def test_a_block_has_at_most_so_many_transactions(federation: Any, node: Any) -> None:
    transactions = [federation.submission()] * (MAX_TRANSACTIONS + 1)
    assert judge(node, transactions) == ProcessProposal.REJECT


def test_proposals_grow_with_the_blocks_and_shrink_when_these_take_rounds(federation: Any, node: Any) -> None:
    transactions = [federation.submission()] * MAX_TRANSACTIONS
    size = len(transactions[0])

    def proposed_after(round_of_last: int, count: int) -> int:
        request = FinalizeBlock.Request(
            height=node.ledger.height + 1, time=FIRST, transactions=transactions[:count]
        )
        request.decided_last_commit.round = round_of_last
        node.application.finalize_block(request)
        node.application.commit(Commit.Request())
        return sum(map(len, propose(node, transactions)))

    smallest = len(propose(node, transactions)) * size
    assert 0 <= smallest - MIN_PROPOSED_BYTES < size
    assert 0 <= proposed_after(0, 100) - 200 * size < size
    assert 0 <= proposed_after(0, 500) - MAX_PROPOSED_BYTES < size
    assert 0 <= proposed_after(1, 500) - 250 * size < size, "the last block, of 500, took more than one round"
    assert proposed_after(0, 0) == smallest, "nobody knows yet how fast a burst is verified"


async def test_what_is_not_verified_yet_is_not_proposed_and_what_is_bad_never(federation: Any, node: Any) -> None:
    good, late, bad = federation.submission(), federation.submission(), federation.submission(b"no certificate")
    async with running_verifier(node.verifier):
        for raw in (good, bad):
            assert check(node, raw).code == 0, "its sender has room for it"
            await node.verifier.verify(raw)
        check(node, late)
        assert propose(node, [bad, late, good]) == [good]
        assert propose(node, [bad, late]) == [late], "rather than an empty block"
        other = federation.submission()
        check(node, other)
        assert propose(node, [late, other]) == [late], "one, and no more"
        assert check(node, bad, CheckTx.RECHECK).code == Refusal.CERTIFICATE_MALFORMED.code
        assert check(node, good, CheckTx.RECHECK).code == check(node, late, CheckTx.RECHECK).code == 0
        await node.verifier.verify(late)
        assert propose(node, [bad, late, good]) == [late, good]


async def test_what_a_block_has_decided_is_remembered_as_refused_no_longer(federation: Any, node: Any) -> None:
    """The verifier has room for a bounded number of refusals, and needs them only for what still waits."""
    decided, open_ = federation.submission(b"no certificate"), federation.submission(b"nor one")
    async with running_verifier(node.verifier):
        for raw in (decided, open_):
            await node.verifier.verify(raw)
        assert node.verifier.has_refused(decided)
        node.decide(1, [decided])
        assert not node.verifier.has_refused(decided)
        assert node.verifier.has_refused(open_)


def test_refusals_name_their_reason_to_whoever_submits(federation: Any, node: Any) -> None:
    certificate = federation.certificate()
    submission, again = (federation.submission(certificate) for _ in range(2))
    assert check(node, submission).code == check(node, again).code == 0
    assert check(node, b"garbage", CheckTx.RECHECK).code == Refusal.MALFORMED.code
    response = node.decide(1, [submission, again])
    recorded = Refusal.RECORDED
    result = response.results[1]
    assert (result.code, result.info, result.log) == (recorded.code, recorded.kebab, recorded.sentence)
    assert (result.codespace, response.results[0].codespace) == (CODESPACE, "")
    verdict = check(node, again)
    assert (verdict.code, verdict.info, verdict.log) == (recorded.code, recorded.kebab, recorded.sentence)
    assert check(node, again, CheckTx.RECHECK).code == 0, "it stays in the mempool until a block answers it"


def test_cometbft_keeps_the_blocks_that_the_ledger_keeps(federation: Any, node: Any) -> None:
    for first in (0, 17):
        node.ledger.first = first
        node.application.finalize_block(FinalizeBlock.Request(height=node.ledger.height + 1))
        assert node.application.commit(Commit.Request()).retain_height == first


def test_the_state_changes_with_the_commit(federation: Any, node: Any) -> None:
    request = FinalizeBlock.Request(height=1, time=FIRST, transactions=[federation.submission()])
    node.application.finalize_block(request)
    assert (node.ledger.height, node.progress) == (0, [1])
    node.application.commit(Commit.Request())
    assert (node.ledger.height, node.progress) == (1, [1, 1])
    with pytest.raises(LocalError, match="without a decided block"):
        node.application.commit(Commit.Request())
    with pytest.raises(LocalError, match="block 1 came where 2"):
        node.application.finalize_block(request)


def test_queries_carry_proofs_of_presence_and_of_absence(federation: Any, node: Any) -> None:
    certificate = federation.certificate()
    root = node.decide(1, [federation.submission(certificate)]).app_hash
    found = query(node, "/certificates", digest_of(certificate))
    (step,) = found.proof.steps
    assert (step.type, found.height, found.code) == (PROOF_TYPE, 1, 0)
    record = CertRecord.parse(found.value)
    verify_inclusion(root, found.key, record.value_hash(), Proof.parse(step.data))
    missing = query(node, "/certificates", bytes(32))
    assert missing.value == b""
    verify_absence(root, missing.key, Proof.parse(missing.proof.steps[0].data))
    assert Member.parse(query(node, "/members", b"Operator B").value).organization == "Operator B"
    assert tree.root(node.ledger.view) == root


LOOKUPS = [leaf for leaf in LEAVES if leaf.lookup]


@pytest.mark.parametrize("leaf", LOOKUPS, ids=lambda leaf: leaf.kind)
def test_every_kind_of_leaf_with_a_lookup_has_its_query(node: Any, leaf: Leaf[Any]) -> None:
    assert leaf.lookup is not None
    nobody = b"9" * 15 if leaf.kind == "number" else bytes(32)
    missing = query(node, f"/{leaf.lookup.path}", nobody)
    assert (missing.code, missing.value) == (0, b"")
    assert missing.key == leaf.key(leaf.lookup.argument.of_bytes(nobody))


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/", b""),
        ("/certificates", b"short"),
        ("/certificates", member_key("Operator B")),
        ("/members", b"\xff"),
    ],
)
def test_queries_that_cannot_be_answered_get_a_code(node: Any, path: str, data: bytes) -> None:
    assert query(node, path, data).code == 1


def test_no_kind_of_transaction_waits_for_later_rules_than_those_of_this_program() -> None:
    assert all(1 <= kind.since <= NEWEST.version for kind in KINDS)


def test_validators_follow_the_outcome(federation: Any) -> None:
    outcome = replace(federation.genesis.outcome(), validator_updates=((bytes([1]) * 32, 0), (bytes([7]) * 32, 1)))
    updates = validator_updates(outcome)
    assert [(item.public_key.ed25519[0], item.power) for item in updates] == [(1, 0), (7, 1)]


def test_a_validator_that_signed_twice_loses_its_power(federation: Any, node: Any, another_node: Any) -> None:
    key = federation.validators["Operator B"]
    requests = [kind.Request(height=1, time=FIRST) for kind in (ProcessProposal, FinalizeBlock)]
    for request in requests:
        guilty = request.misbehavior.add(kind=Misbehavior.DUPLICATE_VOTE, height=1).validator
        guilty.address = Validator(key, 1).address
    assert node.application.process_proposal(requests[0]).verdict == ProcessProposal.ACCEPT
    for peer in (node, another_node):
        response = peer.application.finalize_block(requests[1])
        assert [(item.public_key.ed25519, item.power) for item in response.validator_updates] == [(key, 0)]
        peer.application.commit(Commit.Request())
    assert node.ledger.view.member("Operator B").validators == ()
    assert tree.root(node.ledger.view) == tree.root(another_node.ledger.view)


def test_misbehaviour_is_made_known(node: Any, caplog: pytest.LogCaptureFixture) -> None:
    request = FinalizeBlock.Request(height=1, time=FIRST)
    request.misbehavior.add(kind=Misbehavior.DUPLICATE_VOTE, height=1).validator.address = bytes(20)
    node.application.finalize_block(request)
    (entry,) = caplog.records
    assert entry.message == "validator-misbehaved"
    assert vars(entry)["fields"] == {"kind": "DUPLICATE_VOTE", "validator": "00" * 20, "height": 1}


def test_verdicts_are_forgotten_when_nobody_waits_for_a_block_any_more(federation: Any, node: Any) -> None:
    """Kept for thousands of blocks, they would be most of a node's memory."""
    forget_verdicts()
    first, second = federation.submission(), federation.submission()
    assert check(node, first).code == check(node, second).code == 0
    node.decide(1, [first])
    assert check(node, second, CheckTx.RECHECK).code == 0
    node.decide(2, [])
    assert read_admitted.cache_info().currsize == 1, "another one still waits"
    assert check(node, second, CheckTx.RECHECK).code == 0
    node.decide(3, [second])
    assert read_admitted.cache_info().currsize == 2, "under load the next ones were verified, and are on their way"
    node.decide(4, [])
    assert read_admitted.cache_info().currsize == verify.cache_info().currsize == 0
