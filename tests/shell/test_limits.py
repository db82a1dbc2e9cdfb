"""Bounds on what one client address may have, by themselves and at a real server."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from tests.clocks import SteadyTime
from voice_dpki.shell import http_connection, limits
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, serve
from voice_dpki.shell.limits import Account, Door, Limits, TooManyError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SteadyTime:
    time = SteadyTime()
    monkeypatch.setattr(limits, "monotonic", time)
    return time


def counted(reason: str) -> float:
    return REGISTRY.get_sample_value("voice_dpki_http_refused_total", {"reason": reason}) or 0.0


def test_a_bucket_is_emptied_and_filled_again(clock: SteadyTime) -> None:
    account = Account(Limits(cost_s=200))
    account.take(400)
    with pytest.raises(TooManyError) as caught:
        account.take(1)
    assert caught.value.retry_after_s == 1
    clock.now_s += 0.5
    account.take(100)
    with pytest.raises(TooManyError) as caught:
        account.take(500)
    assert caught.value.retry_after_s == 3
    clock.now_s += 1000
    account.take(400)
    with pytest.raises(TooManyError):
        account.take(1)


def test_the_dearest_request_can_always_be_made_once(clock: SteadyTime) -> None:
    account = Account(Limits(cost_s=1))
    account.take(limits.MAX_COST)
    clock.now_s += limits.MAX_COST
    account.take(limits.MAX_COST)


def test_requests_under_way_are_counted(clock: SteadyTime) -> None:
    account = Account(Limits(concurrent=2))
    account.begin(1)
    account.begin(1)
    with pytest.raises(TooManyError, match="at a time"):
        account.begin(1)
    account.end()
    account.begin(1)


def test_connections_count_by_address_and_by_prefix() -> None:
    door = Door(Limits(connections=2))
    first = door.enter("192.0.2.1")
    assert first is not None
    assert door.enter("192.0.2.1") is first
    assert door.enter("192.0.2.1") is None
    assert door.enter("::ffff:192.0.2.1") is None
    assert door.enter("192.0.2.2") is not None
    assert door.enter("2001:db8::1") is door.enter("2001:db8::ffff:2%eth0")
    assert door.enter("2001:db8::3") is None
    assert door.enter("2001:db8:0:1::3") is not None
    first.connections -= 1
    assert door.enter("192.0.2.1") is first


def test_addresses_that_are_gone_are_forgotten_and_others_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ADDRESSES", 2)
    door = Door(Limits())
    staying, going = door.enter("192.0.2.1"), door.enter("192.0.2.2")
    assert staying is not None
    assert going is not None
    going.connections -= 1
    for number in range(3, 9):
        account = door.enter(f"192.0.2.{number}")
        assert account is not None
        account.connections -= 1
    assert door.enter("192.0.2.1") is staying
    assert door.enter("192.0.2.2") is not going


def test_busy_addresses_do_not_make_the_list_grow_and_the_known_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ADDRESSES", 20)
    door = Door(Limits())
    known, busy = door.enter("192.0.2.1"), [door.enter(f"192.0.2.{number}") for number in range(2, 32)]
    assert known is not None
    known.vouch()
    known.connections -= 1
    for account in busy[3:]:
        assert account is not None
        account.connections -= 1
    for number in range(100):
        account = door.enter(f"198.51.100.{number}")
        assert account is not None
        account.connections -= 1
    assert len(door._accounts) == 20
    assert door.enter("192.0.2.1") is known
    assert [door.enter(f"192.0.2.{number}") for number in range(2, 5)] == busy[:3]


def test_where_all_are_known_one_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ADDRESSES", 5)
    door = Door(Limits())
    for number in range(50):
        account = door.enter(f"192.0.2.{number}")
        assert account is not None
        account.vouch()
        account.connections -= 1
    assert len(door._accounts) == 5


class Slow:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.running = 0

    async def __call__(self, _request: Request) -> Response:
        self.running += 1
        await self.go_on.wait()
        return Response(200)


async def _quick(_request: Request) -> Response:
    return Response(200)


@asynccontextmanager
async def served(bounds: Limits, *routes: Route) -> AsyncIterator[httpx.AsyncClient]:
    app = HttpApp([Route("GET", "/quick", _quick, cost=200), *routes])
    async with serve(app, Listen(port=0), limits=bounds) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client


async def test_too_many_a_second_are_told_when_to_come_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits.SAID, "_said_s", -math.inf)
    before = counted("rate")
    async with served(Limits(cost_s=10)) as client:
        assert (await client.get("/quick")).status_code == 200
        answer = await client.get("/quick")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "20")
    assert answer.json()["title"] == "Too Many Requests"
    assert counted("rate") == before + 1
    assert "too many requests a second" in caplog.text


async def test_another_connection_does_not_help() -> None:
    async with served(Limits(cost_s=10)) as client:
        assert (await client.get("/quick", headers={"connection": "close"})).status_code == 200
        spoofed = {"connection": "close", "x-forwarded-for": "192.0.2.9"}
        assert (await client.get("/quick", headers=spoofed)).status_code == 429


async def test_too_many_at_a_time() -> None:
    slow = Slow()
    async with served(Limits(concurrent=2), Route("GET", "/slow", slow)) as client:
        waiting = [asyncio.create_task(client.get("/slow")) for _ in range(2)]
        while slow.running < 2:
            await asyncio.sleep(0.001)
        assert (await client.get("/quick")).status_code == 429
        slow.go_on.set()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]
        assert (await client.get("/quick")).status_code == 200


async def test_too_many_connections() -> None:
    before = counted("connections")
    async with served(Limits(connections=1)) as client:
        assert (await client.get("/quick")).status_code == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        assert (await reader.read()).startswith(b"HTTP/1.1 429 ")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        assert (await client.get("/quick")).status_code == 200
    assert counted("connections") == before + 1


async def test_too_many_connections_a_second(clock: SteadyTime) -> None:
    """Who opens and closes them without end is not even told so; later he is served again."""
    bounds, before = Limits(connections=2, cost_s=1), counted("connection-rate")
    async with serve(HttpApp([Route("GET", "/quick", _quick)]), Listen(port=0), limits=bounds) as port:

        async def answer() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            said = b""
            with suppress(ConnectionError):
                said = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            return said

        assert [(await answer())[9:12] for _ in range(5)] == [b"200", b"200", b"200", b"200", b""]
        assert counted("connection-rate") == before + 1
        clock.now_s += limits.CONNECTION_COST
        assert (await answer())[9:12] == b"200"


@pytest.mark.parametrize(
    "head", [b"", b"GET /quick HTTP/1.1\r\nx: ", b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\nGET /q"]
)
async def test_a_head_that_does_not_come_ends_the_connection(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr(http_connection, "HEAD_TIMEOUT_S", 0.05)
    before = counted("head-late")
    async with served(Limits()) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(head)
        await asyncio.wait_for(reader.read(), 30)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    assert counted("head-late") == before + 1


async def test_a_slow_answer_is_no_late_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline passes while the request is handled, so a client that is slow to send it is no matter."""
    made, begin = list[Any](), http_connection.Connection.connection_made

    def connection_made(connection: Any, transport: Any) -> None:
        made.append(connection)
        begin(connection, transport)

    monkeypatch.setattr(http_connection.Connection, "connection_made", connection_made)

    async def after_a_while(_request: Request) -> Response:
        made[-1]._expect(-1.0)
        made[-1]._arm(0.001)
        await asyncio.sleep(0.1)
        return Response(200)

    async with served(Limits(), Route("POST", "/later", after_a_while)) as client:
        assert (await client.post("/later", content=b"x" * 20_000)).status_code == 200


async def test_what_is_not_http_is_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Limits()) as client:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
            writer.write(b"\0\0\0\0\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
    assert caplog.text.count("Invalid HTTP request") == 1
