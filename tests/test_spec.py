"""docs/spec says what the code does: its tables, codes, domains, rules and vectors."""

import ast
import base64
import json
import re
from dataclasses import asdict
from typing import Any

import pytest

from tests.openapi import ledger_routes
from tests.spec import FOLDER, ROOT, TABLES, documents, written
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.answers import AnswerVerifier, InquiryCode, InquiryError
from voice_dpki.ledger.header import ValidatorSet, parse_time
from voice_dpki.ledger.light import LightBlock, LightClient, LightCode, LightError, TrustPoint
from voice_dpki.ledger.parameters import DEFAULT_PARAMETERS
from voice_dpki.ledger.proof import Proof, ProofError, verify_absence, verify_inclusion
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.ledger.state import LEAVES
from voice_dpki.names import CertDigest
from voice_dpki.x509.recorded import HELD, RULES, Distrust, Use

ANSWERS = (FOLDER / "answers.md").read_text()
ENCODINGS = (FOLDER / "encodings.md").read_text()
STATE = (FOLDER / "state.md").read_text()
DOMAIN = re.compile(rb"voice-dpki/([a-z-]+)/v1\0")
RELYING = frozenset(Use) - {Use.ENDORSE}


def _rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    table = f"\n{text}".partition(f"\n{heading}\n")[2].partition("\n|")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.split("\n")[2:]]


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
    assert {code for row in rows for code in _codes(row[3])} == set(Distrust) - {
        Distrust.AUTHORITY,
        Distrust.CLAIMS,
        Distrust.NOT_ASKED,
    }


def test_every_refusal_is_told_where_it_is_checked() -> None:
    told = _codes(STATE.partition("\n## Refusals\n")[0])
    assert {refusal.kebab for refusal in Refusal} - told == {"certificate-profile"}, "no rule has this one"


def test_parameters_have_their_defaults() -> None:
    rows = [(row[0].strip("`"), int(row[1])) for row in _rows(STATE, "## Genesis")]
    assert dict(rows) == asdict(DEFAULT_PARAMETERS)


def test_routes_are_those_of_a_node_with_all_roles() -> None:
    told = [tuple(row[:4]) for row in _rows((FOLDER / "http.md").read_text(), "# HTTP of a ledger node")]
    assert told == [
        (
            route.method,
            f"`{route.pattern}`",
            str(route.max_body_bytes) if route.method == "POST" else "",
            str(route.cost),
        )
        for route in ledger_routes()
    ]


def _vectors(name: str) -> Any:
    return json.loads((FOLDER / "vectors" / name).read_text())


def test_vectors_are_those_that_are_made() -> None:
    made = documents()
    assert {path.name for path in (FOLDER / "vectors").glob("*.json")} == made.keys()
    for name, content in made.items():
        assert (FOLDER / "vectors" / name).read_bytes() == content, "run `make spec`"


ANSWER_VECTORS = _vectors("answers.json")


@pytest.mark.parametrize("question", ANSWER_VECTORS["questions"], ids=lambda question: question["name"])
def test_answers_are_judged_as_the_vectors_say(question: dict[str, Any]) -> None:
    light = LightClient(ANSWER_VECTORS["chain_id"], _genesis(ANSWER_VECTORS))
    verifier = AnswerVerifier(light, max_age_s=ANSWER_VECTORS["max_age_s"])
    data, digest = json.dumps(question["answer"]).encode(), CertDigest(bytes.fromhex(question["digest"]))
    asked = {"min_height": question["min_height"], "with_certificate": question["with_certificate"]}
    try:
        result = {"status": str(verifier.verify(data, digest, question["now_s"], **asked).status)}
    except InquiryError as error:
        result = {"error": str(error.code)}
    assert result == question["result"]


SEVERAL_VECTORS = _vectors("several.json")


@pytest.mark.parametrize("question", SEVERAL_VECTORS["questions"], ids=lambda question: question["name"])
def test_answers_about_several_are_judged_as_the_vectors_say(question: dict[str, Any]) -> None:
    light = LightClient(SEVERAL_VECTORS["chain_id"], _genesis(SEVERAL_VECTORS))
    verifier = AnswerVerifier(light, max_age_s=SEVERAL_VECTORS["max_age_s"])
    try:
        result = _SEVERAL[question["kind"]](verifier, question, json.dumps(question["answer"]).encode())
    except InquiryError as error:
        result = {"error": str(error.code)}
    assert result == question["result"]


def _statuses(verifier: AnswerVerifier, question: dict[str, Any], data: bytes) -> dict[str, Any]:
    digests = [CertDigest(bytes.fromhex(digest)) for digest in question["digests"]]
    found = verifier.verify_batch(data, digests, question["now_s"], min_height=question["min_height"])
    return {"statuses": [str(each.status) for each in found]}


def _below(verifier: AnswerVerifier, question: dict[str, Any], data: bytes) -> dict[str, Any]:
    prefix = question["prefix"]
    found = verifier.verify_prefix(data, prefix, question["now_s"], min_height=question["min_height"])
    recorded = {digest.hex(): str(each.status) for digest, each in found.recorded.items()}
    return {"recorded": recorded, "not_shown": sorted(key.hex() for key in found.others)}


def _values(verifier: AnswerVerifier, question: dict[str, Any], data: bytes) -> dict[str, Any]:
    keys = [bytes.fromhex(key) for key in question["keys"]]
    found = verifier.verify_leaves(data, keys, question["now_s"], min_height=question["min_height"])
    return {"values": [None if value is None else base64.b64encode(value).decode() for value in found]}


_SEVERAL = {"several": _statuses, "prefix": _below, "leaves": _values}

HEADER_VECTORS = _vectors("headers.json")


@pytest.mark.parametrize("case", HEADER_VECTORS["cases"], ids=lambda case: case["name"])
def test_headers_are_judged_as_the_vectors_say(case: dict[str, Any]) -> None:
    blocks = {name: LightBlock.from_json(form) for name, form in HEADER_VECTORS["blocks"].items()}
    kept = blocks.get(case["trust"])
    trust = TrustPoint.at(kept.signed_header, kept.validators) if kept else _genesis(HEADER_VECTORS)
    light = LightClient(HEADER_VECTORS["chain_id"], trust)
    for name in case["verified"]:
        light.verify(blocks[name].signed_header, blocks[name].validators, case["now_s"], min_height=0)
    asked = blocks[case["block"]]
    validators = asked.validators if case["with_validators"] else None
    result = "trusted"
    try:
        light.verify(asked.signed_header, validators, case["now_s"], min_height=case["min_height"])
    except LightError as error:
        result = error.code
    assert result == case["result"]


def _genesis(vectors: dict[str, Any]) -> TrustPoint:
    genesis = vectors["genesis"]
    validators = ValidatorSet.from_json({"validators": genesis["validators"]})
    return TrustPoint.genesis(validators, parse_time(genesis["time"]))


def test_proofs_show_what_the_vectors_say() -> None:
    vectors = _vectors("proofs.json")
    assert {each["result"] for each in vectors} == {"present", "absent", "malformed", "unproven"}
    for each in vectors:
        assert _shown(each) == each["result"]


def _shown(vector: dict[str, Any]) -> str:
    root, key, value_hash = (bytes.fromhex(vector.get(name, "")) for name in ("root", "key", "value_hash"))
    try:
        proof = Proof.parse(base64.b64decode(vector["proof"]))
        if value_hash:
            verify_inclusion(root, key, value_hash, proof)
        else:
            verify_absence(root, key, proof)
    except MalformedError:
        return "malformed"
    except ProofError:
        return "unproven"
    return "present" if value_hash else "absent"
