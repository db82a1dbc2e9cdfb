import base64
import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.present import present
from voice_dpki.codec import base64url, canonical_json
from voice_dpki.errors import LocalError
from voice_dpki.names import CertDigest, Tn
from voice_dpki.stir.call import Call, Source
from voice_dpki.stir.examine import Policy, examine
from voice_dpki.stir.faults import error_of_refusal
from voice_dpki.stir.identity import IdentityHeader
from voice_dpki.stir.kinds import Kinds
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.profile import Profile
from voice_dpki.stir.replay import MAX_TIMES, RepeatedToken, ReplayCache
from voice_dpki.stir.shaken import SHAKEN
from voice_dpki.stir.sign import SigningRefused, make_credential
from voice_dpki.stir.verdict import KeyMgmt, Step, Verdict, VerificationFailed, Verstat, verdict_of
from voice_dpki.stir.verify import judge
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.claimconstraints import ClaimConstraints
from voice_dpki.x509.keys import LocalSigner, generate_es256, generate_rsa
from voice_dpki.x509.profile import build_certificate, digest_of, read_profile
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

from .conftest import Operator, Verifier, make_operator

NOW_S = 1_790_000_000
VECTORS = Path(__file__).parents[1] / "vectors" / "stir"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def refused(verifier: Verifier, call: Call, record: RecordedCertificate, step: Step, match: str = ".") -> Verdict:
    """Verify `call`, see that `step` refuses it with a sentence that matches, and return the verdict."""
    with pytest.raises(VerificationFailed, match=match) as failure:
        verifier.verify(call, record)
    assert failure.value.step is step
    verdict = verdict_of(failure.value)
    assert verdict.reasoncode == step.reasoncode
    assert verdict.verstat is step.verstat
    assert verdict.reasondesc[0].isupper()
    assert verdict.reasondesc.endswith(".")
    assert call.orig not in verdict.reasondesc
    assert call.dest.tns[0] not in verdict.reasondesc
    return verdict


def test_a_good_call_passes_every_step(operator: Operator, verifier: Verifier) -> None:
    verdict = verifier.verify(operator.call(), operator.record)
    assert verdict.verstat is Verstat.PASSED
    assert (verdict.reasoncode, verdict.step) == (None, "")
    assert (verdict.signer, verdict.attest) == ("Operator A", "A")
    assert verdict.certificate == digest_of(operator.der)
    assert verdict.key_mgmt is KeyMgmt.VERIFIED


def test_examine_tells_whom_to_look_up(operator: Operator) -> None:
    call = operator.call()
    assert examine(call, call.identities[0], Policy(), NOW_S).digest == digest_of(operator.der)


# What the token says of itself, forged by the very key that the ledger trusts.


def forged(
    operator: Operator,
    call: Call,
    *,
    header: dict[str, Any] | None = None,
    payload: dict[str, Any] | None = None,
    **parameters: Any,
) -> Call:
    """Sign again with members of header and payload changed (None takes one away), and parameters set."""
    received = IdentityHeader.parse(call.identities[0])
    parts = [canonical_json.decode_object(base64url.decode(part)) for part in received.token.split(".")[:2]]
    for members, changes in zip(parts, (header or {}, payload or {}), strict=True):
        members.update(changes)
        for name in [name for name, value in members.items() if value is None]:
            del members[name]
    signing_input = ".".join(base64url.encode(canonical_json.encode(members)) for members in parts)
    signature = base64url.encode(operator.signer.sign(signing_input.encode()))
    identity = replace(received, token=f"{signing_input}.{signature}", **parameters).serialize()
    return replace(call, identities=(identity,))


URL = "https://certs.a.example/" + "0" * 64
OTHER = Destinations((Tn("442079460099"),))


@pytest.mark.parametrize(
    ("step", "match", "changes"),
    [
        (Step.PPT_PARAMETER, "ppt", {"ppt": "msg"}),
        (Step.PPT, "different", {"ppt": "div"}),
        (Step.INFO, "no info", {"info": None}),
        (Step.INFO_URL, "SHA-256", {"info": "https://certs.a.example/a.pem"}),
        (Step.INFO_URL, "SHA-256", {"info": "http://169.254.169.254/latest/meta-data"}),
        (Step.X5U, "different URLs", {"info": URL}),
        (Step.X5U, "different URLs", {"header": {"x5u": URL}}),
        (Step.HEADER, "no x5u", {"header": {"x5u": None}}),
        (Step.HEADER, "no alg", {"header": {"alg": None}}),
        (Step.HEADER, "no typ", {"header": {"typ": 7}}),
        (Step.HEADER, "no ppt", {"header": {"ppt": None}}),
        (Step.TYP, "passport", {"header": {"typ": "JWT"}}),
        (Step.ALG, "ES256", {"header": {"alg": "none"}}),
        (Step.ALG, "ES256", {"header": {"alg": "HS256"}}),
        (Step.ALG, "ES256", {"alg": "ES384"}),
        (Step.PPT, "shaken", {"header": {"ppt": "msg"}}),
        (Step.PPT, "different", {"header": {"ppt": "div"}}),
        (Step.CLAIMS, "attest", {"payload": {"attest": None}}),
        (Step.CLAIMS, "orig", {"payload": {"orig": None}}),
        (Step.CLAIMS, "dest", {"payload": {"dest": None}}),
        (Step.CLAIMS, "dest", {"payload": {"dest": {"tn": []}}}),
        (Step.CLAIMS, "origid", {"payload": {"origid": None}}),
        (Step.CLAIMS, "iat", {"payload": {"iat": str(NOW_S)}}),
        (Step.CLAIMS, "key-mgmt", {"payload": {"key-mgmt": "none"}}),
        (Step.CLAIMS, "sdp", {"payload": {"sdp": "none"}}),
        (Step.IAT, "86400 s after", {"payload": {"iat": NOW_S + 86_400}}),
        (Step.IAT, "61 s before", {"payload": {"iat": NOW_S - 61}}),
        (Step.NUMBERS, "caller", {"payload": {"orig": {"tn": "493023125002"}}}),
        (Step.NUMBERS, "destination", {"payload": {"dest": {"tn": ["442079460099"]}}}),
        (Step.ATTEST, "none of A, B and C", {"payload": {"attest": "D"}}),
        (Step.KEY_MGMT, "did not sign", {"payload": {"key-mgmt": None}}),
    ],
)
def test_each_fault_in_a_token_is_told_by_its_step(
    operator: Operator, verifier: Verifier, step: Step, match: str, changes: dict[str, Any]
) -> None:
    refused(verifier, forged(operator, operator.call(), **changes), operator.record, step, match)


def test_parameters_alg_and_ppt_may_be_left_out(operator: Operator, verifier: Verifier) -> None:
    call = forged(operator, operator.call(), alg=None, ppt=None)
    assert verifier.verify(call, operator.record).verstat is Verstat.PASSED


@pytest.mark.parametrize(
    ("step", "match", "identity"),
    [
        (Step.FORM, "does not begin", ""),
        (Step.FORM, "compact form", "..c2ln;info=<https://a.example/x>;ppt=shaken"),
        (Step.FORM, "more than 8192", "a" * 8193 + ";info=<x>"),
        (Step.INFO, "angle brackets", "a.b.c;info=x"),
        (Step.INFO, "no info", "e30.e30.e30"),
        (Step.HEADER, "decoded", f"e30.e30;info=<{URL}>"),
        (Step.HEADER, "no alg", f"e30.e30.c2ln;info=<{URL}>"),
    ],
)
def test_what_is_no_identity(operator: Operator, verifier: Verifier, step: Step, match: str, identity: str) -> None:
    refused(verifier, replace(operator.call(), identities=(identity,)), operator.record, step, match)


MAN = Policy(profile=Profile.MAN, kinds=Kinds(SHAKEN))


@pytest.mark.parametrize(
    ("step", "match", "after_token"),
    [
        (Step.PPT_PARAMETER, "no ppt parameter", ";info=<X5U>;alg=ES256"),
        (Step.ALG, "no alg parameter", ";info=<X5U>;ppt=shaken"),
        (Step.FORM, "parameters besides info, alg and ppt", ";info=<X5U>;alg=ES256;ppt=shaken;canon=x"),
    ],
)
def test_parameters_that_one_profile_demands(
    operator: Operator, new_verifier: type[Verifier], step: Step, match: str, after_token: str
) -> None:
    call = operator.call()
    header = IdentityHeader.parse(call.identities[0])
    identity = header.token + after_token.replace("X5U", present(header.info))
    changed = replace(call, identities=(identity,))
    assert new_verifier(MAN).verify(call, operator.record).ok
    refused(new_verifier(MAN), changed, operator.record, step, match)
    assert new_verifier().verify(changed, operator.record).ok, "RFC 8224 has defaults, and admits others"


@pytest.mark.parametrize("profile", Profile)
def test_what_the_profiles_demand(profile: Profile) -> None:
    is_man = profile is Profile.MAN
    assert [profile.needs_parameters, profile.knows_shaken_alone, profile.from_first] == [is_man] * 3


def test_a_url_that_leads_to_no_certificate_counts_only_where_the_token_has_none(
    operator: Operator, new_verifier: type[Verifier]
) -> None:
    def gone(url: str) -> CertDigest:
        raise VerificationFailed(Step.FETCH, "there is no certificate")

    verifier = new_verifier(Policy(digest_at=gone))
    refused(verifier, operator.call(), operator.record, Step.FETCH, "there is no certificate")
    chain = [base64.b64encode(operator.der).decode()]
    assert verifier.verify(forged(operator, operator.call(), header={"x5c": chain}), operator.record).ok


@pytest.mark.parametrize("offset_s", [-61, 61])
def test_a_stale_date(operator: Operator, verifier: Verifier, offset_s: int) -> None:
    call = replace(operator.call(), time_s=NOW_S + offset_s)
    refused(verifier, call, operator.record, Step.TIME, "61 s")


@pytest.mark.parametrize("offset_s", [-61, 61])
def test_a_stale_iat(operator: Operator, verifier: Verifier, offset_s: int) -> None:
    """The Date of the request is fresh: an old signature was put into a new call, or one made for later."""
    call = replace(operator.call(iat_s=NOW_S + offset_s), time_s=NOW_S)
    verdict = refused(verifier, call, operator.record, Step.IAT, "61 s")
    assert verdict.reasoncode == 403


@pytest.mark.parametrize("offset_s", [-60, 60])
def test_a_date_at_the_edge_is_fresh(operator: Operator, verifier: Verifier, offset_s: int) -> None:
    assert verifier.verify(operator.call(iat_s=NOW_S + offset_s), operator.record).verstat is Verstat.PASSED


def test_a_signature_cut_from_one_call_and_pasted_into_another(operator: Operator, verifier: Verifier) -> None:
    pasted = replace(operator.call(), orig=Tn("493023125009"))
    refused(verifier, pasted, operator.record, Step.NUMBERS, "caller")
    refused(verifier, replace(operator.call(), dest=OTHER), operator.record, Step.NUMBERS, "destination")


def test_a_call_to_one_of_several_signed_destinations(operator: Operator, verifier: Verifier) -> None:
    call = operator.call(dest=Destinations((Tn("442079460001"), Tn("442079460099"))))
    assert verifier.verify(replace(call, dest=OTHER), operator.record).verstat is Verstat.PASSED


OF_THE_INTERFACE = {
    "E3 E15": {(403, Verstat.NONE)},
    "E4 E5 E13 E14 E16 E19": {(438, Verstat.NONE)},
    "E6 E7 E8 E10": {(436, Verstat.NONE)},
    "E9": {(436, Verstat.NONE), (438, Verstat.NONE)},
    "E11 E12": {(437, Verstat.NONE)},
    "E17": {(437, Verstat.FAILED)},
    "E18": {(438, Verstat.FAILED), (438, Verstat.NONE)},
}
"""Reason code and verstat of the steps of ATIS-1000082, as its clients know them; those from E20 on are our own."""


def test_reason_codes_and_verstats_are_those_of_the_interface() -> None:
    found: dict[str, set[tuple[int, Verstat]]] = {}
    for step in Step:
        found.setdefault(step.label.partition(" ")[0], set()).add((step.reasoncode, step.verstat))
    ours = {number for number in found if int(number[1:]) >= 20}
    told = {number: results for numbers, results in OF_THE_INTERFACE.items() for number in numbers.split()}
    assert {number: found[number] for number in found.keys() - ours} == told


# What the ledger says of the signer.


@pytest.mark.parametrize(
    ("status", "match"),
    [
        (CertStatus.UNKNOWN, "not recorded"),
        (CertStatus.REVOKED, "revoked"),
        (CertStatus.SUSPENDED, "suspended"),
        (CertStatus.EXPIRED, "expired"),
    ],
)
def test_signers_that_the_ledger_does_not_hold_valid(
    operator: Operator, verifier: Verifier, status: CertStatus, match: str
) -> None:
    record = replace(operator.record, status=status)
    verdict = refused(verifier, operator.call(), record, Step.CERTIFICATE, match)
    assert verdict.verstat is Verstat.FAILED


def test_a_signer_whose_validity_has_not_begun(operator: Operator, verifier: Verifier) -> None:
    record = replace(operator.record, status=CertStatus.NOT_YET_VALID, not_before_s=NOW_S + 1)
    refused(verifier, operator.call(), record, Step.CERTIFICATE, "not begun")


def test_a_signer_whose_operator_was_removed(operator: Operator, verifier: Verifier) -> None:
    record = replace(operator.record, status=CertStatus.REVOKED, allotment=None)
    refused(verifier, operator.call(), record, Step.CERTIFICATE, "no member of the ledger any more")


def test_a_signer_with_a_domain_that_moved_to_another_operator(operator: Operator, verifier: Verifier) -> None:
    call, record = signed_with(operator, generate_es256(), dns_names=["sti.a.example"])
    held = replace(record, allotment=replace(present(record.allotment), domains=("a.example",)))
    assert verifier.verify(call, held).verstat is Verstat.PASSED
    refused(verifier, call, record, Step.CERTIFICATE, "does not hold the domain")


def test_the_certificate_is_the_one_that_was_asked_for(
    operator: Operator, new_operator: Callable[..., Operator], verifier: Verifier
) -> None:
    for der in (new_operator().der, None):
        record = replace(operator.record, der=der)
        refused(verifier, operator.call(), record, Step.LEDGER, "did not give the certificate")


def test_the_ledger_must_have_been_asked_about_the_signer(
    operator: Operator, new_operator: Callable[..., Operator], verifier: Verifier
) -> None:
    with pytest.raises(LocalError, match="another certificate"):
        verifier.verify(operator.call(), new_operator().record)


def test_the_certificates_organisation_is_that_of_the_record(operator: Operator, verifier: Verifier) -> None:
    record = replace(operator.record, organization="Operator B")
    refused(verifier, operator.call(), record, Step.CERTIFICATE, "organisation")


def signed_with(
    operator: Operator, signer: LocalSigner, payload: dict[str, Any] | None = None, **certificate: Any
) -> tuple[Call, RecordedCertificate]:
    """A call that `signer` signed under a certificate which our own server would refuse to sign with."""
    options = {
        "organization": "Operator A",
        "common_name": "x",
        "not_before_s": NOW_S - 9,
        "not_after_s": NOW_S + 9,
    }
    random = type("Random", (), {"token": staticmethod(bytes)})()
    certificate.setdefault("tn_auth_list", TnAuthList(ranges=present(operator.record.allotment).ranges))
    der = build_certificate(signer, **{**options, **certificate}, random=random)
    url = f"https://certs.a.example/{digest_of(der).hex()}"
    call = forged(replace(operator, signer=signer), operator.call(), header={"x5u": url}, payload=payload, info=url)
    return call, replace(operator.record, digest=digest_of(der), der=der)


@pytest.mark.parametrize(
    ("step", "match", "changes"),
    [
        (Step.CERTIFICATE, "digital signatures", {"organization": None, "common_name": None}),
        (Step.CERTIFICATE, "validity", {"not_before_s": NOW_S + 1}),
        (Step.CERTIFICATE, "validity", {"not_after_s": NOW_S - 1}),
        (Step.AUTHORITY, "no TNAuthList", {"tn_auth_list": None}),
        (Step.AUTHORITY, "no authority", {"tn_auth_list": TnAuthList(ranges=(TnRange(Tn("493023125500"), 2),))}),
        (
            Step.AUTHORITY,
            "does not allot",
            {"tn_auth_list": TnAuthList(ranges=(TnRange(Tn("493023125000"), 1001),))},
        ),
        (Step.AUTHORITY, "does not allot", {"tn_auth_list": TnAuthList(("709J",))}),
    ],
)
def test_certificates_that_may_not_sign_this_call(
    operator: Operator, verifier: Verifier, step: Step, match: str, changes: dict[str, Any]
) -> None:
    if changes.get("organization", "") is None:
        # No operator has none: so that the rule about organisations lets the certificate go on to the next.
        record = replace(operator.record, organization=None)  # type: ignore[arg-type]
        operator = replace(operator, record=record)
    call, record = signed_with(operator, generate_es256(), **changes)
    refused(verifier, call, record, step, match)


@pytest.mark.parametrize(("now_s", "iat_s"), [(NOW_S + 10, NOW_S), (NOW_S, NOW_S + 10), (NOW_S - 10, NOW_S)])
def test_the_certificate_is_valid_both_now_and_at_the_time_of_the_signature(
    operator: Operator, new_verifier: type[Verifier], now_s: int, iat_s: int
) -> None:
    call, record = signed_with(operator, generate_es256(), payload={"iat": iat_s})
    refused(new_verifier(now_s=now_s), call, record, Step.CERTIFICATE, "validity")


def test_rsa_signs_no_calls(operator: Operator, verifier: Verifier) -> None:
    call, record = signed_with(operator, generate_rsa())
    refused(verifier, call, record, Step.CERTIFICATE, "P-256")


def test_a_service_provider_code_stands_for_what_the_ledger_allots(operator: Operator, verifier: Verifier) -> None:
    call, record = signed_with(operator, generate_es256(), tn_auth_list=TnAuthList(("709J",)))
    coded = replace(record, allotment=replace(present(record.allotment), spcs=("709J",)))
    assert verifier.verify(call, coded).verstat is Verstat.PASSED
    narrow = replace(record, allotment=Allotment((), (TnRange(Tn("493023125500"), 2),), ("709J",)))
    refused(verifier, call, narrow, Step.AUTHORITY, "no authority")


# The signature, the keying, and replays.


def test_a_thief_who_names_the_certificate_but_has_not_its_key(operator: Operator, verifier: Verifier) -> None:
    call = forged(replace(operator, signer=generate_es256()), operator.call())
    refused(verifier, call, operator.record, Step.SIGNATURE, "does not verify")


def test_a_signature_of_another_length(operator: Operator, verifier: Verifier) -> None:
    call = operator.call()
    header = IdentityHeader.parse(call.identities[0])
    short = replace(header, token=header.token.rpartition(".")[0] + ".c2ln").serialize()
    refused(verifier, replace(call, identities=(short,)), operator.record, Step.SIGNATURE)


OFFER = ("mikey AQAFgM3YFvMAAAAA", "mikey AQAFgM3YFvMAAAAB")


@pytest.mark.parametrize(
    ("signed", "given", "match"),
    [
        (OFFER, (), "taken out"),
        (OFFER, OFFER[:1], "carries 1 .* signed 2"),
        (OFFER, OFFER[::-1], "not what the caller signed"),
        (OFFER, (OFFER[0], OFFER[1] + "A"), "not what the caller signed"),
        ((), OFFER, "did not sign"),
    ],
)
def test_keying_that_was_changed_on_the_path(
    operator: Operator, verifier: Verifier, signed: tuple[str, ...], given: tuple[str, ...] | None, match: str
) -> None:
    call = replace(operator.call(key_mgmt=signed), key_mgmt=given)
    verdict = refused(verifier, call, operator.record, Step.KEY_MGMT, match)
    assert verdict.verstat is Verstat.FAILED


@pytest.mark.parametrize(
    ("signed", "given", "found"),
    [(OFFER, OFFER, KeyMgmt.VERIFIED), ((), (), KeyMgmt.NONE), (OFFER, None, KeyMgmt.NOT_CHECKED)],
)
def test_keying_as_it_was_signed(
    operator: Operator, verifier: Verifier, signed: tuple[str, ...], given: tuple[str, ...] | None, found: KeyMgmt
) -> None:
    call = replace(operator.call(key_mgmt=signed), key_mgmt=given)
    assert verifier.verify(call, operator.record).key_mgmt is found


def test_keying_may_be_required(operator: Operator, new_verifier: type[Verifier]) -> None:
    verifier = new_verifier(Policy(require_key_mgmt=True))
    call = operator.call(key_mgmt=OFFER)
    refused(verifier, operator.call(key_mgmt=()), operator.record, Step.KEY_MGMT, "no key management")
    refused(verifier, replace(call, key_mgmt=None), operator.record, Step.KEY_MGMT, "did not tell")
    assert verifier.verify(call, operator.record).key_mgmt is KeyMgmt.VERIFIED


def test_a_replay(operator: Operator, verifier: Verifier) -> None:
    call = operator.call()
    verifier.verify(call, operator.record)
    refused(verifier, replace(call, call_id="c2"), operator.record, Step.REPLAY, "used before")


def test_forks_and_further_tries_of_one_call_are_no_replay(operator: Operator, verifier: Verifier) -> None:
    call = operator.call()
    for _ in range(3):
        assert verifier.verify(call, operator.record).verstat is Verstat.PASSED


def test_a_call_that_forks_without_end_is_not_believed(operator: Operator, verifier: Verifier) -> None:
    call = operator.call()
    for _ in range(MAX_TIMES):
        verifier.verify(call, operator.record)
    refused(verifier, call, operator.record, Step.REPEATED, "more often")


@pytest.mark.parametrize(
    ("repeated", "step"),
    [
        (RepeatedToken.ACCEPT, None),
        (RepeatedToken.NO_VALIDATION, Step.REPEATED),
        (RepeatedToken.REFUSE, Step.REPLAY),
    ],
)
@pytest.mark.parametrize(("first", "second"), [("", ""), ("c1", ""), ("", "c1")])
def test_where_no_call_id_tells_the_call_the_operator_says_what_counts(
    operator: Operator,
    new_verifier: type[Verifier],
    repeated: RepeatedToken,
    step: Step | None,
    first: str,
    second: str,
) -> None:
    verifier, call = new_verifier(Policy(repeated_token=repeated)), operator.call()
    verifier.verify(replace(call, call_id=first), operator.record)
    again = replace(call, call_id=second)
    if step is None:
        assert verifier.verify(again, operator.record).verstat is Verstat.PASSED
    else:
        refused(verifier, again, operator.record, step, "no Call-ID tells")


def test_call_ids_that_change_on_the_way_do_not_count(operator: Operator, new_verifier: type[Verifier]) -> None:
    for repeated, step in ((RepeatedToken.ACCEPT, None), (RepeatedToken.REFUSE, Step.REPLAY)):
        verifier, call = new_verifier(Policy(repeated_token=repeated, b2bua=frozenset({"sbc"}))), operator.call()
        calls = [replace(call, call_id=name, source=Source(peer="sbc")) for name in ("c1", "c2")]
        verifier.verify(calls[0], operator.record)
        if step is None:
            assert verifier.verify(calls[1], operator.record).verstat is Verstat.PASSED
        else:
            refused(verifier, calls[1], operator.record, step)


def test_what_the_memory_does_not_reach_back_to_is_not_told_to_have_failed(
    operator: Operator, verifier: Verifier
) -> None:
    verifier.replays = ReplayCache(10, 120, since_s=NOW_S + 1)
    refused(verifier, operator.call(), operator.record, Step.REPLAY_MEMORY, "does not reach back")
    assert verifier.verify(replace(operator.call(), call_id=""), operator.record).ok, "a repeat would be accepted"


def test_a_replay_with_the_other_signature_that_anyone_can_make(operator: Operator, verifier: Verifier) -> None:
    call = operator.call()
    verifier.verify(call, operator.record)
    header = IdentityHeader.parse(call.identities[0])
    signed, _, signature = header.token.rpartition(".")
    raw = base64url.decode(signature)
    twin = raw[:32] + (ORDER - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    changed = replace(header, token=f"{signed}.{base64url.encode(twin)}").serialize()
    other = replace(call, identities=(changed,), call_id="c2")
    refused(verifier, other, operator.record, Step.REPLAY, "used before")


def test_a_changed_copy_does_not_use_up_the_signature(operator: Operator, verifier: Verifier) -> None:
    call = operator.call()
    refused(verifier, replace(call, key_mgmt=()), operator.record, Step.KEY_MGMT)
    refused(verifier, call, replace(operator.record, status=CertStatus.REVOKED), Step.CERTIFICATE)
    assert verifier.verify(call, operator.record).verstat is Verstat.PASSED


def test_two_calls_alike_in_one_second_are_two_calls(operator: Operator, verifier: Verifier) -> None:
    verifier.verify(operator.call(), operator.record)
    verifier.verify(operator.call(), operator.record)


def test_a_full_memory_of_signatures_fails_closed(operator: Operator, verifier: Verifier) -> None:
    verifier.replays = ReplayCache(1, 120)
    verifier.verify(operator.call(), operator.record)
    refused(verifier, operator.call(), operator.record, Step.REPLAY_MEMORY, "full")
    verifier.now_s += 121
    verifier.verify(operator.call(iat_s=NOW_S + 121), operator.record)


def test_the_memory_goes_by_the_clock_that_nobody_sets(operator: Operator, verifier: Verifier) -> None:
    """A wall clock that is ahead for a moment must not make it forget."""
    call = operator.call()

    def judged(now_s: float, steady_s: float, call_id: str = "c1") -> None:
        examined = examine(replace(call, call_id=call_id), call.identities[0], verifier.policy, now_s)
        judge(examined, operator.record, verifier.policy, verifier.replays, now_s, steady_s)

    judged(NOW_S, 5000)
    later = operator.call(iat_s=NOW_S + 900)
    judge(
        examine(later, later.identities[0], verifier.policy, NOW_S + 900),
        operator.record,
        verifier.policy,
        verifier.replays,
        NOW_S + 900,
        5001,
    )
    with pytest.raises(VerificationFailed, match="used before"):
        judged(NOW_S, 5002, "c2")


def test_who_fills_the_memory_harms_no_other_signer(
    operator: Operator, new_operator: Callable[..., Operator], verifier: Verifier
) -> None:
    verifier.replays = ReplayCache(4, 120)
    other = new_operator(organization="Operator B")
    for _ in range(3):
        verifier.verify(operator.call(), operator.record)
    refused(verifier, operator.call(), operator.record, Step.REPLAY_MEMORY, "this signer's share")
    call, record = other.call(), replace(other.record, organization="Operator B")
    assert verifier.verify(call, record).verstat is Verstat.PASSED
    refused(verifier, replace(call, call_id="c2"), record, Step.REPLAY, "used before")


def forms(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (VECTORS / name).read_text().splitlines()]


@pytest.mark.parametrize("form", forms("identity-forms.jsonl"), ids=lambda form: form["after_token"])
def test_forms_of_the_identity_that_proxies_send(
    operator: Operator, verifier: Verifier, form: dict[str, str]
) -> None:
    call = operator.call()
    header = IdentityHeader.parse(call.identities[0])
    identity = header.token + form["after_token"].replace("X5U", present(header.info))
    try:
        found = verifier.verify(replace(call, identities=(identity,)), operator.record)
    except VerificationFailed as failure:
        found = verdict_of(failure)
    assert (found.step or "passed") == form["finds"]


def test_a_header_that_makes_an_extension_critical(operator: Operator, verifier: Verifier) -> None:
    critical = json.loads((VECTORS / "jose-crit.json").read_text())
    del critical["x5u"]
    call = forged(operator, operator.call(), header=critical)
    refused(verifier, call, operator.record, Step.CRITICAL, "crit")
    call = forged(operator, operator.call(), header={"crit": []})
    refused(verifier, call, operator.record, Step.CRITICAL, "crit")


def test_members_given_twice_in_header_or_payload(operator: Operator, verifier: Verifier) -> None:
    call = operator.call()
    received = IdentityHeader.parse(call.identities[0])
    header, payload = (base64url.decode(part) for part in received.token.split(".")[:2])
    for step, parts in (
        (Step.HEADER, (header[:-1] + b',"alg":"ES256"}', payload)),
        (Step.CLAIMS, (header, payload[:-1] + b',"orig":{"tn":"493023125001"}}')),
    ):
        signing_input = ".".join(map(base64url.encode, parts))
        token = f"{signing_input}.{base64url.encode(operator.signer.sign(signing_input.encode()))}"
        identity = replace(received, token=token).serialize()
        refused(verifier, replace(call, identities=(identity,)), operator.record, step, "twice")


CONSTRAINTS: list[tuple[ClaimConstraints, str]] = [
    (ClaimConstraints(("attest",), (("attest", ("A", "B")),)), ""),
    (ClaimConstraints(must_exclude=("rcd",)), ""),
    (ClaimConstraints(must_exclude=("attest", "iat")), ""),
    (ClaimConstraints(("rcd",)), "claim rcd is not there"),
    (ClaimConstraints(permitted=(("attest", ("B", "C")),)), "claim attest has none of the values"),
    (ClaimConstraints(must_exclude=("key-mgmt",)), "claim key-mgmt is there"),
]


@pytest.mark.parametrize(("constraints", "problem"), CONSTRAINTS)
def test_what_a_certificate_does_not_permit_is_neither_signed_nor_believed(
    verifier: Verifier, constraints: ClaimConstraints, problem: str
) -> None:
    """RFC 8226 §8, RFC 9118 §3: a signer that does not look at its own certificate is refused by the verifier."""
    free = make_operator()
    bound = make_operator(signer=free.signer, claim_constraints=constraints)
    url = bound.credential.info
    call = forged(free, free.call(), header={"x5u": url}, info=url)
    if not problem:
        assert verifier.verify(bound.call(), bound.record).ok
        return
    with pytest.raises(SigningRefused, match=f"does not permit it: {problem}") as refusal:
        bound.call()
    assert refusal.value.code == "claims"
    assert error_of_refusal(refusal.value).message_id == "POL4030"
    assert refused(verifier, call, bound.record, Step.CONSTRAINTS, problem).verstat is Verstat.FAILED


@pytest.mark.parametrize("value", ["3000", "3008a006300416026374"])
def test_constraints_that_cannot_be_read_or_are_there_twice(verifier: Verifier, value: str) -> None:
    """What a certificate says of claims is enforced, or it signs nothing (RFC 9118 §6)."""
    free = make_operator()
    der = constrained(free, bytes.fromhex(value))
    template = "https://certs.a.example/{digest}.der"
    with pytest.raises(LocalError, match="claim constraints"):
        make_credential(free.signer, read_profile(der), template, NOW_S)
    url = template.format(digest=digest_of(der).hex())
    call = forged(free, free.call(), header={"x5u": url}, info=url)
    record = replace(free.record, digest=digest_of(der), der=der)
    assert refused(verifier, call, record, Step.CERTIFICATE, "claim constraints").verstat is Verstat.FAILED


def constrained(operator: Operator, value: bytes) -> bytes:
    """The operator's certificate with both extensions; RFC 9118 §6 has no certificate with both."""
    plain = x509.load_der_x509_certificate(operator.der)
    builder = x509.CertificateBuilder(
        plain.issuer, plain.subject, plain.public_key(), plain.serial_number, plain.not_valid_before_utc,
        plain.not_valid_after_utc, list(plain.extensions),
    )  # fmt: skip
    for oid in ("1.3.6.1.5.5.7.1.27", "1.3.6.1.5.5.7.1.33")[value == b"0\0" :]:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False
        )
    return builder.sign(operator.signer.private_key, SHA256()).public_bytes(Encoding.DER)


SOME = st.text(max_size=40) | st.text('ab.;=<>" \tinfoalgpptshaken', max_size=80)


@given(SOME)
def test_any_identity_is_examined_or_fails_at_a_step(operator: Operator, identity: str) -> None:
    with contextlib.suppress(VerificationFailed):
        examine(operator.call(), identity, Policy(), NOW_S)


@settings(max_examples=300)
@given(st.data())
def test_no_change_of_one_character_passes(
    operator: Operator, new_verifier: type[Verifier], data: st.DataObject
) -> None:
    call = operator.call()
    signed = len(call.identities[0]) - len(";alg=ES256;ppt=shaken")
    at = data.draw(st.integers(0, signed - 1))
    character = data.draw(st.sampled_from("AQgw_-.;<>=x019 "))
    changed = call.identities[0][:at] + character + call.identities[0][at + 1 :]
    if changed == call.identities[0]:
        return
    with pytest.raises(VerificationFailed):
        new_verifier().verify(replace(call, identities=(changed,)), operator.record)
