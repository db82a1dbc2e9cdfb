"""A long fuzz of the SIP parser with the proxy's core and rules behind it (see `tests/campaign.py`).

Each round is a life of a proxy: messages of the RFCs and of calls, bent and cut, over UDP and streams, from
several peers, with responses of the next hop, failures and time in between. Nothing undocumented may be raised,
nothing sent to a third party, no ACK answered, and when enough time has passed nothing may be left.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sipmessage import Request, Response

from sip_testbed.proxy_config import ProxyConfig, ProxySetup, Route, Routes, Users
from sip_testbed.proxy_element import Forward, Reply
from sip_testbed.proxy_rules import RequestRefusal
from sip_testbed.proxy_service import ProxyService
from tests.campaign import bent, campaign, rounds
from tests.sip_testbed.torture import MESSAGES, VECTORS
from voice_dpki.effects import SystemClock
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.shell.config import AdvertisedListen
from voice_dpki.shell.trace import Tracer, TraceTo
from voice_dpki.sip.digest import Secret, answer_challenge, choose_challenge
from voice_dpki.sip.framing import StreamFramer
from voice_dpki.sip.message import Hop, encode, header_values, make_response, parse_message
from voice_dpki.sip.proxy import Arrival
from voice_dpki.sip.uas import RequestRefusedError
from voice_dpki.wire.sip.connections import Limits

USER, OTHER = Tn("493023125001"), Tn("442079460123")
NEXT_HOP = Hop("udp", "127.0.0.3", 5060)
PEERS = (
    Hop("udp", "127.0.0.6", 5060),
    Hop("udp", "127.0.0.7", 40000),
    Hop("tcp", "127.0.0.8", 40001),
    Hop("tcp", "127.0.0.9", 40002),
)
HOSTS = {peer.host for peer in (*PEERS, NEXT_HOP)}
METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "REGISTER", "MESSAGE", "NEWMETHOD")
STATUSES = (100, 180, 183, 200, 200, 302, 404, 486, 503, 603)
TARGETS = (f"{OTHER}@b", f"{OTHER}@b", f"{USER}@a", f"{OTHER}@a")
CONTACTS = (
    "*",
    "<sip:+493023125001@127.0.0.7:5060>",
    '<sip:+493023125001@127.0.0.7:40000;ob>;reg-id=1;+sip.instance="<urn:uuid:1>"',
    "<sip:+493023125001@10.0.0.1>, <sip:+493023125001@127.0.0.8;transport=tcp>;expires=90",
)
SPICES = (
    b"\r\n", b"\r\n\r\n", b"\r\n ", b";", b",", b'"', b"<", b">", b"%00", b"\x00", b"\xff", b"9" * 4400, b"-1",
    b";rport", b";received=1.2.3.4", b";tag=", b"Content-Length: 5\r\n", b"Max-Forwards: 0\r\n", b"sips:", b"[::1]",
    b"Route: <sip:127.0.0.2:5060;lr;call=x>\r\n", b"Require: x\r\n", b"Expires: 99999999999\r\n", b"SIP/2.0",
    b"ACK ",
)  # fmt: skip


class ChanceRandom:
    """The round's chance, as the proxy's source of randomness."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def token(self, size: int) -> bytes:
        return self._chance.randbytes(size)


class _Loop:
    """The clock that an endpoint reads."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def time(self) -> float:
        return self.now_s


class Life:
    """A proxy without sockets, and all that was sent to it and by it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        config = ProxyConfig(
            listen=AdvertisedListen(host="127.0.0.2", port=5060),
            domain="a.example",
            users="",
            require_registration=False,
        )
        routes = Routes((Route(domain="b.example", next_hop=str(NEXT_HOP)),))
        setup = ProxySetup(config, Users({USER: Secret("right")}), routes, b"key", None, None, TraceTo())
        self.service = ProxyService(setup, Tracer(None, "proxy"), SystemClock(), ChanceRandom(chance))
        self.element = self.service._element
        self.layer, self.core = self.element.layer, self.element._core
        self.loop = _Loop()
        self.element._endpoint._loop = self.loop  # type: ignore[assignment]
        self.streams = {peer: StreamFramer() for peer in PEERS if peer.reliable}
        self.waiting: list[Arrival] = []
        self.requests: list[Request] = []
        self.challenge: str | None = None
        self.count = self.forwarded = 0

    def receive(self, data: bytes, source: Hop) -> None:
        framer = self.streams.get(source)
        if framer is None:
            self.take(data, source)
            return
        for message in framer.receive(data):
            self.take(message, source)
        if framer.error is not None:
            self.layer.refuse_unread(framer.error.head, source, framer.error)
            self.streams[source] = StreamFramer()
            self.pump(ack=framer.error.head.startswith(b"ACK "))

    def take(self, data: bytes, source: Hop) -> None:
        self.layer.receive(data, source, self.loop.now_s)
        self.pump(ack=data.startswith(b"ACK "))

    def pump(self, *, ack: bool = False) -> None:
        while events := self.layer.take_events():
            for event in events:
                arrival = self.core.handle(event, self.loop.now_s)
                if arrival is not None:
                    assert isinstance(arrival, Arrival)
                    self.waiting.append(arrival)
        for outgoing in self.layer.take_output():
            message = parse_message(outgoing.data)
            if isinstance(message, Response):
                assert not ack, "an ACK was answered"
                assert outgoing.hop.host in HOSTS, "a response to a third party"
                for name in ("Proxy-Authenticate", "WWW-Authenticate"):
                    self.challenge = message.headers.get(name) or self.challenge
            else:
                self.requests = [*self.requests[-8:], message]
                self.forwarded += message.method not in ("ACK", "CANCEL")

    def decide(self) -> None:
        """Settle one request, as the element's task does."""
        if not self.waiting:
            return
        arrival = self.waiting.pop(self.chance.randrange(len(self.waiting)))
        work = self.service._decide(arrival)
        try:
            work.send(None)
        except StopIteration as done:
            decision = done.value
        except RequestRefusal as refusal:
            self.element._answer(arrival, refusal.status, refusal.phrase, refusal.headers)
            return
        except RequestRefusedError as refusal:
            self.element._answer(arrival, refusal.status, None, refusal.headers)
            return
        except MalformedError as error:
            self.element._answer(arrival, 400, f"Bad Request: {error}", ())
            return
        if isinstance(decision, Forward):
            self.element._forward(arrival, decision)
        else:
            assert isinstance(decision, Reply)
            self.element._answer(arrival, 200, None, decision.headers)

    def advance(self, seconds: float) -> None:
        end_s = self.loop.now_s + seconds
        while (due_s := self.layer.next_timer()) is not None and due_s <= end_s:
            self.loop.now_s = due_s
            self.layer.handle_timer(due_s)
            self.pump()
        self.loop.now_s = end_s

    # What peers send.

    def request(self) -> bytes:
        """A registration, or a request that could be part of a call; many have credentials."""
        chance = self.chance
        if chance.random() < 0.2:
            return self.registration()
        method, branch = chance.choice((*METHODS, *["INVITE"] * 6)), chance.randrange(12)
        own = chance.random() < 0.7
        lines = [
            f"{method} sip:+{chance.choice(TARGETS)}.example SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.6:5060;branch=z9hG4bK{branch}{chance.choice(('', ';rport'))}",
            "Max-Forwards: 70",
            f"From: <sip:+{USER if own else OTHER}@{'a' if own else 'b'}.example>;tag=caller",
            f"To: <sip:+{OTHER}@b.example>{chance.choice(('', '', ';tag=callee'))}",
            f"Call-ID: call-{branch}",
            f"CSeq: 1 {method}",
            "Contact: <sip:+493023125001@127.0.0.6:5060>",
        ]
        if self.requests and chance.random() < 0.5:
            routes = self.requests[-1].headers.getlist("Record-Route")
            lines += [f"Route: {value}" for value in routes]
        if self.challenge and own and chance.random() < 0.8:
            lines.append(f"Proxy-Authorization: {self._credentials(method)}")
        return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()

    def registration(self) -> bytes:
        chance = self.chance
        lines = [
            "REGISTER sip:a.example SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.7:5060;branch=z9hG4bK{self.count}{chance.choice(('', ';rport'))}",
            f"From: <sip:+{USER}@a.example>;tag=phone",
            f"To: <sip:+{USER}@a.example>",
            f"Call-ID: phone-{chance.randrange(3)}",
            f"CSeq: {self.count + 1} REGISTER",
            f"Contact: {chance.choice(CONTACTS)}",
            f"Expires: {chance.choice((0, 60, 3600))}",
        ]
        if self.challenge:
            lines.append(f"Authorization: {self._credentials('REGISTER')}")
        return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()

    def _credentials(self, method: str) -> str:
        self.count += 1
        challenge = choose_challenge([self.challenge or ""])
        return answer_challenge(
            challenge, username=f"+{USER}", password="right", method=method, uri="sip:b.example",
            count=self.count, cnonce="c",
        )  # fmt: skip

    def response(self) -> bytes:
        """A response of the next hop to one of the latest requests."""
        if not self.requests:
            return b""
        request = self.chance.choice(self.requests)
        response = make_response(request, self.chance.choice(STATUSES), to_tag="callee")
        if self.chance.random() < 0.2:
            del response.headers.getlist("Via")[1:]
        if self.chance.random() < 0.5:
            response.headers.setlist("Record-Route", header_values(request, "Record-Route"))
        return encode(response)

    def torture(self) -> bytes:
        return self.chance.choice(CORPUS)

    # One step.

    def step(self) -> None:
        chance = self.chance
        source: Callable[[], bytes] = chance.choice((self.request, self.request, self.response, self.torture))
        data = source()
        if chance.random() < 0.35:
            data = _spoiled(chance, data)
        self.receive(data, NEXT_HOP if source == self.response else chance.choice(PEERS))
        if chance.random() < 0.8:
            self.decide()
        match chance.randrange(12):
            case 0:
                self.advance(chance.choice((0.3, 5, 40, 190)))
            case 1 if self.layer._transactions:
                self.layer.transport_failed(chance.choice(list(self.layer._transactions)), self.loop.now_s)
            case 2 if self.requests:
                data = bytes(chance.choice(self.requests))
                self.layer.unreachable(data[: chance.randrange(len(data))], NEXT_HOP, self.loop.now_s)
            case 3 if self.layer._transactions:
                self.core.fail(chance.choice(list(self.layer._transactions)), self.loop.now_s)
        self.pump()


def _spoiled(chance: random.Random, data: bytes) -> bytes:
    if chance.random() < 0.3:
        return data[: chance.randrange(len(data) + 1)]
    if chance.random() < 0.5:
        at = chance.randrange(len(data) + 1)
        return data[:at] + chance.choice(SPICES) + data[at + chance.choice((0, 0, 1, 8)) :]
    return bent(chance, data, CORPUS)


CORPUS: Sequence[bytes] = [m.data for m in MESSAGES] + [path.read_bytes() for path in VECTORS.glob("*.sip")]


@pytest.mark.timeout(3600)
@campaign
def test_whatever_comes_nothing_is_raised_and_nothing_stays(request: pytest.FixtureRequest) -> None:
    calls = forwarded = registered = 0
    for chance in rounds(request):
        life = Life(chance)
        life.layer._shares._most = chance.choice((4, 20, 1000))
        for _ in range(chance.randint(5, 60)):
            life.step()
        forwarded += life.forwarded
        registered += bool(life.service._location.find(USER, life.loop.now_s))
        life.advance(1000)
        assert _left(life) == []
        calls += life.count
    assert calls  # the fuzz reaches what lies behind the parser
    assert forwarded
    assert registered


def _left(life: Life) -> list[Any]:
    layer, core = life.layer, life.core
    return [
        *layer._transactions.values(), *core._contexts.values(), *core._servers.values(), *layer._shares._held,
        *layer._timer_queue._entries,
    ]  # fmt: skip


@pytest.mark.timeout(3600)
@campaign
async def test_streams_leave_no_connection_and_no_task(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(incoming=6, first_message_s=0.2, message_s=0.2, idle_s=0.5, linger_s=0.02, close_s=0.2)
    monkeypatch.setattr("voice_dpki.wire.sip.transport.Limits", lambda: limits)
    config = ProxyConfig(listen=AdvertisedListen(host="127.0.0.1", port=0), domain="example.com", users="")
    setup = ProxySetup(config, Users({USER: Secret("right")}), Routes(()), b"key", None, None, TraceTo())
    service = ProxyService(setup, Tracer(None, "proxy"), SystemClock(), ChanceRandom(random.Random(0)))
    await service.start()
    element = service._element
    pool = element._endpoint._transport._pool
    for chance in rounds(request):
        await asyncio.gather(*(_use_a_stream(chance, service.address) for _ in range(chance.randint(1, 12))))
        assert len(pool.all) <= 2 * limits.incoming  # those that are closing count until they are closed
    async with asyncio.timeout(30):
        transactions = element.layer._transactions
        while pool.all or len(element._background) or any(each.request for each in transactions.values()):
            await asyncio.sleep(0.01)
    assert (pool._silent, dict(pool._sources), pool._incoming, pool._by_peer) == ({}, {}, 0, {})
    assert element.layer.counters.failures == 0
    await service.close()


async def _use_a_stream(chance: random.Random, target: Hop) -> None:
    """Send some messages, bent, in pieces, and go away in one of several ways."""
    data = b"".join(_spoiled(chance, chance.choice(CORPUS)) for _ in range(chance.randint(0, 3)))
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(target.host, target.port)
        try:
            while data and not writer.is_closing():
                size = chance.choice((1, 10, 500, 5000))
                writer.write(data[:size])
                data = data[size:]
                await asyncio.sleep(0)
            match chance.randrange(3):
                case 0:
                    await asyncio.wait_for(reader.read(100), 0.01)
                case 1:
                    writer.write_eof()
        except TimeoutError:
            pass
        finally:
            writer.transport.abort()
