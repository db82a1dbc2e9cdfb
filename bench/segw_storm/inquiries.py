"""Inquiries at the agent's socket, as strongSwan's plugin makes them: a connection each, many at a time."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segw_agent.policy import Side
from segw_agent.protocol import LENGTH_BYTES, AgentAnswer, Operation, Request
from tests.interop.strongswan.world import Identity
from voice_dpki.effects import SystemRandom
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.identity import fqdn

RANDOM = SystemRandom()


@dataclass
class Inquiries:
    """What the inquiries of one run took, each, and how long the run lasted."""

    took_ms: list[float] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    lasted_s: float = 0.0

    @property
    def rate(self) -> float:
        """Inquiries in a second."""
        return len(self.took_ms) / self.lasted_s


def inquire(socket: Path, devices: Sequence[Identity], at_once: int) -> Inquiries:
    """Ask once about each device's certificate, `at_once` at a time."""
    return asyncio.run(_inquire(socket, devices, at_once))


async def _inquire(socket: Path, devices: Sequence[Identity], at_once: int) -> Inquiries:
    frames, done = iter([_frame(device) for device in devices]), Inquiries()
    began_s = time.monotonic()
    await asyncio.gather(*(_worker(socket, frames, done) for _ in range(at_once)))
    done.lasted_s = time.monotonic() - began_s
    return done


async def _worker(socket: Path, frames: Iterator[bytes], done: Inquiries) -> None:
    for frame in frames:
        began_s = time.monotonic()
        answer = await _ask(socket, frame)
        done.took_ms.append((time.monotonic() - began_s) * 1000)
        if not answer.yes:
            done.refused[answer.code] = done.refused.get(answer.code, 0) + 1


async def _ask(socket: Path, frame: bytes) -> AgentAnswer:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(frame)
        length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        return AgentAnswer.parse(await reader.readexactly(length))
    finally:
        writer.close()


def _frame(device: Identity) -> bytes:
    return Request(
        operation=Operation.JUDGE,
        side=Side.GATEWAY,
        sa=SaName(RANDOM.token(8), RANDOM.token(8)),
        certificate=device.certificate,
        unique_id=1,
        identification=fqdn(device.name),
        connection="devices",
    ).serialize()
