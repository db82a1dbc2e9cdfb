"""Serial numbers that say which certificate on the ledger is meant, so that the responder needs no database.

RFC 5280 §4.1.2.2 admits positive integers of at most 20 octets, whose first bit is therefore 0: the other 159 hold
the leading bits of H(CERT) of the self-signed certificate. Finding a second certificate for a serial takes 2^159
hashes, making two with one serial 2^79: both are refused then.
"""

from voice_dpki.names import CertDigest

SERIAL_OCTETS = 20
SERIAL_BITS = 8 * SERIAL_OCTETS - 1

_PREFIX_DIGITS = SERIAL_BITS // 4
"""Hexadecimal digits that a serial holds whole; 3 bits are over."""


def serial_of(digest: CertDigest) -> int:
    """Return the serial number of the certificate that is issued for a self-signed one."""
    return int.from_bytes(digest[:SERIAL_OCTETS], "big") >> 1


def is_serial(number: int) -> bool:
    """Tell whether a number can be a serial number of the bridge."""
    return 0 < number < 1 << SERIAL_BITS


def prefix_of(serial: int) -> str:
    """Return the hexadecimal digits with which H(CERT) begins; `serial_of` of a candidate tells the rest."""
    return f"{serial << 1:0{2 * SERIAL_OCTETS}x}"[:_PREFIX_DIGITS]
