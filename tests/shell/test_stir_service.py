import asyncio
from collections.abc import Awaitable
from pathlib import Path

import httpx
import pytest

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import Listen
from voice_dpki.shell.current import current_call, current_request, work_on
from voice_dpki.shell.http import serve
from voice_dpki.shell.reload import Live
from voice_dpki.shell.stir_service import StirConfig, StirRoute, serve_stir
from voice_dpki.shell.tls import ClientTls, ServerTls, client_context, make_certificate, server_side
from voice_dpki.shell.trace import Tracer, TraceTo
from voice_dpki.stage.events import ReadyEvent
from voice_dpki.stage.processes import TraceReader
from voice_dpki.wire.http_client import HttpClient, HttpUnreachableError

HEADERS = {"Authorization": "Bearer t0ken", "Content-Type": "application/json", "Accept": "application/json"}
OPEN = Listen(host="192.0.2.1", port=8091)


def config(listen: Listen, tls: ServerTls | None = None) -> StirConfig:
    return StirConfig(listen=listen, domain="a.example", tokens="proxy.tokens", tls=tls)


async def perform(body: bytes, _client: str) -> bytes:
    return b'{"answers": ' + body + b"}"


def test_tokens_do_not_go_over_a_network_in_the_clear_unless_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "authn.toml"
    with pytest.raises(LocalError, match=r"authn\.toml: at 192\.0\.2\.1 others could read the proxies' tokens"):
        config(OPEN).check_secrecy(path)
    config(Listen(host="192.0.2.1", port=8091, insecure=True)).check_secrecy(path)
    config(Listen(port=8091)).check_secrecy(path)
    config(OPEN, ServerTls(certificate="a.pem", key="a-key.pem", clients=("proxy.pem",))).check_secrecy(path)


async def test_a_token_that_was_taken_back_does_not_count_on_a_connection_where_it_did() -> None:
    tokens: Live[tuple[str, ...]] = Live(("proxy t0ken",))
    asked: list[str] = []

    def performed(body: bytes, client: str) -> bytes:
        asked.append(client)
        return body

    async with serve(StirRoute("signing", "/stir/v1/signing", tokens, performed).app(), Listen(port=0)) as port:
        async with httpx.AsyncClient(headers=HEADERS, trust_env=False) as client:

            async def ask() -> int:
                return (await client.post(f"http://127.0.0.1:{port}/stir/v1/signing", content=b"1")).status_code

            assert [await ask(), await ask()] == [200, 200]
            tokens.value = ("other t1ken",)
            assert await ask() == 401
            tokens.value = ("renamed t0ken", "other t1ken")
            assert await ask() == 200
    assert asked == ["proxy", "proxy", "renamed"]


async def test_a_connection_forgets_the_call_of_its_last_request() -> None:
    calls: list[str] = []

    def performed(body: bytes, _client: str) -> bytes:
        calls.append(current_call())
        work_on(body.decode())
        return body

    async with serve(
        StirRoute("signing", "/stir/v1/signing", Live(("t0ken",)), performed).app(), Listen(port=0)
    ) as port:
        url = f"http://127.0.0.1:{port}/stir/v1/signing"
        async with httpx.AsyncClient(headers=HEADERS, trust_env=False) as client:
            for call in (b"a", b"b"):
                assert (await client.post(url, content=call)).status_code == 200
    assert calls == ["", ""]


async def test_what_is_done_for_a_request_knows_its_identity() -> None:
    seen: list[str] = []

    async def later(body: bytes) -> bytes:
        await asyncio.sleep(0)
        seen.append(current_request())
        return body

    def performed(body: bytes, _client: str) -> bytes | Awaitable[bytes]:
        seen.append(current_request())
        return later(body) if body == b"later" else body

    route = StirRoute("signing", "/stir/v1/signing", Live(("t0ken",)), performed)
    async with serve(route.app(), Listen(port=0)) as port:
        url = f"http://127.0.0.1:{port}/stir/v1/signing"
        async with httpx.AsyncClient(headers=HEADERS, trust_env=False) as client:
            told = [await client.post(url, content=b"now", headers={"X-RequestID": "one"})]
            told += [await client.post(url, content=b"later", headers={"X-RequestID": "two"})]
            told += [await client.post(url, content=b"now")]
    assert seen == ["one", "two", "two", told[2].headers["X-RequestID"]]
    assert [answer.headers["X-RequestID"] for answer in told[:2]] == ["one", "two"]
    assert seen[3]


async def test_the_same_head_twice_is_judged_like_the_first() -> None:
    async with serve(
        StirRoute("signing", "/stir/v1/signing", Live(("t0ken",)), perform).app(), Listen(port=0)
    ) as port:
        url = f"http://127.0.0.1:{port}/stir/v1/signing"
        async with httpx.AsyncClient(headers=HEADERS, trust_env=False) as client:
            for accept, status in (("text/html", 406), ("*/*", 200), ("text/html", 406), ("text/html", 406)):
                answer = await client.post(url, content=b"1", headers={"Accept": accept})
                assert answer.status_code == status


async def test_only_listed_proxies_are_served_over_tls(tmp_path: Path) -> None:
    path = tmp_path / "authn.toml"
    for name in ("a", "proxy", "stranger"):
        make_certificate(tmp_path, name, "Operator A", 30)
    tls = ServerTls(certificate="a.pem", key="a-key.pem", clients=("proxy.pem",))
    stop, reader = asyncio.Event(), TraceReader(tmp_path / "authn-a.jsonl")
    tracer = Tracer.named_by(TraceTo(tmp_path / "authn-a.jsonl"), "unnamed")
    route = StirRoute("signing", "/stir/v1/signing", Live(("t0ken",)), perform)
    side = Live(server_side(path, tls))
    serving = asyncio.create_task(serve_stir(route, Listen(port=0), side, tracer, stop))
    async with asyncio.timeout(60):
        while not reader.poll() and not serving.done():
            await asyncio.sleep(0.01)
    ready = reader.events[0]
    assert isinstance(ready, ReadyEvent)
    assert ready.actor == "authn-a"

    async def ask(own: str) -> bytes:
        section = ClientTls(certificate=f"{own}.pem", key=f"{own}-key.pem", servers=("a.pem",))
        context, url = client_context(path, section), f"https://{ready.addresses['http']}"
        async with HttpClient(url, timeout_s=60, max_answer_bytes=1000, headers=HEADERS, tls=context) as client:
            return (await client.request("POST", "/stir/v1/signing", b"1")).body

    assert await ask("proxy") == b'{"answers": 1}'
    with pytest.raises(HttpUnreachableError):
        await ask("stranger")
    stop.set()
    await serving
    tracer.close()
