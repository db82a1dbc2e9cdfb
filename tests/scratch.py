"""A copy of the checkout in which code may be changed, and tests run, while the checkout stays as it is."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


def copy_checkout(target: Path) -> Path:
    """Copy to `target`, and return it, what git tracks and what is new and not ignored."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


@contextmanager
def changed(path: Path, code: str) -> Iterator[None]:
    """Give the file at `path` another content for the time of the block."""
    original = path.read_text()
    path.write_text(code)
    try:
        yield
    finally:
        path.write_text(original)


def run_tests(
    tree: Path, *arguments: str, longest_s: float, profile: str = "default", keep_bytecode: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run pytest in the copy `tree`, with the copy's code and a profile of hypothesis (tests/conftest.py).

    Bytecode may be kept once, before anything is changed: later runs then compile only what differs. Raises
    subprocess.TimeoutExpired after `longest_s`.
    """
    environment = os.environ | {"PYTHONPATH": str(tree), "HYPOTHESIS_PROFILE": profile}
    if not keep_bytecode:
        # A file that is changed twice in one second to the same size would be taken for unchanged.
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *arguments]
    return subprocess.run(
        command, cwd=tree, env=environment, check=False, capture_output=True, text=True, timeout=longest_s
    )
