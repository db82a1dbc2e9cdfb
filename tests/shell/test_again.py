"""Requests that are repeated: a busy node says when, and gets its time."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger_node.command import federation
from ledger_node.command.federation_folder import OperatorNode
from ledger_node.command.sending import Sender
from voice_dpki.errors import PeerError
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.genesis import dump_genesis, load_genesis
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.shell import again as again_module
from voice_dpki.shell.again import SeldomTell, again
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, json_response, serve
from voice_dpki.wire.ledger.client import LedgerClient, SubmissionError
from voice_dpki.x509.keys import generate_es256

pytestmark = pytest.mark.undescribed

BUSY = (
    Response(
        503, b'{"title":"Service Unavailable","detail":"repeat the request"}', headers=(("Retry-After", "1"),)
    ),
    Response(429),
)
GENESIS = dump_genesis(
    "test-1",
    10**9,
    [
        Member(
            organization="Operator A",
            kind=MemberKind.OPERATOR,
            domains=("a.example",),
            validators=(Ed25519PrivateKey.generate().public_key().public_bytes_raw(),),
            endorsing_keys=(generate_es256().public_key_der,),
        )
    ],
)
RECORDED = {"digest": "00" * 32, "status": "valid", "height": 7, "repeated": False}


class Node:
    """Answers each request with the next of `answers`, and notes when it came."""

    def __init__(self, *answers: Response) -> None:
        self._answers = list(answers)
        self.came_s: list[float] = []

    async def _answer(self, _: Request) -> Response:
        self.came_s.append(time.monotonic())
        return self._answers.pop(0)

    def app(self) -> HttpApp:
        paths = ("/ledger/v1/submissions", "/ledger/v1/transactions")
        return HttpApp([Route("POST", path, self._answer) for path in paths])


async def submit(port: int, told: list[str]) -> None:
    async with LedgerClient.of_genesis(f"http://127.0.0.1:{port}", load_genesis(GENESIS)) as client:
        assert (await again(partial(client.submit, b"certificate", "token"), told.append)).height == 7


async def send(port: int, told: list[str]) -> None:
    async with Sender(f"http://127.0.0.1:{port}", tell=told.append) as sender:
        assert (await sender.verdict(b"transaction")).height == 7


async def check(port: int, told: list[str]) -> None:
    node = OperatorNode(Path("operator-a.toml"), "Operator A", f"http://127.0.0.1:{port}", "token")
    assert len(await federation.record([node], 1)) == 1


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (submit, RECORDED),
        (send, {"code": 0, "name": "ok", "detail": "", "height": 7}),
        (check, RECORDED),
    ],
)
async def test_a_busy_node_is_asked_again_when_it_says(
    ask: Callable[..., Awaitable[None]],
    answer: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However short the pauses are for a node that is away, and though they are used up."""
    told: list[str] = []
    monkeypatch.setattr(again_module, "RETRY_S", (0.0,))
    monkeypatch.setattr(federation, "_TELL", told.append)
    node = Node(*BUSY, json_response(201 if answer is RECORDED else 200, answer))
    async with serve(node.app(), Listen(port=0)) as port:
        await ask(port, told)
    first, second, _ = node.came_s
    assert second - first >= 1
    assert len(told) == 1
    assert all(sentence.endswith("the request is repeated in 1 s") for sentence in told)


async def test_a_node_that_stays_busy_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again_module, "BUSY_S", 3)
    monkeypatch.setattr(again_module, "RETRY_S", (0.01,))
    # A second passes each time somebody looks: it begins at 0, and looks after each answer.
    monkeypatch.setattr(again_module, "time", SimpleNamespace(monotonic=count().__next__))
    node = Node(*[Response(503) for _ in range(100)])
    async with serve(node.app(), Listen(port=0)) as port, Sender(f"http://127.0.0.1:{port}") as sender:
        with pytest.raises(PeerError, match=r"status 503; repeating the command does no harm"):
            await sender.verdict(b"transaction")
    assert len(node.came_s) == 4


async def test_a_refusal_is_not_repeated() -> None:
    for error in (
        InquiryError(InquiryCode.UNPROVEN, "the answer proves nothing"),
        SubmissionError("quota", "too many", 12),
        SubmissionError("unauthorized", "the token is not known"),
    ):
        asked = 0

        async def ask(error: Exception = error) -> None:
            nonlocal asked
            asked += 1
            raise error

        with pytest.raises(type(error)):
            await again(ask, pytest.fail)
        assert asked == 1


def test_many_that_wait_are_told_of_once() -> None:
    told: list[str] = []
    tell = SeldomTell(told.append)
    for number in range(100):
        tell(f"sentence {number}")
    assert told == ["sentence 0"]
