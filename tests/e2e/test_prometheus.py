"""The real Prometheus on servers that run: alerts fire by their causes and end with them, queries are answered."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.one_operator import until
from voice_dpki.ledger.records import CertStatus

from .one_site import CALLER, Operator
from .prometheus import FOLDER, Prometheus, asking, job

pytestmark = [pytest.mark.long, pytest.mark.timeout(600), pytest.mark.peer("prometheus")]


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(tmp_path)
    yield operator
    operator.stop()


@pytest.fixture
def prometheus(operator: Operator, tmp_path: Path) -> Iterator[Prometheus]:
    with asking(tmp_path, job(operator.urls)) as prometheus:
        yield prometheus


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
    for each in ("verdicts", "ledger_inquiries"):  # a rate needs two looks at each server
        until(lambda each=each: prometheus.ask("/query", query=f"rate(voice_dpki_{each}_total[5m])")["result"])  # type: ignore[misc]
    board = json.loads((FOLDER / name).read_text())
    queries = [
        target["expr"].replace("$instance", ".*") for panel in board["panels"] for target in panel["targets"]
    ]
    answered = [query for query in queries if prometheus.ask("/query", query=query)["result"]]
    told = ", ".join(query for query in queries if query not in answered)
    print(f"{name}: {len(queries)} queries, all answered, {len(queries) - len(answered)} without a series: {told}")
    assert len(answered) > len(queries) / 2
