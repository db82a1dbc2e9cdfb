"""The HTTP edge over real sockets: what it answers to what it should not get, and when it closes."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop
from prometheus_client import REGISTRY

from tests.campaign import bent, campaign, rounds
from voice_dpki.shell import http as shell_http
from voice_dpki.shell import http_channel, http_connection, limits
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, json_response, serve
from voice_dpki.shell.limits import Limits
from voice_dpki.shell.metrics import HEALTH_ROUTE
from voice_dpki.shell.reload import Live
from voice_dpki.shell.stir_service import StirRoute
from voice_dpki.wire import seldom

VECTORS = Path(__file__).parents[1] / "vectors" / "http"
TOKEN = "t0ken"
STIR = b"POST /stir/v1/verification HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
KNOWN = b"Authorization: Bearer t0ken\r\n"


async def tell(request: Request) -> Response:
    """Tell what came."""
    facts = {"method": request.method, "path": request.path, "args": request.path_args, "target": request.target}
    return json_response(200, {**facts, "query": request.query, "body": request.body.decode("latin-1")})


class Waiter:
    """A handler that waits until it is told to go on, and counts those that wait."""

    def __init__(self) -> None:
        self.waiting = 0
        self.go_on = asyncio.Event()
        self.changed = asyncio.Event()

    async def __call__(self, _request: Request) -> Response:
        self.waiting += 1
        self.changed.set()
        try:
            await self.go_on.wait()
        finally:
            self.waiting -= 1
            self.changed.set()
        return Response(200, b"news", "text/plain")

    async def until(self, number: int) -> None:
        async with asyncio.timeout(60):
            while self.waiting != number:
                self.changed.clear()
                await self.changed.wait()


def app(*routes: Route) -> HttpApp:
    return HttpApp(
        [Route("POST", "/tell", tell, 1000), Route("GET", "/members/{name}", tell), HEALTH_ROUTE, *routes]
    )


async def perform(body: bytes, _client: str) -> bytes:
    return b'{"body":%d}' % len(body)


def stir() -> HttpApp:
    return StirRoute("verification", "/stir/v1/verification", Live((TOKEN,)), perform).app()


@dataclass
class Answer:
    """One answer as it was read."""

    status: int
    fields: dict[str, str]
    body: bytes
    interim: list[bytes] = field(default_factory=list)

    @property
    def detail(self) -> str:
        return str(json.loads(self.body)["detail"])


class Client:
    """A connection on which bytes are sent as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.005)

    async def answer(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(60):
            interim = []
            head = await self.reader.readuntil(b"\r\n\r\n")
            while head.startswith(b"HTTP/1.1 1"):
                interim.append(head)
                head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head[:-4].decode("ascii").split("\r\n")
            fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = 0 if head_only else int(fields["content-length"])
            return Answer(int(first.split()[1]), fields, await self.reader.readexactly(length), interim)

    async def send_until_closed(self, octets: bytes) -> int:
        """Send again and again until the connection ends; returns how much was sent."""
        sent = 0
        async with asyncio.timeout(60):
            with suppress(ConnectionError):
                while True:
                    self.writer.write(octets)
                    await self.writer.drain()
                    sent += len(octets)
        return sent

    async def rest(self) -> bytes:
        """Read until the server closes the connection."""
        async with asyncio.timeout(60):
            with suppress(ConnectionError):
                return await self.reader.read()
        return b""

    async def aclose(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def connected(port: int, *, host: str = "127.0.0.1", own: str | None = None) -> AsyncIterator[Client]:
    local = None if own is None else (own, 0)
    client = Client(*await asyncio.open_connection(host, port, local_addr=local))
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def serving(served: HttpApp, bounds: Limits | None = None) -> AsyncIterator[int]:
    async with serve(served, Listen(port=0), limits=bounds) as port:
        yield port


@pytest.fixture(autouse=True)
def _log_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seldom, "SAY_AGAIN_S", 0.0)


def counted(reason: str) -> float:
    return REGISTRY.get_sample_value("voice_dpki_http_refused_total", {"reason": reason}) or 0.0


async def ask(served: HttpApp, *pieces: bytes) -> Answer:
    async with serving(served) as port, connected(port) as client:
        await client.send(*pieces)
        return await client.answer()


async def test_an_offer_of_http2_leaves_the_body_a_body() -> None:
    """The second segment looks like a request, and is the body of the first."""
    first, second = ((VECTORS / f"h2c-smuggle.part{part}").read_bytes() for part in (1, 2))
    async with serving(stir()) as port, connected(port) as client:
        await client.send(first.replace(b"TOKEN", TOKEN.encode()), second)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b'{"body":34}')
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer()).body == b'{"status":"ok"}'


@pytest.mark.parametrize(
    ("request_line", "status", "message_id"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "SVC4006"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "POL4130"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431, "POL4130"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "SVC4006"),
        (STIR + b"Transfer-Encoding: gzip\r\n\r\n", 501, "SVC4006"),
        (STIR + KNOWN + b"Content-Length: 70000\r\n\r\n", 413, "POL4130"),
        (STIR + b"Content-Length: 70000\r\n\r\n", 401, "POL4010"),
        (STIR + KNOWN + b"Content-Type: text/plain\r\nContent-Length: 0\r\n\r\n", 400, "SVC4006"),
        (STIR + KNOWN + KNOWN + b"Content-Length: 0\r\n\r\n", 400, "SVC4006"),
        (STIR + KNOWN + b"Accept: text/html\r\nAccept: text/plain\r\nContent-Length: 1\r\n\r\n1", 406, "SVC4002"),
        (b"GET /stir/v1/verification HTTP/1.1\r\nHost: a\r\n\r\n", 405, "POL4050"),
        (b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404, "SVC4003"),
        (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "SVC4006"),
    ],
)
async def test_errors_of_the_edge_have_the_form_of_the_interface(
    request_line: bytes, status: int, message_id: str
) -> None:
    answer = await ask(stir(), request_line)
    assert (answer.status, answer.fields["content-type"]) == (status, "application/json")
    ((kind, error),) = json.loads(answer.body)["requestError"].items()
    assert (kind[:3].upper(), error["messageId"]) in {("SER", message_id), ("POL", message_id)}


@pytest.mark.parametrize("fields", [b"", b"Expect: 100-continue\r\n"])
async def test_who_has_no_token_sends_no_body(fields: bytes) -> None:
    async with serving(stir()) as port, connected(port) as client:
        await client.send(STIR + fields + b"Content-Length: 30000\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.interim, answer.fields["connection"]) == (401, [], "close")
        assert answer.fields["www-authenticate"] == 'Bearer realm="stir"'
        assert await client.rest() == b""


async def test_100_comes_once_token_and_length_are_judged() -> None:
    async with serving(stir()) as port, connected(port) as client:
        await client.send(STIR + KNOWN + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        assert (await client.answer()).body == b'{"body":3}'
        await client.send(STIR + KNOWN + b"Expect: 100-continue\r\nContent-Length: 70000\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.interim) == (413, [])


async def test_a_refused_body_that_is_here_already_does_not_end_the_connection() -> None:
    async with serving(stir()) as port, connected(port) as client:
        await client.send(STIR + b"Content-Length: 3\r\n\r\nabc" + STIR + KNOWN + b"Content-Length: 1\r\n\r\nx")
        assert [(await client.answer()).status, (await client.answer()).status] == [401, 200]


@pytest.mark.parametrize("value", [b"Bearer t0ken ", b"Bearer t0ken\t", b"  bearer  t0ken"])
async def test_white_space_around_a_token_does_not_count(value: bytes) -> None:
    answer = await ask(stir(), STIR + b"Authorization: " + value + b"\r\nContent-Length: 1\r\n\r\nx")
    assert answer.status == 200


@pytest.mark.parametrize(
    ("begin", "endless", "status"),
    [
        (b"GET /", b"a", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"a", 431),
        (b"GET / HTTP/1.1\r\n", b"a:\r\n", 431),
    ],
    ids=["target", "field", "fields"],
)
async def test_an_endless_head_ends_the_connection(begin: bytes, endless: bytes, status: int) -> None:
    """45 MB of it froze the server, for all."""
    async with serving(app()) as port, connected(port) as client:
        await client.send(begin, endless * (16_384 // len(endless)))
        assert (await client.answer()).status == status
        assert await client.send_until_closed(endless * 16_384) < 45_000_000


async def test_two_lines_of_accept_are_one_list() -> None:
    """The last of them does not win."""
    fields = b"Accept: application/json\r\nAccept: text/html\r\nContent-Length: 1\r\n\r\n1"
    assert (await ask(stir(), STIR + KNOWN + fields)).status == 200


async def test_after_413_nothing_more_is_read() -> None:
    """The client goes on sending until its connection ends, long before the 3 GB that it offers."""
    async with serving(app()) as port, connected(port) as client:
        await client.send(b"POST /tell HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000000\r\n\r\n")
        assert (await client.answer()).status == 413
        assert await client.send_until_closed(bytes(65_536)) < 100_000_000


async def test_a_body_that_does_not_come_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "BODY_TIMEOUT_S", 0.05)
    async with serving(stir()) as port, connected(port) as client:
        await client.send(STIR + KNOWN + b"Content-Length: 3\r\n\r\na")
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["requestError"]["policyException"]["messageId"]) == (
            408,
            "POL4080",
        )
        assert await client.rest() == b""


async def test_head_is_answered_as_get_without_the_body() -> None:
    async with serving(app()) as port, connected(port) as client:
        await client.send(b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        head, get = await client.answer(head_only=True), await client.answer()
        assert (head.status, head.fields["content-length"]) == (200, str(len(get.body)))
        await client.send(b"PUT /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).fields["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("target", "name", "path"),
    [
        ("/members/Telco%20A%2FS", "Telco A/S", "/members/Telco A/S"),
        ("/members/%2525", "%25", "/members/%25"),
        ("/members/%C3%A5", "å", "/members/å"),
        ("/m%65mbers/a+b", "a+b", "/members/a+b"),
        ("/members/..", "..", "/members/.."),
    ],
)
async def test_segments_are_decoded_once_and_after_they_are_split(target: str, name: str, path: str) -> None:
    answer = await ask(app(), f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    told = json.loads(answer.body)
    assert (told["args"], told["path"], told["target"]) == ({"name": name}, path, target)


@pytest.mark.parametrize(
    "target", ["/members/%", "/members/%2", "/members/%gg", "/members/%ff", "/members/a?x=%ff"]
)
async def test_what_cannot_be_decoded_is_refused(target: str) -> None:
    assert (await ask(app(), f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())).status == 400


async def test_a_field_of_the_query_twice_is_refused() -> None:
    answer = await ask(app(), b"GET /members/a?x=1&x=2 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.status, answer.detail) == (400, "the query has a field twice")


async def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    many = b"".join(
        b"POST /tell HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n%02d" % number for number in range(40)
    )
    async with serving(app()) as port, connected(port) as client:
        client.writer.write(many)
        client.writer.write_eof()
        bodies = [json.loads((await client.answer()).body)["body"] for _ in range(40)]
        assert bodies == [f"{number:02d}" for number in range(40)]
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "octets",
    [b"GET /healthz HTTP/1.0\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"],
)
async def test_the_connection_ends_where_the_client_says_so(octets: bytes) -> None:
    async with serving(app()) as port, connected(port) as client:
        await client.send(octets)
        answer = await client.answer()
        assert (answer.status, answer.fields["connection"], await client.rest()) == (200, "close", b"")


async def test_ipv6() -> None:
    async with serve(app(), Listen(host="::1", port=0)) as port, connected(port, host="::1") as client:
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: [::1]\r\n\r\n")
        assert (await client.answer()).status == 200


async def test_a_handler_that_waits_ends_with_its_connection() -> None:
    waiter = Waiter()
    bounds = Limits(concurrent=2)
    async with serving(app(Route("GET", "/wait", waiter, waits=True)), bounds) as port:
        for _ in range(3):
            async with connected(port) as one, connected(port) as two:
                await one.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
                await two.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
                await waiter.until(2)
            await waiter.until(0)
        async with connected(port) as client:
            await client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.answer()).status == 200


async def test_a_deadline_that_does_not_count_is_not_checked_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for news outlives the deadline of its head by far. A thousand of them must cost nothing."""
    monkeypatch.setattr(http_connection, "HEAD_TIMEOUT_S", 0.1)
    checked, waits_s = asyncio.Event(), list[float]()
    look = http_connection.Connection._look

    def looked(connection: http_connection.Connection, tick_s: float) -> None:
        look(connection, tick_s)
        assert connection._timer is not None
        waits_s.append(connection._timer.when() - connection._loop.time())
        if len(waits_s) == 4:
            checked.set()

    async def news(request: Request) -> Response:
        await checked.wait()
        return Response(200, b"{}")

    monkeypatch.setattr(http_connection.Connection, "_look", looked)
    answer = await ask(app(Route("GET", "/news", news)), b"GET /news HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.status == 200
    assert min(waits_s[1:]) > 0.02


async def test_a_client_that_closes_its_side_only_is_still_answered() -> None:
    waiter = Waiter()
    async with serving(app(Route("GET", "/work", waiter))) as port, connected(port) as client:
        client.writer.write(b"GET /work HTTP/1.1\r\nHost: a\r\n\r\n")
        client.writer.write_eof()
        await waiter.until(1)
        waiter.go_on.set()
        assert (await client.answer()).body == b"news"
        assert await client.rest() == b""


async def test_requests_under_way_are_finished_at_the_end() -> None:
    waiter = Waiter()
    async with serving(app(Route("GET", "/work", waiter))) as port:
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        await client.send(b"GET /work HTTP/1.1\r\nHost: a\r\n\r\n")
        await waiter.until(1)
        asyncio.get_running_loop().call_later(0.05, waiter.go_on.set)
    answer = await client.answer()
    assert (answer.body, answer.fields["connection"]) == (b"news", "close")
    await client.aclose()


async def test_a_handler_that_does_not_end_is_ended_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_http, "GRACE_S", 0.05)
    waiter = Waiter()
    async with serving(app(Route("GET", "/work", waiter))) as port:
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        await client.send(b"GET /work HTTP/1.1\r\nHost: a\r\n\r\n")
        await waiter.until(1)
    assert waiter.waiting == 0
    await client.aclose()


async def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_channel, "DRAIN_S", 0.1)
    monkeypatch.setattr(http_connection, "TICK_S", 0.1)

    async def large(_request: Request) -> Response:
        return Response(200, bytes(30_000_000), "text/plain")

    before = counted("unread")
    async with serving(app(Route("GET", "/large", large))) as port, connected(port) as client:
        await client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        async with asyncio.timeout(60):
            while counted("unread") == before:
                await asyncio.sleep(0.01)
        assert len(await client.rest()) < 30_000_000


async def test_answers_that_nobody_takes_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client with the most of them goes, and one with little stays."""
    monkeypatch.setattr(shell_http, "MAX_HELD_BYTES", 50_000_000)

    async def large(request: Request) -> Response:
        return Response(200, bytes(int(request.path_args["size"])), "text/plain")

    async with serving(app(Route("GET", "/large/{size}", large))) as port:
        async with connected(port, own="127.0.0.2") as small, connected(port) as one, connected(port) as two:
            await small.send(b"GET /large/20000000 HTTP/1.1\r\nHost: a\r\n\r\n")
            for client in (one, two):
                await client.send(b"GET /large/25000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await asyncio.sleep(0.1)
            assert len((await small.answer()).body) == 20_000_000
            assert sorted([len(await one.rest()) > 25_000_000, len(await two.rest()) > 25_000_000]) == [False, True]


async def test_bodies_that_are_not_whole_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_http, "MAX_HELD_BYTES", 1_000_000)
    before = counted("unread")
    async with serving(app(Route("POST", "/large", tell, 10_000_000))) as port, connected(port) as client:
        await client.send(b"POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + bytes(2_000_000))
        assert await client.rest() == b""
    assert counted("unread") == before + 1


async def test_a_client_that_sends_ahead_while_it_waits_for_news_is_cut_off() -> None:
    waiter = Waiter()
    async with serving(app(Route("GET", "/wait", waiter, waits=True))) as port, connected(port) as client:
        await client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await waiter.until(1)
        with suppress(ConnectionError):
            await client.send(bytes(200_000))
        await waiter.until(0)


async def test_a_body_after_a_429_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the connection has to rest, and is larger than what may come ahead."""
    monkeypatch.setattr(http_connection, "REST_S", 1.0)
    size = 4 * http_connection.AHEAD_BYTES
    big = Route("POST", "/big", tell, size, cost=0)
    dear = Route("GET", "/dear", tell, cost=limits.MAX_COST)
    ask_dear = b"GET /dear HTTP/1.1\r\nHost: a\r\n\r\n"
    async with serving(app(big, dear), Limits(cost_s=0.001)) as port, connected(port) as client:
        await client.send(ask_dear)
        assert (await client.answer()).status == 200
        await client.send(ask_dear)
        assert (await client.answer()).status == 429
        client.writer.write(b"POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        assert (await client.answer()).status == 200


async def test_what_is_sent_ahead_has_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_http, "MAX_HELD_BYTES", 3 * http_connection.AHEAD_BYTES)
    work = Waiter()
    async with serving(app(Route("GET", "/work", work))) as port, AsyncExitStack() as opened:
        clients = [await opened.enter_async_context(connected(port)) for _ in range(4)]
        for client in clients:
            await client.send(b"GET /work HTTP/1.1\r\nHost: a\r\n\r\n")
        await work.until(4)
        for client in clients:
            client.writer.write(b"x" * (http_connection.AHEAD_BYTES + 1024))
        async with asyncio.timeout(60):
            while work.waiting > 2:
                await asyncio.sleep(0.01)
        work.go_on.set()


async def test_a_route_is_priced_by_what_is_in_the_request() -> None:
    route = Route("POST", "/priced", tell, price=lambda request: len(request.body))
    async with serving(app(route), Limits(cost_s=100)) as port, connected(port) as client:
        ask_for = b"POST /priced HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
        await client.send(ask_for % (1000, bytes(1000)))  # a full bucket pays for it, and owes the rest
        assert (await client.answer()).status == 200
        await client.send(ask_for % (1, b"x"))
        answer = await client.answer()
        assert answer.status == 429
        assert int(answer.fields["retry-after"]) >= 8


async def test_strangers_have_a_line_in_the_log_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seldom, "SAY_AGAIN_S", 1000.0)
    async with serving(stir()) as port, connected(port) as client:
        for _ in range(30):
            await client.send(STIR + b"Content-Length: 0\r\n\r\n")
            assert (await client.answer()).status == 401
    assert len([record for record in caplog.records if "caller" in record.getMessage()]) <= 1


class Crowd:
    """Many connections from four addresses."""

    def __init__(self) -> None:
        self.clients: list[Client] = []

    async def come(self, port: int, number: int, octets: bytes = b"") -> None:
        for at in range(number):
            local = (f"127.0.0.{10 + at % 4}", 0)
            client = Client(*await asyncio.open_connection("127.0.0.1", port, local_addr=local))
            client.writer.write(octets)
            self.clients.append(client)

    async def go(self) -> None:
        for client in self.clients:
            client.writer.transport.abort()
        self.clients.clear()
        await asyncio.sleep(0)


@pytest.fixture
def crowd() -> Crowd:
    shell_http._allow_sockets()
    return Crowd()


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n",
        pytest.param(b"GET /he", marks=pytest.mark.long),
        pytest.param(b"POST /tell HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", marks=pytest.mark.long),
    ],
)
async def test_a_thousand_connections_shut_nobody_out(crowd: Crowd, octets: bytes) -> None:
    """Idle, waiting for news, or with a head or body that does not come: others are answered, at once."""
    waiter = Waiter()
    known = Route("POST", "/known", tell, authorize=lambda r: None if "x-known" in r.headers else Response(401))
    served = app(Route("GET", "/wait", waiter, waits=True), known)
    async with serving(served, Limits()) as port, connected(port, own="127.0.0.3") as friend:
        await friend.send(b"POST /known HTTP/1.1\r\nHost: a\r\nX-Known: yes\r\nContent-Length: 0\r\n\r\n")
        assert (await friend.answer()).status == 200
        await crowd.come(port, 1000, octets)
        for own in ("127.0.0.20", "127.0.0.3"):
            async with connected(port, own=own) as victim:
                await victim.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await victim.answer()).status == 200
        await friend.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await friend.answer()).status == 200
        await crowd.go()
        await waiter.until(0)
        async with connected(port) as client:
            await client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.answer()).status == 200


async def test_where_all_places_work_strangers_hear_so_and_the_known_are_let_in(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell_http, "MAX_CONNECTIONS", 12)
    monkeypatch.setattr(shell_http, "ROOM_FOR_KNOWN", 2)
    waiter, before = Waiter(), counted("full")
    known = Route("POST", "/known", tell, authorize=lambda r: None if "x-known" in r.headers else Response(401))
    async with serving(app(Route("GET", "/work", waiter), known), Limits()) as port:
        async with connected(port, own="127.0.0.3") as friend:
            await friend.send(b"POST /known HTTP/1.1\r\nHost: a\r\nX-Known: yes\r\nContent-Length: 0\r\n\r\n")
            assert (await friend.answer()).status == 200
        await crowd.come(port, 10, b"GET /work HTTP/1.1\r\nHost: a\r\n\r\n")
        await waiter.until(10)
        async with connected(port, own="127.0.0.20") as victim:
            answer = await victim.answer()
            assert (answer.status, answer.fields["retry-after"]) == (503, "1")
            assert answer.fields["content-type"] == "application/problem+json"
            assert await victim.rest() == b""
        async with connected(port, own="127.0.0.3") as friend:
            await friend.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await friend.answer()).status == 200
        waiter.go_on.set()
        await crowd.go()
    assert counted("full") == before + 1


async def test_strangers_do_not_close_the_idle_connections_of_the_known(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell_http, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(shell_http, "ROOM_FOR_KNOWN", 0)
    known = Route("POST", "/known", tell, authorize=lambda r: None if "x-known" in r.headers else Response(401))
    shown = b"POST /known HTTP/1.1\r\nHost: a\r\nX-Known: yes\r\nContent-Length: 0\r\n\r\n"
    async with serving(app(known), Limits()) as port:
        await crowd.come(port, 4, shown)
        for friend in crowd.clients:
            assert (await friend.answer()).status == 200
        async with connected(port, own="127.0.0.20") as stranger:
            assert (await stranger.answer()).status == 503
        for friend in crowd.clients:
            await friend.send(shown)
            assert (await friend.answer()).status == 200
        async with connected(port, own="127.0.0.10") as known_too:
            await known_too.send(shown)
            assert (await known_too.answer()).status == 200
        await crowd.go()


async def test_who_waits_for_news_is_told_when_his_place_is_needed(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell_http, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(shell_http, "ROOM_FOR_KNOWN", 0)
    waiter = Waiter()
    async with serving(app(Route("GET", "/wait", waiter, waits=True)), Limits()) as port:
        for _ in range(4):
            await crowd.come(port, 1, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            await waiter.until(len(crowd.clients))
        async with connected(port, own="127.0.0.20") as victim:
            await victim.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await victim.answer()).status == 200
            answer = await crowd.clients[0].answer()
            assert (answer.status, answer.fields["retry-after"]) == (503, "1")
        await crowd.go()


SEEDS = [
    b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /tell HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /tell HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HEAD /members/%41%2F HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /slow?x=1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@campaign
def test_no_bytes_leave_anything_behind(request: pytest.FixtureRequest) -> None:
    """Whatever clients send and wherever they stop: no error is logged, and no task or place is left over."""
    uvloop.run(_campaign(request))


async def _send_somehow(client: Client, octets: bytes, chance: random.Random) -> None:
    cut = chance.randrange(len(octets) + 1)
    client.writer.write(octets[:cut])
    await asyncio.sleep(0)
    client.writer.write(octets[cut:])
    if chance.random() < 0.5:
        with suppress(OSError, TimeoutError):
            client.writer.write_eof()
            async with asyncio.timeout(0.05):
                await client.reader.read()
    client.writer.transport.abort()


async def _campaign(request: pytest.FixtureRequest) -> None:
    faults: list[dict[str, object]] = []
    loop, waiter = asyncio.get_running_loop(), Waiter()
    loop.set_exception_handler(lambda _loop, context: faults.append(context))

    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.001)
        return await tell(request)

    before = REGISTRY.get_sample_value("voice_dpki_http_failed_total") or 0.0
    door = limits.Door(Limits(cost_s=1e9, connections=10_000, concurrent=10_000))
    server = shell_http._Server(app(Route("GET", "/wait", waiter, waits=True), Route("GET", "/slow", slow)), door)
    listener = await loop.create_server(lambda: http_connection.Connection(server, loop), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    for chance in rounds(request):
        octets = b"".join(chance.choice(SEEDS) for _ in range(chance.randint(1, 4)))
        octets = bent(chance, octets, SEEDS) if chance.random() < 0.8 else octets
        async with connected(port) as client:
            await _send_somehow(client, octets, chance)
    listener.close()
    async with asyncio.timeout(60):
        while server._placed or server._refused or waiter.waiting or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
    assert not faults
    account = door.enter("127.0.0.1")
    assert account is not None
    assert (account.connections, account._running) == (1, 0)
    assert (REGISTRY.get_sample_value("voice_dpki_http_failed_total") or 0.0) == before
