import contextlib
import json as json_
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec import base64url
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.names import Tn
from voice_dpki.stir.passport import (
    MAX_TOKEN_LENGTH,
    MAX_USUAL_HEADER,
    ClaimError,
    Destinations,
    Passport,
    key_mgmt_digests,
    signing_input_of,
)
from voice_dpki.stir.shaken import ShakenClaims

CLAIMS = ShakenClaims(
    attest="A",
    dest=Destinations((Tn("442079460002"), Tn("442079460001")), ("sip:help@b.example",)),
    iat_s=1443208345,
    orig=Tn("493023125001"),
    origid="123e4567-e89b-12d3-a456-426655440000",
)


def test_claims_are_canonical_json_in_lexicographic_order() -> None:
    assert CLAIMS.serialize() == (
        b'{"attest":"A","dest":{"tn":["442079460001","442079460002"],"uri":["sip:help@b.example"]},'
        b'"iat":1443208345,"orig":{"tn":"493023125001"},"origid":"123e4567-e89b-12d3-a456-426655440000"}'
    )


def test_key_mgmt_stands_between_iat_and_orig() -> None:
    # printf 'mikey AQAFgM3YFvMAAAAA' | openssl dgst -sha256 -binary | basenc --base64url
    claims = replace(CLAIMS, key_mgmt=key_mgmt_digests(["mikey AQAFgM3YFvMAAAAA"]))
    assert (
        b'"iat":1443208345,"key-mgmt":[{"alg":"sha-256","dig":"DIG"}],"orig"'.replace(b"DIG", DIG)
        in claims.serialize()
    )


def test_sdp_stands_behind_origid() -> None:
    claims = replace(CLAIMS, key_mgmt=(bytes(32),), sdp=bytes(32))
    assert list(json_.loads(claims.serialize())) == ["attest", "dest", "iat", "key-mgmt", "orig", "origid", "sdp"]
    assert claims.serialize().endswith(b',"sdp":{"alg":"sha-256","dig":"' + b"A" * 43 + b'"}}')


DIG = b"_Sr4JUxlGO_wsGz0jyeeqTImkxobRVfDBlGYBQr0Ars"

digits = st.text("0123456789#*", min_size=1, max_size=15).map(Tn)
claims_ = st.builds(
    ShakenClaims,
    attest=st.sampled_from("ABC"),
    dest=st.lists(digits, min_size=1, max_size=8, unique=True).map(lambda tns: Destinations(tuple(sorted(tns)))),
    iat_s=st.integers(0, 1 << 40),
    orig=digits,
    origid=st.uuids().map(str),
    key_mgmt=st.lists(st.binary(min_size=32, max_size=32), max_size=4).map(tuple),
    sdp=st.none() | st.binary(min_size=32, max_size=32),
)


@given(claims_)
def test_parse_gives_back_what_serialize_wrote(claims: ShakenClaims) -> None:
    assert ShakenClaims.parse(claims.serialize()) == claims


@given(claims_, st.binary(max_size=70))
def test_a_token_keeps_the_bytes_that_were_signed(claims: ShakenClaims, signature: bytes) -> None:
    signing_input = signing_input_of({"typ": "passport"}, claims.serialize())
    passport = Passport.parse(f"{signing_input.decode()}.{base64url.encode(signature)}")
    assert passport.signing_input == signing_input
    assert (passport.payload_untrusted, passport.signature) == (claims.serialize(), signature)
    assert passport.header == {"typ": "passport"}
    assert passport.header_text("x5u") is None


def part(text: str) -> str:
    return base64url.encode(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        "e30.e30",
        "e30.e30.e30.e30",
        "e30=.e30.e30",
        "e31.e30.e30",
        " e30.e30.e30",
        part("[]") + ".e30.e30",
        part('{"alg":1,"alg":2}') + ".e30.e30",
        part('{"alg":1.5}') + ".e30.e30",
        part('{"alg":NaN}') + ".e30.e30",
        part("[" * 3000) + ".e30.e30",
        "ü.e30.e30",
        "e30." + "A" * MAX_TOKEN_LENGTH + ".e30",
    ],
)
def test_refuses_tokens(token: str) -> None:
    with pytest.raises(MalformedError):
        Passport.parse(token)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (b'"attest":"A",', b"", "attest"),
        (b'"attest":"A"', b'"attest":["A"]', "attest"),
        (b'"iat":1443208345', b'"iat":"1443208345"', "iat"),
        (b'"iat":1443208345', b'"iat":true', "iat"),
        (b'"iat":1443208345', b'"iat":-1', "iat"),
        (b'"iat":1443208345', b'"iat":99999999999999999999', "iat"),
        (b'"iat":1443208345', b'"iat":1443208345.5', "integers"),
        (b'{"tn":"493023125001"}', b'{"tn":["493023125001"]}', "orig"),
        (b'{"tn":"493023125001"}', b'{"tn":"+493023125001"}', "orig"),
        (b'{"tn":"493023125001"}', b'{"tn":"493023125001","uri":"sip:a@b"}', "orig"),
        (b'{"tn":"493023125001"}', b'{"uri":"sip:a@b"}', "orig"),
        (b'"dest":{', b'"dist":{', "dest"),
        (b'["442079460001","442079460002"]', b'"442079460001"', "dest"),
        (b'["442079460001","442079460002"]', b"[4]", "dest"),
        (b'["sip:help@b.example"]', b"[7]", "dest"),
        (b'["sip:help@b.example"]', b'[""]', "dest must hold URIs"),
        (b'["sip:help@b.example"]', b'["' + b"x" * 257 + b'"]', "dest must hold URIs of at most 256"),
        (b'"iat":1443208345', b'"iat":281474976710656', "iat"),
        (b'"attest":"A"', b'"attest":"' + b"A" * 17 + b'"', "attest"),
        (b'"origid"', b'"orgid"', "origid"),
        (b'"origid":"123e4567-e89b-12d3-a456-426655440000"', b'"origid":""', "origid"),
        (b'"iat"', b'"key-mgmt":{},"iat"', "key-mgmt"),
        (b'"iat"', b'"key-mgmt":[{"alg":"sha-1","dig":"AAAA"}],"iat"', "key-mgmt"),
        (b'"iat"', b'"key-mgmt":[{"alg":"sha-256","dig":"AAAA"}],"iat"', "key-mgmt"),
        (b'"iat"', b'"key-mgmt":[{"alg":"sha-256"}],"iat"', "key-mgmt"),
        (b'"attest":"A"', b'"attest":"A","sdp":null', "sdp"),
        (b'"attest":"A"', b'"attest":"A","sdp":[]', "sdp"),
        (b'"attest":"A"', b'"attest":"A","sdp":{"alg":"sha-1","dig":"AAAA"}', "sdp"),
        (b'"attest":"A"', b'"attest":"A","sdp":{"alg":"sha-256","dig":"AAAA"}', "sdp"),
        (b'"attest":"A"', b'"attest":"A","attest":"B"', "twice"),
    ],
)
def test_refuses_claims_and_names_them(old: bytes, new: bytes, named: str) -> None:
    payload = CLAIMS.serialize().replace(old, new)
    assert payload != CLAIMS.serialize()
    with pytest.raises(PeerError, match=named):
        ShakenClaims.parse(payload)


def test_unknown_claims_are_ignored() -> None:
    assert ShakenClaims.parse(CLAIMS.serialize().replace(b'"dest"', b'"crn":"x","dest"')).orig == CLAIMS.orig


def test_the_bounds_of_claims() -> None:
    url = "x" * 256
    widest = replace(CLAIMS, attest="A" * 16, dest=Destinations(uris=(url, "y")), iat_s=281_474_976_710_655)
    assert ShakenClaims.parse(widest.serialize()) == widest
    assert ShakenClaims.parse(replace(widest, iat_s=0).serialize()).iat_s == 0
    assert ShakenClaims.parse(replace(widest, key_mgmt=(bytes(32),) * 16).serialize()).key_mgmt == (bytes(32),) * 16
    with pytest.raises(ClaimError, match="key-mgmt must be a list of at most 16"):
        ShakenClaims.parse(replace(widest, key_mgmt=(bytes(32),) * 17).serialize())


ONE, TWO = Tn("442079460001"), Tn("442079460002")


@pytest.mark.parametrize(
    ("others", "are_included"),
    [
        (Destinations((ONE,)), True),
        (Destinations(uris=("sip:a@b.example",)), True),
        (Destinations((TWO, ONE), ("sip:a@b.example",)), True),
        (Destinations((ONE, Tn("442079460003"))), False),
        (Destinations((ONE,), ("sip:x@b.example",)), False),
        (Destinations((Tn("442079460003"),), ("sip:a@b.example",)), False),
    ],
)
def test_whether_destinations_are_among_others(others: Destinations, are_included: bool) -> None:
    assert Destinations((ONE, TWO), ("sip:a@b.example", "sip:c@b.example")).includes(others) is are_included


@pytest.mark.parametrize(
    ("token", "wrong"),
    [
        *(
            (token, "two dots and a signature")
            for token in ("a..b", "e30.e30.c2ln", "..c2ln.c2ln", "...", ".c2ln", "")
        ),
        *((token, "not base64url") for token in ("..c2ln=", "..~")),
    ],
)
def test_only_a_signature_behind_two_dots_is_compact(token: str, wrong: str) -> None:
    """RFC 8225 §7."""
    made = Passport.detached("..c2ln", {"alg": "ES256"}, b"{}")
    assert (made.signing_input, made.signature, made.is_detached) == (b"eyJhbGciOiJFUzI1NiJ9.e30", b"sig", True)
    with pytest.raises(MalformedError, match=wrong):
        Passport.detached(token, {"alg": "ES256"}, b"{}")


def test_the_compact_form_is_refused_as_such_without_its_call() -> None:
    with pytest.raises(MalformedError, match="of the compact form"):
        Passport.parse("..c2ln")


def test_only_headers_of_usual_length_are_kept() -> None:
    """Those of a signer are the same, and whoever sends long ones must not fill the memory."""
    for size, is_kept in ((MAX_USUAL_HEADER - 20, True), (MAX_USUAL_HEADER + 20, False)):
        text = part(f'{{"x":"{"y" * (size * 3 // 4)}"}}')
        assert (len(text) <= MAX_USUAL_HEADER) is is_kept
        payload = part(f'{{"x":"{"y" * 600}"}}')
        first, second = (Passport.parse(f"{text}.{payload}.c2ln") for _ in range(2))
        assert (first.header is second.header) is is_kept


@pytest.mark.parametrize("count", [0, 17])
def test_destinations_are_one_to_sixteen(count: int) -> None:
    with pytest.raises(ClaimError):
        Destinations((Tn("1"),) * count)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["tn", "uri", "alg", "dig"]), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["attest", "dest", "iat", "orig", "origid", "key-mgmt", "sdp"]), json))
def test_any_json_is_claims_or_refused(value: dict[str, Any]) -> None:
    from voice_dpki.codec import canonical_json

    with contextlib.suppress(ClaimError, MalformedError):
        ShakenClaims.parse(canonical_json.encode(value))


@given(st.text(max_size=40) | st.text("eyJ30.", max_size=40))
def test_any_text_is_a_token_or_malformed(text: str) -> None:
    with contextlib.suppress(MalformedError):
        Passport.parse(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_claims_or_refused(data: bytes) -> None:
    with pytest.raises((ClaimError, MalformedError)):
        ShakenClaims.parse(data)
