"""Offers of other makes to the project's telephone, and their answers to its own, over a real proxy."""

import asyncio
import re
import socket
from pathlib import Path

import pytest

from sip_testbed.result import Result
from sip_testbed.telephone import Telephone
from sip_testbed.user_agent_config import load_setup
from tests.sip_testbed.test_phones import CALLEE, CALLER, TIMEOUT_S, Domain, TcpPhone, reported
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import write_wav
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.shell.trace import Tracer
from voice_dpki.wire.sip.user_agent import Account, FinalAnswer, UserAgent

VECTORS = Path(__file__).parents[1] / "vectors" / "sdp"


def in_clear(name: str) -> str:
    """A vector without its encryption, which the telephone here has no keys for."""
    text = (VECTORS / name).read_text()
    return re.sub("(?m)^a=key-mgmt:.*\n", "", text).replace("RTP/SAVP", "RTP/AVP")


def telephone_of(domain: Domain, folder: Path, codec: str = "PCMU") -> Telephone:
    (folder / "say.wav").write_bytes(write_wav(Pcm(8000, b"\1\0" * 3200)))
    (folder / "password").write_text("right")
    (folder / "ua.toml").write_text(
        f'aor = "sip:+{CALLER}@a.example"\npassword_file = "password"\nproxy = "{domain.hop}"\nsay = "say.wav"\n'
        f'srtp = "none"\ncodec = "{codec}"\nsilence_s = 0.2\n[listen]\nhost = "127.0.0.1"\nport = 0\n'
    )
    tracer = Tracer(folder / "ua.jsonl", "callee")
    domain.stack.callback(tracer.close)
    setup = load_setup(folder / "ua.toml")
    return Telephone(setup, domain.caller, None, tracer, SystemClock(), SystemRandom())


async def answer_of(domain: Domain, folder: Path, offer: str, codec: str = "PCMU") -> FinalAnswer:
    """Let another telephone offer `offer`; returns how the project's telephone answers it."""
    domain.caller.on_invite = telephone_of(domain, folder, codec).answer
    account = Account(f"sip:+{CALLEE}@a.example", f"+{CALLEE}", "right")
    other = UserAgent(account, host="127.0.0.1", proxy=domain.hop)
    await other.start()
    domain.stack.push_async_callback(other.close)
    await other.register()
    call = await other.invite(f"sip:+{CALLER}@a.example", offer.replace("\n", "\r\n").encode())
    answer = await asyncio.wait_for(call.answered(), TIMEOUT_S)
    if answer.status == 200:
        await call.bye()
    return answer


@pytest.mark.parametrize(
    ("offer", "sections", "lines"),
    [
        ("sdp-audio-video.sdp", [r"audio [1-9]\d* RTP/AVP 0", "video 0 RTP/AVP 96"], []),
        ("sdp-inactive.sdp", [r"audio [1-9]\d* RTP/AVP 0"], ["a=inactive"]),
        ("sdp-pcmu-1.sdp", [r"audio [1-9]\d* RTP/AVP 0"], ["a=rtpmap:0 PCMU/8000"]),
    ],
)
async def test_offers(domain: Domain, tmp_path: Path, offer: str, sections: list[str], lines: list[str]) -> None:
    answer = await answer_of(domain, tmp_path, in_clear(offer))
    assert answer.status == 200
    answered = answer.sdp.decode().split("\r\n")
    media = [line[2:] for line in answered if line.startswith("m=")]
    assert len(media) == len(sections)
    assert all(re.fullmatch(wanted, got) for wanted, got in zip(sections, media, strict=True))
    assert set(lines) <= set(answered)


async def test_an_answer_takes_the_payload_type_of_the_offer(domain: Domain, tmp_path: Path) -> None:
    answer = await answer_of(domain, tmp_path, in_clear("sdp-pt-answer.sdp"), codec="opus")
    assert b"a=rtpmap:97 opus/48000/2\r\n" in answer.sdp


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("c=IN IP4 127.0.0.2", "c=IN IP4 224.2.1.1/127"), "not that of one host"),
        (("c=IN IP4 127.0.0.2", "c=IN IP4 255.255.255.255"), "not that of one host"),
        (("c=IN IP4 127.0.0.2", "c=IN IP4 media.example"), "no numeric address"),
        (("c=IN IP4 127.0.0.2", "c=IN IP6 2001:db8::1"), "not of the family"),
        (("m=audio 5000", "m=audio 65535"), "no such port"),
        (("m=audio 5000", "m=audio 0"), "no audio"),
        (("RTP/AVP 0", "RTP/AVP 3"), "does not have PCMU/8000"),
        (("RTP/AVP 0", "RTP/SAVP 0"), "wants SRTP"),
        (("RTP/AVP 0", "UDP/TLS/RTP/SAVPF 0"), "wants SRTP"),
    ],
)
async def test_offers_that_cannot_be_taken_up(
    domain: Domain, tmp_path: Path, change: tuple[str, str], reason: str
) -> None:
    answer = await answer_of(
        domain, tmp_path, in_clear("sdp-pcmu-1.sdp").replace(*change).replace("a=rtpmap:0", "a=x:")
    )
    assert answer.status == 488
    assert reason in str(answer.headers.get("Warning"))


async def answered_with(domain: Domain, folder: Path, sdp: str) -> Result:
    """Let the project's telephone call another, which answers with `sdp` and hangs up."""
    phone = await domain.phone(TcpPhone)
    contact = f"<sip:{CALLEE}@127.0.0.1:9;transport=tcp;ob>"
    await phone.register(contact)

    async def answer(_target: str) -> None:
        invite = await phone.receive("INVITE ")
        phone.answer(invite, "200 OK\r\nContent-Type: application/sdp", contact, sdp.replace("\n", "\r\n"))
        await phone.receive("ACK ")
        phone.answer(await phone.receive("BYE "), "200 OK")

    return await reported(domain, folder, answer)


@pytest.mark.parametrize(
    ("pattern", "instead", "told"),
    [
        ("$", "m=video 5002 RTP/AVP 96\n", "audio, video"),
        ("$", "m=audio 0 RTP/AVP 0\n", "audio, audio"),
        ("m=(.|\n)*", "", "none"),
        ("m=audio", "m=video", "video"),
        ("m=audio", "m=video 5002 RTP/AVP 96\nm=audio", "video, audio"),
    ],
)
async def test_an_answer_with_other_sections_than_the_offer(
    domain: Domain, tmp_path: Path, pattern: str, instead: str, told: str
) -> None:
    sdp = re.sub(pattern + r"\Z" if pattern == "$" else pattern, instead, in_clear("sdp-pcmu-1.sdp"))
    result = await answered_with(domain, tmp_path, sdp)
    assert (result.established, result.refused_by, result.media) == (False, "SDP", None)
    assert f"the media sections {told}, and the offer audio" in str(result.reason)


async def test_an_answer_with_a_payload_type_of_its_own(domain: Domain, tmp_path: Path) -> None:
    """We send what the answer says, 97, and receive what our offer said: PCMU's 0 (RFC 3264 §5.1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media:
        media.bind(("127.0.0.1", 0))
        media.setblocking(False)
        phone = await domain.phone(TcpPhone)
        contact = f"<sip:{CALLEE}@127.0.0.1:9;transport=tcp;ob>"
        await phone.register(contact)
        sdp = (
            f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {media.getsockname()[1]} RTP/AVP 97\r\na=rtpmap:97 pcmu/8000/1\r\n"
        )
        sent: list[int] = []

        async def answer(_target: str) -> None:
            invite = await phone.receive("INVITE ")
            port = int(re.findall(r"(?m)^m=audio (\d+) RTP/AVP 0 13\r$", invite)[0])
            phone.answer(invite, "200 OK\r\nContent-Type: application/sdp", contact, sdp)
            await phone.receive("ACK ")
            for number, payload_type in enumerate((0, 97, 0, 97)):
                packet = RtpPacket(payload_type, number, 160 * number, 7, bytes(160)).serialize()
                media.sendto(packet, ("127.0.0.1", port))
            while len(sent) < 5:
                data = await asyncio.get_running_loop().sock_recv(media, 2048)
                sent.append(RtpPacket.parse(data).payload_type)
            phone.answer(await phone.receive("BYE "), "200 OK")

        result = await reported(domain, tmp_path, answer)
    assert set(sent) == {97}
    assert result.media is not None
    assert (result.media.received, result.media.other, result.media.foreign) == (2, 2, 0)
