"""The keys of one media section of several."""

import pytest

from sip_testbed.media_policy import Refusal, keys_of
from voice_dpki.mikey.keys import SrtpKeys, StreamKey
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.sip.sdp import SessionDescription

PROFILE = SrtpProfile.AES_CM_128_HMAC_SHA1_80
SESSION = "v=0\no=- 1 1 IN IP4 127.0.0.2\ns=-\nc=IN IP4 127.0.0.2\nt=0 0\na=key-mgmt:mikey S\n"
AUDIO, VIDEO, OWN = "m=audio 5000 RTP/SAVP 0\n", "m=video 5002 RTP/SAVP 96\n", "a=key-mgmt:mikey O\n"


def line(number: int) -> SrtpKeys:
    key, salt = bytes(16), bytes(14)
    return SrtpKeys(PROFILE, StreamKey(2 * number, key, salt), StreamKey(2 * number + 1, key, salt))


ONE = line(1)
TWO = SrtpKeys(PROFILE, ONE.send, ONE.receive, further=(line(2),))


@pytest.mark.parametrize(
    ("sections", "at", "keys", "found"),
    [
        (AUDIO, 0, ONE, 1),
        (AUDIO + VIDEO, 0, TWO, 1),
        (AUDIO + VIDEO, 1, TWO, 2),
        (AUDIO + VIDEO, 0, ONE, 1),
        (AUDIO + VIDEO, 1, ONE, None),
        (VIDEO + AUDIO, 1, TWO, 2),
        (VIDEO + AUDIO, 1, ONE, None),
        (VIDEO + AUDIO + OWN, 1, ONE, 1),
        (AUDIO.replace("SAVP", "AVP") + VIDEO, 0, ONE, None),
    ],
)
def test_a_section_has_the_keys_of_its_place(sections: str, at: int, keys: SrtpKeys, found: int | None) -> None:
    """A line that is put before the audio takes the audio's place, and never its keys."""
    described = SessionDescription.parse((SESSION + sections).encode())
    if found is not None:
        assert keys_of(keys, described, at) == line(found)
        return
    with pytest.raises(Refusal, match=f"media section {at + 1}"):
        keys_of(keys, described, at)
