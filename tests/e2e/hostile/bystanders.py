"""Those who use a federation while it is attacked: each asks on a new connection, and notes how long it took."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

TIMEOUT_S = 10.0
"""What takes longer has failed."""

Address = tuple[str, int]


class RefusedError(Exception):
    """An answer that was not what was asked for."""


@dataclass
class Figures:
    """How long each took that was answered, and why the others were not."""

    took_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def at(self, quantile: float) -> float:
        """Return a quantile; what failed counts as having taken for ever."""
        values = sorted(self.took_s) + [float("inf")] * len(self.failed)
        return values[min(int(len(values) * quantile), len(values) - 1)] if values else float("nan")

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Note how long something took, or that it failed."""
        began_s = time.monotonic()
        try:
            yield
        except (OSError, EOFError, TimeoutError, RefusedError, ValueError) as error:
            self.failed.append(f"{type(error).__name__} {error}"[:120])
        else:
            self.took_s.append(time.monotonic() - began_s)


async def ask(
    target: Address, method: str, path: str, body: bytes = b"", token: str = "", source: str | None = None
) -> bytes:
    """Ask over HTTP on a connection of its own; raises RefusedError for all but a success."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {target[0]}:{target[1]}\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {token}\r\n" if token else ""
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if method == "POST" else ""
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(*target, local_addr=(source, 0) if source else None)
        with contextlib.closing(writer):
            writer.write(head.encode() + b"\r\n" + body)
            answered, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    if not re.match(rb"HTTP/1\.1 2\d\d ", answered):
        raise RefusedError(answered.partition(b"\r\n")[0][:40].decode("latin-1"))
    return rest


class _Answers(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.first.done():
            self.first.set_result(data)


async def options(target: Address, number: int) -> None:
    """Ask a proxy over UDP what it can do; sends the question again as RFC 3261's timer E has it."""
    loop = asyncio.get_running_loop()
    transport, answers = await loop.create_datagram_endpoint(_Answers, remote_addr=target)
    with contextlib.closing(transport):
        host, port = transport.get_extra_info("sockname")
        name = f"bystander{number}x{port}"
        question = (
            f"OPTIONS sip:{target[0]} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{name};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:b@b.example>;tag={number}\r\nTo: <sip:{target[0]}>\r\n"
            f"Call-ID: {name}\r\n"
            "CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        async with asyncio.timeout(TIMEOUT_S):
            for wait_s in (0.5, 1, 2, 4, 4):
                transport.sendto(question)
                await asyncio.wait((answers.first,), timeout=wait_s)
                if answers.first.done():  # wait_for swallows a cancellation that meets an answer
                    answer = answers.first.result()
                    break
            else:
                raise TimeoutError
    if not answer.startswith(b"SIP/2.0 200 "):
        raise RefusedError(answer[:40].decode("latin-1"))


class Untold(asyncio.DatagramProtocol):
    """Somebody who has asked for nothing, and counts what comes all the same."""

    def __init__(self) -> None:
        self.count = 0

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.count += 1


async def every(pause_s: float, figures: Figures, act: Callable[[], Awaitable[object]]) -> None:
    """Do something again and again, and note how long it took, until cancelled."""
    while True:
        with figures.timed():
            await act()
        await asyncio.sleep(pause_s)


def signing_request(orig: str, dest: str, number: int) -> bytes:
    """Write a signing request of a call like no other."""
    request = {
        "attest": "A",
        "orig": {"tn": orig},
        "dest": {"tn": [dest]},
        "iat": int(time.time()),
        "origid": f"5f4e3b1c-7d2a-4b8e-9c1d-{number:012x}",
    }
    return json.dumps({"signingRequest": request}).encode()


def verification_request(orig: str, dest: str, identity: str) -> bytes:
    """Write the request to verify that call."""
    request = {"from": {"tn": orig}, "to": {"tn": [dest]}, "time": int(time.time()), "identity": identity}
    return json.dumps({"verificationRequest": request}).encode()
