"""RFC 4475 and RFC 5118: every message, over UDP and TCP, to a running proxy and to a running telephone."""

from collections.abc import AsyncIterator

import pytest

from sip_testbed.proxy_config import ProxyConfig, ProxySetup, Routes, Users
from sip_testbed.proxy_service import ProxyService
from tests.sip_testbed.torture import MESSAGES, VECTORS, Torture, torture_peer
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.names import Tn
from voice_dpki.shell.config import AdvertisedListen
from voice_dpki.shell.trace import Tracer, TraceTo
from voice_dpki.sip.digest import Secret
from voice_dpki.sip.message import Hop, parse_message
from voice_dpki.wire.sip.connections import Limits
from voice_dpki.wire.sip.user_agent import Account, IncomingCall, UserAgent

NUMBER = Tn("13035551111")


@pytest.fixture
async def elements() -> AsyncIterator[dict[str, Hop]]:
    config = ProxyConfig(listen=AdvertisedListen(port=0), domain="example.com", users="", udp_max_bytes=9000)
    setup = ProxySetup(config, Users({NUMBER: Secret("right")}), Routes(()), None, None, None, TraceTo())
    proxy = ProxyService(setup, Tracer(None, "proxy"), SystemClock(), SystemRandom())
    await proxy.start()
    account = Account(f"sip:+{NUMBER}@example.com", f"+{NUMBER}", "right")
    telephone = UserAgent(account, host="127.0.0.1", proxy=proxy.address, proxy_only=False)
    telephone.on_invite = _busy
    await telephone.start()
    yield {"proxy": proxy.address, "telephone": telephone.address}
    await telephone.close()
    await proxy.close()


async def _busy(call: IncomingCall) -> None:
    await call.reject(486)


def statuses(answers: list[bytes]) -> list[int]:
    codes = []
    for answer in answers:
        response = parse_message(answer)
        assert len(response.headers.getlist("Via")) >= 1
        codes.append(int(answer.split(b" ", 2)[1]))
    return codes


def test_the_table_has_every_message() -> None:
    files = {path.stem for name in ("rfc4475", "rfc5118") for path in (VECTORS / name).glob("*.dat")}
    assert files == {message.name for message in MESSAGES}


@pytest.mark.parametrize("element", ["proxy", "telephone"])
async def test_over_udp(elements: dict[str, Hop], element: str) -> None:
    async with torture_peer(elements[element]) as peer:
        answered = {m.name: statuses(await peer.over_udp(m.data)) for m in MESSAGES}
    assert answered == {m.name: [getattr(m, element)] if getattr(m, element) else [] for m in MESSAGES}


@pytest.mark.parametrize("element", ["proxy", "telephone"])
async def test_over_tcp(elements: dict[str, Hop], element: str) -> None:
    answered, closed = {}, {}
    messages = [message for message in MESSAGES if message.name != "clerr"]
    async with torture_peer(elements[element]) as peer:
        for message in messages:
            answers, closed[message.name] = await peer.over_tcp(_whole(message))
            answered[message.name] = (statuses(answers) or [0])[0]
    assert closed == {m.name: m.closes for m in messages}
    assert answered == {m.name: getattr(m, element) if m.over_tcp is None else m.over_tcp for m in messages}


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(first_message_s=0.2, message_s=0.2)
    monkeypatch.setattr("voice_dpki.wire.sip.transport.Limits", lambda: limits)


async def test_a_message_that_stays_incomplete_ends_its_connection(
    in_a_hurry: None, elements: dict[str, Hop]
) -> None:
    async with torture_peer(elements["proxy"]) as peer:
        assert await peer.over_tcp(next(m for m in MESSAGES if m.name == "clerr").data) == ([], True)


def _whole(message: Torture) -> bytes:
    """The octets for a stream: the archive has left out the empty line of baddn."""
    return message.data if b"\r\n\r\n" in message.data else message.data + b"\r\n"
