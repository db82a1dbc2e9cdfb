"""What /readyz and the metric tell of a service's checks."""

import gc
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from tests.clocks import SettableClock
from voice_dpki.clock_health import HEALTH
from voice_dpki.shell.config import Listen
from voice_dpki.shell.expiring import DAY_S, tls_checks
from voice_dpki.shell.http import HttpApp, serve
from voice_dpki.shell.readiness import (
    CHECKS,
    Finding,
    Readiness,
    State,
    failed_if,
    warned_if,
    worst,
)
from voice_dpki.shell.reload import Live
from voice_dpki.shortfalls import SHORTFALLS

OK, WARNED, FAILED = warned_if(""), warned_if("the store is filling up"), failed_if("no block yet")


def number(check: str) -> float | None:
    return REGISTRY.get_sample_value("voice_dpki_readiness", {"check": check})


async def asked(readiness: Readiness) -> tuple[int, dict[str, Any]]:
    async with (
        serve(HttpApp([readiness.route()]), Listen(port=0)) as port,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        answer = await http.get(f"http://127.0.0.1:{port}/readyz")
    return answer.status_code, json.loads(answer.content)


async def test_a_service_whose_checks_pass_is_ready_and_a_warning_does_not_change_that() -> None:
    found = {"disk": OK}
    readiness = Readiness({"disk": lambda: found["disk"]})
    told = {"clock": {"state": "ok"}, "disk": {"state": "ok"}}
    assert await asked(readiness) == (200, {"status": "ready", "checks": told})
    assert number("disk") == 0
    found["disk"] = WARNED
    told["disk"] = {"state": "warning", "reason": "the store is filling up"}
    assert await asked(readiness) == (200, {"status": "ready", "checks": told})
    assert number("disk") == 1


async def test_one_check_that_fails_is_enough_and_the_others_are_told_too() -> None:
    readiness = Readiness({"blocks": lambda: FAILED, "disk": lambda: WARNED})
    status, body = await asked(readiness)
    assert (status, body["status"]) == (503, "not ready")
    assert {name: each["state"] for name, each in body["checks"].items()} == {
        "blocks": "failed",
        "clock": "ok",
        "disk": "warning",
    }
    assert number("blocks") == 2


async def test_a_check_that_breaks_has_failed_and_hides_no_other() -> None:
    def broken() -> Finding:
        raise RuntimeError("of our own")

    status, body = await asked(Readiness({"key": broken, "disk": lambda: OK}))
    assert status == 503
    assert body["checks"]["key"] == {"state": "failed", "reason": "it could not be judged; the log says why"}
    assert body["checks"]["disk"] == {"state": "ok"}


class WrongClock:
    """A clock that contradicts the ledger, and a service that lacks something."""

    def problem(self) -> str:
        return "this machine's clock is behind"

    def shortfall(self) -> str:
        return "the log cannot be written"


async def test_the_clock_is_a_check_of_every_service_and_notes_are_told() -> None:
    source = WrongClock()
    HEALTH.watch(source)
    SHORTFALLS.watch(source)
    try:
        status, body = await asked(Readiness({}))
    finally:
        del source
    assert (status, body["checks"]["clock"]["reason"]) == (503, "this machine's clock is behind")
    assert "the log cannot be written" in body["notes"]
    HEALTH.problem()


def test_the_metric_keeps_nothing_of_a_service_that_is_gone() -> None:
    readiness = Readiness({"peers": lambda: FAILED})
    assert number("peers") == 2
    del readiness
    gc.collect()
    assert number("peers") == 0


def test_the_worst_finding_counts_and_of_equal_ones_the_first() -> None:
    other = failed_if("another")
    assert worst(OK, WARNED, FAILED, other) == FAILED
    assert worst(OK, OK).state is State.OK
    assert worst(WARNED, OK) == WARNED


def test_a_check_has_a_name_that_the_metric_knows() -> None:
    with pytest.warns(UserWarning, match="label check was not declared"):
        Readiness({"weather": lambda: OK})
    assert list(CHECKS) == sorted(CHECKS)


class Side:
    """A server's certificate, valid for 100 days from the epoch."""

    not_before_s, not_after_s = 0, 100 * DAY_S


TLS = "this server's own TLS certificate"
NEXT_ONE = "make another, have all peers list it beside this one, and only then configure it and reload"


@pytest.mark.parametrize(
    ("days", "state", "says"),
    [
        (-0.5, "failed", f"{TLS} is valid from 1970-01-01 00:00 UTC on, so nobody accepts it: is the clock right?"),
        (10, "ok", ""),
        (85.9, "ok", ""),
        (86, "warning", f"{TLS} expires in 14 days, 1970-04-11 00:00 UTC: {NEXT_ONE}"),
        (99.5, "warning", f"{TLS} expires in 12 hours, 1970-04-11 00:00 UTC: {NEXT_ONE}"),
        (100.1, "failed", f"{TLS} expired 1970-04-11 00:00 UTC, so nobody accepts it: {NEXT_ONE}"),
    ],
)
def test_the_certificate_for_tls_is_watched(days: float, state: str, says: str) -> None:
    side: Any = Side()
    check: Callable[[], Finding] = tls_checks(Live(side), SettableClock(days * DAY_S))["tls"]
    found = check()
    assert (found.state, found.reason) == (state, says)
    assert tls_checks(None, SettableClock(0)) == {}
