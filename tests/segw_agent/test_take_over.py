"""An agent takes the socket of another over while it is asked without a pause: every inquiry is answered."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import pytest

import segw_agent.agent
from segw_agent.attachment.network import Testbed
from segw_agent.attachment.site import GATEWAY_NAME, OPERATOR
from segw_agent.policy import Side
from segw_agent.protocol import AgentAnswer, Operation, Request
from tests.segw_agent.test_agent import SA, Agent, device, received
from voice_dpki.ikev2.identity import fqdn
from voice_dpki.stage.processes import stop_all
from voice_dpki.stage.site import Credential

WAIT_S = 100
AT_ONCE = 8
"""Threads that ask, fewer than charon's."""


@pytest.fixture
def agent(testbed: Testbed, tmp_path: Path) -> Iterator[Agent]:
    segw = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR)
    started = Agent(testbed, tmp_path, segw)
    started.running.wait_ready()
    yield started
    stop_all([started.running])


class Successor:
    """Another agent of the same configuration, which takes over."""

    def __init__(self, agent: Agent, log: Path) -> None:
        self.log = log
        command = [sys.executable, "-m", "segw_agent.main", *agent.running.program.arguments, "--take-over"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

    def __enter__(self) -> "Successor":
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        self.process.wait(WAIT_S)

    def wait(self, word: str) -> None:
        end_s = time.monotonic() + WAIT_S
        while f'"{word}"' not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end_s, self.log.read_text()
            time.sleep(0.01)


@contextmanager
def asked(agent: Agent, credential: Credential) -> Iterator[list[str]]:
    """Have the agent asked by several threads without a pause; gives the codes of the answers, in the end all."""
    codes: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                codes.append(agent.judge(credential).code)
            except (OSError, ValueError, IndexError) as error:
                codes.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(AT_ONCE)]
    for each in threads:
        each.start()
    try:
        yield codes
    finally:
        stop.set()
        for each in threads:
            each.join()


def test_no_inquiry_is_lost_while_agents_take_over(testbed: Testbed, agent: Agent, tmp_path: Path) -> None:
    enb = device(testbed, 701)
    testbed.record(enb)
    with ExitStack() as successors, asked(agent, enb) as codes:
        for number in range(2):
            successor = successors.enter_context(Successor(agent, tmp_path / f"successor-{number}.log"))
            successor.wait("ready")
            successor.wait("vouched for")
    assert agent.running.wait_end(WAIT_S) == 0
    assert set(codes) == {"vouched-for"}


class Ending:
    """An agent in this process that serves, and then ends."""

    def __init__(self, path: Path) -> None:
        self._stack = AsyncExitStack()
        self._path = path
        self._agent = segw_agent.agent.Agent(NoJudge())  # type: ignore[arg-type]

    async def __aenter__(self) -> "Ending":
        await self._stack.enter_async_context(self._agent.serving(self._path))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.end()

    async def end(self) -> None:
        await self._stack.aclose()
        await asyncio.sleep(0.01)  # connections are closed in a later turn


class NoJudge:
    """Never asked: the requests here are refused before."""


REFUSED = Request(
    operation=Operation.JUDGE, side=Side.GATEWAY, sa=SA, certificate=b"none", identification=fqdn("enb1.v.example")
).serialize()


async def test_who_has_connected_is_answered_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one who was not accepted yet, and has asked nothing so far."""
    monkeypatch.setattr("segw_agent.agent.FINISH_S", 60.0)
    path = tmp_path / "agent.sock"
    async with Ending(path) as agent, asyncio.timeout(WAIT_S):
        with socket.socket(socket.AF_UNIX) as early:
            early.connect(str(path))
            ending = asyncio.create_task(agent.end())
            await asyncio.wait({ending}, timeout=0.1)
            assert not ending.done()
            early.sendall(REFUSED)
            await ending
            assert AgentAnswer.parse(received(early)).code == "profile"


async def test_who_keeps_a_connection_for_later_does_not_hold_the_end_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segw_agent.agent.FINISH_S", 60.0)
    path = tmp_path / "agent.sock"
    async with Ending(path) as agent, asyncio.timeout(30):
        reader, writer = await asyncio.open_unix_connection(path)
        for _ in range(2):
            writer.write(REFUSED)
            head = await reader.readexactly(2)
            assert AgentAnswer.parse(await reader.readexactly(int.from_bytes(head, "big"))).code == "profile"
        await agent.end()
        writer.close()


async def test_who_never_asks_is_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segw_agent.agent.FINISH_S", 0.05)
    path = tmp_path / "agent.sock"
    async with Ending(path) as agent, asyncio.timeout(WAIT_S):
        _, writer = await asyncio.open_unix_connection(path)
        await agent.end()
        writer.close()
