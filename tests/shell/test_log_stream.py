"""Logs to a pipe, and to a socket as systemd's, that nobody reads."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

SERVICE = """
import asyncio, logging, sys
from voice_dpki.shell import log_stream
from voice_dpki.shell.log import LOST, setup_logging

async def serve():
    log = logging.getLogger("tests")
    for number in range(4000):
        log.info("event", extra={"fields": {"number": number, "filling": "x" * 400}})
    print(int(LOST._value.get()), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    log.info("read again")

if len(sys.argv) > 1:
    log_stream.WAIT_S = float(sys.argv[1])
setup_logging("a")
asyncio.run(serve())
"""
LINES = 4000
TIMEOUT_S = 120


@pytest.fixture(params=["pipe", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Descriptors of the reader and of the writer, which the test closes."""
    if request.param == "pipe":
        yield os.pipe()
    else:
        reading, writing = socket.socketpair()
        yield reading.detach(), writing.detach()


def started(writing: int, *wait_s: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE, *wait_s],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
    )
    os.close(writing)
    return process


def read_some(reading: int) -> bytes:
    """All that waits to be read."""
    os.set_blocking(reading, False)
    data = b""
    try:
        while more := os.read(reading, 65_536):
            data += more
    except BlockingIOError:
        pass
    os.set_blocking(reading, True)
    return data


def test_a_service_goes_on_whose_log_nobody_reads(ends: tuple[int, int]) -> None:
    """It counts the lines that it leaves out, and says how many once somebody reads."""
    reading, writing = ends
    with started(writing) as process, open(reading, "rb") as rest:
        assert process.stdout is not None
        assert process.stdin is not None
        lost = int(process.stdout.readline())
        assert 0 < lost < LINES
        before = read_some(reading)
        process.stdin.write("\n")
        process.stdin.flush()
        after = rest.read()
        assert process.wait(TIMEOUT_S) == 0
    lines = (before + after).splitlines()
    whole = [json.loads(line) for line in lines if line.endswith(b"}")]
    assert len(lines) - len(whole) <= 1, "one may be torn"
    numbers = [line["number"] for line in whole if line["event"] == "event"]
    assert numbers == list(range(LINES - lost))
    assert [line["event"] for line in whole[len(numbers) :]] == [
        "read again",
        f"{lost} lines could not be written to this log",
    ]


def test_a_reader_that_reads_gets_every_line(ends: tuple[int, int]) -> None:
    """The log is much longer than a pipe or a socket holds."""
    reading, writing = ends
    with started(writing, str(TIMEOUT_S)) as process:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        with open(reading, "rb") as log:
            lines = [json.loads(line) for line in log]
    assert [line.get("number") for line in lines] == [*range(LINES), None]


def test_a_flag_of_the_descriptor_that_others_share_stays_as_it_was(ends: tuple[int, int]) -> None:
    reading, writing = ends
    shared = os.dup(writing)
    with started(writing) as process, open(reading, "rb") as log:
        process.communicate("\n", TIMEOUT_S)
        assert os.get_blocking(shared)
        os.close(shared)
        assert log.read(1) == b"{"
