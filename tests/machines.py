"""A machine to try installers on: a Debian in a folder, and all that changes on it is gone with it.

The folder lies below an overlay in memory. Programs on the machine have mounts and processes of their own, which
end with it.
"""

import subprocess
from collections.abc import Iterator, Mapping
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
dev=$2/root/dev
mount -t tmpfs -o mode=0755 tmpfs "$dev"
mkdir "$dev/net" "$dev/shm" "$dev/pts"
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200; do
  IFS=: read -r name major minor <<END
$device
END
  mknod -m 666 "$dev/$name" c "$major" "$minor"
done
ln -s /proc/self/fd "$dev/fd"
mount -t tmpfs -o mode=1777 tmpfs "$dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$dev/pts"
ln -s pts/ptmx "$dev/ptmx"
mount -t tmpfs tmpfs "$2/root/run"
root=$2/root
shift 2
for shared; do
  mkdir -p "$root$shared"
  mount --rbind "$shared" "$root$shared"
done
echo up
exec sleep infinity
"""


class Machine:
    """A machine that is up."""

    def __init__(self, root: Path, init: int, environment: Mapping[str, str]) -> None:
        """`root` is its root in its own mounts, `init` its first process; all programs have `environment`."""
        self.root, self._environment = root, environment
        self.inside = ("nsenter", "--target", str(init), "--mount", "--pid")
        """How a command begins that has its mounts and processes, and the root of this machine."""

    def command(self, script: str, namespace: str | None = None, **environment: str) -> list[str]:
        """Return the command that runs a script of the shell on it, in a network namespace if one is named."""
        network = ["ip", "netns", "exec", namespace] if namespace else []
        enter = [*self.inside, "chroot", str(self.root)]
        given = [f"{name}={value}" for name, value in {**self._environment, **environment}.items()]
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

    def copy(self, source: Path, target: Path) -> None:
        """Copy a file or a folder of this machine to a path there."""
        command = self.command('mkdir -p "$TARGET" && tar -xf - -C "$TARGET"', TARGET=str(target.parent))
        names = ["--transform", f"s,^{source.name},{target.name},", source.name]
        with subprocess.Popen(["tar", "-C", source.parent, "-cf", "-", *names], stdout=subprocess.PIPE) as packed:
            subprocess.run(command, stdin=packed.stdout, check=True, capture_output=True, timeout=TIMEOUT_S)
        assert packed.returncode == 0

    def start(self, script: str, namespace: str | None = None, **environment: str) -> "subprocess.Popen[str]":
        """Start a script of the shell on it; its input and its output, errors among it, are pipes."""
        return subprocess.Popen(
            self.command(script, namespace, **environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


_WITH_US = (
    *("setpriv", "--pdeathsig", "KILL"),  # also where the tests are killed
    *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@contextmanager
def machine(debian: Path, scratch: Path, *shared: Path, **environment: str) -> Iterator[Machine]:
    """Have a machine of the Debian in a folder; `scratch` is an empty folder. Needs root.

    It has the folders `shared` of this machine at their paths, and its programs have the variables `environment`.
    """
    init = subprocess.Popen(
        [*_WITH_US, "sh", "-c", _INIT, "init", debian, scratch, *shared],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with init:
        try:
            said = present(init.stdout).readline()
            assert said == "up\n", present(init.stderr).read()
            (child,) = Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text().split()
            yield Machine(scratch / "root", int(child), environment)
        finally:
            init.kill()
