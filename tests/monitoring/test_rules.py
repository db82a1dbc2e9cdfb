"""The alert rules of docs/monitoring: promtool has each fire by its cause, and end with it."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from voice_dpki.stir.faults import error_of_status

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "monitoring"
PACKAGES = ("voice_dpki", "authn_server", "verify_server", "ledger_node")
RULES = FOLDER / "rules.yml"
DAY_S = 86_400

BEFORE, DURING, AFTER = "2m", "90m", "240m"
"""When an alert is looked for: its cause is there from minute 5 to minute 120."""

pytestmark = pytest.mark.peer("promtool")


def values(good: str, bad: str) -> str:
    """Return 5 minutes of good values, 115 of bad ones and 180 of good ones; a counter's go on."""
    return f"{good}x5 {bad}x114 {good}x180"


def counted(rate_before: int, rate: int) -> str:
    """Return the values of a counter that grows by one number a minute, and by another from minute 5 to 120."""
    during, after = 5 * rate_before, 5 * rate_before + 115 * rate
    return f"0+{rate_before}x5 {during + rate}+{rate}x114 {after + rate_before}+{rate_before}x180"


@dataclass(frozen=True)
class Row:
    """An alert, the series that have it fire from minute 5 to 120, and what it then says."""

    alert: str
    severity: str
    summary: str
    series: dict[str, str]
    labels: dict[str, str]


AT = {"instance": "a"}


def rows() -> Iterator[Row]:
    """Yield a row for each alert."""
    yield Row(
        "VoiceDpkiDown",
        "critical",
        "a does not answer",
        {'up{job="voice-dpki", instance="a"}': values("1", "0")},
        AT | {"job": "voice-dpki"},
    )
    ready = 'voice_dpki_readiness{instance="a", check="ledger"}'
    told = "a cannot do its work: ledger failed, and /readyz says why"
    yield Row("VoiceDpkiNotReady", "critical", told, {ready: values("0", "2")}, AT | {"check": "ledger"})
    told = "a warns: ledger, and /readyz says of what"
    yield Row("VoiceDpkiWarning", "warning", told, {ready: values("0", "1")}, AT | {"check": "ledger"})
    for kind, what in (("Certificate", "signing"), ("TlsCertificate", "TLS")):
        metric = f"voice_dpki_{what.lower()}_certificate_not_after"
        told = f"the {what} certificate of a expires in 5d 22h 30m 0s"
        ends = values(str(90 * DAY_S), str(6 * DAY_S))
        series = {f'{metric}{{instance="a"}}': ends, f'{metric}{{instance="without"}}': values("0", "0")}
        yield Row(f"VoiceDpki{kind}Expires", "critical", told, series, AT)
    told = "no block at a for 1m 40s; its log says who is waited for"
    yield Row(
        "VoiceDpkiLedgerStalled",
        "critical",
        told,
        {'voice_dpki_ledger_stalled_seconds{instance="a"}': values("0", "100")},
        AT,
    )
    yield Row(
        "VoiceDpkiDiskFills",
        "warning",
        "the disk of a is full in 3 days",
        {'voice_dpki_ledger_disk_days_left{instance="a"}': values("+Inf", "3").replace("+Infx", "100x")},
        AT,
    )
    for alert, severity, metric, labels, told in (
        (
            "ValidatorMisbehaved",
            "critical",
            "ledger_validators_misbehaved",
            {},
            "a validator has signed two blocks of one height; docs/keys.md says what to do",
        ),
        (
            "ReloadRefused",
            "warning",
            "reloads",
            {"outcome": "refused"},
            "a refuses its changed configuration, and its log says why",
        ),
        ("InternalErrors", "warning", "http_failed", {}, "a answers requests with 500, and its log has tracebacks"),
        ("LinesLost", "warning", "log_lines_lost", {}, "a cannot write what it logs, traces or exports"),
        ("LinesLost", "warning", "trace_events_lost", {}, "a cannot write what it logs, traces or exports"),
        ("LinesLost", "warning", "export_lines_lost", {}, "a cannot write what it logs, traces or exports"),
    ):
        name = series_name(f"voice_dpki_{metric}_total", AT | labels)
        yield Row(f"VoiceDpki{alert}", severity, told, {name: counted(0, 1)}, AT | labels)
    requests = {"operation": "signing", **AT}
    yield Row(
        "VoiceDpkiSigningRefused",
        "warning",
        "a refuses 25% of the calls that it is to sign",
        {
            series_name("voice_dpki_stir_requests_total", requests | {"outcome": "answered"}): counted(60, 60),
            series_name("voice_dpki_stir_requests_total", requests | {"outcome": "POL4033"}): counted(1, 20),
        },
        AT,
    )
    yield Row(
        "VoiceDpkiVerificationFails",
        "warning",
        "at a a step of verification fails for 50% of the calls",
        {
            series_name("voice_dpki_verdicts_total", AT | {"verstat": "TN-Validation-Passed", "step": ""}): counted(
                60, 60
            ),
            series_name(
                "voice_dpki_verdicts_total", AT | {"verstat": "No-TN-Validation", "step": "E17 certificate"}
            ): counted(1, 60),
        },
        AT,
    )
    slow = {"operation": "signing", **AT}
    bucket = "voice_dpki_stir_request_seconds_bucket"
    yield Row(
        "VoiceDpkiSlow",
        "warning",
        "signing at a takes 966.3ms for one call in 100",
        {
            series_name(bucket, slow | {"le": "0.1"}): counted(100, 80),
            series_name(bucket, slow | {"le": "0.3"}): counted(100, 80),
            series_name(bucket, slow | {"le": "1"}): counted(100, 101),
            series_name(bucket, slow | {"le": "+Inf"}): counted(100, 101),
        },
        slow,
    )


def series_name(metric: str, labels: dict[str, str]) -> str:
    told = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{told}}}"


def tried(row: Row) -> dict[str, object]:
    """Return a test for promtool, which follows the series of a row."""
    alert = {"exp_labels": row.labels | {"severity": row.severity}, "exp_annotations": {"summary": row.summary}}
    times: tuple[tuple[str, list[object]], ...] = ((BEFORE, []), (DURING, [alert]), (AFTER, []))
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": text} for name, text in row.series.items()],
        "alert_rule_test": [
            {"eval_time": at, "alertname": row.alert, "exp_alerts": expected} for at, expected in times
        ],
    }


def promtool(*arguments: str | Path, folder: Path = FOLDER) -> None:
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_comes_with_its_cause_and_goes_with_it(tmp_path: Path) -> None:
    tests = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [tried(row) for row in rows()]}
    (tmp_path / "test.yml").write_text(json.dumps(tests))  # JSON is YAML
    promtool("test", "rules", "test.yml", folder=tmp_path)


def test_strangers_do_not_have_signing_look_refused(tmp_path: Path) -> None:
    """Anybody can be refused for want of a token, or before a request is read, as often as they like."""
    early = {error_of_status(status, "").message_id for status in range(400, 600)} - {"POL5000"}
    series = {"answered": counted(60, 60), **dict.fromkeys(sorted({"POL4010", *early}), counted(0, 600))}
    requests = {"operation": "signing", **AT}
    name = "voice_dpki_stir_requests_total"
    row = Row(
        "VoiceDpkiSigningRefused",
        "warning",
        "",
        {series_name(name, requests | {"outcome": outcome}): text for outcome, text in series.items()},
        AT,
    )
    quiet = tried(row)
    quiet["alert_rule_test"] = [{"eval_time": DURING, "alertname": row.alert, "exp_alerts": []}]
    tests = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [quiet]}
    (tmp_path / "test.yml").write_text(json.dumps(tests))
    promtool("test", "rules", "test.yml", folder=tmp_path)


def test_every_alert_is_tried_and_described() -> None:
    alerts = re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)
    assert set(alerts) == {row.alert for row in rows()}
    told = re.findall(r"^\| `(VoiceDpki\w+)` \|", (FOLDER.parent / "monitoring.md").read_text(), re.MULTILINE)
    assert told == alerts


def test_every_alert_is_caused_for_real_in_the_long_tests() -> None:
    """As docs/monitoring.md says; each test there waits for the alerts that it names."""
    alerts = set(re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE))
    sources = (path.read_text() for path in (ROOT / "tests" / "e2e").glob("test_*.py"))
    assert alerts == {name for source in sources for name in re.findall(r"\"(VoiceDpki\w+)", source)}


def test_rules_and_scrape_configuration_are_sound() -> None:
    promtool("check", "rules", "rules.yml")
    promtool("check", "config", "prometheus.yml")


def declared() -> set[str]:
    """Return the names of all metrics that programs declare, without what Prometheus' library adds to some."""
    sources = (path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    made = re.compile(r"\b(?:counter|gauge|histogram)s?\(\s*\"(\w+)\"")
    return {f"voice_dpki_{name}" for source in sources for name in made.findall(source)}


@pytest.mark.parametrize("name", ["rules.yml", "calls.json", "ledger.json"])
def test_metrics_that_alerts_and_dashboards_ask_for_exist(name: str) -> None:
    asked = set(re.findall(r"\bvoice_dpki_\w+", (FOLDER / name).read_text()))
    assert asked
    assert {re.sub(r"_(total|bucket)$", "", each) for each in asked} <= declared()


@pytest.mark.parametrize("name", ["calls.json", "ledger.json"])
def test_a_dashboard_has_panels_with_an_id_and_a_query_each(name: str) -> None:
    board = json.loads((FOLDER / name).read_text())
    identifiers = [panel["id"] for panel in board["panels"]]
    assert len(set(identifiers)) == len(identifiers) > 5
    assert all(target["expr"] for panel in board["panels"] for target in panel["targets"])
