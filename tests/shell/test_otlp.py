"""Telling an OpenTelemetry collector: its own definitions read what is sent, and no call waits for it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.shell.test_hep import read
from voice_dpki.errors import LocalError
from voice_dpki.shell import otlp as otlp_module
from voice_dpki.shell.current import work_on
from voice_dpki.shell.otlp import OtlpTarget
from voice_dpki.shell.trace import Tracer, TraceTo

CALL_ID = "d1f6e7@a.example"
TRACE = bytes.fromhex("6fabebdbe9ff7315b74b0d1b5a10bc33")
"""The first half of `printf d1f6e7@a.example | sha256sum`."""


@contextmanager
def collector(status: int = 200) -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Serve a collector; yield its URL and what it is told."""
    told: list[ExportTraceServiceRequest] = []

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            told.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Taking) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", told
        server.shutdown()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch goes out on a busy machine, too."""
    monkeypatch.setattr(otlp_module, "CLOSE_S", 60.0)


def counted() -> tuple[float, float]:
    return otlp_module.SENT._value.get(), otlp_module.LOST._value.get()


def test_decisions_on_a_call_are_spans_of_one_trace() -> None:
    sent, lost = counted()
    with collector() as (url, told):
        for name in ("authn-server", "verify-server"):
            with closing(Tracer(None, name, otlp=OtlpTarget(f"{url}/v1/traces"))) as tracer:
                assert tracer.on
                tracer.note("about no call", ok=True)
                work_on(CALL_ID)
                tracer.note("Identity refused: late", step="E15 iat", ok=False, ms=12.5, seen=[1])
                tracer.note("signed")
                work_on("")
    assert counted() == (sent + 4, lost)
    resources = [each for request in told for each in request.resource_spans]
    named = [
        pair.value.string_value
        for each in resources
        for pair in each.resource.attributes
        if pair.key == "service.name"
    ]
    assert named == ["authn-server", "verify-server"]
    spans = [span for each in resources for scope in each.scope_spans for span in scope.spans]
    assert {span.trace_id for span in spans} == {TRACE}
    assert [span.name for span in spans] == ["E15 iat", "signed"] * 2
    refused, signed = spans[:2]
    assert refused.end_time_unix_nano - refused.start_time_unix_nano == pytest.approx(12_500_000, abs=1000)
    assert abs(refused.end_time_unix_nano / 1e9 - time.time()) < 3600
    assert signed.end_time_unix_nano == signed.start_time_unix_nano
    texts = {pair.key: pair.value.string_value for pair in refused.attributes}
    assert texts.keys() == {"call_id", "text", "step", "ok"}
    assert (texts["call_id"], texts["text"]) == (CALL_ID, "Identity refused: late")


def test_a_collector_that_refuses_is_counted() -> None:
    sent, lost = counted()
    with collector(400) as (url, told), closing(Tracer(None, "a", otlp=OtlpTarget(f"{url}/v1/traces"))) as tracer:
        work_on(CALL_ID)
        tracer.note("signed")
        work_on("")
        tracer.close()
        assert len(told) == 1
    assert counted() == (sent, lost + 1)


def test_a_collector_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a call nor the end of the service."""
    monkeypatch.setattr(otlp_module, "CLOSE_S", 0.1)
    monkeypatch.setattr(otlp_module, "TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracer = Tracer(None, "a", otlp=OtlpTarget(f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"))
        work_on(CALL_ID)
        for _ in range(2 * otlp_module.MAX_QUEUED):
            tracer.note("signed")
        work_on("")
        tracer.close()
        while any(each.name.startswith("OtelBatch") for each in threading.enumerate()):
            time.sleep(0.01)  # what it still gives up is counted here, and not in the next test


@pytest.mark.parametrize("url", ["http://localhost:4318/", "http://[::1]:4318", "https://tempo.a.example"])
def test_where_spans_may_go(tmp_path: Path, url: str) -> None:
    assert read(tmp_path, f'[trace.otlp]\nurl = "{url}"\n') == TraceTo(
        otlp=OtlpTarget(f"{url.rstrip('/')}/v1/traces")
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            'url = "http://tempo.a.example"',
            "on the way to http://tempo.a.example others could read about the calls",
        ),
        ('url = "http://192.0.2.1"', "or add insecure = true to .trace.otlp."),
        ('url = "grpc://127.0.0.1"', "trace.otlp.url: grpc://127.0.0.1 is no http or https URL"),
        ('url = "http://["', "trace.otlp.url: http://. is no http or https URL of a collector"),
    ],
)
def test_a_collector_that_spans_may_not_go_to_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(LocalError, match=sentence):
        read(tmp_path, f"[trace.otlp]\n{text}\n")


def test_another_machine_may_be_told_where_the_operator_says_so(tmp_path: Path) -> None:
    text = '[trace.otlp]\nurl = "http://192.0.2.1:4318"\ninsecure = true\n'
    assert read(tmp_path, text) == TraceTo(otlp=OtlpTarget("http://192.0.2.1:4318/v1/traces"))
