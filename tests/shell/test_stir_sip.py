"""A STIR service over SIP, asked over real sockets, with a service that the test stands in for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sipmessage import Request

from voice_dpki.errors import LocalError
from voice_dpki.shell import stir_sip
from voice_dpki.shell.config import AdvertisedListen
from voice_dpki.shell.metrics import Health
from voice_dpki.shell.stir_sip import SipPeer, SipSection, SipSetup, StirSip, sip_setup
from voice_dpki.sip.hop import Hop
from voice_dpki.sip.redirect import Additions
from voice_dpki.stir.faults import RequestError

INVITE = """\
{method} sip:+442079460001@as.example SIP/2.0
Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{branch}
Max-Forwards: 70
From: <sip:+493023125001@a.example>;tag=1
To: <sip:+442079460001@b.example>{to}
Call-ID: c{branch}
CSeq: 1 {cseq}
Content-Length: 0

""".replace("\n", "\r\n")
LISTEN = AdvertisedListen(port=0)


class Service:
    """Signs whatever it is asked, once `gate` is open."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.ended = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.health = Health(ok=True, facts={})

    async def additions(self, request: Request, _peer: SipPeer) -> Additions:
        self.asked.append(request)
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        if self.error is not None:
            raise self.error
        return Additions((("Identity", f"a.b.{len(self.asked)}"),))


class Peer(asyncio.DatagramProtocol):
    """An element that asks over UDP; its answers but 100."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self.target = (host, int(port))
        self.answers: asyncio.Queue[str] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.host, self.port = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not data.startswith(b"SIP/2.0 100"):
            self.answers.put_nowait(data.decode())

    def send(self, method: str = "INVITE", branch: str = "1", to: str = "", cseq: str = "") -> None:
        where = {"host": self.host, "port": self.port, "branch": branch, "to": to}
        self.transport.sendto(INVITE.format(method=method, cseq=cseq or method, **where).encode(), self.target)

    async def answer(self) -> str:
        async with asyncio.timeout(60):
            return await self.answers.get()

    async def ask(self, method: str = "INVITE", branch: str = "1", to: str = "", cseq: str = "") -> str:
        self.send(method, branch, to, cseq)
        return await self.answer()


def setup(*peers: SipPeer) -> SipSetup[SipPeer]:
    return sip_setup(Path("authn.toml"), SipSection(listen=LISTEN), peers)


@asynccontextmanager
async def serving(service: Service, *peers: SipPeer) -> AsyncIterator[StirSip[SipPeer]]:
    server = StirSip("signing", setup(*peers), service.additions, lambda: service.health)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def asking(server: StirSip[SipPeer], host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Peer]:
    loop = asyncio.get_running_loop()
    transport, peer = await loop.create_datagram_endpoint(
        lambda: Peer(server.addresses["sip"]), local_addr=(host, port)
    )
    try:
        yield peer
    finally:
        transport.close()


LOCAL = SipPeer(address="127.0.0.1")


async def test_an_invite_is_redirected_and_its_retransmission_is_answered_alike() -> None:
    service = Service()
    async with serving(service, LOCAL) as server, asking(server) as peer:
        first = await peer.ask()
        assert first.startswith("SIP/2.0 302 Moved Temporarily\r\n")
        assert "\r\nIdentity: a.b.1\r\n" in first
        again = [await peer.ask() for _ in range(3)]
        assert set(again) == {first}
        assert len(service.asked) == 1
        peer.send("ACK")
        assert "a.b.2" in await peer.ask(branch="2")


async def test_a_sender_that_acknowledges_hears_no_more() -> None:
    async with serving(Service(), LOCAL) as server, asking(server) as peer:
        await peer.ask()
        assert "a.b.1" in await peer.answer(), "the answer is retransmitted until its ACK"
        peer.send("ACK")
        assert (await peer.ask("OPTIONS", "2")).startswith("SIP/2.0 200 ")


@pytest.mark.parametrize(("answer", "name"), [(403, "Identity"), (404, "X-Identity"), (503, "Identity")])
async def test_each_peer_has_its_dialect(answer: Any, name: str) -> None:
    other = SipPeer(address="127.0.0.2", answer=answer, x_header=name.startswith("X"))
    async with serving(Service(), LOCAL, other) as server:
        async with asking(server) as peer:
            assert (await peer.ask()).startswith("SIP/2.0 302 ")
        async with asking(server, "127.0.0.2") as peer:
            told = await peer.ask(branch="2")
            assert told.startswith(f"SIP/2.0 {answer} ")
            assert f"\r\n{name}: a.b.2\r\n" in told


async def test_a_signer_at_fault_redirects_with_its_token() -> None:
    service = Service()
    error = RequestError("POL4033", "it was revoked")
    error.bypass = "a-disengagement"
    service.error = error
    async with serving(service, LOCAL) as server, asking(server) as peer:
        told = await peer.ask()
        assert told.startswith("SIP/2.0 302 ")
        assert "\r\nP-Identity-Bypass: a-disengagement\r\n" in told
        assert "\r\nReason: SIP;cause=403;" in told


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS", "CANCEL", "BYE", "PLAY"])
async def test_strangers_are_refused(method: str) -> None:
    service = Service()
    async with serving(service, LOCAL) as server, asking(server, "127.0.0.9") as peer:
        assert (await peer.ask(method)).startswith("SIP/2.0 403 Forbidden\r\n")
    assert service.asked == []


@pytest.mark.parametrize(
    ("method", "status"), [("BYE", 405), ("REGISTER", 405), ("MESSAGE", 405), ("PLAY", 501), ("CANCEL", 481)]
)
async def test_other_methods(method: str, status: int) -> None:
    service = Service()
    async with serving(service, LOCAL) as server, asking(server) as peer:
        told = await peer.ask(method)
        assert told.startswith(f"SIP/2.0 {status} ")
        assert ("\r\nAllow: INVITE, ACK, CANCEL, OPTIONS\r\n" in told) is (status != 481)
    assert service.asked == []


async def test_an_invite_of_a_dialog_has_none() -> None:
    async with serving(Service(), LOCAL) as server, asking(server) as peer:
        assert (await peer.ask(to=";tag=7")).startswith("SIP/2.0 481 ")


async def test_options_tell_the_health() -> None:
    service = Service()
    async with serving(service, LOCAL) as server, asking(server) as peer:
        assert (await peer.ask("OPTIONS")).startswith("SIP/2.0 200 OK\r\n")
        service.health = replace(service.health, ok=False)
        assert (await peer.ask("OPTIONS", "2")).startswith("SIP/2.0 503 ")


async def test_a_call_can_be_cancelled_by_its_own_sender_alone() -> None:
    service = Service()
    service.gate.clear()
    async with serving(service, LOCAL, SipPeer(address="127.0.0.2")) as server:
        async with asking(server) as peer, asking(server, "127.0.0.2", peer.port) as other:
            for branch in "12":
                peer.send(branch=branch)
            await until_asked(service, 2)
            other.host = peer.host  # as the Via says; the answer goes to where the request came from
            assert (await other.ask("CANCEL", "1")).startswith("SIP/2.0 481 ")
            told = sorted([await peer.ask("CANCEL", "2"), await peer.answer()])
            assert [line[:12] for line in told] == ["SIP/2.0 200 ", "SIP/2.0 487 "]
            assert all("\r\nCall-ID: c2\r\n" in each for each in told)
            peer.send("ACK", "2")
            assert (len(service.asked), service.ended) == (2, 1), "the cancelled call is not worked on any more"
            service.gate.set()
            answered = await peer.answer()
            assert answered.startswith("SIP/2.0 302 ")
            assert "\r\nCall-ID: c1\r\n" in answered


@pytest.mark.parametrize(
    ("error", "first_line"),
    [
        (RequestError("POL4030", "not its number"), "SIP/2.0 404 Not Found"),
        (RequestError("SVC4006", "junk"), "SIP/2.0 400 Bad Request"),
        (RuntimeError("a fault of ours"), "SIP/2.0 500 Server Internal Error"),
    ],
)
async def test_what_gets_no_answer(error: Exception, first_line: str, caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    service.error = error
    async with serving(service, LOCAL) as server, asking(server) as peer:
        told = await peer.ask()
    assert told.splitlines()[0] == first_line
    assert ("\r\nReason: SIP;cause=" in told) is isinstance(error, RequestError)
    assert "a fault of ours" not in told
    assert "493023125001" not in caplog.text


async def test_the_crowd_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stir_sip, "MAX_PENDING", 2)
    service = Service()
    service.gate.clear()
    async with serving(service, LOCAL) as server, asking(server) as peer:
        for branch in "12":
            peer.send(branch=branch)
        told = await peer.ask(branch="3")
        assert told.startswith("SIP/2.0 503 ")
        assert "\r\nRetry-After: 1\r\n" in told
        service.gate.set()
        answers = {(await peer.answer())[:11] for _ in range(2)}
        assert answers == {"SIP/2.0 302"}


async def test_what_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stir_sip, "ANSWER_S", 0.01)
    service = Service()
    service.gate.clear()
    async with serving(service, LOCAL) as server, asking(server) as peer:
        assert (await peer.ask()).startswith("SIP/2.0 500 ")


async def test_requests_are_counted() -> None:
    def counted(**labels: str) -> float:
        labels = {"operation": "signing", **labels}
        return REGISTRY.get_sample_value("voice_dpki_stir_sip_answers_total", labels) or 0.0

    before = counted(method="INVITE", status="302"), counted(method="other", status="501")
    async with serving(Service(), LOCAL) as server, asking(server) as peer:
        await peer.ask()
        await peer.ask("PLAY", "2")
    after = counted(method="INVITE", status="302"), counted(method="other", status="501")
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


async def test_over_tcp() -> None:
    service = Service()
    async with serving(service, LOCAL) as server:
        host, port = server.addresses["sip"].rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        text = INVITE.format(method="INVITE", host=host, port=5060, branch="1", to="", cseq="INVITE")
        writer.write(text.replace("/UDP", "/TCP").encode())
        async with asyncio.timeout(60):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 302 ")
        writer.close()


async def test_what_was_received_is_answered_before_the_server_ends() -> None:
    service = Service()
    service.gate.clear()
    async with serving(service, LOCAL) as server, asking(server) as peer:
        peer.send()
        await until_asked(service)
        ending = asyncio.create_task(server.close())
        await asyncio.sleep(0.05)
        assert not ending.done()
        service.gate.set()
        assert (await peer.answer()).startswith("SIP/2.0 302 ")
        await ending


async def test_a_server_that_ends_waits_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stir_sip, "END_S", 0.01)
    service = Service()
    service.gate.clear()
    async with serving(service, LOCAL) as server, asking(server) as peer:
        peer.send()
        await until_asked(service)
        await server.close()
        assert service.ended == 1
        assert peer.answers.empty()


async def until_asked(service: Service, count: int = 1) -> None:
    async with asyncio.timeout(60):
        while len(service.asked) < count:
            await asyncio.sleep(0.002)


@pytest.mark.parametrize(
    ("peers", "listen", "message"),
    [
        ((SipPeer(address="as.example"),), LISTEN, "as.example is no numeric address"),
        ((LOCAL, SipPeer(address="127.0.0.1", transport="tcp")), LISTEN, "127.0.0.1 is listed twice"),
        ((SipPeer(address="::1"), SipPeer(address="0:0:0:0:0:0:0:1")), LISTEN, "0:0:0:0:0:0:0:1 is listed twice"),
        ((SipPeer(address="127.0.0.1", transport="tls"),), LISTEN, r"\[sip.tls\] is missing"),
        ((LOCAL,), AdvertisedListen(host="0.0.0.0", port=5070), "listen.advertise is missing"),
    ],
)
def test_configurations_that_cannot_be_used(
    peers: tuple[SipPeer, ...], listen: AdvertisedListen, message: str
) -> None:
    with pytest.raises(LocalError, match=message):
        sip_setup(Path("authn.toml"), SipSection(listen=listen), peers)


@pytest.mark.parametrize(
    ("transport", "source", "is_peer"),
    [
        ("udp", Hop("udp", "192.0.2.7", 5060), True),
        ("udp", Hop("tls", "::ffff:192.0.2.7", 9), True),
        ("tcp", Hop("udp", "192.0.2.7", 5060), False),
        ("tcp", Hop("tcp", "192.0.2.7", 1), True),
        ("udp", Hop("udp", "192.0.2.8", 5060), False),
        ("udp", Hop("udp", "2001:db8::1%eth0", 5060), False),
    ],
)
def test_a_peer_is_known_by_its_address(transport: Any, source: Hop, is_peer: bool) -> None:
    known = setup(SipPeer(address="192.0.2.7", transport=transport), SipPeer(address="2001:db8::2"))
    assert (known.peer_of(source) is not None) is is_peer
    assert known.peer_of(Hop("udp", "2001:db8::2", 5060)) is not None
