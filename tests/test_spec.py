"""docs/spec says what the code does: its tables, codes, domains, rules and vectors."""

import ast
import re
from dataclasses import asdict

import pytest

from tests.spec import FOLDER, ROOT, TABLES, written
from voice_dpki.ledger.answers import InquiryCode
from voice_dpki.ledger.light import LightCode
from voice_dpki.ledger.parameters import DEFAULT_PARAMETERS
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.ledger.state import LEAVES
from voice_dpki.x509.recorded import HELD, RULES, Distrust, Use

ANSWERS = (FOLDER / "answers.md").read_text()
ENCODINGS = (FOLDER / "encodings.md").read_text()
STATE = (FOLDER / "state.md").read_text()
DOMAIN = re.compile(rb"voice-dpki/([a-z-]+)/v1\0")
RELYING = frozenset({Use.SIGN_CALLS, Use.KEY_MEDIA, Use.AUTHENTICATE})


def _rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    table = text.partition(f"\n{heading}\n")[2].partition("\n|")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.split("\n")[2:]]


def _codes(text: str) -> set[str]:
    return set(re.findall(r"`([a-z-]+)`", text))


@pytest.mark.parametrize("page", TABLES)
def test_tables_are_those_of_the_code(page: str) -> None:
    assert written(page) == (FOLDER / page).read_text(), "run `make spec`"


def test_every_page_is_listed() -> None:
    listed = re.findall(r"^\| \[\w+\]\(([^)]+)\)", (FOLDER / "README.md").read_text(), re.MULTILINE)
    pages = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.md")} - {"README.md"}
    assert set(listed) == pages


def test_domains_are_those_that_the_code_hashes_and_signs() -> None:
    told = re.findall(r"^\| (?:`[a-z]+` \| )?`voice-dpki/([a-z-]+)/v1` \|", ENCODINGS, re.MULTILINE)
    assert len(told) == len(set(told))
    assert set(told) == {
        found[1].decode()
        for path in (ROOT / "voice_dpki").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, bytes)
        and (found := DOMAIN.fullmatch(node.value))
    }


def test_every_kind_of_leaf_has_its_key() -> None:
    kinds = [row[0].strip("`") for row in _rows(ENCODINGS, "### Leaves")]
    assert len(kinds) == len(LEAVES)
    assert set(kinds) == {leaf.kind for leaf in LEAVES}


def test_every_error_of_a_header_has_its_step() -> None:
    headers = ANSWERS.partition("\n## Headers\n")[2].partition("\n## Tree proofs\n")[0]
    assert _codes(headers) >= set(LightCode)


def test_every_error_of_an_answer_is_told() -> None:
    assert {row[0].strip("`") for row in _rows(ANSWERS, "### Steps")} == set(InquiryCode)


def test_rules_of_trust_are_those_that_judge() -> None:
    rows = _rows(ANSWERS, "## Trust for a use")
    numbers = {rule.number: rule.uses for rule in RULES}
    assert [int(row[0]) for row in rows] == [*range(1, 5), *numbers]
    assert HELD[0].number == 10, "the rules that are judged again"
    for number, _, uses, _ in rows[4:]:
        told = RELYING if uses == "relying" else {Use(use.strip()) for use in uses.split(",")}
        assert told == numbers[int(number)], number
    assert {code for row in rows for code in _codes(row[3])} == set(Distrust) - {Distrust.AUTHORITY}


def test_every_refusal_is_told_where_it_is_checked() -> None:
    told = _codes(STATE.partition("\n## Refusals\n")[0])
    assert {refusal.kebab for refusal in Refusal} - told == {"certificate-profile"}, "no rule has this one"


def test_parameters_have_their_defaults() -> None:
    rows = [(row[0].strip("`"), int(row[1])) for row in _rows(STATE, "## Genesis")]
    assert dict(rows) == asdict(DEFAULT_PARAMETERS)
