"""A wall clock that can be set, beside a monotonic one that cannot, for tests."""

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
