"""The program against a real ledger node: signers are recorded, revoked, and the node goes away."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.one_operator import OneOperator, Service
from verify_server import passport_command
from verify_server.config import EXAMPLE
from voice_dpki.names import Tn
from voice_dpki.x509.keys import to_pem
from voice_dpki.x509.recorded import CertStatus
from voice_dpki.x509.tnauthlist import TnRange

from .conftest import TOKEN, Caller, verification

PATH = "/stir/v1/verification"
PATIENCE_S = 60
"""For what takes a few seconds on a machine that has nothing else to do."""
OFFER = "mikey AQAFgM3YFvMAAAAA"


class Federation:
    """A ledger of Operator A's, and a verification server that asks it."""

    def __init__(self, folder: Path) -> None:
        self.ledger = OneOperator(folder)
        config = EXAMPLE.replace("http://127.0.0.1:26680", self.ledger.url).replace("port = 8092", "port = 0")
        config = config.replace("genesis.json", "net/genesis.json").replace("max_age_s = 30", "max_age_s = 3")
        self.config = folder / "verify.toml"
        self.config.write_text(config + '\n[trace]\nfile = "verify-b.jsonl"\n')
        (folder / "proxy.tokens").write_text(TOKEN)
        self.verifier = Service("verify_server.main", folder / "verify.toml", folder / "verify-b.jsonl")
        self.client = httpx.Client(
            base_url=self.verifier.url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False
        )
        self.caller = Caller()
        self.der = self.caller.der()
        self.submit(self.der)

    def submit(self, der: bytes) -> None:
        self.ledger.submit(der)

    def revoke(self, der: bytes) -> None:
        self.ledger.change(der, CertStatus.REVOKED, "keyCompromise")

    def verdict(self, identity: str, **changes: Any) -> dict[str, Any]:
        answer = self.client.post(PATH, json=verification(identity, **changes))
        assert answer.status_code == 200, answer.text
        verdict: dict[str, Any] = answer.json()["verificationResponse"]
        return verdict

    def refusal(self, der: bytes) -> tuple[dict[str, Any], float]:
        """Call until a call is refused; returns the verdict, and after how long the last call that passed began."""
        began, passed_s = time.monotonic(), 0.0
        while True:
            asked_s = time.monotonic() - began
            verdict = self.verdict(self.caller.identity(der))
            if verdict["verstat"] != "TN-Validation-Passed":
                return verdict, passed_s
            assert asked_s < PATIENCE_S
            passed_s = asked_s

    def held(self) -> float:
        """How many calls needed no question to the ledger."""
        metrics = self.client.get("/metrics").text
        (line,) = [line for line in metrics.splitlines() if line.startswith("voice_dpki_signers_held_total")]
        return float(line.split()[1])

    def inquiries(self) -> list[str]:
        """What the ledger was asked, by the notes of its node."""
        return [text for text in self.ledger.node.notes() if text.startswith("inquiry")]

    def stop(self) -> None:
        self.client.close()
        assert self.verifier.stop() == 0
        assert self.ledger.stop() == 0


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    federation = Federation(tmp_path_factory.mktemp("federation"))
    yield federation
    federation.stop()


def test_the_command_asks_the_same_ledger(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = ["--from", "493023125001", "--to", "442079460001"]
    for der, ends in ((federation.der, 0), (federation.caller.der(TnRange(Tn("493023125000"), 2)), 1)):
        (tmp_path / "identity").write_text(federation.caller.identity(der))
        arguments = ["verify", "--config", str(federation.config), *numbers, str(tmp_path / "identity")]
        assert passport_command.command(arguments) == ends
        said = capsys.readouterr().out
        assert ("  E18 signature      passed" in said, "  signer      Operator A" in said) == (not ends, not ends)
        assert ("failed 437: the signer's certificate is not recorded on the ledger" in said) is bool(ends)


def test_a_recorded_signer_passes(federation: Federation) -> None:
    der = federation.caller.der(TnRange(Tn("493023125000"), 300))
    federation.submit(der)
    identity = federation.caller.identity(der, (OFFER,))
    verdict = federation.verdict(identity, keyMgmt=[OFFER])
    assert (verdict["verstat"], verdict["signer"], verdict["keyMgmt"]) == (
        "TN-Validation-Passed",
        "Operator A",
        "verified",
    )
    assert federation.verifier.notes()[-2:] == ["signer on the ledger: valid", "Identity A valid"]


def test_a_signer_that_is_not_recorded(federation: Federation) -> None:
    verdict = federation.verdict(federation.caller.identity(federation.caller.der()))
    assert (verdict["step"], verdict["reasoncode"]) == ("E17 certificate", 437)
    assert verdict["reasondesc"] == "The signer's certificate is not recorded on the ledger."


def test_a_known_signer_needs_no_question_to_the_ledger(federation: Federation) -> None:
    federation.verdict(federation.caller.identity(federation.der))
    held, asked = federation.held(), len(federation.inquiries())
    for _ in range(10):
        assert federation.verdict(federation.caller.identity(federation.der))["verstat"] == "TN-Validation-Passed"
    assert (federation.held(), len(federation.inquiries())) == (held + 10, asked)


def test_a_known_signer_is_refused_as_soon_as_it_is_revoked(federation: Federation) -> None:
    times = []
    for count in range(20):
        der = federation.caller.der(TnRange(Tn("493023125000"), 500 + count))
        federation.submit(der)
        for _ in range(2):
            assert federation.verdict(federation.caller.identity(der))["verstat"] == "TN-Validation-Passed"
        federation.revoke(der)
        verdict, seconds = federation.refusal(der)
        assert (verdict["step"], verdict["verstat"]) == ("E17 certificate", "TN-Validation-Failed")
        assert verdict["reasondesc"] == "The signer's certificate was revoked on the ledger."
        times.append(seconds)
    print(f"revocation effective after its acknowledgement: {1000 * max(times):.0f} ms at most")
    assert sorted(times)[len(times) // 2] < 1.0, "not only once what is known has become too old"


def test_a_thief_with_the_key_signs_for_a_number_beyond_the_certificate(federation: Federation) -> None:
    narrow = federation.caller.der(TnRange(Tn("493023125000"), 100))
    federation.submit(narrow)
    identity = federation.caller.identity(federation.der, orig="493023125100", named=narrow)
    verdict = federation.verdict(identity, **{"from": {"tn": "493023125100"}})
    assert (verdict["step"], verdict["reasoncode"], verdict["signer"]) == ("E17 authority", 437, "Operator A")
    assert verdict["reasondesc"] == "The signer's certificate has no authority over the caller's number."


@pytest.mark.peer("secsipidx")
def test_a_token_that_secsipidx_signed_passes_once_its_certificate_is_recorded(
    federation: Federation, tmp_path: Path
) -> None:
    caller = Caller()
    der = caller.der()
    (tmp_path / "key.pem").write_bytes(to_pem(caller.signer))

    def signed(uuid: str) -> str:
        call = {"orig-tn": "493023125001", "dest-tn": "442079460001", "attest": "A", "orig-id": uuid}
        options = [text for name, value in call.items() for text in (f"-{name}", value)]
        command = ["secsipidx", "-sign-full", "-fprvkey", "key.pem", "-x5u", caller.credential(der).info, *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stdout

    before = federation.verdict(signed("5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d").strip())
    assert (before["verstat"], before["step"]) == ("TN-Validation-Failed", "E17 certificate")
    federation.submit(der)
    after = federation.verdict(signed("6a1f0c2d-7d2a-4b8e-9c1d-2e3f4a5b6c7d").strip())
    assert (after["verstat"], after["signer"]) == ("TN-Validation-Passed", "Operator A")


def test_lookups_are_counted(federation: Federation) -> None:
    federation.verdict(federation.caller.identity(federation.caller.der()))
    metrics = federation.client.get("/metrics").text
    assert 'voice_dpki_signer_lookups_total{outcome="unknown"}' in metrics


def test_when_the_ledger_is_gone_calls_are_verified_for_max_age_s_and_no_longer(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    assert federation.verdict(federation.caller.identity(federation.der))["verstat"] == "TN-Validation-Passed"
    assert federation.ledger.stop() == 0
    assert federation.verdict(federation.caller.identity(federation.der))["verstat"] == "TN-Validation-Passed"
    stranger = federation.verdict(federation.caller.identity(federation.caller.der()))
    verdict, passed_s = federation.refusal(federation.der)
    assert passed_s <= 3, "max_age_s; the ledger was gone before the first of these calls"
    for each in (stranger, verdict):
        assert (each["verstat"], each["reasoncode"], each["step"]) == ("No-TN-Validation", 436, "E8 ledger")
        assert "does not answer" in each["reasondesc"]
    federation.stop()
