"""How late speech goes while pictures come and go: the event loop sends a frame of speech every 20 ms.

    python bench/video.py [--seconds 10] [--width 1280] [--height 720] [--rate 30]

One telephone speaks, films, and is sent pictures in VP8 by a process of its own, in clear. It speaks once without
any video, for comparison. The figures are how long after its time each packet of speech went.
"""

import argparse
import asyncio
import random
import socket
import struct
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
from aiortc.codecs.vpx import Vp8Encoder
from av import VideoFrame
from rich.console import Console
from rich.table import Table

from voice_dpki.media.codecs import CODECS, FRAME_S
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.pictures import load_coders
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.video import VideoSession

PCMU = CODECS["PCMU"]
TYPE = 100
DRAWN = 30
"""So many pictures are drawn, and sent over and over; the first is a whole one."""


def main() -> None:
    """Measure, or send pictures to a port, as the process beside does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--rate", type=int, default=30, help="pictures a second")
    parser.add_argument("--send", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.send is not None:
        send(args.send, args.width, args.height, args.rate)
        return
    load_coders()
    table = Table(title=f"Speech beside pictures of {args.width}x{args.height}, {args.rate} a second")
    for column in ("", "p50 ms", "p99 ms", "worst ms", "over 10 ms", "times asked for a whole picture"):
        table.add_column(column, justify="right")
    for name in ("no video", "video"):
        late, asked = asyncio.run(speak(args, with_video=name == "video"))
        ordered = sorted(1000 * each for each in late)
        over = sum(each > 10 for each in ordered) / len(ordered)
        part = (ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1])
        table.add_row(name, *(f"{each:.1f}" for each in part), f"{over:.1%}", f"{asked}")
    Console().print(table)


class Lateness:
    """Observer of the speech that is sent, and of how late it goes."""

    def __init__(self) -> None:
        self.late_s: list[float] = []
        self._first_s: float | None = None

    def rtp(self, src: str, dst: str, wire: bytes, clear: bytes) -> None:
        """Note when a packet of speech goes."""
        if clear[1] & 0x7F:
            return
        now_s = time.monotonic()
        self._first_s = now_s if self._first_s is None else self._first_s
        self.late_s.append(now_s - self._first_s - len(self.late_s) * FRAME_S)


async def speak(args: argparse.Namespace, *, with_video: bool) -> tuple[list[float], int]:
    """Speak for so long; returns how late each packet went, and how often a whole picture was asked for."""
    lateness, speech = Lateness(), Pcm(8000, bytes(2 * int(8000 * args.seconds)))
    media, video = await MediaSession.open("127.0.0.1", tracer=lateness), await VideoSession.open("127.0.0.1")
    media.start(PCMU, payload_type=0, remote=("127.0.0.2", 40_000))
    if not with_video:
        await media.say(speech)
        await close(media, video)
        return lateness.late_s, 0
    video.start(payload_type=TYPE, remote=("127.0.0.2", 40_002))
    command = [sys.executable, __file__, "--send", f"{video.port}", "--width", f"{args.width}"]
    with subprocess.Popen([*command, "--height", f"{args.height}", "--rate", f"{args.rate}"]) as sender:
        while video.statistics().received < 2 * args.rate:
            await asyncio.sleep(0.05)
        await asyncio.gather(media.say(speech), video.film(args.seconds))
        asked = video.statistics().asked
        sender.terminate()
    await close(media, video)
    return lateness.late_s, asked


async def close(media: MediaSession, video: VideoSession) -> None:
    """Close both sessions."""
    await video.close()
    await media.close()


def send(port: int, width: int, height: int, rate: int) -> None:
    """Send pictures to a port until somebody ends us."""
    drawn = pictures(width, height, rate)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.bind(("127.0.0.2", 40_002))
        began_s, sequence, number = time.monotonic(), 0, 0
        while True:
            payloads = drawn[number % len(drawn)]
            for payload in payloads:
                last = payload is payloads[-1]
                head = struct.pack("!BBHII", 0x80, last << 7 | TYPE, sequence & 0xFFFF, number * 90_000 // rate, 77)
                out.sendto(head + payload, ("127.0.0.1", port))
                sequence += 1
            number += 1
            time.sleep(max(0.0, began_s + number / rate - time.monotonic()))


def pictures(width: int, height: int, rate: int) -> list[list[bytes]]:
    """Draw pictures in which everything moves, and return the payloads of each."""
    encoder, found = Vp8Encoder(), []
    random.seed(1)
    for number in range(DRAWN):
        luma = (np.add.outer(np.arange(height), np.arange(width) + 3 * number) % 256).astype(np.uint8)
        chroma = np.full((height // 2, width), 128, np.uint8)
        frame = VideoFrame.from_ndarray(np.vstack([luma, chroma]), format="yuv420p")
        frame.pts, frame.time_base = number * 90_000 // rate, Fraction(1, 90_000)
        found.append(encoder.encode(frame, force_keyframe=number == 0)[0])
    return found


if __name__ == "__main__":
    main()
