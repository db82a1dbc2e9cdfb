"""Decoding and display of due pictures, in order, in threads: the event loop must send speech every 20 ms."""

import asyncio
import logging
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from voice_dpki.errors import MalformedError
from voice_dpki.media.pictures import is_key
from voice_dpki.media.video import Encoded, Shown, VideoReceiver

log = logging.getLogger(__name__)

MAX_UNDECODED: Final = 8
"""Most pictures that wait for the decoder. If it falls behind, the oldest and their dependants are dropped."""


@dataclass(frozen=True, slots=True)
class _Due:
    """A picture whose time has come."""

    receiver: VideoReceiver
    picture: Encoded
    speech_s: float | None
    """When the speech of its moment is played, by the loop's clock; None if that is not known."""


class Screen:
    """Shows the pictures of one call, over all its agreements, with decoders that run in threads of `coders`."""

    def __init__(self, coders: Executor) -> None:
        self.shown = Shown()
        self.dropped = 0
        """Due pictures that were not decoded, because the decoder had fallen behind."""
        self._coders = coders
        self._due: deque[_Due] = deque()
        self._decoding: asyncio.Task[None] | None = None
        self._compared = 0
        """Number of shown pictures whose speech time was known."""
        self._apart_s = self._worst_s = 0.0
        """Sum, and the largest, of the times between them and their speech."""

    @property
    def sync_ms(self) -> float | None:
        """Mean time in ms by which a picture was shown before or after its speech; None if none was compared."""
        return round(1000 * self._apart_s / self._compared, 1) if self._compared else None

    @property
    def sync_worst_ms(self) -> float | None:
        """The largest of these times."""
        return round(1000 * self._worst_s, 1) if self._compared else None

    def put(self, receiver: VideoReceiver, picture: Encoded, speech_s: float | None = None) -> None:
        """Show a picture of `receiver` as soon as it is decoded."""
        self._due.append(_Due(receiver, picture, speech_s))
        if len(self._due) > MAX_UNDECODED:
            self._drop()
        if self._due and (self._decoding is None or self._decoding.done()):
            self._decoding = asyncio.get_running_loop().create_task(self._decode())

    async def emptied(self) -> None:
        """Wait until everything that was put is shown."""
        if self._decoding is not None:
            await self._decoding

    def close(self) -> None:
        """Show nothing more."""
        self._due.clear()
        if self._decoding is not None:
            self._decoding.cancel()

    def _drop(self) -> None:
        """Drop the oldest picture and all after it up to the next key frame; request one if there is none."""
        if not self.dropped:
            log.warning("pictures are dropped, since the decoder has fallen behind")
        while True:
            oldest = self._due.popleft()
            self.dropped += 1
            if not self._due:
                oldest.receiver.give_up()
                return
            if is_key(self._due[0].picture.data):
                return

    async def _decode(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due:
            due = self._due.popleft()
            try:
                number = await loop.run_in_executor(self._coders, due.receiver.decode, due.picture)
            except MalformedError:
                self.shown.undecodable += 1
                due.receiver.give_up()
                continue
            now_s = loop.time()
            self.shown.add(number, due.picture.data, now_s)
            if due.speech_s is not None:
                self._compare(abs(now_s - due.speech_s))

    def _compare(self, apart_s: float) -> None:
        self._compared += 1
        self._apart_s += apart_s
        self._worst_s = max(self._worst_s, apart_s)
