"""Export of each decision on a call, with its duration, as spans to an OpenTelemetry collector (Jaeger, Tempo).

The spans of one call are one trace at both operators, without a header on the way: the trace id is derived from the
Call-ID. A thread sends them in batches, so no call waits; spans that the collector does not take are lost. Spans
are counted when noted, because nothing else counts those that the queue drops or that are unsent at the end.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from voice_dpki.errors import LocalError
from voice_dpki.metrics import counter
from voice_dpki.shell.config import Config
from voice_dpki.shell.current import current_call

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult

NOTED = counter(
    "otlp_spans_noted", "Spans for the OpenTelemetry collector; those that it has not taken wait or are lost."
)
SENT = counter("otlp_spans", "Spans that the OpenTelemetry collector has taken.")
LOST = counter("otlp_spans_lost", "Spans that were sent to the OpenTelemetry collector, and that it has not taken.")

TIMEOUT_S = 5.0
"""How long a batch may take."""
CLOSE_S = 2.0
"""How long the last batch may take when the service ends."""
MAX_QUEUED = 4096
"""Most spans that wait to be sent; further ones are lost."""
TRACE_BYTES = 16
"""Length of a trace id (W3C Trace Context)."""


class OtlpConfig(Config, frozen=True, kw_only=True):
    """`[trace.otlp]`: the collector to which decisions are sent as spans, by OTLP over HTTP."""

    url: str = "http://127.0.0.1:4318"
    """Its URL without the path."""
    insecure: bool = False
    """Tell a collector on another machine without TLS, although others on the network can read it."""

    def target(self, path: Path) -> "OtlpTarget":
        """Return the collector that the configuration at `path` describes; raises LocalError."""
        try:
            parts = urlsplit(self.url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LocalError(f"{path}: trace.otlp.url: {self.url} is no http or https URL of a collector")
        if not (parts.scheme == "https" or _is_loopback(parts.hostname) or self.insecure):
            raise LocalError(
                f"{path}: on the way to {self.url} others could read about the calls: use https, or a collector on "
                "this machine, or add insecure = true to [trace.otlp] where the network itself is protected"
            )
        return OtlpTarget(f"{self.url.rstrip('/')}/v1/traces")


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """A collector, by the URL that takes spans."""

    url: str


class OtlpSender:
    """Sends decisions of the service `name`, with their durations, to the collector at `target`."""

    def __init__(self, target: OtlpTarget, name: str) -> None:
        """Raises LocalError if the packages of the extra `otel` are missing."""
        try:
            import requests
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
            from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        except ImportError:
            raise LocalError("[trace.otlp] needs more packages: pip install 'voice-dpki[otel]'") from None

        class OfCalls(RandomIdGenerator):
            """Derives trace ids from Call-IDs."""

            def generate_trace_id(self) -> int:
                return trace_number(current_call())

        class Counted(SpanExporter):
            """Counts the spans that the collector accepts."""

            def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
                result = exporter.export(spans)
                (SENT if result is result.SUCCESS else LOST).inc(len(spans))
                return result

            def shutdown(self) -> None:
                stop_sending()

        session = requests.Session()
        session.trust_env = False  # no proxy, no password file
        exporter = OTLPSpanExporter(endpoint=target.url, timeout=TIMEOUT_S, session=session)
        stop: Callable[[], None] = exporter.shutdown
        sends = threading.Lock()

        def stop_sending() -> None:
            if sends.acquire(blocking=False):
                stop()

        self._stop_sending = stop_sending
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": name}), id_generator=OfCalls(), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(Counted(), max_queue_size=MAX_QUEUED))
        self._tracer = self._provider.get_tracer("voice-dpki")

    def note(self, time_s: float, text: str, data: Mapping[str, object]) -> None:
        """Export a decision on the current call that ended at `time_s`; one without a known call is dropped."""
        if not (call_id := current_call()):
            return
        ms = data.get("ms")
        took_s = float(ms) / 1000 if isinstance(ms, int | float) else 0.0
        told = {key: value for key, value in data.items() if isinstance(value, str | int | float) and key != "ms"}
        attributes = {"call_id": call_id, "text": text, **told}
        span = self._tracer.start_span(
            str(data.get("step") or text.partition(":")[0]), start_time=_ns(time_s - took_s), attributes=attributes
        )
        NOTED.inc()
        span.end(end_time=_ns(time_s))

    def close(self) -> None:
        """Send the waiting spans, within CLOSE_S."""
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(CLOSE_S)
        if last.is_alive():
            self._stop_sending()


def trace_number(call_id: str) -> int:
    """Return the trace id of a call, the same at every operator."""
    return int.from_bytes(sha256(call_id.encode()).digest()[:TRACE_BYTES], "big")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _ns(time_s: float) -> int:
    return round(time_s * 1e9)
