"""Comfort noise in the descriptions of calls, and in a call between two telephones."""

import argparse
import asyncio
from base64 import b64decode
from pathlib import Path

import pytest

from sip_testbed.call import add_arguments
from sip_testbed.digits import further_maps, take_answered, take_offered
from tests.sip_testbed.test_phones import CALLEE, TIMEOUT_S, Domain
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import end_of, results
from voice_dpki.media.codecs import CODECS
from voice_dpki.media.keypad import Keypad
from voice_dpki.media.recording import read_wav
from voice_dpki.sip.sdp import RtpMap, SessionDescription, audio_description

PCMU, OPUS = CODECS["PCMU"], CODECS["opus"]


@pytest.mark.parametrize(
    ("srtp", "settings", "noise"),
    [
        ("none", "comfort_noise = true\n", True),
        ("AES_CM_128_HMAC_SHA1_80", "comfort_noise = true\n", True),
        ("none", "", False),
    ],
)
async def test_pauses_in_a_call(domain: Domain, tmp_path: Path, srtp: str, settings: str, noise: bool) -> None:
    """The caller's sentence has a pause of 0.4 s after its first word; without the setting it is sent as speech."""
    caller = await end_of(domain, tmp_path, "caller", srtp=srtp, spoken_s=1.6, settings=settings)
    callee = await end_of(domain, tmp_path, "callee", srtp=srtp, spoken_s=1.6, settings=settings)
    async with asyncio.timeout(TIMEOUT_S):
        assert (await caller.telephone.call(f"sip:+{CALLEE}@a.example")).established
        while not (tmp_path / "callee.json").exists():
            await asyncio.sleep(0.01)
    for end, result in zip((caller, callee), results(tmp_path), strict=True):
        assert result["media"]["other"] == 0
        types = [b64decode(event["clear"])[1] for event in end.events if event["kind"] == "rtp"]
        assert (13 in types) == noise
        assert (types.count(0) + types.count(128) < 75) == noise
    heard = read_wav((tmp_path / "callee.heard.wav").read_bytes())
    assert heard.part(1.0, 1.1).level < heard.level / 50


def described(*maps: RtpMap) -> SessionDescription:
    return SessionDescription.parse(audio_description("127.0.0.1", 4000, maps, session_id=1).serialize())


def test_noise_is_offered_beside_codecs_of_its_clock_by_its_static_type_alone() -> None:
    """The INVITE is to stay in one UDP packet, so there is no rtpmap, which payload type 13 does not need."""
    assert further_maps(Keypad(), OPUS) == []
    maps = further_maps(Keypad(), PCMU)
    assert maps == [RtpMap(13, "CN/8000")]
    assert described(RtpMap(0, "PCMU/8000"), *maps).audio.serialize() == (
        "m=audio 4000 RTP/AVP 0 13",
        "a=rtpmap:0 PCMU/8000",
    )


def test_noise_is_answered_under_the_type_of_the_offer_and_only_there() -> None:
    keypad = Keypad(pauses=True)
    take_offered(keypad, described(RtpMap(0, "PCMU/8000"), RtpMap(98, "cn/8000/1")), PCMU)
    assert further_maps(keypad, PCMU) == [RtpMap(98, "CN/8000")]
    assert (keypad.agreed.noise_sends, keypad.agreed.noise_receives) == (98, 98)
    take_offered(keypad, described(RtpMap(0, "PCMU/8000")), PCMU)
    assert further_maps(keypad, PCMU) == []
    assert (keypad.agreed.noise_sends, keypad.agreed.noise_receives) == (None, None)


def test_an_answer_says_whether_noise_is_taken() -> None:
    keypad = Keypad(pauses=True)
    take_answered(keypad, SessionDescription.parse(b"v=0\nm=audio 9 RTP/AVP 0 13\n"), PCMU)
    assert (keypad.agreed.noise_sends, keypad.agreed.noise_receives) == (13, 13)
    take_answered(keypad, SessionDescription.parse(b"v=0\nm=audio 9 RTP/AVP 0\n"), PCMU)
    assert (keypad.agreed.noise_sends, keypad.agreed.noise_receives) == (None, None)


@pytest.mark.parametrize("given", [[], ["--comfort-noise"]])
def test_the_command_sends_pauses_as_noise_if_it_is_told_to(given: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(given).comfort_noise is bool(given)
