"""Log lines that strangers can cause: seldom, and counted."""

import logging
from typing import Any

import pytest

from tests.clocks import SteadyTime
from voice_dpki.wire import seldom
from voice_dpki.wire.seldom import SAY_AGAIN_S, Seldom


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SteadyTime:
    time = SteadyTime()
    monkeypatch.setattr(seldom, "monotonic", time)
    return time


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[Any, ...]]:
    return [(each.getMessage(), each.levelno, each.__dict__["fields"]) for each in caplog.records]


def test_what_strangers_cause_is_logged_seldom_and_counted(
    clock: SteadyTime, caplog: pytest.LogCaptureFixture
) -> None:
    said = Seldom(logging.getLogger("test"))
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            said.info("asked")
        clock.now_s += SAY_AGAIN_S
        said.warning("asked wrongly")
    assert lines(caplog) == [("asked", logging.INFO, {}), ("asked wrongly", logging.WARNING, {"unsaid": 4})]


def test_errors_have_their_traceback_and_the_same_limit(
    clock: SteadyTime, caplog: pytest.LogCaptureFixture
) -> None:
    said, error = Seldom(logging.getLogger("test")), KeyError("k")
    said.error("failed", error, method="GET")
    said.error("failed", error)
    clock.now_s += SAY_AGAIN_S
    said.error("failed", error)
    assert lines(caplog) == [
        ("failed", logging.ERROR, {"method": "GET"}),
        ("failed", logging.ERROR, {"unsaid": 1}),
    ]
    assert all(each.exc_info and each.exc_info[1] is error for each in caplog.records)
