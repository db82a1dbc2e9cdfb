"""The program against a real ledger node: its certificate is recorded, suspended, revoked, and the node goes."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from authn_server.config import EXAMPLE
from authn_server.main import main
from tests.one_operator import OneOperator, Service, until
from voice_dpki.ledger.records import CertStatus
from voice_dpki.x509.profile import digest_of

from .conftest import Site

PATH = "/stir/v1/signing"
FOLLOW = '\n[ledger]\nurl = "{url}"\ngenesis = "net/genesis.json"\nmax_age_s = 2\nmax_unheard_s = 0.3\n'


class Domain:
    """Operator A's ledger and its authentication server, whose certificate nobody has recorded yet."""

    def __init__(self, site: Site) -> None:
        self.site, self.folder = site, site.folder
        self.ledger = OneOperator(self.folder, heartbeat_s=0.2)
        self.authn = self.start()

    def start(self) -> Service:
        self.site.write(f'{EXAMPLE}[trace]\nfile = "authn.jsonl"\n{FOLLOW.format(url=self.ledger.url)}')
        return Service("authn_server.main", self.site.config, self.folder / "authn.jsonl")

    @property
    def der(self) -> bytes:
        return (self.folder / "authn.der").read_bytes()

    def submit(self) -> None:
        self.ledger.submit(self.der)

    def change(self, status: CertStatus, reason: str) -> None:
        self.ledger.change(self.der, status, reason)

    def health(self) -> tuple[int, dict[str, str]]:
        answer = httpx.get(f"{self.authn.url}/healthz", trust_env=False)
        told = answer.json()
        assert told.pop("certificate") == digest_of(self.der).hex()
        return answer.status_code, told

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.authn.url}/metrics", trust_env=False).text
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))

    def stopped_reasons(self) -> list[str]:
        lines = map(json.loads, self.authn.log_path.read_text().splitlines())
        return [line["reason"] for line in lines if line["event"] == "signing stopped"]

    def stop(self) -> None:
        assert self.authn.stop() == 0
        assert self.ledger.stop() == 0


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    """One for each test: what a test does to the certificate and to the ledger lasts."""
    domain = Domain(Site(tmp_path))
    yield domain
    domain.stop()


@pytest.fixture
def sign(domain: Domain, signing_request: Callable[..., dict[str, Any]]) -> Callable[[], str]:
    def post() -> str:
        headers = {"Authorization": "Bearer t0ken-of-the-proxy"}
        answer = httpx.post(f"{domain.authn.url}{PATH}", json=signing_request(), headers=headers, trust_env=False)
        if answer.status_code == 200:
            return "signed"
        error = answer.json()["requestError"]["policyException"]
        assert (answer.status_code, error["messageId"]) == (403, "POL4033")
        return str(error["variables"][0])

    return post


def checked(domain: Domain, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """What check-config ends with, and says of signing and of the ledger."""
    status = main(["check-config", "--config", str(domain.site.config)])
    told = capsys.readouterr().out.splitlines()
    signing = told[0].partition("this server ")[2].partition(" for ")[0]
    ledger = next(line for line in told if line.startswith("  ledger "))
    return status, signing, ledger.rpartition(f"{domain.ledger.url}: ")[2]


def test_a_check_writes_no_trust_file(domain: Domain, capsys: pytest.CaptureFixture[str]) -> None:
    """Root may have run it, and the server could not read root's file."""
    other = domain.folder / "check.toml"
    other.write_text(domain.site.config.read_text() + 'trust_file = "check-trust.json"\n')
    assert main(["check-config", "--config", str(other)]) == 2
    assert "not recorded on the ledger" in capsys.readouterr().out
    assert not (domain.folder / "check-trust.json").exists()


def test_it_signs_while_the_ledger_holds_its_certificate_valid(
    domain: Domain, sign: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """From never recorded to revoked: each change counts at once, and every place tells the same."""
    unrecorded = "this server's certificate is not recorded on the ledger"
    until(lambda: sign() == unrecorded)
    until(lambda: domain.health() == (503, {"status": "failed", "ledger": "followed", "reason": unrecorded}))
    until(lambda: checked(domain, capsys) == (2, "cannot sign", unrecorded))

    domain.submit()
    until(lambda: sign() == "signed")
    until(lambda: domain.health() == (200, {"status": "ok", "ledger": "followed"}))
    assert domain.metric("voice_dpki_signing_possible") == 1
    until(lambda: checked(domain, capsys) == (0, "can sign", "the certificate is valid"))

    domain.change(CertStatus.SUSPENDED, "certificateHold")
    until(lambda: sign() == "this server's certificate is suspended on the ledger")
    domain.change(CertStatus.VALID, "removeFromCRL")
    until(lambda: sign() == "signed")

    domain.change(CertStatus.REVOKED, "keyCompromise")
    revoked = "this server's certificate was revoked on the ledger"
    began_s = time.monotonic()
    until(lambda: sign() == revoked)
    print(f"signing ended {1000 * (time.monotonic() - began_s):.0f} ms after the revocation was acknowledged")
    until(lambda: domain.health() == (503, {"status": "failed", "ledger": "followed", "reason": revoked}))
    assert domain.metric("voice_dpki_signing_possible") == 0
    until(lambda: checked(domain, capsys) == (2, "cannot sign", revoked))
    for _ in range(5):
        assert sign() == revoked
    assert domain.stopped_reasons().count(revoked) == 1


def test_a_silent_ledger_does_not_end_signing(
    domain: Domain, sign: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    domain.submit()
    until(lambda: sign() == "signed")
    assert domain.ledger.stop() == 0
    until(lambda: "silent" in domain.health()[1]["ledger"])
    until(lambda: domain.metric("voice_dpki_signing_ledger_unheard_seconds") > 0.3)
    assert sign() == "signed"
    assert domain.health()[0] == 200
    status, signing, told = checked(domain, capsys)
    assert (status, signing) == (0, "could sign")
    assert "not known whether the certificate is valid" in told
