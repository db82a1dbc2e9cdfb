"""The URL in x5u and info (RFC 7515 §4.1.5): here it names a certificate by its digest, and is never fetched."""

import re

from voice_dpki.errors import MalformedError
from voice_dpki.names import CertDigest

MAX_URL_LENGTH = 512

_SEGMENT = r"[!$-.0-;=@-~]"
_URL = re.compile(
    rf"https?://{_SEGMENT}+(?:/{_SEGMENT}*)*/([0-9a-f]{{64}})(?:\.(?:der|pem))?\Z", re.IGNORECASE | re.ASCII
)


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


def url_for(template: str, digest: CertDigest) -> str:
    """Replace `{digest}` by `digest`; raises MalformedError if `digest_in` could not read the result."""
    url = template.replace("{digest}", digest.hex())
    if digest_in(url) != digest:
        raise MalformedError("the URL names another certificate than this one")
    return url
