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


SERVICE = """
import asyncio, sys
from voice_dpki.errors import LocalError
from voice_dpki.shell.program import ServiceParser, start

async def serve(setup, stop):
    print("serves with", setup)

def check(options):
    raise LocalError(f"{options.config}: the key listen is missing")

def begin(options):
    return start("service", options.config, serve)

parser = ServiceParser("service", "Serves.", start=begin, check=check)
parser.add("make", "make what is needed", lambda options: print("made") or 0)
sys.exit(parser.run(None))
"""


@pytest.mark.parametrize(
    ("arguments", "status", "out", "err"),
    [
        (("start", "--config", "a.toml"), 0, "serves with a.toml\n", ""),
        (("check-config", "--config", "a.toml"), 2, "", "-c: a.toml: the key listen is missing\n"),
        (("make",), 0, "made\n", ""),
    ],
)
def test_a_service_starts_checks_and_does_what_else_it_can(
    arguments: tuple[str, ...], status: int, out: str, err: str
) -> None:
    done = subprocess.run([sys.executable, "-c", SERVICE, *arguments], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "service: the following arguments are required: COMMAND; service --help explains"),
        (
            ("start",),
            "service start: the following arguments are required: --config; service start --help explains",
        ),
    ],
)
def test_wrong_arguments_are_said_with_what_explains_them(arguments: tuple[str, ...], told: str) -> None:
    done = subprocess.run([sys.executable, "-c", SERVICE, *arguments], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, told)
