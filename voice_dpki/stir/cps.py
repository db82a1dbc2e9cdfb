"""The interface of a call placement service: paths and bodies (ATIS-1000096, ATIS-1000105).

    POST /passports/{SPC}/{DEST}/{ORIG}    {"passports": ["<token>", ...]}     ATIS-1000105: publish
    GET  /passports/{SPC}/{DEST}/{ORIG}    -> {"passports": ["<token>", ...]}                retrieve
    POST, GET /passports/{DEST}/{ORIG}                                         ATIS-1000096: the same

SPC names the publisher. Each request has an access token of its own (`voice_dpki.stir.access`) as its bearer token.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Final
from urllib.parse import quote

import msgspec

from voice_dpki.codec import canonical_json
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir.access import MAX_NAME, Place
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.passport import MAX_TOKEN_LENGTH, Passport
from voice_dpki.stir.tn import is_canonical_tn

PASSPORTS_PATH: Final = "/passports"
CALL_PATH: Final = PASSPORTS_PATH + "/{dest}/{orig}"
PUBLISHER_PATH: Final = PASSPORTS_PATH + "/{spc}/{dest}/{orig}"

MAX_PASSPORTS: Final = 10
"""PASSporTs in one publication and in one answer: as many as a call can have Identities."""
MAX_BODY_BYTES: Final = 32 * 1024
"""Bytes of a request's body. A SHAKEN token has about 500 characters, and each diversion adds a token."""
MAX_ANSWER_BYTES: Final = 128 * 1024

_PATTERN: Final = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$"
_TOKEN: Final = re.compile(_PATTERN.removesuffix("$") + r"\Z")

Token = Annotated[str, msgspec.Meta(pattern=_PATTERN, max_length=MAX_TOKEN_LENGTH)]


class PassportsForm(msgspec.Struct, frozen=True):
    """The body of a publication, and of what is retrieved: PASSporTs of the full form."""

    passports: Annotated[tuple[Token, ...], msgspec.Meta(min_length=1, max_length=MAX_PASSPORTS)]


class PlacedForm(msgspec.Struct, frozen=True):
    """The answer to a publication."""

    expires_s: Annotated[int, msgspec.Meta(description="For how many seconds the PASSporTs are kept.")]


def read_passports(body: bytes, max_bytes: int = MAX_BODY_BYTES) -> tuple[str, ...]:
    """Read a body with PASSporTs; raises MalformedError. Members besides `passports` are refused."""
    if len(body) > max_bytes:
        raise MalformedError(f"the body has more than {max_bytes} bytes")
    found = canonical_json.decode_object(body)
    tokens = found.get("passports")
    if list(found) != ["passports"] or not isinstance(tokens, list) or not 1 <= len(tokens) <= MAX_PASSPORTS:
        raise MalformedError(f"the body is not an object with a list of 1 to {MAX_PASSPORTS} passports")
    texts = tuple(each for each in tokens if isinstance(each, str) and len(each) <= MAX_TOKEN_LENGTH)
    if len(texts) != len(tokens) or not all(_TOKEN.match(each) for each in texts):
        raise MalformedError(f"a passport is not a token of at most {MAX_TOKEN_LENGTH} characters in three parts")
    return texts


def passports_body(tokens: Sequence[str]) -> bytes:
    """Write a body with PASSporTs."""
    return msgspec.json.encode(PassportsForm(tuple(tokens)))


def read_place(dest: str, orig: str, publisher: str = "") -> Place:
    """Read the place that a path names, from its percent-decoded segments; raises MalformedError."""
    if not (is_canonical_tn(dest) and is_canonical_tn(orig)):
        raise MalformedError("the path names two numbers of 0-9 # * (RFC 8224 §8.3)")
    if len(publisher) > MAX_NAME:
        raise MalformedError(f"the path's first name has more than {MAX_NAME} characters")
    return Place(Tn(orig), Tn(dest), publisher)


def path_of(place: Place) -> str:
    """Return the path for a place, percent-encoded (RFC 3986 §2.1)."""
    parts = (place.publisher, place.dest, place.orig) if place.publisher else (place.dest, place.orig)
    return "/".join((PASSPORTS_PATH, *(quote(part, safe="") for part in parts)))


def identity_of(token: str) -> str:
    """Return the Identity header field that would carry a token; raises MalformedError."""
    passport = Passport.parse(token)
    ppt = passport.header_text("ppt")
    return IdentityHeader(token, info=passport.header_text("x5u"), alg="ES256", ppt=ppt).serialize()
