"""An authentication server with several workers, for tests."""

import os
import signal
from typing import Any

import httpx

from authn_server.config import EXAMPLE
from tests.one_operator import Service, until
from tests.ports import free_port
from voice_dpki.stage.events import ReadyEvent
from voice_dpki.stage.patience import children

from .conftest import TOKEN, Site

PATH = "/stir/v1/signing"
TRACE = '\n[trace]\nfile = "authn-a.jsonl"\n'


class Pool:
    """A server with several workers; `more` is added to its configuration."""

    def __init__(self, site: Site, *, workers: int = 3, more: str = "") -> None:
        self.site, self.port = site, free_port()
        site.write(EXAMPLE.replace("workers = 1 ", f"workers = {workers} ") + TRACE + more)
        site.config.write_text(site.config.read_text().replace("port = 0", f"port = {self.port}", 1))
        self.service = Service("authn_server", site.config, site.folder / "authn-a.jsonl")
        until(lambda: self.ready == workers)

    @property
    def ready(self) -> int:
        """How many workers have begun to serve."""
        return sum(isinstance(event, ReadyEvent) for event in self.service.events())

    @property
    def pids(self) -> list[int]:
        return sorted(children(self.service.pid))

    def ask(self, request: dict[str, Any], token: str = TOKEN) -> int:
        """Ask over a connection of its own, which any worker may get."""
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.service.url}{PATH}"
        return httpx.post(url, json=request, headers=headers, trust_env=False).status_code

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.service.url}/metrics", trust_env=False).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name)

    def reloads(self) -> int:
        """How often a worker has read its configuration again."""
        return self.service.log_path.read_text().count("configuration read again")

    def replace(self, said: str) -> str:
        """Have the workers replaced until the log says `said`; returns what was logged meanwhile."""
        before = len(self.service.log_path.read_text())
        os.kill(self.service.pid, signal.SIGUSR2)
        until(lambda: said in self.service.log_path.read_text()[before:])
        return self.service.log_path.read_text()[before:]
