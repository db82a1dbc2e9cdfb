"""Fuzzing Identity values, PASSporTs of each type, chains of them, and both requests' bodies in both forms.

Any bytes get an answer or a documented error.
"""

import json
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from tests.campaign import bent, campaign, rounds
from tests.recorded import absent
from voice_dpki.codec import base64url
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir import atis
from voice_dpki.stir.call import Call
from voice_dpki.stir.div import DIV, Diverting
from voice_dpki.stir.examine import Examined, Policy, examine
from voice_dpki.stir.faults import RequestError, error_of_refusal
from voice_dpki.stir.forms import read_signing, read_verification
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kind import Kind
from voice_dpki.stir.members import decode
from voice_dpki.stir.passport import ClaimError, Destinations, Passport
from voice_dpki.stir.rcd import RCD
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.rph import RPH
from voice_dpki.stir.rsp import RSP
from voice_dpki.stir.several import examine_all, judge_all
from voice_dpki.stir.shaken import ShakenClaims
from voice_dpki.stir.sign import SigningRefused, sign_call
from voice_dpki.stir.unverified import NO_IDENTITY
from voice_dpki.stir.verdict import Verdict, VerificationFailed, Verstat, verdict_of
from voice_dpki.stir.verify import judge
from voice_dpki.x509.recorded import RecordedCertificate

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


TYPES: dict[str, dict[str, object]] = {
    "shaken": {"attest": "A", "origid": UUID},
    "div": {"div": {"tn": "493023125009", "hi": "1.2.1"}},
    "rph": {"rph": {"auth": ["esnet.1", "esnet.0"]}, "sph": "psap-callback"},
    "rcd": {
        "rcd": {"nam": "A \u00e9", "icn": "https://a.example/i.png", "jcd": ["vcard", [["fn", {}, "text", "A"]]]},
        "rcdi": {"/icn": f"sha256-{'A' * 43}="},
        "crn": "parcel",
    },
    "rsp": {},
}
"""By type: the members and claims that it has of its own. The first one is that of no other type."""
DEST = {"rsp": "493023125002"}
"""Who is called, where it must be a number of the signer."""
PIECES_MS = [
    *PIECES, b'"ppt":"div"', b'"ppt":"rph"', b'"ppt":"shaken"', b'"div":{"tn":"1"}', b'"hi":"1.1"', b'"opt":"e30"',
    b'"uri":"sip:1@b;user=phone"', b'"rph":{"auth":[]}', b'"sph":"psap-callback"', b'"requestId":""', b"esnet.",
    b'"ppt":"rcd"', b'"ppt":"rsp"', b'"nam":""', b'"crn":""', b'"rcdi":{"/nam":"sha256-"}', b'"answer":true',
    b'"jcl":"https://a.example"', b'"outOfBand":true', b'"identityHeaders":[]', b'"dest":{"tn":"1"}',
    b'"protectedHeaders":"Resource-Priority: ets.0"', b'"identity":',
]  # fmt: skip
NAMESPACES = frozenset(("esnet", "ets"))
GRANTING = Policy(priority={"Operator A": NAMESPACES})


def granting(operator: Operator) -> Operator:
    """The operator with authority over namespaces as well."""
    return replace(operator, credential=replace(operator.credential, namespaces=NAMESPACES))


def ms_body(ppt: str) -> bytes:
    dest = {"tn": [DEST.get(ppt, "442079460001")]}
    common = {"orig": {"tn": "493023125001"}, "dest": dest, "iat": NOW_S, "requestId": "12378"}
    return json.dumps({"signingRequest": {**common, "ppt": ppt, **TYPES[ppt]}}).encode()


def check_error(error: RequestError) -> None:
    """Hold an error of either form to what every one must be."""
    assert error.status in (400, 403)
    assert 0 < len(error.sentence) < 400
    (name,) = json.loads(error.body())
    assert name in ("error", "requestError")


def test_signing_requests_of_each_type_in_3gpps_form(request: pytest.FixtureRequest, operator: Operator) -> None:
    """Who gets a signature gets one of the type that was asked for, over what was asked for."""
    signed = dict.fromkeys(TYPES, 0)
    signer = granting(operator)
    for chance in rounds(request):
        ppt = chance.choice(list(TYPES))
        body = bent(chance, ms_body(ppt), PIECES_MS) if chance.random() < 0.9 else ms_body(ppt)
        try:
            asked = read_signing(body)
            identity = sign_call(asked.what, signer.credential, NOW_S)
        except SigningRefused as refused:
            check_error(asked.refused(error_of_refusal(refused)))
            continue
        except RequestError as error:
            check_error(error)
            continue
        answer = json.loads(asked.answer(identity))["signingResponse"]
        payload = json.loads(base64url.decode(identity.token.split(".")[1]))
        wanted = json.loads(body)["signingRequest"].get("ppt") or "shaken"
        assert answer["identityHeader"].endswith(f";ppt={wanted}")
        assert {name for name in ("attest", "div", "rph", "rcd") if name in payload} == set([*TYPES[wanted]][:1])
        assert payload["orig"] == {"tn": asked.what.orig}
        signed[wanted] += 1
    assert all(signed.values()) or sum(signed.values()) < 20


def verified_together(body: bytes, operator: Operator) -> dict[str, Any] | None:
    """Verify whatever a request asks about, and return the answer; None for one that was refused."""
    try:
        asked = read_verification(body)
    except RequestError as error:
        check_error(error)
        return None
    found = examine_all(asked.what, GRANTING, NOW_S)
    records = {each.digest: _record(each, operator) for each in found if isinstance(each, Examined)}
    verdicts = judge_all(asked.what, found, records, GRANTING, ReplayCache(99, 120), NOW_S, NOW_S)
    assert len(verdicts) == len(asked.what.identities)
    verdicts = verdicts or [NO_IDENTITY]
    for verdict in verdicts:
        if verdict.about_caller:
            told(verdict)
        assert verdict.verstat is not Verstat.PASSED or not verdict.step
    answer: dict[str, Any] = json.loads(asked.answer(verdicts))["verificationResponse"]
    return answer


def _record(examined: Examined, operator: Operator) -> RecordedCertificate:
    known = operator.record.digest == examined.digest
    return operator.record if known else absent(examined.digest)


def test_calls_that_were_diverted_in_3gpps_form(request: pytest.FixtureRequest, operator: Operator) -> None:
    """Tokens of a good chain, some of them bent, left out or doubled; who is proven was really sent there."""
    numbers = [Tn(f"49302312500{n}") for n in range(1, 9)]
    signer, passed = granting(operator), 0
    for chance in rounds(request):
        count = chance.randrange(8)
        caller = signer.call(dest=Destinations((numbers[0],)), key_mgmt=()).identities[0]
        ways = pairwise(numbers[: count + 1])
        hops = [_signed(signer, to, ppt="div", own={"div": Diverting(by)}) for by, to in ways]
        granted = _signed(signer, numbers[0], ppt="rph", own={"rph": ("esnet.0",)})
        tokens, is_whole = [*hops, granted], chance.random() < 0.3
        if not is_whole:
            tokens = chance.choices(tokens, k=chance.randrange(1, 9)) if chance.random() < 0.5 else tokens
            tokens = [_bent_text(chance, token) if chance.random() < 0.2 else token for token in tokens]
        chance.shuffle(tokens)
        members = {
            "identityHeader": caller,
            "identityHeaders": tokens,
            "from": {"tn": "493023125001"},
            "to": {"tn": numbers[0]},
            "dest": {"tn": numbers[count]},
            "time": NOW_S,
            "protectedHeaders": ["Resource-Priority: esnet.0"],
        }
        body = json.dumps({"verificationRequest": members}).encode()
        answer = verified_together(body if chance.random() < 0.8 else bent(chance, body, PIECES_MS), signer)
        if answer is not None and answer.get("verstatValue") == "TN-Validation-Passed":
            passed += 1
        if is_whole and count > 5 and answer is not None:
            assert answer.get("verstatValue") != "TN-Validation-Passed"
    assert passed


def _signed(operator: Operator, to: Tn, **changes: Any) -> str:
    request = operator.request(dest=Destinations((to,)), key_mgmt=(), **changes)
    return sign_call(request, operator.credential, NOW_S).serialize()


def _bent_text(chance: random.Random, text: str) -> str:
    return bent(chance, text.encode(), PIECES).decode("utf-8", "replace")


def test_answers_in_both_forms(request: pytest.FixtureRequest, operator: Operator) -> None:
    """A token of type rsp, bent or not; whoever is proven to have answered holds the number."""
    passed = 0
    orig, called = Tn("493023125001"), Tn("493023125002")
    identity = _signed(operator, called, ppt="rsp")
    for chance in rounds(request):
        shown = _bent_text(chance, identity) if chance.random() < 0.5 else identity
        to, name = ([called], "identity") if chance.random() < 0.5 else (called, "identityHeader")
        members = {"answer": True, "from": {"tn": orig}, "to": {"tn": to}, "time": NOW_S, name: shown}
        body = json.dumps({"verificationRequest": members}).encode()
        body = body if chance.random() < 0.5 else bent(chance, body, PIECES_MS)
        answer = verified_together(body, operator)
        verstat = None if answer is None else answer.get("verstat") or answer.get("verstatValue")
        if verstat == "TN-Validation-Passed":
            passed += 1
            what = read_verification(body).what
            assert (what.is_answer, what.orig, what.dest.tns) == (True, orig, (called,))
    assert passed


@pytest.mark.parametrize("kind", [DIV, RPH, RCD, RSP], ids=["div", "rph", "rcd", "rsp"])
def test_payloads_of_other_types(request: pytest.FixtureRequest, kind: Kind[Any]) -> None:
    """What is read is written again as it was read."""
    dest = {"tn": ["442079460001"], "uri": ["urn:service:sos"]} if kind is not RSP else {"tn": ["442079460001"]}
    payload = {
        "dest": dest,
        "iat": NOW_S,
        "orig": {"tn": "493023125001"},
        **TYPES[kind.ppt],
    }
    for chance in rounds(request):
        try:
            claims = kind.parse(bent(chance, json.dumps(payload).encode(), PIECES_MS))
        except (MalformedError, ClaimError) as error:
            check_sentence(error)
        else:
            again = kind.parse(claims.serialize())
            assert again.serialize() == claims.serialize()
