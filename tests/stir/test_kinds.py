"""Kinds of PASSporT: what a second one, which proves nothing about the caller, may do and what it may not.

The second one here is simpler than the product's own `div`, and a token of it needs no other beside it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from voice_dpki.codec import base64url, canonical_json
from voice_dpki.codec.canonical_json import Json
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir import atis
from voice_dpki.stir.call import Call, SigningRequest
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kind import OVER_CALLER, Authority, Kind
from voice_dpki.stir.kinds import KINDS, Kinds, UnknownKindError
from voice_dpki.stir.members import decode
from voice_dpki.stir.passport import ClaimError, Claims, read_dest, read_iat, read_orig, read_tn, signing_input_of
from voice_dpki.stir.shaken import SHAKEN
from voice_dpki.stir.sign import SigningRefused, sign_call
from voice_dpki.stir.verdict import KeyMgmt, SdpBinding, Step, VerificationFailed, Verstat, overall
from voice_dpki.x509.recorded import RecordedCertificate

from .conftest import NOW_S, Operator, Verifier

CALLER = Tn("442079460099")
DIVERTED = Tn("493023125001")
"""A number of the diverting operator, which the caller dialled."""
UUID = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"


@dataclass(frozen=True, slots=True, kw_only=True)
class DivClaims(Claims):
    """A diversion, simplified from RFC 8946: `div` sent the call of `orig` on to `dest`."""

    div: Tn

    @classmethod
    def parse(cls, payload: bytes) -> "DivClaims":
        claims = canonical_json.decode_object(payload)
        return cls(dest=read_dest(claims), div=_div_claim(claims), iat_s=read_iat(claims), orig=read_orig(claims))

    @classmethod
    def of(cls, request: SigningRequest) -> "DivClaims":
        return cls(dest=request.dest, div=Tn(str(request.own["div"])), iat_s=request.iat_s, orig=request.orig)

    def own(self) -> Mapping[str, Json]:
        return {"div": {"tn": self.div}}


def _div_claim(claims: Mapping[str, Json]) -> Tn:
    value = claims.get("div")
    if not isinstance(value, dict):
        raise ClaimError("claim div must be there, as an object")
    return read_tn(value.get("tn"), "div")


def _div_member(value: object) -> Tn:
    if not isinstance(value, dict):
        raise MalformedError("it is not a JSON object")
    return read_tn(value.get("tn"), "div")


def _check_diversion(claims: DivClaims, call: Call) -> None:
    if claims.div in call.dest.tns:
        raise VerificationFailed(Step.CLAIMS, "the call was diverted to where it was")


DIV: Kind[DivClaims] = Kind(
    ppt="div",
    proves_caller=False,
    authority=Authority(lambda claims: claims.div, "the diverting number", "the diverting number"),
    parse=DivClaims.parse,
    checks=(_check_diversion,),
    compose=DivClaims.of,
    members={"div": _div_member},
)
BOTH = Kinds(SHAKEN, DIV)
POLICY = Policy(kinds=BOTH)


@pytest.fixture
def verifier(new_verifier: type[Verifier]) -> Verifier:
    return new_verifier(POLICY)


def diverted(
    operator: Operator,
    *,
    orig: Tn = CALLER,
    div: Tn = DIVERTED,
    iat_s: int = NOW_S,
    key_mgmt: tuple[str, ...] = (),
    kinds: Kinds = BOTH,
) -> Call:
    """A call that the operator sent on, signed as the operator's server would."""
    request = replace(operator.request(orig=orig, iat_s=iat_s), attest="", origid="", ppt="div", own={"div": div})
    identity = sign_call(request, operator.credential, iat_s, kinds=kinds).serialize()
    return Call(orig, request.dest, iat_s, (identity,), key_mgmt, call_id="c1")


def refused(verifier: Verifier, call: Call, record: RecordedCertificate, step: Step, match: str) -> None:
    with pytest.raises(VerificationFailed, match=match) as failure:
        verifier.verify(call, record)
    assert failure.value.step is step


def test_a_good_one_proves_nothing_about_the_caller(operator: Operator, verifier: Verifier) -> None:
    verdict = verifier.verify(diverted(operator), operator.record)
    assert (verdict.verstat, verdict.ok) == (Verstat.NONE, False)
    assert (verdict.reasoncode, verdict.step, verdict.attest) == (None, "", "")
    assert verdict.reasondesc == "A div PASSporT proves nothing about the caller's number."
    assert verdict.signer == "Operator A"


def test_even_from_who_has_authority_over_the_caller(operator: Operator, verifier: Verifier) -> None:
    call = diverted(operator, orig=Tn("493023125002"))
    assert verifier.verify(call, operator.record).verstat is Verstat.NONE


def test_beside_a_shaken_one_it_changes_nothing(
    operator: Operator, new_verifier: type[Verifier], verifier: Verifier
) -> None:
    call = operator.call()
    both = replace(call, identities=(*diverted(operator, orig=call.orig).identities, *call.identities))
    verdicts = [verifier.verify(replace(both, identities=(one,)), operator.record) for one in both.identities]
    assert [verdict.ok for verdict in verdicts] == [False, True]
    assert overall(verdicts) is verdicts[1]


def test_its_signer_needs_authority_over_its_own_number(operator: Operator, verifier: Verifier) -> None:
    foreign = diverted(replace(operator, credential=_boundless(operator)), div=CALLER, orig=Tn("493023125002"))
    refused(verifier, foreign, operator.record, Step.AUTHORITY, "has no authority over the diverting number")


def _boundless(operator: Operator) -> Any:
    """The credential of a signer that does not check its authority."""
    return type("Boundless", (), {
        "profile": operator.credential.profile, "info": operator.credential.info, "signer": operator.signer,
        "authorises": lambda self, tn: True,
    })()  # fmt: skip


def test_its_own_step_runs(operator: Operator, verifier: Verifier) -> None:
    call = diverted(operator, div=Tn("493023125001"))
    to_itself = replace(call, dest=replace(call.dest, tns=(DIVERTED,)))
    refused(verifier, replace(call, dest=replace(call.dest, tns=(CALLER,))), operator.record, Step.NUMBERS, "dest")
    request = operator.request(orig=CALLER, dest=to_itself.dest)
    request = replace(request, ppt="div", own={"div": DIVERTED})
    identity = sign_call(request, operator.credential, NOW_S, kinds=BOTH).serialize()
    call = Call(CALLER, to_itself.dest, NOW_S, (identity,))
    refused(verifier, call, operator.record, Step.CLAIMS, "diverted to where it was")


def forged(operator: Operator, payload: Mapping[str, Any], ppt: str = "div") -> Call:
    header = {"alg": "ES256", "ppt": ppt, "typ": "passport", "x5u": operator.credential.info}
    signed = signing_input_of(header, json.dumps(payload).encode())
    token = f"{signed.decode()}.{base64url.encode(operator.signer.sign(signed))}"
    identity = IdentityHeader(token, operator.credential.info, "ES256", ppt).serialize()
    return replace(diverted(operator), identities=(identity,))


def test_its_own_claims_are_read_and_no_others_are_needed(operator: Operator, verifier: Verifier) -> None:
    payload = {"dest": {"tn": ["442079460001"]}, "iat": NOW_S, "orig": {"tn": CALLER}, "div": {"tn": DIVERTED}}
    assert verifier.verify(forged(operator, payload), operator.record).reasoncode is None
    for div in (None, {}, {"tn": "alice"}):
        refused(verifier, forged(operator, {**payload, "div": div}), operator.record, Step.CLAIMS, "div")
    refused(verifier, forged(operator, payload, "shaken"), operator.record, Step.CLAIMS, "attest")


def test_keying_is_no_matter_of_a_kind_that_does_not_prove_the_caller(
    operator: Operator, new_verifier: type[Verifier]
) -> None:
    verifier = new_verifier(replace(POLICY, require_key_mgmt=True, require_sdp=True))
    verdict = verifier.verify(diverted(operator, key_mgmt=("mikey AQAF",)), operator.record)
    assert (verdict.key_mgmt, verdict.sdp) == (KeyMgmt.NOT_CHECKED, SdpBinding.NOT_CHECKED)
    assert not verdict.ok


def test_a_replay_is_a_replay_in_its_own_kind_alone(operator: Operator, new_verifier: type[Verifier]) -> None:
    """Whatever a kind remembers, another's memory of the same is another."""
    same = replace(DIV, replay_key=lambda passport: b"same"), replace(SHAKEN, replay_key=lambda passport: b"same")
    verifier = new_verifier(Policy(kinds=Kinds(*same)))
    for call in (diverted(operator), operator.call()):
        verifier.verify(call, operator.record)
        refused(verifier, replace(call, call_id="c2"), operator.record, Step.REPLAY, "used before")


def test_each_token_of_it_is_accepted_once(operator: Operator, verifier: Verifier) -> None:
    call = diverted(operator)
    verifier.verify(call, operator.record)
    refused(verifier, replace(call, call_id="c2"), operator.record, Step.REPLAY, "used before")
    verifier.verify(diverted(operator), operator.record)


def test_an_unknown_kind_is_refused_by_name(operator: Operator, new_verifier: type[Verifier]) -> None:
    call = diverted(operator)
    alone = "is not shaken, which alone is supported"
    shaken = Policy(kinds=Kinds(SHAKEN))
    refused(new_verifier(shaken), call, operator.record, Step.PPT_PARAMETER, f"^the Identity's ppt {alone}$")
    header = IdentityHeader.parse(call.identities[0])
    unnamed = replace(call, identities=(replace(header, ppt=None).serialize(),))
    refused(new_verifier(shaken), unnamed, operator.record, Step.PPT, f"^the PASSporT's ppt {alone}$")
    other = replace(call, identities=(replace(header, ppt="rph").serialize(),))
    refused(new_verifier(POLICY), other, operator.record, Step.PPT_PARAMETER, "ppt is none of div and shaken")


def test_a_token_of_one_kind_does_not_go_under_the_name_of_another(operator: Operator, verifier: Verifier) -> None:
    call = diverted(operator)
    header = IdentityHeader.parse(call.identities[0])
    renamed = replace(call, identities=(replace(header, ppt="shaken").serialize(),))
    refused(verifier, renamed, operator.record, Step.PPT, "different")


@pytest.mark.parametrize("ppt", ["DIV", "Div"])
def test_the_header_fields_name_of_it_is_without_case(operator: Operator, verifier: Verifier, ppt: str) -> None:
    call = diverted(operator)
    header = IdentityHeader.parse(call.identities[0])
    assert verifier.verify(replace(call, identities=(replace(header, ppt=ppt).serialize(),)), operator.record)


def test_no_kind_proves_the_caller_without_authority_over_the_caller() -> None:
    with pytest.raises(ValueError, match="div cannot prove"):
        replace(DIV, proves_caller=True)
    assert replace(SHAKEN, ppt="x", authority=OVER_CALLER).proves_caller


def test_the_kinds_of_the_product() -> None:
    assert [kind.ppt for kind in KINDS if kind.proves_caller] == ["shaken"]
    assert str(KINDS) == "div, div-o, rcd, rph, rsp and shaken"
    for ppt in ("msg", "Shaken", ""):
        with pytest.raises(UnknownKindError):
            KINDS.named(ppt)


@pytest.mark.parametrize(
    ("identity", "may_prove"),
    [
        ("e30.e30.c2ln;info=<x>", True),
        ("e30.e30.c2ln;info=<x>;ppt=shaken", True),
        ("e30.e30.c2ln;info=<x>;ppt=SHAKEN", True),
        ("e30.e30.c2ln;info=<x>;ppt=div", False),
        ("e30.e30.c2ln;info=<x>;ppt=rsp", False),
        ("e30.e30.c2ln;info=<x>;ppt=msg", False),
        ("", True),
        (";;", True),
    ],
)
def test_whether_an_identity_may_be_meant_to_prove_the_caller(identity: str, may_prove: bool) -> None:
    """What cannot be read may be, so that its failure counts."""
    assert KINDS.may_prove_caller(identity) is may_prove


def test_a_signer_needs_authority_over_something() -> None:
    with pytest.raises(ValueError, match="authority over something"):
        Authority(None, "nothing", "nothing")
    assert Authority(None, "x", "x", lambda claims: frozenset()).number is None


@pytest.mark.parametrize(
    "changes",
    [{"proves_caller": True}, {"authority": Authority(None, "x", "x", lambda claims: frozenset())}],
)
def test_a_kind_for_answers_proves_who_answers_and_nobody_else(changes: dict[str, Any]) -> None:
    answering = replace(DIV, answers=True)
    with pytest.raises(ValueError, match="div"):
        replace(answering, **changes)
    with pytest.raises(ValueError, match="proves the number that was called"):
        replace(SHAKEN, answers=True)


def body(**changes: object) -> bytes:
    request = {"orig": {"tn": CALLER}, "dest": {"tn": ["442079460001"]}, "iat": NOW_S, **changes}
    return json.dumps({"signingRequest": request}).encode()


def test_a_request_to_sign_it_needs_what_the_kind_needs(operator: Operator) -> None:
    request = atis.parse_signing_request(decode(body(ppt="div", div={"tn": DIVERTED})), BOTH)
    assert (request.ppt, request.own, request.attest) == ("div", {"div": DIVERTED}, "")
    header = sign_call(request, operator.credential, NOW_S, kinds=BOTH)
    jose, payload, _ = header.token.split(".")
    assert (header.ppt, json.loads(base64url.decode(jose))["ppt"]) == ("div", "div")
    assert base64url.decode(payload).decode() == (
        f'{{"dest":{{"tn":["442079460001"]}},"div":{{"tn":"{DIVERTED}"}},"iat":{NOW_S},"orig":{{"tn":"{CALLER}"}}}}'
    )


@pytest.mark.parametrize(
    ("message_id", "variables", "changes"),
    [
        ("SVC4001", ["div"], {"ppt": "div"}),
        ("SVC4005", ["div"], {"ppt": "div", "div": 7}),
        ("SVC4005", ["div"], {"ppt": "div", "div": {"tn": "alice"}}),
        ("SVC4005", ["rph"], {"ppt": "div", "div": {"tn": "1"}, "rph": {}}),
        ("SVC4005", ["div"], {"ppt": "shaken", "attest": "A", "origid": UUID, "div": {"tn": "1"}}),
        ("SVC4001", ["attest"], {"ppt": "shaken"}),
        ("SVC4005", ["ppt", "PASSporTs of type div and shaken alone are signed here, and not rph"], {"ppt": "rph"}),
    ],
)
def test_requests_to_sign_that_cannot_be_used(
    message_id: str, variables: list[str], changes: dict[str, Any]
) -> None:
    with pytest.raises(RequestError) as failure:
        atis.parse_signing_request(decode(body(**changes)), BOTH)
    assert failure.value.message_id == message_id
    told = json.loads(failure.value.body())["requestError"]["serviceException"]["variables"]
    assert told[: len(variables)] == variables


def test_it_is_signed_with_authority_over_its_own_number_alone(operator: Operator) -> None:
    with pytest.raises(SigningRefused, match="the diverting number is not among those") as failure:
        diverted(operator, div=CALLER, orig=DIVERTED)
    assert failure.value.code == "no-authority"


def test_what_is_not_in_the_table_is_not_signed(operator: Operator) -> None:
    with pytest.raises(UnknownKindError):
        diverted(operator, kinds=Kinds(SHAKEN))
