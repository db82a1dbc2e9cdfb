"""HEP3 packets, octet by octet as the specification has them, and the bounds of a packet."""

import struct

import pytest

from voice_dpki.codec import hep
from voice_dpki.errors import MalformedError

V4 = hep.Flow("udp", ("192.0.2.1", 5060), ("192.0.2.2", 5080))
V6 = hep.Flow("tls", ("2001:db8::1", 5061), ("2001:db8::2", 40000))


def packet(payload: bytes = b"x", flow: hep.Flow = V4, time_s: float = 0) -> bytes:
    return hep.packet(payload, flow, time_s, protocol=hep.SIP, correlation="", agent=1)


def test_the_octets_of_a_packet() -> None:
    told = {"protocol": hep.LOG, "correlation": "a@b", "agent": 2001, "name": "authn", "key": b"secret"}
    made = hep.packet(b"INVITE", V4, 1796745600.000042, **told)  # type: ignore[arg-type]
    assert made == bytes.fromhex(
        "48455033 0089"
        "0000 0001 0007 02"
        "0000 0002 0007 11"
        "0000 0003 000a c0000201"
        "0000 0004 000a c0000202"
        "0000 0007 0008 13c4"
        "0000 0008 0008 13d8"
        "0000 0009 000a 6b182980"
        "0000 000a 000a 0000002a"
        "0000 000b 0007 64"
        "0000 000c 000a 000007d1"
        "0000 000e 000c 736563726574"
        "0000 0011 0009 614062"
        "0000 0013 000b 617574686e"
        "0000 000f 000c 494e56495445"
    )


def test_ipv6_and_a_stream_and_what_is_empty_is_left_out() -> None:
    made = packet(flow=V6)
    assert bytes.fromhex("0000 0001 0007 0a 0000 0002 0007 06 0000 0005 0016 20010db8") in made
    assert bytes.fromhex("0000 0006 0016 20010db8") in made
    assert b"\x00\x00\x00\x0e\x00" not in made
    assert b"\x00\x00\x00\x11\x00" not in made


@pytest.mark.parametrize("time_s", [1.9999996, 2.0])
def test_a_time_is_rounded_to_the_microsecond_and_carried_into_the_second(time_s: float) -> None:
    made = packet(time_s=time_s)
    assert struct.pack("!HHHI", 0, 9, 10, 2) + struct.pack("!HHHI", 0, 10, 10, 0) in made


def test_what_does_not_fit_a_packet_is_refused() -> None:
    room = hep.MAX_BYTES - len(packet(b""))
    assert len(packet(b"x" * room)) == hep.MAX_BYTES
    for size in (room + 1, 70_000):
        with pytest.raises(MalformedError, match=r"HEP: .* fit a packet"):
            packet(b"x" * size)


@pytest.mark.parametrize(
    "flow",
    [
        hep.Flow("udp", ("a.example", 1), ("192.0.2.1", 1)),
        hep.Flow("udp", ("192.0.2.1", 1), ("2001:db8::1", 1)),
    ],
)
def test_addresses_that_are_not_numeric_or_of_two_families_are_refused(flow: hep.Flow) -> None:
    with pytest.raises(MalformedError, match="HEP: "):
        packet(flow=flow)
