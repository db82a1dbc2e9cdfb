"""The video of a session description: what we offer, and which of an offer's sections is taken up."""

from pathlib import Path

import pytest

from voice_dpki.sip.offer_answer import answer_to
from voice_dpki.sip.sdp import PLAIN_PROTOCOLS, SECURE_PROTOCOLS, RtpMap, SessionDescription, audio_description
from voice_dpki.sip.video import video_section, video_to_take, vp8_type

VECTORS = Path(__file__).parents[1] / "vectors" / "sdp"
SESSION = "v=0\no=- 1 1 IN IP4 127.0.0.2\ns=-\nc=IN IP4 127.0.0.2\nt=0 0\na=key-mgmt:mikey S\n"
AUDIO = "m=audio 5000 RTP/SAVP 0\n"
VP8 = "m=video 5002 RTP/SAVPF 97 96\na=rtpmap:97 H264/90000\na=rtpmap:96 vp8/90000\n"
H264 = "m=video 5004 RTP/SAVP 98\na=rtpmap:98 H264/90000\n"
OWN = "a=key-mgmt:mikey O\n"


@pytest.mark.parametrize(
    ("sections", "audio", "keyed", "taken"),
    [
        (AUDIO + VP8, 0, True, 1),
        (VP8 + AUDIO, 1, True, 0),
        (AUDIO + H264 + VP8, 0, True, 2),
        (AUDIO + H264, 0, True, None),
        (AUDIO, 0, True, None),
        (AUDIO + VP8.replace("5002", "0"), 0, True, None),
        (AUDIO + VP8.replace("SAVPF", "AVP"), 0, True, None),
        (AUDIO + VP8 + OWN, 0, True, None),
        (AUDIO + OWN + VP8, 0, True, None),
        (AUDIO + VP8.replace("m=video", "m=audio"), 0, True, None),
        ((AUDIO + VP8).replace("SAVP", "AVP"), 0, False, 1),
    ],
)
def test_which_video_is_taken_up(sections: str, audio: int, keyed: bool, taken: int | None) -> None:
    offer = SessionDescription.parse((SESSION + sections).encode())
    protocols = SECURE_PROTOCOLS if keyed else PLAIN_PROTOCOLS
    assert video_to_take(offer, audio, protocols, keyed=keyed) == taken


def test_the_shared_description_is_answered_section_by_section() -> None:
    offer = SessionDescription.parse((VECTORS / "sdp-audio-video.sdp").read_bytes())
    own = audio_description("127.0.0.3", 4000, [RtpMap(0, "PCMU/8000")], session_id=1, key_mgmt=["mikey A"])
    video = video_section(4002, keyed=True, payload_type=vp8_type(offer.media[1]) or 0)
    answer = answer_to(offer, 0, own, {1: video})
    assert [section.serialize()[0] for section in answer.media] == [
        "m=audio 4000 RTP/SAVP 0",
        "m=video 4002 RTP/SAVP 96",
    ]
    assert vp8_type(answer.media[1]) == 96
    assert answer.address_of(answer.media[1]) == ("127.0.0.3", 4002)
    assert answer.control_address_of(answer.media[1]) == ("127.0.0.3", 4003)
    refused = answer_to(offer, 0, own)
    assert (refused.media[1].port, vp8_type(refused.media[1])) == (0, None)
