"""A trace, and a trace and a log on a full disk: what is lost is counted and said, and nothing stops."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.disks import fill
from voice_dpki.errors import LocalError
from voice_dpki.shell import trace as trace_module
from voice_dpki.shell.config import Listen
from voice_dpki.shell.http import HttpApp, Request, Response, Route, serve
from voice_dpki.shell.trace import Tracer
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.stage.events import COMMON_KINDS, HttpEvent, parse_lines


def test_events_without_room_are_lost_whole_and_said_once(
    disk: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = disk(64)
    path = folder / "a.jsonl"
    tracer = Tracer(path, "a")
    tracer.note("first")
    ballast = fill(folder, leave_kilobytes=4)
    before = trace_module.LOST._value.get()
    for number in range(300):
        tracer.note("x" * 100, number=number)
    lost = trace_module.LOST._value.get() - before
    assert lost > 0
    assert "the trace cannot be written, and its events are lost" in SHORTFALLS.notes()
    ballast.unlink()
    tracer.note("last")
    assert not tracer.shortfall()
    tracer.close()
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert (texts[0], texts[-1], len(texts)) == ("first", "last", 302 - lost)
    assert [record.message for record in caplog.records] == ["trace event lost"]


async def test_the_octets_of_http_are_traced_by_the_server_without_tokens(tmp_path: Path) -> None:
    """One client sends a request in parts, the token among them, and one so little HTTP that it is refused."""

    async def answer(_request: Request) -> Response:
        return Response(200, b"here", "text/plain")

    app, path = HttpApp([Route("POST", "/ask", answer)]), tmp_path / "a.jsonl"
    with closing(Tracer(path, "a")) as tracer:
        async with serve(app, Listen(port=0), tracer=tracer) as port:
            head = b"POST /ask HTTP/1.1\r\nHost: a\r\nauthorization: Bearer secret\r\nContent-Length: 2\r\n\r\n"
            ours, first = await _exchanged(port, head[:40], head[40:55], head[55:], b"ok")
            other, second = await _exchanged(port, b"nonsense\r\n\r\n")
    events = [event for event in parse_lines(path.read_bytes(), COMMON_KINDS) if isinstance(event, HttpEvent)]
    sent = b"".join(event.data for event in events if event.src == ours)
    assert sent == head.replace(b"Bearer secret", b"****** ******") + b"ok"
    assert b"".join(event.data for event in events if event.dst == ours) == first
    assert first.startswith(b"HTTP/1.1 200 ")
    assert b"".join(event.data for event in events if event.dst == other) == second
    assert second.startswith(b"HTTP/1.1 400 ")
    assert {event.dst for event in events if event.src in (ours, other)} == {f"127.0.0.1:{port}"}


async def _exchanged(port: int, *parts: bytes) -> tuple[str, bytes]:
    """Send parts, and return our address and all that the server sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    host, own_port = writer.get_extra_info("sockname")
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.01)
    writer.write_eof()
    try:
        return f"{host}:{own_port}", await reader.read()
    finally:
        writer.close()


def test_a_trace_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"a\.jsonl: cannot write this trace: No such file or directory"):
        Tracer(tmp_path / "nowhere" / "a.jsonl", "a")


LOGS = """
import logging, os, sys
from voice_dpki.shell.log import LOST, setup_logging
from voice_dpki.shortfalls import SHORTFALLS

setup_logging("service")
log = logging.getLogger("test")
handler = logging.getLogger().handlers[0]
kept = os.dup(2)
full = os.open("/dev/full", os.O_WRONLY)
os.dup2(full, 2)
for number in range(3):
    log.info("lost")
assert SHORTFALLS.notes() == ["the log cannot be written, and its lines are lost"]
os.dup2(kept, 2)
log.info("kept")
assert SHORTFALLS.notes() == []
print(LOST._value.get())
"""


def test_log_lines_without_room_are_counted_and_the_service_goes_on(tmp_path: Path) -> None:
    """The log is a file, as on a disk that is full; tests/shell/test_log_stream.py has pipes and sockets."""
    log = tmp_path / "log"
    with log.open("wb") as file:
        program = [sys.executable, "-c", LOGS]
        done = subprocess.run(program, stdout=subprocess.PIPE, stderr=file, text=True, timeout=60, env=os.environ)
    told = log.read_text()
    events = [json.loads(line)["event"] for line in told.splitlines() if line.startswith("{")]
    assert (done.returncode, done.stdout) == (0, "3.0\n"), told
    assert events[-2:] == ["kept", "3 lines could not be written to this log"]
    assert "Traceback" not in told
