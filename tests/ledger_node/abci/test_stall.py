"""Whose votes a ledger without blocks waits for; CometBFT's own answers are read by tests/e2e/test_stall.py."""

import json
from typing import Any

import pytest

from ledger_node.abci.rpc import Rpc
from ledger_node.abci.stall import waiting_for
from voice_dpki.errors import MalformedError
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, json_response, serve

FOUR = [(f"Operator {letter}", bytes([number]) * 32) for number, letter in enumerate("ABCD")]


def a_round(prevotes: str, precommits: str = "____") -> dict[str, str]:
    return {"prevotes_bit_array": f"BA{{4:{prevotes}}} 2/4 = 0.50", "precommits_bit_array": f"BA{{4:{precommits}}}"}


async def voters(rounds: Any) -> frozenset[int]:
    async def answer(request: Request) -> Response:
        (asked,) = json.loads(request.body)
        assert asked["method"] == "consensus_state"
        result = {"round_state": {"height_vote_set": rounds}}
        return json_response(200, {"jsonrpc": "2.0", "id": asked["id"], "result": result})

    app = HttpApp([Route("POST", "/", answer)])
    async with serve(app, Listen(port=0)) as port, Rpc(Listen(port=port)) as rpc:
        return await rpc.voters()


@pytest.mark.parametrize(
    ("rounds", "places"),
    [
        ([a_round("xx__")], {0, 1}),
        ([a_round("xx_x"), a_round("x___", "___x"), a_round("____")], {0, 3}),
        ([], set()),
    ],
)
async def test_the_last_round_with_votes_counts(rounds: Any, places: set[int]) -> None:
    assert await voters(rounds) == places


@pytest.mark.parametrize("rounds", [{}, [{}], [{"prevotes_bit_array": "none", "precommits_bit_array": "none"}]])
async def test_an_answer_of_another_form_is_malformed(rounds: Any) -> None:
    with pytest.raises(MalformedError):
        await voters(rounds)


def test_those_who_do_not_vote_are_named() -> None:
    said = waiting_for(FOUR, frozenset({0, 2}))
    assert said == ("waiting for votes of Operator B (010101010101), Operator D (030303030303): 2 of 4 validators")
    assert waiting_for(FOUR, frozenset(range(4))) == "though all validators vote"
    many = waiting_for([(f"Operator {chr(65 + number)}", bytes([number])) for number in range(20)], frozenset())
    assert "Operator H (" in many
    assert "12 more: 20 of 20 validators" in many
