"""Run a program that ends when its parent does, however the parent ends, kill -9 included.

  python -P tether.py PARENT -m MODULE ARGUMENTS...    a Python program, in this process
  python -I tether.py PARENT PROGRAM ARGUMENTS...      any other program, which replaces this process by exec

PARENT is the parent's process id. The kernel sends SIGKILL when the parent is gone (prctl(2), PR_SET_PDEATHSIG),
also to a stopped process. It does so as soon as the parent's *thread* that started the program ends, so start it
from a thread that lives as long as the parent. This file is run by its path and imports the standard library only,
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
    """Return the command that runs a Python module and ends with this process."""
    return [sys.executable, "-P", _HERE, str(os.getpid()), "-m", module, *arguments]


def tied_program(program: Path, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs any other program and ends with this process; the program ignores SIGHUP."""
    return [sys.executable, "-I", "-S", _HERE, str(os.getpid()), str(program), *arguments]


def tie(parent: int) -> None:
    """Have the kernel kill this process when its `parent` is gone; exit at once if it is gone already."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"{sys.argv[0]}: cannot be tied to its parent: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it ended before the call of prctl
        sys.exit(f"{sys.argv[0]}: the process that started this one is gone")


def main() -> None:
    """Tie this process to its parent, and run the program that the arguments name."""
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
