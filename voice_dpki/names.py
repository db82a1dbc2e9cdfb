"""Types that keep like-shaped values apart, named as the standards name them."""

from typing import NewType

Tn = NewType("Tn", str)
"""Canonical telephone number: digits, `*` and `#` only (RFC 8224 §8.3)."""

CertDigest = NewType("CertDigest", bytes)
"""H(CERT): the 32 bytes of SHA-256 over a certificate's DER."""

Height = NewType("Height", int)
"""Number of a block, from 1."""
