"""What is built for people to install: the wheel and the source distribution have all that they need."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("voice_dpki", "authn_server", "verify_server", "ledger_node", "segw_agent", "sip_testbed")
NOT_INSTALLED = ("segw_agent/charon_plugin/", "ledger_node/abci/proto/")
"""A program of another licence, which is compiled where it runs, and what code was made of."""
NOT_SOURCE = shutil.ignore_patterns(
    ".*_cache", ".venv", ".git", ".hypothesis", "__pycache__", "*.egg-info", "build", "out"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, and the wheel from it; return the folder of both."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "tree", ignore=NOT_SOURCE, symlinks=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(folder / "tree")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def packaged() -> set[str]:
    """Return the files of the packages as they stand here, but for those that no installed program needs."""
    files = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file())
    names = (str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts)
    return {name for name in names if not name.startswith(NOT_INSTALLED)}


def test_the_wheel_holds_the_packages_whole_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == packaged()


def test_the_source_distribution_holds_what_the_work_on_it_needs(built: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert packaged() <= held
    needed = {"Makefile", "constraints.txt", "LICENSE", "README.md", "tests/conftest.py", "docs/architecture.md"}
    made_from = {"segw_agent/charon_plugin/install-debian", "ledger_node/abci/proto/abci.proto"}
    assert needed | made_from | {".ci/run", "bench/stir.py"} <= held


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_wheel_that_is_installed_places_a_call(built: Path, tmp_path: Path) -> None:
    """It is installed with its requirements from PyPI into an environment of its own, away from this tree."""
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    (wheel,) = built.glob("*.whl")
    pip = [*map(str, (programs / "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel))]
    done = subprocess.run(pip, capture_output=True, text=True, cwd=tmp_path, timeout=1200)
    assert done.returncode == 0, done.stderr
    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in names:
        told = subprocess.run(
            [programs / name, "--version"], capture_output=True, text=True, check=True, timeout=60
        )
        assert told.stdout == f"{name} 0.1.0\n"
        subprocess.run([programs / name, "--help"], capture_output=True, check=True, cwd=tmp_path, timeout=60)
    command = [*map(str, (programs / "voice-dpki", "call", "--say-seconds", "1", "--out", tmp_path / "call"))]
    environment = {**os.environ, "PATH": os.environ["PATH"], "PYTHONPATH": ""}
    placed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert placed.returncode == 0, placed.stdout + placed.stderr


@pytest.mark.parametrize("option", ["--version", "-V"])
@pytest.mark.parametrize("program", ["voice-dpki", "authn-server", "ledger-node", "sip-testbed"])
def test_every_program_tells_its_version(program: str, option: str) -> None:
    command = [str(Path(sys.executable).with_name(program)), option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{program} 0.1.0\n", "")
    with open("/dev/full", "w") as full:
        lost = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (lost.returncode, lost.stderr.count("\n")) == (2, 1)
