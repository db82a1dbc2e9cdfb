"""A flood of requests from a stranger, while others call: what is counted is state, not time."""

import asyncio
import contextlib
import resource
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sip_testbed.proxy_service import ANSWERS
from tests.sip_testbed.test_proxy_calls import CALLEE, CALLER, World
from voice_dpki.sip.message import Hop
from voice_dpki.sip.senders import STRANGER_BURST
from voice_dpki.wire.sip.connections import Limits

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
            # No more are under way than the socket holds; those beyond a stranger's rate are dropped.
            while stranger.challenged + element.layer.counters.dropped < stranger.sent - BATCH:
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
    assert stranger.challenged >= STRANGER_BURST
    assert len(element._background) == 0


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(incoming=20, per_source=20, outgoing=5)
    monkeypatch.setattr("voice_dpki.wire.sip.transport.Limits", lambda: limits)


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


FLOODER = Path(__file__).with_name("flooder.py")
FLOODING = [f"127.0.44.{number}" for number in range(10, 14)]
BYSTANDER = "127.0.44.9"
FLOOD_S = 3.0
MOST_BETWEEN = 500
"""Datagrams of the flood that may be answered between a bystander's question and its answer: 15 slices."""


@contextlib.asynccontextmanager
async def stranger(
    kind: str, target: Hop, amount: float, sources: list[str]
) -> AsyncIterator[asyncio.StreamReader]:
    """Run a stranger in a process of its own; gives what it prints once it has begun."""
    arguments = (str(FLOODER), kind, target.host, str(target.port), str(amount), *sources)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"begun\n"
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def ask_options(target: Hop, number: int) -> bytes:
    """Ask a proxy from an address that it has never heard of, as often as timer E has it; return the answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((BYSTANDER, 0))
        question = (
            f"OPTIONS sip:{target.host} SIP/2.0\r\nVia: SIP/2.0/UDP {BYSTANDER}:{sock.getsockname()[1]}"
            f";branch=z9hG4bKask{number}\r\nMax-Forwards: 70\r\nFrom: <sip:b@b.example>;tag={number}\r\n"
            f"To: <sip:{target.host}>\r\nCall-ID: ask{number}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        for wait_s in (0.5, 1, 2, 4, 4, 4):
            await loop.sock_sendto(sock, question.encode(), (target.host, target.port))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    return await loop.sock_recv(sock, 4096)
    raise TimeoutError("no answer to OPTIONS")


def challenges() -> float:
    """Count the flood's datagrams that were answered."""
    return ANSWERS.labels("REGISTER", "401")._value.get()


@pytest.mark.long
async def test_a_flood_waits_behind_itself_while_others_ask_and_call(world: World) -> None:
    element = world.proxy_a._element
    between: list[float] = []
    async with stranger("udp", element.address, FLOOD_S, FLOODING) as told:
        flooding = asyncio.create_task(told.readline())
        while not flooding.done():
            before = challenges()
            assert (await ask_options(element.address, len(between))).startswith(b"SIP/2.0 200 ")
            between.append(challenges() - before)
            assert (await world.call()).status == 200
        assert int(flooding.result()) > 10 * len(between)
    assert max(between) < MOST_BETWEEN
    assert element.layer.counters.dropped > 1_000, "the flood was more than its share"
    assert (await ask_options(element.address, len(between))).startswith(b"SIP/2.0 200 ")


async def test_peers_of_routes_and_who_authenticates_are_known(world: World) -> None:
    element, now_s = world.proxy_a._element, world.proxy_a._element.now_s()
    senders = element._endpoint._senders
    assert senders._configured == {"127.0.0.1"}, "the next hop"
    assert senders.is_known("127.0.0.1", now_s)
    others = world.proxy_b._element._endpoint._senders
    assert not others._configured
    assert others.is_known("127.0.0.1", now_s), "the registered telephone: this proxy has no routes"
    asking = Stranger(element.address)
    world.stack.callback(asking.close)
    asking.send("REGISTER")
    async with asyncio.timeout(60):
        while not asking.challenged:
            await asyncio.sleep(0.002)
            asking.collect()
    assert not senders.is_known("127.0.44.76", now_s), "a question alone makes nobody known"
    assert world.caller._exchange._endpoint._senders.is_known("127.0.0.1", now_s), "a telephone knows its proxy"


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.long
@pytest.mark.parametrize("world", ["tcp"], indirect=True)
async def test_a_thousand_silent_connections_hold_nobody_up_and_end_with_their_peer(
    many_files: None, world: World
) -> None:
    pool, target = world.proxy_a._element._endpoint._transport._pool, world.proxy_a.address
    sources = [f"127.0.44.{number}" for number in range(20, 30)]
    async with stranger("tcp", target, 1_000, sources):
        async with asyncio.timeout(30):
            while len(pool._silent) < 900:
                await asyncio.sleep(0.01)
        late = await world.telephone("a", CALLER, world.hops["a"])
        assert (await world.call(caller=late)).status == 200
    gone = asyncio.get_running_loop().time()
    async with asyncio.timeout(30):
        while any(each.source in sources for each in pool.all):
            await asyncio.sleep(0.01)
    limits = world.proxy_a._element._endpoint._transport.limits
    assert asyncio.get_running_loop().time() - gone < limits.first_message_s / 2, "not first when they were overdue"
    assert (await world.call()).status == 200
