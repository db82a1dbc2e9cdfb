"""Keep-alives by STUN: the octets of RFC 5769, and nothing said to anything else."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.sip.stun import (
    BindingRefusedError,
    answer_binding,
    binding_request,
    is_binding_answer,
    is_stun,
    read_binding_answer,
)

TRANSACTION = "b7e7a701bc34d686fa87dfae"
REQUEST = bytes.fromhex("00010000 2112a442" + TRANSACTION)
SOFTWARE = bytes.fromhex("80220010 5354554e 20746573 7420636c 69656e74")  # RFC 5769 §2.1
PRIORITY = bytes.fromhex("00240004 6e0001ff")  # RFC 5769 §2.1; it has to be understood


@pytest.mark.parametrize(
    ("host", "value"),
    [
        ("192.0.2.1", "00200008 0001a147 e112a643"),  # RFC 5769 §2.2
        ("2001:db8:1234:5678:11:2233:4455:6677", "00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9"),  # §2.3
    ],
)
def test_the_mapped_address_of_rfc_5769(host: str, value: str) -> None:
    attribute = bytes.fromhex(value)
    wanted = struct.pack("!HHI", 0x0101, len(attribute), 0x2112A442) + bytes.fromhex(TRANSACTION) + attribute
    assert answer_binding(REQUEST, host, 32853) == wanted


def with_attributes(attributes: bytes) -> bytes:
    return REQUEST[:2] + struct.pack("!H", len(attributes)) + REQUEST[4:] + attributes


@pytest.mark.parametrize(
    "attributes",
    [
        SOFTWARE,
        SOFTWARE + SOFTWARE,
        bytes.fromhex("80000000"),  # the first that may be
        bytes.fromhex("ffff0001 61000000"),  # a value is padded to four octets
        bytes.fromhex("ffff0004 61626364") + SOFTWARE,
        bytes.fromhex("ffff0005 61626364 65000000"),
        bytes.fromhex("8022020c") + bytes(524),  # 548 octets with the header
    ],
)
def test_attributes_that_may_be_passed_over_are(attributes: bytes) -> None:
    assert answer_binding(with_attributes(attributes), "192.0.2.1", 1) is not None


@pytest.mark.parametrize(
    "data",
    [
        with_attributes(PRIORITY),
        with_attributes(bytes.fromhex("7fff0000")),  # the last that has to be understood
        with_attributes(SOFTWARE[:-4]),
        with_attributes(SOFTWARE * 40),
        REQUEST[:-1],
        REQUEST + b"\0\0\0\0",
        b"\x01\x01" + REQUEST[2:],  # an answer: two servers must not talk to each other for ever
        REQUEST[:4] + b"\0\0\0\0" + REQUEST[8:],
    ],
)
def test_anything_else_is_not_answered(data: bytes) -> None:
    assert answer_binding(data, "192.0.2.1", 1) is None


@given(st.binary(max_size=600), st.booleans())
def test_no_datagram_breaks_it(data: bytes, begun: bool) -> None:
    data = with_attributes(data) if begun else data
    answer = answer_binding(data, "192.0.2.1", 1)
    assert answer is None or len(answer) == 32


def test_sip_is_no_stun() -> None:
    assert is_stun(REQUEST)
    assert not is_stun(b"OPTIONS sip:a.example SIP/2.0\r\n")
    assert not is_stun(b"\0\0\0\0")


@pytest.mark.parametrize(
    ("octets", "stun"),
    [
        (f"0001 0000 2112a442 {TRANSACTION}", True),
        (f"3fff 0000 2112a442 {TRANSACTION}", True),
        (f"4001 0000 2112a442 {TRANSACTION}", False),
        (f"8001 0000 2112a442 {TRANSACTION}", False),
        (f"0001 0000 2112a443 {TRANSACTION}", False),
        (f"0001 0000 2112a442 {TRANSACTION[:-2]}", False),
    ],
)
def test_stun_begins_with_two_bits_of_0_and_has_the_cookie(octets: str, stun: bool) -> None:
    assert is_stun(bytes.fromhex(octets)) is stun


INTEGRITY_4 = "00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7 80280004 c07d4c96"
INTEGRITY_6 = "00080014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41 80280004 c8fb0b4c"
NAME = "8022000b 74657374 20766563 746f7220"
IPV4, IPV6 = "00200008 0001a147 e112a643", "00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9"
SAMPLES = {
    "192.0.2.1": f"0101003c 2112a442 {TRANSACTION} {NAME} {IPV4} {INTEGRITY_4}",
    "2001:db8:1234:5678:11:2233:4455:6677": f"01010048 2112a442 {TRANSACTION} {NAME} {IPV6} {INTEGRITY_6}",
}
"""The answers of RFC 5769 §2.2 and §2.3, whole."""


@pytest.mark.parametrize(("host", "octets"), SAMPLES.items())
def test_the_answers_of_rfc_5769_are_read(host: str, octets: str) -> None:
    answer = bytes.fromhex(octets)
    assert is_binding_answer(answer)
    assert read_binding_answer(answer, bytes.fromhex(TRANSACTION)) == (host, 32853)
    assert read_binding_answer(answer, bytes(12)) is None


def test_a_request_is_that_of_rfc_5389() -> None:
    assert binding_request(bytes.fromhex(TRANSACTION)) == REQUEST
    assert not is_binding_answer(REQUEST)


def answered(attributes: str, kind: int = 0x0101) -> bytes:
    data = bytes.fromhex(attributes)
    return struct.pack("!HHI", kind, len(data), 0x2112A442) + bytes.fromhex(TRANSACTION) + data


@pytest.mark.parametrize(
    "attributes",
    [
        IPV4,
        "00010008 0001a147 c0000202" + IPV4,  # MAPPED-ADDRESS, which old servers send too
        "80000000" + IPV4,  # the first that may be passed over
        "ffff0001 61000000" + IPV4,  # a value is padded to four octets
        "ffff0004 61626364" + IPV4,
        "ffff0005 61626364 65000000" + IPV4,
        IPV4 + "00200008 0001a147 e112a644",  # the first address counts
    ],
)
def test_an_address_is_found_among_other_attributes(attributes: str) -> None:
    assert read_binding_answer(answered(attributes), bytes.fromhex(TRANSACTION)) == ("192.0.2.1", 32853)


def test_an_answer_over_548_octets_is_not_read() -> None:
    longest = answered(IPV4 + "ffff0200" + "00" * 512)
    assert len(longest) == 548
    assert read_binding_answer(longest, bytes.fromhex(TRANSACTION)) is not None
    assert read_binding_answer(longest + b"\0", bytes.fromhex(TRANSACTION)) is None


@pytest.mark.parametrize(
    ("octets", "error"),
    [
        (answered("00090004 00000400", 0x0111), BindingRefusedError),
        (answered(""), MalformedError),
        (answered("00240004 6e0001ff"), MalformedError),
        (answered("00240004 6e0001ff" + IPV4), MalformedError),
        (answered("7fff0000" + IPV4), MalformedError),  # the last that has to be understood
        (answered("00200000"), MalformedError),
        (answered("00200001 00000000"), MalformedError),
        (answered("00200005 0003a147 e1000000"), MalformedError),
        (answered("00200008 0003a147 e112a643"), MalformedError),
        (answered("00200004 0001a147"), MalformedError),
        (answered("00200014 0001a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9"), MalformedError),
        (answered("0020ffff 0001a147"), MalformedError),
        (answered(IPV4) + b"\0\0\0\0", MalformedError),
        (answered(IPV4 + "8022000c 5354554e"), MalformedError),  # an attribute that may be passed over, cut off
    ],
)
def test_answers_that_tell_no_address(octets: bytes, error: type[PeerError]) -> None:
    with pytest.raises(error):
        read_binding_answer(octets, bytes.fromhex(TRANSACTION))


@given(st.binary(max_size=80))
def test_any_answer_is_read_or_refused(attributes: bytes) -> None:
    with contextlib.suppress(MalformedError):
        found = read_binding_answer(answered(attributes.hex()), bytes.fromhex(TRANSACTION))
        assert found is not None
