"""Runs a program that ends when its parent does, however that ends: by kill -9, too.

  python -P tether.py PARENT -m MODULE ARGUMENTS...    a Python program, in this very process
  python -I tether.py PARENT PROGRAM ARGUMENTS...      any other, in whose place this process goes on

PARENT is the parent's process id. The kernel sends SIGKILL as soon as the parent is gone (prctl(2),
PR_SET_PDEATHSIG), to a stopped process as well. It does so already when the parent's *thread* ends that started the
program: start it from one that lives as long. It is run by its file's name and imports the standard library only,
so that it can start another version of this project, too.
"""

import ctypes
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_HERE = str(Path(__file__).resolve())


def tied_module(module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a Python module which ends with this process."""
    return [sys.executable, "-P", _HERE, str(os.getpid()), "-m", module, *arguments]


def tied_program(program: Path, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs any other program which ends with this process; it ignores SIGHUP."""
    return [sys.executable, "-I", "-S", _HERE, str(os.getpid()), str(program), *arguments]


def tie(parent: int) -> None:
    """Have this process killed when its `parent` is gone; ends it here and now if that is so already."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"{sys.argv[0]}: cannot be tied to its parent: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it ended before the kernel knew
        sys.exit(f"{sys.argv[0]}: the process that started this one is gone")


def main() -> None:
    """Tie this process to its parent, and run what the arguments say."""
    parent, *command = sys.argv[1:]
    tie(int(parent))
    if command[0] == "-m":
        sys.argv[:] = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execv(command[0], command)  # noqa: S606 - the command comes from our own process


if __name__ == "__main__":
    main()
