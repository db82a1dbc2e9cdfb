"""The application across versions of the rules: what CometBFT is told, what enters blocks, and where it ends."""

import pytest

from ledger_node.abci.abci_pb2 import CheckTx, FinalizeBlock, Info, PrepareProposal, ProcessProposal
from voice_dpki.ledger import rules
from voice_dpki.ledger.activation import notice, version_at
from voice_dpki.ledger.genesis import dump_genesis, load_genesis
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.ledger.rules import MissingRulesError
from voice_dpki.ledger.state import Block, Outcome, StateView, apply

from .conftest import CHAIN, START_S, Federation, Node, at, make_node

BEGINS = 3


def told(federation: Federation, version: int, begins: int = BEGINS) -> Node:
    """Return a node of a ledger whose genesis has a notice: a version begins with a block."""
    members = [*federation.genesis.members, notice(version, begins)]
    return make_node(load_genesis(dump_genesis(CHAIN, START_S * 10**9, members)))


@pytest.fixture
def changing(federation: Federation) -> Node:
    return told(federation, 2)


def judge(node: Node, *transactions: bytes) -> int:
    height = node.ledger.height + 1
    request = ProcessProposal.Request(height=height, time=at(height), transactions=transactions)
    return node.application.process_proposal(request).verdict


def propose(node: Node, *transactions: bytes) -> list[bytes]:
    height = node.ledger.height + 1
    request = PrepareProposal.Request(height=height, time=at(height), transactions=transactions)
    return list(node.application.prepare_proposal(request).transactions)


def recheck(node: Node, raw: bytes) -> int:
    request = CheckTx.Request(transaction=raw, occasion=CheckTx.RECHECK)
    return node.application.check_tx(request).code


def test_cometbft_is_told_one_block_ahead_so_that_headers_are_true(changing: Node) -> None:
    assert changing.application.info(Info.Request()).app_version == 1
    answers = [changing.decide(height, []) for height in (1, 2, 3)]
    assert [answer.HasField("consensus_parameter_updates") for answer in answers] == [False, True, False]
    update = answers[1].consensus_parameter_updates
    assert update.version.app == 2
    assert not update.HasField("block"), "what is not named stays as it is"
    assert changing.application.info(Info.Request()).app_version == 2


def test_after_block_2_a_restarted_node_tells_cometbft_of_version_2(changing: Node) -> None:
    for height in (1, 2):
        assert changing.application.info(Info.Request()).app_version == 1
        changing.decide(height, [])
    assert changing.application.info(Info.Request()).app_version == 2


def test_cometbft_is_told_of_the_version_of_the_next_block_at_each_height(federation: Federation) -> None:
    node = told(federation, 2, begins=9)
    versions = []
    for height in range(1, 11):
        versions.append(node.application.info(Info.Request()).app_version)
        node.decide(height, [])
    assert versions == [1] * 8 + [2] * 2


def test_codes_from_100_on_may_enter_a_block_of_version_1_alone(federation: Federation, changing: Node) -> None:
    """The edge is between the last refusal without a valid sender and the first one for a transaction's content."""
    content, sender = federation.submission(b"x" * 9000), federation.submission(key="Operator B")
    assert Refusal.CERTIFICATE_TOO_LARGE.code == 100
    assert judge(changing, content) == ProcessProposal.ACCEPT
    assert judge(changing, sender) == ProcessProposal.REJECT
    assert propose(changing, content, sender) == [content]
    for height in (1, 2):
        changing.decide(height, [])
    assert judge(changing, content) == ProcessProposal.REJECT
    assert judge(changing, federation.submission()) == ProcessProposal.ACCEPT
    assert propose(changing, content, sender) == []


@pytest.mark.parametrize("begins", [2, 3, 4])
def test_a_versions_rules_count_from_its_block_on(federation: Federation, begins: int) -> None:
    node, content = told(federation, 2, begins), federation.submission(b"x" * 9000)
    for height in range(1, begins):
        assert judge(node, content) == ProcessProposal.ACCEPT
        node.decide(height, [])
    assert judge(node, content) == ProcessProposal.REJECT


def test_a_rogue_proposers_name_that_version_4_does_not_read_enters_no_block(federation: Federation) -> None:
    node = told(federation, 4)
    strange = federation.submission(federation.certificate(dns_names=("*.a.example",)))
    assert judge(node, strange) == ProcessProposal.ACCEPT
    for height in (1, 2):
        node.decide(height, [])
    assert judge(node, strange) == ProcessProposal.REJECT
    assert propose(node, strange) == []
    assert judge(node, federation.submission()) == ProcessProposal.ACCEPT


def test_a_rogue_proposer_cannot_repeat_what_took_effect(federation: Federation, changing: Node) -> None:
    first = federation.submission()
    for height, transactions in enumerate(([], [], [first]), 1):
        changing.decide(height, transactions)
    assert judge(changing, first) == ProcessProposal.REJECT
    fresh = federation.submission()
    assert judge(changing, fresh, fresh) == ProcessProposal.REJECT, "nor twice in one block"


def test_what_no_block_can_take_any_more_leaves_the_mempool(federation: Federation, changing: Node) -> None:
    certificate = federation.certificate()
    first, again = federation.submission(certificate), federation.submission(certificate)
    for height, transactions in enumerate(([], [], [], [first]), 1):
        changing.decide(height, transactions)
    for _ in range(20):  # written out: each costs time before a block, so a change of the limit is to be seen
        assert recheck(changing, again) == Refusal.RECORDED.code
    assert recheck(changing, again) == 0, "further back in line it waits for its turn"
    changing.decide(5, [])
    assert recheck(changing, again) == Refusal.RECORDED.code


def test_a_node_without_the_version_answers_up_to_the_block_before_it(federation: Federation) -> None:
    """It tells CometBFT of the change as all do, so that a release that has the version can go on from there."""
    node = told(federation, 9)
    node.decide(1, [])
    assert node.decide(2, []).consensus_parameter_updates.version.app == 9
    assert version_at(node.ledger.view, 3) == 9
    for ask in (judge, propose):
        with pytest.raises(MissingRulesError, match="from block 3 on the ledger follows version 9"):
            ask(node)
    with pytest.raises(MissingRulesError):
        node.application.finalize_block(FinalizeBlock.Request(height=3, time=at(3)))


def test_a_release_that_has_the_version_goes_on_where_one_without_it_stopped(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = federation.submission()
    newer = told(federation, 2)
    expected = [newer.decide(height, each) for height, each in enumerate(([raw], [], []), 1)]
    node = told(federation, 2)
    with monkeypatch.context() as older:
        older.delitem(rules.BY_VERSION, 2)
        found = [node.decide(height, each) for height, each in enumerate(([raw], []), 1)]
        with pytest.raises(MissingRulesError):
            judge(node)
    assert [*found, node.decide(3, [])] == expected


def test_outcomes_are_kept_for_as_many_proposals_as_rounds_bring_and_not_longer(
    federation: Federation, changing: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[Block] = []

    def counting(view: StateView, block: Block) -> Outcome:
        executed.append(block)
        return apply(view, block)

    monkeypatch.setattr("ledger_node.abci.application.apply", counting)
    raws = [federation.submission() for _ in range(5)]
    for raw in raws:
        judge(changing, raw)
    assert len(executed) == 5
    judge(changing, raws[-1])
    judge(changing, raws[1])
    assert len(executed) == 5, "the four last ones are known"
    judge(changing, raws[0])
    assert len(executed) == 6, "the first one was forgotten"
