"""Metrics in Prometheus' text format, and the liveness route, for every service."""

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from voice_dpki.clock_health import HEALTH
from voice_dpki.shell.http import Request, Response, Route, json_response


async def _metrics(_request: Request) -> Response:
    return Response(200, generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)


async def _health(_request: Request) -> Response:
    problem = HEALTH.problem()
    if problem:
        return json_response(503, {"status": "clock wrong", "detail": problem})
    return json_response(200, {"status": "ok"})


METRICS_ROUTE = Route("GET", "/metrics", _metrics)
HEALTH_ROUTE = Route("GET", "/healthz", _health)
