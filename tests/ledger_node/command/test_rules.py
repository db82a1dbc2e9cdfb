"""`voice-dpki ledger` about versions of the rules: what is proposed, shown and refused."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ledger_node.command.decisions import asked_change, describe_change
from ledger_node.command.rules import begins, change_of, describe_release, known_versions
from ledger_node.command.session import CONSOLE
from ledger_node.command.versions import Versions
from tests.present import present
from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError
from voice_dpki.ledger.activation import notice
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.proposals import (
    BeginRules,
    Change,
    Proposal,
    ProposalState,
    RemoveMember,
    ResumeMember,
    SetMember,
    SetStatus,
    SuspendMember,
    encode_change,
)
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.rules import VERSIONS
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import LedgerClient, NodeInfo, RulesInfo

from .test_ledger import Terminal, until

DIGEST = CertDigest(bytes(32))
FURTHER = VERSIONS[-1] + 1
LATER = f"install a release that has version {FURTHER} first"
FAR = 10**6
NAME = "voice-dpki rules 2 from block 1200"

FIRST = Versions(((1, 1),), 100, 1, None)
TOLD = Versions(((1, 1), (2, 1200)), 100, 1, (2, 1200))
SECOND = Versions(((1, 1), (2, 90)), 100, 2, None)
THIRD_DECIDED = Versions(((1, 1), (2, 90), (3, 500)), 100, 2, (3, 500))


@pytest.mark.parametrize(
    ("known", "version", "first_block", "change"),
    [
        (FIRST, 2, 1200, SetMember(notice(2, 1200), None)),
        (FIRST, 2, 101, SetMember(notice(2, 101), None)),
        (TOLD, 1, None, RemoveMember(NAME)),
        (SECOND, 3, 1200, BeginRules(3, 1200)),
        (THIRD_DECIDED, 2, None, BeginRules(2, 0)),
    ],
)
def test_what_is_proposed(known: Versions, version: int, first_block: int | None, change: Change) -> None:
    assert change_of(known, version, first_block) == change


@pytest.mark.parametrize(
    ("known", "version", "first_block", "match"),
    [
        (FIRST, 2, 100, "block 100 is past: the ledger is at block 100"),
        (FIRST, 1, 1200, "follows version 1 of its rules already"),
        (SECOND, 2, 1200, "follows version 2 of its rules already"),
        (SECOND, 1, 1200, "follows version 2 of its rules already"),
        (SECOND, 3, None, "say with --from"),
        (SECOND, 1, None, "say with --from"),
        (SECOND, 2, None, "no version of the rules is to follow version 2"),
    ],
)
def test_what_cannot_be_proposed(known: Versions, version: int, first_block: int | None, match: str) -> None:
    with pytest.raises(LocalError, match=match):
        change_of(known, version, first_block)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (SetMember(notice(2, 1200), None), "begin version 2 of the rules at block 1200"),
        (SetMember(notice(2, 1200), 3), "begin version 2 of the rules at block 1200"),
        (BeginRules(2, 1200), "begin version 2 of the rules at block 1200"),
        (BeginRules(2, 0), "follow version 2 of the rules from the next block on, and no other"),
        (RemoveMember(NAME), "do not begin version 2 of the rules at block 1200"),
        (SuspendMember(NAME), "do not begin version 2 of the rules at block 1200"),
        (RemoveMember(NAME + "0000000000"), f"remove {NAME}0000000000"),
        (SuspendMember("Operator A"), "suspend Operator A"),
        (ResumeMember("Operator A"), "end the suspension of Operator A"),
        (SetStatus((DIGEST,), CertStatus.VALID, "unspecified"), "end the suspension of 1 certificate"),
    ],
)
def test_both_forms_of_a_change_of_rules_are_described_alike(change: Change, said: str) -> None:
    assert describe_change(change) == said


def test_only_what_begins_a_version_says_that_nodes_have_it() -> None:
    assert begins(SetMember(notice(2, 1200), None)) == begins(BeginRules(2, 1200)) == (2, 1200)
    assert begins(RemoveMember(NAME)) is begins(SuspendMember(NAME)) is None


def test_what_only_a_later_release_knows_is_not_approved() -> None:
    proposal = Proposal("Operator A", encode_change(BeginRules(3, 9)), 9, ProposalState.OPEN, None, (), (), 0, 0)
    assert asked_change(proposal) == BeginRules(3, 9)
    with pytest.raises(LocalError, match="only a later release of voice-dpki knows"):
        asked_change(replace(proposal, change=cbor.encode(["dance", "tango"])))


@pytest.mark.parametrize(
    ("versions", "said"),
    [((1,), "has version 1 of"), ((1, 2), "has versions 1 and 2 of"), ((1, 2, 3), "has versions 1, 2 and 3 of")],
)
def test_what_a_node_says_of_its_release(versions: tuple[int, ...], said: str) -> None:
    info = NodeInfo("a", "engine", "test-1", 7, "", None, None, rules=RulesInfo(versions))
    assert said in describe_release(info)


class Silent(LedgerClient):
    """A client of a node that proves nothing new."""

    def __init__(self) -> None:
        """Connect to nothing."""

    async def leaves(self, _keys: Sequence[bytes]) -> tuple[bytes | None, ...]:
        raise InquiryError(InquiryCode.STALE, "the newest block is 70 s old")


@pytest.mark.parametrize(
    ("present_one", "error", "match"),
    [
        (
            2,
            LocalError,
            "stands still before version 2: install a release that has it .the newest block",
        ),
        (1, InquiryError, "the newest block is 70 s old"),
        (None, InquiryError, "the newest block is 70 s old"),
    ],
)
async def test_a_node_that_stands_still_before_a_version_is_no_puzzle(
    present_one: int | None, error: type[Exception], match: str
) -> None:
    info = NodeInfo("a", "engine", "test-1", 7, "", None, None, rules=RulesInfo((1,), present_one))
    with pytest.raises(error, match=match):
        await known_versions(Silent(), info)


@pytest.fixture
def terminal(
    tmp_path: Any, network_in: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    """Two operators on a ledger of their own, whose decisions take effect after one block."""
    monkeypatch.setattr(CONSOLE, "width", 200)
    monkeypatch.setattr(CONSOLE, "_file", None)
    network = network_in(tmp_path, "[parameters]\ndelay_s = 0\n\n")
    network.engine(heartbeat_s=0.1).start()
    yield Terminal(network, capsys)
    network.end()


def agreed(terminal: Terminal, *about: object) -> None:
    """Have both operators decide on a change of the rules."""
    status, said = terminal("propose", "rules", *about, by="Operator A")
    assert status == 0, said
    identity = present(re.search(r"approval: ([0-9a-f]{64})", said))[1]
    status, said = terminal("vote", identity, by="Operator B")
    assert (status, "Voted in block" in said) == (0, True), said


def sent(terminal: Terminal, change: Change) -> tuple[int, str]:
    """Propose a change without the checks of `propose`, as somebody with another release can."""
    until_s, encoded = int(time.time()) + 1000, encode_change(change).hex()
    return terminal("send", "propose", f"until_s={until_s}", f"change={encoded}", by="Operator A")


def refused(terminal: Terminal, *arguments: object, by: str = "Operator A") -> str:
    status, said = terminal(*map(str, arguments), by=by)
    assert status == 2, said
    return said


def row(table: str, *cells: object) -> bool:
    return re.search(r"│ *".join(rf"{re.escape(str(cell))} *" for cell in cells), table) is not None


def test_operators_begin_a_version_and_see_what_begins(terminal: Terminal) -> None:
    status, said = terminal("rules")
    assert (status, row(said, 1, 1, "in force")) == (0, True), said
    assert "has versions 1, 2, 3, 4 and 5 of the rules.\n" in said
    assert "--from is the first block" in refused(terminal, "propose", "remove", "Operator B", "--from", 9)
    assert LATER in refused(terminal, "propose", "rules", FURTHER, "--from", FAR)
    assert "this needs version 2" in sent(terminal, BeginRules(2, FAR))[1]
    agreed(terminal, 2, "--from", FAR)
    said = terminal("proposals")[1]
    assert f"begin version 2 of the rules at block {FAR} (2 of 2 validators)" in said
    until(lambda: row(terminal("rules")[1], 2, FAR, "begins in"))
    said = terminal("members")[1]
    assert "Not listed: notices of versions of the rules (1)" in said
    assert "voice-dpki rules 2" not in said
    agreed(terminal, 1)
    until(lambda: str(FAR) not in terminal("rules")[1])
    agreed(terminal, 2, "--from", int(terminal.network.nodes[0].info()["height"]) + 5)
    until(lambda: "past" in terminal("rules")[1])
    assert "follows version 2 of its rules already" in refused(terminal, "propose", "rules", 2, "--from", FAR)
    status, said = sent(terminal, BeginRules(FURTHER, FAR))
    assert status == 0, said
    said = terminal("proposals")[1]
    begins = rf"begin version {FURTHER} of the rules at block {FAR} \(1 of 2"
    found = present(re.search(rf"([0-9a-f]{{12}}) .*{begins}", said))
    assert LATER in refused(terminal, "vote", found[1], by="Operator B")
    assert terminal("vote", found[1], "--reject", by="Operator B")[0] == 0


def test_who_lacks_a_decided_version_is_told(
    tmp_path: Any, network_in: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CONSOLE, "width", 200)
    monkeypatch.setattr(CONSOLE, "_file", None)
    told = f'[[members]]\norganization = "{notice(FURTHER, FAR).organization}"\nkind = "vendor"\n\n'
    network = network_in(tmp_path, told)
    network.engine(heartbeat_s=0.1).start()
    try:
        status, said = Terminal(network, capsys)("rules")
        assert (status, row(said, FURTHER, FAR, "begins in")) == (1, True), said
        assert f"Install a release that has version {FURTHER}: from block {FAR} on this node stands still" in said
    finally:
        network.end()
