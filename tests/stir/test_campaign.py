"""Fuzzing Identity values, PASSporTs and both requests' bodies: any bytes get an answer or a documented error."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.campaign import bent, campaign, rounds
from voice_dpki.codec import base64url
from voice_dpki.errors import MalformedError
from voice_dpki.stir import atis
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import Policy, examine
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.members import decode
from voice_dpki.stir.passport import ClaimError, Passport
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.shaken import ShakenClaims
from voice_dpki.stir.sign import SigningRefused, sign_call
from voice_dpki.stir.verdict import Verdict, VerificationFailed, Verstat, verdict_of
from voice_dpki.stir.verify import judge

from .conftest import Operator

pytestmark = campaign
NOW_S = 1_790_000_000
UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
PIECES = [
    b"\r\n ", b'"\\', b";;", b"<>", b"%00", "\u212a".encode(), b"\\ud800", b'"attest":', b"1e999", b"-0", b"[[[[",
    b"null", b'{"":0}', b',"tn":[]', b"urn:service:sos", b";user=phone", b"9" * 40, b"\xff", b"\x00",
]  # fmt: skip


def told(verdict: Verdict) -> Verdict:
    """Hold a verdict to what every one must be, whatever it is about; returns it."""
    body = json.loads(atis.verification_response(verdict))["verificationResponse"]
    assert body["verstat"] in set(Verstat)
    assert (verdict.verstat is Verstat.PASSED) is (verdict.reasoncode is None)
    assert len(verdict.reasondesc) < 300
    return verdict


def check_sentence(error: Exception) -> None:
    assert 0 < len(str(error)) < 300
    if isinstance(error, RequestError):
        assert json.loads(error.body())["requestError"]


def verified(call: Call, operator: Operator) -> Verdict:
    try:
        examined = examine(call, call.identities[0], Policy(), NOW_S)
        return told(judge(examined, operator.record, Policy(), ReplayCache(9, 120), NOW_S))
    except VerificationFailed as failure:
        return told(verdict_of(failure))


def signing_body(**changes: Any) -> bytes:
    request = {
        "attest": "A",
        "orig": {"tn": "493023125001"},
        "dest": {"tn": ["442079460001"], "uri": ["sip:+4420@b.example;user=phone", "urn:service:sos"]},
        "iat": NOW_S,
        "origid": UUID,
        "keyMgmt": ["mikey AQAFgM3YFvMAAAAA"],
    }
    return json.dumps({"signingRequest": {**request, **changes}}).encode()


def test_bodies_of_signing_requests(request: pytest.FixtureRequest, operator: Operator) -> None:
    """Who is signed for is accepted by the verifier for that very call."""
    signed = 0
    for chance in rounds(request):
        body = bent(chance, signing_body(), PIECES) if chance.random() < 0.9 else signing_body()
        try:
            wanted = atis.parse_signing_request(decode(body))
            identity = sign_call(wanted, operator.credential, NOW_S)
        except (RequestError, SigningRefused) as refused:
            check_sentence(refused)
            continue
        signed += 1
        atis.signing_response(identity)
        call = Call(wanted.orig, wanted.dest, wanted.iat_s, (identity.serialize(),), wanted.key_mgmt)
        assert verified(call, operator).verstat is Verstat.PASSED
    assert signed


def test_bodies_of_verification_requests(request: pytest.FixtureRequest, operator: Operator) -> None:
    call = operator.call()
    sample = {"from": {"tn": call.orig}, "to": {"tn": call.dest.tns}, "time": NOW_S, "identity": call.identities[0]}
    body = json.dumps({"verificationRequest": {**sample, "keyMgmt": call.key_mgmt}}).encode()
    for chance in rounds(request):
        try:
            given = atis.parse_verification_request(decode(bent(chance, body, PIECES)))
        except RequestError as refused:
            check_sentence(refused)
            continue
        verified(given, operator)


def test_identities(request: pytest.FixtureRequest, operator: Operator) -> None:
    call = operator.call()
    for chance in rounds(request):
        bent_identity = bent(chance, call.identities[0].encode(), [*PIECES, b";info=<x>;alg=ES256;ppt=shaken"])
        identity = bent_identity.decode("utf-8", "surrogateescape")
        try:
            header = IdentityHeader.parse(identity)
        except MalformedError:
            assert verified(replace(call, identities=(identity,)), operator).verstat is Verstat.NONE
            continue
        assert header.token
        verified(replace(call, identities=(identity,)), operator)


def test_passports_signed_by_their_signer(request: pytest.FixtureRequest, operator: Operator) -> None:
    """What a recorded signer writes into header and payload, and signs."""
    call = operator.call()
    received = IdentityHeader.parse(call.identities[0])
    header, payload = (base64url.decode(part) for part in received.token.split(".")[:2])
    for chance in rounds(request):
        which = chance.randrange(3)
        parts = (
            bent(chance, header, PIECES) if which != 1 else header,
            bent(chance, payload, PIECES) if which != 0 else payload,
        )
        signing_input = ".".join(map(base64url.encode, parts))
        token = f"{signing_input}.{base64url.encode(operator.signer.sign(signing_input.encode()))}"
        try:
            claims = ShakenClaims.parse(Passport.parse(token).payload_untrusted)
        except (MalformedError, ClaimError) as error:
            check_sentence(error)
        else:
            ShakenClaims.parse(claims.serialize())
        verdict = verified(replace(call, identities=(replace(received, token=token).serialize(),)), operator)
        if verdict.verstat is Verstat.PASSED:
            assert (claims.orig, claims.dest.includes(call.dest)) == (call.orig, True)
            assert claims.attest in "ABC"
            assert abs(claims.iat_s - NOW_S) <= 60
