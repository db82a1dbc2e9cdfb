"""Metrics of all programs, in Prometheus' form: each is declared once, with the values that its labels can have.

    REFUSED = counters("http_refused", "Requests above what one client may have.", reason=("rate", "full"))
    REFUSED.labels("rate").inc()

Each value of a label makes a time series that lasts as long as the process, so the values come from a fixed set and
never from a network.
"""

import logging  # noqa: TID251 (no core imports this module)
import os  # noqa: TID251
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Generic, Literal, TypeVar

from prometheus_client import Counter, Gauge, Histogram  # noqa: TID251 (programs count through this module)
from prometheus_client import values as library_values  # noqa: TID251
from prometheus_client.metrics import MetricWrapperBase  # noqa: TID251
from prometheus_client.mmap_dict import MmapedDict  # noqa: TID251
from prometheus_client.values import MultiProcessValue, MutexValue  # noqa: TID251

log = logging.getLogger(__name__)

PREFIX = "voice_dpki_"
"""Prefix of all metric names; the library appends `_total` to those of counters."""

OTHER = "other"
"""The label value that stands for every undeclared one."""

COUNTS_TOGETHER: Final = library_values.ValueClass is not MutexValue
"""Whether several processes of one service count together; the environment tells the library at import."""
COUNTS_AS: Final = "VOICE_DPKI_COUNTS_AS"
"""The environment variable that names such a process for its metrics."""
_FIRST_BYTES, _NUMBERS_BYTES = 4, 16
"""Of an entry of a file: the length of its key before that, and two numbers after it."""


class _ReservedFile(MmapedDict):
    """The library's metrics file of one process, which grows only while the system has room for it.

    Otherwise the next write into the file would end the process by SIGBUS. A metric without room is counted in this
    process alone.
    """

    def read_value(self, key: str) -> tuple[float, float]:
        """Return the value and time of an entry; create the entry if there is none."""
        if key not in self._positions and not self._reserve(key):
            return 0.0, 0.0
        found: tuple[float, float] = super().read_value(key)  # type: ignore[no-untyped-call]
        return found

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Write the value of an existing entry."""
        if key in self._positions:
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

    def _reserve(self, key: str) -> bool:
        """Make room for an entry; return whether there is room."""
        size = len(key.encode())
        needed = self._used + _FIRST_BYTES + size + (8 - (size + _FIRST_BYTES) % 8) + _NUMBERS_BYTES
        capacity = self._capacity
        while capacity < needed:
            capacity *= 2
        try:
            if capacity > self._capacity:
                os.posix_fallocate(self._f.fileno(), 0, capacity)
        except OSError as error:
            if not UNSHARED:
                log.error("metrics count in one process alone", extra={"fields": {"reason": error.strerror}})
            UNSHARED.add(key)
            return False
        return True


UNSHARED: Final[set[str]] = set()
"""Metrics that count in this process alone, because the shared memory was full when they were first used."""

if COUNTS_TOGETHER:
    library_values.MmapedDict = _ReservedFile  # type: ignore[attr-defined]
    # Child processes must not inherit the name: two processes must not count under one.
    if (_name := os.environ.pop(COUNTS_AS, None)) is not None:
        library_values.ValueClass = MultiProcessValue(lambda: _name)  # type: ignore[no-untyped-call]

Together = Literal["livemax", "livemin"]
"""Which value of a gauge counts when several processes of one service run: the largest or the smallest."""

M = TypeVar("M", bound=MetricWrapperBase)

Values = Iterable[str]
"""The values that a label can have."""


class Family(Generic[M]):
    """A metric with labels."""

    def __init__(self, metric: M, values: Mapping[str, Values]) -> None:
        """`values` has each label's values, in the order of the metric's labels."""
        self._metric = metric
        self._values = {label: frozenset(map(str, each)) for label, each in values.items()}
        self._declared_ones: dict[tuple[str, ...], M] = {}
        """Cache of metrics by their label values, all of them declared."""

    def labels(self, *values: str) -> M:
        """Return the metric for a value of each label, in the order of the declaration.

        A value that was not declared counts as "other", and is warned of: tests fail on that, services go on.
        Raises ValueError for too few or too many values.
        """
        found = self._declared_ones.get(values)
        if found is None:
            told = tuple(self._declared(*each) for each in zip(self._values, values, strict=True))
            found = self._metric.labels(*told)
            if told == values:
                self._declared_ones[values] = found
        return found

    def admit(self, label: str, values: Values) -> None:
        """Declare further values of a label, which a configuration names; never what comes from a network."""
        self._values[label] |= frozenset(map(str, values))

    def _declared(self, label: str, value: str) -> str:
        if value in self._values[label]:
            return value
        # The value is left out: Python keeps each distinct warning text in memory.
        warnings.warn(f"a value of the label {label} was not declared", stacklevel=4)
        return OTHER


def counter(name: str, what: str) -> Counter:
    """Declare a counter; `name` is without PREFIX, and `what` a sentence for people."""
    return Counter(PREFIX + name, what)


def counters(name: str, what: str, **labels: Values) -> Family[Counter]:
    """Declare a counter with labels, each with the values that it can have.

    With one label, all its series begin with 0: Prometheus sees no increase in what appears with 1. With several,
    most combinations never occur, so the program begins those that do, by `labels`.
    """
    declared = {label: tuple(map(str, values)) for label, values in labels.items()}
    family = Family(Counter(PREFIX + name, what, tuple(declared)), declared)
    if len(declared) == 1:
        for value in next(iter(declared.values())):
            family.labels(value)
    return family


def gauge(name: str, what: str, together: Together = "livemax") -> Gauge:
    """Declare a gauge, as `counter` does."""
    return Gauge(PREFIX + name, what, multiprocess_mode=together)


def gauges(name: str, what: str, together: Together = "livemax", **labels: Values) -> Family[Gauge]:
    """Declare a gauge with labels, as `counters` does."""
    return Family(Gauge(PREFIX + name, what, tuple(labels), multiprocess_mode=together), labels)


def follow(metric: Gauge, value: Callable[[], float]) -> None:
    """Make a gauge report what a function returns at each scrape.

    Where several processes count together, a scrape reaches only one: each sets its value by `refresh`.
    """
    if COUNTS_TOGETHER:
        _FOLLOWED[metric] = value
    else:
        metric.set_function(value)


def refresh() -> None:
    """Set the gauges that follow a function, where several processes count together."""
    for metric, value in _FOLLOWED.items():
        metric.set(value())


_FOLLOWED: dict[Gauge, Callable[[], float]] = {}


def histogram(name: str, what: str, buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS) -> Histogram:
    """Declare a histogram, as `counter` does; `buckets` are the upper bounds, without infinity."""
    return Histogram(PREFIX + name, what, buckets=buckets)


def histograms(
    name: str, what: str, buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS, **labels: Values
) -> Family[Histogram]:
    """Declare a histogram with labels, as `counters` does."""
    return Family(Histogram(PREFIX + name, what, tuple(labels), buckets=buckets), labels)
