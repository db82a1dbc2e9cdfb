"""Assessment of a call's video: the pictures that each side saw, and their offset from the speech."""

from collections.abc import Iterable, Mapping
from typing import Final

from sip_testbed.assess import ENDS
from sip_testbed.evidence import Evidence
from sip_testbed.report import VideoDirection
from voice_dpki.stage.report import Check

MIN_SHOWN: Final = 0.9
"""Least share of the pictures that must be shown: one that a loaded machine drops costs its successors, too."""

MAX_APART_MS: Final = 60.0
"""Largest mean offset between picture and speech (EBU R 37: 40 ms before, 60 ms after)."""


def directions(evidence: Evidence) -> dict[str, VideoDirection]:
    """Return both directions of the video as their receivers counted them; empty if there was none."""
    found = {f"{speaker}_to_{listener}": _direction(evidence, speaker, listener) for speaker, listener in ENDS}
    return {name: direction for name, direction in found.items() if direction is not None}


def checks(video: Mapping[str, VideoDirection]) -> Iterable[Check]:
    """Yield a check for each direction of the video of a good call."""
    for speaker, listener in ENDS:
        seen = video.get(f"{speaker}_to_{listener}")
        name = f"Video was seen, {speaker} to {listener}"
        yield Check(name, False, "no pictures were sent") if seen is None else Check(name, *_held(seen))


def _direction(evidence: Evidence, speaker: str, listener: str) -> VideoDirection | None:
    sent, seen = (evidence.result(role).get("video") for role in (speaker, listener))
    if not sent or not seen:
        return None
    return VideoDirection(
        pictures=sent["sent"],
        shown=seen["shown"],
        missed=seen["missed"],
        asked=seen["asked"],
        sync_ms=seen["sync_ms"],
        sync_worst_ms=seen["sync_worst_ms"],
    )


def _held(seen: VideoDirection) -> tuple[bool, str]:
    apart = seen.sync_ms
    told = "never beside its speech" if apart is None else f"{apart:g} ms from its speech in the mean"
    held = seen.shown >= MIN_SHOWN * seen.pictures > 0 and apart is not None and apart <= MAX_APART_MS
    return held, f"{seen.shown} of {seen.pictures} pictures shown, {told} (at most {MAX_APART_MS:g})"
