"""SIP over TLS between two domains: sips: on every hop, or not at all; and strangers at the TLS port."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sip_testbed.proxy_config import ProxyConfig, ProxySetup, Route, Routes, Users
from sip_testbed.proxy_service import ProxyService
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.names import Tn
from voice_dpki.shell.config import AdvertisedListen
from voice_dpki.shell.reload import Live
from voice_dpki.shell.sip_tls import PeerSide, peer_side
from voice_dpki.shell.tls import ClientTls, PeerTls, client_context, make_certificate
from voice_dpki.shell.trace import Tracer, TraceTo
from voice_dpki.sip.digest import Secret
from voice_dpki.sip.message import Hop, header_values
from voice_dpki.wire.sip.transport import Limits, Tls
from voice_dpki.wire.sip.user_agent import Account, FinalAnswer, IncomingCall, UserAgent

CALLER, CALLEE = Tn("493023125001"), Tn("442079460123")
TIMEOUT_S = 30


class Operators:
    """Two domains whose proxies list each other and their telephones; each program has a certificate of its own."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.incoming: list[IncomingCall] = []
        for name in ("proxy-a", "proxy-b", "caller", "callee", "stranger"):
            make_certificate(folder, name, name, 30)

    def tls(self, name: str, *peers: str) -> Live[PeerSide]:
        section = PeerTls(
            port=0, certificate=f"{name}.pem", key=f"{name}-key.pem", peers=tuple(f"{p}.pem" for p in peers)
        )
        return Live(peer_side(self.folder / "x.toml", section))

    def client(self, name: str, server: str) -> ssl.SSLContext:
        section = ClientTls(certificate=f"{name}.pem", key=f"{name}-key.pem", servers=(f"{server}.pem",))
        return client_context(self.folder / "x.toml", section)

    async def proxy(self, letter: str, number: Tn, tls: Live[PeerSide], *routes: Route) -> ProxyService:
        config = ProxyConfig(listen=AdvertisedListen(port=0), domain=f"{letter}.example", users="")
        users = Users({number: Secret("right")})
        tracer = Tracer(self.folder / f"{letter}.jsonl", f"proxy-{letter}")
        self.stack.callback(tracer.close)
        setup = ProxySetup(config, users, Routes(routes), None, None, None, TraceTo(), tls)
        service = ProxyService(setup, tracer, SystemClock(), SystemRandom())
        await service.start()
        self.stack.push_async_callback(service.close)
        return service

    async def telephone(self, letter: str, number: Tn, proxy: Hop, tls: ssl.SSLContext | None) -> UserAgent:
        account = Account(f"sip:+{number}@{letter}.example", f"+{number}", "right")
        agent = UserAgent(account, host="127.0.0.1", proxy=proxy, tls=Tls(tls) if tls else None, udp_max_bytes=9000)
        await agent.start()
        self.stack.push_async_callback(agent.close)
        agent.on_invite = self.take
        await agent.register()
        return agent

    async def take(self, call: IncomingCall) -> None:
        self.incoming.append(call)
        await call.answer(b"v=0\r\n")

    async def start(self, *, between: str = "tls", callee: str = "tls") -> None:
        self.tls_b = self.tls("proxy-b", "proxy-a", "callee")
        self.b = await self.proxy("b", CALLEE, self.tls_b)
        next_hop = (
            f"tls:127.0.0.1:{tls_port(self.b)}" if between == "tls" else f"{between}:{self.b.address.address}"
        )
        route = Route(domain="b.example", next_hop=next_hop)
        self.a = await self.proxy("a", CALLER, self.tls("proxy-a", "proxy-b", "caller"), route)
        hop = Hop("tls", "127.0.0.1", tls_port(self.b)) if callee == "tls" else self.b.address
        self.callee = await self.telephone(
            "b", CALLEE, hop, self.client("callee", "proxy-b") if callee == "tls" else None
        )
        own = Hop("tls", "127.0.0.1", tls_port(self.a))
        self.caller = await self.telephone("a", CALLER, own, self.client("caller", "proxy-a"))

    async def call(self, target: str) -> FinalAnswer:
        call = await self.caller.invite(target, b"v=0\r\n")
        answer = await asyncio.wait_for(call.answered(), TIMEOUT_S)
        await asyncio.wait_for(call.bye(), TIMEOUT_S)
        return answer


def tls_port(proxy: ProxyService) -> int:
    return int(proxy.tls_address.rpartition(":")[2])


@pytest.fixture
async def operators(tmp_path: Path) -> AsyncIterator[Operators]:
    async with AsyncExitStack() as stack:
        yield Operators(stack, tmp_path)


@pytest.mark.parametrize("scheme", ["sips", "sip"])
async def test_a_call_goes_over_tls_on_every_hop(operators: Operators, scheme: str) -> None:
    await operators.start()
    assert (await operators.call(f"{scheme}:+{CALLEE}@b.example")).status == 200
    (incoming,) = operators.incoming
    assert incoming.request.uri.scheme == scheme
    assert [via.split()[0] for via in header_values(incoming.request, "Via")] == ["SIP/2.0/TLS"] * 3
    assert all(route.startswith("<sips:") for route in header_values(incoming.request, "Record-Route"))
    contact = header_values(incoming.request, "Contact")[0]
    assert contact.startswith(f"<{scheme}:")
    assert incoming.dialog.target.scheme == scheme
    assert incoming.ended_by_peer
    for letter in "ab":
        lines = (operators.folder / f"{letter}.jsonl").read_text().splitlines()
        sent = [line for line in lines if '"sip"' in line]
        assert sent
        assert all('"tls"' in line for line in sent)


@pytest.mark.parametrize("between", ["udp", "tcp"])
async def test_a_hop_without_tls_ends_a_sips_call(operators: Operators, between: str) -> None:
    await operators.start(between=between)
    answer = await operators.call(f"sips:+{CALLEE}@b.example")
    assert answer.status == 480
    assert "SIPS Not Allowed" in answer.headers["Warning"]
    assert answer.headers["Warning"].startswith("380 ")
    assert operators.incoming == []
    assert (await operators.call(f"sip:+{CALLEE}@b.example")).status == 200


async def test_a_telephone_without_tls_gets_no_sips_call(operators: Operators) -> None:
    await operators.start(callee="udp")
    answer = await operators.call(f"sips:+{CALLEE}@b.example")
    assert (answer.status, answer.headers["Warning"].split()[0]) == (480, "380")
    assert operators.incoming == []
    assert (await operators.call(f"sip:+{CALLEE}@b.example")).status == 200


async def test_a_telephone_does_not_call_sips_in_clear(operators: Operators) -> None:
    await operators.start(callee="udp")
    with pytest.raises(LocalError, match="not reached over TLS"):
        await operators.callee.invite(f"sips:+{CALLER}@a.example", b"v=0\r\n")


async def test_a_sips_uri_in_clear_is_refused(operators: Operators) -> None:
    await operators.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", operators.a.address.port)
    writer.write(
        b"OPTIONS sips:a.example SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n"
        b"From: <sip:x@c.example>;tag=1\r\nTo: <sips:a.example>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    assert (await asyncio.wait_for(reader.readline(), TIMEOUT_S)).startswith(b"SIP/2.0 416 ")
    writer.close()
    await writer.wait_closed()


async def test_who_is_not_listed_does_not_get_in(operators: Operators) -> None:
    """Neither with a certificate of its own, nor with none, nor in clear."""
    await operators.start()
    port = tls_port(operators.a)
    without = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    without.check_hostname, without.verify_mode = False, ssl.CERT_NONE
    for context in (operators.client("stranger", "proxy-a"), without, None):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"OPTIONS sip:a.example SIP/2.0\r\n\r\n")
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readuntil(b"SIP/2.0 "), TIMEOUT_S)
        writer.transport.abort()


async def test_a_proxy_that_is_not_the_listed_one_is_not_talked_to(operators: Operators) -> None:
    await operators.start()
    fake = await asyncio.start_server(
        lambda r, w: w.close(), "127.0.0.1", 0, ssl=operators.tls("stranger", "proxy-a").value.tls.server
    )
    port = fake.sockets[0].getsockname()[1]
    operators.a._routes = Routes([Route(domain="b.example", next_hop=f"tls:127.0.0.1:{port}")])
    assert (await operators.call(f"sips:+{CALLEE}@b.example")).status == 500
    fake.close()
    await fake.wait_closed()


async def test_a_proxy_renews_its_certificate_while_telephones_stay_registered(operators: Operators) -> None:
    """Calls go over the connections that stand; who is taken off the list has none any more."""
    shown, lists = operators.tls("stranger", "proxy-a", "callee"), operators.tls("stranger", "proxy-a")
    await operators.start()
    for side in (operators.tls_b.value, shown.value):
        operators.tls_b.replace(side)
        assert (await operators.call(f"sips:+{CALLEE}@b.example")).status == 200
    operators.tls_b.replace(lists.value)
    assert (await operators.call(f"sips:+{CALLEE}@b.example")).status == 480
    assert len(operators.incoming) == 2


async def test_handshakes_that_nobody_goes_on_with_keep_nobody_out(operators: Operators) -> None:
    """The oldest makes way; whoever speaks TLS gets in, with a request in the same flight as its Finished."""
    await operators.start()
    transport = operators.a._element._endpoint._transport
    handshakes = transport._tls_listener
    assert handshakes is not None
    handshakes.limits = Limits(per_source=5)
    silent = [await asyncio.open_connection("127.0.0.1", tls_port(operators.a)) for _ in range(20)]
    async with asyncio.timeout(TIMEOUT_S):
        while len(handshakes) < 5:
            await asyncio.sleep(0.01)
    assert len(handshakes) == 5
    for count in range(5):
        context = operators.client("caller", "proxy-a")
        reader, writer = await asyncio.open_connection("127.0.0.1", tls_port(operators.a), ssl=context)
        writer.write(
            f"OPTIONS sips:a.example SIP/2.0\r\nVia: SIP/2.0/TLS 192.0.2.1;branch=z9hG4bK{count}\r\n"
            "Max-Forwards: 70\r\nFrom: <sip:x@c.example>;tag=1\r\nTo: <sips:a.example>\r\nCall-ID: c\r\n"
            "CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert (await asyncio.wait_for(reader.readline(), TIMEOUT_S)).startswith(b"SIP/2.0 200 ")
        writer.close()
        await writer.wait_closed()
    for _, writer in silent:
        writer.transport.abort()
    async with asyncio.timeout(TIMEOUT_S):
        while len(handshakes):
            await asyncio.sleep(0.01)
