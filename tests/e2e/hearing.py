"""How much of what was said in a call with changes is found in a recording."""

from pathlib import Path

from voice_dpki.media.correlate import correlate
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav

SPEECH_S = 2.5
LONG_SPEECH_S, PART_S, AUDIBLE = 4.4, 0.4, 300
"""For calls with changes: a part is found if it is loud enough to be told from others."""


def heard_around_a_hold(said: Path, recording: bytes) -> float:
    """How like it is what was said before and after a hold in the middle third of the speech; the least of both."""
    spoken, other = read_wav(said.read_bytes()), read_wav(recording)
    parts = ((0.0, SPEECH_S * 0.25), (SPEECH_S * 0.75, SPEECH_S * 0.9))  # the last frames may stay in a buffer
    return min(
        correlate(spoken.part(start_s, end_s), other.part(max(0.0, start_s - 1), end_s + 1)).coefficient
        for start_s, end_s in parts
    )


def heard_in_parts(said: Path, recording: bytes) -> list[float]:
    """How like it each part of what was said can be found, by their times; parts without speech are left out.

    A change of the streams moves what comes after it in the recording, so the whole is not looked for.
    """
    spoken, other = read_wav(said.read_bytes()), read_wav(recording)
    found = []
    for at in range(int(LONG_SPEECH_S / PART_S)):
        part = spoken.part(at * PART_S, (at + 1) * PART_S)
        if rms(part) > AUDIBLE:
            near = other.part(max(0.0, at * PART_S - 1), (at + 1) * PART_S + 2)
            found.append(correlate(part, near).coefficient)
    return found


def assert_heard_throughout(said: Path, recording: bytes) -> None:
    """Assert that speech is heard from the beginning to the end, but for a part around each change."""
    parts = heard_in_parts(said, recording)
    assert sum(part > 0.8 for part in parts) >= len(parts) - 3, parts
    assert max(parts[:3]) > 0.8, parts
    assert max(parts[-3:]) > 0.8, parts


def assert_is_of(said: Pcm, recording: Pcm) -> None:
    """Assert that most of a recording is of a speech, which can be said over and over, the end into the start."""
    whole = int(recording.duration_s / PART_S + 0.01)  # 1.2 / 0.4 is a little less than 3
    parts = [recording.part(at * PART_S, (at + 1) * PART_S) for at in range(whole)]
    again = Pcm(said.rate, said.data * 2)
    found = [correlate(part, again).coefficient for part in parts if rms(part) > AUDIBLE]
    assert found
    assert sum(part > 0.8 for part in found) > len(found) / 2, found


def rms(pcm: Pcm) -> float:
    samples = memoryview(pcm.data).cast("h")
    return float((sum(sample * sample for sample in samples) / max(1, len(samples))) ** 0.5)


def heard(said: Path, recording: bytes) -> float:
    return correlate(read_wav(said.read_bytes()), read_wav(recording)).coefficient
