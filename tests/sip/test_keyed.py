"""Which sections a key management message keys, by its level and by the sections that are in use."""

from pathlib import Path

import pytest

from voice_dpki.sip.keyed import key_mgmt_of, keyed_with
from voice_dpki.sip.sdp import SessionDescription

VECTORS = Path(__file__).parents[1] / "vectors" / "sdp"
SESSION = "v=0\no=- 1 1 IN IP4 127.0.0.2\ns=-\nc=IN IP4 127.0.0.2\nt=0 0\na=key-mgmt:mikey S\n"
AUDIO, VIDEO = "m=audio 5000 RTP/SAVP 0\n", "m=video 5002 RTP/SAVPF 96\n"
OWN = "a=key-mgmt:mikey O\n"


@pytest.mark.parametrize(
    ("sections", "at", "keyed", "value"),
    [
        (AUDIO, 0, (0,), "mikey S"),
        (AUDIO + VIDEO, 1, (0, 1), "mikey S"),
        (VIDEO + AUDIO, 1, (0, 1), "mikey S"),
        (AUDIO + OWN + VIDEO, 0, (0,), "mikey O"),
        (AUDIO + OWN + VIDEO, 1, (1,), "mikey S"),
        (AUDIO + VIDEO + OWN + AUDIO, 2, (0, 2), "mikey S"),
        (VIDEO.replace("5002", "0") + AUDIO, 1, (1,), "mikey S"),
        (VIDEO.replace("SAVPF", "AVP") + AUDIO, 1, (1,), "mikey S"),
        (AUDIO.replace("SAVP", "AVP") + VIDEO, 0, (1,), "mikey S"),
        (AUDIO + OWN + VIDEO + OWN, 1, (1,), "mikey O"),
    ],
)
def test_levels(sections: str, at: int, keyed: tuple[int, ...], value: str) -> None:
    described = SessionDescription.parse((SESSION + sections).encode())
    assert keyed_with(described, at) == keyed
    assert key_mgmt_of(described, at) == (value,)


def test_the_shared_descriptions() -> None:
    both = SessionDescription.parse((VECTORS / "sdp-audio-video.sdp").read_bytes())
    assert keyed_with(both, 0) == keyed_with(both, 1) == (0, 1)
    overridden = SessionDescription.parse((VECTORS / "sdp-media-overrides.sdp").read_bytes())
    assert keyed_with(overridden, 0) == (0,)
    assert key_mgmt_of(overridden, 0) != overridden.attributes("key-mgmt")
