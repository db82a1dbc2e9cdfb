"""Lists of certificate authorities as operators get them: PEM, or the signed list of a policy administrator.

    list    = PEM / JWS / {"caList": JWS}
    payload = {"trustList": [* certificate in PEM, or its DER in base64], ? "exp", ...}

The second form is that of the list of trusted STI-CAs, which the STI-PA of the United States gives to operators
(ATIS-1000084). We could not read the standard: the form is that which public clients of the list read.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography import x509

from voice_dpki.codec import base64url, canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import MalformedError
from voice_dpki.x509.keys import KeyKindError, SignatureError, verify_signature
from voice_dpki.x509.listed import MAX_AUTHORITIES, Authorities
from voice_dpki.x509.profile import ProfileError, library_errors

MAX_LIST_BYTES: Final = 1 << 22
"""A list of a thousand authorities in PEM has 2 MB."""

_NEVER: Final = 1 << 48
_PEM_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"


def read_authorities(data: bytes, signer_key_der: bytes | None = None) -> tuple[list[x509.Certificate], int]:
    """Read a list; returns its certificates and its expiry in Unix seconds, `_NEVER` if it names none.

    With `signer_key_der`, the signer's SubjectPublicKeyInfo, the list must have its ES256 signature; without it no
    signature is checked. Raises MalformedError.
    """
    if len(data) > MAX_LIST_BYTES:
        raise MalformedError(f"a list of authorities has at most {MAX_LIST_BYTES} bytes")
    if _PEM_BEGIN in data and not data.lstrip().startswith(b"{"):
        if signer_key_der is not None:
            raise MalformedError("the list is not signed, and a signer is configured")
        return _certificates(data), _NEVER
    claims = _claims(_token(data), signer_key_der)
    listed, expires_s = claims.get("trustList"), claims.get("exp", _NEVER)
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_AUTHORITIES:
        raise MalformedError(f"trustList must be there, with 1 to {MAX_AUTHORITIES} certificates")
    if not isinstance(expires_s, int) or isinstance(expires_s, bool):
        raise MalformedError("exp is no time in seconds")
    return [certificate for each in listed for certificate in _listed(each)], expires_s


def authorities_of(lists: Sequence[tuple[Sequence[x509.Certificate], int]]) -> Authorities:
    """Join lists into one that expires when the first of them does; raises MalformedError."""
    certificates = dict.fromkeys(each for listed, _ in lists for each in listed)
    return Authorities(list(certificates), min((until for _, until in lists), default=_NEVER))


def _token(data: bytes) -> str:
    """Return the JWS, alone or in the answer of the administrator's API; raises MalformedError."""
    text = data.strip()
    if text.startswith(b"{"):
        token = canonical_json.decode_object(text).get("caList")
        if isinstance(token, str):
            return token
        raise MalformedError("caList must be there, as a string")
    if not text.isascii():
        raise MalformedError("it is neither PEM nor a signed list")
    return text.decode("ascii")


def _claims(token: str, signer_key_der: bytes | None) -> dict[str, Json]:
    parts = token.split(".")
    if len(parts) != 3:
        raise MalformedError("it is neither PEM nor a signed list")
    header, payload, signature = map(base64url.decode, parts)
    if signer_key_der is not None:
        _check_signature(canonical_json.decode_object(header), token, signature, signer_key_der)
    return dict(canonical_json.decode_object(payload))


def _check_signature(header: Mapping[str, Json], token: str, signature: bytes, key_der: bytes) -> None:
    if header.get("alg") != "ES256" or "crit" in header:
        raise MalformedError("the list is not signed with ES256")
    try:
        verify_signature(key_der, "ES256", token.rpartition(".")[0].encode("ascii"), signature)
    except (SignatureError, KeyKindError):
        raise MalformedError("the list's signature does not verify under the configured signer's key") from None


def _listed(value: Json) -> list[x509.Certificate]:
    if not isinstance(value, str) or not value.isascii():
        raise MalformedError("trustList holds something else than certificates")
    data = value.encode("ascii")
    if _PEM_BEGIN in data:
        return _certificates(data)
    try:
        with library_errors():
            return [x509.load_der_x509_certificate(base64.b64decode(data, validate=True))]
    except (ProfileError, binascii.Error):
        raise MalformedError("trustList holds something else than certificates") from None


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        with library_errors():
            return x509.load_pem_x509_certificates(pem)
    except ProfileError:
        raise MalformedError("it holds something else than certificates in PEM") from None
