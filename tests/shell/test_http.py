"""The HTTP shell with a real client over a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import (
    HttpApp,
    Request,
    Response,
    Route,
    bearer_token_matches,
    bind,
    json_response,
    serve,
)
from voice_dpki.shell.metrics import HEALTH_ROUTE, METRICS_ROUTE
from voice_dpki.shell.worker import SOCKET

ALL = Listen(host="0.0.0.0", port=0)


async def _echo(request: Request) -> Response:
    return json_response(200, {"body": len(request.body), "args": request.path_args, "query": request.query})


async def _broken(_request: Request) -> Response:
    raise RuntimeError("secret detail")


ROUTES = [
    Route("POST", "/echo", _echo, max_body_bytes=1000),
    Route("GET", "/things/{name}", _echo),
    Route("GET", "/broken", _broken),
    HEALTH_ROUTE,
    METRICS_ROUTE,
]


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serve(HttpApp(ROUTES), Listen(port=0)) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client


async def test_a_handler_gets_body_query_and_path(client: httpx.AsyncClient) -> None:
    assert (await client.post("/echo", content=b"x" * 1000)).json()["body"] == 1000
    answer = (await client.get("/things/Operator%20A?since=3")).json()
    assert answer == {"body": 0, "args": {"name": "Operator A"}, "query": {"since": "3"}}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", b"", 404),
        ("GET", "/things/a/b", b"", 404),
        ("PUT", "/echo", b"", 405),
        ("POST", "/echo", b"x" * 1001, 413),
        ("GET", "/things/a?" + "q=1&" * 2000, b"", 414),
        ("GET", "/things/a?" + "q=1&" * 40, b"", 400),
    ],
)
async def test_refusals_say_what_was_wrong(
    client: httpx.AsyncClient, method: str, path: str, body: bytes, status: int
) -> None:
    answer = await client.request(method, path, content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


async def test_a_chunked_body_is_bounded_too(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    assert (await client.post("/echo", content=chunks())).status_code == 413


async def test_405_names_the_allowed_methods(client: httpx.AsyncClient) -> None:
    assert (await client.get("/echo")).headers["allow"] == "POST"


async def test_a_failure_inside_tells_no_detail(client: httpx.AsyncClient) -> None:
    answer = await client.get("/broken")
    assert answer.status_code == 500
    assert "secret" not in answer.text


async def test_health_and_metrics(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert "python_info" in (await client.get("/metrics")).text


async def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=f"127.0.0.1:{port}"):
            async with serve(HttpApp(ROUTES), Listen(port=port)):
                pass


@pytest.fixture
def handed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket at the host that a test names, handed over as a supervisor does."""
    with bind(Listen(host=request.param, port=0), shared=True) as sock:
        monkeypatch.setenv(SOCKET, str(sock.fileno()))
        yield sock


@pytest.mark.parametrize("handed", ["127.0.0.1", "0.0.0.0", "::1", "localhost", ""], indirect=True)
async def test_a_socket_that_is_handed_over_is_served(
    handed: socket.socket, request: pytest.FixtureRequest
) -> None:
    host, port = request.node.callspec.params["handed"], handed.getsockname()[1]
    async with serve(HttpApp([HEALTH_ROUTE]), Listen(host=host, port=port)) as served:
        url = f"http://{'[::1]' if ':' in host else '127.0.0.1'}:{served}/healthz"
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(url)).status_code == 200
    assert served == port


@pytest.mark.parametrize(
    ("handed", "host", "differs"),
    [
        ("0.0.0.0", "127.0.0.1", 0),
        ("127.0.0.1", "0.0.0.0", 0),
        ("127.0.0.1", "::1", 0),
        ("127.0.0.1", "127.0.0.1", 1),
        ("127.0.0.1", "no-such-host.invalid", 0),
    ],
    indirect=["handed"],
)
async def test_a_socket_at_another_address_is_not_served(handed: socket.socket, host: str, differs: int) -> None:
    """The configuration has changed, perhaps with what protects the address: who served before goes on."""
    port = handed.getsockname()[1]
    with pytest.raises(LocalError, match=rf":{port}, and {host}:{port + differs} needs a restart"):
        async with serve(HttpApp(ROUTES), Listen(host=host, port=port + differs)):
            pass


async def test_secrecy_is_judged_by_the_address_of_the_socket(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a machine that calls an address on a network localhost."""
    monkeypatch.setattr("voice_dpki.shell.http.bind", lambda listen, shared: bind(ALL, shared=shared))
    with pytest.raises(LocalError, match=r"localhost is 0\.0\.0\.0, where others could read"):
        async with serve(HttpApp(ROUTES), Listen(host="localhost", port=0)):
            pass
    async with serve(HttpApp(ROUTES), ALL):
        (record,) = caplog.records
        assert record.message.startswith("serving WITHOUT TLS on a network")


@pytest.mark.parametrize(
    ("header", "matches"),
    [("Bearer two", True), ("bearer one", True), ("Bearer", False), ("Basic one", False), ("Bearer onetwo", False)],
)
def test_bearer_tokens(header: str, matches: bool) -> None:
    request = Request("POST", "/", {"authorization": header}, b"", "")
    assert bearer_token_matches(request, ["one", "two"]) is matches


async def test_a_content_length_of_thousands_of_digits_is_too_large() -> None:
    async with serve(HttpApp(ROUTES), Listen(port=0)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
        status = await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert status.split()[1] in (b"413", b"400")
