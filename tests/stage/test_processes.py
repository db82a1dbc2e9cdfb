import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.stage.events import COMMON_KINDS, Event, Kinds, NoteEvent
from voice_dpki.stage.processes import ProcessError, Program, Running, TraceReader, memory_mb, require, stop_all

READY = """
import signal, sys, time
{before}
with open(sys.argv[1], "a") as trace:
    trace.write('{{"t": 1, "actor": "x", "kind": "ready", "sip": "127.0.0.1:5060"}}\\n')
time.sleep(60)
"""

Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a module whose source is given; its argument is the trace file."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started: list[Running] = []

    def start_source(source: str, **changes: Any) -> Running:
        name = f"program_{len(started)}"
        (tmp_path / f"{name}.py").write_text(source)
        trace = tmp_path / f"{name}.jsonl"
        program = Program(name, name, (str(trace),), trace, tmp_path / f"{name}.log")
        started.append(Running(replace(program, **changes)))
        return started[-1]

    yield start_source
    stop_all(started)


def test_a_program_is_waited_for_measured_and_stopped(start: Start) -> None:
    program = start(READY.format(before=""))
    assert program.wait_ready().addresses == {"sip": "127.0.0.1:5060"}
    assert program.pss_mb() > 1
    program.stop()
    assert program.status == -15


def test_one_that_ends_early_is_named_with_the_end_of_its_log(start: Start) -> None:
    program = start("import sys; sys.exit('b.toml: the key listen is missing')")
    with pytest.raises(ProcessError, match=r"program_0 ended with status 1 before it could listen") as error:
        program.wait_ready()
    assert "the key listen is missing" in str(error.value)


def test_one_that_never_listens_has_a_deadline(start: Start) -> None:
    program = start("import time; time.sleep(60)")
    with pytest.raises(ProcessError, match=r"did not listen: nothing has happened for 0\.3 s") as error:
        program.wait_ready(0.3)
    assert "it traced nothing); its log" in str(error.value)
    assert str(error.value).endswith("program_0.log is empty")
    with pytest.raises(ProcessError, match=r"did not finish: nothing has happened for 0\.1 s"):
        program.wait_end(0.1)


def test_one_that_gets_on_is_waited_for(start: Start) -> None:
    """It takes many times the limit: at work, writing its log, and stopped by nobody."""
    computing = "end = time.monotonic() + 1\nwhile time.monotonic() < end: pass"
    assert start(READY.format(before=computing)).wait_ready(0.4)
    writing = "for _ in range(10): print('.', flush=True); time.sleep(0.1)"
    assert start(READY.format(before=writing)).wait_ready(0.4)


def test_one_that_writes_another_file_gets_on(start: Start, tmp_path: Path) -> None:
    other = tmp_path / "other.log"
    growing = f"for _ in range(20): open({str(other)!r}, 'a').write('.'); time.sleep(0.1)"
    assert start(READY.format(before=growing), writes=(other,)).wait_ready(0.8)


def test_a_command_begins_with_what_it_runs_within(start: Start) -> None:
    source = "import os, sys; sys.exit(f\"{os.environ['WITHIN']} {os.environ['MALLOC_ARENA_MAX']}\")"
    program = start(source, within=("env", "WITHIN=a namespace"), environment={"MALLOC_ARENA_MAX": "9"})
    with pytest.raises(ProcessError, match="a namespace 9"):
        program.wait_ready()


def test_one_without_a_trace_is_not_said_to_have_traced_nothing(start: Start) -> None:
    program = start("import sys; sys.exit('a sentence')", trace=None)
    assert program.wait_end(20) == 1
    with pytest.raises(ProcessError, match=r"program_0 ended with status 1, and is still needed; its log "):
        program.check_running()


def test_one_is_killed_with_its_children(start: Start) -> None:
    forking = "import subprocess; child = subprocess.Popen(['sleep', '60'])"
    program = start(READY.format(before=forking))
    program.wait_ready()
    pid, child = program.pids
    program.kill()
    assert (program.status, program.pids) == (-signal.SIGKILL, (pid,))
    while not has_ended(child):
        time.sleep(0.01)


def has_ended(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def test_one_whose_neighbour_gets_on_is_waited_for(start: Start, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    waits = f"import os\nwhile not os.path.exists({str(flag)!r}): time.sleep(0.05)"
    computing = f"end = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nopen({str(flag)!r}, 'w').close()"
    neighbour, waiting = start(READY.format(before=computing)), start(READY.format(before=waits))
    assert waiting.wait_ready(0.4, beside=[neighbour])


def test_one_that_runs_in_circles_is_given_up(start: Start) -> None:
    program = start("while True: pass")
    with pytest.raises(ProcessError, match=r"did not listen: it has been at work for \d+ s \(it was at work for"):
        program.wait_ready(0.1)


def test_one_that_ignores_sigterm_is_killed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voice_dpki.stage.processes.STOP_TIMEOUT_S", 0.3)
    program = start(READY.format(before="signal.signal(signal.SIGTERM, signal.SIG_IGN)"))
    program.wait_ready()
    program.stop()
    assert program.status == -9


WAITS_FOR_ALL = """
def told(number, frame):
    folder = Path(sys.argv[1]).parent
    Path(sys.argv[1]).with_suffix(".told").touch()
    while len(list(folder.glob("*.told"))) < 3:
        time.sleep(0.01)
    sys.exit(7)

from pathlib import Path
signal.signal(signal.SIGTERM, told)
"""


def test_programs_are_stopped_together(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """None ends before all have been told to."""
    monkeypatch.setattr("voice_dpki.stage.processes.STOP_TIMEOUT_S", 60)
    programs = [start(READY.format(before=WAITS_FOR_ALL)) for _ in range(3)]
    for program in programs:
        program.wait_ready()
    stop_all(programs)
    assert [program.status for program in programs] == [7] * 3


def test_a_trace_is_followed_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    reader = TraceReader(path)
    assert reader.poll() == []
    with path.open("w") as file:
        file.write('{"t": 1, "actor": "a", "kind": "note", "text": "one"}\n{"t": 2, "ac')
        file.flush()
        assert [event.text for event in reader.poll() if isinstance(event, NoteEvent)] == ["one"]
        assert reader.poll() == []
        file.write('tor": "a", "kind": "note", "text": "two"}\n')
        file.flush()
        assert [event.text for event in reader.poll() if isinstance(event, NoteEvent)] == ["two"]
    assert len(reader.events) == 2


def test_a_trace_holds_the_kinds_that_its_reader_knows(tmp_path: Path) -> None:
    @dataclass(frozen=True, slots=True)
    class Rung(Event):
        times: int

    def rung(time_s: float, actor: str, members: dict[str, object]) -> Event:
        return Rung(time_s, actor, int(str(members["times"])))

    path = tmp_path / "trace.jsonl"
    path.write_text('{"t": 1, "actor": "bell", "kind": "ring", "times": 2}\n')
    kinds: Kinds = {**COMMON_KINDS, "ring": rung}
    assert TraceReader(path, kinds).poll() == [Rung(1.0, "bell", 2)]
    with pytest.raises(MalformedError, match="KeyError 'ring'"):
        TraceReader(path).poll()


def test_a_program_is_sent_signals_until_it_has_ended(start: Start) -> None:
    program = start(READY.format(before=""))
    program.wait_ready()
    program.send(signal.SIGTERM)
    assert program.wait_end(10) != 0
    program.send(signal.SIGTERM)


def test_memory_of_a_process_that_is_gone_is_none() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert memory_mb(process.pid) == 0.0
    assert min(memory_mb(os.getpid()), memory_mb(os.getpid(), "Anonymous")) > 1


LISTENING = """
import socket, time
{before}
listener = socket.create_server(("127.0.0.1", {port}))
time.sleep(60)
"""


def test_a_program_that_takes_connections_is_open_though_it_is_not_ready(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = start(LISTENING.format(before="time.sleep(0.2)", port=port))
    program.wait_open("127.0.0.1", port)
    assert not program.trace.poll()


def test_one_that_ends_before_it_is_open_is_named(start: Start) -> None:
    program = start("import sys; sys.exit('the port is taken')")
    with pytest.raises(ProcessError, match=r"ended with status 1 before it could listen") as error:
        program.wait_open("127.0.0.1", 1)
    assert "the port is taken" in str(error.value)


def test_what_a_program_started_is_measured_apart(start: Start) -> None:
    # The child speaks when it is all there: only then is it known how large it is.
    child = (
        "import subprocess; pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE};"
        " child = subprocess.Popen([sys.executable, '-c', 'print(flush=True); input()'], **pipes);"
        " child.stdout.readline()"
    )
    program = start(READY.format(before=child))
    program.wait_ready()
    assert program.children_pss_mb() > 1


def test_a_program_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    require("sh", "make sh")
    with pytest.raises(LocalError, match=r"^no-such-program is not installed; install it: make it$"):
        require("no-such-program", "make it")
