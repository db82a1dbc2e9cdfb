"""MIKEY's error message, octet by octet as RFC 3830 §5.1.2, §6.1, §6.6 and §6.12 have it, and as it is read."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.mikey.conftest import NOW_S
from tests.mikey.test_shared import Line
from voice_dpki.codec.ntp import ntp_time
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Message, serialize
from voice_dpki.mikey.payloads import Error, Payload, Rand, SecurityPolicy, Timestamp
from voice_dpki.mikey.policy import SrtpProfile, policy_for
from voice_dpki.mikey.refusal import Hint, error_message, read_error
from voice_dpki.mikey.registry import DataType, ErrorNumber, Prf
from voice_dpki.mikey.replay import timestamp_at

CM, GCM = SrtpProfile.AES_CM_128_HMAC_SHA1_80, SrtpProfile.AEAD_AES_128_GCM
WEAK = MikeyError(Failure.STRENGTH, "too weak")

SENTENCES = (
    "authentication failed",
    "the time is not accepted",
    "the PRF is not supported",
    "the MAC algorithm is not supported",
    "the encryption is not supported",
    "the hash is not supported",
    "the Diffie-Hellman group is not supported",
    "the ID is not accepted",
    "the certificate is not accepted",
    "the security protocol is not supported",
    "the policy is not supported",
    "the mode is not supported",
    "no reason is given",
    "the message is not supported",
)
"""By number, from 0 on."""


@pytest.fixture(scope="module")
def sent() -> Message:
    return Line().offer("psk", prf=Prf.HMAC_SHA_256).sent


def told(sent: Message, *profiles: SrtpProfile) -> bytes:
    octets = error_message(sent.octets, WEAK, profiles)
    assert octets is not None
    return octets


def with_payloads(sent: Message, change: Callable[[list[Payload]], Any], **header: Any) -> bytes:
    """The error message that answers ours, after a change."""
    message = Message.parse(told(sent, CM))
    payloads = list(message.payloads)
    change(payloads)
    return serialize(replace(message.header, **header), tuple(payloads))


def nothing(payloads: list[Payload]) -> None:
    """Change nothing."""


def errors(*numbers: int) -> Callable[[list[Payload]], None]:
    def change(payloads: list[Payload]) -> None:
        payloads[1:2] = [Error(number) for number in numbers]

    return change


def test_an_error_message_by_the_text(sent: Message) -> None:
    csb, time = sent.octets[4:8], sent.one(Timestamp).value
    head = bytes([1, 6, 5, 1]) + csb + bytes([0, 0])
    assert told(sent) == head + bytes([12, 0]) + time + bytes([0, 6, 0, 0])
    octets = told(sent, GCM, CM)
    assert octets.startswith(head + bytes([12, 0]) + time + bytes([10, 6, 0, 0]))
    assert Message.parse(octets).all(SecurityPolicy) == (policy_for(GCM, 0), policy_for(CM, 1))


def test_no_error_answers_an_error_or_what_cannot_be_read(sent: Message) -> None:
    without_time = serialize(sent.header, tuple(each for each in sent.payloads if not isinstance(each, Timestamp)))
    for octets in (told(sent), b"", b"junk", without_time):
        assert error_message(octets, WEAK, (CM,)) is None
    for kind in (DataType.DH_RESP, DataType.DHHMAC_INIT):
        assert error_message(serialize(replace(sent.header, data_type=kind), sent.payloads), WEAK, (CM,))


def test_what_is_told_is_read(sent: Message) -> None:
    assert read_error(told(sent, GCM, CM), sent.octets) == Hint((ErrorNumber.INVALID_DH,), (GCM, CM))
    assert read_error(told(sent), sent.octets) == Hint((ErrorNumber.INVALID_DH,), ())


def test_what_is_not_known_is_left_out_and_what_is_said_twice_counts_once(sent: Message) -> None:
    octets = with_payloads(sent, errors(14, 8, 255, 10, 8))
    assert read_error(octets, sent.octets).errors == (ErrorNumber.INVALID_CERT, ErrorNumber.INVALID_SPPAR)
    strange = SecurityPolicy(0, 0, ((0, b"\2"),))

    def policies(payloads: list[Payload]) -> None:
        payloads[2:] = [strange, policy_for(GCM, 1), policy_for(CM, 2), strange, policy_for(GCM, 3)]

    assert read_error(with_payloads(sent, policies), sent.octets).profiles == (GCM, CM)


@pytest.mark.parametrize("numbers", [(), (14,), (255, 14)])
def test_an_error_message_without_a_known_error_says_nothing(sent: Message, numbers: tuple[int, ...]) -> None:
    with pytest.raises(MikeyError) as caught:
        read_error(with_payloads(sent, errors(*numbers)), sent.octets)
    assert caught.value.failure is Failure.PAYLOAD


@pytest.mark.parametrize("kind", [DataType.DH_RESP, DataType.DHHMAC_INIT, DataType.PSK_RESP])
def test_another_message_is_no_error(sent: Message, kind: DataType) -> None:
    with pytest.raises(MikeyError) as caught:
        read_error(with_payloads(sent, nothing, data_type=kind), sent.octets)
    assert caught.value.failure is Failure.DATA_TYPE


@pytest.mark.parametrize("apart", [-1, 1])
def test_the_error_of_another_message_says_nothing_of_ours(sent: Message, apart: int) -> None:
    """Whoever does not see our messages cannot answer them: by the CSB ID, and by the time."""

    def another_time(payloads: list[Payload]) -> None:
        payloads[0] = timestamp_at(ntp_time(NOW_S + apart))

    for octets in (
        with_payloads(sent, nothing, csb_id=(sent.header.csb_id + apart) % (1 << 32)),
        with_payloads(sent, another_time),
    ):
        with pytest.raises(MikeyError) as caught:
            read_error(octets, sent.octets)
        assert caught.value.failure is Failure.CSB_ID
    with pytest.raises(MikeyError):
        read_error(with_payloads(sent, lambda payloads: payloads.append(Rand(bytes(16)))) + b"\0", sent.octets)


def test_each_error_has_its_sentence() -> None:
    assert tuple(ErrorNumber(number).about for number in range(14)) == SENTENCES


def test_a_hint_in_words() -> None:
    """Which policies the other side takes is of use only if ours was none of them."""
    dh, policy = ErrorNumber.INVALID_DH, ErrorNumber.INVALID_SPPAR
    assert str(Hint((dh,), (CM,))) == SENTENCES[6]
    assert str(Hint((policy,), ())) == SENTENCES[10]
    assert str(Hint((policy, dh), (GCM, CM))) == (
        f"{SENTENCES[10]}, {SENTENCES[6]} (only AEAD_AES_128_GCM, AES_CM_128_HMAC_SHA1_80)"
    )


def test_an_error_may_have_another_number_than_is_usual() -> None:
    assert WEAK.number is ErrorNumber.INVALID_DH
    assert MikeyError(Failure.STRENGTH, "", ErrorNumber.AUTH_FAILURE).number is ErrorNumber.AUTH_FAILURE
    assert MikeyError(Failure.MAC, "").number is ErrorNumber.AUTH_FAILURE
