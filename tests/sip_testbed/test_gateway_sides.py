"""The gateway's outer side against what Linphone says: its offers are answered, its answers taken."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sip_testbed.gateway_rules import Offer, agreed, payloads_of
from sip_testbed.gateway_sides import DtlsSide, SdesSide, Side, side_for
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.sip.dtls_sdp import DtlsDescription, Setup
from voice_dpki.sip.sdp import Direction, RtpMap, SessionDescription
from voice_dpki.wire.dtls import DtlsIdentity

VECTORS = Path(__file__).parents[1] / "vectors" / "sdp"
PCMU, CN, DTMF = RtpMap(0, "PCMU/8000"), RtpMap(13, "CN/8000"), RtpMap(101, "telephone-event/8000")


def linphone(name: str) -> bytes:
    return (VECTORS / f"linphone-{name}.sdp").read_bytes()


async def opened(media: str) -> Side:
    side = side_for(media, "127.0.0.1", "127.0.0.1", DtlsIdentity(), SystemRandom())
    await side.leg.open()
    return side


@pytest.fixture
async def sdes() -> AsyncIterator[SdesSide]:
    side = await opened("sdes")
    assert isinstance(side, SdesSide)
    yield side
    await side.leg.close()


@pytest.fixture
async def dtls() -> AsyncIterator[DtlsSide]:
    side = await opened("dtls")
    assert isinstance(side, DtlsSide)
    yield side
    await side.leg.close()


async def test_an_offer_with_sdes_gets_one_key_for_a_suite_that_both_have(sdes: SdesSide) -> None:
    offer = Offer.read(linphone("sdes-offer"), sdes.protocols)
    assert offer.remotes == (("127.0.0.1", 39_950), ("127.0.0.1", 58_194))
    sdes.take(offer.audio)
    answer = sdes.answer(offer.whole, offer.taken, agreed(offer.payloads, [PCMU, DTMF]), Direction.SENDRECV)
    audio = SessionDescription.parse(answer.serialize()).audio
    assert (audio.protocol, audio.rtpmaps) == ("RTP/SAVP", (PCMU, DTMF))
    (crypto,) = audio.attributes("crypto")
    assert crypto.startswith("1 AES_CM_128_HMAC_SHA1_80 inline:")
    assert crypto not in offer.audio.audio.attributes("crypto")
    assert await sdes.begin() == "AES_CM_128_HMAC_SHA1_80"


async def test_an_answer_with_sdes_keys_the_call(sdes: SdesSide) -> None:
    sdes.offer([PCMU, CN], Direction.SENDRECV)
    answer = SessionDescription.parse(linphone("sdes-answer"))
    sdes.confirm(answer)
    assert (payloads_of(answer), answer.audio_control_address) == ((PCMU,), ("127.0.0.1", 48_032))
    assert await sdes.begin() == "AES_CM_128_HMAC_SHA1_80"


async def test_an_offer_with_dtls_gets_our_fingerprint_and_side(dtls: DtlsSide) -> None:
    offer = Offer.read(linphone("dtls-offer"), dtls.protocols)
    dtls.take(offer.audio)
    answer = dtls.answer(offer.whole, offer.taken, agreed(offer.payloads, [PCMU]), Direction.SENDRECV)
    parsed = SessionDescription.parse(answer.serialize())
    assert (parsed.audio.protocol, parsed.audio.rtpmaps) == ("UDP/TLS/RTP/SAVP", (PCMU,))
    assert DtlsDescription.read(parsed).setup is Setup.PASSIVE
    assert parsed.audio.lines.count("a=rtcp-mux") == 1
    assert not any(line.startswith("a=group") for line in parsed.lines)


async def test_an_answer_with_dtls_is_taken_though_its_group_has_no_member(dtls: DtlsSide) -> None:
    dtls.offer([PCMU, CN], Direction.SENDRECV)
    dtls.confirm(SessionDescription.parse(linphone("dtls-answer")))


async def test_dtls_needs_rtcp_on_the_port_of_rtp(dtls: DtlsSide) -> None:
    """Linphone has two ports unless it is told otherwise."""
    offer = Offer.read(linphone("dtls-offer").replace(b"a=rtcp-mux\r\n", b""), dtls.protocols)
    with pytest.raises(MalformedError, match="rtcp-mux"):
        dtls.take(offer.audio)
