"""Distinct types for values of the same shape, named as in the standards, and rules for the characters of names."""

import string
import unicodedata
from typing import NewType

Tn = NewType("Tn", str)
"""Canonical telephone number: digits, `*` and `#` only (RFC 8224 §8.3)."""

CertDigest = NewType("CertDigest", bytes)
"""H(CERT): the 32 bytes of SHA-256 over a certificate's DER."""

Height = NewType("Height", int)
"""Number of a block, from 1."""


def ascii_lower(text: str) -> str:
    """Return `text` with A to Z in lower case and the rest unchanged.

    Protocols fold ASCII only (RFC 3261 §7.3.1, RFC 4343). `str.lower` also folds other letters, such as the Kelvin
    sign to k, and would treat names as equal that every other implementation tells apart.
    """
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def is_printable(text: str) -> bool:
    """Return whether a name consists of letters, marks, digits, punctuation, symbols and plain spaces.

    The categories are those of Unicode 3.2, which stringprep prescribes for names in certificates (RFC 4518 §2.4
    prohibits characters unassigned in it). `str.isprintable` uses the tables of the running Python, which grow with
    each minor version. Nodes with different versions would not agree on which certificates are recorded.
    """
    if text.isascii():
        return text.isprintable()
    return all(character == " " or _category(character)[0] in "LMNPS" for character in text)


_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_category = unicodedata.ucd_3_2_0.category
