"""The media path: packets of G.711 in SRTP over UDP, against the barest Python that does the same.

    python bench/media.py [--rounds 9] [--packets 4000] [--calls 50 100 150 ...] [--seconds 4]

First part: for each packet one side encodes, packs, protects and sends 20 ms of speech, the other receives, checks,
unpacks, orders, decodes and keeps it. The peer is a loop over pylibsrtp, `struct`, the tables of G.711 and a pair
of sockets, without order, time, counts or errors. Both take turns in one process, and the figure is the ratio of
the medians of processor time a packet.

Second part: whole media sessions in real time on one core and on uvloop, as the programs run them, each pair of
them a call with speech both ways. It tells the processor time of a call, and the largest number of calls at which
99 of 100 packets were sent within 10 ms of their time.
"""

import argparse
import asyncio
import os
import socket
import statistics
import struct
import time
from collections.abc import Callable
from itertools import count

import pylibsrtp
import uvloop
from rich.console import Console
from rich.table import Table

from voice_dpki.effects import SystemRandom
from voice_dpki.media.codecs import CODECS, FRAME_S
from voice_dpki.media.g711 import mu_law
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.srtp import Srtp
from voice_dpki.media.stream import ReceiveStream, SendStream
from voice_dpki.mikey.keys import SrtpKeys, StreamKey
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.wire.media import MediaSession

AIM = 0.5
FRAME = struct.pack("<160h", *(((at * 977) % 20_000) - 10_000 for at in range(160)))
PCMU = CODECS["PCMU"]
PROFILE = SrtpProfile.AES_CM_128_HMAC_SHA1_80
LATE_S = 0.010
"""A packet that goes later than this after its time is late."""


def main() -> None:
    """Run both parts and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--packets", type=int, default=4000, help="packets a round")
    parser.add_argument("--calls", type=int, nargs="*", default=[20, 40, 60, 80, 100], help="calls at once")
    parser.add_argument("--seconds", type=float, default=4.0, help="speech of each call")
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    packets(args.rounds, args.packets)
    uvloop.run(calls(args.calls, args.seconds))


def packets(rounds: int, number: int) -> None:
    """Compare both ways of handling one packet after the other."""
    sides = {"pylibsrtp, bare": bare(), "voice-dpki": ours()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, handle in sides.items():
            began_s = time.process_time()
            for _ in range(number):
                handle()
            if turn:
                times[name].append((time.process_time() - began_s) / number)
    table = Table(title=f"One packet of PCMU, {PROFILE}, sent and received: {rounds} rounds of {number}")
    for column in ("", "us of processor", "packets/s", "rate to the peer's"):
        table.add_column(column, justify="right")
    peer_s = statistics.median(times["pylibsrtp, bare"])
    for name, measured in times.items():
        median_s = statistics.median(measured)
        table.add_row(name, f"{1e6 * median_s:.1f}", f"{1 / median_s:,.0f}", f"{peer_s / median_s:.2f}")
    Console().print(table, f"Aim: {AIM}")


def bare() -> Callable[[], None]:
    """Return what handles one packet with pylibsrtp and nothing that is not needed."""
    one, other = keys()
    sender, receiver = (
        pylibsrtp.Session(
            pylibsrtp.Policy(
                key=key.tek + key.salt,
                ssrc_type=pylibsrtp.Policy.SSRC_SPECIFIC,
                ssrc_value=key.ssrc,
                srtp_profile=pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
            )
        )
        for key in (one.send, other.receive)
    )
    out, into = sockets()
    head, law, numbers, heard = struct.Struct("!BBHII"), mu_law(), count(), bytearray()

    def handle() -> None:
        number = next(numbers)
        packet = head.pack(0x80, 0, number & 0xFFFF, 160 * number & 0xFFFFFFFF, one.send.ssrc) + law.encode(FRAME)
        out.send(sender.protect(packet))
        clear = receiver.unprotect(into.recv(2048))
        head.unpack_from(clear)
        heard[:] = law.decode(clear[12:])

    return handle


def ours() -> Callable[[], None]:
    """Return what handles one packet as a media session does."""
    one, other = keys()
    sending = SendStream(PCMU, 0, one.send.ssrc, Srtp(one), SystemRandom())
    receiving = ReceiveStream(PCMU, 0, other.receive.ssrc, Srtp(other))
    out, into = sockets()
    numbers = count()

    def handle() -> None:
        now_s = FRAME_S * next(numbers)
        out.send(sending.send(FRAME)[1])
        receiving.receive(into.recv(2048), now_s)
        receiving.play(now_s)

    return handle


def sockets() -> tuple[socket.socket, socket.socket]:
    """Return a pair of connected UDP sockets of the loopback."""
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for bound in (one, other):
        bound.bind(("127.0.0.1", 0))
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    return one, other


def keys() -> tuple[SrtpKeys, SrtpKeys]:
    """Return the keys of both sides of a call."""
    ways = [StreamKey(ssrc, os.urandom(PROFILE.key_bytes), os.urandom(PROFILE.salt_bytes)) for ssrc in (1, 2)]
    return SrtpKeys(PROFILE, ways[0], ways[1]), SrtpKeys(PROFILE, ways[1], ways[0])


class Lateness:
    """Observer of the packets that sessions send, and of how late they go."""

    def __init__(self) -> None:
        self.first_s: dict[str, float] = {}
        self.sent: dict[str, int] = {}
        self.late_s: list[float] = []

    def rtp(self, src: str, dst: str, wire: bytes, clear: bytes) -> None:
        """Note when a packet goes; those of RTCP do not count."""
        if clear[1] & 0x7F:
            return
        now_s = time.monotonic()
        first_s = self.first_s.setdefault(src, now_s)
        number = self.sent[src] = self.sent.get(src, -1) + 1
        self.late_s.append(now_s - first_s - number * FRAME_S)


async def calls(numbers: list[int], seconds: float) -> None:
    """Run more and more calls at once."""
    table = Table(title=f"Calls at once on one core, {seconds:g} s of speech both ways")
    for column in ("calls", "ms of processor a call and second", "late", "99 of 100 within ms", "missing"):
        table.add_column(column, justify="right")
    carried = 0
    for number in numbers:
        began_s = time.process_time()
        lateness, missing = await converse(number, seconds)
        cost_ms = 1000 * (time.process_time() - began_s) / number / seconds
        late = sum(late_s > LATE_S for late_s in lateness) / len(lateness)
        worst_ms = 1000 * sorted(lateness)[len(lateness) * 99 // 100]
        table.add_row(f"{number}", f"{cost_ms:.2f}", f"{late:.2%}", f"{worst_ms:.1f}", f"{missing:.2%}")
        if late > 0.01:
            break
        carried = number
    Console().print(table, f"One core carried {carried} calls.")


async def converse(number: int, seconds: float) -> tuple[list[float], float]:
    """Hold `number` calls; returns how late each packet went, and the share that was not played."""
    speech, lateness = Pcm(8000, FRAME * int(seconds / FRAME_S)), Lateness()
    sessions = [await MediaSession.open("127.0.0.1", tracer=lateness) for _ in range(2 * number)]
    for one, other in zip(sessions[::2], sessions[1::2], strict=True):
        for session, peer, own in zip((one, other), (other, one), keys(), strict=True):
            session.start(PCMU, payload_type=0, remote=(peer.host, peer.port), keys=own)

    async def say(at: int, session: MediaSession) -> None:
        await asyncio.sleep(FRAME_S * at / len(sessions))
        await session.say(speech)

    await asyncio.gather(*(say(at, session) for at, session in enumerate(sessions)))
    await asyncio.gather(*(session.wait_until_quiet(2) for session in sessions))
    missing = statistics.mean(session.statistics().loss or 0.0 for session in sessions)
    await asyncio.gather(*(session.close() for session in sessions))
    return lateness.late_s, missing


if __name__ == "__main__":
    main()
