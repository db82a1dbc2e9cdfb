"""Networks of programs on this machine, for demonstrations and tests: separate processes that share a folder."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from voice_dpki.errors import LocalError
from voice_dpki.shell.config import to_toml
from voice_dpki.shell.files import make_folder, write_private
from voice_dpki.stage.events import Event, Kinds
from voice_dpki.stage.processes import Program, Running, stop_all
from voice_dpki.stage.temporary import temporary_folder


class Network:
    """Running programs, by actor. Use it as a context manager, or make sure to call `stop`.

    `folder` holds configurations and traces (by default it is temporary), and `logs` each program's log. Traces
    have events of `kinds`. Raises LocalError if the folder of logs cannot be made.
    """

    def __init__(self, logs: Path, kinds: Kinds, folder: Path | None = None) -> None:
        make_folder(logs)
        self.logs = logs
        self.running: dict[str, Running] = {}
        self.held = ExitStack()
        """Resources that are released when the programs have stopped."""
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
        """Start `module` with its configuration, but do not wait; raises LocalError if `actor` is running."""
        if actor in self.running:
            raise LocalError(f"{actor} runs already")
        self._runs += 1
        trace = self.folder / "traces" / str(self._runs) / f"{actor}.jsonl"
        config = write_config(self.folder, actor, {**sections, "trace": {**self.traced(actor), "file": trace}})
        program = Program(actor, module, (*arguments, "--config", str(config)), trace, self.logs / f"{actor}.log")
        self.running[actor] = Running(program, self._kinds)
        return self.running[actor]

    def traced(self, actor: str) -> Mapping[str, object]:
        """Return what else the configuration of an actor says of its trace."""
        return {}

    def wait_ready(self, actors: Iterable[str]) -> None:
        """Wait until all these programs, which start at the same time, listen; raises ProcessError."""
        starting = [self.running[actor] for actor in actors]
        for running in starting:
            running.wait_ready(beside=starting)

    def check_running(self, actors: Iterable[str]) -> None:
        """Raise ProcessError, with the end of its log, if one of these programs has ended without being stopped."""
        for actor in actors:
            if actor in self.running:
                self.running[actor].check_running()

    def end(self, actors: Iterable[str]) -> list[Event]:
        """Stop those of these programs that are running, and return their trace events."""
        ended = [self.running.pop(actor) for actor in list(actors) if actor in self.running]
        stop_all(ended)
        return [event for running in ended for event in running.trace.events]

    def stop(self) -> None:
        """Stop all programs, and release what the network held."""
        self.end(self.running)
        self.held.close()


def write_config(folder: Path, actor: str, sections: Mapping[str, object]) -> Path:
    """Write a program's configuration, readable by its owner only; return the file."""
    path = folder / f"{actor}.toml"
    write_private(path, to_toml(sections).encode("utf-8"))
    return path
