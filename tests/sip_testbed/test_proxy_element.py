"""A proxy element on its sockets: whatever fails in it, the sender gets an answer and nothing is left."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sipmessage import Request, Response

from sip_testbed.proxy_element import Forward, ProxyElement, Reply
from voice_dpki.effects import SystemRandom
from voice_dpki.shell.config import Listen
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.events import AckReceived, RequestReceived
from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import Hop, make_response, parse_uri
from voice_dpki.sip.proxy import Arrival
from voice_dpki.wire.sip.exchange import Exchange

Decide = Callable[[Arrival], Awaitable[Forward | Reply]]
FAST = Timers(t1_s=0.05, t4_s=0.05, d_s=0.05)
MakeElement = Callable[..., Awaitable[ProxyElement]]


class Peer:
    """A caller and a callee in one: it answers each request with `status`."""

    def __init__(self, timers: Timers = FAST) -> None:
        self.status = 200
        self.exchange = Exchange(
            "127.0.0.1", 0, on_request=self._answer, on_ack=self._ack, random=SystemRandom(),
            tracer=Tracer(None, "peer"), timers=timers, udp_max_bytes=9000,
        )  # fmt: skip

    def _answer(self, event: RequestReceived) -> None:
        self.exchange.respond(event.key, make_response(event.request, self.status, to_tag="callee"))

    def _ack(self, event: AckReceived) -> None:
        """Nothing to do."""

    async def ask(self, method: str, hop: Hop) -> Response:
        request = Request(method, parse_uri("sip:b.example"))
        for name, value in (
            ("From", "<sip:a@a.example>;tag=caller"), ("To", "<sip:b.example>"),
            ("Call-ID", self.exchange.token()), ("CSeq", f"1 {method}"), ("Max-Forwards", "70"),
        ):  # fmt: skip
            request.headers.set(name, value)
        async with asyncio.timeout(30):
            return await self.exchange.ask(request, hop)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    await peer.exchange.start()
    yield peer
    await peer.exchange.close()


@pytest.fixture
async def make() -> AsyncIterator[MakeElement]:
    made: list[ProxyElement] = []

    async def make_one(decide: Decide, change: Callable[[Response], None] | None = None) -> ProxyElement:
        element = ProxyElement(
            Listen(host="127.0.0.1", port=0), decide, resolve=lambda uri: None, secret=b"key",
            random=SystemRandom(), tracer=Tracer(None, "proxy"), udp_max_bytes=9000, change_response=change,
        )  # fmt: skip
        await element.start()
        made.append(element)
        return element

    yield make_one
    for element in made:
        await element.close()


def is_empty(element: ProxyElement) -> bool:
    """Whether nothing is open but transactions that have had their final response, and wait for its end."""
    waiting = [t for t in element.layer._transactions.values() if t.request is not None]
    return not waiting and len(element._background) == 0


def broken(*_: object) -> None:
    raise RuntimeError("a fault in our own code")


async def never(arrival: Arrival) -> Forward | Reply:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
@pytest.mark.parametrize("fault", ["decide", "too slow", "bad decision", "response", "core"])
async def test_an_error_of_our_own_is_answered_counted_and_said(
    make: MakeElement,
    peer: Peer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    method: str,
) -> None:
    async def decide(arrival: Arrival) -> Forward | Reply:
        if fault == "decide":
            broken()
        elif fault == "too slow":
            await never(arrival)
        elif fault == "bad decision":
            return Forward(None, peer.exchange.address)  # type: ignore[arg-type]
        return Forward(arrival.request, peer.exchange.address)

    monkeypatch.setattr("sip_testbed.proxy_element.DECIDE_S", 0.05)
    monkeypatch.setattr("voice_dpki.wire.seldom.SAY_AGAIN_S", 1000.0)
    element = await make(decide, broken if fault == "response" else None)
    if fault == "core":
        monkeypatch.setattr("voice_dpki.sip.proxy._loop_digest", broken)
    with caplog.at_level(logging.ERROR):
        answers = [await peer.ask(method, element.address) for _ in range(3)]
    assert [answer.code for answer in answers] == [500] * 3
    assert element.layer.counters.failures == 3
    assert len(caplog.records) == 1
    async with asyncio.timeout(30):
        while not is_empty(element):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
async def test_a_next_hop_that_nobody_listens_at_is_known_at_once(make: MakeElement, method: str) -> None:
    """Without ICMP it would take 64*T1, which at this peer is longer than the test waits."""
    peer = Peer(Timers())
    await peer.exchange.start()

    async def decide(arrival: Arrival) -> Forward | Reply:
        return Forward(arrival.request, Hop("udp", "127.0.0.1", 9))

    element = await make(decide)
    answer = await peer.ask(method, element.address)
    assert (answer.code, answer.phrase) == (500, "Server Internal Error: the next hop cannot be reached")
    await peer.exchange.close()


async def test_a_peer_that_nobody_listens_at_is_known_to_a_telephone_too() -> None:
    peer = Peer(Timers())
    await peer.exchange.start()
    assert (await peer.ask("INVITE", Hop("udp", "127.0.0.1", 9))).code == 503
    await peer.exchange.close()


async def test_a_stream_that_cannot_be_followed_is_answered_and_closed(make: MakeElement) -> None:
    element = await make(never)
    reader, writer = await asyncio.open_connection("127.0.0.1", element.address.port)
    writer.write(
        b"OPTIONS sip:b.example SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKx\r\nCSeq: 1 OPTIONS\r\n"
        b"Content-Length: five\r\n\r\nBYE sip:b.example SIP/2.0\r\n"
    )
    async with asyncio.timeout(30):
        answer = await reader.read()
    assert answer.startswith(b"SIP/2.0 400 Bad Request: a stream needs one Content-Length")
    assert answer.count(b"SIP/2.0 ") == 1
    assert b"\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKx;received=127.0.0.1\r\n" in answer
    writer.close()
