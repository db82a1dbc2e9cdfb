"""Calls with one fault each, for the table of docs/stir-codes.md: what is asked, and what the ledger says."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from tests.recorded import absent, recorded
from voice_dpki.codec import base64url, canonical_json
from voice_dpki.effects import SystemRandom
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.div import Diverting
from voice_dpki.stir.identity import MAX_IDENTITY_LENGTH, IdentityHeader
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.sign import sign_call
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.claimconstraints import ClaimConstraints
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import build_certificate, digest_of
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

from .conftest import NOW_S, RANGE_A, Operator, make_operator
from .test_verify import URL, forged

HUGE = "9" * 4301
ELSEWHERE = TnRange(Tn("442079460000"), 1000)
"""Numbers of another operator."""


@dataclass(frozen=True)
class Case:
    """A call, what the ledger proves of its signers, and the calls that came before."""

    call: Call
    records: tuple[RecordedCertificate, ...]
    before: tuple[Call, ...] = ()
    reachable: bool = True
    """Whether the ledger answers."""


Made = Callable[[Operator], Case]


def good(operator: Operator, **changes: Any) -> Call:
    return operator.call(key_mgmt=(), **changes)


def passed_on(call: Call, operator: Operator, *others: Operator) -> Case:
    return Case(call, (operator.record, *(other.record for other in others)))


def signed(**changes: Any) -> Made:
    """A token with these changes, signed by the operator's own key."""
    return lambda operator: passed_on(forged(operator, good(operator), **changes), operator)


def told(**changes: Any) -> Made:
    """Signalling that says something else than the token."""
    return lambda operator: passed_on(replace(good(operator), **changes), operator)


def tail(text: str) -> Made:
    """An Identity with these parameters behind its token, X5U for the URL of the certificate."""

    def made(operator: Operator) -> Case:
        call = good(operator)
        token = call.identities[0].partition(";")[0]
        return passed_on(
            replace(call, identities=(token + text.replace("X5U", operator.credential.info),)), operator
        )

    return made


def spelled(part: int, change: Callable[[str], str]) -> Made:
    """A token whose header (0) or payload (1) is the JSON text that `change` makes of it."""

    def made(operator: Operator) -> Case:
        call = good(operator)
        header = IdentityHeader.parse(call.identities[0])
        texts = [base64url.decode(each).decode() for each in header.token.split(".")[:2]]
        texts[part] = change(texts[part])
        signing_input = ".".join(base64url.encode(text.encode()) for text in texts)
        token = f"{signing_input}.{base64url.encode(operator.signer.sign(signing_input.encode()))}"
        return passed_on(replace(call, identities=(replace(header, token=token).serialize(),)), operator)

    return made


def of(apart_s: int) -> Made:
    """A certificate of another time; the token is of now."""

    def made(operator: Operator) -> Case:
        other = make_operator(NOW_S + apart_s, signer=operator.signer)
        return under(operator, other)

    return made


def under(operator: Operator, other: Operator) -> Case:
    """A token that names the certificate of `other`, an operator with the same key."""
    url = other.credential.info
    return passed_on(forged(operator, good(operator), header={"x5u": url}, info=url), other)


def recorded_as(**changes: Any) -> Made:
    """A certificate of which the ledger says something else."""
    return lambda operator: Case(good(operator), (replace(operator.record, **changes),))


def without_numbers(operator: Operator) -> Case:
    """A certificate without TNAuthList, with which no server of ours would sign."""
    der = build_certificate(
        operator.signer,
        organization="Operator A",
        common_name="authn.a.example",
        tn_auth_list=None,
        not_before_s=NOW_S - 1000,
        not_after_s=NOW_S + 1000,
        random=SystemRandom(),
    )
    url = f"https://certs.a.example/{digest_of(der).hex()}.der"
    call = forged(operator, good(operator), header={"x5u": url}, info=url)
    return Case(call, (recorded(der, Allotment(ranges=(RANGE_A,))),))


def with_certificate(**options: Any) -> Made:
    return lambda operator: under(operator, make_operator(signer=operator.signer, **options))


def with_excluded_claim(operator: Operator) -> Case:
    other = make_operator(signer=operator.signer, claim_constraints=ClaimConstraints(must_exclude=("crn",)))
    url = other.credential.info
    call = forged(operator, good(operator), header={"x5u": url}, info=url, payload={"crn": "Your bank"})
    return passed_on(call, other)


def of_another_key(operator: Operator) -> Case:
    return passed_on(forged(replace(operator, signer=generate_es256()), good(operator)), operator)


def unknown(operator: Operator) -> Case:
    return Case(good(operator), (absent(operator.record.digest),))


def ledger_down(operator: Operator) -> Case:
    return replace(passed_on(good(operator), operator), reachable=False)


def without_authority(operator: Operator) -> Case:
    orig = Tn("493023199999")
    call = forged(operator, good(operator), payload={"orig": {"tn": orig}})
    return passed_on(replace(call, orig=orig), operator)


def beyond_the_allotment(operator: Operator) -> Case:
    return Case(good(operator), (recorded(operator.der, Allotment(ranges=())),))


def again(call_id: str) -> Made:
    """A call whose token has been seen in the call c1."""

    def made(operator: Operator) -> Case:
        call = good(operator)
        return replace(passed_on(replace(call, call_id=call_id), operator), before=(call,))

    return made


def of_another_call(operator: Operator) -> Case:
    """The Identity of the same caller's call to somebody else."""
    other = good(operator, dest=Destinations((Tn("442079460099"),)))
    return passed_on(replace(good(operator), identities=other.identities), operator)


def numbers_of(count: int) -> list[Tn]:
    return [Tn(f"4930231251{n:02}") for n in range(count)]


def diverted(times: int) -> Made:
    """A call to the operator's own number, which is diverted so often within its range."""

    def made(operator: Operator) -> Case:
        numbers = numbers_of(times + 1)
        return passed_on(along(operator, numbers, operator), operator)

    return made


def along(operator: Operator, numbers: list[Tn], diverting: Operator) -> Call:
    """A call of the operator's customer to the first number, from which `diverting` sends it on to the last."""
    caller = good(operator, dest=Destinations((numbers[0],)))
    hops = [_diversion(diverting, by, to) for by, to in pairwise(numbers)]
    dest, target = Destinations((numbers[0], numbers[-1])), Destinations((numbers[-1],))
    return replace(caller, dest=dest, target=target, identities=(*caller.identities, *hops))


def _diversion(operator: Operator, by: Tn, to: Tn) -> str:
    request = operator.request(
        attest="", origid="", key_mgmt=(), dest=Destinations((to,)), ppt="div", own={"div": Diverting(by)}
    )
    return sign_call(request, operator.credential, NOW_S).serialize()


def diverted_by_another(operator: Operator) -> Case:
    """Who diverts has a good certificate, for other numbers than the one that was called."""
    other = make_operator(listed=TnAuthList(ranges=(ELSEWHERE,)))
    record = recorded(other.der, Allotment(ranges=(ELSEWHERE,)))
    anything = make_operator(signer=other.signer)
    thief = replace(other, credential=replace(anything.credential, info=other.credential.info), record=record)
    return passed_on(along(operator, numbers_of(2), thief), operator, thief)


def diverted_without_the_first(operator: Operator) -> Case:
    call = along(operator, numbers_of(2), operator)
    return passed_on(replace(call, identities=call.identities[1:]), operator)


def beside(other: str) -> Made:
    def made(operator: Operator) -> Case:
        call = good(operator)
        return passed_on(replace(call, identities=(*call.identities, other)), operator)

    return made


def signed_as_answer(operator: Operator) -> Case:
    request = operator.request(
        attest="",
        origid="",
        key_mgmt=(),
        ppt="rsp",
        orig=Tn("442079460001"),
        dest=Destinations((Tn("493023125001"),)),
    )
    identity = sign_call(request, operator.credential, NOW_S).serialize()
    return passed_on(Call(request.orig, request.dest, NOW_S, (identity,), (), call_id="c1"), operator)


def _compact(operator: Operator) -> Case:
    call = good(operator)
    header = IdentityHeader.parse(call.identities[0])
    token = f"..{header.token.rpartition('.')[2]}"
    return passed_on(replace(call, identities=(replace(header, token=token).serialize(),)), operator)


def _backwards(text: str) -> str:
    return json.dumps(dict(reversed(canonical_json.decode_object(text.encode()).items())), separators=(",", ":"))


FAULTS: dict[str, Made] = {
    "Date is more than 60 s old": told(time_s=NOW_S - 61),
    "Date is more than 60 s ahead": told(time_s=NOW_S + 61),
    "iat is more than 60 s old": signed(payload={"iat": NOW_S - 61}),
    "iat is more than 60 s ahead": signed(payload={"iat": NOW_S + 61}),
    "there is no info": signed(info=None),
    "the token's header lacks alg": signed(header={"alg": None}),
    "the token's header lacks ppt": signed(header={"ppt": None}),
    "the token's header lacks typ": signed(header={"typ": None}),
    "the token's header lacks x5u": signed(header={"x5u": None}),
    "x5u is not info": signed(header={"x5u": URL}),
    "the Identity has no alg": signed(alg=None),
    "the Identity's alg is not ES256": signed(alg="ES384"),
    "the token's alg is not ES256": signed(header={"alg": "ES384"}),
    "the token's alg is none": signed(header={"alg": "none"}),
    "typ is not passport": signed(header={"typ": "JWT"}),
    "the certificate has expired": of(-2000),
    "the certificate is not valid yet": of(2000),
    "the Identity has another parameter": tail(";info=<X5U>;alg=ES256;ppt=shaken;canon=x"),
    "the Identity has no ppt": signed(ppt=None),
    "the Identity's ppt is another type": signed(ppt="msg"),
    "the token's ppt is another type": signed(header={"ppt": "msg"}),
    "attest is none of A, B and C": signed(payload={"attest": "D"}),
    "orig is not the caller": told(orig=Tn("493023125002")),
    "dest is not the called party": told(dest=Destinations((Tn("442079460002"),))),
    "the Identity is that of a call to somebody else": of_another_call,
    "the token lacks attest": signed(payload={"attest": None}),
    "the token lacks dest": signed(payload={"dest": None}),
    "the token lacks iat": signed(payload={"iat": None}),
    "the token lacks orig": signed(payload={"orig": None}),
    "the token lacks origid": signed(payload={"origid": None}),
    "the token names two called parties, one of them the call's": signed(
        payload={"dest": {"tn": ["442079460001", "442079460002"]}}
    ),
    "the token names two other called parties": signed(payload={"dest": {"tn": ["442079460003", "442079460002"]}}),
    "the claims are in another order": spelled(1, _backwards),
    "white space between the claims": spelled(1, lambda text: text.replace(",", ", ")),
    "the header's members are in another order": spelled(0, _backwards),
    "a claim is there twice": spelled(1, lambda text: text.replace("{", '{"iat":1,', 1)),
    "a member of the header is there twice": spelled(0, lambda text: text.replace("{", '{"alg":"none",', 1)),
    "a parameter is there twice": tail(";info=<X5U>;info=<X5U>;alg=ES256;ppt=shaken"),
    "the same Identity is there twice": lambda operator: (
        lambda case: replace(case, call=replace(case.call, identities=case.call.identities * 2))
    )(passed_on(good(operator), operator)),
    "iat is a number of 4301 digits": spelled(1, lambda text: text.replace(str(NOW_S), HUGE)),
    "orig has 33 digits": signed(payload={"orig": {"tn": "4" * 33}}),
    "iat is a text": signed(payload={"iat": str(NOW_S)}),
    "the header has crit": signed(header={"crit": ["exp"]}),
    "the compact form of a SHAKEN token": _compact,
    "the Identity has more than 10240 characters": tail(
        ";info=<X5U>;alg=ES256;ppt=shaken;x=" + "y" * MAX_IDENTITY_LENGTH
    ),
    "info is no URL in angle brackets": tail(";info=X5U;alg=ES256;ppt=shaken"),
    "info is a URL that names no certificate": signed(
        info="http://169.254.169.254/latest", header={"x5u": "http://169.254.169.254/latest"}
    ),
    "a token for answers (rsp) in a call": signed_as_answer,
    "a token of an unknown type beside a good one": beside("e30.e30.c2ln;info=<https://x.example>;ppt=msg"),
    "the signature does not verify": of_another_key,
    "the certificate is not on the ledger": unknown,
    "the certificate is revoked": recorded_as(status=CertStatus.REVOKED),
    "the certificate is suspended": recorded_as(status=CertStatus.SUSPENDED),
    "the operator that recorded it was removed": recorded_as(allotment=None),
    "it has no authority over the number": without_authority,
    "it has no TNAuthList": without_numbers,
    "it lists numbers that its operator does not hold": beyond_the_allotment,
    "its constraints do not permit a claim": with_certificate(
        claim_constraints=ClaimConstraints(permitted=(("attest", ("B", "C")),))
    ),
    "its constraints demand another claim": with_certificate(claim_constraints=ClaimConstraints(("rcd",))),
    "its constraints exclude a claim that is there": with_excluded_claim,
    "the ledger does not answer": ledger_down,
    "the same token in another call": again("c2"),
    "the same token in the same call": again("c1"),
    "five diversions": diverted(5),
    "six diversions": diverted(6),
    "a diversion by somebody without authority": diverted_by_another,
    "a diversion without the token before it": diverted_without_the_first,
}
"""By what is wrong, as the page calls it."""
