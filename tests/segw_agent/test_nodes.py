"""Inquiry nodes that hang or fail: one deadline for all, and the dead ones are asked last for a while."""

import asyncio
import logging
from typing import Any, cast

import pytest

from segw_agent.live import LiveSas
from segw_agent.nodes import AWAY_S, Nodes
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.names import CertDigest
from voice_dpki.wire.ledger.client import LedgerClient


class Time:
    """A monotonic clock that a test moves; `waits` lets it run while a node hangs."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def steady_s(self) -> float:
        return self.now_s


async def hangs() -> str:
    await asyncio.Event().wait()
    return "never"


async def answers() -> str:
    return "an answer"


async def refuses() -> str:
    raise InquiryError(InquiryCode.UNREACHABLE, "refused")


async def lies() -> str:
    raise InquiryError(InquiryCode.UNPROVEN, "no proof")


class Net:
    """Nodes that behave as they are told, and who was asked."""

    def __init__(self, timeout_s: float = 0.2, **behaviours: Any) -> None:
        self.behaviours, self.time = dict(behaviours), Time()
        clients = cast("dict[str, LedgerClient]", dict.fromkeys(behaviours))
        self.nodes = Nodes(clients, self.time, timeout_s=timeout_s)
        self.asked: list[str] = []
        self.failed: list[InquiryCode] = []

    async def ask(self) -> str:
        self.asked.clear()
        self.failed.clear()

        async def one(address: str, _client: LedgerClient) -> str:
            self.asked.append(address)
            return str(await self.behaviours[address]())

        return await self.nodes.ask(one, lambda error: self.failed.append(error.code))


@pytest.mark.parametrize("dead", [hangs, refuses])
async def test_the_first_is_dead_and_the_second_answers(dead: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The dead one is remembered, and the log says it once."""
    net = Net(first=dead, second=answers, third=answers)
    async with asyncio.timeout(60):
        assert await net.ask() == "an answer"
        assert net.asked == ["first", "second"]
        for _ in range(3):
            await net.ask()
            assert net.asked == ["second"]
        net.time.now_s += AWAY_S + 1
        await net.ask()
        assert net.asked == ["first", "second"]
    said = [record.message for record in caplog.records]
    assert said == ["inquiry node is silent"]


async def test_a_node_that_answers_again_has_its_place_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    net = Net(first=refuses, second=answers)
    await net.ask()
    net.behaviours |= {"first": answers, "second": refuses}
    await net.ask()
    assert net.asked == ["second", "first"]
    await net.ask()
    assert net.asked == ["first"]
    said = [record.message for record in caplog.records]
    assert said == ["inquiry node is silent", "inquiry node is silent", "inquiry node answers again"]


async def test_one_deadline_for_all_of_them() -> None:
    """Each gets its share of what is left, and none more than that."""
    waited: list[float] = []
    net = Net(timeout_s=9.0, a=hangs, b=hangs, c=hangs)

    async def at_once(answer: Any, seconds: float) -> Any:
        answer.close()
        waited.append(seconds)
        net.time.now_s += seconds
        raise InquiryError(InquiryCode.UNREACHABLE, "the inquiry node does not answer in time")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segw_agent.nodes._within", at_once)
        with pytest.raises(InquiryError, match="in time"):
            await net.ask()
    assert waited == pytest.approx([3.0, 3.0, 3.0])
    assert net.time.now_s == pytest.approx(109.0)


async def test_an_answer_without_proof_is_no_silence() -> None:
    """The next node is asked, but the one that lied keeps its place: its network is not at fault."""
    net = Net(first=lies, second=answers)
    for _ in range(2):
        assert await net.ask() == "an answer"
        assert (net.asked, net.failed) == (["first", "second"], [InquiryCode.UNPROVEN])


async def test_all_are_silent() -> None:
    net = Net(first=refuses, second=refuses)
    for _ in range(2):
        with pytest.raises(InquiryError) as silent:
            await net.ask()
        assert silent.value.code is InquiryCode.UNREACHABLE
        assert sorted(net.asked) == ["first", "second"], "nobody is given up for good"


async def test_there_are_none() -> None:
    net = Net()
    assert not net.nodes
    with pytest.raises(InquiryError, match="no inquiry node to ask"):
        await net.ask()


async def test_the_log_says_once_that_live_sas_cannot_be_checked(caplog: pytest.LogCaptureFixture) -> None:
    """Not once for each SA and sweep."""
    caplog.set_level(logging.INFO)
    live = object.__new__(LiveSas)
    behaviour: Any = refuses

    class Ledger:
        async def ask(self, _digest: CertDigest, *, step: str) -> str:
            return str(await behaviour())

    live._silent = False
    live._judge = cast(Any, type("Judge", (), {"ledger": Ledger()})())
    live._checked = lambda *_: True  # type: ignore[method-assign]
    for _ in range(50):
        assert not await live._recheck_one(CertDigest(bytes(32)))
    behaviour = answers
    for _ in range(5):
        assert await live._recheck_one(CertDigest(bytes(32)))
    assert [record.message for record in caplog.records] == [
        "live SAs cannot be checked",
        "live SAs can be checked again",
    ]
