"""What sockets bring is worked on by turns of its senders, in slices that leave time for everything else."""

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from tests.wire.sip.test_transport import MESSAGE, Make, make, tcp, transports, until
from voice_dpki.sip.message import Hop
from voice_dpki.sip.senders import STRANGER_BURST, Senders
from voice_dpki.wire.sip.ingress import SLICE_MESSAGES, SLICE_S, Ingress

__all__ = ["make"]

FLOODER, OTHER = "127.0.44.1", "127.0.44.2"


class Source:
    """A UDP socket at an address of its own."""

    def __init__(self, host: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))

    def send(self, target: Hop, *datagrams: bytes) -> None:
        with self._socket:
            for datagram in datagrams:
                self._socket.sendto(datagram, (target.host, target.port))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_who_floods_over_udp_waits_behind_itself(run: Callable[..., None]) -> None:
    async def cross() -> None:
        async with transports() as make_one:
            transport, seen = await make_one()
            flood = [b"flood %d" % number for number in range(1_500)]
            Source(FLOODER).send(transport.address, *flood)  # in the kernel's queue before anything is read
            Source(OTHER).send(transport.address, b"one", b"two")
            await until(lambda: len(seen.messages) == 1_502)
            order = [data for data, _ in seen.messages]
            assert order.index(b"one") < order.index(b"two") < 5 * SLICE_MESSAGES
            assert [data for data in order if data.startswith(b"flood")] == flood

    run(cross())


async def test_a_stream_full_of_messages_takes_turns_like_any_other_sender(make: Make) -> None:
    transport, seen = await make()
    reader, writer = await asyncio.open_connection(transport.address.host, transport.address.port)
    many = 2_000
    writer.write(MESSAGE * many + b"broken\r\n\r\n")
    await writer.drain()
    await until(lambda: seen.messages)
    before = len(seen.messages)
    Source(OTHER).send(transport.address, b"one")
    await until(lambda: any(data == b"one" for data, _ in seen.messages))
    position = [data for data, _ in seen.messages].index(b"one")
    assert position - before < 5 * SLICE_MESSAGES
    await until(lambda: seen.broken)
    assert len(seen.messages) == many + 1, "all that came before the stream broke"
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(("what", "uncut", "told"), [(b"\r\n\r\n", 0, 0), (b"a\r\nl:0\r\n\r\n", 5_000, 1_000)])
async def test_keep_alives_and_tiny_messages_wait_for_their_turn_before_they_are_told_apart(
    make: Make, what: bytes, uncut: int, told: int
) -> None:
    """20,000 in one read take a tenth of a second to cut, and a stranger has 200 connections."""
    transport, seen = await make()
    connections = [
        await asyncio.open_connection(*_address(transport.address), local_addr=(FLOODER, 0)) for _ in range(20)
    ]
    for _, writer in connections:
        writer.write(what * 1_000 + MESSAGE)
    await until(lambda: seen.messages)
    assert len(seen.messages) < 5_000, "not all 20,000 at once"
    assert sum(len(each._framer._buffer) for each in transport._pool.all) >= uncut
    Source(OTHER).send(transport.address, b"one")
    before = len(seen.messages)
    await until(lambda: len(seen.messages) == 20 * (told + 1) + 1)
    messages = [data for data, _ in seen.messages]
    assert messages.index(b"one") - before < 10 * SLICE_MESSAGES
    assert messages.count(MESSAGE) == 20
    for _, writer in connections:
        writer.close()


async def test_two_streams_with_many_messages_each_keep_their_order(make: Make) -> None:
    transport, seen = await make()
    messages = [MESSAGE.replace(b"hello", b"%05d" % number) for number in range(300)]
    writers = []
    for host in (FLOODER, OTHER):
        _, writer = await asyncio.open_connection(*_address(transport.address), local_addr=(host, 0))
        writer.write(b"".join(messages))
        writers.append(writer)
    await until(lambda: len(seen.messages) == 600)
    for host in (FLOODER, OTHER):
        assert [data for data, source in seen.messages if source.host == host] == messages
    for writer in writers:
        writer.close()


def _address(hop: Hop) -> tuple[str, int]:
    return hop.host, hop.port


async def test_timers_and_tasks_have_their_time_between_slices() -> None:
    worked: list[int] = []
    ingress = Ingress(Senders(["a"]), lambda data, host, port: worked.append(port), lambda source, count: None)
    for number in range(10 * SLICE_MESSAGES):
        ingress.datagram(b"x", "a", number)
    seen = []
    while len(worked) < 10 * SLICE_MESSAGES:
        await asyncio.sleep(0)
        seen.append(len(worked))
    assert all(after - before <= SLICE_MESSAGES for before, after in zip([0, *seen], seen, strict=False))
    assert worked == list(range(10 * SLICE_MESSAGES))


async def test_a_slice_ends_by_time_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    now_s = [loop.time()]
    worked: list[int] = []

    def work(data: bytes, host: str, port: int) -> None:
        worked.append(port)
        now_s[0] += SLICE_S * 0.4

    ingress = Ingress(Senders(["a"]), work, lambda source, count: None)
    for number in range(9):
        ingress.datagram(b"x", "a", number)
    monkeypatch.setattr(loop, "time", lambda: now_s[0])
    await asyncio.sleep(0)
    assert worked == [0, 1, 2]
    await asyncio.sleep(0)
    assert worked == [0, 1, 2, 3, 4, 5]


async def test_an_error_ends_the_work_on_its_message_only() -> None:
    worked: list[int] = []
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))

    def work(data: bytes, host: str, port: int) -> None:
        worked.append(port)
        if port == 0:
            raise RuntimeError("ours")

    ingress = Ingress(Senders(), work, lambda source, count: None)
    for number in range(3):
        ingress.datagram(b"x", "a", number)
    await until(lambda: len(worked) == 3)
    assert [type(error) for error in errors] == [RuntimeError]


async def test_drops_are_told_by_source_and_nothing_is_worked_on_after_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped: dict[str, int] = {}
    worked: list[str] = []

    def drop(source: str, count: int) -> None:
        dropped[source] = dropped.get(source, 0) + count

    loop = asyncio.get_running_loop()
    now_s = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now_s)
    ingress = Ingress(Senders(["2001:db8:5::1"]), lambda data, host, port: worked.append(host), drop)
    for number in range(int(STRANGER_BURST) + 500):
        ingress.datagram(b"x", f"2001:db8::{number:x}", 5060)
        ingress.datagram(b"x", f"2001:db8:5::{number:x}", 5060)
    assert dropped == {"2001:db8::/64": 500}, "one /64 is one sender, and a known one has no rate"
    ingress.close()
    await asyncio.sleep(0)
    ingress.datagram(b"x", "192.0.2.1", 5060)
    await asyncio.sleep(0)
    assert worked == []


async def test_a_connection_that_ends_with_messages_waiting_is_heard_out(make: Make) -> None:
    transport, seen = await make()
    _, writer = await asyncio.open_connection(*_address(tcp(transport)))
    writer.write(MESSAGE * 500)
    writer.close()
    await writer.wait_closed()
    await until(lambda: len(seen.messages) == 500 and not transport._pool.all)
