"""Rich call data: who calls, for people, and the digests over it (RFC 9795)."""

import base64
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from voice_dpki.codec import base64url
from voice_dpki.errors import MalformedError
from voice_dpki.names import Tn
from voice_dpki.stir.call import Call
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.forms import read_signing, read_verification
from voice_dpki.stir.passport import ClaimError, Destinations
from voice_dpki.stir.rcd import MAX_TEXT_LENGTH, RCD, RcdClaims, digest_of, read_crn, read_rcd, read_rcdi
from voice_dpki.stir.sign import SigningRefused, sign_call
from voice_dpki.stir.verdict import VerificationFailed, Verstat

from .conftest import NOW_S, Operator, Verifier

SIGNED_ELSEWHERE = (Path(__file__).parents[1] / "vectors" / "stir" / "rcd-payload.json").read_bytes()
"""The payload of a token of another signer, with digests by SHA-384."""

ICON, CARD = "https://a.example/icon.png", "https://a.example/card.json"
OF_ICON = "sha256-" + base64.b64encode(bytes(32)).decode()
JCD: list[Any] = ["vcard", [["version", {}, "text", "4.0"], ["fn", {}, "text", "Bank"], ["photo", {}, "uri", ICON]]]
COMPACT = '["vcard",[["version",{},"text","4.0"],["fn",{},"text","Bank"],["photo",{},"uri","https://a.example/icon.png"]]]'


def openssl(octets: str, algorithm: str = "sha256") -> str:
    made = subprocess.run(
        ["openssl", "dgst", f"-{algorithm}", "-binary"], input=octets.encode(), capture_output=True, check=True
    )
    return f"{algorithm}-{base64.b64encode(made.stdout).decode()}"


def request(**members: Any) -> bytes:
    given = {"ppt": "rcd", "orig": {"tn": "+493023125001"}, "dest": {"tn": ["+442079460001"]}, "iat": NOW_S}
    return json.dumps({"signingRequest": {**given, **members}}).encode()


def signed(operator: Operator, **members: Any) -> Call:
    asked = read_signing(request(**members)).what
    identity = sign_call(asked, operator.credential, NOW_S).serialize()
    return Call(asked.orig, asked.dest, NOW_S, (identity,))


def payload_of(call: Call) -> dict[str, Any]:
    return dict(json.loads(base64url.decode(call.identities[0].split(".")[1])))


def test_digests_that_another_signer_formed() -> None:
    claims = RcdClaims.parse(SIGNED_ELSEWHERE)
    claims.check_integrity()
    assert (claims.rcd["nam"], claims.crn) == ("Alice Liddell", "Travel")
    for name in ("nam", "apn"):
        assert digest_of(claims.rcd[name], "sha384") == claims.rcdi[f"/{name}"]
    changed = json.loads(SIGNED_ELSEWHERE)
    changed["rcd"]["nam"] = "Alice Lidell"
    with pytest.raises(Exception, match="not that of what it points to"):
        RcdClaims.parse(json.dumps(changed).encode()).check_integrity()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_digests_are_those_of_openssl(algorithm: str) -> None:
    assert digest_of("Bank \u00e9", algorithm) == openssl("Bank \u00e9", algorithm)
    assert digest_of(JCD, algorithm) == openssl(COMPACT, algorithm)


def test_what_is_signed_holds_a_digest_of_each_part(operator: Operator, verifier: Verifier) -> None:
    members = {"nam": "Bank", "apn": "442079460009", "jcd": JCD, "icn": ICON}
    call = signed(operator, rcd=members, rcdi={"/icn": OF_ICON}, crn="Your card")
    payload = payload_of(call)
    assert list(payload) == ["crn", "dest", "iat", "orig", "rcd", "rcdi"]
    assert payload["rcd"] == members
    assert payload["rcdi"] == {
        "/nam": openssl("Bank"), "/apn": openssl("442079460009"), "/jcd": openssl(COMPACT), "/icn": OF_ICON,
    }  # fmt: skip
    verdict = verifier.verify(call, operator.record)
    assert (verdict.verstat, verdict.step, verdict.about_caller) == (Verstat.NONE, "", False)


def test_its_signer_needs_authority_over_the_caller(operator: Operator) -> None:
    with pytest.raises(SigningRefused, match="the originating number"):
        signed(operator, orig={"tn": "442079460001"}, rcd={"nam": "Bank"})


def test_the_answer_of_a_verification_tells_it(operator: Operator, verifier: Verifier) -> None:
    call = signed(operator, rcd={"nam": "Bank"}, crn="Your card")
    body = {"from": {"tn": "493023125001"}, "to": {"tn": "442079460001"}, "time": NOW_S}
    asked = read_verification(
        json.dumps({"verificationRequest": {**body, "identityHeaders": list(call.identities)}}).encode()
    )
    verdict = verifier.verify(asked.what, operator.record)
    (row,) = json.loads(asked.answer([verdict]))["verificationResponse"]["verifyResults"]
    assert (row["verifyResult"]["ppt"], row["verifyResult"]["status"]) == ("rcd", "pass")
    assert row["verifyResult"]["validClaims"]["rcd"] == {"nam": "Bank"}


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("rcd", {}),
        ("rcd.nam", {"rcd": {}}),
        ("rcd.nam", {"rcd": {"nam": ""}}),
        ("rcd", {"rcd": {"nam": "a\nb"}}),
        ("rcd.nam", {"rcd": {"nam": "x" * (MAX_TEXT_LENGTH + 1)}}),
        ("rcd", {"rcd": {"nam": "Bank", "apn": "alice"}}),
        ("rcd", {"rcd": {"nam": "Bank", "logo": ICON}}),
        ("rcd", {"rcd": {"nam": "Bank", "jcd": ["card"]}}),
        ("rcd", {"rcd": {"nam": "Bank", "jcd": ["vcard", 1.5]}}),
        ("rcd", {"rcd": {"nam": "Bank", "jcd": ["vcard", "x" * 4096]}}),
        ("rcd", {"rcd": {"nam": "Bank", "icn": "http://a.example/"}, "rcdi": {"/icn": OF_ICON}}),
        ("rcd", {"rcd": {"nam": "Bank", "jcd": JCD, "jcl": CARD}, "rcdi": {"/jcl": OF_ICON}}),
        ("rcdi", {"rcd": {"nam": "Bank", "icn": ICON}}),
        ("rcdi", {"rcd": {"nam": "Bank", "jcl": CARD}, "rcdi": {"/icn": OF_ICON}}),
        ("rcdi", {"rcd": {"nam": "Bank"}, "rcdi": {"/nam": OF_ICON}}),
        ("rcdi", {"rcd": {"nam": "Bank"}, "rcdi": {"/nam": "sha1-AAAA"}}),
        ("rcdi", {"rcd": {"nam": "Bank"}, "rcdi": {"/nam": "sha256-AAAA"}}),
        ("rcdi", {"rcd": {"nam": "Bank"}, "rcdi": {"nam": OF_ICON}}),
        ("rcdi", {"rcd": {"nam": "Bank"}, "rcdi": {"/nam/0": OF_ICON}}),
        ("rcdi", {"rcd": {"nam": "Bank", "jcd": JCD}, "rcdi": {"/jcd/7": OF_ICON}}),
        ("rcdi", {"rcd": {"nam": "Bank"}, "rcdi": {}}),
        ("crn", {"rcd": {"nam": "Bank"}, "crn": ""}),
        ("crn", {"rcd": {"nam": "Bank"}, "crn": 7}),
        ("rcd", {"ppt": "shaken", "attest": "A", "origid": "x", "rcd": {"nam": "Bank"}}),
    ],
)
def test_requests_that_cannot_be_used(name: str, members: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as failure:
        read_signing(request(**members))
    assert f"'{name}'" in failure.value.sentence


@pytest.mark.parametrize(
    ("pointer", "octets"),
    [("/jcd/1/1/3", "Bank"), ("/jcd/1/1", '["fn",{},"text","Bank"]'), ("/jcd/0", "vcard"), ("/nam", "Bank")],
)
def test_digests_of_parts_by_their_pointer(operator: Operator, pointer: str, octets: str) -> None:
    rcd, rcdi = {"nam": "Bank", "jcd": JCD}, {pointer: openssl(octets)}
    assert payload_of(signed(operator, rcd=rcd, rcdi=rcdi))["rcdi"][pointer] == rcdi[pointer]
    with pytest.raises(RequestError):
        read_signing(request(rcd=rcd, rcdi={pointer: openssl(octets + "x")}))


@pytest.mark.parametrize(
    ("pointer", "is_there"),
    [
        ("/jcd/0", True),
        ("/jcd/000", True),
        ("/jcd/1", True),
        ("/jcd/2", False),
        ("/jcd/0000", False),
        ("/jcd/-1", False),
        ("/jcd/x", False),
        ("/jcd/\u0661", False),
        ("/nam/0", False),
        ("/x~1y/~0z", True),
        ("/x~01y", False),
    ],
)
def test_where_a_pointer_leads(pointer: str, is_there: bool) -> None:
    """RFC 6901 §4."""
    rcd = {"nam": "Bank", "jcd": ["vcard", "vcard"], "x/y": {"~z": "vcard"}}
    claims = {"dest": {"tn": ["1"]}, "iat": NOW_S, "orig": {"tn": "2"}, "rcd": rcd}
    read = RcdClaims.parse(json.dumps({**claims, "rcdi": {pointer: openssl("vcard")}}).encode())
    if is_there:
        read.check_integrity()
        return
    with pytest.raises(MalformedError, match="something that is not in rcd"):
        read.check_integrity()


@pytest.mark.parametrize(
    ("octets", "is_it"), [("Café", True), ('"Café"', False), ('"Caf\\u00e9"', False), ("Cafe", False)]
)
def test_the_digest_of_a_text_is_over_its_octets_alone(octets: str, is_it: bool) -> None:
    rcd, rcdi = {"nam": "Café"}, {"/nam": openssl(octets)}
    if is_it:
        assert read_signing(request(rcd=rcd, rcdi=rcdi)).what.own["rcdi"] == rcdi
        return
    with pytest.raises(RequestError):
        read_signing(request(rcd=rcd, rcdi=rcdi))


@pytest.mark.parametrize(
    ("rcdi", "why"),
    [
        ({}, "1 to 32"),
        ([], "1 to 32"),
        (["/nam"], "1 to 32"),
        ({f"/x{number}": OF_ICON for number in range(33)}, "1 to 32"),
        ({"nam": OF_ICON}, "no JSON pointer"),
        ({"": OF_ICON}, "no JSON pointer"),
        ({"/" + "x" * 128: OF_ICON}, "no JSON pointer"),
        ({"/x~2": OF_ICON}, "no JSON pointer"),
        ({"/x" * 17: OF_ICON}, "no JSON pointer"),
        ({"/nam": 7}, "none of sha256"),
        ({"/nam": "sha256"}, "none of sha256"),
        ({"/nam": "sha512" + OF_ICON[6:]}, "none of sha256"),
        ({"/nam": "md5-" + OF_ICON[7:]}, "none of sha256"),
    ],
)
def test_what_are_no_digests(rcdi: Any, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        read_rcdi(rcdi)


def test_the_bounds_of_rich_data() -> None:
    widest = {f"/{number:02}{'x' * 125}": OF_ICON for number in range(32)}
    assert read_rcdi(widest) == widest
    assert read_rcdi({"/x" * 16: OF_ICON})
    assert (read_crn("x"), read_crn("x" * 256)) == ("x", "x" * 256)
    for crn in ("", "x" * 257, "a\nb"):
        with pytest.raises(MalformedError, match="1 to 256 printable"):
            read_crn(crn)
    rcd = {"nam": "Bank", "jcd": ["vcard", "x" * 4063]}
    assert len(json.dumps(rcd, separators=(",", ":"))) == 4096
    assert read_rcd(rcd) == rcd
    with pytest.raises(MalformedError, match="more than 4096 bytes"):
        read_rcd({"nam": "Bank", "jcd": ["vcard", "x" * 4064]})


def test_what_lies_behind_a_url_is_not_looked_at(operator: Operator, verifier: Verifier) -> None:
    """Nothing is fetched, so a digest of it can be anything; who shows it compares."""
    rcdi = {"/jcl": OF_ICON, "/jcl/1/2/3": OF_ICON}
    call = signed(operator, rcd={"nam": "Bank", "jcl": CARD}, rcdi=rcdi)
    assert verifier.verify(call, operator.record).step == ""
    call = signed(operator, rcd={"nam": "Bank", "jcd": JCD}, rcdi={"/jcd/1/2/3": OF_ICON})
    assert verifier.verify(call, operator.record).step == ""


def resigned(operator: Operator, call: Call, change: Any) -> Call:
    """The call with its payload changed and signed again, as a careless signer would."""
    token, _, rest = call.identities[0].partition(";")
    header, payload, _ = token.split(".")
    changed = json.loads(base64url.decode(payload))
    change(changed)
    text = json.dumps(changed, separators=(",", ":"))
    signed = f"{header}.{base64url.encode(text.encode())}"
    signature = base64url.encode(operator.signer.sign(signed.encode()))
    return replace(call, identities=(f"{signed}.{signature};{rest}",))


@pytest.mark.parametrize(
    ("step", "change"),
    [
        ("E16 rich call data", lambda payload: payload["rcd"].update(nam="Another")),
        ("E16 rich call data", lambda payload: payload["rcd"].update(icn=ICON)),
        ("E16 rich call data", lambda payload: payload["rcdi"].update({"/nothing": OF_ICON})),
        ("E14 claims", lambda payload: payload.pop("rcd")),
        ("E14 claims", lambda payload: payload["rcd"].pop("nam")),
        ("E14 claims", lambda payload: payload.update(rcdi=[])),
        ("E14 claims", lambda payload: payload.update(crn=7)),
        ("E14 claims", lambda payload: payload["rcdi"].update({"/nam": 7})),
        ("", lambda payload: payload.pop("rcdi")),
        ("", lambda payload: payload["rcd"].update(x=[1])),
    ],
)
def test_tokens_of_careless_signers(operator: Operator, verifier: Verifier, step: str, change: Any) -> None:
    call = resigned(operator, signed(operator, rcd={"nam": "Bank"}), change)
    if not step:
        assert verifier.verify(call, operator.record).step == ""
        return
    with pytest.raises(VerificationFailed) as failure:
        verifier.verify(call, operator.record)
    assert (failure.value.step.label, failure.value.step.reasoncode) == (step, 438)
    assert failure.value.step.verstat is Verstat.NONE


def test_members_in_the_order_in_which_they_came(operator: Operator, verifier: Verifier) -> None:
    """A signer that does not sort an object in its jCard has its digest over what it wrote."""
    card = '["vcard",[["tel",{"type":"work","pref":"1"},"text","1"],["fn",{},"text","Café"]]]'

    def change(payload: dict[str, Any]) -> None:
        payload["rcd"]["jcd"] = json.loads(card)
        payload["rcdi"]["/jcd"] = openssl(card)

    call = resigned(operator, signed(operator, rcd={"nam": "Bank"}), change)
    assert verifier.verify(call, operator.record).step == ""


def test_only_its_own_claims_are_needed() -> None:
    base = {"dest": {"tn": ["1"]}, "iat": NOW_S, "orig": {"tn": "2"}, "rcd": {"nam": "Bank"}}
    assert RCD.parse(json.dumps(base).encode()).dest == Destinations((Tn("1"),))
    for name in base:
        with pytest.raises(ClaimError):
            RCD.parse(json.dumps({key: value for key, value in base.items() if key != name}).encode())
