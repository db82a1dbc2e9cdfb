"""The torture messages of RFC 4475 and RFC 5118, and a peer that sends them over UDP and TCP."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from voice_dpki.sip.message import Hop

VECTORS = Path(__file__).parents[1] / "vectors/sip"
SENDER = "127.0.44.75"
"""The address that messages are sent from; the ports are those that their Vias name."""
PORTS = (5060, 5050, 5070, 6050, 19823)
FINAL = (b"SIP/2.0 2", b"SIP/2.0 3", b"SIP/2.0 4", b"SIP/2.0 5", b"SIP/2.0 6")


@dataclass(frozen=True)
class Torture:
    """One message: what a proxy and a telephone of ours answer, and the paragraph that it is from.

    0 is no answer. `closes` says that a connection it comes over is closed after the answer.
    """

    name: str
    section: str
    proxy: int
    telephone: int
    closes: bool = False
    over_tcp: int | None = None
    """What both answer over TCP, where that is something else."""

    @property
    def rfc(self) -> str:
        return "rfc5118" if self.section.startswith("4.") else "rfc4475"

    @property
    def data(self) -> bytes:
        """The octets, those of RFC 5118 with the line ends and lengths that its archive has lost."""
        data = (VECTORS / self.rfc / f"{self.name}.dat").read_bytes()
        if self.rfc == "rfc4475":
            return data
        head, _, body = data.replace(b"\n", b"\r\n").partition(b"\r\n\r\n")
        return re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head) + b"\r\n\r\n" + body


MESSAGES = (
    Torture("wsinv", "3.1.1.1", 481, 481),
    Torture("intmeth", "3.1.1.2", 400, 400),
    Torture("esc01", "3.1.1.3", 404, 404),
    Torture("escnull", "3.1.1.4", 401, 405),
    Torture("esc02", "3.1.1.5", 501, 501),
    Torture("lwsdisp", "3.1.1.6", 407, 200),
    Torture("longreq", "3.1.1.7", 404, 404),
    Torture("dblreq", "3.1.1.8", 401, 405, closes=True),
    Torture("semiuri", "3.1.1.9", 404, 200),
    Torture("transports", "3.1.1.10", 407, 200),
    Torture("mpart01", "3.1.1.11", 403, 405),
    Torture("unreason", "3.1.1.12", 0, 0),
    Torture("noreason", "3.1.1.13", 0, 0),
    Torture("badinv01", "3.1.2.1", 400, 400),
    Torture("clerr", "3.1.2.2", 400, 400, over_tcp=0),
    Torture("ncl", "3.1.2.3", 400, 400, closes=True),
    Torture("scalar02", "3.1.2.4", 400, 400),
    Torture("scalarlg", "3.1.2.5", 0, 0),
    Torture("quotbal", "3.1.2.6", 400, 400),
    Torture("ltgtruri", "3.1.2.7", 400, 400),
    Torture("lwsruri", "3.1.2.8", 400, 400),
    Torture("lwsstart", "3.1.2.9", 400, 400),
    Torture("trws", "3.1.2.10", 400, 400),
    Torture("escruri", "3.1.2.11", 400, 400),
    Torture("baddate", "3.1.2.12", 404, 404),
    Torture("regbadct", "3.1.2.13", 401, 405),
    Torture("badaspec", "3.1.2.14", 400, 400),
    Torture("baddn", "3.1.2.15", 400, 400),
    Torture("badvers", "3.1.2.16", 505, 505),
    Torture("mismatch01", "3.1.2.17", 400, 400),
    Torture("mismatch02", "3.1.2.18", 501, 501),
    Torture("bigcode", "3.1.2.19", 0, 0),
    Torture("badbranch", "3.2.1", 404, 200),
    Torture("insuf", "3.3.1", 400, 400),
    Torture("unkscm", "3.3.2", 416, 416),
    Torture("novelsc", "3.3.3", 416, 416),
    Torture("unksm2", "3.3.4", 400, 400),
    Torture("bext01", "3.3.5", 420, 420),
    Torture("invut", "3.3.6", 404, 415),
    Torture("regaut01", "3.3.7", 401, 405),
    Torture("multi01", "3.3.8", 400, 400),
    Torture("mcl01", "3.3.9", 400, 400, closes=True),
    Torture("bcast", "3.3.10", 0, 0),
    Torture("zeromf", "3.3.11", 483, 200),
    Torture("cparam01", "3.3.12", 401, 405),
    Torture("cparam02", "3.3.13", 401, 405),
    Torture("regescrt", "3.3.14", 401, 405),
    Torture("sdp01", "3.3.15", 404, 406),
    Torture("inv2543", "3.4.1", 404, 404, closes=True, over_tcp=400),
    Torture("ipv6-good", "4.1", 404, 405),
    Torture("ipv6-bad", "4.2", 400, 400),
    Torture("port-ambiguous", "4.3", 404, 405),
    Torture("port-unambiguous", "4.4", 404, 405),
    Torture("via-received-param-with-delim", "4.5", 481, 481),
    Torture("via-received-param-no-delim", "4.5", 404, 200),
    Torture("ipv6-in-sdp", "4.6", 407, 404),
    Torture("mult-ip-in-header", "4.7", 481, 481),
    Torture("mult-ip-in-sdp", "4.8", 407, 404),
    Torture("ipv4-mapped-ipv6", "4.9", 404, 404),
    Torture("ipv6-bug-abnf-3-colons", "4.10", 404, 200),
    Torture("ipv6-correct-abnf-2-colons", "4.10", 404, 200),
)
"""Every message of both documents, in their order. What they say otherwise is in docs/divergences.md."""


class TorturePeer:
    """Sends a message from SENDER and collects the final answers, on whichever of its ports they arrive."""

    def __init__(self, target: Hop) -> None:
        self._target = target
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._refusals: set[bytes] = set()
        """Refusals of INVITEs, which come again, as no ACK follows (RFC 3261 §17.2.1)."""
        self._transports: list[asyncio.DatagramTransport] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for port in PORTS:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Collector(self._answers), local_addr=(SENDER, port), family=socket.AF_INET
            )
            self._transports.append(transport)

    def close(self) -> None:
        for transport in self._transports:
            transport.close()

    async def over_udp(self, data: bytes) -> list[bytes]:
        """Send `data`, then a request that must be answered, and return the new final answers before that one's."""
        for datagram in (data, PROBE):
            self._transports[0].sendto(datagram, (self._target.host, self._target.port))
        answers = []
        async with asyncio.timeout(30):
            while PROBE_BRANCH not in (answer := await self._answers.get()):
                answers.append(answer)
        return [answer for answer in answers if answer.startswith(FINAL) and not self._is_again(answer)]

    def _is_again(self, answer: bytes) -> bool:
        came = answer in self._refusals
        if b" INVITE\r\n" in answer:
            self._refusals.add(answer)
        return came

    async def over_tcp(self, data: bytes) -> tuple[list[bytes], bool]:
        """Send `data` and the probe; return the final answers, and whether the connection was closed before it."""
        reader, writer = await asyncio.open_connection(self._target.host, self._target.port, local_addr=(SENDER, 0))
        writer.write(data + PROBE)
        received = b""
        try:
            async with asyncio.timeout(30):
                while PROBE_BRANCH not in received:
                    if not (piece := await reader.read(65536)):
                        break
                    received += piece
        except ConnectionResetError:
            pass  # it was closed with what we sent unread
        finally:
            writer.transport.abort()
        parts = [b"SIP/2.0 " + part for part in received.split(b"SIP/2.0 ")[1:]]
        closed = PROBE_BRANCH not in received
        return [part for part in parts if part.startswith(FINAL) and PROBE_BRANCH not in part], closed


PROBE_BRANCH = b"z9hG4bKprobe"
PROBE = (
    b"OPTIONS sip:nobody.invalid SIP/2.0\r\nVia: SIP/2.0/UDP probe.invalid;rport;branch=" + PROBE_BRANCH + b"\r\n"
    b"From: <sip:probe@probe.invalid>;tag=1\r\nTo: <sip:nobody.invalid>\r\nCall-ID: probe\r\nCSeq: 1 OPTIONS\r\n"
    b"Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
)


class _Collector(asyncio.DatagramProtocol):
    def __init__(self, answers: asyncio.Queue[bytes]) -> None:
        self._answers = answers

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._answers.put_nowait(data)


@asynccontextmanager
async def torture_peer(target: Hop) -> AsyncIterator[TorturePeer]:
    peer = TorturePeer(target)
    await peer.start()
    try:
        yield peer
    finally:
        peer.close()
        await asyncio.sleep(0)  # lets the sockets go
