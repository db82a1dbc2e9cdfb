"""How a token names its certificate: the URL in x5u and info, or the certificate itself in x5c (RFC 7515 §4.1).

The URL names it by its digest (`voice_dpki.x509.reference`). Of a certificate in x5c, too, only the digest is used:
the ledger provides the certificate, and decides whether it is trusted.
"""

from voice_dpki.codec import base64text
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import MalformedError
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import digest_of

MAX_CHAIN = 8
"""Certificates in x5c; the token's length bounds them further. Only the first one, the signer's, is read."""


def digest_in_chain(x5c: Json) -> CertDigest:
    """Return H(CERT) of the first certificate in x5c; raises MalformedError. Source: RFC 7515 §4.1.6."""
    if isinstance(x5c, list) and 1 <= len(x5c) <= MAX_CHAIN:
        certificates = [each for each in x5c if isinstance(each, str) and each]
        if len(certificates) == len(x5c):
            return digest_of(base64text.decode(certificates[0]))
    raise MalformedError(f"x5c is not a list of 1 to {MAX_CHAIN} certificates in base64 (RFC 7515 §4.1.6)")
