"""How a URL names a certificate: its last path element is H(CERT), by which the ledger is asked.

Such a URL is never fetched: its author would choose a host to which we connect, and its content can change. The
ledger provides the certificate and decides whether it is trusted.
"""

import re
from functools import lru_cache

from voice_dpki.errors import MalformedError
from voice_dpki.names import CertDigest

MAX_URL_LENGTH = 512

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


def url_for(template: str, digest: CertDigest) -> str:
    """Replace `{digest}` by `digest`; raises MalformedError if `digest_in` could not read the result."""
    url = template.replace("{digest}", digest.hex())
    if digest_in(url) != digest:
        raise MalformedError("the URL names another certificate than this one")
    return url
