"""Debian in a folder, as an installer leaves it: without what this machine has beside. Made once, under build/.

It is never changed: machines (`tests.machines`) lie above it.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .machines import Machine, machine

MADE = Path(__file__).parents[1] / "build" / "debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_ARCHIVE = re.compile(r"https?://\S+?(?=/debian\b)")
"""What stands before "/debian" in a line of apt's sources."""

TIMEOUT_S = 1200
SOURCES = """\
deb {archive}/debian {suite} main
deb {archive}/debian {suite}-updates main
deb {archive}/debian-security {suite}-security main
"""

NETWORK = ("resolv.conf", "hosts", "pip.conf", "apt/apt.conf.d", "ssl/certs/ca-certificates.crt")
"""Files of /etc by which this machine reaches package archives; a machine of the same network needs the same."""

VARIABLES = re.compile(r"(PIP_(?!FIND_LINKS)|SSL_|REQUESTS_|https?_proxy|HTTPS?_PROXY|no_proxy|NO_PROXY)")


def archive() -> str:
    """Return where this machine's apt has its packages from; raises OSError if it has no Debian archive."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for line in (line for file in sources if file.is_file() for line in file.read_text().splitlines()):
        if not line.startswith("#") and (found := _ARCHIVE.search(line)):
            return found[0]
    raise FileNotFoundError("apt's sources name no archive of Debian")


def debian(suite: str) -> Path:
    """Return the folder of a Debian; skip the test if it cannot be made here, and fail it in CI."""
    folder = MADE / suite
    if folder.exists():
        return folder
    unfinished = MADE / f"{suite}.{os.getpid()}"
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", f"--keyring={KEYRING}"]
    try:
        source = archive()
        subprocess.run(
            [*command, suite, str(unfinished), f"{source}/debian"],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        (unfinished / "etc/apt/sources.list").write_text(SOURCES.format(archive=source, suite=suite))
        unfinished.rename(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        leave = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        leave(f"Debian {suite} cannot be made here: {getattr(error, 'stdout', '') or error}"[-500:])
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


@contextmanager
def bare_machine(suite: str, scratch: Path, *shared: Path) -> Iterator[Machine]:
    """Have a machine of a Debian that reaches the network as this one does, with its folders `shared`."""
    environment = {name: value for name, value in os.environ.items() if VARIABLES.match(name)}
    with machine(debian(suite), scratch, *shared, **environment) as made:
        for name in NETWORK:
            if (path := Path("/etc") / name).exists():
                made.copy(path.resolve(), path)
        yield made
