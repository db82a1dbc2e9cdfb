"""A machine of tests whose first process is systemd: packages and units are tried as an administrator has them.

It has processes, mounts, host name and network of its own: its loopback alone, so nothing reaches it or gets out.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from voice_dpki.stage.patience import children

from .machines import TIMEOUT_S, Machine

BOOT_S = 120

CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
"""Where this machine may have its hierarchy of cgroup2; what the booted one made there is removed."""

_BOOT = """\
set -e
cd "$2"
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir -p "sys/fs/cgroup/$1"
echo $$ >"sys/fs/cgroup/$1/cgroup.procs"
umount sys/fs/cgroup
exec unshare --pid --mount --cgroup --uts --ipc --net --fork --kill-child sh -c '
  set -e
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t proc proc proc
  mount -t tmpfs -o mode=0755 tmpfs run
  mkdir -p old
  pivot_root . old
  umount -l /old
  exec env -i container=other PATH="$PATH" /lib/systemd/systemd --show-status=0 --unit=multi-user.target'
"""
"""Takes a name for the group of its processes, and the machine's root, which becomes the root of all."""


class Booted:
    """A machine that systemd has booted."""

    def __init__(self, systemd: int) -> None:
        """`systemd` is its first process, as this machine counts them."""
        self.pid = systemd
        self._enter = ["nsenter", "--target", str(systemd), "--mount", "--pid", "--net", "--uts", "--root"]

    def run(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Run a script of the shell on it, and wait for its end, whatever that is."""
        environment = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "SYSTEMD_PAGER=")
        command = [*self._enter, "env", "--chdir=/root", "-i", *environment, "sh", "-c", script]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)

    def do(self, script: str) -> str:
        """Run a script that must succeed; return what it printed."""
        done = self.run(script)
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout


@contextmanager
def booted(machine: Machine, name: str) -> Iterator[Booted]:
    """Boot a machine on which systemd is installed. `name` is of this test alone. Needs root."""
    command = [*machine.inside, "sh", "-c", _BOOT, "boot", name, str(machine.root)]
    init = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        systemd = _systemd(init)
        try:
            up = Booted(systemd)
            _wait_until_up(up)
            yield up
        finally:
            os.kill(systemd, signal.SIGKILL)
    finally:
        init.kill()
        print(init.communicate()[0][-2000:])
        for folder in CGROUPS:
            _forget(folder / name)


def _wait_until_up(machine: Booted) -> None:
    end_s = time.monotonic() + BOOT_S
    while machine.run("systemctl is-system-running").stdout.strip() not in ("running", "degraded"):
        assert time.monotonic() < end_s, "systemd does not get ready"
        time.sleep(0.2)


def _systemd(init: "subprocess.Popen[str]") -> int:
    """Return the process of systemd, which descends from the command that boots."""
    end_s = time.monotonic() + BOOT_S
    while time.monotonic() < end_s and init.poll() is None:
        found = [init.pid]
        while found:
            pid = found.pop()
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return pid
            found += children(pid)
        time.sleep(0.1)
    raise AssertionError(f"systemd does not boot: {init.communicate()[0] if init.poll() is not None else ''}")


def _forget(folder: Path) -> None:
    """Remove the groups of processes that have ended."""
    for each in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            each.rmdir()
    with suppress(OSError):
        folder.rmdir()
