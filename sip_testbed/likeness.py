"""How much of what one side of a call said was heard by the other, over all the changes of the call."""

from collections.abc import Iterable

from voice_dpki.media.correlate import correlate
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav

CHANGE_S = 0.4
"""How long after the beginning of a part of the speech its change is made for certain."""

QUIET = 0.1
"""A part of the speech below this part of the whole one's level is a pause, in which nothing can be compared."""

MAX_SHIFT_S = 1.0
"""How far a part of what was heard may be before or behind its place in what was said."""


def likeness_of(said: bytes, heard: bytes, parts: int = 1) -> float | None:
    """Return the correlation of heard with said speech, both WAV files; None if only silence was said.

    Of a call with changes it is the lowest of its `parts`, which begin with the changes. Each part is aligned by
    itself, as codecs delay speech by different times.
    """
    spoken, other = read_wav(said), read_wav(heard)
    if parts == 1:
        return correlate(spoken, other).coefficient if any(spoken.data) else None
    return min((_part_likeness(spoken, other, *part) for part in _loud_parts(spoken, parts)), default=None)


def _loud_parts(spoken: Pcm, parts: int) -> Iterable[tuple[float, float]]:
    """Yield beginning and end, in seconds, of the parts of a speech that are no pause, without their changes."""
    for number in range(parts):
        start_s = number * spoken.duration_s / parts + CHANGE_S
        end_s = (number + 1) * spoken.duration_s / parts - CHANGE_S / 4
        if spoken.part(start_s, end_s).level > QUIET * spoken.level:
            yield start_s, end_s


def _part_likeness(spoken: Pcm, heard: Pcm, start_s: float, end_s: float) -> float:
    around = heard.part(max(0.0, start_s - MAX_SHIFT_S), end_s + MAX_SHIFT_S)
    return correlate(spoken.part(start_s, end_s), around).coefficient
