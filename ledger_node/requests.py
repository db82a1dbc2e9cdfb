"""Reading requests and describing the node, for nodes of all roles."""

from voice_dpki.errors import PeerError
from voice_dpki.ledger.header import Header, format_time
from voice_dpki.names import CertDigest
from voice_dpki.shell.http import Response, json_response


class BadRequestError(PeerError):
    """The request is malformed; the message says how."""


def parse_digest(text: str) -> CertDigest:
    """Parse H(CERT) in hexadecimal; raises BadRequestError."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or len(text) != 64:
        raise BadRequestError("H(CERT) is the SHA-256 of the certificate's DER: 64 hexadecimal digits")
    return CertDigest(digest)


def description(name: str, role: str, chain_id: str, height: int, header: Header | None, now_s: float) -> Response:
    """Answer with the node's name, role and height, and its newest header's AppHash, time and age in seconds."""
    said = {
        "name": name,
        "role": role,
        "chain_id": chain_id,
        "height": height,
        "app_hash": header.app_hash.hex() if header else "",
        "time": format_time(header.time_ns) if header else None,
        "age_s": round(header.age_s(now_s), 3) if header else None,
    }
    return json_response(200, said)
