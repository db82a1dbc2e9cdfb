"""Ordinary telephones through the gateway: baresip with SDES, aiortc with DTLS-SRTP, and what is refused."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from sip_testbed.provision import CALLEE, CALLER, OPERATORS, aor
from tests.e2e.gateways import (
    NAME,
    RATE,
    Baresip,
    Raw,
    RtcPhone,
    Site,
    assert_keyed_and_told,
    baresip_account,
    report,
    speech,
)
from tests.e2e.hearing import (
    LONG_SPEECH_S,
    assert_heard_throughout,
    assert_is_of,
    heard,
    heard_around_a_hold,
)
from tests.e2e.sdes_phone import SdesPhone
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import read_wav, write_wav
from voice_dpki.sip.sdp import RtpMap, audio_description
from voice_dpki.wire.sip.user_agent import RegistrationError

CALLER_URI, CALLEE_URI = aor(CALLER, OPERATORS[0]), aor(CALLEE, OPERATORS[1])
CALL_INFO = f"<sip:{NAME}>;purpose=media-gateway;outside=dtls;inside=mikey;sip=unprotected"
"""What aiortc's telephone is told: our user agent speaks SIP over UDP for it."""


@pytest.mark.peer("baresip")
def test_baresip_is_called(site: Site, gateway: Any, spoken: Any, tmp_path: Path) -> None:
    gateway("sdes", md5=True)
    ours, theirs, out = spoken("caller"), spoken("callee"), tmp_path / "out"
    with Baresip.at(site, tmp_path / "baresip", theirs, baresip_account(site)) as baresip:
        baresip.wait_for("200 OK")
        assert site.telephone(out, ours, CALLEE_URI).wait_end(60) == 0
        baresip.wait_for("terminated (duration")
        assert "SRTP is Enabled (cryptosuite=AES_CM_128_HMAC_SHA1_80)" in baresip.log.read_text()
    assert_keyed_and_told(report(out))
    assert heard(theirs, (out / "caller.heard.wav").read_bytes()) > 0.95
    assert heard(ours, baresip.heard()) > 0.9


@pytest.mark.long
@pytest.mark.peer("baresip")
def test_baresip_is_called_with_dtls(site: Site, gateway: Any, spoken: Any, tmp_path: Path) -> None:
    """Without ICE, and from another address than its SDP says: it sends from any of this machine's."""
    gateway("dtls", md5=True)
    ours, theirs, out = spoken("caller"), spoken("callee"), tmp_path / "out"
    with Baresip.at(site, tmp_path / "baresip", theirs, baresip_account(site, media="dtls_srtp")) as baresip:
        baresip.wait_for("200 OK")
        assert site.telephone(out, ours, CALLEE_URI).wait_end(60) == 0
        baresip.wait_for("terminated (duration")
    assert_keyed_and_told(report(out))
    assert heard(theirs, (out / "caller.heard.wav").read_bytes()) > 0.95
    assert heard(ours, baresip.heard()) > 0.9


@pytest.mark.long
@pytest.mark.peer("baresip")
@pytest.mark.parametrize("media", ["srtp-mand", "dtls_srtp"])
def test_baresip_is_put_on_hold_and_heard_again(
    site: Site, gateway: Any, spoken: Any, tmp_path: Path, media: str
) -> None:
    """It speaks on while it is on hold, for however long that lasts, so its speech is said over and over."""
    gateway("sdes" if media == "srtp-mand" else "dtls", md5=True)
    ours, theirs, out = spoken("caller", LONG_SPEECH_S), tmp_path / "again.wav", tmp_path / "out"
    said = speech("callee", LONG_SPEECH_S)
    theirs.write_bytes(write_wav(Pcm(RATE, said.data * 20)))
    with Baresip.at(site, tmp_path / "baresip", theirs, baresip_account(site, media=media)) as baresip:
        baresip.wait_for("200 OK")
        assert site.telephone(out, ours, CALLEE_URI, ("hold", "resume")).wait_end(60) == 0
        baresip.wait_for("terminated (duration")
    found = report(out)
    assert found["changes"] == ["hold", "resume"]
    assert_keyed_and_told(found)
    assert found["media"]["lost"] == 0
    recording = read_wav((out / "caller.heard.wav").read_bytes())
    for each in (recording.part(0, 1.2), recording.part(recording.duration_s - 1.2, recording.duration_s)):
        assert_is_of(said, each)


@pytest.mark.peer("baresip")
def test_baresip_is_heard_under_new_keys_and_in_another_codec(
    site: Site, gateway: Any, spoken: Any, tmp_path: Path
) -> None:
    """MIKEY's keys are new each time: our telephone takes new ones for another codec, too. Those of SDES stay."""
    gateway("sdes", md5=True)
    ours, theirs, out = spoken("caller", LONG_SPEECH_S), spoken("callee", LONG_SPEECH_S), tmp_path / "out"
    account = baresip_account(site).replace("audio_codecs=PCMU", "audio_codecs=PCMU,PCMA")
    with Baresip.at(site, tmp_path / "baresip", theirs, account) as baresip:
        baresip.wait_for("200 OK")
        assert site.telephone(out, ours, CALLEE_URI, ("rekey", "pcma")).wait_end(60) == 0
        baresip.wait_for("terminated (duration")
        assert "Set audio decoder: PCMA" in baresip.log.read_text()
    found = report(out)
    assert found["changes"] == ["rekey", "pcma"]
    assert_keyed_and_told(found)
    assert_heard_throughout(theirs, (out / "caller.heard.wav").read_bytes())
    assert_heard_throughout(ours, baresip.heard())


@pytest.mark.long
def test_aiortc_hears_us_under_new_keys(site: Site, gateway: Any, spoken: Any, tmp_path: Path) -> None:
    """Its association goes on. It takes up no other codec in a call: it reads those of the first offer alone."""
    gateway("dtls", unprotected_sip=True)
    ours, theirs, out = spoken("caller", LONG_SPEECH_S), spoken("callee", LONG_SPEECH_S), tmp_path / "out"
    with RtcPhone.at(site, tmp_path / "rtc", theirs) as phone:
        phone.wait_for("registered")
        assert site.telephone(out, ours, CALLEE_URI, ("rekey", "rekey")).wait_end(60) == 0
        assert phone.wait_for("done")
    found = report(out)
    assert found["changes"] == ["rekey", "rekey"]
    assert_keyed_and_told(found)
    assert_heard_throughout(theirs, (out / "caller.heard.wav").read_bytes())
    assert_heard_throughout(ours, phone.heard.read_bytes())


@pytest.mark.long
def test_aiortc_is_put_on_hold_and_hears_us_again(site: Site, gateway: Any, spoken: Any, tmp_path: Path) -> None:
    gateway("dtls", unprotected_sip=True)
    ours, theirs, out = spoken("caller"), spoken("callee"), tmp_path / "out"
    with RtcPhone.at(site, tmp_path / "rtc", theirs) as phone:
        phone.wait_for("registered")
        assert site.telephone(out, ours, CALLEE_URI, ("hold", "resume")).wait_end(60) == 0
        assert phone.wait_for("done")
    found = report(out)
    assert found["changes"] == ["hold", "resume"]
    assert_keyed_and_told(found)
    assert heard_around_a_hold(ours, phone.heard.read_bytes()) > 0.9


@pytest.mark.long
@pytest.mark.peer("baresip")
def test_baresip_puts_us_on_hold_and_takes_us_up_again(
    site: Site, gateway: Any, spoken: Any, tmp_path: Path
) -> None:
    gateway("sdes", md5=True)
    ours, theirs, out = spoken("caller"), spoken("callee"), tmp_path / "out"
    with Baresip.at(site, tmp_path / "baresip", theirs, baresip_account(site)) as baresip:
        baresip.wait_for("200 OK")
        telephone = site.telephone(out, ours, CALLEE_URI)
        baresip.wait_for("Call established")
        baresip.command("hold")
        time.sleep(0.5)
        baresip.command("resume")
        assert telephone.wait_end(60) == 0
        baresip.wait_for("terminated (duration")
    found = report(out)
    assert found["changes"] == ["hold", "resume"]
    assert_keyed_and_told(found)


@pytest.mark.long
@pytest.mark.peer("baresip")
def test_baresip_calls(site: Site, gateway: Any, spoken: Any, tmp_path: Path) -> None:
    gateway("sdes", md5=True)
    ours, theirs, out = spoken("caller"), spoken("callee"), tmp_path / "out"
    site.telephone(out, ours).wait_ready()
    with Baresip.at(site, tmp_path / "baresip", theirs, baresip_account(site)) as baresip:
        baresip.wait_for("200 OK")
        baresip.command("dial", CALLER_URI)
        baresip.wait_for("terminated (duration")
    assert_keyed_and_told(report(out))
    assert heard(theirs, (out / "caller.heard.wav").read_bytes()) > 0.95
    assert heard(ours, baresip.heard()) > 0.9


def test_aiortc_calls(site: Site, gateway: Any, spoken: Any, tmp_path: Path) -> None:
    gateway("dtls", unprotected_sip=True)
    ours, theirs, out = spoken("caller"), spoken("callee"), tmp_path / "out"
    site.telephone(out, ours).wait_ready()
    with RtcPhone.at(site, tmp_path / "rtc", theirs, target=CALLER_URI, talk_s=4.5) as phone:
        assert phone.wait_for("status") == 200
        assert phone.said[-1]["call_info"] == CALL_INFO
        assert phone.wait_for("done")
        assert {"state": "connected"} in phone.said
    assert_keyed_and_told(report(out))
    assert heard(theirs, (out / "caller.heard.wav").read_bytes()) > 0.95
    assert heard(ours, phone.heard.read_bytes()) > 0.9


@pytest.mark.long
def test_aiortc_is_called(site: Site, gateway: Any, spoken: Any, tmp_path: Path) -> None:
    gateway("dtls", unprotected_sip=True)
    ours, theirs, out = spoken("caller"), spoken("callee"), tmp_path / "out"
    with RtcPhone.at(site, tmp_path / "rtc", theirs) as phone:
        phone.wait_for("registered")
        assert site.telephone(out, ours, CALLEE_URI).wait_end(60) == 0
        assert phone.wait_for("done")
    called = next(said for said in phone.said if "from_" in said)
    assert called["from_"].startswith('"encrypted to the gateway only" ')
    assert called["call_info"] == CALL_INFO
    assert "verstat=TN-Validation-Passed" in called["asserted"]
    assert_keyed_and_told(report(out))
    assert heard(theirs, (out / "caller.heard.wav").read_bytes()) > 0.95
    assert heard(ours, phone.heard.read_bytes()) > 0.9


@pytest.mark.long
@pytest.mark.parametrize("calls", [True, False])
def test_a_fingerprint_of_another_certificate_ends_the_call(
    site: Site, gateway: Any, spoken: Any, tmp_path: Path, calls: bool
) -> None:
    gateway("dtls", unprotected_sip=True)
    ours, theirs, out = spoken("caller"), spoken("callee"), tmp_path / "out"
    why = "the certificate of the DTLS handshake is not that of the SDP's fingerprint"
    telephone = site.telephone(out, ours) if calls else None
    if telephone is not None:
        telephone.wait_ready()
    told: dict[str, object] = {"target": CALLER_URI} if calls else {}
    with RtcPhone.at(site, tmp_path / "rtc", theirs, lies=True, **told) as phone:
        phone.wait_for("registered")
        if not calls:
            assert site.telephone(out, ours, CALLEE_URI).wait_end(60) == 1
        assert phone.wait_for("ended")
        assert why in phone.said[-1]["reasons"][0]
    found = report(out)
    assert not found["established"]
    assert why in found["reason"]
    assert not found["media"] or found["media"]["received"] == 0


CRYPTO = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"


FINGERPRINT = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32)
DTLS = "UDP/TLS/RTP/SAVPF"


async def call_of_the_domain(site: Site, say: Path, out: Path) -> dict[str, Any]:
    """Have our telephone call the ordinary one, and return its report; the event loop goes on meanwhile."""
    telephone = site.telephone(out, say, CALLEE_URI)
    while telephone.status is None:
        await asyncio.sleep(0.05)
    return report(out)


async def test_what_the_gateway_refuses_of_a_telephone(
    site: Site, gateway: Any, spoken: Any, tmp_path: Path
) -> None:
    gateway("sdes")
    async with Raw(site, "wrong") as phone:
        with pytest.raises(RegistrationError):
            await phone.agent.register()
        assert (await phone.call(CRYPTO)).status == 401
    async with Raw(site) as phone:
        await phone.agent.register()
        over_udp = await phone.call(CRYPTO)
        assert (over_udp.status, "need SIP over TLS" in over_udp.reasons[0]) == (488, True)
    site.stop()
    gateway("sdes", unprotected_sip=True)
    async with Raw(site) as phone:
        clear = await phone.call(protocol="RTP/AVP")
        assert (clear.status, "media in clear are refused" in clear.reasons[0]) == (488, True)
        assert (await phone.call()).status == 488
        assert (await phone.call(CRYPTO + " UNENCRYPTED_SRTP")).status == 488
        nobody = await phone.call(CRYPTO)  # the keys are taken, and CALLER's telephone is not there
        assert nobody.status == 480
    site.stop()
    gateway("dtls")
    async with Raw(site) as phone:
        await phone.agent.register()
        over_udp = await phone.call(FINGERPRINT, "a=setup:active", "a=rtcp-mux", protocol=DTLS)
        assert (over_udp.status, "need SIP over TLS" in over_udp.reasons[0]) == (488, True)
        called = await call_of_the_domain(site, spoken("caller"), tmp_path / "out")
        assert (called["status"], "need SIP over TLS" in called["reason"]) == (488, True)
    site.stop()
    gateway("dtls", unprotected_sip=True)
    async with Raw(site) as phone:
        assert (await phone.call(protocol=DTLS)).status == 488
        assert (await phone.call("a=rtcp-mux", protocol=DTLS)).status == 488


async def test_an_answer_in_clear_ends_the_call(site: Site, gateway: Any, spoken: Any, tmp_path: Path) -> None:
    gateway("sdes", unprotected_sip=True)
    ours, out = spoken("caller"), tmp_path / "out"
    async with Raw(site) as phone:

        async def answer(call: Any) -> None:
            sdp = audio_description(phone.host, 40_000, [RtpMap(0, "PCMU/8000")], session_id=1)
            await call.answer(sdp.serialize())

        phone.agent.on_invite = answer
        await phone.agent.register()
        found = await call_of_the_domain(site, ours, out)
        assert (found["status"], found["established"]) == (488, False)
        assert "the media are RTP/AVP" in found["reason"]


@pytest.mark.long
async def test_a_telephone_takes_new_keys_and_another_codec_and_transfers_nobody(
    site: Site, gateway: Any, spoken: Any, tmp_path: Path
) -> None:
    """For Opus, whose clock is another one, the gateway agrees on new keys with our telephone, too."""
    gateway("sdes", unprotected_sip=True)
    ours, out = spoken("caller", LONG_SPEECH_S), tmp_path / "out"
    said, answered = read_wav(ours.read_bytes()), speech("callee", LONG_SPEECH_S)
    (tmp_path / "again.wav").write_bytes(write_wav(Pcm(RATE, said.data * 6)))
    site.telephone(out, tmp_path / "again.wav").wait_ready()
    async with Raw(site) as raw:
        await raw.agent.register()
        phone = SdesPhone(raw.agent, raw.host, answered)
        assert (await phone.dial(CALLER_URI)).status == 200
        speaking = asyncio.ensure_future(phone.speak())
        for codec in (None, "opus"):
            await asyncio.sleep(2)
            assert (await phone.change(codec)).status == 200
        await asyncio.sleep(3)
        assert phone.call is not None
        refer = await phone.call.ask("REFER", [("Refer-To", CALLER_URI), ("Contact", f"<sip:{raw.host}>")])
        assert (refer.code, "REFER" in refer.headers["Allow"]) == (405, False)
        assert not phone.call.ended.is_set()
        await phone.call.bye()
        await speaking
        phone.close()
    keys = [answer.audio.attributes("crypto") for answer in phone.answers]
    assert len(set(keys)) == 3
    assert all("i=encrypted to the gateway only" in answer.audio.lines for answer in phone.answers)
    while not (out / "caller.json").exists():
        await asyncio.sleep(0.05)
    found = report(out)
    assert (found["changes"], found["media"]["codec"], found["media"]["unauthentic"]) == (["opus"], "opus", 0)
    heard_here = read_wav((out / "caller.heard.wav").read_bytes()).resampled(RATE)
    for each in (heard_here, heard_here.part(heard_here.duration_s - 2, heard_here.duration_s)):
        assert_is_of(answered, each)
    for each in phone.heard():
        assert_is_of(said, each)
