"""Metrics in Prometheus' text format, and the liveness route, for every service."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from voice_dpki.clock_health import HEALTH
from voice_dpki.metrics import COUNTS_TOGETHER, UNSHARED, refresh
from voice_dpki.shell.http import Request, Response, Route, json_response
from voice_dpki.shortfalls import SHORTFALLS


class _Sharing:
    """Whether this process's counts are merged with those of the other workers."""

    def shortfall(self) -> str:
        """Return a warning if they are not; otherwise an empty string."""
        return "the memory of the workers is full, and some metrics count in one of them alone" if UNSHARED else ""


_SHARING: Final = _Sharing()
SHORTFALLS.watch(_SHARING)


async def _metrics(_request: Request) -> Response:
    """Return the metrics of this process, or of all workers of its service together."""
    registry = REGISTRY
    if COUNTS_TOGETHER:
        refresh()
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(200, generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def forget_process(name: str, folder: Path) -> None:
    """Forget the gauges of a process that has ended, by the name under which it counted."""
    mark_process_dead(name, str(folder))  # type: ignore[no-untyped-call]


def _answer(status: int, facts: dict[str, str]) -> Response:
    """Return a response with `facts`, and with notes on what the service lacks."""
    notes = SHORTFALLS.notes()
    return json_response(status, {**facts, **({"notes": notes} if notes else {})})


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a service can do its work, and facts about it for people."""

    ok: bool
    facts: dict[str, str]


def healthy() -> Health:
    """Judge the health of a service that has nothing to judge besides its clock."""
    return Health(True, {})


def health_route(judge: Callable[[], Health]) -> Route:
    """Return the liveness route of a service that judges its own health: 503 if it cannot do its work."""

    async def answer(_request: Request) -> Response:
        if problem := HEALTH.problem():
            return _answer(503, {"status": "clock wrong", "detail": problem})
        health = judge()
        return _answer(200 if health.ok else 503, {"status": "ok" if health.ok else "failed", **health.facts})

    return Route("GET", "/healthz", answer)


METRICS_COST = 10
"""Cost of a request (`voice_dpki.shell.limits`): formatting all metrics takes as long as a few inquiries."""

METRICS_ROUTE = Route("GET", "/metrics", _metrics, cost=METRICS_COST)
HEALTH_ROUTE = health_route(healthy)
