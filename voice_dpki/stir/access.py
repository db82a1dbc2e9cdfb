"""Access tokens of a call placement service: signed by an operator for one request about one call (ATIS-1000096).

    token   = base64url(header) "." base64url(payload) "." base64url(signature)          RFC 7515 §7.1
    header  = {"alg": "ES256", "x5u" / "x5c", ? "typ": "JWT"}
    payload = {"action", "aud", "dest": {"tn": [number]}, "iat", "iss", "jti", "orig": {"tn": number},
               ? "spc" / ? "sub", ? "exp", ? "passports"}

Two forms exist. The form of ATIS-1000105 has `spc`, the publisher of the PASSporTs, which the path names as well.
The form of ATIS-1000096 has `sub`, which equals `iss`. A token to publish also has `passports`, the digest of the
PASSporTs, and can have `exp`, the time at which to delete them. docs/stir-oob.md describes both forms.

A token is judged in numbered steps, one function each. The steps of `check_form` need the token alone. Then the
service looks up the certificate on the ledger, and `check_issuer` runs the remaining steps.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from voice_dpki.codec import base64text, base64url, canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.effects import Random, Signer
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.names import CertDigest, Tn, ascii_lower
from voice_dpki.stir.sign import Credential
from voice_dpki.stir.tn import is_canonical_tn
from voice_dpki.stir.x5u import digest_in_chain
from voice_dpki.x509.keys import SignatureError
from voice_dpki.x509.p256 import verify_es256
from voice_dpki.x509.profile import CertificateProfile
from voice_dpki.x509.recorded import CertificateRefused, RecordedCertificate, TrustedCertificate, Use, judge
from voice_dpki.x509.reference import digest_in

MAX_ACCESS_LENGTH: Final = 4096
"""Characters of an access token; one with `x5u` has about 700. A certificate in `x5c` makes it longer."""
MAX_NAME: Final = 128
"""Characters of `iss`, `spc`, `sub`, `jti` and each `aud`."""
MAX_AUDIENCES: Final = 8

_JTI_BYTES: Final = 16
_HEADER: Final = frozenset({"alg", "typ", "x5u", "x5c"})


class AccessAction(StrEnum):
    """What a token permits."""

    PUBLISH = "publish"
    RETRIEVE = "retrieve"


class AccessRefused(PeerError):
    """A token does not permit the request. `code` is one of CODES; the message contains no telephone number."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


CODES: Final = ("token", "audience", "fresh", "bound", "certificate", "issuer", "signature", "replay")
"""The codes of AccessRefused, in the order of the steps."""


@dataclass(frozen=True, slots=True)
class Place:
    """The call that a request is about and, in ATIS-1000105's form, the publisher of its PASSporTs."""

    orig: Tn
    dest: Tn
    publisher: str = ""
    """The path's SPC; "" in ATIS-1000096's form, which has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The claims of a token. They are untrusted until `check_issuer` has returned."""

    action: str
    issuer: str
    audiences: tuple[str, ...]
    jti: str
    iat_s: int
    exp_s: int | None
    place: Place
    subject: str | None
    """ATIS-1000096's `sub`; None if it is not there."""
    passports: str | None
    """Digest of the PASSporTs that are published (`passports_digest`); None if it is not there."""
    digest: CertDigest
    """H(CERT) of the certificate that the token names."""
    signing_input: bytes
    signature: bytes

    @classmethod
    def parse(cls, token: str) -> "Access":
        """Step 1: the token is well formed; raises AccessRefused."""
        try:
            return cls._parsed(token)
        except MalformedError as error:
            raise AccessRefused("token", f"the access token cannot be read: {error}") from None

    @classmethod
    def _parsed(cls, token: str) -> "Access":
        if len(token) > MAX_ACCESS_LENGTH:
            raise MalformedError(f"it has more than {MAX_ACCESS_LENGTH} characters")
        parts = token.split(".")
        if len(parts) != 3:
            raise MalformedError("a JWT has three parts, divided by dots (RFC 7519 §3)")
        header, payload = (canonical_json.decode_object(base64url.decode(part)) for part in parts[:2])
        digest = _certificate_in(header)
        return cls(
            action=_text(payload, "action"),
            issuer=_text(payload, "iss"),
            audiences=_audiences(payload.get("aud")),
            jti=_text(payload, "jti"),
            iat_s=_seconds(payload, "iat"),
            exp_s=_seconds(payload, "exp") if "exp" in payload else None,
            place=_place(payload),
            subject=_text(payload, "sub") if "sub" in payload else None,
            passports=_text(payload, "passports") if "passports" in payload else None,
            digest=digest,
            signing_input=f"{parts[0]}.{parts[1]}".encode("ascii"),
            signature=base64url.decode(parts[2]),
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """A service's requirements for tokens."""

    audiences: frozenset[str]
    """The service's own names; a token's `aud` must include one of them."""
    freshness_s: float = 60.0
    """Largest difference between `iat` and the service's clock, in either direction."""


def check_form(access: Access, terms: Terms, action: AccessAction, place: Place, now_s: float) -> None:
    """Run the steps that need the token alone; raises AccessRefused."""
    check_audience(access, terms)
    check_time(access, terms, now_s)
    check_bound(access, action, place)


def check_audience(access: Access, terms: Terms) -> None:
    """Step 2: the token is for this service (RFC 7519 §4.1.3)."""
    if terms.audiences.isdisjoint(access.audiences):
        raise AccessRefused("audience", "the access token's aud names another service")


def check_time(access: Access, terms: Terms, now_s: float) -> None:
    """Step 3: the token is fresh and has not expired (RFC 7519 §4.1.4, §4.1.6)."""
    if abs(now_s - access.iat_s) > terms.freshness_s:
        raise AccessRefused("fresh", f"the access token's iat is not within {terms.freshness_s:g} s of this server")
    if access.exp_s is not None and not access.iat_s < access.exp_s > now_s:
        raise AccessRefused("fresh", "the access token has expired")


def check_bound(access: Access, action: AccessAction, place: Place) -> None:
    """Step 4: the token's action, call and publisher are those of the request."""
    if access.action != action:
        raise AccessRefused("bound", f"the access token's action is not {action}")
    if access.place != place:
        raise AccessRefused("bound", "the access token is for another path")
    if access.subject is not None and access.subject != access.issuer:
        raise AccessRefused("bound", "the access token's sub is not its iss")
    if action is AccessAction.PUBLISH and place.publisher not in ("", access.issuer):
        raise AccessRefused("bound", "only the issuer itself publishes under its spc")
    if action is AccessAction.PUBLISH and access.passports is None:
        raise AccessRefused("bound", "the access token has no digest of the PASSporTs")


def check_issuer(access: Access, recorded: RecordedCertificate, now_s: float) -> TrustedCertificate:
    """Run the steps that need the ledger's record of the certificate; raises AccessRefused.

    The certificate must be trusted to sign calls. Its constraints on claims of PASSporTs do not apply to tokens.
    """
    trusted = check_certificate(recorded, now_s)
    check_name(access, trusted)
    check_signature(access, trusted.profile)
    return trusted


def check_certificate(recorded: RecordedCertificate, now_s: float) -> TrustedCertificate:
    """Step 5: the ledger trusts the certificate to sign calls now."""
    try:
        return judge(recorded, Use.SIGN_CALLS, now_s)
    except CertificateRefused as refused:
        raise AccessRefused("certificate", refused.about("the access token's certificate")) from None


def check_name(access: Access, trusted: TrustedCertificate) -> None:
    """Step 6: `iss` is one of the names in the certificate (`names_in`)."""
    if access.issuer not in names_in(trusted.profile):
        raise AccessRefused("issuer", "the access token's iss is not a name that its certificate has")


def check_signature(access: Access, profile: CertificateProfile) -> None:
    """Step 7: the signature verifies over the bytes as received (RFC 7515 §5.2)."""
    try:
        verify_es256(profile.public_key_der, access.signing_input, access.signature)
    except SignatureError:
        raise AccessRefused("signature", "the access token's signature does not verify") from None


def names_in(profile: CertificateProfile) -> frozenset[str]:
    """Return the names that `iss` can be: the certificate's service provider codes, or else its organisation.

    Service provider codes are North American. Elsewhere all members know an operator by its name on the ledger.
    """
    listed = profile.tn_auth_list
    codes = frozenset(listed.spcs if listed else ())
    return codes or frozenset({profile.organization or ""})


def passports_digest(passports: Sequence[str]) -> str:
    """Return the claim `passports` for ASCII tokens: the SHA-256 of their list in canonical JSON (RFC 8785)."""
    written = canonical_json.encode(list(passports))
    return f"sha256-{base64text.encode(hashlib.sha256(written).digest())}"


def sign_access(
    credential: Credential,
    action: AccessAction,
    place: Place,
    audience: str,
    now_s: float,
    random: Random,
    *,
    passports: Sequence[str] = (),
    lifetime_s: int = 0,
) -> str:
    """Return a new token for one request; `place` has a publisher only in ATIS-1000105's form.

    `passports` and `lifetime_s`, for how long they are to be kept, count only for the action "publish".
    """
    issuer = issuer_of(credential)
    claims: dict[str, Json] = {
        "action": str(action),
        "aud": audience,
        "dest": {"tn": [place.dest]},
        "iat": int(now_s),
        "iss": issuer,
        "jti": _uuid4(random),
        "orig": {"tn": place.orig},
    }
    claims |= {"spc": place.publisher} if place.publisher else {"sub": issuer}
    if action is AccessAction.PUBLISH:
        claims |= {"exp": int(now_s) + lifetime_s, "passports": passports_digest(passports)}
    return _signed({"alg": "ES256", "typ": "JWT", "x5u": credential.info}, claims, credential.signer)


def issuer_of(credential: Credential) -> str:
    """Return the `iss` of a credential's tokens: the first of its certificate's names in string order."""
    return min(names_in(credential.profile))


def _signed(header: Mapping[str, Json], claims: Mapping[str, Json], signer: Signer) -> str:
    signed = ".".join(base64url.encode(canonical_json.encode(part)) for part in (header, claims))
    return f"{signed}.{base64url.encode(signer.sign(signed.encode('ascii')))}"


def _uuid4(random: Random) -> str:
    """Return a random UUID (RFC 9562 §5.4)."""
    octets = bytearray(random.token(_JTI_BYTES))
    octets[6], octets[8] = octets[6] & 0x0F | 0x40, octets[8] & 0x3F | 0x80
    text = octets.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _certificate_in(header: Mapping[str, Json]) -> CertDigest:
    """Return H(CERT) from a header; raises MalformedError for an unknown parameter, alg or typ (RFC 7515 §4)."""
    if not header.keys() <= _HEADER:
        raise MalformedError("its header has parameters besides alg, typ, x5u and x5c")
    if header.get("alg") != "ES256":
        raise MalformedError("its alg is not ES256")
    if ascii_lower(str(header.get("typ", "JWT"))) != "jwt":
        raise MalformedError("its typ is not JWT")
    x5u = header.get("x5u")
    if isinstance(x5u, str):
        return digest_in(x5u)
    return digest_in_chain(header.get("x5c"))


def _text(claims: Mapping[str, Json], name: str) -> str:
    value = claims.get(name)
    if isinstance(value, str) and 1 <= len(value) <= MAX_NAME:
        return value
    raise MalformedError(f"{name} is not a text of 1 to {MAX_NAME} characters")


def _seconds(claims: Mapping[str, Json], name: str) -> int:
    value = claims.get(name)
    if type(value) is int and 0 <= value < 1 << 48:
        return value
    raise MalformedError(f"{name} is not a whole number of seconds")


def _audiences(value: Json) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if isinstance(listed, list) and 1 <= len(listed) <= MAX_AUDIENCES:
        texts = [each for each in listed if isinstance(each, str) and len(each) <= MAX_NAME]
        if len(texts) == len(listed):
            return tuple(texts)
    raise MalformedError("aud names no service")


def _place(claims: Mapping[str, Json]) -> Place:
    orig, dest = claims.get("orig"), claims.get("dest")
    caller = orig.get("tn") if isinstance(orig, dict) and len(orig) == 1 else None
    called = dest.get("tn") if isinstance(dest, dict) and len(dest) == 1 else None
    if not (isinstance(called, list) and len(called) == 1):
        raise MalformedError("dest is not one number, in a list tn")
    publisher = _text(claims, "spc") if "spc" in claims else ""
    return Place(_tn(caller, "orig"), _tn(called[0], "dest"), publisher)


def _tn(value: Json, name: str) -> Tn:
    if isinstance(value, str) and is_canonical_tn(value):
        return Tn(value)
    raise MalformedError(f"{name} is not a number of 0-9 # * (RFC 8224 §8.3)")
