"""A session border controller in the place of the attacker: it rewrites addresses by design, and relays the media.

    python -m tests.sbc sip_testbed.main path --config path.toml

runs `sip-testbed path` with it. Like real ones it leaves a=key-mgmt alone, and has no keys.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from sipmessage import Request, Response

from sip_testbed import main as sip_testbed
from sip_testbed import path
from sip_testbed.path_attacks import NoAttack
from voice_dpki.sip.sdp import SessionDescription
from voice_dpki.wire.media_ports import bind_pair


class _Side(asyncio.DatagramProtocol):
    """One socket of the relay: what comes here leaves by the other side's, for where that side's telephone is."""

    other: "_Side"
    transport: asyncio.DatagramTransport
    telephone: tuple[str, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.other.telephone is not None:
            self.other.transport.sendto(data, self.other.telephone)


class Sbc(NoAttack):
    """Rewrites offer and answer of every call, and relays RTP and RTCP of both directions."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._sides: dict[str, tuple[list[_Side], list[_Side]]] = {}

    async def invite(self, request: Request) -> str:
        towards_caller, towards_callee = [await self._open() for _ in range(2)]
        for one, other in zip(towards_caller, towards_callee, strict=True):
            one.other, other.other = other, one
        self._sides[request.headers["Call-ID"]] = towards_caller, towards_callee
        request.body = self._rewritten(request.body, towards_caller, towards_callee)
        return "the SBC put its own address into the offer"

    def response(self, response: Response) -> str | None:
        if response.code != 200 or response.cseq.method != "INVITE":
            return None
        towards_caller, towards_callee = self._sides[response.headers["Call-ID"]]
        response.body = self._rewritten(response.body, towards_callee, towards_caller)
        return "the SBC put its own address into the answer"

    async def _open(self) -> list[_Side]:
        loop = asyncio.get_running_loop()
        pair = bind_pair(self._host)
        return [(await loop.create_datagram_endpoint(_Side, sock=bound))[1] for bound in pair]

    def _rewritten(self, body: bytes, near: list[_Side], far: list[_Side]) -> bytes:
        """Note where the telephone on the near side is, and tell the far one to send here."""
        sdp = SessionDescription.parse(body)
        host, port = sdp.audio_address
        for offset, side in enumerate(near):
            side.telephone = (host, port + offset)
        own = far[0].transport.get_extra_info("sockname")[1]
        changed = sdp.map_lines(lambda line: f"c=IN IP4 {self._host}" if line.startswith("c=") else line)
        return replace(changed, media=tuple(replace(section, port=own) for section in changed.media)).serialize()


def main(arguments: Sequence[str]) -> int:
    """Run the path with an SBC on it."""
    path.make_attack = lambda config, *rest: Sbc(config.listen.host)
    return sip_testbed.main(list(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
