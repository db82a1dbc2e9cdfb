"""Answers to offers that have more, other or fewer media than we take up (RFC 3264)."""

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.sip.offer_answer import answer_to, audio_to_take, check_answer, check_next_offer
from voice_dpki.sip.sdp import (
    PLAIN_PROTOCOLS,
    SECURE_PROTOCOLS,
    RtpMap,
    SessionDescription,
    audio_description,
    same_encoding,
)

HEAD = "v=0\no=- 1 1 IN IP4 127.0.0.2\ns=-\nc=IN IP4 127.0.0.2\nt=3724394400 3724398000\n"
KEYED = HEAD + "a=key-mgmt:mikey AQAF\n"
AUDIO, VIDEO = "m=audio 5000 RTP/SAVP 0\n", "m=video 5002/2 RTP/SAVPF 96\na=rtpmap:96 VP8/90000\n"
OWN = audio_description("127.0.0.9", 6000, [RtpMap(0, "PCMU/8000")], session_id=5, key_mgmt=["mikey BBBB"])


def parse(text: str) -> SessionDescription:
    return SessionDescription.parse(text.encode())


def answer(offer: str, own: SessionDescription = OWN) -> str:
    described = parse(offer)
    at = audio_to_take(described, SECURE_PROTOCOLS, "PCMU/8000")
    made = answer_to(described, at, own)
    check_answer(described, made)
    assert SessionDescription.parse(made.serialize()) == made
    return made.serialize().decode().replace("\r\n", "\n")


def sections(sdp: str) -> list[str]:
    return [line for line in sdp.split("\n") if line.startswith("m=")]


@pytest.mark.parametrize(
    ("media", "answered"),
    [
        (AUDIO + VIDEO, ["m=audio 6000 RTP/SAVP 0", "m=video 0 RTP/SAVPF 96"]),
        (VIDEO + AUDIO, ["m=video 0 RTP/SAVPF 96", "m=audio 6000 RTP/SAVP 0"]),
        (AUDIO + AUDIO, ["m=audio 6000 RTP/SAVP 0", "m=audio 0 RTP/SAVP 0"]),
        (AUDIO.replace("5000", "0") + AUDIO, ["m=audio 0 RTP/SAVP 0", "m=audio 6000 RTP/SAVP 0"]),
        (AUDIO.replace("SAVP", "AVP") + AUDIO, ["m=audio 0 RTP/AVP 0", "m=audio 6000 RTP/SAVP 0"]),
        (AUDIO.replace(" 0", " 8") + AUDIO, ["m=audio 0 RTP/SAVP 8", "m=audio 6000 RTP/SAVP 0"]),
        (AUDIO.replace("SAVP", "SAVPF"), ["m=audio 6000 RTP/SAVPF 0"]),
        (AUDIO + "m=text 0 RTP/AVP 98 99\n", ["m=audio 6000 RTP/SAVP 0", "m=text 0 RTP/AVP 98 99"]),
        ("m=application 9 UDP/BFCP *\n" + AUDIO, ["m=application 0 UDP/BFCP *", "m=audio 6000 RTP/SAVP 0"]),
    ],
)
def test_an_answer_has_the_sections_of_its_offer(media: str, answered: list[str]) -> None:
    assert sections(answer(KEYED + media)) == answered


def test_an_answer_has_the_time_of_its_offer() -> None:
    assert "\nt=3724394400 3724398000\n" in answer(KEYED + AUDIO)
    assert "\nt=0 0\n" in answer((KEYED + AUDIO).replace("t=3724394400 3724398000\n", ""))


def test_key_management_is_answered_where_it_was_offered() -> None:
    of_session = answer(KEYED + AUDIO + VIDEO)
    assert of_session.index("a=key-mgmt:mikey BBBB") < of_session.index("m=audio")
    of_media = answer(HEAD + VIDEO + AUDIO + "a=key-mgmt:mikey AQAF\n")
    assert of_media.index("a=key-mgmt:mikey BBBB") > of_media.index("m=audio")
    assert of_media.count("key-mgmt") == 1
    overridden = answer(HEAD + "a=key-mgmt:mikey AAAA\n" + AUDIO + "a=key-mgmt:mikey AQAF\n")
    assert overridden.index("a=key-mgmt:mikey BBBB") > overridden.index("m=audio")


def test_rtcp_is_multiplexed_only_where_that_was_offered() -> None:
    assert "a=rtcp-mux\n" in answer(KEYED + AUDIO + "a=rtcp-mux\n")
    assert "rtcp-mux" not in answer(KEYED + AUDIO + VIDEO + "a=rtcp-mux\n")


def test_without_a_section_that_fits_the_first_audio_explains_why() -> None:
    offer = parse(KEYED + VIDEO + AUDIO.replace(" 0", " 8") + AUDIO.replace(" 0", " 9"))
    assert audio_to_take(offer, SECURE_PROTOCOLS, "PCMU/8000") == 1
    assert audio_to_take(offer, PLAIN_PROTOCOLS, "G722/8000") == 1


@pytest.mark.parametrize("media", ["", VIDEO, AUDIO.replace("5000", "0")])
def test_an_offer_without_audio(media: str) -> None:
    with pytest.raises(MalformedError, match="no audio"):
        audio_to_take(parse(KEYED + media), SECURE_PROTOCOLS, "PCMU/8000")


@pytest.mark.parametrize("media", ["", VIDEO, AUDIO + AUDIO, AUDIO + VIDEO, VIDEO + AUDIO])
def test_an_answer_with_other_sections_is_refused(media: str) -> None:
    with pytest.raises(MalformedError, match="RFC 3264"):
        check_answer(OWN, parse(KEYED + media))


def test_encodings_with_and_without_their_one_channel() -> None:
    assert parse(HEAD + AUDIO + "a=rtpmap:0 PCMU/8000/1\n").audio.rtpmaps[0].encoding == "PCMU/8000/1"
    assert same_encoding("PCMU/8000", "pcmu/8000/1")
    assert not same_encoding("opus/48000/2", "opus/48000")
    assert not same_encoding("PCMU/8000", "PCMU/16000")


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ("", ("127.0.0.2", 5001)),
        ("a=rtcp:53020\n", ("127.0.0.2", 53020)),
        ("a=rtcp:65535\n", ("127.0.0.2", 65_535)),
        ("a=rtcp:65535 IN IP4 192.0.2.7\n", ("192.0.2.7", 65_535)),
        ("a=rtcp:53020 IN IP4 192.0.2.7\n", ("192.0.2.7", 53020)),
        ("a=rtcp:53020 IN IP6 2001:db8::7\n", ("2001:db8::7", 53020)),
        ("a=rtcp-mux\na=rtcp:5000\n", ("127.0.0.2", 5000)),
    ],
)
def test_where_rtcp_goes(lines: str, address: tuple[str, int]) -> None:
    """The examples are those of RFC 3605 §2.1."""
    assert parse(HEAD + AUDIO + lines).audio_control_address == address


@pytest.mark.parametrize(
    "value",
    ["", "x", "65536", "65536 IN IP4 192.0.2.7", "5 IN IP4", "5 IN IP4 192.0.2.7 6", "5 IN IP5 192.0.2.7", "5 x"],
)
def test_a_malformed_rtcp_attribute(value: str) -> None:
    with pytest.raises(MalformedError):
        _ = parse(HEAD + AUDIO + f"a=rtcp:{value}\n").audio_control_address


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (AUDIO + VIDEO, None),
        (AUDIO + VIDEO + AUDIO, None),
        (AUDIO, "fewer media sections"),
        (VIDEO + AUDIO, "other media"),
        (AUDIO + VIDEO.replace("m=video 5002", "m=video 0"), None),
        (AUDIO.replace("m=audio", "m=message") + VIDEO, "other media"),
    ],
)
def test_sections_of_the_next_offer(offer: str, reason: str | None) -> None:
    """RFC 3264 §8: sections keep their places, and may be refused or added."""
    before = parse(HEAD + AUDIO + VIDEO)
    if reason is None:
        check_next_offer(before, parse(HEAD + offer))
        return
    with pytest.raises(MalformedError, match=reason):
        check_next_offer(before, parse(HEAD + offer))


def test_the_place_of_a_refused_section_may_be_taken() -> None:
    refused = parse(HEAD + AUDIO + VIDEO.replace("m=video 5002", "m=video 0"))
    check_next_offer(refused, parse(HEAD + AUDIO + AUDIO))
