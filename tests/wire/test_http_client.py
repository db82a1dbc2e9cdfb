"""The HTTP client over real sockets: against our own server, and against servers that do wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ports import free_port
from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, serve
from voice_dpki.wire.http_client import (
    MAX_CONNECTIONS,
    HttpAnswer,
    HttpAnswerError,
    HttpClient,
    HttpError,
    HttpTimeoutError,
    HttpUnreachableError,
)

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def client_of(port: int, path: str = "", timeout_s: float = 60.0) -> HttpClient:
    url = f"http://127.0.0.1:{port}{path}"
    return HttpClient(url, timeout_s=timeout_s, max_answer_bytes=1000, headers={"X-Always": "yes"})


async def _tell(request: Request) -> Response:
    told = [request.method, request.path, request.query.get("q", ""), request.headers["x-always"]]
    return Response(201, "|".join([*told, request.headers.get("x-once", ""), str(len(request.body))]).encode())


@pytest.mark.parametrize("prefix", ["", "/under/this", "/under/this/"])
async def test_requests_to_our_own_server(prefix: str) -> None:
    base = prefix.rstrip("/")
    routes = [Route(method, f"{base}/x", _tell, max_body_bytes=10**6) for method in ("GET", "POST")]
    async with serve(HttpApp(routes), Listen(port=0)) as port, client_of(port, prefix) as client:
        got = await client.request("GET", "/x?q=a%20b", headers={"X-Once": "1"})
        assert got == HttpAnswer(201, f"GET|{base}/x|a b|yes|1|0".encode())
        assert (await client.request("POST", "/x", b"b" * 500_000)).body.endswith(b"|500000")
        assert (await client.request("POST", "/x")).body.endswith(b"|0")
        assert (await client.request("GET", "/nothing")).status == 404


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve_one: Serve) -> AsyncIterator[int]:
    """Serve connections, and wait for their end, which comes when the client closes them; gives the port."""
    tasks: list[asyncio.Task[None]] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(cast("asyncio.Task[None]", asyncio.current_task()))
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve_one(reader, writer)
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(run, "127.0.0.1", 0) as listener:
        yield int(listener.sockets[0].getsockname()[1])
        await asyncio.wait_for(asyncio.gather(*tasks), 60)


@asynccontextmanager
async def server(*answers: bytes, close: bool = False) -> AsyncIterator[tuple[int, list[int]]]:
    """Give canned answers, one a request, on each connection anew; and a list of requests on each connection."""
    counts: list[int] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = len(counts)
        counts.append(0)
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            counts[mine] += 1
            writer.write(answer)
            await writer.drain()
        if not close:
            await reader.read()

    async with listening(serve_one) as port:
        yield port, counts


async def test_a_connection_is_used_again() -> None:
    async with server(OK, OK, OK) as (port, counts), client_of(port) as client:
        for _ in range(3):
            assert await client.request("POST", "/", b"") == HttpAnswer(200, b"ok")
        assert counts == [3]


async def test_requests_at_once_use_few_connections() -> None:
    async with server(*[OK] * 100) as (port, counts), client_of(port) as client:
        await asyncio.gather(*(client.request("GET", "/") for _ in range(3 * MAX_CONNECTIONS)))
        assert len(counts) <= MAX_CONNECTIONS
        assert sum(counts) == 3 * MAX_CONNECTIONS


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad",
    ],
)
async def test_a_connection_that_cannot_be_used_again_is_not(answer: bytes) -> None:
    async with server(answer, answer) as (port, counts), client_of(port) as client:
        for _ in range(2):
            assert await client.request("POST", "/") == HttpAnswer(200, b"ok")
        assert counts == [1, 1]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 1000, b"x" * 1000),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
async def test_forms_of_an_answer(answer: bytes, body: bytes) -> None:
    async with server(answer) as (port, _), client_of(port) as client:
        assert (await client.request("GET", "/")).body == body


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"SIP/2.0 200 OK\r\n\r\n", HttpAnswerError),
        (b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", HttpError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n" + b"x" * 1001, HttpAnswerError),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 40_000, HttpAnswerError),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000, HttpError),
        (OK + b"bad", HttpAnswerError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", HttpUnreachableError),
        (b"", HttpUnreachableError),
    ],
)
async def test_answers_that_are_none(answer: bytes, error: type[HttpError]) -> None:
    async with server(answer, close=True) as (port, _), client_of(port) as client:
        with pytest.raises(error):
            await client.request("GET", "/")


async def test_a_server_that_is_slow_or_away() -> None:
    async with server(b"HTTP/1.1 200 OK\r\n") as (port, _), client_of(port, timeout_s=0.05) as client:
        with pytest.raises(HttpTimeoutError):
            await client.request("GET", "/")
    async with client_of(free_port()) as client:
        with pytest.raises(HttpUnreachableError):
            await client.request("GET", "/")


async def test_only_a_get_is_repeated_where_a_kept_connection_was_closed() -> None:
    closing = asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")  # takes the second request, and closes without a word
        closing.set()

    async with listening(serve_one) as port:
        async with client_of(port) as client:
            await client.request("GET", "/")
            assert (await client.request("GET", "/")).status == 200
            assert closing.is_set()
            with pytest.raises(HttpUnreachableError):
                await client.request("POST", "/")


@pytest.mark.parametrize("url", ["ftp://host/", "http://", "//host", "http://user:word@host/", "host:80"])
def test_urls_of_no_server(url: str) -> None:
    with pytest.raises(LocalError):
        HttpClient(url, timeout_s=1, max_answer_bytes=1)


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.request("GET", "no slash"),
        lambda client: client.request("GET", "/a b"),
        lambda client: client.request("GET", "/a\r\nx: y"),
        lambda client: client.request("GET", "/", headers={"x": "y\r\nz: a"}),
    ],
)
async def test_nothing_is_smuggled_into_a_request(use: Callable[[HttpClient], object]) -> None:
    async with client_of(1) as client:
        with pytest.raises(LocalError):
            await use(client)  # type: ignore[misc]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda version, status, fields, body: (
                b"HTTP/" + version + b" " + status + b"\r\n" + b"".join(fields) + b"\r\n" + body
            ),
            st.sampled_from([b"1.1", b"1.0", b"2.0"]),
            st.sampled_from([b"200 OK", b"100 x", b"204", b"304 y", b"999 z", b"20 x"]),
            st.lists(
                st.sampled_from(
                    [
                        b"content-length: 2\r\n",
                        b"content-length: -1\r\n",
                        b"transfer-encoding: chunked\r\n",
                        b"x\r\n",
                    ]
                ),
                max_size=3,
            ),
            st.sampled_from([b"", b"ok", b"2\r\nok\r\n0\r\n\r\n", b"ok" + OK]),
        ),
    )
)
def test_any_bytes_are_an_answer_or_the_documented_error(answer: bytes) -> None:
    async def ask() -> None:
        async with server(answer, close=True) as (port, _), client_of(port) as client:
            with suppress(HttpError):
                assert (await client.request("GET", "/")).status >= 200

    asyncio.run(ask())
