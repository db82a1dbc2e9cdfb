import json
from collections.abc import Callable
from typing import Any

import pytest

from voice_dpki.codec import base64url
from voice_dpki.errors import LocalError
from voice_dpki.names import Tn
from voice_dpki.stir.passport import Destinations, Passport
from voice_dpki.stir.sign import SigningRefused, make_credential, sign_call
from voice_dpki.x509.keys import generate_es256, generate_rsa, verify_signature
from voice_dpki.x509.profile import digest_of, read_profile
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

from .conftest import Operator

NOW_S = 1_790_000_000


def test_signs_in_the_full_form(operator: Operator) -> None:
    header = sign_call(operator.request(), operator.credential, NOW_S)
    url = f"https://certs.a.example/{digest_of(operator.der).hex()}.der"
    assert (header.info, header.alg, header.ppt) == (url, "ES256", "shaken")
    jose, payload, _ = header.token.split(".")
    assert base64url.decode(jose).decode() == (f'{{"alg":"ES256","ppt":"shaken","typ":"passport","x5u":"{url}"}}')
    assert list(json.loads(base64url.decode(payload))) == ["attest", "dest", "iat", "key-mgmt", "orig", "origid"]


def test_the_signature_is_over_header_and_payload(operator: Operator) -> None:
    passport = Passport.parse(sign_call(operator.request(), operator.credential, NOW_S).token)
    verify_signature(operator.signer.public_key_der, "ES256", passport.signing_input, passport.signature)


def test_without_key_management_there_is_no_such_claim(operator: Operator) -> None:
    passport = Passport.parse(sign_call(operator.request(key_mgmt=()), operator.credential, NOW_S).token)
    assert b"key-mgmt" not in passport.payload_untrusted


@pytest.mark.parametrize("orig", ["493023126000", "493023124999", "4930231250011", "112", "49302312500#"])
def test_no_signature_without_authority_over_the_number(operator: Operator, orig: str) -> None:
    with pytest.raises(SigningRefused) as refused:
        sign_call(operator.request(orig=Tn(orig)), operator.credential, NOW_S)
    assert refused.value.code == "no-authority"
    assert orig not in str(refused.value)


@pytest.mark.parametrize(("offset_s", "fresh"), [(-61, False), (-60, True), (60, True), (61, False)])
def test_iat_is_fresh_in_both_directions(operator: Operator, offset_s: int, fresh: bool) -> None:
    request = operator.request(iat_s=NOW_S + offset_s)
    if fresh:
        assert sign_call(request, operator.credential, NOW_S)
        return
    side = "before" if offset_s < 0 else "after"
    with pytest.raises(SigningRefused, match=f"iat lies 61 s {side} this server") as refused:
        sign_call(request, operator.credential, NOW_S)
    assert refused.value.code == "stale-iat"


@pytest.mark.parametrize(("now_s", "iat_s"), [(NOW_S + 1001, NOW_S + 990), (NOW_S + 999, NOW_S + 1001)])
def test_now_and_iat_lie_within_the_certificates_validity(operator: Operator, now_s: float, iat_s: int) -> None:
    with pytest.raises(SigningRefused) as refused:
        sign_call(operator.request(iat_s=iat_s), operator.credential, now_s)
    assert refused.value.code == "credential-not-valid"


def test_service_provider_codes_stand_for_configured_ranges(new_operator: Callable[..., Operator]) -> None:
    operator = new_operator(listed=TnAuthList(("709J",)))
    ranges = [TnRange(Tn("493023125000"), 10)]
    credential = make_credential(operator.signer, read_profile(operator.der), "https://a/{digest}", NOW_S, ranges)
    assert not operator.credential.authorises(Tn("493023125001"))
    assert credential.authorises(Tn("493023125001"))
    assert not credential.authorises(Tn("493023125010"))


def test_destinations_may_be_several_and_uris(operator: Operator) -> None:
    dest = Destinations((Tn("442079460001"),), ("sip:help@b.example",))
    passport = Passport.parse(sign_call(operator.request(dest=dest), operator.credential, NOW_S).token)
    assert b'"dest":{"tn":["442079460001"],"uri":["sip:help@b.example"]}' in passport.payload_untrusted


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("TNAuthList", {"listed": None}),
        ("P-256", {"signer": generate_rsa()}),
        ("validity", {"not_before_s": NOW_S + 10}),
        ("validity", {"not_after_s": NOW_S - 10}),
        ("digital signatures", {"organization": None, "common_name": None}),
    ],
)
def test_credentials_that_cannot_sign(
    new_operator: Callable[..., Operator], match: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(LocalError, match=match):
        new_operator(**changes)


def test_key_and_certificate_must_belong_together(operator: Operator) -> None:
    with pytest.raises(LocalError, match="private key"):
        make_credential(generate_es256(), operator.credential.profile, "https://a/{digest}", NOW_S)


def test_the_url_must_name_the_certificate(operator: Operator) -> None:
    with pytest.raises(LocalError, match=r"info_url.*\{digest\}"):
        make_credential(operator.signer, operator.credential.profile, "https://a/cert.der", NOW_S)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"orig": Tn("442079460001")},
            "originating number is not among those that this server's certificate may sign for",
        ),
        (
            {"ppt": "rph", "own": {"rph": ("ets.0",)}},
            "namespace of rph is not among those that this server's configuration has",
        ),
    ],
)
def test_who_gives_the_authority_that_is_lacking_is_told(
    operator: Operator, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SigningRefused, match=f"the {sentence}$"):
        sign_call(operator.request(**changes), operator.credential, NOW_S)
