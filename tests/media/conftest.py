"""Keys for two ends of a stream, as MIKEY would agree them, and a piece of the speech that calls use."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav
from voice_dpki.mikey.keys import SrtpKeys, StreamKey
from voice_dpki.mikey.policy import SrtpProfile

SPEECH = Path(__file__).parents[2] / "sip_testbed" / "speech"


@dataclass
class CountingRandom:
    """Random bytes that are the same in every run."""

    seed: str = ""
    drawn: int = 0

    def token(self, size: int) -> bytes:
        self.drawn += 1
        return hashlib.shake_256(f"{self.seed}/{self.drawn}".encode()).digest(size)


def keys_for(profile: SrtpProfile, seed: str = "keys") -> tuple[SrtpKeys, SrtpKeys]:
    random = CountingRandom(seed)
    one, other = (
        StreamKey(ssrc, random.token(profile.key_bytes), random.token(profile.salt_bytes)) for ssrc in (1111, 2222)
    )
    return SrtpKeys(profile, send=one, receive=other), SrtpKeys(profile, send=other, receive=one)


@pytest.fixture
def new_keys() -> Callable[..., tuple[SrtpKeys, SrtpKeys]]:
    return keys_for


@pytest.fixture
def random() -> CountingRandom:
    return CountingRandom()


@pytest.fixture(scope="session")
def speech() -> Callable[[str, float], Pcm]:
    """The first seconds of the caller's or callee's sentence, and then 0.1 s of silence, as the whole has."""

    def read(who: str, seconds: float) -> Pcm:
        pcm = read_wav((SPEECH / f"{who}.wav").read_bytes())
        return Pcm(pcm.rate, pcm.data[: 2 * int(seconds * pcm.rate)] + bytes(2 * pcm.rate // 10))

    return read
