"""Telephones of others at a domain's proxy: behind a NAT, on a connection, restarted, gone; in raw octets."""

import asyncio
import contextlib
import hashlib
import itertools
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sipmessage import Response

from sip_testbed.conversation import HELD
from sip_testbed.proxy_config import ProxyConfig, ProxySetup, Routes, Users
from sip_testbed.proxy_service import ProxyService
from sip_testbed.result import Result
from sip_testbed.telephone import Telephone
from sip_testbed.user_agent_config import load_setup
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import write_wav
from voice_dpki.names import Tn
from voice_dpki.shell.config import AdvertisedListen
from voice_dpki.shell.trace import Tracer, TraceTo
from voice_dpki.sip.digest import Secret
from voice_dpki.sip.keepalive import KeepAliveTimes
from voice_dpki.sip.message import Hop
from voice_dpki.wire.sip.transport import Limits
from voice_dpki.wire.sip.user_agent import Account, Call, UserAgent

CALLER, CALLEE, THIRD = "493023125001", "493023125002", "493023125003"
UUID = "00000000-0000-1000-8000-000A95A0E128"  # RFC 5626 §9.2
TIMEOUT_S = 60
AT_ONCE_S = 15
"""Far below the 32 s of timer B, and enough for a busy machine."""
PRIVATE = "192.0.2.17:5060"
"""A contact that nobody can reach, as telephones behind a NAT give it."""


class Phone:
    """A telephone: it answers the registrar's challenge, and sends and receives text over one flow."""

    def __init__(self, proxy: Hop, number: str = CALLEE) -> None:
        self.proxy = proxy
        self.number = number
        self.inbox: asyncio.Queue[str] = asyncio.Queue()
        self._count = itertools.count(1)

    async def open(self, host: str, port: int, local_port: int = 0) -> None:
        raise NotImplementedError

    def send(self, text: str) -> None:
        raise NotImplementedError

    @property
    def via(self) -> str:
        raise NotImplementedError

    async def receive(self, start: str) -> str:
        """The next message whose first line begins with `start`; others are left out."""
        async with asyncio.timeout(TIMEOUT_S):
            while not (message := await self.inbox.get()).startswith(start):
                pass
            return message

    async def register(self, contact: str, *, call_id: str = "reg", headers: str = "", sequence: int = 1) -> str:
        """Register and return the final answer."""
        answer, authorization = "", ""
        for cseq in (sequence, sequence + 1):
            self.send(
                "REGISTER sip:a.example SIP/2.0\r\n"
                f"Via: {self.via};branch=z9hG4bK{call_id}{cseq}{id(self)};rport\r\n"
                f"Max-Forwards: 70\r\nFrom: <sip:+{self.number}@a.example>;tag=p\r\n"
                f"To: <sip:+{self.number}@a.example>\r\nCall-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n"
                f"Contact: {contact}\r\nExpires: 300\r\n{headers}{authorization}Content-Length: 0\r\n\r\n"
            )
            answer = await self.receive("SIP/2.0 ")
            authorization = self._authorization(answer)
        return answer

    def _authorization(self, challenge: str) -> str:
        """Answer a challenge as RFC 7616 §3.4 writes it."""
        found = re.search(r'realm="(.*?)", nonce="(.*?)"', challenge)
        if found is None:
            return ""
        realm, nonce = found.groups()
        user = f"+{self.number}"
        ha1, ha2 = _sha256(f"{user}:{realm}:right"), _sha256("REGISTER:sip:a.example")
        response = _sha256(f"{ha1}:{nonce}:00000001:c:auth:{ha2}")
        return (
            f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="sip:a.example", '
            f'response="{response}", algorithm=SHA-256, cnonce="c", qop=auth, nc=00000001\r\n'
        )

    def answer(self, request: str, status: str, contact: str = "", body: str = "") -> None:
        """Answer a request, and echo what RFC 3261 §8.2.6 and §12.1.1 want."""
        names = ("Via", "Record-Route", "From", "To", "Call-ID", "CSeq")
        lines = [line for name in names for line in re.findall(rf"(?m)^{name}: .*\r$", request)]
        lines = [
            f"{line[:-1]};tag=phone\r" if line.startswith("To:") and "tag=" not in line else line for line in lines
        ]
        extra = f"Contact: {contact}\r\n" if contact else ""
        head = "".join(f"{line}\n" for line in lines)
        self.send(f"SIP/2.0 {status}\r\n{head}{extra}Content-Length: {len(body)}\r\n\r\n{body}")

    def hang_up(self, invite: str) -> None:
        """End the call of an INVITE that this telephone answered."""
        route = ", ".join(re.findall("(?m)^Record-Route: (.*)\r$", invite))
        caller, callee, call_id, target = (
            re.findall(f"(?m)^{name}: (.*)\r$", invite)[0] for name in ("From", "To", "Call-ID", "Contact")
        )
        self.send(
            f"BYE {target.strip('<>')} SIP/2.0\r\nVia: {self.via};branch=z9hG4bKbye\r\nRoute: {route}\r\n"
            f"Max-Forwards: 70\r\nFrom: {callee};tag=phone\r\nTo: {caller}\r\nCall-ID: {call_id}\r\nCSeq: 1 BYE\r\n"
            'Reason: Q.850;cause=47;text="no resources"\r\nContent-Length: 0\r\n\r\n'
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TcpPhone(Phone):
    async def open(self, host: str, port: int, local_port: int = 0) -> None:
        self.reader, self.writer = await asyncio.open_connection(host, port, local_addr=("127.0.0.1", local_port))
        self._task = asyncio.create_task(self._read())

    @property
    def via(self) -> str:
        return f"SIP/2.0/TCP {PRIVATE}"

    def send(self, text: str) -> None:
        self.writer.write(text.encode())

    async def _read(self) -> None:
        buffer = b""
        while data := await self.reader.read(65_536):
            buffer += data
            while (end := buffer.find(b"\r\n\r\n")) >= 0:
                length = int(re.search(rb"Content-Length: (\d+)", buffer[:end])[1])  # type: ignore[index]
                self.inbox.put_nowait(buffer[: end + 4 + length].decode())
                buffer = buffer[end + 4 + length :]

    async def break_off(self) -> int:
        """Reset the connection, so that its port is free at once; returns the port."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        port = int(connection.getsockname()[1])
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
        return port

    async def close(self) -> None:
        self._task.cancel()
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class UdpPhone(Phone, asyncio.DatagramProtocol):
    async def open(self, host: str, port: int, local_port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        local = ("127.0.0.1", local_port) if local_port else None
        self.transport, _ = await loop.create_datagram_endpoint(
            lambda: self, remote_addr=(host, port), local_addr=local
        )

    @property
    def via(self) -> str:
        return f"SIP/2.0/UDP {PRIVATE}"

    @property
    def port(self) -> int:
        return int(self.transport.get_extra_info("sockname")[1])

    def send(self, text: str) -> None:
        self.transport.sendto(text.encode())

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.inbox.put_nowait(data.decode())

    def error_received(self, exc: Exception) -> None:
        pass

    async def close(self) -> None:
        self.transport.close()


class Nat(asyncio.DatagramProtocol):
    """A NAT for one telephone: a port inside, one outside; from outside only the proxy gets through."""

    def __init__(self, proxy: Hop) -> None:
        self.inside: tuple[str, int] | None = None
        self.outside: asyncio.DatagramTransport | None = None
        self.proxy = proxy
        self.is_down = False
        self.answered = asyncio.Event()
        """An answer by STUN has gone in."""
        self.registrations: asyncio.Queue[bytes] = asyncio.Queue()
        """The responses with 200 that went in, after a challenge or without."""

    async def open(self) -> int:
        loop = asyncio.get_running_loop()
        await self.map_anew()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return int(self.transport.get_extra_info("sockname")[1])

    async def map_anew(self) -> None:
        """Forget the port outside, as after a time without packets: what comes there is lost."""
        if self.outside is not None:
            self.outside.close()
        outer = _Outside(self)
        self.outside, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: outer, remote_addr=(self.proxy.host, self.proxy.port)
        )

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.inside = addr
        assert self.outside is not None
        if not self.is_down:
            self.outside.sendto(data)

    def close(self) -> None:
        assert self.outside is not None
        self.outside.close()
        self.transport.close()


class _Outside(asyncio.DatagramProtocol):
    def __init__(self, nat: Nat) -> None:
        self._nat = nat

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._nat.is_down:
            return
        self._nat.transport.sendto(data, self._nat.inside)
        if data.startswith(b"\x01\x01"):
            self._nat.answered.set()
        if data.startswith(b"SIP/2.0 200 ") and b" REGISTER\r\n" in data:
            self._nat.registrations.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        pass


class Domain:
    """A domain with three users: one has the project's telephone, and the test plays the others'."""

    def __init__(self, stack: AsyncExitStack, proxy: ProxyService, caller: UserAgent) -> None:
        self.stack = stack
        self.proxy = proxy
        self.caller = caller
        self.hop = proxy.address

    async def phone(self, kind: type[Phone], port: int = 0, **options: int) -> Phone:
        phone = kind(self.hop)
        await phone.open("127.0.0.1", port or self.hop.port, **options)
        self.stack.push_async_callback(phone.close)  # type: ignore[attr-defined]
        return phone

    async def call(self, sdp: bytes = b"v=0\r\n" + b"x" * 2000) -> Call:
        return await self.caller.invite(f"sip:+{CALLEE}@a.example", sdp)

    async def status(self, call: Call, within_s: float = TIMEOUT_S) -> int:
        return (await asyncio.wait_for(call.answered(), within_s)).status


@pytest.fixture(params=[AdvertisedListen(port=0)])
async def domain(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Domain]:
    listen: AdvertisedListen = request.param
    async with AsyncExitStack() as stack:
        config = ProxyConfig(listen=listen, domain="a.example", users="")
        users = Users({Tn(number): Secret("right") for number in (CALLER, CALLEE, THIRD)})
        tracer = Tracer(tmp_path / "a.jsonl", "a")
        stack.callback(tracer.close)
        proxy = ProxyService(
            ProxySetup(config, users, Routes(()), None, None, None, TraceTo()),
            tracer,
            SystemClock(),
            SystemRandom(),
        )
        await proxy.start()
        stack.push_async_callback(proxy.close)
        account = Account(f"sip:+{CALLER}@a.example", f"+{CALLER}", "right")
        caller = UserAgent(account, host=listen.host, advertise=listen.advertise, proxy=proxy.address)
        await caller.start()
        stack.push_async_callback(caller.close)
        await caller.register()
        yield Domain(stack, proxy, caller)


async def talk(domain: Domain, phone: Phone, contact: str) -> None:
    """A call to the telephone, with everything that follows the INVITE; the telephone hangs up."""
    call = await domain.call()
    invite = await phone.receive("INVITE ")
    phone.answer(invite, "180 Ringing", contact)
    phone.answer(invite, "200 OK", contact, "v=0\r\n")
    assert await domain.status(call) == 200
    assert await phone.receive("ACK ")
    ended = asyncio.create_task(call.bye())
    bye = await phone.receive("BYE ")
    assert bye.startswith("BYE " + contact.strip("<>") + " ")
    phone.answer(bye, "200 OK")
    await asyncio.wait_for(ended, AT_ONCE_S)


async def test_a_telephone_on_a_connection_is_reached_on_it(domain: Domain) -> None:
    phone = await domain.phone(TcpPhone)
    contact = f"<sip:{CALLEE}@{PRIVATE};transport=tcp;ob>"
    parameters = f';+sip.instance="<urn:uuid:{UUID}>";reg-id=1'
    answer = await phone.register(contact + parameters, headers="Supported: path, outbound\r\n")
    assert answer.startswith("SIP/2.0 200 ")
    assert "\r\nRequire: outbound\r\n" in answer
    assert f"Contact: {contact}{parameters};expires=" in answer
    await talk(domain, phone, contact)


async def test_a_telephone_behind_a_nat_is_reached_through_it(domain: Domain) -> None:
    nat = Nat(domain.hop)
    port = await nat.open()
    domain.stack.callback(nat.close)
    phone = await domain.phone(UdpPhone, port)
    contact = f"<sip:{CALLEE}@{PRIVATE}>"
    assert (await phone.register(contact)).startswith("SIP/2.0 200 ")
    await talk(domain, phone, contact)


async def test_a_telephone_behind_a_nat_calls_and_is_hung_up_on(domain: Domain) -> None:
    """Requests of the other side come to the caller's flow, too: its Contact is as private as a callee's."""
    incoming = asyncio.get_running_loop().create_future()

    async def take(call: object) -> None:
        incoming.set_result(call)

    domain.caller.on_invite = take
    phone = await domain.phone(TcpPhone)
    contact = f"<sip:{CALLEE}@{PRIVATE};transport=tcp;ob>"
    await phone.register(contact)
    authorization = ""
    for cseq in (1, 2):
        phone.send(
            f"INVITE sip:+{CALLER}@a.example SIP/2.0\r\nVia: {phone.via};branch=z9hG4bKinv{cseq}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:+{CALLEE}@a.example>;tag=p\r\nTo: <sip:+{CALLER}@a.example>\r\n"
            f"Call-ID: inv\r\nCSeq: {cseq} INVITE\r\nContact: {contact}\r\n{authorization}Content-Length: 0\r\n\r\n"
        )
        if cseq == 1:
            challenge = await phone.receive("SIP/2.0 407 ")
            authorization = phone._authorization(challenge).replace("Authorization", "Proxy-Authorization")
            authorization = re.sub(r'response="\w+"', f'response="{_response(challenge)}"', authorization)
    call = await asyncio.wait_for(incoming, TIMEOUT_S)
    await call.answer(b"v=0\r\n")
    await phone.receive("SIP/2.0 200 ")
    ended = asyncio.create_task(call.bye())
    phone.answer(await phone.receive("BYE "), "200 OK")
    await asyncio.wait_for(ended, TIMEOUT_S)


def _response(challenge: str) -> str:
    realm, nonce = re.search(r'realm="(.*?)", nonce="(.*?)"', challenge).groups()  # type: ignore[union-attr]
    ha1, ha2 = _sha256(f"+{CALLEE}:{realm}:right"), _sha256("INVITE:sip:a.example")
    return _sha256(f"{ha1}:{nonce}:00000001:c:auth:{ha2}")


async def test_a_connection_that_is_gone_is_known_at_once(domain: Domain) -> None:
    phone = await domain.phone(TcpPhone)
    await phone.register(f'<sip:{CALLEE}@{PRIVATE};transport=tcp>;+sip.instance="<urn:uuid:{UUID}>";reg-id=1')
    await phone.close()  # type: ignore[attr-defined]
    assert await domain.status(await domain.call(), AT_ONCE_S) == 480


async def test_within_a_call_a_connection_that_is_gone_is_430(domain: Domain) -> None:
    phone = await domain.phone(TcpPhone)
    contact = f"<sip:{CALLEE}@{PRIVATE};transport=tcp;ob>"
    await phone.register(contact)
    call = await domain.call()
    phone.answer(await phone.receive("INVITE "), "200 OK", contact, "v=0\r\n")
    assert await domain.status(call) == 200
    await phone.receive("ACK ")
    await phone.close()  # type: ignore[attr-defined]
    assert call.dialog is not None
    answer = await asyncio.wait_for(
        domain.caller._exchange.ask(call.dialog.request("INFO"), call.dialog.next_hop()), AT_ONCE_S
    )
    assert answer.code == 430


async def test_a_connection_of_somebody_else_from_the_same_port_is_not_the_flow(domain: Domain) -> None:
    """A port may come again, and then is another telephone's."""
    phone = await domain.phone(TcpPhone)
    assert isinstance(phone, TcpPhone)
    await phone.register(f'<sip:{CALLEE}@{PRIVATE};transport=tcp;ob>;+sip.instance="<urn:uuid:{UUID}>";reg-id=1')
    port = await phone.break_off()
    other = await domain.phone(TcpPhone, local_port=port)
    await other.register(f"<sip:{CALLEE}@{PRIVATE};transport=tcp>;expires=0", call_id="other")
    assert await domain.status(await domain.call(), AT_ONCE_S) == 480
    assert other.inbox.empty()


@pytest.mark.long
async def test_a_silent_flow_is_given_up_and_the_next_contact_tried(domain: Domain) -> None:
    other, silent = await domain.phone(UdpPhone), await domain.phone(UdpPhone)
    assert isinstance(other, UdpPhone)
    contact = f"<sip:{CALLEE}@127.0.0.1:{other.port}>"
    await other.register(contact, call_id="other")
    await silent.register(f"<sip:{CALLEE}@{PRIVATE}>", call_id="silent")
    call = await domain.call()
    await silent.receive("INVITE ")
    invite = await other.receive("INVITE ")
    other.answer(invite, "486 Busy Here")
    assert await domain.status(call) == 486


async def test_a_restarted_telephone_replaces_its_binding(domain: Domain) -> None:
    """Same instance, another port, Call-ID and CSeq (RFC 5626 §6); without instance it is one more contact."""
    instance = f';+sip.instance="<urn:uuid:{UUID}>"'
    answers = []
    for start in range(6):
        phone = await domain.phone(UdpPhone)
        assert isinstance(phone, UdpPhone)
        contact = f"<sip:{CALLEE}@127.0.0.1:{phone.port}>"
        answers.append(await phone.register(contact + instance, call_id=f"start-{start}"))
        assert re.findall("Contact: (<.*?>)", answers[-1]) == [contact]
    for start in range(6):
        phone = await domain.phone(UdpPhone)
        assert isinstance(phone, UdpPhone)
        contact = f"<sip:{CALLEE}@127.0.0.1:{phone.port}>"
        answers.append(await phone.register(contact, call_id=f"other-{start}"))
    contacts = re.findall("Contact: (<.*?>)", answers[-1])
    assert (contacts[0], len(contacts)) == (contact, 4)


async def test_only_the_own_proxy_asks_for_a_digest(domain: Domain) -> None:
    """A telephone that challenges for the caller's own domain would get something to guess the password by."""
    phone = await domain.phone(TcpPhone)
    await phone.register(f"<sip:{CALLEE}@{PRIVATE};transport=tcp;ob>")
    call = await domain.call()
    invite = await phone.receive("INVITE ")
    challenge = 'Digest nonce="n", REALM = "A.example", algorithm=SHA-256, qop="auth"'
    phone.answer(invite, f"407 Proxy Authentication Required\r\nProxy-Authenticate: {challenge}")
    answer = await asyncio.wait_for(call.answered(), TIMEOUT_S)
    assert (answer.status, answer.headers.get("Proxy-Authenticate")) == (407, None)


async def test_a_registration_on_a_connection_ends_before_an_idle_connection_is_closed(domain: Domain) -> None:
    phone = await domain.phone(TcpPhone)
    answer = await phone.register(f"<sip:{CALLEE}@{PRIVATE};transport=tcp>;expires=3600")
    found = re.search(r"Contact: .*;expires=(\d+)", answer)
    assert found is not None
    assert int(found[1]) < Limits().idle_s


@pytest.mark.parametrize("domain", [AdvertisedListen(host="0.0.0.0", port=0, advertise="127.0.0.1")], indirect=True)
async def test_all_addresses_are_listened_at_and_one_is_told(domain: Domain) -> None:
    phone = await domain.phone(UdpPhone)
    assert isinstance(phone, UdpPhone)
    contact = f"<sip:{CALLEE}@127.0.0.1:{phone.port}>"
    await phone.register(contact)
    call = await domain.call(b"v=0\r\n")
    invite = await phone.receive("INVITE ")
    hosts = re.findall(r"(?m)^(?:Via: SIP/2.0/UDP |Record-Route: <sip:|Contact: <sip:\+\d+@)([0-9.]+)", invite)
    assert hosts == ["127.0.0.1"] * 4
    phone.answer(invite, "200 OK", contact, "v=0\r\n")
    assert await domain.status(call) == 200
    await phone.receive("ACK ")
    ended = asyncio.create_task(call.bye())
    phone.answer(await phone.receive("BYE "), "200 OK")
    await asyncio.wait_for(ended, AT_ONCE_S)


# What the report of the project's own telephone says of them.


async def reported(
    domain: Domain, folder: Path, answer: Callable[[str], Coroutine[Any, Any, None]], silence_s: float = 2.0
) -> Result:
    """A call of the project's telephone in clear, which `answer` takes; returns what the telephone reports."""
    (folder / "say.wav").write_bytes(write_wav(Pcm(8000, b"\1\0" * 3200)))
    (folder / "password").write_text("right")
    (folder / "ua.toml").write_text(
        f'aor = "sip:+{CALLER}@a.example"\npassword_file = "password"\nproxy = "{domain.hop}"\nsay = "say.wav"\n'
        f'srtp = "none"\nsilence_s = {silence_s}\n[listen]\nhost = "127.0.0.1"\nport = 0\n'
    )
    tracer = Tracer(folder / "ua.jsonl", "caller")
    domain.stack.callback(tracer.close)
    setup = load_setup(folder / "ua.toml")
    telephone = Telephone(setup, domain.caller, None, tracer, SystemClock(), SystemRandom())
    answering = asyncio.create_task(answer(f"sip:+{CALLEE}@a.example"))
    result = await asyncio.wait_for(telephone.call(f"sip:+{CALLEE}@a.example"), 30)
    await asyncio.wait_for(answering, TIMEOUT_S)
    return result


async def test_a_refusal_of_another_make_is_told_in_its_words(domain: Domain, tmp_path: Path) -> None:
    phone = await domain.phone(TcpPhone)
    await phone.register(f"<sip:{CALLEE}@{PRIVATE};transport=tcp;ob>")

    async def refuse(_target: str) -> None:
        warning = '305 phone.invalid "Incompatible media format: \x85PCMU for +4930231250002"'
        phone.answer(await phone.receive("INVITE "), f"488 Not Acceptable Here\r\nWarning: {warning}")

    result = await reported(domain, tmp_path, refuse)
    assert result.status == 488
    assert result.reason == "488 Not Acceptable Here (Warning 305: Incompatible media format:  PCMU for (number))"


async def test_media_elsewhere_and_from_elsewhere_are_told(domain: Domain, tmp_path: Path) -> None:
    phone = await domain.phone(TcpPhone)
    contact = f"<sip:{CALLEE}@127.0.0.1:9;transport=tcp;ob>"
    await phone.register(contact)
    sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.8\r\ns=-\r\nc=IN IP4 127.0.0.8\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"

    async def answer(_target: str) -> None:
        invite = await phone.receive("INVITE ")
        found = re.search(r"(?m)^m=audio (\d+)", invite)
        assert found is not None
        phone.answer(invite, "200 OK\r\nContent-Type: application/sdp", contact, sdp)
        await phone.receive("ACK ")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.9", 4444))
            stranger.sendto(struct.pack("!BBHII", 0x80, 0, 1, 0, 7) + bytes(160), ("127.0.0.1", int(found[1])))
        phone.hang_up(invite)
        await phone.receive("SIP/2.0 200 ")

    result = await reported(domain, tmp_path, answer)
    assert result.remarks == [
        "the callee's SDP puts its media at 127.0.0.8:4000, and its telephone is at 127.0.0.1",
        "1 packet came from 127.0.0.9:4444, where the callee's SDP does not put its media, and was dropped",
    ]


async def test_a_hang_up_is_told_in_the_other_side_s_words(domain: Domain, tmp_path: Path) -> None:
    phone = await domain.phone(TcpPhone)
    contact = f"<sip:{CALLEE}@127.0.0.1:9;transport=tcp;ob>"
    await phone.register(contact)
    sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"

    async def answer(_target: str) -> None:
        invite = await phone.receive("INVITE ")
        phone.answer(invite, "200 OK\r\nContent-Type: application/sdp", contact, sdp)
        await phone.receive("ACK ")
        phone.hang_up(invite)
        await phone.receive("SIP/2.0 200 ")

    result = await reported(domain, tmp_path, answer)
    assert not result.established
    assert result.reason is not None
    assert result.reason.endswith("(Reason: no resources)")


@pytest.mark.parametrize(("connection", "direction"), [("127.0.0.1", "a=inactive\r\n"), ("0.0.0.0", "")])
async def test_an_answer_that_holds_the_call_establishes_none(
    domain: Domain, tmp_path: Path, connection: str, direction: str
) -> None:
    """Somebody on the path who changes an answer so would otherwise switch off the search for silence."""
    phone = await domain.phone(TcpPhone)
    contact = f"<sip:{CALLEE}@127.0.0.1:9;transport=tcp;ob>"
    await phone.register(contact)
    sdp = (
        f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 {connection}\r\nt=0 0\r\n"
        f"m=audio 4000 RTP/AVP 0\r\n{direction}"
    )

    async def answer(_target: str) -> None:
        invite = await phone.receive("INVITE ")
        phone.answer(invite, "200 OK\r\nContent-Type: application/sdp", contact, sdp)
        await phone.receive("ACK ")
        phone.hang_up(invite)
        await phone.receive("SIP/2.0 200 ")

    result = await reported(domain, tmp_path, answer)
    assert (result.established, result.reason) == (False, HELD)


async def test_a_udp_flow_is_kept_open_with_stun(domain: Domain) -> None:
    """RFC 5626 §4.4.2: the answer tells the address that the proxy sees, here with the octets of RFC 5389 §15.2."""
    phone = await domain.phone(UdpPhone)
    assert isinstance(phone, UdpPhone)
    answer = await phone.register(
        f'<sip:{CALLEE}@{PRIVATE};ob>;+sip.instance="<urn:uuid:{UUID}>";reg-id=1',
        headers="Supported: path, outbound\r\n",
    )
    assert "\r\nRequire: outbound\r\n" in answer
    transaction = bytes(range(12))
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    phone.datagram_received = lambda data, addr: answers.put_nowait(data)  # type: ignore[method-assign]
    phone.transport.sendto(bytes.fromhex("000100002112a442") + transaction)
    data = await asyncio.wait_for(answers.get(), TIMEOUT_S)
    port = phone.port ^ 0x2112
    assert data == bytes.fromhex("0101000c2112a442") + transaction + bytes.fromhex(
        f"002000080001{port:04x}5e12a443"
    )


async def options(domain: Domain, target: str, sender: str = "", **headers: str) -> Response:
    """Ask what `target` can do, as the domain's user or as `sender`; challenges are answered."""
    caller = domain.caller
    request = caller._new_request("OPTIONS", target, f"<{target}>")
    request.headers.set("CSeq", "1 OPTIONS")
    if sender:
        request.headers.set("From", f"<{sender}>;tag=1")
    for name, value in headers.items():
        request.headers.set(name.replace("_", "-"), value)
    response = await caller._exchange.ask(request, domain.hop)
    if caller._account.authorize(request, response, SystemRandom()):
        response = await caller._exchange.ask(request, domain.hop)
    return response


@pytest.mark.parametrize("sender", ["", "sip:+442079460123@b.example"])
async def test_options_reach_the_telephone_that_they_ask_about(domain: Domain, sender: str) -> None:
    """RFC 3261 §11.1; nobody's word for the sender's number comes along."""
    phone = await domain.phone(TcpPhone)
    await phone.register(f"<sip:{CALLEE}@{PRIVATE};transport=tcp;ob>")
    forged = f"<sip:+{CALLER}@a.example>"
    asking = asyncio.create_task(
        options(domain, f"sip:+{CALLEE}@a.example", sender, P_Asserted_Identity=forged, Require="100rel")
    )
    asked = await phone.receive("OPTIONS ")
    assert asked.startswith(f"OPTIONS sip:{CALLEE}@{PRIVATE};transport=tcp;ob SIP/2.0\r\n")
    assert "P-Asserted-Identity" not in asked
    assert "Authorization" not in asked
    assert "\r\nRequire: 100rel\r\n" in asked, "the telephone's to refuse, not the proxy's"
    phone.answer(asked, "488 Not Acceptable Here\r\nAllow: INVITE, PRACK")
    answer = await asyncio.wait_for(asking, TIMEOUT_S)
    assert (answer.code, answer.headers["Allow"]) == (488, "INVITE, PRACK")


@pytest.mark.parametrize(
    ("target", "sender", "status"),
    [
        (f"sip:+{CALLEE}@a.example", "sip:+442079460123@b.example", 480),
        ("sip:+493023125009@a.example", "sip:+442079460123@b.example", 404),
        ("sip:alice@a.example", "sip:+442079460123@b.example", 404),
        (f"sip:+{CALLER}@a.example", f"sip:+{CALLEE}@a.example", 403),
        (f"sip:+{CALLER}@a.example", "", 200),
        ("sip:a.example", "sip:+442079460123@b.example", 200),
    ],
)
async def test_options_are_answered_as_an_invite_would_be(
    domain: Domain, target: str, sender: str, status: int
) -> None:
    assert (await options(domain, target, sender)).code == status


async def test_options_to_a_telephone_that_is_gone_are_answered_at_once(domain: Domain) -> None:
    phone = await domain.phone(TcpPhone)
    await phone.register(f"<sip:{CALLEE}@{PRIVATE};transport=tcp;ob>")
    await phone.close()  # type: ignore[attr-defined]
    answer = await asyncio.wait_for(options(domain, f"sip:+{CALLEE}@a.example"), AT_ONCE_S)
    assert answer.code == 480


QUICK = KeepAliveTimes(datagram_s=(0.05, 0.1), rto_s=0.005)


async def behind(domain: Domain, keep_alive: KeepAliveTimes | None) -> tuple[Nat, UserAgent, asyncio.Queue[object]]:
    """The project's telephone behind a NAT, registered; and the calls that reach it."""
    nat = Nat(domain.hop)
    inside = Hop("udp", "127.0.0.1", await nat.open())
    domain.stack.callback(nat.close)
    account = Account(f"sip:+{CALLEE}@a.example", f"+{CALLEE}", "right")
    callee = UserAgent(account, host="127.0.0.1", proxy=inside, keep_alive=keep_alive)
    await callee.start()
    domain.stack.push_async_callback(callee.close)
    calls: asyncio.Queue[object] = asyncio.Queue()

    async def take(call: object) -> None:
        calls.put_nowait(call)

    callee.on_invite = take
    await callee.register()
    await asyncio.wait_for(nat.registrations.get(), TIMEOUT_S)
    return nat, callee, calls


async def is_reached(domain: Domain, calls: asyncio.Queue[object]) -> bool:
    call = await domain.call()
    reached, refused = asyncio.create_task(calls.get()), asyncio.create_task(call.answered())
    done, _ = await asyncio.wait((reached, refused), timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
    call.cancel()
    reached.cancel()
    await refused
    return reached in done


async def test_a_nat_that_forgets_the_telephone_is_noticed(domain: Domain) -> None:
    """The proxy sees it at another port then (RFC 5626 §4.4.2), and a call to the old one would be lost."""
    nat, _, calls = await behind(domain, QUICK)
    assert await is_reached(domain, calls)
    for _ in range(2):
        await nat.map_anew()
        await asyncio.wait_for(nat.registrations.get(), TIMEOUT_S)
        assert await is_reached(domain, calls)
    await asyncio.sleep(5 * QUICK.datagram_s[1])
    assert nat.registrations.empty(), "a flow that works is registered once"


async def test_without_keep_alives_a_forgotten_telephone_is_lost(domain: Domain) -> None:
    nat, _, calls = await behind(domain, None)
    await nat.map_anew()
    assert not await is_reached(domain, calls)
    assert nat.registrations.empty()


async def test_a_way_that_was_down_is_registered_over_again(
    domain: Domain, caplog: pytest.LogCaptureFixture
) -> None:
    nat, _, calls = await behind(domain, QUICK)
    await asyncio.wait_for(nat.answered.wait(), TIMEOUT_S)
    nat.is_down = True
    async with asyncio.timeout(TIMEOUT_S):
        while "the flow to the proxy has failed" not in caplog.text:
            await asyncio.sleep(0.01)
    nat.is_down = False
    await asyncio.wait_for(nat.registrations.get(), TIMEOUT_S)
    assert await is_reached(domain, calls)
