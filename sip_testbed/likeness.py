"""Likeness of the speech that one side of a call heard to that which the other said, over all changes."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from voice_dpki.media.correlate import correlate
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav

CHANGE_S = 0.4
"""Time from the beginning of a part of the speech by which its change is made for certain."""

SETTLE_S = 0.15
"""Time before and after the beginning of another stream in which packets of both can be heard."""

MIN_PIECE_S = 0.3
"""Shortest piece that is compared."""

QUIET = 0.1
"""A piece of the speech below this fraction of the whole one's level is a pause, which cannot be compared."""

MAX_SHIFT_S = 1.0
"""Largest offset of a part in the heard speech from its place in the said one."""


def likeness_of(said: bytes, heard: bytes, parts: int = 1, streams_s: Sequence[float] = ()) -> float | None:
    """Return the correlation of heard with said speech, both WAV files; None if only silence was said.

    For a call with changes it is the lowest of its `parts`, which begin with the changes. Each part is aligned by
    itself, as codecs delay speech by different times. So are the pieces of a part between the beginnings of
    streams, which are late on a busy machine. `streams_s` are the lengths of the speech in each stream.
    """
    spoken, other = read_wav(said), read_wav(heard)
    if parts == 1:
        return correlate(spoken, other).coefficient if any(spoken.data) else None
    began_s = list(accumulate(streams_s[:-1]))
    return min((_part_likeness(spoken, other, *part) for part in _loud_parts(spoken, parts, began_s)), default=None)


def _loud_parts(spoken: Pcm, parts: int, began_s: Sequence[float]) -> Iterable[tuple[float, float]]:
    """Yield beginning and end, in seconds, of the pieces of a speech that are no pause, without their changes."""
    for number in range(parts):
        start_s = number * spoken.duration_s / parts + CHANGE_S
        end_s = (number + 1) * spoken.duration_s / parts - CHANGE_S / 4
        for piece in _pieces(start_s, end_s, began_s):
            if spoken.part(*piece).level > QUIET * spoken.level:
                yield piece


def _pieces(start_s: float, end_s: float, began_s: Sequence[float]) -> Sequence[tuple[float, float]]:
    """Return the pieces of a part between the beginnings of streams: those that are long enough, or the longest."""
    inside = [at_s for at_s in began_s if start_s - SETTLE_S < at_s < end_s + SETTLE_S]
    starts = [start_s, *(max(start_s, at_s + SETTLE_S) for at_s in inside)]
    ends = [*(min(end_s, at_s - SETTLE_S) for at_s in inside), end_s]
    pieces = sorted(zip(starts, ends, strict=True), key=lambda piece: piece[1] - piece[0])
    return [piece for piece in pieces if piece[1] - piece[0] >= MIN_PIECE_S] or pieces[-1:]


def _part_likeness(spoken: Pcm, heard: Pcm, start_s: float, end_s: float) -> float:
    around = heard.part(max(0.0, start_s - MAX_SHIFT_S), end_s + MAX_SHIFT_S)
    return correlate(spoken.part(start_s, end_s), around).coefficient
