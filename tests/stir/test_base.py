"""The PASSporT without an extension, its compact form, and certificates in x5c."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from voice_dpki.codec import base64url
from voice_dpki.names import Tn
from voice_dpki.stir.base import whole
from voice_dpki.stir.call import Call
from voice_dpki.stir.examine import Policy, examine
from voice_dpki.stir.explain import Finding, explain_identity
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kinds import KINDS, UnknownKindError
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.sign import sign_call
from voice_dpki.stir.verdict import KeyMgmt, Step, VerificationFailed, Verstat
from voice_dpki.x509.recorded import CertStatus

from .conftest import NOW_S, Operator, Verifier, make_operator

SHAKEN_ALONE = Policy(kinds=KINDS.without_base())
DEST = Destinations((Tn("442079460001"),))

EXAMPLE = "VLBCIVDCaeK6M4hLJb6SHQvacAQVvoiiEOWQ_iUkqk79UD81fHQ0E1b3_GluIkba7UWYRM47ZbNFdOJquE35cw"
EXAMPLE_INPUT = (
    "eyJhbGciOiJFUzI1NiIsInR5cCI6InBhc3Nwb3J0IiwieDV1IjoiaHR0cHM6Ly9jZXJ0LmV4YW1wbGUub3JnL3Bhc3Nwb3J0LmNlciJ9"
    ".eyJkZXN0Ijp7InVyaSI6WyJzaXA6YWxpY2VAZXhhbXBsZS5jb20iXX0sImlhdCI6MTQ3MTM3NTQxOCwib3JpZyI6eyJ0biI6IjEyMTU1"
    "NTUxMjEyIn19"
)
"""RFC 8225, appendix A: the signature, and what is signed. The keys printed there do not belong to it."""


def written(operator: Operator, *, jose: dict[str, Any] | None = None, compact: bool = False, **info: Any) -> str:
    """An Identity as code of somebody else writes one, with members of the header added or, for None, left out."""
    url = operator.credential.info
    header = {"alg": "ES256", "typ": "passport", "x5u": url, **(jose or {})}
    payload = {"dest": {"tn": ["442079460001"]}, "iat": NOW_S, "orig": {"tn": "493023125001"}}
    texts = [
        json.dumps({name: value for name, value in part.items() if value is not None}, separators=(",", ":"))
        for part in (dict(sorted(header.items())), payload)
    ]
    signed = ".".join(base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode() for text in texts)
    signature = base64url.encode(operator.signer.sign(signed.encode()))
    return f"{'.' if compact else signed}.{signature}" + info.get("tail", f";info=<{url}>")


def call_of(*identities: str, **changes: Any) -> Call:
    return replace(Call(Tn("493023125001"), DEST, NOW_S, identities), **changes)


def failed(verifier: Verifier, call: Call, operator: Operator) -> Step:
    with pytest.raises(VerificationFailed) as failure:
        verifier.verify(call, operator.record)
    return failure.value.step


def test_the_example_of_rfc_8225_is_made_whole() -> None:
    header = IdentityHeader(f"..{EXAMPLE}", "https://cert.example.org/passport.cer", None, None)
    call = Call(Tn("12155551212"), Destinations(uris=("sip:alice@example.com",)), 1471375418, ())
    passport = whole(header, call)
    assert passport.signing_input.decode() == EXAMPLE_INPUT
    assert base64url.encode(passport.signature) == EXAMPLE


@pytest.mark.parametrize("compact", [False, True])
def test_a_base_passport_proves_the_caller_and_attests_nothing(
    operator: Operator, verifier: Verifier, compact: bool
) -> None:
    verdict = verifier.verify(call_of(written(operator, compact=compact)), operator.record)
    assert (verdict.verstat, verdict.attest, verdict.about_caller) == (Verstat.PASSED, "", True)
    assert verdict.key_mgmt is KeyMgmt.NOT_CHECKED


def test_what_is_signed_without_ppt_is_a_base_passport(operator: Operator, verifier: Verifier) -> None:
    request = operator.request(ppt="", attest="", origid="")
    header = sign_call(request, operator.credential, NOW_S)
    assert header.ppt is None
    jose, payload = (base64url.decode(part) for part in header.token.split(".")[:2])
    assert list(json.loads(jose)) == ["alg", "typ", "x5u"]
    assert list(json.loads(payload)) == ["dest", "iat", "key-mgmt", "orig"]
    call = call_of(header.serialize(), key_mgmt=request.key_mgmt)
    assert verifier.verify(call, operator.record).key_mgmt is KeyMgmt.VERIFIED


@pytest.mark.parametrize(
    "changes", [{"time_s": NOW_S - 1}, {"orig": Tn("493023125002")}, {"dest": Destinations((Tn("442079460002"),))}]
)
def test_the_compact_form_of_another_call(operator: Operator, verifier: Verifier, changes: dict[str, Any]) -> None:
    """An element on the path may have rewritten Date or To, so nothing is proven against the caller."""
    call = call_of(written(operator, compact=True), **changes)
    assert failed(verifier, call, operator) is Step.COMPACT
    assert Step.COMPACT.verstat is Verstat.NONE


def test_the_compact_form_with_another_signature(operator: Operator, verifier: Verifier) -> None:
    other = make_operator()
    identity = written(other, compact=True, tail=f";info=<{operator.credential.info}>")
    assert failed(verifier, call_of(identity), operator) is Step.COMPACT


def test_the_compact_form_is_no_other_token(operator: Operator, verifier: Verifier) -> None:
    """The forms of one signature are one token, which is used once."""
    full = written(operator)
    token, semicolon, rest = full.partition(";")
    short = f"..{token.rpartition('.')[2]}{semicolon}{rest}"
    verifier.verify(call_of(full, call_id="1"), operator.record)
    assert failed(verifier, call_of(short, call_id="2"), operator) is Step.REPLAY


@pytest.mark.parametrize(
    ("step", "identity"),
    [
        (Step.FORM, "{compact};info=<{url}>;ppt=shaken"),
        (Step.FORM, "{compact};info=<{url}>;ppt=div"),
        (Step.INFO, "{compact}"),
        (Step.HEADER, ".{compact};info=<{url}>"),
        (Step.HEADER, "{compact}.c2ln;info=<{url}>"),
        (Step.HEADER, "..c2l;info=<{url}>"),
    ],
)
def test_what_is_no_compact_form(operator: Operator, verifier: Verifier, step: Step, identity: str) -> None:
    compact = written(operator, compact=True, tail="")
    text = identity.replace("{compact}", compact).replace("{url}", operator.credential.info)
    assert failed(verifier, call_of(text), operator) is step


@pytest.mark.parametrize(("compact", "step"), [(False, Step.HEADER), (True, Step.FORM)])
def test_where_shaken_alone_is_known(operator: Operator, compact: bool, step: Step) -> None:
    call = call_of(written(operator, compact=compact))
    with pytest.raises(VerificationFailed) as failure:
        examine(call, call.identities[0], SHAKEN_ALONE, NOW_S)
    assert failure.value.step is step
    with pytest.raises(UnknownKindError):
        KINDS.without_base().of("")


@pytest.mark.parametrize(
    ("step", "jose", "ppt"),
    [(Step.HEADER, {}, ";ppt=shaken"), (Step.PPT, {"ppt": ""}, ""), (Step.HEADER, {"ppt": 7}, "")],
)
def test_a_token_whose_type_is_not_clear(
    operator: Operator, verifier: Verifier, step: Step, jose: dict[str, Any], ppt: str
) -> None:
    tail = f";info=<{operator.credential.info}>{ppt}"
    assert failed(verifier, call_of(written(operator, jose=jose, tail=tail)), operator) is step


def test_explained_without_its_call_the_compact_form_says_nothing(operator: Operator) -> None:
    identity = written(operator, compact=True)
    found = explain_identity(None, identity, Policy(), NOW_S)
    assert [each.step for each in found.results if each.finding is Finding.FAILED] == ["E9 header claims"]
    call = call_of(identity)
    assert explain_identity(call, identity, Policy(), NOW_S).examined == examine(call, identity, Policy(), NOW_S)


def x5c(operator: Operator) -> list[str]:
    return [base64.b64encode(operator.der).decode()]


STI = "https://sti-ca.example/certs/1234.pem"


@pytest.mark.parametrize(
    ("x5u", "tail"), [(None, ""), (None, f";info=<{STI}>"), (STI, f";info=<{STI}>"), ("own", "own"), (None, "own")]
)
def test_a_certificate_in_the_token_names_itself(
    operator: Operator, verifier: Verifier, x5u: str | None, tail: str
) -> None:
    url = operator.credential.info
    jose = {"x5u": url if x5u == "own" else x5u, "x5c": x5c(operator) + x5c(make_operator())}
    call = call_of(written(operator, jose=jose, tail=f";info=<{url}>" if tail == "own" else tail))
    assert examine(call, call.identities[0], Policy(), NOW_S).digest == operator.record.digest
    assert verifier.verify(call, operator.record).ok
    found = explain_identity(call, call.identities[0], Policy(), NOW_S)
    assert found.examined == examine(call, call.identities[0], Policy(), NOW_S)


def test_a_certificate_in_the_token_is_trusted_by_the_ledger_alone(verifier: Verifier) -> None:
    """Whoever makes a certificate can put it into a token; what the ledger says of its digest decides."""
    stranger = make_operator()
    call = call_of(written(stranger, jose={"x5u": None, "x5c": x5c(stranger)}, tail=""))
    unknown = replace(stranger.record, status=CertStatus.UNKNOWN, allotment=None, der=None, organization="")
    assert failed(verifier, call, replace(stranger, record=unknown)) is Step.CERTIFICATE


@pytest.mark.parametrize("tail", ["own", ""])
@pytest.mark.parametrize(
    "chain",
    [[], "x", [7], [""], ["=="], ["AAA"], ["A A="], [["x"]], ["AAAA"] * 9, {"0": "AAAA"}, ["AA-_"]],
)
def test_an_x5c_that_is_no_chain(operator: Operator, verifier: Verifier, chain: Any, tail: str) -> None:
    url = operator.credential.info
    jose = {"x5c": chain, "x5u": url if tail else None}
    call = call_of(written(operator, jose=jose, tail=f";info=<{url}>" if tail else ""))
    assert failed(verifier, call, operator) is Step.X5U


def test_x5c_and_info_must_not_name_two_certificates(operator: Operator, verifier: Verifier) -> None:
    other = make_operator()
    for x5u in (operator.credential.info, None):
        call = call_of(written(operator, jose={"x5c": x5c(other), "x5u": x5u}))
        assert failed(verifier, call, operator) is Step.X5U


def test_x5u_and_info_are_the_same_also_beside_x5c(operator: Operator, verifier: Verifier) -> None:
    for tail in ("", ";info=<https://other.example/c.pem>"):
        call = call_of(written(operator, jose={"x5c": x5c(operator)}, tail=tail))
        assert failed(verifier, call, operator) is Step.X5U
