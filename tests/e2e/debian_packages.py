"""The package for Debian 12 as `make deb` builds it, and the same again as a newer version."""

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.debians import VARIABLES

ROOT = Path(__file__).parents[2]
NEWER = "0.1.0"
"""A released version: `make deb` makes one that is older."""


class Packages(NamedTuple):
    """Two versions of the package."""

    old: Path
    new: Path


def build_packages(folder: Path) -> Packages:
    """Build both in an empty folder; Python packages come from where this process gets them."""
    network = {name: value for name, value in os.environ.items() if VARIABLES.match(name)}
    build = [str(ROOT / "packaging/debian/make-package")]
    environment = {"PATH": "/usr/bin:/bin", **network, "OUT": str(folder / "out")}
    done = subprocess.run(build, env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    (old,) = (folder / "out").glob("voice-dpki_0.1.0~git*.deb")
    tree, new = folder / "tree", folder / f"voice-dpki_{NEWER}.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", old, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {NEWER}", control.read_text(), flags=re.MULTILINE))
    subprocess.run(["dpkg-deb", "-Zzstd", "-z1", "--build", tree, new], check=True, capture_output=True)
    return Packages(old, new)
