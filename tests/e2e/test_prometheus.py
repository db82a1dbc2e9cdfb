"""The real Prometheus on servers that run: alerts fire by their causes and end with them, queries are answered."""

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from authn_server.config import EXAMPLE
from tests.authn_server.conftest import Site
from tests.clocks import free_port
from tests.one_operator import OneOperator, Service, until
from verify_server import config as verify
from voice_dpki.ledger.records import CertStatus

pytestmark = [pytest.mark.long, pytest.mark.timeout(600), pytest.mark.peer("prometheus")]

FOLDER = Path(__file__).parents[2] / "docs" / "monitoring"
CALLER = "493023125001"
TOKEN = "t0ken-of-the-proxy"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
WINDOW = "15s"


def hastened(rules: str) -> str:
    """Return the rules with what they wait for and look back at made short; what they compare stays."""
    return re.sub(r"\[\d+[mh]\]", f"[{WINDOW}]", re.sub(r"for: \d+[mh]", "for: 1s", rules))


class Prometheus:
    """A Prometheus that asks some servers every second."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        (folder / "rules.yml").write_text(hastened((FOLDER / "rules.yml").read_text()))
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "voice-dpki", "static_configs": [{"targets": targets}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        address = f"127.0.0.1:{free_port()}"
        self._http = httpx.Client(base_url=f"http://{address}/api/v1", trust_env=False, timeout=60)
        options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        program = shutil.which("prometheus")
        assert program
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [program, *options, f"--web.listen-address={address}"], stdout=self._log, stderr=self._log
        )

    def ask(self, path: str, **query: str) -> Any:
        """Ask its API; the answer is a success."""
        answer = self._http.get(path, params=query).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def is_ready(self) -> bool:
        try:
            return bool(self.ask("/query", query="up == 1")["result"])
        except (httpx.TransportError, ValueError):  # it answers 503 without JSON while it begins
            return False

    def firing(self) -> set[str]:
        """Which alerts fire, each with its check if it has one."""
        alerts = [each for each in self.ask("/alerts")["alerts"] if each["state"] == "firing"]
        return {f"{each['labels']['alertname']} {each['labels'].get('check', '')}".strip() for each in alerts}

    @contextmanager
    def fires(self, *alerts: str) -> Iterator[None]:
        """Have alerts come within the context, and go after it."""
        assert not self.firing() & set(alerts)
        yield
        until(lambda: set(alerts) <= self.firing())

    def ends(self, *alerts: str) -> None:
        until(lambda: not self.firing() & set(alerts))

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._http.close()
        self._log.close()


class Operator:
    """An operator's ledger and both its servers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ledger, self.site = folder, OneOperator(folder, heartbeat_s=0.5), Site(folder)
        follow = f'[ledger]\nurl = "{self.ledger.url}"\ngenesis = "net/genesis.json"\nmax_age_s = 5\n'
        self.site.write(f'{EXAMPLE}[trace]\nfile = "authn.jsonl"\n{follow}', valid_s=6 * 86_400)
        self.ledger.submit(self.der)
        self.authn = Service("authn_server.main", self.site.config, folder / "authn.jsonl")
        text = verify.EXAMPLE.replace("http://127.0.0.1:26680", self.ledger.url).replace("port = 8092", "port = 0")
        text = text.replace("genesis.json", "net/genesis.json")
        (folder / "verify.toml").write_text(f'{text}[trace]\nfile = "verify.jsonl"\n')
        self.verify = Service("verify_server", folder / "verify.toml", folder / "verify.jsonl")

    @property
    def der(self) -> bytes:
        return (self.folder / "authn.der").read_bytes()

    @property
    def targets(self) -> list[str]:
        return [service.url.removeprefix("http://") for service in (self.authn, self.verify, self.ledger.node)]

    def sign(self) -> Any:
        request = {
            "attest": "A",
            "orig": {"tn": CALLER},
            "dest": {"tn": ["442079460001"]},
            "iat": int(time.time()),
            "origid": "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d",
        }
        url = f"{self.authn.url}/stir/v1/signing"
        return httpx.post(url, json={"signingRequest": request}, headers=HEADERS, trust_env=False).json()

    def identity(self) -> str:
        return str(self.sign()["signingResponse"]["identity"])

    def verify_for(self, orig: str, identity: str) -> str:
        told = {
            "from": {"tn": orig},
            "to": {"tn": ["442079460001"]},
            "time": int(time.time()),
            "identity": identity,
        }
        url = f"{self.verify.url}/stir/v1/verification"
        body = {"verificationRequest": told}
        answer = httpx.post(url, json=body, headers=HEADERS, trust_env=False, timeout=60)
        return str(answer.json()["verificationResponse"]["verstat"])

    def stop(self) -> None:
        assert [service.stop() for service in (self.authn, self.verify, self.ledger.node)] == [0, 0, 0]


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(tmp_path)
    yield operator
    operator.stop()


@pytest.fixture
def prometheus(operator: Operator, tmp_path: Path) -> Iterator[Prometheus]:
    prometheus = Prometheus(tmp_path, operator.targets)
    try:
        until(prometheus.is_ready)
        yield prometheus
    finally:
        prometheus.stop()


def test_alerts_about_certificates_and_servers(operator: Operator, prometheus: Prometheus) -> None:
    """What promtool follows in tests/monitoring as series is caused here for real, as far as a minute allows."""
    until(lambda: prometheus.firing() == {"VoiceDpkiCertificateExpires"})  # it lasts 6 days more
    with prometheus.fires("VoiceDpkiWarning certificate"):
        operator.site.write(operator.site.config.read_text(), valid_s=90 * 86_400)
        operator.authn.hang_up("configuration read again")  # the ledger does not know the new one yet
    operator.ledger.submit(operator.der)
    prometheus.ends("VoiceDpkiWarning certificate", "VoiceDpkiCertificateExpires")

    with prometheus.fires("VoiceDpkiDown"), operator.verify.paused():
        until(lambda: "VoiceDpkiDown" in prometheus.firing())
    prometheus.ends("VoiceDpkiDown")

    with prometheus.fires("VoiceDpkiNotReady certificate", "VoiceDpkiSigningRefused"):
        operator.ledger.change(operator.der, CertStatus.SUSPENDED, "certificateHold")
        until(lambda: "requestError" in operator.sign())
        until(lambda: operator.sign() and "VoiceDpkiSigningRefused" in prometheus.firing())
    operator.ledger.change(operator.der, CertStatus.VALID, "removeFromCRL")
    until(lambda: "signingResponse" in operator.sign())
    prometheus.ends("VoiceDpkiNotReady certificate", "VoiceDpkiSigningRefused")


def test_alerts_about_calls_and_the_ledger(operator: Operator, prometheus: Prometheus) -> None:
    assert operator.verify_for(CALLER, operator.identity()) == "TN-Validation-Passed"
    with prometheus.fires("VoiceDpkiVerificationFails"):
        other = "493023125002"
        until(lambda: failed(operator, other) and "VoiceDpkiVerificationFails" in prometheus.firing())
    prometheus.ends("VoiceDpkiVerificationFails")

    with prometheus.fires("VoiceDpkiReloadRefused"):
        text = operator.site.config.read_text()
        operator.site.config.write_text(f"misspelt = 1\n{text}")
        operator.authn.hang_up("configuration refused")
    operator.site.config.write_text(text)
    prometheus.ends("VoiceDpkiReloadRefused")

    with prometheus.fires("VoiceDpkiNotReady ledger", "VoiceDpkiSlow"), operator.ledger.node.paused():
        until(lambda: "VoiceDpkiNotReady ledger" in prometheus.firing())
        until(lambda: operator.verify_for(CALLER, operator.identity()) and "VoiceDpkiSlow" in prometheus.firing())
    prometheus.ends("VoiceDpkiNotReady ledger", "VoiceDpkiSlow", "VoiceDpkiDown")


def failed(operator: Operator, orig: str) -> bool:
    """Whether a token fails for a number that is not in it."""
    return operator.verify_for(orig, operator.identity()) == "No-TN-Validation"


@pytest.mark.parametrize("name", ["calls.json", "ledger.json"])
def test_every_query_of_the_dashboards_is_answered(operator: Operator, prometheus: Prometheus, name: str) -> None:
    assert operator.verify_for(CALLER, operator.identity()) == "TN-Validation-Passed"
    until(lambda: prometheus.ask("/query", query="count(up == 1)")["result"][0]["value"][1] == "3")
    until(lambda: prometheus.ask("/query", query="rate(voice_dpki_verdicts_total[5m])")["result"])
    board = json.loads((FOLDER / name).read_text())
    queries = [
        target["expr"].replace("$instance", ".*") for panel in board["panels"] for target in panel["targets"]
    ]
    answered = [query for query in queries if prometheus.ask("/query", query=query)["result"]]
    told = ", ".join(query for query in queries if query not in answered)
    print(f"{name}: {len(queries)} queries, all answered, {len(queries) - len(answered)} without a series: {told}")
    assert len(answered) > len(queries) / 2
