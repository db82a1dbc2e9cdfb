"""Whether a service can do its work now: GET /readyz, check by check, and the same as metric `readiness`.

A check that fails keeps the service from its work, and /readyz is 503. A warning asks for an operator in time.
/healthz tells what is wrong with the service itself; the state of its surroundings, such as the ledger, is here.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from weakref import ref

from voice_dpki.clock_health import HEALTH
from voice_dpki.metrics import follow, gauges
from voice_dpki.shell.http import Request, Response, Route, json_response
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.wire.seldom import Seldom

log = logging.getLogger(__name__)
_FAULTS = Seldom(log)

PATH: Final = "/readyz"

CHECKS: Final = (
    "blocks",
    "certificate",
    "clock",
    "disk",
    "endorsing_key",
    "key",
    "ledger",
    "members",
    "peers",
    "release",
    "replay_store",
    "tls",
)
"""All names of checks; docs/monitoring.md says what each means."""


class State(StrEnum):
    """What a check comes to, from good to bad."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"

    @property
    def number(self) -> int:
        """The value of the metric: 0, 1 or 2."""
        return list(State).index(self)


STATES = gauges("readiness", "State of each check of /readyz: 0 ok, 1 warning, 2 failed.", check=CHECKS)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check finds; `reason` is a sentence for people, without subscribers' numbers, "" if all is well."""

    state: State
    reason: str = ""


def failed_if(reason: str) -> Finding:
    """Return that a check failed for a reason; that all is well if the reason is empty."""
    return Finding(State.FAILED, reason) if reason else Finding(State.OK)


def warned_if(reason: str) -> Finding:
    """Return a warning; that all is well if the reason is empty."""
    return Finding(State.WARNING, reason) if reason else Finding(State.OK)


def worst(*findings: Finding) -> Finding:
    """Return the worst finding, the first of several that are equally bad."""
    return max(findings, key=lambda each: each.state.number)


Check = Callable[[], Finding]
"""Looks at something that the service needs; asks nobody, for it is called whenever metrics are read."""


class Readiness:
    """The checks of one service, with that of the clock, which every service has."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        """Take checks by their names, which are among CHECKS."""
        self._checks: dict[str, Check] = {"clock": lambda: failed_if(HEALTH.problem()), **checks}
        itself = ref(self)  # the metric outlives a service, and must not keep what its checks look at
        for name in self._checks:
            follow(STATES.labels(name), lambda name=name: _number(itself(), name))  # type: ignore[misc]

    def route(self) -> Route:
        """Return the route of /readyz."""
        return Route("GET", PATH, self._answer)

    def find(self, name: str) -> Finding:
        """Return what a check finds; a check that breaks has failed."""
        try:
            return self._checks[name]()
        except Exception as error:  # a fault of our own must neither pass for readiness nor hide the other checks
            _FAULTS.error("a check of readiness broke", error)
            return Finding(State.FAILED, "it could not be judged; the log says why")

    def findings(self) -> dict[str, Finding]:
        """Return what every check finds, by name."""
        return {name: self.find(name) for name in sorted(self._checks)}

    async def _answer(self, _request: Request) -> Response:
        findings = self.findings()
        ready = all(each.state is not State.FAILED for each in findings.values())
        told = {
            name: {"state": each.state, **({"reason": each.reason} if each.reason else {})}
            for name, each in findings.items()
        }
        notes = SHORTFALLS.notes()
        body = {"status": "ready" if ready else "not ready", "checks": told, **({"notes": notes} if notes else {})}
        return json_response(200 if ready else 503, body)


def _number(readiness: Readiness | None, name: str) -> float:
    return 0.0 if readiness is None else float(readiness.find(name).state.number)
