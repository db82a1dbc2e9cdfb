"""Calls whose INVITE has no offer: the telephone's 200 has it, and the ACK the answer (RFC 3261 §13.2.1)."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sip_testbed.shared_keying import SharedKeying
from tests.sip_testbed.test_phones import CALLEE, CALLER, PRIVATE, TIMEOUT_S, Domain, TcpPhone, _response
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import End, end_of
from voice_dpki.media.codecs import CODECS
from voice_dpki.media.correlate import correlate
from voice_dpki.media.recording import read_wav
from voice_dpki.mikey.sdp import key_mgmt_value
from voice_dpki.sip.sdp import RtpMap, SessionDescription, audio_description
from voice_dpki.wire.media import MediaSession


class LateCaller:
    """A telephone of another make that calls without an offer, in raw octets, and answers in the ACK."""

    def __init__(self, phone: TcpPhone, media: MediaSession, keying: SharedKeying | None) -> None:
        self.phone = phone
        self.media = media
        self.keying = keying
        self.contact = f"<sip:{CALLEE}@{PRIVATE};transport=tcp;ob>"

    def request(self, method: str, sequence: int, extra: str = "", body: str = "", ok: str = "") -> str:
        """A request, in the dialog of the 200 `ok` if there is one."""
        tag = "".join(re.findall("(?m)^To: .*(;tag=\\w+)\r$", ok))
        target = "".join(re.findall("(?m)^Contact: <(.*)>\r$", ok)) or f"sip:+{CALLER}@a.example"
        routes = [value for line in re.findall("(?m)^Record-Route: (.*)\r$", ok) for value in line.split(", ")]
        extra += "".join(f"Route: {value}\r\n" for value in reversed(routes))
        kind = "Content-Type: application/sdp\r\n" if body else ""
        return (
            f"{method} {target} SIP/2.0\r\n"
            f"Via: {self.phone.via};branch=z9hG4bK{method}{sequence}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:+{CALLEE}@a.example>;tag=p\r\nTo: <sip:+{CALLER}@a.example>{tag}\r\nCall-ID: late\r\n"
            f"CSeq: {sequence} {method}\r\nContact: {self.contact}\r\n{extra}{kind}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )

    async def call(self, answer: str = "SIP/2.0 200 ") -> str:
        """Call, and return the final answer."""
        self.phone.send(self.request("INVITE", 1))
        challenge = await self.phone.receive("SIP/2.0 407 ")
        authorization = self.phone._authorization(challenge).replace("Authorization", "Proxy-Authorization")
        answered = re.sub(r'response="\w+"', f'response="{_response(challenge)}"', authorization)
        self.phone.send(self.request("INVITE", 2, extra=answered))
        return await self.phone.receive(answer)

    async def acknowledge(self, ok: str, change: Callable[[str], str] = lambda sdp: sdp) -> None:
        """Answer the offer in the 200, changed by `change`."""
        offer = SessionDescription.parse(ok.partition("\r\n\r\n")[2].encode())
        accepted = (
            await self.keying.accept(offer.audio_key_mgmt, f"sip:+{CALLER}@a.example") if self.keying else None
        )
        own = audio_description(
            "127.0.0.1",
            self.media.port,
            [RtpMap(0, "PCMU/8000")],
            session_id=9,
            key_mgmt=[key_mgmt_value(accepted.message)] if accepted else [],
        )
        keys = accepted.keys if accepted else None
        self.media.start(CODECS["PCMU"], payload_type=0, remote=offer.audio_address, keys=keys)
        self.phone.send(self.request("ACK", 2, body=change(own.serialize().decode()), ok=ok))


@pytest.fixture
async def late(domain: Domain, tmp_path: Path) -> Any:
    async def make(srtp: str) -> tuple[LateCaller, End]:
        callee = await end_of(domain, tmp_path, "caller", srtp=srtp, spoken_s=1.5)
        domain.caller.on_invite = callee.telephone.answer
        other = await end_of(domain, tmp_path, "callee", srtp=srtp, spoken_s=1.5)
        await other.agent.close()
        phone = await domain.phone(TcpPhone)
        assert isinstance(phone, TcpPhone)
        media = await MediaSession.open("127.0.0.1")
        domain.stack.push_async_callback(media.close)
        caller = LateCaller(phone, media, other.telephone._keying)  # type: ignore[arg-type]
        await phone.register(caller.contact)
        return caller, callee

    return make


async def result_of(callee: End) -> dict[str, Any]:
    file = callee.folder / "caller.json"
    async with asyncio.timeout(TIMEOUT_S):
        while not file.exists() or not file.read_text().endswith("}\n"):
            await asyncio.sleep(0.02)
    return dict(json.loads(file.read_text()))


@pytest.mark.parametrize("srtp", ["none", "AES_CM_128_HMAC_SHA1_80"])
async def test_a_call_without_an_offer_is_offered_media_and_keys(late: Any, srtp: str) -> None:
    caller, callee = await late(srtp)
    ok = await caller.call()
    await caller.acknowledge(ok)
    said = read_wav((callee.folder / "callee.wav").read_bytes()).resampled(8000)
    async with asyncio.timeout(TIMEOUT_S):
        await caller.media.say(said)
        await caller.media.wait_until_quiet(TIMEOUT_S)
        await asyncio.sleep(0.2)
    caller.phone.send(caller.request("BYE", 3, ok=ok))
    result = await result_of(callee)
    assert (result["established"], result["status"], result["reason"]) == (True, 200, None)
    assert correlate(said, read_wav(callee.recording("heard"))).coefficient >= 0.99
    assert correlate(read_wav(callee.recording("said")), caller.media.heard).coefficient >= 0.99


async def test_a_caller_with_whom_no_key_is_shared_is_refused(late: Any) -> None:
    caller, callee = await late("AES_CM_128_HMAC_SHA1_80")
    callee.telephone._keyings._credentials = replace(callee.telephone._keyings._credentials, shared={})
    refused = await caller.call("SIP/2.0 488 ")
    assert "no key is shared" in refused
    result = await result_of(callee)
    assert (result["status"], result["refused_by"], result["media"]) == (488, "MIKEY ID", None)


@pytest.mark.parametrize(
    ("pattern", "instead", "reason"),
    [
        ("(.|\r|\n)+", "", "no session description"),
        ("RTP/SAVP", "RTP/AVP", "in place of RTP/SAVP: media in clear are refused"),
        ("a=key-mgmt:.*\r\n", "", "no key management: media in clear are refused"),
        ("PCMU", "G729", "does not have PCMU/8000"),
    ],
)
async def test_an_answer_in_the_ack_that_cannot_be_taken_ends_the_call(
    late: Any, pattern: str, instead: str, reason: str
) -> None:
    caller, callee = await late("AES_CM_128_HMAC_SHA1_80")

    def change(sdp: str) -> str:
        sdp = (
            sdp.replace("RTP/SAVP 0", "RTP/SAVP 96").replace("rtpmap:0", "rtpmap:96") if pattern == "PCMU" else sdp
        )
        return re.sub(pattern, instead, sdp)

    ok = await caller.call()
    await caller.acknowledge(ok, change)
    caller.phone.answer(await caller.phone.receive("BYE "), "200 OK")
    result = await result_of(callee)
    assert (result["established"], result["media"]) == (False, None)
    assert reason in result["reason"]
