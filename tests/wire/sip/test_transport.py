"""Sockets: messages cross them whole, connections are reused, and nobody can hold too many or be too slow."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import uvloop

from voice_dpki.errors import LocalError
from voice_dpki.sip.framing import PING
from voice_dpki.sip.message import Hop
from voice_dpki.sip.senders import Senders
from voice_dpki.sip.transaction import Outgoing
from voice_dpki.wire.sip.sockets import Sockets
from voice_dpki.wire.sip.transport import Limits, Transport

HOST = "127.0.0.1"
MESSAGE = (
    b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKa\r\nFrom: <sip:a@a>;tag=a\r\n"
    b"To: <sip:b@b>\r\nCall-ID: a\r\nCSeq: 1 OPTIONS\r\nContent-Length: 5\r\n\r\nhello"
)
JUNK = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 5\r\n\r\nhello"


class Record:
    """What a transport gave, and what was traced of what it sent."""

    on = True

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, Hop]] = []
        self.failures: list[Outgoing] = []
        self.traced: list[tuple[str, str, str]] = []
        self.unreachable: list[tuple[bytes, Hop]] = []
        self.refused: list[str] = []
        self.lost: list[Hop] = []
        self.broken: list[bytes] = []

    def sip(self, transport: str, src: str, dst: str, data: bytes) -> None:
        self.traced.append((transport, src, dst))


Make = Callable[..., Awaitable[tuple[Transport, Record]]]


@asynccontextmanager
async def transports() -> AsyncIterator[Make]:
    """Make transports, and close them at the end."""
    made = []

    async def make_one(
        limits: Limits | None = None, known: Iterable[str] = (), sockets: Sockets | None = None
    ) -> tuple[Transport, Record]:
        record = Record()
        transport = Transport(
            HOST,
            0,
            on_message=lambda data, source: record.messages.append((data, source)),
            on_failure=record.failures.append,
            tracer=record,
            on_broken=lambda data, source, error: record.broken.append(data),
            on_unreachable=lambda data, hop: record.unreachable.append((data, hop)),
            on_refused=record.refused.append,
            on_lost=record.lost.append,
            limits=limits,
            senders=Senders(known),
        )
        await transport.start(sockets)
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
    async with asyncio.timeout(60):
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


@pytest.fixture
async def swallowing() -> AsyncIterator[Callable[[int], list[Hop]]]:
    """Sockets whose backlog is full: whoever connects to them gets no answer."""
    sockets: list[socket.socket] = []

    def listen(count: int) -> list[Hop]:
        hops = []
        for _ in range(count):
            sockets.append(socket.create_server((HOST, 0), backlog=0))
            hops.append(Hop("tcp", *sockets[-1].getsockname()))
            for _ in range(2):
                sockets.append(socket.socket())
                sockets[-1].setblocking(False)
                sockets[-1].connect_ex((HOST, hops[-1].port))
        return hops

    yield listen
    for each in sockets:
        each.close()


def fallbacks(hops: list[Hop]) -> list[Outgoing]:
    return [Outgoing(Hop("tcp", HOST, 1, flow=9), MESSAGE, None, fallback=hop) for hop in hops]


@pytest.mark.parametrize(("known", "places"), [((), 4), ((HOST,), 8)])
async def test_who_hangs_up_takes_few_of_the_places_that_go_out(
    make: Make, swallowing: Callable[[int], list[Hop]], known: tuple[str, ...], places: int
) -> None:
    """Its Via names ports that swallow all; others are reached none the less."""
    a, seen_a = await make(Limits(outgoing=64), known)
    b, seen_b = await make()
    hops = swallowing(70)
    for outgoing in fallbacks(hops):
        a.send(outgoing)
    assert len(a._connecting) == places
    await until(lambda: len(seen_a.failures) == 70 - places)
    a.send(fallbacks(hops)[0])  # one that is begun takes no further place
    assert len(a._connecting) == places
    a.send(Outgoing(tcp(b), MESSAGE, None))
    await until(lambda: seen_b.messages)


async def test_strangers_share_few_places_and_give_them_back(make: Make) -> None:
    a, seen = await make(Limits(outgoing=64))
    for number in range(70):
        a.send(fallbacks([Hop("tcp", f"127.0.1.{number + 1}", 9)])[0])
    assert len(a._connecting) == 8
    await until(lambda: len(seen.failures) == 70)
    assert a._fallbacks == {}
    b, seen_b = await make()
    a.send(fallbacks([tcp(b)])[0])
    await until(lambda: seen_b.messages)
    assert len(a._fallbacks) == 1
    for connection in b._pool.all:
        connection.abort()
    await until(lambda: a._fallbacks == {})


async def test_what_waits_for_a_connection_is_bounded_in_bytes(
    make: Make, swallowing: Callable[[int], list[Hop]]
) -> None:
    a, seen = await make(Limits(write_buffer_bytes=len(MESSAGE) * 3))
    (hop,) = swallowing(1)
    for _ in range(10):
        a.send(Outgoing(hop, MESSAGE, None))
    await until(lambda: len(seen.failures) == 7)
    assert len(a._connecting[hop]) == 3


async def test_hops_without_a_connection_do_not_fill_the_log(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voice_dpki.wire.seldom.SAY_AGAIN_S", 1000.0)
    a, seen = await make()
    for number in range(20):
        a.send(Outgoing(Hop("tcp", f"127.0.1.{number + 1}", 9), MESSAGE, None))
    await until(lambda: len(seen.failures) == 20)
    assert [record.message for record in caplog.records].count("no connection") == 1


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
    a, _ = await make(Limits(idle_s=0.2, message_s=0.05, first_message_s=9))
    idle = await asyncio.open_connection(HOST, a.address.port)
    idle[1].write(MESSAGE)
    slow = await asyncio.open_connection(HOST, a.address.port)
    slow[1].write(MESSAGE + b"OPT")
    assert await asyncio.wait_for(slow[0].read(), 60) == b""
    assert await asyncio.wait_for(idle[0].read(), 60) == b""
    for _, writer in (idle, slow):
        writer.close()
        await writer.wait_closed()


async def test_a_connection_that_brings_no_message_is_closed_whatever_else_it_sends(make: Make) -> None:
    a, _ = await make(Limits(first_message_s=0.1))
    reader, writer = await asyncio.open_connection(HOST, a.address.port)
    async with asyncio.timeout(60):
        while not reader.at_eof():  # or reset: a ping may meet the socket just closed
            writer.write(b"\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(100), 60)
                continue
            break
    writer.close()


@pytest.mark.parametrize("limits", [Limits(incoming=3), Limits(per_source=3)])
async def test_silent_connections_make_way_and_stop_none_that_goes_out(make: Make, limits: Limits) -> None:
    a, seen_a = await make(limits)
    b, seen_b = await make()
    talker = await asyncio.open_connection(HOST, a.address.port)
    talker[1].write(MESSAGE)
    await until(lambda: seen_a.messages)
    streams = [await asyncio.open_connection(HOST, a.address.port) for _ in range(40)]
    await until(lambda: len(a._pool.all) == 3 and len(seen_a.refused) == 38)
    a.send(Outgoing(tcp(b), MESSAGE, None))
    await until(lambda: seen_b.messages)
    talker[1].write(MESSAGE)  # who has spoken stays
    late = await asyncio.open_connection(HOST, a.address.port)
    late[1].write(MESSAGE)  # and who speaks gets in
    await until(lambda: len(seen_a.messages) == 3)
    for _, writer in (*streams, talker, late):
        writer.transport.abort()
    b.send(Outgoing(tcp(a), MESSAGE, None))
    await until(lambda: len(seen_a.messages) == 4)


async def test_those_who_speak_are_counted_too(make: Make) -> None:
    a, seen = await make(Limits(incoming=2))
    streams = []
    for number in range(2):
        streams.append(await asyncio.open_connection(HOST, a.address.port))
        streams[-1][1].write(MESSAGE)
        await until(lambda wanted=number + 1: len(seen.messages) == wanted)  # type: ignore[misc]
    reader, writer = await asyncio.open_connection(HOST, a.address.port)
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 60) == b""
    for _, open_writer in (*streams, (reader, writer)):
        open_writer.transport.abort()
    await until(lambda: a._pool.all == [] and not a._pool._sources)


async def connect_from(host: str, transport: Transport, message: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection(HOST, transport.address.port, local_addr=(host, 0))
    writer.write(message)
    return writer


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_strangers_who_speak_keep_no_known_peer_out(run: Callable[..., None]) -> None:
    """The stranger that was idle longest makes way, its end is told, and no known peer does."""

    async def cross() -> None:
        async with transports() as make:
            a, seen = await make(Limits(incoming=6), ["127.0.0.9"])
            writers = []
            for number in range(6):
                writers.append(await connect_from(f"127.0.0.{number // 2 + 2}", a, MESSAGE))
                await until(lambda wanted=number + 1: len(seen.messages) == wanted)  # type: ignore[misc]
            for number in range(8):
                writers.append(await connect_from("127.0.0.9", a, MESSAGE))
                await until(lambda: a._pool._sources["127.0.0.9"] or len(seen.messages) > 6)
                await until(lambda wanted=number: len(seen.messages) >= 7 + min(wanted, 5))  # type: ignore[misc]
            await until(lambda: len(seen.refused) == 8)
            assert seen.refused == [f"127.0.0.{n}" for n in (2, 2, 3, 3, 4, 4, 9, 9)]
            await until(lambda: len(seen.lost) == 6)
            assert [hop.host for hop in seen.lost] == seen.refused[:6]
            assert (a._pool._incoming, a._pool._sources["127.0.0.9"]) == (6, 6)
            for writer in writers:
                writer.transport.abort()

    run(cross())


async def test_junk_is_no_more_than_silence(make: Make) -> None:
    a, seen = await make(Limits(incoming=2))
    writers = []
    for number in range(2):
        writers.append(await connect_from(f"127.0.0.{number + 2}", a, JUNK))
        await until(lambda wanted=number + 1: len(seen.messages) == wanted)  # type: ignore[misc]
    writers.append(await connect_from("127.0.0.7", a, MESSAGE))
    await until(lambda: len(seen.messages) == 3)
    assert seen.refused == ["127.0.0.2"]
    for writer in writers:
        writer.transport.abort()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_unreachable_udp_hop_is_known_and_harms_no_other(run: Callable[..., None]) -> None:
    async def cross() -> None:
        async with transports() as make:
            (a, seen_a), (b, seen_b) = await make(), await make()
            for _ in range(20):  # each time the kernel reports the one before it
                a.send(Outgoing(Hop("udp", HOST, 9), MESSAGE, None))
                a.send(Outgoing(b.address, MESSAGE, None))
            await until(lambda: len(seen_b.messages) == 20 and seen_a.unreachable)
            assert set(seen_a.unreachable) == {(MESSAGE, Hop("udp", HOST, 9))}
            assert seen_a.failures == []
            b.send(Outgoing(a.address, MESSAGE, None))
            await until(lambda: seen_a.messages)

    run(cross())


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


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_pongs_that_nobody_reads_end_the_connection(run: Callable[..., None]) -> None:
    """A peer that only asks brings the buffer over its bound, and is not heard any longer."""

    async def cross() -> None:
        async with transports() as make:
            a, _ = await make(Limits(write_buffer_bytes=1000, first_message_s=1e6))
            with socket.socket() as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                deaf.connect((HOST, a.address.port))
                await until(lambda: a._pool.all)
                (connection,) = a._pool.all
                assert connection._transport is not None
                connection._transport.write(b"x" * 8_000_000)  # as pongs by the million would
                deaf.sendall(PING)
                await until(lambda: a._pool.all == [])

    run(cross())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_who_resets_a_connection_at_once_is_let_go(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """A reset before the connection is taken in: uvloop then knows no peer's address."""

    async def cross() -> None:
        async with transports() as make:
            a, seen = await make()
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
            for _ in range(50):
                with socket.create_connection((HOST, a.address.port)) as gone:
                    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer = await connect_from(HOST, a, MESSAGE)
            await until(lambda: seen.messages)
            await until(lambda: len(a._pool.all) == 1)
            writer.transport.abort()

    errors: list[object] = []
    run(cross())
    assert errors == []


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_closing_twice_leaves_the_end_in_sight(run: Callable[..., None]) -> None:
    """A peer that reads nothing holds a connection for close_s, however often it is closed meanwhile."""

    async def cross() -> None:
        async with transports() as make:
            a, _ = await make(Limits(close_s=0.1))
            with socket.create_connection((HOST, a.address.port)) as deaf:
                await until(lambda: a._pool.all)
                (connection,) = a._pool.all
                assert connection._transport is not None
                connection._transport.write(b"x" * 8_000_000)
                connection.close()
                connection.close()
                await until(lambda: a._pool.all == [])
                assert deaf.fileno() > 0

    run(cross())


async def test_a_port_that_is_taken_is_an_error(make: Make) -> None:
    a, _ = await make()
    again = Transport(HOST, a.address.port, on_message=lambda *_: None, on_failure=lambda _: None, tracer=Record())
    with pytest.raises(LocalError, match="already in use"):
        await again.start()


async def test_another_goes_on_with_the_same_sockets(make: Make) -> None:
    """What arrives after `retire` is the successor's, also what nobody has read yet; open connections stay."""
    sockets = Sockets.bind(HOST, 0)
    (client, seen_c), (before, seen_b) = await make(), await make(sockets=duplicate(sockets))
    place = Hop("udp", HOST, before.address.port)
    client.send(Outgoing(tcp(before), MESSAGE, None))
    await until(lambda: seen_b.messages)
    await before.retire()
    client.send(Outgoing(place, JUNK, None))
    before.send(Outgoing(client.address, MESSAGE, None))
    await until(lambda: seen_c.messages)
    assert seen_c.messages[0][1] == place
    _, seen_s = await make(sockets=duplicate(sockets))
    sockets.close()
    with socket.create_connection((HOST, place.port)) as connection:
        connection.sendall(MESSAGE)
        await until(lambda: len(seen_s.messages) == 2)
        assert sorted(source.transport for _, source in seen_s.messages) == ["tcp", "udp"]
        client.send(Outgoing(tcp(before), JUNK, None))
        await until(lambda: len(seen_b.messages) == 2)


def duplicate(sockets: Sockets) -> Sockets:
    return Sockets(sockets.udp.dup(), sockets.tcp.dup(), None)


async def test_what_was_received_is_passed_on_before_a_transport_retires(make: Make) -> None:
    a, seen = await make(known=(HOST,))
    assert a._ingress is not None
    for _ in range(100):
        a._ingress.datagram(MESSAGE, HOST, 5060)
    await a.retire()
    assert len(seen.messages) == 100


async def test_a_port_for_tls_that_is_taken_is_an_error() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=rf"cannot listen for SIP over TLS on {HOST}:{port}: .*already in use"):
            Sockets.bind(HOST, 0, port)
