"""Keep-alives by STUN: the octets of RFC 5769, and nothing said to anything else."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.sip.stun import answer_binding, is_stun

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


def test_attributes_that_may_be_passed_over_are() -> None:
    assert answer_binding(with_attributes(SOFTWARE), "192.0.2.1", 1) is not None


@pytest.mark.parametrize(
    "data",
    [
        with_attributes(PRIORITY),
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
