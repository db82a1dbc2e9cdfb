"""The second verifier comes to the results of docs/spec/vectors."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.judge import Judge
from voice_dpki.ledger.light import LightBlock, LightClient, LightError, TrustPoint

VECTORS = Path(__file__).parents[1] / "docs" / "spec" / "vectors"

pytestmark = pytest.mark.timeout(300)


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_bytes())


def word(result: Any) -> Any:
    """Headers and proofs have one word as their result, be it an error or not."""
    return result["error"] if isinstance(result, dict) else result


def test_it_agrees_on_proofs(second_verifier: Path) -> None:
    judge, proofs = Judge(second_verifier), vectors("proofs")
    for one in proofs:
        judge.ask("proof", **{name: value for name, value in one.items() if name != "result"})
    assert [word(result) for result in judge.verdicts()] == [one["result"] for one in proofs]


def test_it_agrees_on_headers(second_verifier: Path) -> None:
    judge, file = Judge(second_verifier), vectors("headers")
    blocks = file["blocks"]
    for case in file["cases"]:
        trust = {"genesis": file["genesis"]} if case["trust"] == "genesis" else {"kept": blocks[case["trust"]]}
        verified = [blocks[name] for name in case["verified"]]
        judge.context(case["name"], chain_id=file["chain_id"], now_s=case["now_s"], verified=verified, **trust)
        question = {name: case[name] for name in ("now_s", "min_height", "with_validators")}
        judge.ask("header", context=case["name"], answer=json.dumps(blocks[case["block"]]).encode(), **question)
    found = {case["name"]: word(result) for case, result in zip(file["cases"], judge.verdicts(), strict=True)}
    assert found == {case["name"]: case["result"] for case in file["cases"]}


@pytest.mark.parametrize("name", ["answers", "several"])
def test_it_agrees_on_answers(second_verifier: Path, name: str) -> None:
    judge, file = Judge(second_verifier), vectors(name)
    judge.context("genesis", chain_id=file["chain_id"], genesis=file["genesis"], now_s=0)
    for case in file["questions"]:
        question = {key: value for key, value in case.items() if key not in ("name", "result")}
        question["answer"] = json.dumps(case["answer"]).encode()
        kind = question.pop("kind", "answer")
        judge.ask(kind, context="genesis", max_age_s=file["max_age_s"], **question)
    found = {case["name"]: result for case, result in zip(file["questions"], judge.verdicts(), strict=True)}
    assert found == {case["name"]: case["result"] for case in file["questions"]}


NOW_S = 1_790_000_040


def approached(trust: TrustPoint, blocks: dict[int, LightBlock], height: int, chain_id: str) -> str:
    """Bisect with the client."""
    light = LightClient(chain_id, trust)
    asked = light.approach(blocks[height].signed_header, NOW_S, min_height=0)
    try:
        wanted = next(asked)
        while True:
            wanted = asked.send(blocks[wanted])
    except StopIteration:
        return "trusted"
    except LightError as error:
        return error.code


def test_it_bisects_as_the_client_does(second_verifier: Path) -> None:
    """From each trusted block to each other, through headers between; validators change from block to block."""
    judge, file = Judge(second_verifier), vectors("headers")
    chain_id = file["chain_id"]
    given = {int(name): block for name, block in file["blocks"].items() if name.isdigit()}
    blocks = {height: LightBlock.from_json(block) for height, block in given.items()}
    found = {}
    for trusted, block in blocks.items():
        judge.context(
            f"{trusted}", chain_id=chain_id, kept=given[trusted], headers=list(given.values()), now_s=NOW_S
        )
        trust = TrustPoint.at(block.signed_header, block.validators)
        for height in blocks:
            answer = json.dumps(given[height]).encode()
            judge.ask("approach", context=f"{trusted}", answer=answer, now_s=NOW_S, min_height=0)
            found[trusted, height] = approached(trust, blocks, height, chain_id)
    verdicts = dict(zip(found, map(word, judge.verdicts()), strict=True))
    assert verdicts == found
    assert {pair for pair, result in found.items() if result == "trusted"} == {
        (low, high) for low in blocks for high in blocks if low <= high
    }
