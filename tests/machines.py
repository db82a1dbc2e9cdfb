"""A machine to try installers on: a Debian in a folder, and all that changes on it is gone with it.

The folder lies below an overlay in memory. Programs on the machine have mounts and processes of their own, which
end with it.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .present import present

TIMEOUT_S = 600
"""Ends a command that hangs; packages are installed within it on a busy machine."""

_INIT = """\
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
mount -t proc proc "$2/root/proc"
mount --rbind /dev "$2/root/dev"
mount -t tmpfs tmpfs "$2/root/run"
echo up
exec sleep infinity
"""


class Machine:
    """A machine that is up."""

    def __init__(self, root: Path, init: int) -> None:
        """`root` is its root in its own mounts, `init` its first process."""
        self._root, self._init = root, init

    def command(self, script: str, namespace: str | None = None, **environment: str) -> list[str]:
        """Return the command that runs a script of the shell on it, in a network namespace if one is named."""
        network = ["ip", "netns", "exec", namespace] if namespace else []
        enter = ["nsenter", "--target", str(self._init), "--mount", "--pid", "chroot", str(self._root)]
        given = [f"{name}={value}" for name, value in environment.items()]
        return [
            *network,
            *enter,
            "env",
            "-i",
            f"PATH={_PATH}",
            "HOME=/root",
            "LANG=C.UTF-8",
            *given,
            "sh",
            "-c",
            script,
        ]

    def run(self, script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a script of the shell on it, and wait for its end, whatever that is."""
        return subprocess.run(
            self.command(script, None, **environment), capture_output=True, text=True, timeout=TIMEOUT_S
        )

    def start(self, script: str, namespace: str | None = None, **environment: str) -> "subprocess.Popen[str]":
        """Start a script of the shell on it; its input and its output, errors among it, are pipes."""
        return subprocess.Popen(
            self.command(script, namespace, **environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@contextmanager
def machine(debian: Path, scratch: Path) -> Iterator[Machine]:
    """Have a machine of the Debian in a folder; `scratch` is an empty folder. Needs root."""
    init = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _INIT, "init", debian, scratch],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with init:
        try:
            said = present(init.stdout).readline()
            assert said == "up\n", present(init.stderr).read()
            (child,) = Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text().split()
            yield Machine(scratch / "root", int(child))
        finally:
            init.kill()
