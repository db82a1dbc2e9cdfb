"""Connections to the agent's socket: frames in any pieces, one answer at a time, limits for clients that hang."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from segw_agent import conversation
from segw_agent.conversation import MAX_CONNECTIONS, MAX_FRAME_BYTES, Conversation, Conversations


class Answering:
    """Answers each body with itself, once it may; a body that begins with "!" is the client's last."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.may = asyncio.Event()
        self.may.set()
        self.under_way = self.most = 0

    async def answer(self, body: bytes) -> tuple[bytes, bool]:
        self.asked.append(body)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.may.wait()
        self.under_way -= 1
        if body == b"fault":
            raise ValueError(body)
        return framed(body), not body.startswith(b"!")


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(2, "big") + body


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Watched(Conversations):
    """Shows the conversations that it has begun."""

    def __init__(self, answering: Answering) -> None:
        super().__init__(answering.answer)
        self.made: list[Conversation] = []

    def begin(self) -> Conversation:
        self.made.append(super().begin())
        return self.made[-1]


@asynccontextmanager
async def served(path: Path, answering: Answering) -> AsyncIterator[Watched]:
    all_of_them = Watched(answering)
    server = await asyncio.get_running_loop().create_unix_server(all_of_them.begin, path)
    try:
        async with asyncio.timeout(60):
            yield all_of_them
            answering.may.set()
            while all_of_them.work:
                await asyncio.sleep(0)
    finally:
        server.close()


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.close()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
async def test_frames_in_any_pieces(tmp_path: Path, piece: int) -> None:
    bodies = [b"one", b"", b"three" * 20, b"!last"]
    answering = Answering()
    async with served(tmp_path / "s", answering), connected(tmp_path / "s") as (reader, writer):
        octets = b"".join(map(framed, bodies))
        for at in range(0, len(octets), piece):
            writer.write(octets[at : at + piece])
            await asyncio.sleep(0)
        assert await reader.read() == octets
    assert answering.asked == bodies
    assert answering.most == 1


async def test_nothing_is_answered_after_the_last_request(tmp_path: Path) -> None:
    answering = Answering()
    async with served(tmp_path / "s", answering), connected(tmp_path / "s") as (reader, writer):
        writer.write(framed(b"!last") + framed(b"never"))
        assert await reader.read() == framed(b"!last")
    assert answering.asked == [b"!last"]


async def test_the_rest_is_answered_for_a_client_that_sends_no_more(tmp_path: Path) -> None:
    async with served(tmp_path / "s", Answering()), connected(tmp_path / "s") as (reader, writer):
        writer.write(framed(b"one") + framed(b"two") + b"\0\5cut")
        writer.write_eof()
        assert await reader.read() == framed(b"one") + framed(b"two")


async def test_a_client_that_has_gone_is_judged_and_missed_by_nobody(tmp_path: Path) -> None:
    answering = Answering()
    answering.may.clear()
    async with served(tmp_path / "s", answering) as all_of_them:
        async with connected(tmp_path / "s") as (_, writer):
            writer.write(framed(b"one"))
            await until(lambda: answering.asked)
        answering.may.set()
        await until(lambda: not all_of_them.open)
    assert answering.asked == [b"one"]


async def test_a_fault_ends_the_connection_and_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served(tmp_path / "s", Answering()), connected(tmp_path / "s") as (reader, writer):
        async with connected(tmp_path / "s") as (bad_reader, bad_writer):
            bad_writer.write(framed(b"fault"))
            assert await bad_reader.read() == b""
        writer.write(framed(b"!well"))
        assert await reader.read() == framed(b"!well")
    assert "work in the background failed" in caplog.text


async def test_one_connection_too_many_is_closed(tmp_path: Path) -> None:
    async with served(tmp_path / "s", Answering()) as all_of_them:
        sockets = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CONNECTIONS)]
        try:
            for each in sockets:
                each.connect(str(tmp_path / "s"))
                await asyncio.sleep(0)
            await until(lambda: all_of_them.open == MAX_CONNECTIONS)
            async with connected(tmp_path / "s") as (reader, _):
                assert await reader.read() == b""
        finally:
            for each in sockets:
                each.close()
        await until(lambda: not all_of_them.open)
        async with connected(tmp_path / "s") as (reader, writer):
            writer.write(framed(b"!room again"))
            assert await reader.read() == framed(b"!room again")


@pytest.mark.parametrize(("limit", "octets"), [("IDLE_S", b""), ("IDLE_S", b"\0"), ("FRAME_S", b"\0\5cut")])
async def test_a_client_that_hangs_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, octets: bytes
) -> None:
    monkeypatch.setattr(conversation, limit, 0.05)
    async with served(tmp_path / "s", Answering()), connected(tmp_path / "s") as (reader, writer):
        writer.write(octets)
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readexactly(1)


async def test_a_judgement_may_take_longer_than_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "IDLE_S", 0.05)
    answering = Answering()
    answering.may.clear()
    async with served(tmp_path / "s", answering), connected(tmp_path / "s") as (reader, writer):
        writer.write(framed(b"!slow"))
        await until(lambda: answering.asked)
        await asyncio.sleep(0.2)
        answering.may.set()
        assert await reader.read() == framed(b"!slow")


async def test_no_more_is_read_than_a_frame_while_one_is_judged(tmp_path: Path) -> None:
    answering = Answering()
    answering.may.clear()
    count, body = 64, bytes(60_000)
    async with served(tmp_path / "s", answering) as all_of_them, connected(tmp_path / "s") as (reader, writer):
        writer.write(framed(body) * count)
        await until(lambda: all_of_them.made)
        (made,) = all_of_them.made
        await until(lambda: len(made._received) > MAX_FRAME_BYTES)
        await asyncio.sleep(0.1)
        assert len(made._received) < MAX_FRAME_BYTES + 2**18
        answering.may.set()
        for _ in range(count):
            assert await reader.readexactly(len(body) + 2) == framed(body)


async def test_a_client_that_does_not_read_gets_no_more_answers_until_it_does(tmp_path: Path) -> None:
    answering, body, count = Answering(), bytes(60_000), 64
    async with served(tmp_path / "s", answering):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(tmp_path / "s"))
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(client, framed(body) * count))
        await asyncio.sleep(0.3)
        assert len(answering.asked) < count // 2
        left = count * (len(body) + 2)
        while left:
            left -= len(await loop.sock_recv(client, 65_536))
        await sending
        client.close()
    assert len(answering.asked) == count
