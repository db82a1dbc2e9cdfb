"""Whatever the code knows of the protocol by a table stands in docs/spec: from the code to the pages.

`tests/test_spec.py` goes the other way, and compares what both say.
"""

import ast
import inspect
import re
from typing import get_args

import msgspec
import pytest

from segw_agent import agent, conversation, protocol
from segw_agent.policy import IntegrityPolicy, Side
from segw_agent.rules import RULES, inquiry_refusal
from segw_agent.way import MAX_WAY
from tests import spec
from tests.cddl import Choice, Rules, Type
from tests.described import spec_rules
from tests.spec import FOLDER, ROOT
from voice_dpki.ledger import evidence, proposals
from voice_dpki.ledger.answer_forms import AnswerForm, BatchForm, LeavesForm, PrefixForm
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.changes import ChangesForm, StepForm
from voice_dpki.ledger.header import SignedHeaderForm, ValidatorForm
from voice_dpki.ledger.members import MemberKind
from voice_dpki.ledger.names import KINDS_OF_NAMES
from voice_dpki.ledger.proposals import ProposalState
from voice_dpki.ledger.records import REASONS, Authority
from voice_dpki.ledger.replica import BlockForm
from voice_dpki.ledger.rules import BY_VERSION, VERSIONS
from voice_dpki.ledger.rules import Rules as LedgerRules
from voice_dpki.ledger.state import LEAVES
from voice_dpki.ledger.transactions import KINDS
from voice_dpki.x509.recorded import Distrust

PAGES = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
AGENT = PAGES["agent.md"]


@pytest.fixture(scope="module")
def rules() -> Rules:
    return spec_rules()


def literals(rules: Rules, choice: Choice) -> set[object]:
    """Return the literals that a type may be, those of types that it names included."""
    found: set[object] = set()
    for each in choice:
        if each.what == "literal":
            found.add(each.value)
        elif each.what == "name" and each.value in rules:
            found |= literals(rules, rules[each.value])
    return found


def labels(rules: Rules, group: Type) -> set[str]:
    """Return the labels of a map, those of groups that it names included."""
    found = set()
    for entry in group.value:
        if entry.label:
            found.add(entry.label)
        elif not entry.key:
            found |= labels(rules, rules[entry.choice[0].value][0])
    return found


def first_literals(rules: Rules, name: str) -> set[str]:
    """Return the first items of the arrays that a choice of names stands for."""
    return {rules[each.value][0].value[0].choice[0].value for each in rules[name]}


def test_every_kind_of_transaction_with_its_members(rules: Rules) -> None:
    assert {each.value for each in rules["body"]} == {kind.name.replace("_", "-") for kind in KINDS}
    for kind in KINDS:
        assert labels(rules, rules[kind.name.replace("_", "-")][0]) == {"kind", "chain", "by", *kind.members}
        (told,) = (entry for entry in rules[kind.name][0].value if entry.label == "kind")
        assert literals(rules, told.choice) == {kind.name}


def test_every_kind_of_leaf(rules: Rules) -> None:
    assert first_literals(rules, "leaf") == {leaf.kind for leaf in LEAVES}


def test_every_change_that_can_be_proposed(rules: Rules) -> None:
    written = re.findall(r'cbor\.encode\(\["([a-z]+)"', inspect.getsource(proposals.encode_change))
    assert len(written) == len(get_args(proposals.Change))
    assert first_literals(rules, "change") == set(written)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("member-kind", {*map(str, MemberKind)}),
        ("reason", {*REASONS}),
        ("recorded-status", {"valid", "suspended", "revoked"}),
    ],
)
def test_every_word_of_a_list(rules: Rules, name: str, values: set[str]) -> None:
    assert literals(rules, rules[name]) == values


def test_every_state_of_a_proposal_and_every_authority(rules: Rules) -> None:
    told = [literals(rules, entry.choice) for entry in rules["proposal-leaf"][0].value if entry.label == "state"]
    assert told == [{*map(str, ProposalState)}]
    ranks = [entry.choice[0].value for entry in rules["certificate-record"][0].value if entry.label == "changed-by"]
    assert ranks == [(min(Authority), max(Authority))]
    assert all(f"({rank:d})" in PAGES["state.md"] for rank in Authority)


def test_every_kind_of_name(rules: Rules) -> None:
    told = {each.value[0].choice[0].value for each in rules["listed-name"]}
    assert told == {*KINDS_OF_NAMES}


def test_every_kind_of_evidence_with_its_fields() -> None:
    page = PAGES["encodings.md"]
    for kind in (evidence.DuplicateVote, evidence.LightClientAttack):
        assert f"`{kind.KIND}`" in page
        assert f" {kind.KIND.lower()}_evidence = {kind.FIELD};" in page
    for message, fields in (("Vote ", 10), ("DuplicateVoteEvidence ", 5), ("LightClientAttackEvidence ", 5)):
        told = re.search(rf"^message {message}.*?}}", page, re.MULTILINE | re.DOTALL)
        assert told is not None
        assert [int(number) for number in re.findall(r"= (\d+);", told[0])] == [*range(1, fields + 1)]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("answer", AnswerForm),
        ("batch-answer", BatchForm),
        ("prefix-answer", PrefixForm),
        ("leaves-answer", LeavesForm),
        ("changes-answer", ChangesForm),
        ("step", StepForm),
        ("block", BlockForm),
        ("signed-header", SignedHeaderForm),
        ("validator", ValidatorForm),
    ],
)
def test_every_member_of_an_answer(rules: Rules, name: str, form: type[msgspec.Struct]) -> None:
    unproved = {"digest", "status", "height", "prefix", "way"}
    read = {field.encode_name for field in msgspec.structs.fields(form)}
    assert labels(rules, rules[name][0]) - unproved == read - unproved


def test_the_most_headers_of_a_way(rules: Rules) -> None:
    (way,) = (entry for entry in rules["answer"][0].value if entry.label == "way")
    (headers,) = way.choice[0].value
    assert headers.most == MAX_WAY


def _constants(folder: str) -> set[str]:
    """Return the names of all public limits in a folder's modules."""
    return {
        f"{path.stem}.{target.id}"
        for path in (ROOT / folder).glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.startswith("MAX_")
    }


NOT_ON_A_WIRE = {
    "batch.MAX_BATCH": "the same as transactions.MAX_BATCH",
    "genesis.MAX_BLOCK_BYTES": "what a new genesis says",
    "genesis.MAX_GENESIS_BYTES": "a file of our own",
    "light.MAX_TRUSTED": "what the code keeps, told with the steps of headers",
    "header.MAX_CHAIN_ID_BYTES": "told with the form of headers",
    "header.MAX_APP_HASH_BYTES": "told with the form of headers",
    "header.MAX_TOTAL_POWER": "told with validator sets",
    "proposals.MAX_VERSION": "told in the CDDL",
    "proposals.MAX_HEIGHT": "told in the CDDL",
}
"""Limits that stand elsewhere than in the table of limits, or in no answer and no transaction."""


def test_every_limit() -> None:
    told = set(re.findall(r"\b(\w+\.MAX_\w+)", inspect.getsource(spec)))
    assert _constants("voice_dpki/ledger") - told <= NOT_ON_A_WIRE.keys()
    assert told >= {"profile.MAX_CERTIFICATE_BYTES", "cbor.MAX_DEPTH"}


def test_every_version_of_the_rules() -> None:
    table = PAGES["state.md"].partition("| Version | What it changed |")[2].partition("\n\n")[0]
    assert [int(row) for row in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [*VERSIONS]
    told = {
        "admits_refused": "that is refused",
        "one_signature": "one signature",
        "counts_all": "member's hour",
        "sound_keys": "points of the curve",
        "recounts": "counted again",
        "withdraws": "withdrawn",
        "bars_keys": "[barred]",
        "probation": "[on probation]",
        "reads_all_names": "[Every name]",
        "prepares_names": "[written]",
        "binds_anonymous": "anonymous certificate",
        "reads_constraints": "Claim constraints",
        "lists_common_numbers": "A number as [common name]",
    }
    assert {field for field in LedgerRules.__dataclass_fields__ if field != "version"} == told.keys()
    assert all(text in table for text in told.values())
    assert BY_VERSION.keys() == {*VERSIONS}


def test_every_code_of_the_agent() -> None:
    told = set(re.findall(r"`([a-z-]+)`", AGENT.partition("## How the agent judges")[2]))
    source = inspect.getsource(agent)
    own = set(re.findall(r'code="([a-z-]+)"', source)) | {"certificate", "identity", "internal"}
    rules = {str(code) for rule in RULES for code in rule.codes} - {*map(str, Distrust)}
    assert own | rules <= told
    errors = {inquiry_refusal(Side.DEVICE, InquiryError(code, "")).code for code in InquiryCode}
    assert errors == {f"ledger-{code}" for code in InquiryCode}
    assert "ledger-" in told


def _rows(head: str) -> list[list[str]]:
    table = AGENT.partition(head)[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.split("\n")[2:]]


def test_every_item_on_the_agents_socket() -> None:
    rows = _rows("| Tag | Item | At most | In | What |")
    told = {(int(tag), name.strip("`"), int(most.split()[0])) for tag, name, most, *_ in rows}
    assert told == {(int(tag), tag.name, protocol.MAX_BYTES[tag]) for tag in protocol.Tag}


def test_every_number_on_the_agents_socket() -> None:
    rows = _rows("| Field | Value | Means |")
    names: dict[str, dict[int, str]] = {}
    for field, value, _ in rows:
        number, _, name = value.partition(" ")
        names.setdefault(field, {})[int(number)] = name.strip("`")
    assert names["operation"] == {int(each): each.name for each in protocol.Operation}
    assert names["side"] == {number: str(each) for number, each in enumerate(protocol._SIDES, 1)}
    assert names["policy"] == {number: str(each) for number, each in enumerate(protocol._POLICIES)}
    assert {*protocol._SIDES} == {*Side}
    assert {*protocol._POLICIES} == {*IntegrityPolicy}
    assert f"at most {conversation.MAX_CONNECTIONS}\n" in AGENT
    assert f"{conversation.IDLE_S:g} s" in AGENT
    assert f"{conversation.FRAME_S:g} s" in AGENT


NOT_OF_THE_PROTOCOL = {"__init__", "draft", "view"}
"""Modules of the ledger that no other node or client can tell from outside."""


def test_every_module_of_the_ledger_cites_its_section() -> None:
    modules = {path.stem: path.read_text() for path in (ROOT / "voice_dpki/ledger").glob("*.py")}
    cited = {name: re.findall(r"docs/spec/(\w+\.md)(?:#([a-z-]+))?", text) for name, text in modules.items()}
    assert {name for name, found in cited.items() if not found} == NOT_OF_THE_PROTOCOL
    for page, section in (each for found in cited.values() for each in found):
        headings = re.findall(r"^#+ (.+)$", PAGES[page], re.MULTILINE)
        assert section in {"", *(heading.lower().replace(" ", "-") for heading in headings)}, (page, section)
