"""Calls with video over a real proxy: one MIKEY message keys both media, and every picture is seen."""

import asyncio
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from tests.sip_testbed.test_phones import CALLEE, TIMEOUT_S, Domain
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import End, end_of
from voice_dpki.media.pictures import number_in

GCM = "AEAD_AES_128_GCM"
SPOKEN_S = 2.0


async def call(
    domain: Domain, folder: Path, srtp: str = GCM, *, both: bool = True, spoken_s: float = SPOKEN_S, **options: Any
) -> list[Any]:
    """A call of two telephones, of which the caller has video, and the callee, too, unless not `both`."""
    caller = await end_of(domain, folder, "caller", srtp=srtp, spoken_s=spoken_s, video=True, **options)
    options.pop("changes", None)
    callee = await end_of(domain, folder, "callee", srtp=srtp, spoken_s=spoken_s, video=both, **options)
    result = await asyncio.wait_for(caller.telephone.call(f"sip:+{CALLEE}@a.example"), TIMEOUT_S)
    async with asyncio.timeout(TIMEOUT_S):
        while not (folder / "callee.json").exists():
            await asyncio.sleep(0.01)
    assert (result.established, result.reason) == (True, None)
    return [json.loads((folder / f"{name}.json").read_text()) for name in ("caller", "callee")] + [caller, callee]


@pytest.mark.parametrize(("srtp", "mode"), [(GCM, "psk"), ("AES_CM_128_HMAC_SHA1_80", "dhhmac"), ("none", "psk")])
async def test_both_are_seen_and_heard(domain: Domain, tmp_path: Path, srtp: str, mode: str) -> None:
    *results, caller, callee = await call(domain, tmp_path, srtp, mode=mode)
    for result, name in zip(results, ("caller", "callee"), strict=True):
        told, speech = result["video"], result["media"]
        assert told["sent"] == 20
        assert told["shown"] >= 18
        assert (told["unauthentic"], told["malformed"], speech["unauthentic"]) == (0, 0, 0)
        assert told["srtp"] == (None if srtp == "none" else srtp)
        with av.open(io.BytesIO((tmp_path / f"{name}.seen.webm").read_bytes()), "r") as container:
            seen = [number_in(frame) for frame in container.decode(video=0)]
        assert len(seen) == told["shown"]
        assert None not in seen
    rtp = [event for end in (caller, callee) for event in end.events if event["kind"] == "rtp"]
    assert len(rtp) > 4 * 20
    assert all((event["wire"] != event["clear"]) == (srtp != "none") for event in rtp)


async def test_hold_and_new_keys_go_for_both_media(domain: Domain, tmp_path: Path) -> None:
    spoken_s = 6.0  # so that a busy machine, which answers late, has made the changes before the end
    changes = ("hold", "resume", "rekey")
    caller, callee, *_ = await call(domain, tmp_path, changes=changes, spoken_s=spoken_s)
    assert caller["changes"] == callee["changes"] == ["hold", "resume", "rekey"]
    for result in (caller, callee):
        told = result["video"]
        assert told["unauthentic"] == 0
        assert 10 <= told["sent"] <= 10 * spoken_s - 2, "on hold nothing is sent"
    assert callee["video"]["shown"] >= caller["video"]["sent"] - 4
    assert caller["video"]["shown"] >= callee["video"]["sent"] - 4


async def test_a_telephone_without_video_takes_the_speech_alone(domain: Domain, tmp_path: Path) -> None:
    caller, callee, *_ = await call(domain, tmp_path, both=False)
    assert (caller["video"], callee["video"]) == (None, None)
    assert any("takes no video" in remark for remark in caller["remarks"])
    assert caller["media"]["received"] > 0
    assert caller["media"]["unauthentic"] == callee["media"]["unauthentic"] == 0


# What somebody on the path makes of the descriptions, of which MIKEY covers the keys alone: never a wrong key.


def lines_of(body: bytes) -> tuple[bytes, bytes, bytes]:
    """A description's session part, and its sections of audio and of video."""
    head, audio, video = re.split(rb"(?=^m=)", body, flags=re.MULTILINE)
    return head, audio, video


def swapped(body: bytes) -> bytes:
    head, audio, video = lines_of(body)
    return head + video + audio


def added_before(body: bytes) -> bytes:
    head, audio, video = lines_of(body)
    return head + video.replace(b"m=video ", b"m=video 1") + audio + video


def video_before_audio_alone(body: bytes) -> bytes:
    """The video's place is taken by a section that hides the audio behind both of the message's."""
    head, audio, video = lines_of(body)
    return head + video + video + audio


OFFERS: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda body: b"".join(lines_of(body)[:2]), "crypto sessions"),
    (lambda body: re.sub(rb"m=video \d+", b"m=video 0", body), "crypto sessions"),
    (lambda body: body.replace(b"RTP/SAVPF", b"RTP/AVPF"), "crypto sessions"),
    (lambda body: body.replace(b"RTP/SAVP ", b"RTP/AVP "), "media in clear are refused"),
    (video_before_audio_alone, "does not key media section 3"),
    (lambda body: body.replace(b"m=audio", b"m=video"), "no audio"),
]


async def altered_call(
    domain: Domain, folder: Path, monkeypatch: pytest.MonkeyPatch, offer: Callable[[bytes], bytes]
) -> tuple[Any, End, End]:
    """A call whose offer is altered on its way; returns the caller's result and both ends."""
    caller = await end_of(domain, folder, "caller", srtp=GCM, spoken_s=SPOKEN_S, video=True)
    callee = await end_of(domain, folder, "callee", srtp=GCM, spoken_s=SPOKEN_S, video=True)
    invite = domain.caller.invite

    async def altered(target: str, sdp: bytes, *rest: Any) -> Any:
        assert offer(sdp) != sdp
        return await invite(target, offer(sdp), *rest)

    monkeypatch.setattr(domain.caller, "invite", altered)
    result = await asyncio.wait_for(caller.telephone.call(f"sip:+{CALLEE}@a.example"), TIMEOUT_S)
    return result, caller, callee


@pytest.mark.parametrize(("offer", "reason"), OFFERS)
async def test_an_offer_whose_sections_were_changed_is_refused(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offer: Callable[[bytes], bytes], reason: str
) -> None:
    result, caller, callee = await altered_call(domain, tmp_path, monkeypatch, offer)
    assert (result.status, result.established) == (488, False)
    assert reason in (result.reason or "")
    assert [event for end in (caller, callee) for event in end.events if event["kind"] == "rtp"] == []


@pytest.mark.parametrize("offer", [swapped, added_before])
async def test_an_answer_to_other_sections_than_were_offered_ends_the_call(
    domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offer: Callable[[bytes], bytes]
) -> None:
    result, caller, callee = await altered_call(domain, tmp_path, monkeypatch, offer)
    assert result.established is False
    rtp = [event for end in (caller, callee) for event in end.events if event["kind"] == "rtp"]
    assert all(event["wire"] != event["clear"] for event in rtp)
    assert result.media is None, "the caller has played nothing"
