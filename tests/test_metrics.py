"""All programs' metrics: one prefix, one place that makes them, and labels whose values are known beforehand."""

import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Counter
from prometheus_client.metrics import MetricWrapperBase

from voice_dpki import metrics
from voice_dpki.metrics import OTHER, PREFIX, counter, counters, gauge, gauges, histogram, histograms

PACKAGES = ("voice_dpki", "authn_server", "verify_server", "ledger_node", "segw_agent", "sip_testbed")
ROOT = Path(__file__).parent.parent
MAY_IMPORT_PROMETHEUS = {"voice_dpki/metrics.py", "voice_dpki/shell/metrics.py"}


@pytest.fixture(autouse=True)
def _own_metrics_end_with_the_test() -> Iterator[None]:
    before = set(REGISTRY._collector_to_names)
    yield
    for made in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(made)


def lines(metric: MetricWrapperBase) -> list[str]:
    return [f"{each.name}{each.labels} {each.value:g}" for each in next(iter(metric.collect())).samples]


def test_a_metric_without_labels_is_the_library_s_own() -> None:
    made = counter("test_knocks", "Knocks.")
    made.inc()
    assert isinstance(made, Counter)
    assert REGISTRY.get_sample_value("voice_dpki_test_knocks_total") == 1
    gauge("test_open", "Open doors.").set(3)
    assert REGISTRY.get_sample_value("voice_dpki_test_open") == 3
    histogram("test_seconds", "Time to the door.", buckets=(1, 5)).observe(2)
    assert REGISTRY.get_sample_value("voice_dpki_test_seconds_bucket", {"le": "5.0"}) == 1
    assert REGISTRY.get_sample_value("voice_dpki_test_seconds_bucket", {"le": "1.0"}) == 0


def test_labels_are_given_in_the_order_of_the_declaration() -> None:
    made = counters("test_calls", "Calls.", way=("in", "out"), outcome=("answered", "busy"))
    made.labels("out", "busy").inc()
    assert REGISTRY.get_sample_value("voice_dpki_test_calls_total", {"way": "out", "outcome": "busy"}) == 1
    gauges("test_rooms", "Rooms.", floor=map(str, range(3))).labels("2").set(7)
    assert REGISTRY.get_sample_value("voice_dpki_test_rooms", {"floor": "2"}) == 7
    histograms("test_walk_seconds", "Walks.", (1, 5), floor=("0",)).labels("0").observe(3)
    assert REGISTRY.get_sample_value("voice_dpki_test_walk_seconds_bucket", {"floor": "0", "le": "5.0"}) == 1


def test_a_counter_with_one_label_begins_with_0() -> None:
    """Else Prometheus would see no increase in the first event."""
    made = counters("test_rings", "Rings.", bell=iter(("door", "yard")))
    bells = [REGISTRY.get_sample_value("voice_dpki_test_rings_total", {"bell": each}) for each in ("door", "yard")]
    made.labels("yard").inc()
    assert bells == [0, 0]


def test_a_value_that_was_not_declared_makes_no_series_of_its_own() -> None:
    made = counters("test_answers", "Answers.", code=("good", "revoked"))
    for number in range(100):
        with pytest.warns(UserWarning, match="^a value of the label code was not declared$"):
            made.labels(f"stranger-{number}").inc()
    assert REGISTRY.get_sample_value("voice_dpki_test_answers_total", {"code": OTHER}) == 100
    assert len(made._metric._metrics) == 3


@pytest.mark.parametrize("values", [(), ("in", "answered")])
def test_each_label_has_one_value(values: tuple[str, ...]) -> None:
    made = counters("test_ways", "Ways.", way=("in", "out"))
    with pytest.raises(ValueError, match="zip"):
        made.labels(*values)


def test_every_metric_is_made_in_one_place() -> None:
    importing = re.compile(r"^\s*(from|import) prometheus_client", re.MULTILINE)
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if importing.search(path.read_text())}
    assert found == MAY_IMPORT_PROMETHEUS


def test_every_metric_has_the_prefix_and_says_what_it_counts() -> None:
    """In a process of its own: here, other tests may have made some."""
    script = f"from tests.test_metrics import print_names; print_names({PACKAGES!r})"
    names = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True).splitlines()
    ours = [name for name in names if not name.startswith(("python_", "process_"))]
    assert len(ours) > 30
    assert [name for name in ours if not re.fullmatch(rf"{PREFIX}[a-z_]+: .+", name)] == []


def print_names(packages: tuple[str, ...]) -> None:
    """Import everything, and print each metric with what it says of itself."""
    for package in packages:
        found = importlib.import_module(package)
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    assert metrics
    for each in REGISTRY.collect():
        print(f"{each.name}: {each.documentation}")


def test_a_gauge_that_follows_is_set_where_processes_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could ask another process's function."""
    alone, together = gauge("test_alone", "Alone."), gauge("test_together", "Together.")
    rooms = [3.0]
    metrics.follow(alone, lambda: rooms[0])
    monkeypatch.setattr(metrics, "COUNTS_TOGETHER", True)
    monkeypatch.setattr(metrics, "_FOLLOWED", {})
    metrics.follow(together, lambda: rooms[0])
    metrics.refresh()
    rooms[0] = 4.0
    assert REGISTRY.get_sample_value("voice_dpki_test_alone") == 4
    assert REGISTRY.get_sample_value("voice_dpki_test_together") == 3
    metrics.refresh()
    assert REGISTRY.get_sample_value("voice_dpki_test_together") == 4
