"""Calls without an Identity, whose PASSporTs a call placement service has: verified, or as they were."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from verify_server.config import EXAMPLE, load_setup
from verify_server.invites import InviteVerifier
from verify_server.main import main
from verify_server.out_of_band import REST_S, OobConfig, OobSetup, Retriever
from verify_server.rules import load_handling
from verify_server.service import VerifyService
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.names import Tn
from voice_dpki.shell.reload import Live
from voice_dpki.shell.trace import Tracer
from voice_dpki.stir.call import Call, Source
from voice_dpki.stir.examine import Policy
from voice_dpki.stir.faults import RequestError
from voice_dpki.stir.handling import Handling
from voice_dpki.stir.passport import Destinations
from voice_dpki.stir.replay import ReplayCache
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.recorded import CertStatus

from .conftest import Caller
from .conftest import Site as VerifySite
from .cps_site import CALLED, CALLER, PLACE, Hung
from .cps_site import Site as CpsSite

INVITE = b"""\
INVITE sip:+442079460001@b.example SIP/2.0\r
Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r
From: <sip:+493023125001@a.example;user=phone>;tag=1\r
To: <sip:+442079460001@b.example;user=phone>\r
Call-ID: 1@gateway.example\r
CSeq: 1 INVITE\r
Contact: <sip:192.0.2.1>\r
Max-Forwards: 70\r
Content-Length: 0\r
\r
"""


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("voice_dpki_oob_retrievals_total", {"outcome": outcome}) or 0.0


class Verifier:
    """Operator B's verification server beside its call placement service."""

    def __init__(self, cps: CpsSite, url: str = "", handling: Handling | None = None, **options: Any) -> None:
        self.cps = cps
        options = {"timeout_s": 30, **options}
        self.config = OobConfig(url=url or url_of(cps), certificate="", key="", info_url="", **options)
        setup = OobSetup(self.config, cps.b.credential, None)
        self.client = setup.client(cps.clock, SystemRandom())
        self.service = VerifyService(
            cps,
            Policy(),
            ReplayCache(1000, 180),
            cps.clock,
            Tracer(None, "verify-b"),
            handling=Live(handling),
            out_of_band=Retriever(setup, self.client, cps.clock),
        )

    async def verdict(self, call_id: str = "c1", **changes: Any) -> dict[str, Any]:
        """Ask in ATIS-1000082's form; with a `to.tn` that is a string, in 3GPP's."""
        told = {
            "from": {"tn": CALLER},
            "to": {"tn": [CALLED]},
            "time": int(self.cps.clock.now_s()),
            "callId": call_id,
        }
        body = msgspec.json.encode({"verificationRequest": {**told, "outOfBand": True, **changes}})
        answered = self.service.verify(body, "proxy")
        answer = answered if isinstance(answered, bytes) else await answered
        verdict: dict[str, Any] = msgspec.json.decode(answer)["verificationResponse"]
        return verdict

    def call(self, **changes: Any) -> Call:
        return replace(Call(CALLER, Destinations((CALLED,)), int(self.cps.clock.now_s()), ()), **changes)


def url_of(cps: CpsSite) -> str:
    return str(cps.http.base_url).replace("127.0.0.1", "localhost").rstrip("/")


@pytest.fixture
async def cps() -> AsyncIterator[CpsSite]:
    async with CpsSite(audiences=("localhost",)).serving() as site:
        yield site


@pytest.fixture
async def verifier(cps: CpsSite) -> AsyncIterator[Verifier]:
    verifier = Verifier(cps)
    yield verifier
    await verifier.client.aclose()


async def publish(cps: CpsSite, ago_s: float = 0, orig: Tn = CALLER) -> None:
    answer = await cps.a.publish(cps.a.passport(orig, ago_s=ago_s), audience="localhost")
    assert answer.status_code == 201, answer.text


async def test_a_call_whose_identity_was_lost(cps: CpsSite, verifier: Verifier) -> None:
    await publish(cps)
    found = count("found")
    verdict = await verifier.verdict()
    assert (verdict["verstat"], verdict["outOfBand"], verdict["signer"], verdict["attest"]) == (
        "TN-Validation-Passed",
        True,
        "Operator A",
        "A",
    )
    assert count("found") == found + 1


MS: dict[str, Any] = {"to": {"tn": CALLED}}
"""What tells 3GPP's form."""


async def test_a_call_whose_identity_was_lost_in_3gpps_form(cps: CpsSite, verifier: Verifier) -> None:
    await publish(cps)
    verdict = await verifier.verdict(**MS, requestId="r1")
    (row,) = verdict.pop("verifyResults")
    assert verdict == {"verstatValue": "TN-Validation-Passed", "outOfBand": True, "requestId": "r1"}
    result = row["verifyResult"]
    assert (result["ppt"], result["status"], result["signer"]) == ("shaken", "pass", "Operator A")
    assert (result["validClaims"]["attest"], result["validClaims"]["orig"]) == ("A", {"tn": CALLER})


async def test_nothing_is_published_in_3gpps_form(verifier: Verifier) -> None:
    verdict = await verifier.verdict(**MS)
    (row,) = verdict.pop("verifyResults")
    assert verdict == {"verstatValue": "No-TN-Validation"}
    result = row["verifyResult"]
    assert (result["ppt"], result["status"], result["reasonCode"]) == ("", "fail", 428)
    assert "passport" not in result


async def test_a_passport_that_fails_is_given_back_in_3gpps_form(cps: CpsSite, verifier: Verifier) -> None:
    await publish(cps)
    (token,) = await verifier.client.retrieve(cps.b.credential, PLACE)
    cps.set(cps.a, status=CertStatus.REVOKED)
    verdict = await verifier.verdict(**MS)
    (row,) = verdict.pop("verifyResults")
    assert verdict == {"verstatValue": "TN-Validation-Failed", "outOfBand": True}
    result = row["verifyResult"]
    assert (result["reasonCode"], result["step"], result["passport"]) == (437, "E17 certificate", token)


async def test_a_request_of_3gpps_form_without_an_identity_must_say_so(verifier: Verifier) -> None:
    with pytest.raises(RequestError) as caught:
        await verifier.verdict(**MS, outOfBand=False)
    assert b"Missing mandatory parameter" in caught.value.body()
    assert "identityHeader" in caught.value.sentence


RULES = """\
[[rules]]
name = "another attestation"
out_of_band = true
attests = ["B", "C"]
act = "tag"

[[rules]]
name = "a lost Identity"
out_of_band = true
attests = ["A"]
act = "pass"

[[rules]]
name = "unsigned"
out_of_band = false
codes = [428]
act = "reject"
"""


@pytest.mark.parametrize("form", [{}, MS])
async def test_rules_can_tell_such_a_call(cps: CpsSite, tmp_path: Path, form: dict[str, Any]) -> None:
    """The attestation in the PASSporT counts as that of an Identity does."""
    (tmp_path / "verdicts.toml").write_text(RULES)
    verifier = Verifier(cps, handling=load_handling(tmp_path / "verdicts.toml", frozenset()))
    assert (await verifier.verdict("c1", **form))["action"]["rule"] == "unsigned"
    await publish(cps)
    assert (await verifier.verdict("c1", **form))["action"] == {"act": "pass", "rule": "a lost Identity"}
    await verifier.client.aclose()


async def test_the_text_of_an_invite(cps: CpsSite, verifier: Verifier) -> None:
    await publish(cps)
    invites = InviteVerifier(verifier.service, cps.clock)
    told = await invites.verify_text(INVITE, "proxy")
    assert b"+493023125001;verstat=TN-Validation-Passed@" in told


async def test_nothing_is_published(verifier: Verifier) -> None:
    verdict = await verifier.verdict()
    assert (verdict["verstat"], verdict["reasoncode"]) == ("No-TN-Validation", 428)
    assert "outOfBand" not in verdict


async def test_each_call_uses_a_passport_of_its_own(cps: CpsSite, verifier: Verifier) -> None:
    """Two calls between the same numbers at a time, then a third one that nobody has published."""
    await publish(cps, ago_s=1)
    await publish(cps)
    for call_id in ("c1", "c2", "c1", "c2"):
        assert (await verifier.verdict(call_id))["verstat"] == "TN-Validation-Passed"
    third = await verifier.verdict("c3")
    assert (third["verstat"], third["reasoncode"], third["step"]) == (
        "No-TN-Validation",
        428,
        "E2 Identity present",
    )


async def test_a_signer_that_was_revoked_since(cps: CpsSite, verifier: Verifier) -> None:
    await publish(cps)
    cps.set(cps.a, status=CertStatus.REVOKED)
    verdict = await verifier.verdict()
    assert (verdict["verstat"], verdict["step"], verdict["outOfBand"]) == (
        "TN-Validation-Failed",
        "E17 certificate",
        True,
    )


async def test_another_caller_gains_nothing(cps: CpsSite, verifier: Verifier) -> None:
    await publish(cps)
    other: dict[str, Any] = {"from": {"tn": "493023125002"}}
    verdict = await verifier.verdict(**other)
    assert verdict["reasoncode"] == 428


async def test_an_identity_in_the_call_goes_first(cps: CpsSite, verifier: Verifier) -> None:
    await publish(cps)
    verdict = await verifier.verdict(identity="e30.e30.AAAA;info=<https://x.example/c.der>;alg=ES256;ppt=shaken")
    assert verdict["verstat"] == "No-TN-Validation"
    assert "outOfBand" not in verdict


async def test_a_request_without_an_identity_must_say_so(verifier: Verifier) -> None:
    with pytest.raises(RequestError) as caught:
        await verifier.verdict(outOfBand=False)
    assert (caught.value.message_id, "identity" in caught.value.sentence) == ("SVC4001", True)


async def test_signed_media_are_compared_as_in_band(cps: CpsSite, verifier: Verifier) -> None:
    await publish(cps)
    verdict = await verifier.verdict(keyMgmt=["mikey AQAFgM3YFvMAAAAA"])
    assert (verdict["verstat"], verdict["step"]) == ("TN-Validation-Failed", "E20 key-mgmt")


async def test_a_service_that_hangs_is_waited_for_once(cps: CpsSite) -> None:
    async with Hung() as hung:
        verifier = Verifier(cps, hung.url, timeout_s=0.05)
        timeouts, resting = count("timeout"), count("resting")
        assert (await verifier.verdict())["reasoncode"] == 428
        assert (await verifier.verdict())["reasoncode"] == 428
        assert (count("timeout"), count("resting"), hung.connections) == (timeouts + 1, resting + 1, 1)
        cps.clock.elapse(REST_S)
        await verifier.verdict()
        assert count("timeout") == timeouts + 2
        await verifier.client.aclose()


async def test_a_service_that_is_not_there(cps: CpsSite) -> None:
    verifier, before = Verifier(cps, "http://127.0.0.1:1"), count("unreachable")
    assert (await verifier.verdict())["verstat"] == "No-TN-Validation"
    assert count("unreachable") == before + 1
    await verifier.client.aclose()


async def test_a_refusal_makes_no_call_fail(cps: CpsSite) -> None:
    verifier, before = Verifier(cps, url_of(cps).replace("localhost", "127.0.0.1")), count("refused")
    await publish(cps)
    assert (await verifier.verdict())["reasoncode"] == 428  # the audience is another
    assert count("refused") == before + 1
    await verifier.client.aclose()


async def test_so_many_calls_wait_and_no_more(cps: CpsSite) -> None:
    async with Hung() as hung:
        verifier, before = Verifier(cps, hung.url, timeout_s=0.5, max_waiting=3), count("full")
        await asyncio.gather(*(verifier.verdict(f"c{number}") for number in range(5)))
        assert count("full") == before + 2
        await verifier.client.aclose()


async def test_a_passport_that_comes_late_is_waited_for(cps: CpsSite) -> None:
    class Watch:
        def now_s(self) -> float:
            return cps.clock.now_s()

        def steady_s(self) -> float:
            return time.monotonic()

    verifier = Verifier(cps, timeout_s=60, wait_s=60, again_s=0.01)
    retriever = Retriever(OobSetup(verifier.config, cps.b.credential, None), verifier.client, Watch())
    asking = asyncio.create_task(retriever.identities(verifier.call()))
    await asyncio.sleep(0.05)
    assert not asking.done()
    await publish(cps)
    assert len(await asking) == 1
    await verifier.client.aclose()


@pytest.mark.parametrize(
    ("conditions", "source", "is_wanted"),
    [
        ({}, Source(), True),
        ({"trunks": frozenset({"tdm"})}, Source(trunk="tdm"), True),
        ({"trunks": frozenset({"tdm"})}, Source(trunk="ip"), False),
        ({"peers": frozenset({"gw"})}, Source(peer="gw"), True),
        ({"peers": frozenset({"gw"})}, Source(peer="proxy"), False),
    ],
)
async def test_which_calls_are_asked_about(
    cps: CpsSite, conditions: dict[str, Any], source: Source, is_wanted: bool
) -> None:
    verifier = Verifier(cps, **conditions)
    retriever = verifier.service._out_of_band
    assert retriever is not None
    assert retriever.wants(verifier.call(source=source)) is is_wanted
    assert not retriever.wants(verifier.call(source=source, identities=("x",)))
    assert not retriever.wants(verifier.call(source=source, is_answer=True))
    await verifier.client.aclose()


def with_oob(site: VerifySite, **changes: str) -> VerifySite:
    signer = generate_es256()
    (site.folder / "sti.der").write_bytes(Caller(signer).der())
    (site.folder / "sti.pem").write_bytes(to_pem(signer))
    keys = {"url": '"https://cps.b.example"', "certificate": '"sti.der"', "key": '"sti.pem"'}
    keys |= {"info_url": '"https://certs.b.example/{digest}.der"', **changes}
    return site.write(EXAMPLE + "\n[oob]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()))


def test_the_configuration(site: VerifySite, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(with_oob(site).config)]) == 0
    assert "out of band  asked at https://cps.b.example about calls without an Identity" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"url": '"cps.b.example"'}, "oob.url: cps.b.example"),
        ({"certificate": '"missing.der"'}, "missing.der: cannot read"),
        ({"info_url": '"https://certs.b.example/sti.der"'}, "info_url"),
        ({"peers": '["nobody"]'}, "oob.peers: no token has the name 'nobody'"),
        ({"timeout_s": "0"}, "oob.timeout_s"),
    ],
)
def test_errors_say_what_to_mend(site: VerifySite, changes: dict[str, str], match: str) -> None:
    with pytest.raises(LocalError, match=match):
        load_setup(with_oob(site, **changes).config)
