"""Which processes a command has left behind: found by a mark in the environment, which descendants inherit."""

import os
import subprocess
import time
import uuid
from pathlib import Path

_CAP_S = 60.0


class Leftovers:
    """Processes with one mark; start a command with `environment` to have it and its descendants found."""

    def __init__(self) -> None:
        self._mark = f"VOICE_DPKI_TEST={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        self.environment = {name: value}

    def found(self) -> dict[int, str]:
        """Return the processes that run, with their command lines."""
        return {pid: line for pid in self._all() if (line := self._marked(pid)) is not None}

    def wait_none(self) -> None:
        """Wait until none runs any more."""
        end = time.monotonic() + _CAP_S
        while found := self.found():
            assert time.monotonic() < end, f"left behind: {found}"
            time.sleep(0.05)

    def wait_some(self, count: int) -> dict[int, str]:
        """Wait until at least `count` run, and return them."""
        end = time.monotonic() + _CAP_S
        while len(found := self.found()) < count:
            assert time.monotonic() < end, f"only these run: {found}"
            time.sleep(0.05)
        return found

    @staticmethod
    def wait_loaded(process: "subprocess.Popen[str]", name: str) -> None:
        """Wait until a process has loaded a library, by which its own code has begun to run."""
        end, maps = time.monotonic() + _CAP_S, Path(f"/proc/{process.pid}/maps")
        while name not in maps.read_text():
            assert process.poll() is None, f"ended with {process.returncode}"
            assert time.monotonic() < end
            time.sleep(0.01)

    @staticmethod
    def _all() -> list[int]:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]

    def _marked(self, pid: int) -> str | None:
        try:
            if self._mark.encode() not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return None
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return None
