"""A flood of requests from a stranger, while others call: what is counted is state, not time."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.sip_testbed.test_proxy_calls import CALLEE, CALLER, World
from voice_dpki.sip.connections import Limits
from voice_dpki.sip.message import Hop

REQUESTS = 2_200
"""As many a second filled every slot of the proxy in half a minute."""
BATCH = 20


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        world = World(stack, tmp_path)
        await world.start(transport=getattr(request, "param", "udp"))
        yield world


class Stranger:
    """Sends requests without credentials from an address of its own, each with a branch of its own."""

    def __init__(self, target: Hop) -> None:
        self._target = target.host, target.port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.44.76", 0))
        self.sent = self.challenged = 0

    def send(self, method: str) -> None:
        port = self._socket.getsockname()[1]
        number = CALLER if method == "INVITE" else CALLEE
        self._socket.sendto(
            f"{method} sip:{'+' + number + '@' if method == 'INVITE' else ''}a.example SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.44.76:{port};branch=z9hG4bK{self.sent}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:+{CALLER}@a.example>;tag=1\r\nTo: <sip:+{CALLER}@a.example>\r\n"
            f"Call-ID: {self.sent}\r\nCSeq: 1 {method}\r\nContact: <sip:x@127.0.44.76:{port}>\r\n"
            "Content-Length: 0\r\n\r\n".encode(),
            self._target,
        )
        self.sent += 1

    def collect(self) -> None:
        try:
            while data := self._socket.recv(4096):
                self.challenged += data.startswith((b"SIP/2.0 401 ", b"SIP/2.0 407 "))
        except BlockingIOError:
            return

    def close(self) -> None:
        self._socket.close()


async def test_challenges_leave_nothing_behind_and_harm_no_call(world: World) -> None:
    element = world.proxy_a._element
    stranger = Stranger(element.address)
    world.stack.callback(stranger.close)
    calls = [asyncio.create_task(world.call()) for _ in range(2)]
    most = 0
    for number in range(REQUESTS // BATCH):
        for _ in range(BATCH):
            stranger.send("REGISTER" if number % 2 else "INVITE")
        async with asyncio.timeout(60):
            while stranger.challenged < stranger.sent - BATCH:  # no more under way than the socket holds
                await asyncio.sleep(0)
                stranger.collect()
                most = max(most, len(element.layer))
    assert [(await call).status for call in calls] == [200, 200]
    assert (await world.call()).status == 200
    mine = [t for t in element.layer._transactions.values() if t.source == "127.0.44.76"]
    assert mine == []
    assert most <= 2 * BATCH + 30  # those of this moment, and the calls' own
    assert "127.0.44.76" not in element.layer._shares._held
    assert element.layer.counters.overload == 0
    assert not element._tasks


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(incoming=20, per_source=20, outgoing=5)
    monkeypatch.setattr("voice_dpki.sip.transport.Limits", lambda: limits)


@pytest.mark.parametrize("world", ["tcp"], indirect=True)
async def test_silent_connections_stop_no_call(narrow: None, world: World) -> None:
    """Telephones and trunk are on TCP, and strangers open three times as many connections as the proxy takes."""
    target = world.proxy_a.address
    streams = []
    for number in range(60):
        local = f"127.0.44.{80 + number % 5}", 0
        streams.append(await asyncio.open_connection(target.host, target.port, local_addr=local))
    assert (await world.call()).status == 200
    late = await world.telephone("a", CALLER, world.hops["a"])
    assert (await world.call(caller=late)).status == 200
    assert world.proxy_a._element.layer.counters.connections >= 40
    for _, writer in streams:
        writer.transport.abort()
