"""The service over a real socket, with what the ledger would say told by the test."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from tests.clocks import SettableClock
from tests.openapi import FOLDER as DOCUMENTS
from tests.present import made
from tests.recorded import RangesAlone, absent, recorded
from verify_server.config import EXAMPLE, load_setup
from verify_server.invites import InviteVerifier
from verify_server.service import VerifyService
from voice_dpki.clock_health import HEALTH
from voice_dpki.codec import base64url
from voice_dpki.effects import SystemClock
from voice_dpki.ledger.clock import LedgerClock
from voice_dpki.names import CertDigest, Tn
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import serve
from voice_dpki.shell.reload import Live
from voice_dpki.shell.stir_service import StirRoute
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.body import body_digest
from voice_dpki.stir.call import SigningRequest
from voice_dpki.stir.div import Diverting
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.forms import read_verification
from voice_dpki.stir.kind import Kind
from voice_dpki.stir.kinds import Kinds
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.stir.shaken import SHAKEN
from voice_dpki.stir.sign import sign_call
from voice_dpki.stir.verdict import Step, VerificationFailed, overall
from voice_dpki.wire.seldom import SAY_AGAIN_S
from voice_dpki.wire.sip.asked import read_invite
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate

from .conftest import RANGE_A, TOKEN, Caller, Site, in_3gpp_form, verification

PATH = "/stir/v1/verification"
OFFER = "mikey AQAFgM3YFvMAAAAA"


class ToldResolver(RangesAlone):
    """Says of each certificate what the test told it; of any other, that it is not recorded."""

    def __init__(self) -> None:
        self.records: dict[CertDigest, RecordedCertificate] = {}
        self.reachable = True
        self.holds = False
        """Whether it knows signers without being asked to look them up."""
        self.asked = 0

    def tell(self, digest: CertDigest, der: bytes, status: CertStatus = CertStatus.VALID) -> None:
        self.records[digest] = recorded(der, Allotment(ranges=(RANGE_A,)), status=status)

    def held(self, digest: CertDigest) -> RecordedCertificate | None:
        return self.records.get(digest) if self.holds else None

    async def look_up(self, digest: CertDigest) -> RecordedCertificate:
        self.asked += 1
        if not self.reachable:
            raise VerificationFailed(Step.LEDGER, "the inquiry node does not answer")
        return self.records.get(digest, absent(digest))


class Domain:
    """Operator B's verification server and its proxy."""

    def __init__(self, client: httpx.AsyncClient, resolver: ToldResolver, trace: Path, caller: Caller) -> None:
        self.client, self.resolver, self.trace, self.caller = client, resolver, trace, caller
        self.der = caller.der()
        self.digest = caller.credential(self.der).profile.digest

    async def verdict(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = await self.client.post(PATH, json=request)
        assert answer.status_code == 200
        verdict: dict[str, Any] = answer.json()["verificationResponse"]
        return verdict

    def last_row(self) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(self.trace.read_text().splitlines()[-1])
        return row


@pytest_asyncio.fixture
async def domain(site: Site, caller: Caller) -> AsyncIterator[Domain]:
    site.write(f'{EXAMPLE}\n[priority]\n"Operator A" = ["ETS"]\n')
    config, resolver = load_setup(site.config).config, ToldResolver()
    trace = site.folder / "verify-b.jsonl"
    tracer = Tracer(trace, "verify-b")
    service = VerifyService(resolver, config.policy(), config.replay_cache(0), SystemClock(), tracer)
    text = InviteVerifier(service, SystemClock()).verify_text
    app = StirRoute("verification", PATH, Live((TOKEN,)), service.verify, perform_text=text).app()
    async with serve(app, Listen(port=0)) as port:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False
        ) as client:
            yield Domain(client, resolver, trace, caller)
    tracer.close()


async def test_a_good_call(domain: Domain) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    identity = domain.caller.identity(domain.der, (OFFER,))
    assert await domain.verdict(verification(identity, keyMgmt=[OFFER])) == {
        "verstat": "TN-Validation-Passed",
        "signer": "Operator A",
        "certificate": domain.digest.hex(),
        "attest": "A",
        "keyMgmt": "verified",
        "sdp": "not-signed",
    }
    row = domain.last_row()
    assert (row["text"], row["ok"], row["signer"]) == ("Identity A valid", True, "Operator A")
    assert row["ms"] > 0


async def test_the_form_of_3gpp(domain: Domain) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    identity = domain.caller.identity(domain.der, (OFFER,))
    request = in_3gpp_form(identity, identityHeaders=["e30.e30.c2ln;ppt=msg"], keyMgmt=[OFFER], requestId="45690")
    verdict = await domain.verdict(request)
    assert (verdict["verstatValue"], verdict["requestId"]) == ("TN-Validation-Passed", "45690")
    shaken, msg = (row["verifyResult"] for row in verdict["verifyResults"])
    assert (shaken["status"], shaken["keyMgmt"], shaken["signer"]) == ("pass", "verified", "Operator A")
    assert (msg["ppt"], msg["status"], msg["reasonCode"], msg["step"]) == ("msg", "fail", 438, "E5 ppt parameter")
    row = domain.last_row()
    assert (row["text"], row["ok"]) == ("Identity A valid", True)
    answer = await domain.client.post(PATH, json=in_3gpp_form(identity, time=None))
    sentence = "Missing mandatory parameter. Mandatory parameter 'time' is missing."
    assert (answer.status_code, answer.json()) == (400, {"error": sentence})


INVITE = """\
INVITE sip:+442079460001@b.example;user=phone SIP/2.0
Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1
From: <sip:+493023125001;verstat=TN-Validation-Passed@a.example;user=phone>;tag=1
To: <sip:+442079460001@b.example;user=phone>
Call-ID: c1
CSeq: 1 INVITE
Content-Type: application/sdp

v=0
o=- 1 1 IN IP4 192.0.2.7
s=-
t=0 0
""".replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("change", "verstat", "step"),
    [
        (("", ""), "TN-Validation-Passed", None),
        (("Identity: ", "X-Identity: "), "No-TN-Validation", "E2 Identity present"),
        (("<sip:+49", "<sip:x"), "No-TN-Validation", "E16 numbers"),
        (("INVITE sip:+442079460001", "INVITE sip:+442079460002"), "No-TN-Validation", "E16 numbers"),
        (("192.0.2.7\r\ns", "192.0.2.8\r\ns"), "TN-Validation-Failed", "E22 SDP"),
    ],
)
async def test_the_text_of_an_invite(domain: Domain, change: tuple[str, str], verstat: str, step: str) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    body = INVITE.partition("\r\n\r\n")[2].encode()
    identity = domain.caller.identity(domain.der, sdp=body)
    text = INVITE.replace("Call-ID", f"Identity: {identity}\r\nCall-ID").replace(*change)
    answer = await domain.client.post(f"{PATH}/sip", content=text, headers={"Content-Type": "message/sip"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "message/sip")
    request = read_invite(answer.content)
    assert f";verstat={verstat}@a.example" in request.headers["P-Asserted-Identity"]
    assert answer.text.count("verstat") == 1
    assert domain.last_row()["verstat"] == verstat
    assert domain.last_row().get("step") == step


async def test_a_text_that_is_no_invite(domain: Domain) -> None:
    headers = {"Content-Type": "message/sip"}
    for text, status in (("junk", 400), (INVITE.replace("INVITE", "BYE"), 400), ("", 400), ("x" * 70_000, 413)):
        answer = await domain.client.post(f"{PATH}/sip", content=text, headers=headers)
        assert (answer.status_code, list(answer.json())) == (status, ["requestError"])


async def test_a_diverted_call_with_priority_in_the_form_of_3gpp(domain: Domain) -> None:
    """Caller, diversion and priority together; then without the diversion, and for the wrong target."""
    domain.resolver.tell(domain.digest, domain.der)
    namespaces = frozenset(("ets",))
    credential = replace(domain.caller.credential(domain.der), namespaces=namespaces)

    def signed(to: str, **own: Any) -> str:
        ppt = next(iter(own), "shaken")
        dest, iat_s = Destinations((Tn(to),)), int(time.time())
        attest, origid = ("", "") if own else ("A", "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d")
        asked = SigningRequest(attest, Tn("493023125001"), dest, iat_s, origid, ppt=ppt, own=own)
        return sign_call(asked, credential, time.time()).serialize()

    async def told(*others: str, dest: str = "493023125003") -> dict[str, Any]:
        members: dict[str, Any] = {"to": {"tn": "493023125002"}, "dest": {"tn": dest}, "identityHeaders": others}
        fields = ["Resource-Priority: ets.0"] if others else None
        return await domain.verdict(in_3gpp_form(signed("493023125002"), **members, protectedHeaders=fields))

    div = signed("493023125003", div=Diverting(Tn("493023125002")))
    rph = signed("493023125002", rph=("ets.0",))
    verdict = await told(div, rph)
    assert (verdict["verstatValue"], verdict["verstatPriority"]) == (
        "TN-Validation-Passed",
        "RPH-Validation-Passed",
    )
    assert verdict["divResult"] == [{"div": {"tn": "493023125002"}, "verstatValue": "TN-Validation-Passed"}]
    assert [row["verifyResult"]["status"] for row in verdict["verifyResults"]] == ["pass"] * 3
    assert (await told())["verstatValue"] == "No-TN-Validation"
    div = signed("493023125003", div=Diverting(Tn("493023125002")))
    verdict = await told(div, dest="493023125004")
    assert (verdict["verstatValue"], "verstatPriority" in verdict) == ("No-TN-Validation", False)
    assert verdict["divResult"] == [{"div": {"tn": "493023125002"}, "verstatValue": "No-TN-Validation"}]
    assert {row["verifyResult"]["step"] for row in verdict["verifyResults"]} == {"E16 diversion"}


async def test_a_diversion_by_itself_in_the_form_of_atis(domain: Domain) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    diverting = Diverting(Tn("493023125002"))
    asked = SigningRequest(
        "", Tn("493023125001"), Destinations((Tn("442079460001"),)), int(time.time()), "", ppt="div",
        own={"div": diverting},
    )  # fmt: skip
    identity = sign_call(asked, domain.caller.credential(domain.der), time.time()).serialize()
    verdict = await domain.verdict(verification(identity))
    assert (verdict["verstat"], verdict["reasoncode"], verdict["step"]) == (
        "No-TN-Validation",
        438,
        "E16 diversion",
    )


async def test_a_diversion_with_the_caller_inside_in_the_form_of_atis(domain: Domain) -> None:
    """RFC 8946 §5: one token tells all."""
    domain.resolver.tell(domain.digest, domain.der)
    credential, first = domain.caller.credential(domain.der), Tn("493023125002")
    asked = SigningRequest("B", Tn("493023125001"), Destinations((first,)), int(time.time()), "x")
    inner = sign_call(asked, credential, time.time())
    asked = replace(
        asked, attest="", origid="", dest=Destinations((Tn("442079460001"),)), ppt="div-o",
        own={"div": Diverting(first), "opt": inner.token},
    )  # fmt: skip
    identity = sign_call(asked, credential, time.time()).serialize()
    verdict = await domain.verdict(verification(identity))
    assert (verdict["verstat"], verdict["attest"]) == ("TN-Validation-Passed", "B")
    inner_alone = await domain.verdict(verification(inner.serialize()))
    assert inner_alone["step"] == "E16 numbers"


async def test_anybody_may_read_the_document(domain: Domain) -> None:
    answer = await domain.client.get("/openapi.json", headers={"Authorization": ""})
    assert (answer.status_code, answer.content) == (200, (DOCUMENTS / "verify-server.json").read_bytes())


async def test_a_call_whose_session_description_is_bound(domain: Domain) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    body, before = b"v=0\r\n", counted("verified")
    identity = domain.caller.identity(domain.der, sdp=body)
    verdict = await domain.verdict(verification(identity, keyMgmt=[], sdp=member(b"v=0\r\ns=-\r\n")))
    assert (verdict["verstat"], verdict["step"]) == ("TN-Validation-Failed", "E22 SDP")
    verdict = await domain.verdict(verification(identity, keyMgmt=[], sdp=member(body)))
    assert (verdict["verstat"], verdict["sdp"]) == ("TN-Validation-Passed", "verified")
    row = domain.last_row()
    assert (row["text"], row["sdp"]) == ("Identity A valid, SDP as signed", "verified")
    assert counted("verified") == before + 1


def counted(sdp: str) -> float:
    return REGISTRY.get_sample_value("voice_dpki_sdp_bindings_total", {"sdp": sdp}) or 0


def member(body: bytes) -> dict[str, str]:
    return {"alg": "sha-256", "dig": base64url.encode(body_digest(body, "application/sdp"))}


async def test_without_keymgmt_in_the_request_it_is_not_checked(domain: Domain) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    verdict = await domain.verdict(verification(domain.caller.identity(domain.der, (OFFER,))))
    assert (verdict["verstat"], verdict["keyMgmt"]) == ("TN-Validation-Passed", "not-checked")


@contextmanager
def serving(domain: Domain, kind: Kind[Any] = SHAKEN) -> Iterator[VerifyService]:
    """The service without its socket, with one kind of PASSporT."""
    with closing(Tracer(domain.trace, "verify-b")) as tracer:
        policy = Policy(kinds=Kinds(kind))
        yield VerifyService(domain.resolver, policy, ReplayCache(9, 120), SystemClock(), tracer)


async def test_a_good_token_of_a_kind_that_does_not_prove_the_caller(
    domain: Domain, caplog: pytest.LogCaptureFixture
) -> None:
    """It is neither a proven caller nor a failure."""
    caplog.set_level("INFO", logger="verify_server.service")
    domain.resolver.tell(domain.digest, domain.der)
    body = json.dumps(verification(domain.caller.identity(domain.der))).encode()
    with serving(domain, replace(SHAKEN, proves_caller=False)) as service:
        answer = await made(service.verify(body))
    verdict = json.loads(answer)["verificationResponse"]
    assert (verdict["verstat"], "reasoncode" in verdict) == ("No-TN-Validation", False)
    assert domain.last_row()["ok"] is False
    assert domain.last_row()["text"] == verdict["reasondesc"]
    assert caplog.records == []


async def test_a_call_of_a_known_signer_is_verified_at_once(domain: Domain) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    bodies = [json.dumps(verification(domain.caller.identity(domain.der))).encode() for _ in range(2)]
    with serving(domain) as service:
        asked = await made(service.verify(bodies[0]))
        domain.resolver.holds = True
        held = service.verify(bodies[1])
    assert held == asked
    assert domain.resolver.asked == 1


@pytest.mark.parametrize("good_at", [0, 1])
async def test_one_of_several_identities_that_proves_the_caller_is_enough(domain: Domain, good_at: int) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    body = json.dumps(verification(domain.caller.identity(domain.der))).encode()
    call = read_verification(body).what
    identities = ["e30.e30.c2ln", "e30.e30.c2ln"]
    identities[good_at] = call.identities[0]
    with serving(domain) as service:
        verdict = overall(await service.verdicts_on(replace(call, identities=tuple(identities))))
        assert (verdict.ok, verdict.signer) == (True, "Operator A")
        verdict = overall(await service.verdicts_on(replace(call, identities=("e30.e30.c2ln", ""))))
        assert (verdict.ok, verdict.step) == (False, "E4 form")


async def test_a_call_that_is_not_verified_says_why(domain: Domain) -> None:
    verdict = await domain.verdict(verification(domain.caller.identity(domain.der)))
    assert verdict == {
        "reasoncode": 437,
        "reasontext": "Unsupported Credential",
        "reasondesc": "The signer's certificate is not recorded on the ledger.",
        "verstat": "TN-Validation-Failed",
        "step": "E17 certificate",
        "certificate": domain.digest.hex(),
        "keyMgmt": "not-checked",
        "sdp": "not-checked",
    }
    row = domain.last_row()
    assert (row["text"], row["step"], row["ok"]) == (verdict["reasondesc"], "E17 certificate", False)


async def test_calls_that_fail_cannot_fill_the_log_nor_hide_other_failures(
    domain: Domain, caplog: pytest.LogCaptureFixture
) -> None:
    """A line for each step, within the second that these calls may take or not."""
    caplog.set_level("INFO", logger="verify_server.service")
    began_s = time.monotonic()
    for _ in range(30):
        await domain.verdict(verification("e30.e30.c2ln"))
    await domain.verdict(verification(domain.caller.identity(domain.der)))
    spans = 1 + int((time.monotonic() - began_s) / SAY_AGAIN_S)
    steps = [vars(record)["fields"]["step"] for record in caplog.records if record.message == "call not verified"]
    assert 1 <= steps.count("E6 info") <= spans < 30
    assert steps.count("E17 certificate") == 1


async def test_a_failure_before_the_ledger_names_no_signer(domain: Domain) -> None:
    verdict = await domain.verdict(verification("e30.e30.c2ln"))
    assert (verdict["step"], verdict["reasoncode"]) == ("E6 info", 436)
    assert "signer" not in verdict
    assert "certificate" not in verdict


async def test_revoked_a_moment_ago(domain: Domain) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    first, second = domain.caller.identity(domain.der), domain.caller.identity(domain.der)
    assert (await domain.verdict(verification(first)))["verstat"] == "TN-Validation-Passed"
    domain.resolver.tell(domain.digest, domain.der, CertStatus.REVOKED)
    verdict = await domain.verdict(verification(second))
    assert (verdict["step"], verdict["signer"]) == ("E17 certificate", "Operator A")
    assert "revoked" in verdict["reasondesc"]


async def test_a_replay(domain: Domain) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    identity = domain.caller.identity(domain.der)
    for _ in range(2):
        verdict = await domain.verdict(verification(identity, callId="c1"))
        assert verdict["verstat"] == "TN-Validation-Passed"
    verdict = await domain.verdict(verification(identity, callId="c2"))
    assert (verdict["step"], verdict["reasoncode"]) == ("E21 replay", 438)
    assert verdict["verstat"] == "TN-Validation-Failed"


async def test_without_a_call_id_a_repeated_token_is_accepted(domain: Domain) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    request = verification(domain.caller.identity(domain.der))
    for _ in range(3):
        assert (await domain.verdict(request))["verstat"] == "TN-Validation-Passed"


async def test_fails_closed_without_the_ledger(domain: Domain) -> None:
    domain.resolver.reachable = False
    verdict = await domain.verdict(verification(domain.caller.identity(domain.der)))
    assert (verdict["verstat"], verdict["reasoncode"], verdict["step"]) == ("No-TN-Validation", 436, "E8 ledger")


async def test_verdicts_are_counted(domain: Domain) -> None:
    await domain.verdict(verification("e30.e30.c2ln"))
    metrics = (await domain.client.get("/metrics")).text
    assert 'voice_dpki_verdicts_total{step="E6 info",verstat="No-TN-Validation"}' in metrics


@pytest.mark.parametrize(
    ("status", "message_id", "request_of"),
    [
        (400, "SVC4001", lambda: {"verificationRequest": {}}),
        (400, "SVC4005", lambda: verification("e30", time="now")),
        (400, "SVC4005", lambda: verification("e30", keyMgmt="mikey")),
    ],
)
async def test_requests_that_cannot_be_used(
    domain: Domain, status: int, message_id: str, request_of: Callable[[], dict[str, Any]]
) -> None:
    answer = await domain.client.post(PATH, json=request_of())
    assert answer.status_code == status
    assert answer.json()["requestError"]["serviceException"]["messageId"] == message_id


async def test_nobody_else_gets_a_verdict(domain: Domain) -> None:
    answer = await domain.client.post(PATH, json=verification("e30"), headers={"Authorization": "Bearer guess"})
    assert answer.status_code == 401
    assert "policyException" in answer.json()["requestError"]


async def test_no_number_in_the_trace_or_in_a_verdict(domain: Domain) -> None:
    domain.resolver.tell(domain.digest, domain.der)
    for orig in ("+493023125001", "+493023125777"):
        verdict = await domain.verdict(verification(domain.caller.identity(domain.der), orig))
        assert orig[1:] not in json.dumps(verdict)
    assert "493023125" not in domain.trace.read_text()


@pytest.mark.parametrize(("step_s", "step"), [(-3600, "E8 ledger"), (3600, "E8 ledger"), (0, "E3 time")])
async def test_our_own_wrong_clock_is_not_the_callers_fault(domain: Domain, step_s: float, step: str) -> None:
    """A stale Date is the caller's fault unless this verifier's clock is known to be wrong."""
    clock = SettableClock(time.time())
    ledger_clock = LedgerClock(clock, clock.true_s, agrees=True)
    HEALTH.watch(ledger_clock)
    clock.set(step_s)
    request = verification(domain.caller.identity(domain.der), time=int(time.time()) - 3600)
    verdict = await domain.verdict(request)
    assert (verdict["verstat"], verdict["step"]) == ("No-TN-Validation", step)
    assert ("this machine's clock" in verdict["reasondesc"]) is bool(step_s)


@pytest.mark.parametrize("form", [verification, in_3gpp_form])
async def test_each_form_tells_the_call_id(domain: Domain, form: Callable[..., dict[str, Any]]) -> None:
    body = json.dumps(form("e30.e30.c2ln", callId="c1@a.example")).encode()
    assert read_verification(body).what.call_id == "c1@a.example"
    assert read_verification(json.dumps(form("e30.e30.c2ln")).encode()).what.call_id == ""
    with pytest.raises(RequestError, match="callId"):
        read_verification(json.dumps(form("e30.e30.c2ln", callId="x" * 1025)).encode())
