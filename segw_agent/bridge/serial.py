"""Serial numbers that identify the certificate on the ledger, so that the responder needs no database.

RFC 5280 §4.1.2.2 admits positive integers of at most 20 octets, so the first bit is 0. The other 159 bits are the
leading bits of H(CERT) of the self-signed certificate. To find a second certificate for a given serial takes about
2^159 hashes, to make two with the same serial about 2^79; if both are recorded, both are refused.
"""

from voice_dpki.names import CertDigest

SERIAL_OCTETS = 20
SERIAL_BITS = 8 * SERIAL_OCTETS - 1

_PREFIX_DIGITS = SERIAL_BITS // 4
"""Whole hexadecimal digits in a serial; 3 bits remain."""


def serial_of(digest: CertDigest) -> int:
    """Return the serial number of the certificate that is issued for a self-signed one."""
    return int.from_bytes(digest[:SERIAL_OCTETS], "big") >> 1


def is_serial(number: int) -> bool:
    """Tell whether a number can be a serial number of the bridge."""
    return 0 < number < 1 << SERIAL_BITS


def prefix_of(serial: int) -> str:
    """Return the leading hexadecimal digits of H(CERT); compare `serial_of` of a candidate for the last 3 bits."""
    return f"{serial << 1:0{2 * SERIAL_OCTETS}x}"[:_PREFIX_DIGITS]
