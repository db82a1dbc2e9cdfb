"""Networks of programs on this machine, for demonstrations and tests: each a process of its own, in one folder."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import to_toml
from voice_dpki.shell.events import Event, Kinds
from voice_dpki.shell.files import make_folder, write_private
from voice_dpki.shell.processes import Program, Running, stop_all
from voice_dpki.shell.temporary import temporary_folder


class Network:
    """Programs that run, by the actor that each one is. Use it as a context manager, or call `stop` in any case.

    `folder` holds configurations and traces (a temporary one by default), `logs` each program's log; traces have
    events of `kinds`. Raises LocalError where the folder of logs cannot be made.
    """

    def __init__(self, logs: Path, kinds: Kinds, folder: Path | None = None) -> None:
        make_folder(logs)
        self.logs = logs
        self.running: dict[str, Running] = {}
        self.held = ExitStack()
        """What is given back once the programs have stopped."""
        self.folder = folder or self.held.enter_context(temporary_folder())
        self._kinds = kinds
        self._runs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_program(
        self, actor: str, module: str, arguments: Sequence[str], sections: Mapping[str, object]
    ) -> Running:
        """Start `module` with its configuration, without waiting for it; raises LocalError where `actor` runs."""
        if actor in self.running:
            raise LocalError(f"{actor} runs already")
        self._runs += 1
        trace = self.folder / "traces" / str(self._runs) / f"{actor}.jsonl"
        config = write_config(self.folder, actor, {**sections, "trace": {"file": trace}})
        program = Program(actor, module, (*arguments, "--config", str(config)), trace, self.logs / f"{actor}.log")
        self.running[actor] = Running(program, self._kinds)
        return self.running[actor]

    def wait_ready(self, actors: Iterable[str]) -> None:
        """Wait until these programs, which start side by side, all listen; raises ProcessError."""
        starting = [self.running[actor] for actor in actors]
        for running in starting:
            running.wait_ready(beside=starting)

    def check_running(self, actors: Iterable[str]) -> None:
        """Raise ProcessError where one of these programs has ended that nobody stopped; it says what was logged."""
        for actor in actors:
            if actor in self.running:
                self.running[actor].check_running()

    def end(self, actors: Iterable[str]) -> list[Event]:
        """Stop those of these programs that run, and return what they traced."""
        ended = [self.running.pop(actor) for actor in list(actors) if actor in self.running]
        stop_all(ended)
        return [event for running in ended for event in running.trace.events]

    def stop(self) -> None:
        """Stop all programs, and give back what the network held."""
        self.end(self.running)
        self.held.close()


def write_config(folder: Path, actor: str, sections: Mapping[str, object]) -> Path:
    """Write a program's configuration, for its owner alone; returns the file."""
    path = folder / f"{actor}.toml"
    write_private(path, to_toml(sections).encode("utf-8"))
    return path
