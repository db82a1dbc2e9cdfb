"""What the gateway demands of session descriptions, and how it maps payload types."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from sip_testbed.gateway_rules import (
    GatewayRefusal,
    agreed,
    check_flow,
    check_protocol_of_answer,
    clock_rate,
    notice,
    payload_types,
    payloads_of,
    reasons,
    secure_audio,
)
from voice_dpki.errors import MalformedError
from voice_dpki.sip.message import Hop
from voice_dpki.sip.sdp import SECURE_PROTOCOLS, RtpMap, SessionDescription

PCMU, PCMA, OPUS, DTMF = (
    RtpMap(0, "PCMU/8000"),
    RtpMap(8, "PCMA/8000"),
    RtpMap(111, "opus/48000/2"),
    RtpMap(101, "telephone-event/8000"),
)


def description(*media: str) -> SessionDescription:
    head = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    return SessionDescription.parse((head + "".join(f"m={each}\r\n" for each in media)).encode())


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(("media", "what"), [("sdes", "keys"), ("dtls", "fingerprints")])
def test_what_keys_the_media_goes_over_tls_alone(transport: str, media: str, what: str) -> None:
    def phone(*, unprotected: bool = False) -> Any:
        return cast(Any, SimpleNamespace(media=media, unprotected_sip=unprotected))

    hop = Hop(transport, "127.0.0.1", 5060)
    with pytest.raises(GatewayRefusal, match=f"^{what} in SDP need SIP over TLS.* uses {transport}"):
        check_flow(phone(), hop)
    check_flow(phone(), Hop("tls", "127.0.0.1", 5061))
    check_flow(phone(unprotected=True), hop)


def test_the_first_secure_audio_is_taken_and_clear_audio_never() -> None:
    offer = description(
        "audio 5000 RTP/AVP 0", "video 5002 RTP/SAVP 96", "audio 0 RTP/SAVP 0", "audio 5004 RTP/SAVP 0"
    )
    assert secure_audio(offer, SECURE_PROTOCOLS) == 3
    with pytest.raises(MalformedError, match="media in clear are refused"):
        secure_audio(description("audio 5000 RTP/AVP 0"), SECURE_PROTOCOLS)


@pytest.mark.parametrize("media", ["audio 5000 RTP/AVP 0", "audio 5000 RTP/SAVP 0"])
def test_an_answer_without_keys_is_refused(media: str) -> None:
    with pytest.raises(MalformedError, match="media in clear are refused"):
        check_protocol_of_answer(description(media))


def test_an_answers_payload_types_are_those_of_the_offer_in_its_order() -> None:
    answered = [RtpMap(96, "opus/48000/2"), RtpMap(0, "pcmu/8000"), RtpMap(9, "G722/8000")]
    assert agreed([PCMU, PCMA, OPUS], answered) == [OPUS, PCMU]
    with pytest.raises(MalformedError, match="no payload type of the offer"):
        agreed([PCMA], answered)


def test_payload_types_are_mapped_by_encoding() -> None:
    leaving = [RtpMap(96, "OPUS/48000/2"), RtpMap(97, "telephone-event/8000"), RtpMap(0, "PCMU/8000/1")]
    assert payload_types([PCMU, PCMA, OPUS, DTMF], leaving) == {0: 0, 111: 96, 101: 97}


def test_payload_types_are_bounded_and_there_is_one() -> None:
    assert len(payloads_of(description("audio 5000 RTP/SAVP " + "0 " * 30))) == 16
    with pytest.raises(MalformedError):
        payloads_of(description("audio 5000 RTP/SAVP 96"))


@pytest.mark.parametrize("encoding", ["PCMU", "PCMU/x", "PCMU/0", "PCMU/²", "PCMU/99999999"])
def test_a_clock_rate_that_is_none_is_refused(encoding: str) -> None:
    with pytest.raises(MalformedError):
        clock_rate(RtpMap(0, encoding))
    assert clock_rate(OPUS) == 48_000


def test_what_either_side_is_told() -> None:
    told = "<sip:gateway.b.example>;purpose=media-gateway;outside=sdes;inside=mikey"
    assert notice("gateway.b.example", "sdes", Hop("tls", "127.0.0.1", 5061)) == ("Call-Info", told)
    for transport in ("udp", "tcp"):
        unprotected = notice("gateway.b.example", "sdes", Hop(transport, "127.0.0.1", 5060))
        assert unprotected == ("Call-Info", told + ";sip=unprotected")
    assert reasons('no "keys"', "gateway.b.example") == [
        ("Reason", "SIP;cause=488;text=\"no 'keys'\""),
        ("Warning", "399 gateway.b.example \"no 'keys'\""),
    ]
