"""Early media: what a callee lets the caller hear before it answers, such as an announcement (RFC 3960)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from voice_dpki.errors import LocalError
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.sip.user_agent import IncomingCall
from voice_dpki.wire.tasks import first_of

BRIDGE_S = 40.0
"""Longest silence sent between early media and speech, so that the stream goes on: the ACK can take 32 s."""


@asynccontextmanager
async def early_media(
    call: IncomingCall, media: MediaSession, speech: Pcm, early_s: float, answer: bytes
) -> AsyncIterator[float]:
    """Say the first `early_s` seconds of `speech` before the call is answered, and silence while the context lasts.

    The media have started with the keys of `answer`, which is sent in a reliable 183. A caller that does not
    support those hears nothing before the answer. Yields the length of the early speech in seconds.

    Raises UnacknowledgedError if the caller does not acknowledge the 183, or gives up.
    """
    if not early_s or not call.takes_early:
        yield 0.0
        return
    await call.progress(answer)
    telling = asyncio.get_running_loop().create_task(_tell_who_answers(call))
    early = speech.part(0.0, early_s)
    await first_of(media.say(early), call.ended.wait())
    silence = Pcm(early.rate, bytes(int(BRIDGE_S * early.rate) * SAMPLE_BYTES))
    bridge = asyncio.get_running_loop().create_task(media.say(silence))
    try:
        yield early.duration_s
    finally:
        bridge.cancel()
        telling.cancel()


async def _tell_who_answers(call: IncomingCall) -> None:
    """Send an UPDATE, in which our domain tells the caller's domain the number that answers (RFC 9970)."""
    if "UPDATE" in call.peer_methods:
        with suppress(LocalError):
            await call.update()
