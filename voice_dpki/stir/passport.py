"""PASSporT: a signed statement of who calls whom, when (RFC 8225), and the claims that every kind has.

    token   = base64url(header) "." base64url(payload) "." base64url(signature)     RFC 7515 §7.1
    header  = {"alg","ppt","typ","x5u"}                                              RFC 8225 §4, §8.1
    payload = {"dest","iat","key-mgmt"?,"orig","sdp"?, and those of the kind}        RFC 8225 §5

`key-mgmt` and `sdp` are this project's claims: the SHA-256 of each `a=key-mgmt` value of the call's SDP (RFC 4567),
in order, and the digest of the INVITE's body (`voice_dpki.stir.body`). A verifier that does not know them ignores
them (RFC 8225 §8.3). One that does know them detects any change to the keying and to where the media goes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from voice_dpki.codec import base64url, canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.names import Tn
from voice_dpki.stir.tn import MAX_TN_LENGTH, MAX_URI_LENGTH, is_canonical_tn

MAX_TOKEN_LENGTH = 8192
"""Characters of a token; a SHAKEN token has about 500. A longer one is answered with 438 (step E4)."""

MAX_USUAL_HEADER = 512
"""Characters of an encoded header whose decoded form is cached; one of SHAKEN has about 200."""
MAX_KEPT_HEADERS = 4096

MAX_DESTINATIONS = 16
MAX_KEY_MGMT = 16
"""Values of `a=key-mgmt` that one call may carry."""

KEY_MGMT_CLAIM = "key-mgmt"
SDP_CLAIM = "sdp"

_DIGEST_LENGTH = 32


class ClaimError(PeerError):
    """A claim is missing or is not of the type that its section demands; the message names the claim."""


@dataclass(frozen=True, slots=True)
class Passport:
    """A token of the full form: its header and payload, and the exact bytes that were signed."""

    signing_input: bytes
    """Header and payload in base64url with the dot between them, as received (RFC 7515 §5.2)."""
    header: Mapping[str, Json]
    payload_untrusted: bytes
    """The payload, decoded from base64url but not parsed."""
    signature: bytes
    is_detached: bool = False
    """Whether header and payload were rebuilt from the call, because the token is of the compact form."""

    @classmethod
    def detached(cls, token: str, header: Mapping[str, Json], payload: bytes) -> "Passport":
        """Join a compact token with its rebuilt header and payload; raises MalformedError (RFC 8225 §7)."""
        if not is_compact(token) or token.count(".") != 2:
            raise MalformedError("a compact PASSporT is two dots and a signature (RFC 8225 §7)")
        signature = base64url.decode(token[2:])
        return cls(signing_input_of(header, payload), header, payload, signature, is_detached=True)

    @classmethod
    def parse(cls, token: str) -> "Passport":
        """Split and decode `token`; raises MalformedError if it is not three parts, the first a JSON object."""
        if is_compact(token):
            raise MalformedError("the PASSporT is of the compact form, which makes sense with its call only")
        if len(token) > MAX_TOKEN_LENGTH:
            raise MalformedError(f"the PASSporT has more than {MAX_TOKEN_LENGTH} characters")
        parts = token.split(".")
        if len(parts) != 3:
            raise MalformedError("a PASSporT has three parts, divided by dots (RFC 8225 §6)")
        decode = _decode_usual_header if len(parts[0]) <= MAX_USUAL_HEADER else _decode_header
        header = decode(parts[0])
        payload, signature = map(base64url.decode, parts[1:])
        return cls(f"{parts[0]}.{parts[1]}".encode("ascii"), header, payload, signature)

    def header_text(self, name: str) -> str | None:
        """Return the header's parameter `name` if it is a string; None otherwise."""
        value = self.header.get(name)
        return value if isinstance(value, str) else None


def is_compact(token: str) -> bool:
    """Tell whether a token is of the compact form, a signature without what was signed (RFC 8225 §7)."""
    return token.startswith("..")


def _decode_header(text: str) -> Mapping[str, Json]:
    return MappingProxyType(canonical_json.decode_object(base64url.decode(text)))


_decode_usual_header = lru_cache(maxsize=MAX_KEPT_HEADERS)(_decode_header)
"""Cached, because all tokens of a signer have the same header."""


def check_number_of_destinations(count: int) -> None:
    """Check how many destinations a call has, duplicates included; raises ClaimError."""
    if not 1 <= count <= MAX_DESTINATIONS:
        raise ClaimError(f"dest names 1 to {MAX_DESTINATIONS} destinations (RFC 8225 §5.2.1)")


@dataclass(frozen=True, slots=True)
class Destinations:
    """The called parties: at least one number or URI, all in canonical form (RFC 8225 §5.2.1)."""

    tns: tuple[Tn, ...] = ()
    uris: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_number_of_destinations(len(self.tns) + len(self.uris))

    def includes(self, others: "Destinations") -> bool:
        """Tell whether all `others` are among these."""
        return set(others.tns) <= set(self.tns) and set(others.uris) <= set(self.uris)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The claims of every kind (RFC 8225 §5), and this project's two; a kind's own class adds the kind's own."""

    attest: str = ""
    """Attestation (RFC 8588 §4); empty for a kind that attests nothing."""
    dest: Destinations
    iat_s: int
    orig: Tn
    key_mgmt: tuple[bytes, ...] = ()
    """SHA-256 of each `a=key-mgmt` value, in the order of the SDP; empty if the claim is not there."""
    sdp: bytes | None = None
    """Digest of the INVITE's body; None if the claim is not there."""

    def own(self) -> Mapping[str, Json]:
        """Return the claims that this kind alone has, by name."""
        return {}

    def serialize(self) -> bytes:
        """Encode as canonical JSON (RFC 8225 §9); numbers and URIs are put in order (RFC 8225 §5.2.1)."""
        dest: dict[str, Json] = {}
        if self.dest.tns:
            dest["tn"] = sorted(self.dest.tns)
        if self.dest.uris:
            dest["uri"] = sorted(self.dest.uris)
        claims: dict[str, Json] = {"dest": dest, "iat": self.iat_s, "orig": {"tn": self.orig}, **self.own()}
        if self.key_mgmt:
            claims[KEY_MGMT_CLAIM] = [_digest_object(digest) for digest in self.key_mgmt]
        if self.sdp is not None:
            claims[SDP_CLAIM] = _digest_object(self.sdp)
        return canonical_json.encode(claims)


def signing_input_of(header: Mapping[str, Json], payload: bytes) -> bytes:
    """Return the bytes to sign for `header` and an encoded `payload` (RFC 7515 §5.1)."""
    return f"{encoded_header(header)}.{base64url.encode(payload)}".encode("ascii")


def encoded_header(header: Mapping[str, Json]) -> str:
    """Return a header as the first part of a token (RFC 7515 §7.1)."""
    return base64url.encode(canonical_json.encode(header))


def key_mgmt_digests(values: Sequence[str]) -> tuple[bytes, ...]:
    """Digest the raw values of `a=key-mgmt` attributes, for instance "mikey AQAF...", in the order of the SDP."""
    return tuple(hashlib.sha256(value.encode("utf-8")).digest() for value in values)


def read_iat(claims: Mapping[str, Json]) -> int:
    """Read claim iat, in seconds since 1970; raises ClaimError."""
    value = claims.get("iat")
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ClaimError("claim iat must be there, as an integer of seconds (RFC 8225 §5.1.1)")
    return value


def read_orig(claims: Mapping[str, Json]) -> Tn:
    """Read claim orig, which must be a number; raises ClaimError."""
    value = claims.get("orig")
    if not isinstance(value, dict) or list(value) != ["tn"]:
        raise ClaimError("claim orig must be there and hold exactly one number, tn (RFC 8225 §5.2.1)")
    return read_tn(value["tn"], "orig")


def read_dest(claims: Mapping[str, Json]) -> Destinations:
    """Read claim dest; raises ClaimError."""
    value = claims.get("dest")
    if not isinstance(value, dict):
        raise ClaimError("claim dest must be there, as an object (RFC 8225 §5.2.1)")
    tns = tuple(read_tn(item, "dest") for item in _bounded_list(value.get("tn", []), "dest.tn", MAX_DESTINATIONS))
    uris = tuple(_uri(item) for item in _bounded_list(value.get("uri", []), "dest.uri", MAX_DESTINATIONS))
    return Destinations(tns, uris)


def read_key_mgmt(claims: Mapping[str, Json]) -> tuple[bytes, ...]:
    """Read claim key-mgmt, empty if it is not there; raises ClaimError or MalformedError."""
    items = _bounded_list(claims.get(KEY_MGMT_CLAIM, []), KEY_MGMT_CLAIM, MAX_KEY_MGMT)
    return tuple(digest_of_json(item, f"claim {KEY_MGMT_CLAIM}") for item in items)


def read_sdp(claims: Mapping[str, Json]) -> bytes | None:
    """Read claim sdp, None if it is not there; raises ClaimError or MalformedError."""
    return digest_of_json(claims[SDP_CLAIM], f"claim {SDP_CLAIM}") if SDP_CLAIM in claims else None


def read_tn(value: object, name: str) -> Tn:
    """Read a number in canonical form, in the claim `name`; raises ClaimError."""
    if not isinstance(value, str) or not is_canonical_tn(value):
        raise ClaimError(f"claim {name} must hold numbers of 1 to {MAX_TN_LENGTH} of 0-9 # * (RFC 8224 §8.3)")
    return Tn(value)


def digest_of_json(value: object, where: str) -> bytes:
    """Read {"alg": "sha-256", "dig": 32 bytes in base64url}.

    Raises ClaimError that begins with `where`, the place of the value, and MalformedError for other base64url.
    """
    if isinstance(value, dict) and value.get("alg") == "sha-256" and isinstance(value.get("dig"), str):
        digest = base64url.decode(value["dig"])
        if len(digest) == _DIGEST_LENGTH:
            return digest
    raise ClaimError(f'{where} must hold alg "sha-256" and dig, 32 bytes in base64url')


def _digest_object(digest: bytes) -> Json:
    return {"alg": "sha-256", "dig": base64url.encode(digest)}


def _bounded_list(value: Json, name: str, max_items: int) -> list[Json]:
    if not isinstance(value, list) or len(value) > max_items:
        raise ClaimError(f"claim {name} must be a list of at most {max_items}")
    return value


def _uri(value: Json) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_URI_LENGTH:
        raise ClaimError(f"claim dest must hold URIs of at most {MAX_URI_LENGTH} characters (RFC 8225 §5.2.1)")
    return value
