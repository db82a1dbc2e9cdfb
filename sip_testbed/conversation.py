"""The conversation of a call that was answered and keyed: both speak, and silence where speech was due ends it."""

import asyncio
from dataclasses import dataclass
from typing import Literal

from voice_dpki.media.pcm import Pcm
from voice_dpki.media.session import HOLD_ADDRESS, MediaSession
from voice_dpki.sip.sdp import SessionDescription
from voice_dpki.sip.user_agent import Call, IncomingCall

SILENCE = "media silence"
"""The step, in results and reports, that ends a call on which nothing came."""

DEFAULT_SILENCE_S = 2.0
"""From the ACK until something authentic must have come; the other side's first SRTCP report comes at once."""

HANG_UP_TIMEOUT_S = 10.0
"""After our own speech, for the other side to end its speech or the call."""

SILENCE_REASON = ("Reason", 'RELEASE_CAUSE;cause=2;text="RTP/RTCP time-out"')
"""Header field of the BYE (RFC 3326; cause and text of 3GPP TS 24.229 §7.2A.18.11)."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Which directions of the media were agreed, seen from here."""

    sends: bool
    """Whether we send."""
    expects: bool
    """Whether the other side sends."""

    @classmethod
    def agreed(cls, described: SessionDescription) -> "Flow":
        """Return what the other side's description leaves: hold is no silence (RFC 3264 §6.1, §8.4)."""
        direction, held = described.audio_direction, described.audio_address[0] == HOLD_ADDRESS
        return cls(direction.receives and not held, direction.sends and not held)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a conversation went."""

    spoken: bool
    """Whether our speech was over before the call ended."""
    silence: str | None = None
    """The sentence for a call that has to end since nothing came."""
    unheard: bool = False
    """Whether nothing had come, though it was due, when the other side ended the call."""

    @property
    def good(self) -> bool:
        """Whether both sides were heard."""
        return self.spoken and self.silence is None and not self.unheard


async def converse(
    call: Call | IncomingCall, media: MediaSession, speech: Pcm, flow: Flow, silence_s: float
) -> Ending:
    """Speak and listen until both have spoken, the other side hangs up, or nothing has come within `silence_s`.

    Call it when the ACK was sent or has come. It ends neither the call nor the media.
    """
    ended = asyncio.ensure_future(call.ended.wait())
    speaking = asyncio.ensure_future(_speak(media, speech, flow))
    silent = asyncio.ensure_future(_silence(media, flow, silence_s))
    try:
        await asyncio.wait((speaking, ended, silent), return_when=asyncio.FIRST_COMPLETED)
        spoken = speaking.done()
        if spoken:
            speaking.result()  # tells of what went wrong while we spoke
            await _listen(call, media, ended, silent)
        if silent.done():
            return Ending(spoken, _sentence(media, silence_s))
        return Ending(spoken, unheard=flow.expects and not media.heard_peer)
    finally:
        for task in (ended, speaking, silent):
            task.cancel()


async def _speak(media: MediaSession, speech: Pcm, flow: Flow) -> None:
    if flow.sends:
        await media.say(speech)


async def _silence(media: MediaSession, flow: Flow, silence_s: float) -> None:
    """Return only if the other side was to send and nothing authentic came."""
    if await media.heard_within(silence_s if flow.expects else 0) or not flow.expects:
        await asyncio.get_running_loop().create_future()


async def _listen(
    call: Call | IncomingCall,
    media: MediaSession,
    ended: "asyncio.Task[Literal[True]]",
    silent: "asyncio.Task[None]",
) -> None:
    """The callee waits for the caller to hang up, and the caller until the callee has spoken."""
    if isinstance(call, IncomingCall):
        waited = (ended, silent)
        await asyncio.wait(waited, timeout=HANG_UP_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
    else:
        quiet = asyncio.ensure_future(media.wait_until_quiet(HANG_UP_TIMEOUT_S))
        await asyncio.wait((ended, silent, quiet), return_when=asyncio.FIRST_COMPLETED)
        quiet.cancel()


def _sentence(media: MediaSession, silence_s: float) -> str:
    """Say that nothing came, and what came instead."""
    counted = media.statistics()
    what = "authenticated SRTP or SRTCP" if counted.srtp else "RTP or RTCP"
    sentence = f"no {what} came within {silence_s:g} s of the ACK"
    if counted.foreign:
        return f"{sentence}; what came is from another address than the SDP names"
    if counted.unauthentic:
        return f"{sentence}; what came does not verify under the agreed keys"
    return f"{sentence}; what came is no RTP" if counted.malformed else sentence
