"""Programs as processes: clean stop on a signal, errors for people."""

import signal
import subprocess
import sys

import pytest

WAITS = """
import asyncio, sys
from voice_dpki.errors import LocalError
from voice_dpki.shell.program import run

async def main(stop):
    print("ready", flush=True)
    await stop.wait()
    print("stopped", flush=True)

async def fails(stop):
    raise LocalError("service.toml: the key listen is missing")

sys.exit(run(fails if sys.argv[1:] else main))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == "stopped\n"
        assert process.wait(10) == 0


def test_an_error_is_one_line_for_a_person() -> None:
    done = subprocess.run([sys.executable, "-c", WAITS, "fail"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert done.stderr == "-c: service.toml: the key listen is missing\n"


def test_the_umbrella_explains_itself() -> None:
    command = [sys.executable, "-m", "voice_dpki.shell.cli"]
    unknown = subprocess.run([*command, "cal"], capture_output=True, text=True, timeout=20)
    assert unknown.returncode == 2
    assert "no command 'cal'" in unknown.stderr
    assert "call" in unknown.stderr
