"""Wall clocks that can be set, beside monotonic ones that cannot, for tests."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest

STEPS_S = (-86_400, -3600, -600, 600, 3600, 86_400)
"""By how much a clock is set: a day, an hour and ten minutes, both ways."""


class SettableClock:
    def __init__(self, start_s: float) -> None:
        self.true_s, self.steady, self.error_s = start_s, 1000.0, 0.0

    def now_s(self) -> float:
        return self.true_s + self.error_s

    def steady_s(self) -> float:
        return self.steady

    def elapse(self, seconds: float) -> None:
        self.true_s += seconds
        self.steady += seconds

    def set(self, error_s: float) -> None:
        """Set the wall clock to be wrong by so much; 0 sets it right."""
        self.error_s = error_s


class SteadyTime:
    """Stands in for `time.monotonic`, and goes on only when a test says so."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class FakeTime:
    """Real programs whose wall clock can be set while they run (libfaketime); the monotonic one is left alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.at_start_s: dict[str, float] = {}
        """By how much an actor's clock is wrong when it is started."""

    def set(self, actor: str, error_s: float) -> None:
        """Have an actor's clock be wrong by so much; 0 sets it right."""
        new = self._folder / f"{actor}.clock.new"
        new.write_text(f"{error_s:+.0f}\n")
        new.replace(new.with_suffix(""))

    @contextmanager
    def of(self, actor: str) -> Iterator[None]:
        """Have programs that are started meanwhile go by the actor's clock."""
        self.set(actor, self.at_start_s.pop(actor, 0))
        faked = {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._folder / f"{actor}.clock"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        with patch.dict(os.environ, faked):
            yield


@contextmanager
def hurried(times: int) -> Iterator[None]:
    """Have all clocks of programs that are started meanwhile, and their timers, go so many times as fast."""
    faked = {"LD_PRELOAD": _library(), "FAKETIME": f"+0 x{times}", "FAKETIME_NO_CACHE": "1"}
    with patch.dict(os.environ, faked):
        yield


def _library() -> str:
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return str(library)


def by_step(*in_every_run: int) -> pytest.MarkDecorator:
    """Run a test for each step; those that are not named here only in the long run."""
    rows = [pytest.param(step, marks=() if step in in_every_run else pytest.mark.long) for step in STEPS_S]
    return pytest.mark.parametrize("step_s", rows)


def until(condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)


def health(address: object) -> tuple[int, Any]:
    answer = httpx.get(f"http://{address}/healthz", timeout=60, trust_env=False)
    return answer.status_code, answer.json()


def said(log: Path, text: str) -> int:
    """How often a program's log says something."""
    return log.read_text(encoding="utf-8").count(text)
