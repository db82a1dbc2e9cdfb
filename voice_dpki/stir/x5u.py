"""How a token names its certificate: the URL in x5u and info, or the certificate itself in x5c (RFC 7515 §4.1).

The URL names it by its digest, and is never fetched. A certificate in x5c only tells its digest, too: whether it is
trusted, the ledger decides, which also gives the certificate.
"""

import re
from functools import lru_cache

from voice_dpki.codec import base64text
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import MalformedError
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import digest_of

MAX_URL_LENGTH = 512
MAX_CHAIN = 8
"""Certificates in x5c; the token's length bounds them further. Only the first one, the signer's, is looked at."""

_SEGMENT = r"[!$-.0-;=@-~]"
_URL = re.compile(
    rf"https?://{_SEGMENT}+(?:/{_SEGMENT}*)*/([0-9a-f]{{64}})(?:\.(?:der|pem))?\Z", re.IGNORECASE | re.ASCII
)


@lru_cache(maxsize=4096)
def digest_in(url: str) -> CertDigest:
    """Return H(CERT) from the last path element of `url`: 64 hexadecimal digits, optionally with .der or .pem.

    Raises MalformedError for any other URL.
    """
    found = _URL.match(url) if len(url) <= MAX_URL_LENGTH else None
    if found is None:
        raise MalformedError(
            "the URL does not end in a certificate's SHA-256, 64 hexadecimal digits, by which to ask the ledger"
        )
    return CertDigest(bytes.fromhex(found[1]))


def digest_in_chain(x5c: Json) -> CertDigest:
    """Return H(CERT) of the first certificate in x5c; raises MalformedError. Source: RFC 7515 §4.1.6."""
    if isinstance(x5c, list) and 1 <= len(x5c) <= MAX_CHAIN:
        certificates = [each for each in x5c if isinstance(each, str) and each]
        if len(certificates) == len(x5c):
            return digest_of(base64text.decode(certificates[0]))
    raise MalformedError(f"x5c is not a list of 1 to {MAX_CHAIN} certificates in base64 (RFC 7515 §4.1.6)")


def url_for(template: str, digest: CertDigest) -> str:
    """Replace `{digest}` by `digest`; raises MalformedError if `digest_in` could not read the result."""
    url = template.replace("{digest}", digest.hex())
    if digest_in(url) != digest:
        raise MalformedError("the URL names another certificate than this one")
    return url
