"""Access tokens of a call placement service, with those of PyJWT, which somebody else wrote."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests.recorded import absent, recorded
from voice_dpki.codec import base64url
from voice_dpki.effects import SystemRandom
from voice_dpki.names import Tn
from voice_dpki.stir.access import (
    MAX_ACCESS_LENGTH,
    Access,
    AccessAction,
    AccessRefused,
    Place,
    Terms,
    check_form,
    check_issuer,
    passports_digest,
    sign_access,
)
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.tnauthlist import TnAuthList

from .conftest import NOW_S, RANGE_A, Operator

HOST = "cps.b.example"
TERMS = Terms(frozenset({HOST}))
PLACE = Place(Tn("493023125001"), Tn("442079460001"))
TOKENS = ("e30.e30.AAAA", "e30.e30.BBBB")
WRITTEN = b'["e30.e30.AAAA","e30.e30.BBBB"]'
"""By hand, as RFC 8785 §3.2 has it."""
CLAIMS: dict[str, Any] = {
    "action": "publish",
    "aud": HOST,
    "dest": {"tn": [PLACE.dest]},
    "exp": NOW_S + 15,
    "iat": NOW_S,
    "iss": "Operator A",
    "jti": "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d",
    "orig": {"tn": PLACE.orig},
    "passports": "sha256-" + base64.b64encode(hashlib.sha256(WRITTEN).digest()).decode(),
}


def by_pyjwt(operator: Operator, claims: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
    told = {"x5u": operator.credential.info, **(headers or {})}
    return jwt.encode(claims, operator.signer.private_key, algorithm="ES256", headers=told)


def judged(
    operator: Operator, token: str, action: AccessAction = AccessAction.PUBLISH, place: Place = PLACE
) -> Access:
    access = Access.parse(token)
    check_form(access, TERMS, action, place, NOW_S)
    check_issuer(access, operator.record, NOW_S)
    return access


def refused(operator: Operator, claims: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
    with pytest.raises(AccessRefused) as caught:
        judged(operator, by_pyjwt(operator, claims, headers))
    return caught.value.code


def test_a_token_of_pyjwt_is_accepted(operator: Operator) -> None:
    access = judged(operator, by_pyjwt(operator, CLAIMS))
    assert (access.issuer, access.exp_s, access.place) == ("Operator A", NOW_S + 15, PLACE)
    assert access.passports == passports_digest(TOKENS)


@pytest.mark.parametrize("publisher", ["", "Operator A"])
@pytest.mark.parametrize("action", AccessAction)
def test_pyjwt_accepts_ours(operator: Operator, action: AccessAction, publisher: str) -> None:
    place = replace(PLACE, publisher=publisher)
    token = sign_access(
        operator.credential, action, place, HOST, NOW_S, SystemRandom(), passports=TOKENS, lifetime_s=15
    )
    key = load_der_public_key(operator.signer.public_key_der)
    options: Any = {"verify_exp": False, "verify_iat": False, "require": ["iat", "jti", "iss", "aud"]}
    claims = jwt.decode(token, key, algorithms=["ES256"], audience=HOST, options=options)  # type: ignore[arg-type]
    wanted = {**CLAIMS, "action": str(action), "jti": claims["jti"]}
    wanted |= {"spc": publisher} if publisher else {"sub": "Operator A"}
    if action is AccessAction.RETRIEVE:
        del wanted["exp"], wanted["passports"]
    assert claims == wanted
    assert jwt.get_unverified_header(token)["x5u"] == operator.credential.info
    judged(operator, token, action, place)


def test_a_publication_ends_at_once_where_no_time_is_told(operator: Operator) -> None:
    token = sign_access(
        operator.credential, AccessAction.PUBLISH, PLACE, HOST, NOW_S, SystemRandom(), passports=TOKENS
    )
    assert Access.parse(token).exp_s == NOW_S


def test_each_token_is_another(operator: Operator) -> None:
    made = {
        Access.parse(
            sign_access(operator.credential, AccessAction.RETRIEVE, PLACE, HOST, NOW_S, SystemRandom())
        ).jti
        for _ in range(20)
    }
    assert len(made) == 20
    assert all(len(jti) == 36 and jti[14] == "4" and jti[19] in "89ab" for jti in made)


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (bytes(16), "00000000-0000-4000-8000-000000000000"),
        (b"\xff" * 16, "ffffffff-ffff-4fff-bfff-ffffffffffff"),
        (bytes(range(0, 256, 17)), "00112233-4455-4677-8899-aabbccddeeff"),
    ],
)
def test_names_of_tokens_are_random_uuids(operator: Operator, octets: bytes, text: str) -> None:
    """RFC 9562 §5.4: version 4 in the four bits of octet 6, and the variant in the two of octet 8."""
    random: Any = type("Random", (), {"token": staticmethod(lambda size: octets[:size])})()
    token = sign_access(operator.credential, AccessAction.RETRIEVE, PLACE, HOST, NOW_S, random)
    assert Access.parse(token).jti == text


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aud": "cps.c.example"}, "audience"),
        ({"aud": ["cps.c.example", "cps.d.example"]}, "audience"),
        ({"aud": []}, "token"),
        ({"aud": ["x"] * 9}, "token"),
        ({"iat": NOW_S - 61}, "fresh"),
        ({"iat": NOW_S + 61}, "fresh"),
        ({"iat": float(NOW_S)}, "token"),
        ({"iat": True}, "token"),
        ({"dest": [PLACE.dest]}, "token"),
        ({"dest": {}}, "token"),
        ({"orig": [PLACE.orig]}, "token"),
        ({"orig": {}}, "token"),
        ({"iat": -1}, "token"),
        ({"iat": 1 << 48}, "token"),
        ({"exp": None}, "token"),
        ({"iat": NOW_S - 20, "exp": NOW_S - 5}, "fresh"),
        ({"iat": NOW_S + 20, "exp": NOW_S + 20}, "fresh"),
        ({"iat": NOW_S + 20, "exp": NOW_S + 10}, "fresh"),
        ({"iat": NOW_S - 20, "exp": NOW_S}, "fresh"),
        ({"action": "retrieve"}, "bound"),
        ({"action": None}, "token"),
        ({"dest": {"tn": ["442079460002"]}}, "bound"),
        ({"dest": {"tn": [PLACE.dest, PLACE.dest]}}, "token"),
        ({"dest": {"tn": PLACE.dest}}, "token"),
        ({"orig": {"tn": "493023125002"}}, "bound"),
        ({"orig": {"tn": "+493023125001"}}, "token"),
        ({"orig": {"tn": PLACE.orig, "uri": "sip:a@b"}}, "token"),
        ({"spc": "Operator A"}, "bound"),
        ({"sub": "Operator B"}, "bound"),
        ({"iss": "Operator B"}, "issuer"),
        ({"iss": ""}, "token"),
        ({"jti": "x" * 129}, "token"),
        ({"aud": [HOST, "x" * 129]}, "token"),
        ({"aud": [HOST, 7]}, "token"),
        ({"aud": {HOST: 1}}, "token"),
        ({"jti": None}, "token"),
        ({"passports": None}, "token"),
    ],
)
def test_what_a_token_must_say(operator: Operator, changes: dict[str, Any], code: str) -> None:
    assert refused(operator, {**CLAIMS, **changes}) == code


@pytest.mark.parametrize(
    "changes",
    [
        {"jti": "x"},
        {"jti": "x" * 128},
        {"aud": [HOST, *["x" * 128] * 7]},
        {"iat": NOW_S - 60},
        {"iat": NOW_S + 60, "exp": NOW_S + 61},
        {"exp": NOW_S + 1},
        {"exp": (1 << 48) - 1},
        {"sub": "Operator A"},
    ],
)
def test_the_bounds_of_what_a_token_may_say(operator: Operator, changes: dict[str, Any]) -> None:
    assert judged(operator, by_pyjwt(operator, {**CLAIMS, **changes})).issuer == "Operator A"


@pytest.mark.parametrize(
    "headers",
    [
        {"typ": "passport"},
        {"ppt": "shaken"},
        {"crit": ["exp"]},
        {"x5u": "https://certs.a.example/authn.der"},
        {"x5u": None},
        {"x5c": []},
    ],
)
def test_the_header_has_nothing_else(operator: Operator, headers: dict[str, Any]) -> None:
    given = {"x5u": None, **headers} if "x5c" in headers else headers
    assert refused(operator, CLAIMS, given) == "token"


def test_a_certificate_may_be_in_the_token(operator: Operator) -> None:
    der = base64.b64encode(operator.der).decode()
    claims = {name: value for name, value in CLAIMS.items() if name != "exp"}
    token = jwt.encode(claims, operator.signer.private_key, algorithm="ES256", headers={"x5c": [der]})
    assert judged(operator, token).digest == operator.record.digest


def test_the_certificate_of_a_token_is_told(operator: Operator) -> None:
    trusted = check_issuer(Access.parse(by_pyjwt(operator, CLAIMS)), operator.record, NOW_S)
    assert (trusted.organization, trusted.profile.digest) == ("Operator A", operator.record.digest)


def test_a_digest_must_be_there_to_publish(operator: Operator) -> None:
    assert refused(operator, {name: value for name, value in CLAIMS.items() if name != "passports"}) == "bound"


def test_other_signatures_are_refused(operator: Operator, new_operator: Callable[..., Operator]) -> None:
    thief = new_operator()
    named = {"x5u": operator.credential.info}
    stolen = by_pyjwt(thief, CLAIMS, named)
    symmetric = jwt.encode(CLAIMS, "x" * 32, algorithm="HS256", headers=named)
    unsigned = jwt.encode(CLAIMS, "", algorithm="none", headers=named)
    for token, code in ((stolen, "signature"), (symmetric, "token"), (unsigned, "token")):
        with pytest.raises(AccessRefused) as caught:
            judged(operator, token)
        assert caught.value.code == code


def test_the_ledger_must_trust_the_certificate(operator: Operator, new_operator: Callable[..., Operator]) -> None:
    token = by_pyjwt(operator, CLAIMS)
    of_other = recorded(operator.der, Allotment(ranges=(RANGE_A,)), "Operator B")
    moved = recorded(operator.der, Allotment())
    for record in (absent(operator.record.digest), of_other, moved):
        with pytest.raises(AccessRefused) as caught:
            check_issuer(Access.parse(token), record, NOW_S)
        assert caught.value.code == "certificate"


def test_codes_are_the_issuer_where_a_certificate_has_any(new_operator: Callable[..., Operator]) -> None:
    operator = new_operator(listed=TnAuthList(spcs=("1234",), ranges=(RANGE_A,)))
    operator = replace(operator, record=recorded(operator.der, Allotment(ranges=(RANGE_A,), spcs=("1234",))))
    place = replace(PLACE, publisher="1234")
    judged(operator, by_pyjwt(operator, {**CLAIMS, "iss": "1234", "spc": "1234"}), place=place)
    assert refused(operator, CLAIMS) == "issuer"
    own = sign_access(operator.credential, AccessAction.RETRIEVE, PLACE, HOST, NOW_S, SystemRandom())
    assert Access.parse(own).issuer == "1234"


def test_another_operators_publications_can_be_asked_for(operator: Operator) -> None:
    claims = {**CLAIMS, "action": "retrieve", "spc": "1234"}
    judged(operator, by_pyjwt(operator, claims), AccessAction.RETRIEVE, replace(PLACE, publisher="1234"))
    with pytest.raises(AccessRefused, match="only the issuer itself"):
        judged(operator, by_pyjwt(operator, {**CLAIMS, "spc": "1234"}), place=replace(PLACE, publisher="1234"))


def test_the_length_of_a_token(operator: Operator) -> None:
    url = operator.credential.info.replace("example/", "example/x/")  # else no payload in base64 would fit
    texts = (by_pyjwt(operator, {**CLAIMS, "x": "y" * size}, {"x5u": url}) for size in range(2400, 2800))
    longest = next(text for text in texts if len(text) == 4096)
    assert judged(operator, longest).issuer == "Operator A"
    with pytest.raises(AccessRefused, match="more than 4096"):
        Access.parse(longest + "A")


@pytest.mark.parametrize("token", ["e30.e30", "e30.e30.AA.AA"])
def test_a_token_has_three_parts(token: str) -> None:
    with pytest.raises(AccessRefused, match="three parts"):
        Access.parse(token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        "a.b.c.d",
        "e30.e30.",
        "x" * (MAX_ACCESS_LENGTH + 1),
        f"{base64url.encode(b'[]')}.e30.AA",
        base64url.encode(b'{"alg":"ES256","alg":"ES256"}') + ".e30.AA",
        base64url.encode(b"\xff") + ".e30.AA",
    ],
)
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(AccessRefused) as caught:
        Access.parse(token)
    assert caught.value.code == "token"
