"""A serial number is what RFC 5280 admits, and gives the leading bits of H(CERT) back."""

from hypothesis import example, given
from hypothesis import strategies as st

from segw_agent.bridge.serial import SERIAL_BITS, is_serial, prefix_of, serial_of
from voice_dpki.names import CertDigest


@given(st.binary(min_size=32, max_size=32))
@example(bytes(19) + b"\2" + bytes(12))
@example(b"\xff" * 32)
def test_serials_hold_as_many_bits_as_fit(digest: bytes) -> None:
    serial = serial_of(CertDigest(digest))
    assert serial == int.from_bytes(digest, "big") >> 256 - SERIAL_BITS
    assert is_serial(serial) or serial == 0
    assert serial.bit_length() // 8 + 1 <= 20  # octets of the INTEGER, with the sign's bit
    assert len(prefix_of(serial)) == 39
    assert digest.hex().startswith(prefix_of(serial))


def test_what_is_no_serial() -> None:
    assert not any(map(is_serial, (0, -1, 1 << 159, 1 << 4000)))
    assert is_serial((1 << 159) - 1)
