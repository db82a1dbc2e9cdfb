"""Programs as processes: clean stop on a signal, errors for people."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.present import present
from tests.signals import heed_interrupts, ignore_interrupts
from voice_dpki.shell.ending import guarded

WAITS = """
import asyncio, sys
from voice_dpki.errors import LocalError
from voice_dpki.shell.ending import guarded
from voice_dpki.shell.program import run

async def main(stop):
    print("ready", flush=True)
    await stop.wait()
    print("stopped", flush=True)

async def fails(stop):
    raise LocalError("service.toml: the key listen is missing")

sys.exit(guarded(lambda: run(fails if sys.argv[1:] else main)))
"""


def started(
    *arguments: str, cwd: Path | None = None, before: Callable[[], None] = heed_interrupts
) -> subprocess.Popen[str]:
    """Start Python with pipes for its output; `before` runs in the child before it becomes Python."""
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, text=True, cwd=cwd, stdout=PIPE, stderr=PIPE, preexec_fn=before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly(number: signal.Signals) -> None:
    with started("-c", WAITS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == "stopped\n"
        assert process.wait(60) == 0


def test_an_error_is_one_line_for_a_person() -> None:
    done = subprocess.run([sys.executable, "-c", WAITS, "fail"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "-c: service.toml: the key listen is missing\n"


def test_the_umbrella_explains_itself() -> None:
    command = [sys.executable, "-m", "voice_dpki.shell.cli"]
    unknown = subprocess.run([*command, "cal"], capture_output=True, text=True, timeout=60)
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
    done = subprocess.run([sys.executable, "-c", SERVICE, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


def test_help_keeps_names_in_capitals() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, "start", "--help"], capture_output=True, text=True, timeout=60
    )
    assert "\nServe until SIGTERM; service --help has an example.\n" in done.stdout


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
    done = subprocess.run([sys.executable, "-c", SERVICE, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, told)


LOGS = """
import asyncio, sys
from voice_dpki.shell.program import start

async def serve(setup, stop):
    print("ready", flush=True)
    await stop.wait()
    print("stopped", flush=True)

sys.exit(start("service", None, serve))
"""


def test_a_hangup_is_a_line_in_the_log_and_ends_no_service() -> None:
    with started("-c", LOGS) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            assert "SIGHUP is ignored: to load a changed configuration, restart" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "stopped\n"
        assert process.wait(60) == 0


STUCK = """
import asyncio, sys
from voice_dpki.shell.ending import guarded
from voice_dpki.shell.program import run, run_command, unless_stopped

async def work():
    try:
        print("ready", flush=True)
        await asyncio.sleep(3600)
    finally:
        print("cleaned up", flush=True)

def deaf():
    return run(lambda stop: work())

def heeding():
    return run(lambda stop: unless_stopped(work(), stop), hangup_stops=True)

def command():
    return run_command(work())

sys.exit(guarded(globals()[sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("kind", "signals"),
    [
        ("deaf", [signal.SIGTERM, signal.SIGINT]),
        ("heeding", [signal.SIGINT]),
        ("heeding", [signal.SIGHUP]),
        ("command", [signal.SIGINT]),
        ("command", [signal.SIGTERM]),
        ("command", [signal.SIGHUP]),
    ],
)
def test_work_that_is_broken_off_cleans_up_and_is_said_to_be_interrupted(
    kind: str, signals: list[signal.Signals]
) -> None:
    with started("-c", STUCK, kind) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in signals:
            process.send_signal(number)
            time.sleep(0.1)  # two at once would be one to the loop
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "cleaned up\n")
    assert err == "-c: interrupted; what it started is stopped\n"


def ignores_interrupts(pid: int) -> bool:
    """Whether a process ignores SIGINT, as proc_pid_status(5) tells."""
    found = re.search(r"(?m)^SigIgn:\t([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text())
    return bool(int(present(found)[1], 16) & 1 << signal.SIGINT - 1)


@pytest.mark.parametrize(
    ("arguments", "ended"),
    [
        (("-c", WAITS), (0, "stopped\n", "")),
        (("-c", STUCK, "heeding"), (130, "cleaned up\n", "-c: interrupted; what it started is stopped\n")),
        (("-c", STUCK, "command"), (130, "cleaned up\n", "-c: interrupted; what it started is stopped\n")),
    ],
    ids=["service", "command with a stop", "command"],
)
def test_in_the_background_an_interrupt_is_not_for_it_and_sigterm_ends_it(
    arguments: tuple[str, ...], ended: tuple[int, str, str]
) -> None:
    with started(*arguments, before=ignore_interrupts) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert ignores_interrupts(process.pid)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == ended


LOSES = """
import sys, time
from voice_dpki.shell.ending import guarded

def sleep():  # a signal that comes just before a long sleep would be looked at only after it
    for _ in range(6000):
        time.sleep(0.01)

class Loses:
    def __del__(self):
        print("ready", flush=True)
        sleep()

def work():
    Loses()
    sleep()

sys.exit(guarded(work))
"""


def test_an_interrupt_in_a_finalizer_is_not_lost() -> None:
    with started("-c", LOSES) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "-c: interrupted; what it started is stopped\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_while_a_program_is_loaded_is_a_line(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nprint('loading', flush=True)\nfor _ in range(6000):\n    time.sleep(0.01)\n"
    )
    line = "from voice_dpki.shell.entry import enter; enter('slow')"
    with started("-c", line, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "-c: interrupted before anything was started\n")


def test_a_program_can_be_loaded_in_another_thread() -> None:
    """Python handles signals in the main thread only, and refuses to set them in another one."""
    lines = (
        "import asyncio; from voice_dpki.shell.entry import loading\n"
        "def load():\n    with loading():\n        print('loaded')\n"
        "asyncio.run(asyncio.to_thread(load))"
    )
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "loaded\n", "")


def test_what_a_terminal_cannot_show_is_written_otherwise() -> None:
    line = "from voice_dpki.shell.ending import guarded; guarded(lambda: print('→ Café', flush=True))"
    done = subprocess.run(
        [sys.executable, "-c", line],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\u2192 Caf\\xe9\n", b"")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "report.json: No space left on device; make room on the disk, and repeat the command"),
        (errno.EROFS, "report.json: Read-only file system"),
        (errno.ENOTDIR, "report.json: Not a directory"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(number: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise ExceptionGroup("several", [OSError(number, os.strerror(number), "report.json")])

    assert guarded(fails) == 2
    assert capsys.readouterr().err.endswith(f": {said}\n")


def test_what_rich_writes_to_a_reader_that_is_gone_ends_a_command_alike() -> None:
    line = (
        "import sys; from rich.console import Console; from voice_dpki.shell.ending import guarded\n"
        "sys.exit(guarded(lambda: Console().print('x' * 1000)))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-u", "-c", line], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_what_nobody_thought_of_keeps_its_traceback() -> None:
    def fails() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guarded(fails)


SPARES = """
import gc, weakref
from voice_dpki.shell.program import COLLECTS_AFTER, spare_the_collector

class Cycle:
    def __init__(self):
        self.self = self

spare_the_collector()
found = weakref.ref(Cycle())
assert found() is not None
for _ in range(2 * COLLECTS_AFTER[0]):
    Cycle()
assert found() is None, "cycles are collected all the same"
print(gc.get_freeze_count())
"""


def test_what_is_there_at_the_beginning_is_not_looked_at_again() -> None:
    done = subprocess.run([sys.executable, "-c", SPARES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10_000
