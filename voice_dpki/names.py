"""Types that keep like-shaped values apart, named as the standards name them; and what a name may consist of."""

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
    """Put A to Z in lower case and let all else be: protocols fold ASCII only (RFC 3261 §7.3.1, RFC 4343).

    `str.lower` makes a k of the Kelvin sign, so that names which look alike to nobody else would be the same.
    """
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def is_printable(text: str) -> bool:
    """Tell whether a name consists of letters, marks, digits, punctuation, symbols and plain spaces.

    Those of Unicode 3.2, to which stringprep holds names in certificates (RFC 4518 §2.4: what is not assigned there
    is prohibited). `str.isprintable` goes by the tables of its Python, which grow with each minor version: nodes
    that differ in it would not agree on which certificates are recorded.
    """
    if text.isascii():
        return text.isprintable()
    return all(character == " " or _category(character)[0] in "LMNPS" for character in text)


_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_category = unicodedata.ucd_3_2_0.category
