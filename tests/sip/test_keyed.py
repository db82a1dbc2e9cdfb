"""Which sections a key management message keys, by its level and by the sections that are in use."""

from collections.abc import Callable
from pathlib import Path

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.sip.keyed import key_mgmt_of, keyed_with, signed_key_mgmt
from voice_dpki.sip.sdp import SessionDescription
from voice_dpki.stir.passport import key_mgmt_digests

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


KEYED = SESSION + AUDIO + VIDEO
OVERRIDDEN = SESSION + AUDIO + VIDEO + OWN
"""Voice under the session's key management, video under its own."""


@pytest.mark.parametrize(
    ("text", "signed"),
    [
        (SESSION + AUDIO, ("mikey S",)),
        (SESSION + AUDIO + OWN, ("mikey S", "mikey O")),
        (KEYED, ("mikey S", "m=audio RTP/SAVP", "m=video RTP/SAVPF")),
        (OVERRIDDEN, ("mikey S", "m=audio RTP/SAVP", "m=video RTP/SAVPF mikey O")),
        (OVERRIDDEN.replace("5000", "0"), ("mikey S", "m=audio 0 RTP/SAVP", "m=video RTP/SAVPF mikey O")),
        (
            OVERRIDDEN + "a=key-mgmt:other P\n",
            ("mikey S", "m=audio RTP/SAVP", "m=video RTP/SAVPF mikey O", "m=video RTP/SAVPF other P"),
        ),
        (KEYED.replace("a=key-mgmt:mikey S\n", ""), ()),
    ],
)
def test_what_is_signed(text: str, signed: tuple[str, ...]) -> None:
    assert signed_key_mgmt(SessionDescription.parse(text.encode())) == signed


ADDED = "m=audio 5004 RTP/SAVP 0\n"


@pytest.mark.parametrize("before", [KEYED, OVERRIDDEN])
@pytest.mark.parametrize(
    "change",
    [
        lambda sdp: sdp + ADDED,
        lambda sdp: sdp.replace(AUDIO, ADDED + AUDIO),
        lambda sdp: sdp.replace(AUDIO, ""),
        lambda sdp: sdp.replace(VIDEO, "").replace(OWN, ""),
        lambda sdp: SESSION + sdp.removeprefix(SESSION + AUDIO) + AUDIO,
        lambda sdp: sdp.replace("RTP/SAVPF", "RTP/AVPF"),
        lambda sdp: sdp.replace("RTP/SAVP 0", "RTP/AVP 0"),
        lambda sdp: sdp.replace("RTP/SAVPF", "RTP/SAVP"),
        lambda sdp: sdp.replace("m=video", "m=audio"),
        lambda sdp: sdp.replace("5002", "0"),
        lambda sdp: sdp.replace("a=key-mgmt:mikey S\n", "").replace(AUDIO, AUDIO + "a=key-mgmt:mikey S\n"),
        lambda sdp: sdp.replace(OWN, "") if OWN in sdp else sdp.replace(VIDEO, VIDEO + OWN),
        lambda sdp: sdp.replace("mikey S", "mikey T"),
    ],
)
def test_no_change_of_what_is_keyed_keeps_the_signature(before: str, change: Callable[[str], str]) -> None:
    one, other = (SessionDescription.parse(text.encode()) for text in (before, change(before)))
    assert one != other
    assert key_mgmt_digests(signed_key_mgmt(one)) != key_mgmt_digests(signed_key_mgmt(other))


def test_a_value_that_is_moved_to_another_section_is_not_the_signed_one() -> None:
    moved = SESSION + AUDIO + OWN + VIDEO
    one, other = (SessionDescription.parse(text.encode()) for text in (OVERRIDDEN, moved))
    assert one.key_mgmt == other.key_mgmt
    assert signed_key_mgmt(one) != signed_key_mgmt(other)


def test_what_an_sbc_rewrites_keeps_the_signature() -> None:
    rewritten = OVERRIDDEN.replace("127.0.0.2", "192.0.2.1").replace("500", "404").replace("0\n", "0\na=ptime:20\n")
    one, other = (SessionDescription.parse(text.encode()) for text in (OVERRIDDEN, rewritten))
    assert signed_key_mgmt(one) == signed_key_mgmt(other)


@pytest.mark.parametrize("at", [SESSION, AUDIO])
def test_a_value_that_reads_like_a_section_stands_in_for_none(at: str) -> None:
    """Else a description without the video would have the texts of one with it."""
    text = (SESSION + AUDIO).replace(at, f"{at}a=key-mgmt:m=audio RTP/SAVP\na=key-mgmt:m=video RTP/SAVPF\n")
    with pytest.raises(MalformedError, match="like a media section"):
        signed_key_mgmt(SessionDescription.parse(text.encode()))
