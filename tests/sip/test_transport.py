"""Sockets: messages cross them whole, connections are reused, and nobody can hold too many or be too slow."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import uvloop

from voice_dpki.errors import LocalError
from voice_dpki.sip.message import Hop
from voice_dpki.sip.transaction import Outgoing
from voice_dpki.sip.transport import Limits, Transport

HOST = "127.0.0.1"
MESSAGE = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 5\r\n\r\nhello"


class Record:
    """What a transport gave, and what was traced of what it sent."""

    on = True

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, Hop]] = []
        self.failures: list[Outgoing] = []
        self.traced: list[tuple[str, str, str]] = []

    def sip(self, transport: str, src: str, dst: str, data: bytes) -> None:
        self.traced.append((transport, src, dst))


Make = Callable[..., Awaitable[tuple[Transport, Record]]]


@asynccontextmanager
async def transports() -> AsyncIterator[Make]:
    """Make transports, and close them at the end."""
    made = []

    async def make_one(limits: Limits | None = None) -> tuple[Transport, Record]:
        record = Record()
        transport = Transport(
            HOST,
            0,
            on_message=lambda data, source: record.messages.append((data, source)),
            on_failure=record.failures.append,
            tracer=record,
            limits=limits,
        )
        await transport.start()
        made.append(transport)
        return transport, record

    try:
        yield make_one
    finally:
        for transport in made:
            await transport.close()


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    async with transports() as make_one:
        yield make_one


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


def tcp(transport: Transport) -> Hop:
    return replace(transport.address, transport="tcp")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_message_crosses_and_its_answer_comes_back(kind: str, run: Callable[..., None]) -> None:
    """On both event loops: the programs run on uvloop, and another user of the library may not."""

    async def cross() -> None:
        async with transports() as make:
            (a, seen_a), (b, seen_b) = await make(), await make()
            for _ in range(2):
                a.send(Outgoing(Hop(kind, HOST, b.address.port), MESSAGE, None))
            await until(lambda: len(seen_b.messages) == 2)
            data, source = seen_b.messages[1]
            assert (data, source.transport) == (MESSAGE, kind)
            assert seen_b.messages[0][1] == source  # one connection for both
            b.send(Outgoing(source, MESSAGE, None))
            await until(lambda: seen_a.messages)
            assert seen_a.traced == [(kind, source.address, b.address.address)] * 2
            assert seen_b.traced == [(kind, b.address.address, source.address)]

    run(cross())


async def test_a_response_finds_another_way_when_its_connection_is_gone(make: Make) -> None:
    (a, seen_a), (b, _) = await make(), await make()
    b.send(Outgoing(Hop("tcp", HOST, 1), MESSAGE, None, fallback=tcp(a)))
    await until(lambda: seen_a.messages)


async def test_what_cannot_be_sent_is_told(make: Make) -> None:
    a, seen = await make()
    nobody = Outgoing(Hop("tcp", HOST, 1), MESSAGE, None)
    a.send(nobody)
    assert seen.failures == []
    await until(lambda: seen.failures)
    assert seen.failures == [nobody]
    a.send(Outgoing(Hop("udp", HOST, 9), b"x" * 70_000, None))
    await until(lambda: len(seen.failures) == 2)
    assert seen.traced == []


async def test_keep_alives_are_answered_and_a_broken_stream_is_closed(make: Make) -> None:
    a, seen = await make()
    reader, writer = await asyncio.open_connection(HOST, a.address.port)
    writer.write(b"\r\n\r\n" + MESSAGE[:20])
    assert await reader.readexactly(2) == b"\r\n"
    writer.write(MESSAGE[20:])
    await until(lambda: seen.messages)
    writer.write(b"OPTIONS sip:a SIP/2.0\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_idle_and_trickling_connections_are_closed(make: Make) -> None:
    a, _ = await make(Limits(idle_s=0.2, message_s=0.05))
    idle = await asyncio.open_connection(HOST, a.address.port)
    slow = await asyncio.open_connection(HOST, a.address.port)
    slow[1].write(b"OPT")
    assert await asyncio.wait_for(slow[0].read(), 5) == b""
    assert await asyncio.wait_for(idle[0].read(), 5) == b""
    for _, writer in (idle, slow):
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("limits", [Limits(connections=2), Limits(connections_per_host=2)])
async def test_connections_are_counted(make: Make, limits: Limits) -> None:
    a, _ = await make(limits)
    streams = [await asyncio.open_connection(HOST, a.address.port) for _ in range(3)]
    ended = [asyncio.create_task(reader.read()) for reader, _ in streams]
    done, pending = await asyncio.wait(ended, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    assert all(isinstance(task.exception(), ConnectionResetError) or task.result() == b"" for task in done)
    for _, writer in streams:
        writer.close()
    await asyncio.gather(*pending, return_exceptions=True)


async def test_a_peer_that_does_not_read_is_given_up(make: Make) -> None:
    a, seen = await make(Limits(write_buffer_bytes=1000))
    writers = []
    server = await asyncio.start_server(lambda reader, writer: writers.append(writer), HOST, 0, limit=1)
    hop = Hop("tcp", HOST, server.sockets[0].getsockname()[1])
    a.send(Outgoing(hop, MESSAGE, None))
    await until(lambda: seen.traced)
    while not seen.failures:
        a.send(Outgoing(hop, MESSAGE * 1000, None))
        await asyncio.sleep(0)
    server.close()
    for writer in writers:
        writer.transport.abort()


async def test_a_port_that_is_taken_is_an_error(make: Make) -> None:
    a, _ = await make()
    again = Transport(HOST, a.address.port, on_message=lambda *_: None, on_failure=lambda _: None, tracer=Record())
    with pytest.raises(LocalError, match="already in use"):
        await again.start()
