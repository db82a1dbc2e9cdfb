"""Two user agents over real sockets, and a peer that loses, repeats and misbehaves: what the tests of SIP share."""

import asyncio
import re
from collections.abc import Awaitable, Callable

from sipmessage import Request, Response

from voice_dpki.sip.machines import Timers
from voice_dpki.sip.message import Hop, encode, header_values, make_response, parse_message, set_body
from voice_dpki.wire.sip.user_agent import Account, IncomingCall, UserAgent

HOST = "127.0.0.1"
FAST = Timers(t1_s=0.02, t2_s=0.08, t4_s=0.05, d_s=0.5, trying_after_s=0.2)
"""Timers a twenty-fifth as long, so that 64*T1 is 1.28 s."""
CALLER = Account("sip:+493023125001@a.example", "+493023125001", "secret")
CALLEE = Account("sip:+442079460123@b.example", "+442079460123", "secret")
TARGET = CALLEE.aor
SDP = b"v=0\r\n"
TIMEOUT_S = 60

Make = Callable[..., Awaitable[UserAgent]]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.002)


class Peer(asyncio.DatagramProtocol):
    """The other side, played by the test: it gets messages and sends what the test likes."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[Request | Response, tuple[str, int]]] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport | None = None
        self._taken: set[tuple[str, str]] = set()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.put_nowait((parse_message(data), addr))

    @property
    def hop(self) -> Hop:
        assert self.transport is not None
        return Hop("udp", *self.transport.get_extra_info("sockname"))

    async def request(self, method: str) -> Request:
        """The next request of `method`; others are left out, and repetitions of those that were given before.

        An ACK of the same 2xx counts each time.
        """
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                message, self.address = await self.received.get()
                if isinstance(message, Request) and message.method == method:
                    transaction = method, header_values(message, "Via")[0]
                    if method == "ACK" or transaction not in self._taken:
                        self._taken.add(transaction)
                        return message

    async def response(self, status: int) -> Response:
        """The next response with `status`; other messages are left out."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                message, _ = await self.received.get()
                if isinstance(message, Response) and message.code == status:
                    return message

    def send(self, message: Request | Response | bytes, address: tuple[str, int] | None = None) -> None:
        assert self.transport is not None
        self.transport.sendto(message if isinstance(message, bytes) else encode(message), address or self.address)

    def answer(self, request: Request, status: int, *headers: tuple[str, str], to_tag: str = "peer") -> None:
        """Answer a request; a 2xx to INVITE has a Contact and a body."""
        response = make_response(request, status, to_tag=to_tag, headers=headers)
        if request.method == "INVITE" and status < 300:
            response.headers.set("Contact", f"<sip:peer@{self.hop.address}>")
            set_body(response, SDP, "application/sdp")
        self.send(response)


def keeps(calls: list[IncomingCall]) -> Callable[[IncomingCall], Awaitable[None]]:
    async def on_invite(call: IncomingCall) -> None:
        calls.append(call)

    return on_invite


def invite_to(agent: UserAgent, peer: Peer, branch: str = "one", sequence: int = 1) -> bytes:
    return (
        f"INVITE sip:+442079460123@{agent.address.address} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {peer.hop.address};branch=z9hG4bK{branch}\r\n"
        "From: <sip:+493023125001@a.example>;tag=peer\r\nTo: <sip:+442079460123@b.example>\r\n"
        f"Call-ID: 1\r\nCSeq: {sequence} INVITE\r\nContact: <sip:peer@{peer.hop.address}>\r\n"
        "P-Asserted-Identity: <sip:+493023125001;verstat=TN-Validation-Passed@b.example;user=phone>\r\n"
        "Identity: a.b.c;info=<https://x>\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n"
    ).encode()


def in_dialog(invite: bytes, method: str, tag: str, branch: str, sequence: int) -> bytes:
    text = invite.split(b"P-Asserted")[0].decode().replace("INVITE", method).replace("zone", f"z{branch}")
    text = text.replace("bKone", f"bK{branch}").replace("b.example>", f"b.example>;tag={tag}")
    return (re.sub(r"CSeq: \d+", f"CSeq: {sequence}", text) + "Content-Length: 0\r\n\r\n").encode()
