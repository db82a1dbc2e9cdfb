"""The digest of an INVITE's body, by which a PASSporT's signature covers the body.

    digest = SHA-256( canonical body )                        application/sdp, or no body
             SHA-256( Content-Type CRLF CRLF body )           a body of any other type

In the canonical form every line ends with CRLF, and there is no empty line at the end (RFC 4566 §5 admits LF, and
elements on the path append line ends). Nothing else is normalised: addresses, ports, the order of lines and every
attribute count, because a telephone can act on any of them. An ordinary body is its own canonical form.
"""

import hashlib

from voice_dpki.names import ascii_lower

SDP_TYPE = "application/sdp"


def body_digest(body: bytes, content_type: str | None) -> bytes:
    """Return the 32-byte digest of `body`, whose type is in the Content-Type header field. Never raises.

    A missing body, and a body of line ends alone, have the digest of the empty string. So stripping or adding any
    other body changes the digest.
    """
    kind = ascii_lower((content_type or "").partition(";")[0].strip())
    lines = body.replace(b"\r\n", b"\n").rstrip(b"\n")
    if not lines:
        return hashlib.sha256(b"").digest()
    if kind == SDP_TYPE:
        return hashlib.sha256(lines.replace(b"\n", b"\r\n") + b"\r\n").digest()
    return hashlib.sha256((content_type or "").encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body).digest()
