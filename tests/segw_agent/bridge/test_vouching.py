"""The bridge's judge and nodes that hang or fail: one deadline for all, and the dead ones are asked last."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from segw_agent.bridge.serial import serial_of
from segw_agent.bridge.vouching import NotVouchedError, Vouched, Vouching
from segw_agent.nodes import Nodes
from segw_agent.policy import CertificatePolicy
from tests.segw_agent.test_rules import BROKEN, At, Case
from voice_dpki.ledger.answers import InquiryCode, InquiryError, Resolution
from voice_dpki.names import CertDigest

FIRST, SECOND = "first", "second"


class Node(At):
    """A node that answers, or does what `fails` does; it counts the inquiries."""

    def __init__(self, case: Case, fails: Any = None) -> None:
        super().__init__(case=case, fails=fails, asked=0)

    async def resolve(self, digest: bytes) -> Resolution:
        self.asked += 1
        if self.fails is not None:
            await self.fails()
        return await super().resolve(digest)

    async def resolve_prefix(self, _prefix: bytes) -> Any:
        self.asked += 1
        if self.fails is not None:
            await self.fails()
        return SimpleNamespace(others=(), recorded=(self.case.profile.digest,), header=SimpleNamespace(time_ns=1))


async def hangs() -> None:
    await asyncio.Event().wait()


async def refuses() -> None:
    raise InquiryError(InquiryCode.UNREACHABLE, "refused")


def vouching(case: Case, **nodes: Any) -> Vouching:
    keys = {key: getattr(case.policy, key) for key in CertificatePolicy.__struct_fields__}
    policy: Any = CertificatePolicy(**keys)
    clock: Any = At(case=case)
    return Vouching(Nodes(nodes, clock, timeout_s=2.0), policy, clock)


@pytest.mark.parametrize("dead", [hangs, refuses])
async def test_the_first_is_dead_and_the_second_answers(dead: Any) -> None:
    case = Case()
    nodes = {FIRST: Node(case, dead), SECOND: Node(case)}
    judge = vouching(case, **nodes)
    async with asyncio.timeout(60):
        for _ in range(3):
            assert isinstance(await judge.about(case.profile.digest), Vouched)
        assert isinstance(await judge.about_serial(serial_of(CertDigest(case.profile.digest))), Vouched)
    assert (nodes[FIRST].asked, nodes[SECOND].asked) == (1, 5), "who was silent is not waited for again"


async def test_all_hang() -> None:
    """The deadline holds for all of them together, and nobody is vouched for."""
    case = Case()
    judge = vouching(case, first=Node(case, hangs), second=Node(case, hangs))
    async with asyncio.timeout(60):
        with pytest.raises(InquiryError) as silent:
            await judge.about(case.profile.digest)
    assert silent.value.code is InquiryCode.UNREACHABLE


async def test_a_refusal_is_an_answer() -> None:
    """No other node is asked for a better one."""
    case = BROKEN["not-recorded"][0]
    nodes = {FIRST: Node(case), SECOND: Node(case)}
    with pytest.raises(NotVouchedError):
        await vouching(case, **nodes).about(case.profile.digest)
    assert (nodes[FIRST].asked, nodes[SECOND].asked) == (1, 0)
