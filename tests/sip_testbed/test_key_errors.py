"""MIKEY's error messages in calls: what a refused caller is told, and what it makes of it."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sip_testbed.key_errors import refusal_body, told_error
from tests.mikey.conftest import CALLER
from tests.mikey.test_shared import Line
from tests.sip_testbed.test_phones import CALLEE, TIMEOUT_S, Domain
from tests.sip_testbed.test_phones import domain as domain  # a fixture
from tests.sip_testbed.test_session import Begin, end_of, leg_of
from tests.sip_testbed.test_session import begin as begin  # a fixture
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.media.codecs import CODECS
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Header, Message, serialize
from voice_dpki.mikey.payloads import Error, Timestamp
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.refusal import error_message, read_error
from voice_dpki.mikey.registry import DataType, ErrorNumber
from voice_dpki.mikey.sdp import key_mgmt_value, mikey_message
from voice_dpki.sip.sdp import RtpMap, SessionDescription, audio_description

PROFILE = SrtpProfile.AES_CM_128_HMAC_SHA1_80
SETUP = cast(Any, SimpleNamespace(codec=CODECS["PCMU"], listen=SimpleNamespace(advertised="192.0.2.1")))
KEYING = cast(Any, SimpleNamespace(profile=PROFILE))


def sdp_with(message: bytes) -> bytes:
    payloads = [RtpMap(0, "PCMU/8000")]
    values = [key_mgmt_value(message)]
    return audio_description("192.0.2.6", 4000, payloads, session_id=1, key_mgmt=values).serialize()


def body_for(offer: bytes, error: Any) -> bytes:
    return refusal_body(offer, error, KEYING, SETUP, SystemRandom())


def test_a_refusal_names_the_error_the_bundle_and_the_time_of_the_offer() -> None:
    """RFC 3830 §5.1.2: HDR, T, ERR, SP; the octets are written down by §6.1, §6.6, §6.12."""
    sent = Line().offer("psk").message
    body = SessionDescription.parse(body_for(sdp_with(sent), MikeyError(Failure.POLICY, "not ours")))
    octets = mikey_message(body.key_mgmt)
    assert body.media[0].port == 0
    assert octets[:2] == bytes([1, 6])
    assert octets[4:8] == sent[4:8]
    time = Message.parse(sent).one(Timestamp).value
    assert octets[10:25] == bytes([12, 0]) + time + bytes([10, 10, 0, 0]) + bytes([0])
    told = told_error(body.serialize(), sent)
    assert told == f"; MIKEY error, which is not signed: the policy is not supported (only {PROFILE})"


@pytest.mark.parametrize("failure", Failure)
def test_every_failure_is_told_by_a_number_of_the_registry(failure: Failure) -> None:
    sent = Line().offer("psk").message
    error = MikeyError(failure, "sentence")
    hint = read_error(error_message(sent, error, [PROFILE]) or b"", sent)
    assert hint.errors == (error.number,)
    assert str(hint).startswith(error.number.about)


def test_a_wrong_key_and_no_key_are_told_alike() -> None:
    """Who has no key cannot find out with whom one is shared."""
    numbers = set()
    for theirs in (bytes(range(16)), None):
        line = Line()
        offer = line.offer("psk")
        line.responder._key_of = {CALLER: theirs}.get
        with pytest.raises(MikeyError) as caught:
            line.accept(offer.message)
        numbers.add(caught.value.number)
    assert numbers == {ErrorNumber.AUTH_FAILURE}


@pytest.mark.parametrize(
    ("offer", "error"),
    [
        (sdp_with(b"junk"), MikeyError(Failure.MALFORMED, "")),
        (b"junk", MikeyError(Failure.MALFORMED, "")),
        (b"", MikeyError(Failure.KEY_MGMT, "")),
        (sdp_with(Line().offer("psk").message), MalformedError("another step")),
    ],
)
def test_what_cannot_be_answered_gets_no_error_message(offer: bytes, error: Any) -> None:
    assert body_for(offer, error) == b""


def test_an_error_message_is_not_answered_by_another() -> None:
    sent = Line().offer("psk").message
    told = error_message(sent, MikeyError(Failure.MAC, ""), ())
    assert told is not None
    assert error_message(told, MikeyError(Failure.DATA_TYPE, ""), ()) is None


def changed(**header: Any) -> tuple[bytes, bytes]:
    sent = Line().offer("psk").message
    told = Message.parse(error_message(sent, MikeyError(Failure.MAC, ""), ()) or b"")
    return sent, serialize(replace(told.header, **header), told.payloads)


@pytest.mark.parametrize("header", [{"csb_id": 7}, {"data_type": DataType.PSK_RESP}])
def test_an_error_message_for_another_offer_is_passed_over(header: dict[str, Any]) -> None:
    sent, told = changed()
    assert told_error(sdp_with(told), sent)
    sent, told = changed(**header)
    assert told_error(sdp_with(told), sent) == ""


def test_an_error_message_of_another_time_or_without_a_known_error_is_passed_over() -> None:
    sent = Message.parse(Line().offer("psk").message)
    time, header = sent.one(Timestamp), Header(DataType.ERROR, sent.header.csb_id, sent.header.prf)
    later = replace(time, value=bytes(8))
    for payloads in ((later, Error(0)), (time,), (time, Error(99))):
        assert told_error(sdp_with(serialize(header, payloads)), sent.octets) == ""
    assert told_error(sdp_with(serialize(header, (time, Error(99), Error(0)))), sent.octets)


def test_no_body_of_a_refusal_does_harm() -> None:
    sent = Line().offer("psk").message
    body = body_for(sdp_with(sent), MikeyError(Failure.MAC, ""))
    for at in range(len(body)):
        told_error(body[:at], sent)
        told_error(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], sent)
    assert told_error(body, None) == told_error(b"", sent) == ""


async def test_a_caller_with_another_policy_reads_why_it_was_refused(domain: Domain, tmp_path: Path) -> None:
    caller = await end_of(domain, tmp_path, "caller", srtp="AEAD_AES_128_GCM", spoken_s=1)
    await end_of(domain, tmp_path, "callee", srtp=PROFILE, spoken_s=1)
    result = await asyncio.wait_for(caller.telephone.call(f"sip:+{CALLEE}@a.example"), TIMEOUT_S)
    assert result.status == 488
    assert f"the policy is not supported (only {PROFILE})" in str(result.reason)
    assert json.loads((tmp_path / "callee.json").read_text())["refused_by"] == "MIKEY SP"


async def test_a_refused_change_has_the_error_message(begin: Begin) -> None:
    talk = await begin()
    before = talk.caller._now.own_keys
    await talk.caller.rekey()
    sdp = talk.caller.describe(talk.caller._now.codec, 0, before)
    answer = await leg_of(talk.caller).reinvite(lambda: sdp.serialize())
    assert (answer.status, told_error(answer.sdp, mikey_message(before))) == (
        488, "; MIKEY error, which is not signed: the message is not supported",
    )  # fmt: skip
    assert talk.callee.done == ["rekey"]
