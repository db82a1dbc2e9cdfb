"""The conversation of an answered and keyed call: both sides speak, and unexpected silence ends it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from voice_dpki.media.pcm import Pcm
from voice_dpki.sip.sdp import SessionDescription
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.media_peer import HOLD_ADDRESSES
from voice_dpki.wire.sip.user_agent import Call, IncomingCall

SILENCE = "media silence"
"""Name, in results and reports, of the step that ends a call on which no media arrived."""

DEFAULT_SILENCE_S = 2.0
"""Longest time from the ACK to the first authentic packet; the other side's first SRTCP report is sent at once."""

HELD = "the answer puts the call on hold at once: no media either way"
"""Why a call with such an answer is not established: no speech was sent, and silence was not watched for."""

HANG_UP_TIMEOUT_S = 10.0
"""Timeout after our speech for the other side to end its speech or the call."""

SILENCE_REASON = ("Reason", 'RELEASE_CAUSE;cause=2;text="RTP/RTCP time-out"')
"""Header field of the BYE (RFC 3326; cause and text of 3GPP TS 24.229 §7.2A.18.11)."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The agreed directions of the media, seen from our side."""

    sends: bool
    """Whether we send."""
    expects: bool
    """Whether the other side sends."""

    @property
    def is_held(self) -> bool:
        """Whether no media flow either way."""
        return not (self.sends or self.expects)

    @classmethod
    def agreed(cls, described: SessionDescription) -> "Flow":
        """Return the directions that the other side's description allows; none on hold (RFC 3264 §6.1, §8.4)."""
        direction, held = described.audio_direction, described.audio_address[0] in HOLD_ADDRESSES
        return cls(direction.receives and not held, direction.sends and not held)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a conversation ended."""

    spoken: bool
    """Whether our speech was finished before the call ended."""
    silence: str | None = None
    """Why the call must end because no media arrived; None if media arrived or none was due."""
    unheard: bool = False
    """Whether the other side ended the call before any of the media due from it had arrived."""

    @property
    def good(self) -> bool:
        """Whether our speech was finished and the other side was heard, if it was to send."""
        return self.spoken and self.silence is None and not self.unheard

    @property
    def early(self) -> str:
        """The end of a clause that says before what the call was ended; empty if it was not ended too early."""
        early = [] if self.spoken else ["before the speech was over"]
        early += ["before any media had come"] if self.unheard else []
        return f" {' and '.join(early)}" if early else ""


async def converse(
    call: Call | IncomingCall,
    media: MediaSession,
    speech: Pcm,
    flow: Flow,
    silence_s: float,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> Ending:
    """Speak and listen until both have spoken, the other side hangs up, or no media arrives within `silence_s`.

    The speech counts as over only when `meanwhile` is, too. Call this once the ACK has been sent or received. It
    ends neither the call nor the media.
    """
    ended = asyncio.ensure_future(call.ended.wait())
    speaking = asyncio.ensure_future(_speak(media, speech, flow, meanwhile))
    silent = asyncio.ensure_future(_silence(media, flow, silence_s))
    try:
        await asyncio.wait((speaking, ended, silent), return_when=asyncio.FIRST_COMPLETED)
        spoken = speaking.done()
        if spoken:
            speaking.result()  # raises an error of the speech
            await _listen(call, media, ended, silent)
        if silent.done():
            return Ending(spoken, _sentence(media, silence_s))
        return Ending(spoken, unheard=flow.expects and not media.heard_peer)
    finally:
        for task in (ended, speaking, silent):
            task.cancel()


async def _speak(
    media: MediaSession, speech: Pcm, flow: Flow, meanwhile: Callable[[], Awaitable[None]] | None
) -> None:
    said = [media.say(speech)] if flow.sends else []
    await asyncio.gather(*said, *([meanwhile()] if meanwhile else []))


async def _silence(media: MediaSession, flow: Flow, silence_s: float) -> None:
    """Return only if the other side was to send and nothing authentic arrived in time."""
    if await media.heard_within(silence_s if flow.expects else 0) or not flow.expects:
        await asyncio.get_running_loop().create_future()


async def _listen(
    call: Call | IncomingCall,
    media: MediaSession,
    ended: "asyncio.Task[Literal[True]]",
    silent: "asyncio.Task[None]",
) -> None:
    """As callee, wait until the caller hangs up; as caller, until the callee has spoken."""
    if isinstance(call, IncomingCall):
        waited = (ended, silent)
        await asyncio.wait(waited, timeout=HANG_UP_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
    else:
        quiet = asyncio.ensure_future(media.wait_until_quiet(HANG_UP_TIMEOUT_S))
        await asyncio.wait((ended, silent, quiet), return_when=asyncio.FIRST_COMPLETED)
        quiet.cancel()


def _sentence(media: MediaSession, silence_s: float) -> str:
    """Return the sentence that no usable media arrived, and what arrived instead."""
    counted = media.statistics()
    what = "authenticated SRTP or SRTCP" if counted.srtp else "RTP or RTCP"
    sentence = f"no {what} came within {silence_s:g} s of the ACK"
    if counted.foreign:
        return f"{sentence}; what came is from another address than the SDP names"
    if counted.unauthentic:
        return f"{sentence}; what came does not verify under the agreed keys"
    if counted.other:
        return f"{sentence}; what came is of another payload type or SSRC than was agreed"
    return f"{sentence}; what came is no RTP" if counted.malformed else sentence
