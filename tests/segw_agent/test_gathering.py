"""Inquiries that come close together go to the node in one request, and none waits for another's fate."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from segw_agent.gathering import MAX_TOGETHER, PAUSE_S, Gathering
from voice_dpki.ledger.answers import InquiryCode, InquiryError, Resolution
from voice_dpki.names import CertDigest
from voice_dpki.wire.http_client import HttpUnreachableError
from voice_dpki.wire.ledger.client import NodeSilentError


def digest(number: int) -> CertDigest:
    return CertDigest(number.to_bytes(32, "big"))


class Node:
    """Answers a certificate's digest in place of what is proved of it; `spoils` are those that cannot be read."""

    def __init__(self) -> None:
        self.requests: list[tuple[CertDigest, ...]] = []
        self.alone: list[CertDigest] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.silent: set[CertDigest] = set()
        self.spoils: set[CertDigest] = set()

    async def resolve(self, asked: CertDigest, *, with_certificate: bool) -> Resolution:
        assert not with_certificate
        self.alone.append(asked)
        (found,) = await self.resolve_all([asked])
        return found

    async def resolve_all(self, asked: Sequence[CertDigest]) -> tuple[Resolution, ...]:
        self.requests.append(tuple(asked))
        await self.answers.wait()
        if self.silent.intersection(asked):
            await asyncio.Event().wait()
        if self.spoils.intersection(asked):
            raise InquiryError(InquiryCode.NEWER_RULES, "a record cannot be read")
        return cast(tuple[Resolution, ...], tuple(asked))


def gathering(node: Node) -> Gathering:
    return Gathering(cast(Any, node))


async def asked(gathered: Gathering, numbers: Sequence[int]) -> list[Any]:
    async with asyncio.timeout(60):
        return await asyncio.gather(
            *(gathered.resolve(digest(number)) for number in numbers), return_exceptions=True
        )


async def test_inquiries_of_one_moment_go_together_and_a_lone_one_alone() -> None:
    node = Node()
    gathered = gathering(node)
    count = 2 * MAX_TOGETHER + 5
    assert await asked(gathered, range(count)) == [digest(number) for number in range(count)]
    assert [len(request) for request in node.requests] == [MAX_TOGETHER, MAX_TOGETHER, 5]
    assert node.alone == []
    assert await asked(gathered, [7]) == [digest(7)]
    assert node.alone == [digest(7)]


async def test_what_comes_while_a_request_is_under_way_waits_for_its_answer() -> None:
    node = Node()
    node.answers.clear()
    gathered = gathering(node)
    first = asyncio.create_task(gathered.resolve(digest(1)))
    while not node.requests:
        await asyncio.sleep(0)
    others = asyncio.create_task(asked(gathered, [2, 3]))
    await asyncio.sleep(PAUSE_S)
    assert node.requests == [(digest(1),)]
    node.answers.set()
    assert [await first, *await others] == [digest(1), digest(2), digest(3)]
    assert node.requests == [(digest(1),), (digest(2), digest(3))]


async def test_one_certificate_is_asked_about_once_for_all_who_wait() -> None:
    node = Node()
    assert await asked(gathering(node), [1, 2, 2, 2]) == [digest(1), digest(2), digest(2), digest(2)]
    assert node.requests == [(digest(1), digest(2))]


async def test_a_record_that_cannot_be_read_spoils_no_other_answer() -> None:
    node = Node()
    node.spoils = {digest(2)}
    found = await asked(gathering(node), [1, 2, 3])
    assert found[0] == digest(1)
    assert isinstance(found[1], InquiryError)
    assert found[1].code is InquiryCode.NEWER_RULES
    assert found[2] == digest(3)
    assert node.requests == [(digest(1), digest(2), digest(3)), (digest(1),), (digest(2),), (digest(3),)]
    assert isinstance((await asked(gathering(node), [2]))[0], InquiryError)
    assert node.requests[4:] == [(digest(2),)], "and it is asked about once if it was alone"


async def test_a_node_that_is_silent_about_one_answers_about_the_others() -> None:
    """A lost request holds nobody up for as long as it is waited for."""
    node = Node()
    node.silent = {digest(1)}
    gathered = gathering(node)
    lost = asyncio.create_task(gathered.resolve(digest(1)))
    while not node.requests:
        await asyncio.sleep(0)
    assert await asked(gathered, [2, 3]) == [digest(2), digest(3)]
    assert not lost.done()
    lost.cancel()


async def test_who_leaves_takes_the_answer_from_nobody() -> None:
    node = Node()
    node.answers.clear()
    gathered = gathering(node)
    tasks = [asyncio.create_task(gathered.resolve(digest(number))) for number in (1, 2, 2, 3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    node.answers.set()
    async with asyncio.timeout(60):
        found: list[Any] = [await tasks[at] for at in (0, 2, 3)]
    assert found == [digest(1), digest(2), digest(3)]


async def test_all_fail_where_the_node_does() -> None:
    class Away(Node):
        async def resolve_all(self, asked: Sequence[CertDigest]) -> tuple[Resolution, ...]:
            self.requests.append(tuple(asked))
            raise NodeSilentError(HttpUnreachableError("refused"))

    node = Away()
    for error in await asked(gathering(node), [1, 2, 3]):
        assert isinstance(error, InquiryError)
        assert error.code is InquiryCode.UNREACHABLE
    assert [len(request) for request in node.requests] == [3], "and it is not asked once more about each"


@pytest.mark.parametrize("requested", [False, True])
async def test_the_end_leaves_nobody_waiting(requested: bool) -> None:
    node = Node()
    node.answers.clear()
    gathered = gathering(node)
    tasks = [asyncio.create_task(gathered.resolve(digest(number))) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    while requested and not node.requests:
        await asyncio.sleep(0)
    await _ends(gathered, tasks)


async def test_the_end_leaves_nobody_waiting_who_is_asked_about_alone() -> None:
    """After an answer that cannot be read about one of them, whether or not these requests have begun."""

    class Spoilt(Node):
        async def resolve(self, asked: CertDigest, *, with_certificate: bool) -> Resolution:
            self.alone.append(asked)
            await asyncio.Event().wait()
            raise AssertionError

    for turns in range(4):
        node = Spoilt()
        node.spoils = {digest(2)}
        gathered = gathering(node)
        tasks = [asyncio.create_task(gathered.resolve(digest(number))) for number in (1, 2, 3)]
        while not node.requests:
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        await _ends(gathered, tasks)


async def _ends(gathered: Gathering, tasks: Sequence["asyncio.Task[Resolution]"]) -> None:
    await gathered.aclose()
    async with asyncio.timeout(60):
        for task in tasks:
            with pytest.raises(InquiryError, match="ended without an answer"):
                await task
