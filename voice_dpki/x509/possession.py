"""The extension by which an anonymous certificate says who may record it.

    possession ::= OCTET STRING      -- SHA-256("voice-dpki/possession/v1" ‖ 00 ‖ CBOR of [chain, organization])

A self-signed certificate proves by its own signature that who made it has the key. With this extension the same
signature covers for which ledger and member it was made. So nobody else can record it, nor take its key by that.
"""

import hashlib
from typing import Final

from voice_dpki.codec import cbor

OID: Final = "2.25.318703653239043015615004925528194943565"
"""Made from a UUID (ITU-T X.667), which nobody has to register."""

_DOMAIN = b"voice-dpki/possession/v1\0"


def possession_of(chain: str, organization: str) -> bytes:
    """Return the extension's value, in DER, for what `organization` is to record on the ledger `chain`."""
    return b"\x04\x20" + hashlib.sha256(_DOMAIN + cbor.encode([chain, organization])).digest()
