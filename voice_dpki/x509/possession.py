"""The extension by which an anonymous certificate says who may record it.

    possession ::= OCTET STRING      -- SHA-256("voice-dpki/possession/v1" ‖ 00 ‖ CBOR of [chain, organization])

The signature of a self-signed certificate proves that its maker has the key. With this extension it also covers the
ledger and the member for which the certificate was made. So another member cannot record it to claim its key.
"""

import hashlib
from typing import Final

from voice_dpki.codec import cbor

OID: Final = "2.25.318703653239043015615004925528194943565"
"""Derived from a UUID (ITU-T X.667), which needs no registration."""

_DOMAIN = b"voice-dpki/possession/v1\0"


def possession_of(chain: str, organization: str) -> bytes:
    """Return the extension's value, in DER, for a certificate that `organization` records on the ledger `chain`."""
    return b"\x04\x20" + hashlib.sha256(_DOMAIN + cbor.encode([chain, organization])).digest()
