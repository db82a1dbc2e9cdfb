"""The real Prometheus with the rules of docs/monitoring: what it asks, and which alerts fire there and end."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.ports import free_port
from voice_dpki.stage.patience import Patience, Watched, children

FOLDER = Path(__file__).parents[2] / "docs" / "monitoring"
WINDOW = "15s"
STALLED_S = 60.0
"""How long nothing that the test has started need get on while something is waited for."""


def hastened(rules: str) -> str:
    """Return the rules with what they wait for and look back at made short; what they compare stays."""
    return re.sub(r"\[\d+[mh]\]", f"[{WINDOW}]", re.sub(r"for: \d+[mh]", "for: 1s", rules))


def job(urls: Iterable[str], name: str = "voice-dpki", **more: Any) -> dict[str, Any]:
    """Return what Prometheus' configuration says of servers that it asks; `more` is said of all of them."""
    return {"job_name": name, "static_configs": [{"targets": [url.split("//")[-1] for url in urls]}], **more}


class Prometheus:
    """A Prometheus that asks the servers of some jobs every second."""

    def __init__(self, folder: Path, *jobs: dict[str, Any]) -> None:
        self._count = sum(len(each["targets"]) for job in jobs for each in job["static_configs"])
        (folder / "rules.yml").write_text(hastened((FOLDER / "rules.yml").read_text()))
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": jobs,
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

    def values(self, query: str) -> dict[str, float]:
        """Return the newest value of each series of a query, by instance."""
        found = self.ask("/query", query=query)["result"]
        return {each["metric"].get("instance", ""): float(each["value"][1]) for each in found}

    def is_ready(self) -> bool:
        """Whether it has asked each server once, and been answered by all."""
        try:
            return sum(self.values("up").values()) == self._count
        except (httpx.TransportError, ValueError):  # it answers 503 without JSON while it begins
            return False

    def firing(self, url: str = "") -> set[str]:
        """Which alerts fire, each with its check if it has one; those of one server if it is named."""
        alerts = [each["labels"] for each in self.ask("/alerts")["alerts"] if each["state"] == "firing"]
        instance = url.split("//")[-1]
        return {
            f"{labels['alertname']} {labels.get('check', '')}".strip()
            for labels in alerts
            if not instance or labels.get("instance") == instance
        }

    @contextmanager
    def fires(self, *alerts: str, at: str = "") -> Iterator[None]:
        """Have alerts come within the context, and go after it."""
        assert not self.firing(at) & set(alerts)
        yield
        self.waits(lambda: set(alerts) <= self.firing(at), f"{alerts} fire")

    def ends(self, *alerts: str, at: str = "") -> None:
        """Wait until alerts fire no more."""
        self.waits(lambda: not self.firing(at) & set(alerts), f"{alerts} end")

    def waits(self, condition: Callable[[], object], what: str) -> None:
        """Wait until `condition()` holds, as long as the programs that this test has started get on."""
        patience = Patience([Watched(pid, ()) for pid in children(os.getpid())], STALLED_S)
        while not condition():
            why = patience.exhausted()
            assert why is None, f"waited in vain until {what}: {why}; firing: {self.firing()}"
            time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._http.close()
        self._log.close()


@contextmanager
def asking(folder: Path, *jobs: dict[str, Any]) -> Iterator[Prometheus]:
    """Have a Prometheus in `folder` ask the servers of some jobs, all of which answer."""
    prometheus = Prometheus(folder, *jobs)
    try:
        prometheus.waits(prometheus.is_ready, "all servers answer Prometheus")
        yield prometheus
    finally:
        prometheus.stop()
