"""The program against a real ledger node: its certificate is recorded, suspended, revoked, and the node goes."""

import asyncio
import json
import signal
import subprocess
import sys
import time

import httpx
import pytest

from authn_server.config import EXAMPLE
from authn_server.main import main
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.profile import digest_of

PATH = "/stir/v1/signing"
PATIENCE_S = 60
"""For what takes less than a second on a machine that has nothing else to do."""

MEMBERS = """\
chain_id = "test-1"
[[members]]
organization = "Operator A"
kind = "operator"
domains = ["a.example"]
ranges = [{ start = "493023125000", count = 1000 }]
validators = 1
"""
ENGINE = """\
[node]
name = "engine"
data_dir = "data"
genesis = "genesis.json"
[listen]
port = 0
[engine]
validator_keys = ["keys/validator-operator-a-1.pem"]
heartbeat_s = 0.2
[submission]
organization = "Operator A"
endorsing_key = "keys/endorsing-operator-a.pem"
tokens = "tokens-operator-a"
[trace]
file = "engine.jsonl"
"""
FOLLOW = '\n[ledger]\nurl = "{url}"\ngenesis = "net/genesis.json"\nmax_age_s = 2\nmax_unheard_s = 0.3\n'


class Program:
    """A program that traces into `trace`; its address is in its ready event."""

    def __init__(self, module, config, trace):
        self.trace, self.log_path = trace, trace.with_suffix(".log")
        self.trace.unlink(missing_ok=True)
        self.log_file = self.log_path.open("w")
        command = [sys.executable, "-m", module, "start", "--config", str(config)]
        self.process = subprocess.Popen(command, stderr=self.log_file)
        self.url = f"http://{until(self._address)}"

    def _address(self):
        assert self.process.poll() is None, self.log_path.read_text()
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return next((event["http"] for event in map(json.loads, lines) if event["kind"] == "ready"), None)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(20)
        self.log_file.close()
        return status


def until(found):
    """Wait for what `found` returns to be true, and return it."""
    end_s = time.monotonic() + PATIENCE_S
    while not (value := found()):
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.02)
    return value


class Domain:
    """Operator A's ledger and its authentication server, whose certificate nobody has recorded yet."""

    def __init__(self, site):
        self.site, self.folder = site, site.folder
        net = self.folder / "net"
        (self.folder / "members.toml").write_text(MEMBERS)
        command = [sys.executable, "-m", "ledger_node", "init", "--members", "members.toml", "--out", "net"]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=PATIENCE_S)
        (net / "engine.toml").write_text(ENGINE)
        self.ledger = Program("ledger_node", net / "engine.toml", net / "engine.jsonl")
        self.genesis = load_genesis((net / "genesis.json").read_bytes())
        self.token = (net / "tokens-operator-a").read_text().strip()
        self.authn = self.start()

    def start(self):
        self.site.write(f'{EXAMPLE}[trace]\nfile = "authn.jsonl"\n{FOLLOW.format(url=self.ledger.url)}')
        return Program("authn_server.main", self.site.config, self.folder / "authn.jsonl")

    @property
    def der(self):
        return (self.folder / "authn.der").read_bytes()

    def on_the_ledger(self, act):
        async def run():
            async with LedgerClient.of_genesis(self.ledger.url, self.genesis) as client:
                await act(client)

        asyncio.run(run())

    def submit(self):
        self.on_the_ledger(lambda client: client.submit(self.der, self.token))

    def change(self, status, reason):
        digest = digest_of(self.der)
        self.on_the_ledger(lambda client: client.change_status(digest, status, reason, self.token))

    def health(self):
        answer = httpx.get(f"{self.authn.url}/healthz", trust_env=False)
        return answer.status_code, answer.json()

    def metric(self, name):
        text = httpx.get(f"{self.authn.url}/metrics", trust_env=False).text
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))

    def stopped_reasons(self):
        lines = map(json.loads, self.authn.log_path.read_text().splitlines())
        return [line["reason"] for line in lines if line["event"] == "signing stopped"]

    def stop(self):
        assert self.authn.stop() == 0
        assert self.ledger.stop() == 0


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    from .conftest import Site

    domain = Domain(Site(tmp_path_factory.mktemp("domain")))
    yield domain
    domain.stop()


@pytest.fixture
def sign(domain, signing_request):
    def post():
        headers = {"Authorization": "Bearer t0ken-of-the-proxy"}
        answer = httpx.post(f"{domain.authn.url}{PATH}", json=signing_request(), headers=headers, trust_env=False)
        if answer.status_code == 200:
            return "signed"
        error = answer.json()["requestError"]["policyException"]
        assert (answer.status_code, error["messageId"]) == (403, "POL4033")
        return error["variables"][0]

    return post


def checked(domain, capsys):
    """What check-config ends with, and says of signing and of the ledger."""
    status = main(["check-config", "--config", str(domain.site.config)])
    told = capsys.readouterr().out.splitlines()
    signing = told[0].partition("this server ")[2].partition(" for ")[0]
    return status, signing, told[-1].rpartition(f"{domain.ledger.url}: ")[2]


def test_a_check_writes_no_trust_file(domain, capsys):
    """Root may have run it, and the server could not read root's file."""
    other = domain.folder / "check.toml"
    other.write_text(domain.site.config.read_text() + 'trust_file = "check-trust.json"\n')
    assert main(["check-config", "--config", str(other)]) == 2
    assert "not recorded on the ledger" in capsys.readouterr().out
    assert not (domain.folder / "check-trust.json").exists()


def test_it_signs_while_the_ledger_holds_its_certificate_valid(domain, sign, capsys):
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


def test_a_silent_ledger_does_not_end_signing(domain, sign, capsys):
    """Last, for it takes the ledger away."""
    assert domain.authn.stop() == 0
    domain.authn = domain.start()
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
