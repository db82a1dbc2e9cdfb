"""100 calls a second through both servers, while ten times the configuration changes and twice all processes."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from authn_server import config as authn
from tests.authn_server.conftest import Site
from tests.one_operator import OneOperator, Service, until
from tests.ports import free_port
from verify_server import config as verify
from voice_dpki.stage.events import ReadyEvent
from voice_dpki.wire.http_client import HttpClient, HttpError

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

CALLS_S = 100
MAX_OPEN = 20
"""Calls that wait at the same time; a busy machine gets fewer calls a second, and no longer queue."""
WORKERS = 2
TOKEN = "t0ken-of-the-proxy"
SIGNING, VERIFICATION = "/stir/v1/signing", "/stir/v1/verification"


@dataclass
class Tally:
    """What became of the calls."""

    ended: Counter[str] = field(default_factory=Counter)
    begun: int = 0


class Servers:
    """An operator's ledger with both servers, each with two workers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ledger = folder, OneOperator(folder, heartbeat_s=0.5)
        Site(folder).write()
        self.tokens = folder / "proxy.tokens"
        self.tokens.write_text(f"{TOKEN}\n")
        self.ledger.submit((folder / "authn.der").read_bytes())
        follow = f'\n[ledger]\nurl = "{self.ledger.url}"\ngenesis = "net/genesis.json"\n'
        self.authn = self._start("authn_server", authn.EXAMPLE, 8091, follow)
        store = f'\n[replay.store]\nurl = "file://{folder}"\n'
        text = verify.EXAMPLE.replace("http://127.0.0.1:26680", self.ledger.url)
        self.verify = self._start("verify_server", text.replace("genesis.json", "net/genesis.json"), 8092, store)

    def _start(self, module: str, text: str, port: int, more: str) -> Service:
        text = text.replace("workers = 1 ", f"workers = {WORKERS} ").replace(
            f"port = {port}", f"port = {free_port()}"
        )
        path, trace = self.folder / f"{module}.toml", self.folder / f"{module}.jsonl"
        path.write_text(f'{text}{more}\n[trace]\nfile = "{trace.name}"\n')
        service = Service(module, path, trace)
        until(lambda: sum(isinstance(event, ReadyEvent) for event in service.events()) == WORKERS)
        return service

    @property
    def both(self) -> tuple[Service, Service]:
        return self.authn, self.verify

    def reload(self, number: int) -> None:
        """Change the tokens, and have both servers read them."""
        self.tokens.write_text(f"{TOKEN}\nfurther-token-{number}\n")
        for service in self.both:
            os.kill(service.pid, signal.SIGHUP)
        self.reaches("configuration read again", (number + 1) * WORKERS)

    def replace(self, number: int) -> None:
        """Replace the processes of both servers."""
        for service in self.both:
            os.kill(service.pid, signal.SIGUSR2)
        self.reaches("all workers are replaced", number + 1)

    def reaches(self, event: str, count: int) -> None:
        for service in self.both:
            until(lambda service=service: service.log_path.read_text().count(event) >= count)  # type: ignore[misc]

    def stop(self) -> None:
        assert [service.stop() for service in (*self.both, self.ledger)] == [0, 0, 0]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    servers.stop()


async def call(authn_http: HttpClient, verify_http: HttpClient, number: int) -> str:
    """Have a call signed, and the Identity verified; no POST is repeated. Return what came of it."""
    now_s = int(time.time())
    orig, dest = {"tn": f"4930231250{number % 100:02}"}, {"tn": ["442079460001"]}
    asked: dict[str, Any] = {"attest": "A", "orig": orig, "dest": dest, "iat": now_s}
    asked["origid"] = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
    try:
        answer = await authn_http.request("POST", SIGNING, encode({"signingRequest": asked}))
        identity = json.loads(answer.body)["signingResponse"]["identity"]
        told = {"from": orig, "to": dest, "time": now_s, "identity": identity, "callId": f"call-{number}"}
        answer = await verify_http.request("POST", VERIFICATION, encode({"verificationRequest": told}))
        return str(json.loads(answer.body)["verificationResponse"]["verstat"])
    except (HttpError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def client(service: Service) -> HttpClient:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    return HttpClient(service.url, timeout_s=60, max_answer_bytes=100_000, headers=headers)


async def load(servers: Servers, tally: Tally, done: asyncio.Event) -> None:
    """Begin CALLS_S calls a second until `done`, fewer where the machine cannot; wait for all answers."""
    open_calls: set[asyncio.Task[str]] = set()

    def ended(task: asyncio.Task[str]) -> None:
        open_calls.discard(task)
        tally.ended[task.result()] += 1

    async with client(servers.authn) as authn_http, client(servers.verify) as verify_http:
        began_s = time.monotonic()
        while not done.is_set():
            while tally.begun < (time.monotonic() - began_s) * CALLS_S and len(open_calls) < MAX_OPEN:
                task = asyncio.create_task(call(authn_http, verify_http, tally.begun))
                task.add_done_callback(ended)
                open_calls.add(task)
                tally.begun += 1
            await asyncio.sleep(0.2 / CALLS_S)
        await asyncio.gather(*open_calls)


async def test_no_call_fails_during_ten_reloads_and_two_restarts(servers: Servers) -> None:
    tally, done = Tally(), asyncio.Event()
    loading = asyncio.create_task(load(servers, tally, done))
    began_s = time.monotonic()
    for number in range(10):
        await asyncio.sleep(0.5)
        await asyncio.to_thread(servers.reload, number)
        if number % 5 == 2:
            await asyncio.to_thread(servers.replace, number // 5)
    await asyncio.sleep(0.5)
    done.set()
    await loading
    seconds = time.monotonic() - began_s
    print(f"{tally.begun} calls in {seconds:.1f} s, {tally.begun / seconds:.0f} a second: {dict(tally.ended)}")
    assert dict(tally.ended) == {"TN-Validation-Passed": tally.begun}
