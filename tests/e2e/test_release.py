"""What `make release` makes, and how docs/release.md has its users check it."""

import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.debians import VARIABLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/release.md").read_text()
(CHECK,) = re.findall(r"^<!-- user: run -->\n```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(SIGNER,) = re.findall(r"^(maintainers .*) ssh-ed25519 ", PAGE, re.MULTILINE)
NAMES = re.findall(r"^\| `([\w.-]+)` \|", PAGE, re.MULTILINE)

pytestmark = pytest.mark.peer("ssh-keygen")


def new_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=60)
    return path


def sign(folder: Path, key: Path) -> None:
    script = ROOT / "packaging/sign"
    subprocess.run([script, folder], env={**os.environ, "SIGN_KEY": str(key)}, check=True, timeout=60)


def check(folder: Path, key: Path) -> "subprocess.CompletedProcess[str]":
    """Do what the page says, as somebody who knows the public key of `key`."""
    public = key.with_suffix(".pub").read_text()
    (folder / "allowed_signers").write_text(f"{SIGNER} {public}")
    try:
        return subprocess.run(["sh", "-c", CHECK], cwd=folder, capture_output=True, text=True, timeout=120)
    finally:
        (folder / "allowed_signers").unlink()


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """Return a folder with two signed files, and the key."""
    folder, key = tmp_path / "release", new_key(tmp_path / "key")
    folder.mkdir()
    for name in ("one.whl", "two.deb"):
        (folder / name).write_text(name)
    sign(folder, key)
    return folder, key


def test_a_signed_release_is_accepted_whole_and_in_part(signed: tuple[Path, Path]) -> None:
    done = check(*signed)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith('Good "voice-dpki-release" signature for maintainers with ED25519 key')
    assert done.stdout.endswith("one.whl: OK\ntwo.deb: OK\n")
    (signed[0] / "two.deb").unlink()
    assert check(*signed).stdout.endswith("one.whl: OK\n")


def test_a_changed_file_is_refused(signed: tuple[Path, Path]) -> None:
    (signed[0] / "two.deb").write_text("another")
    done = check(*signed)
    assert done.returncode
    assert "two.deb: FAILED" in done.stdout


def test_changed_checksums_are_refused(signed: tuple[Path, Path]) -> None:
    (signed[0] / "two.deb").write_text("another")
    sums = subprocess.run(["sha256sum", "one.whl", "two.deb"], cwd=signed[0], capture_output=True, check=True)
    (signed[0] / "SHA256SUMS").write_bytes(sums.stdout)
    assert check(*signed).returncode


def test_the_signature_of_another_key_is_refused(signed: tuple[Path, Path], tmp_path: Path) -> None:
    assert check(signed[0], new_key(tmp_path / "other")).returncode


def test_what_the_key_has_signed_for_something_else_is_refused(signed: tuple[Path, Path]) -> None:
    folder, key = signed
    (folder / "SHA256SUMS.sig").unlink()
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "git", folder / "SHA256SUMS"], check=True, timeout=60
    )
    assert check(folder, key).returncode


def test_a_release_is_of_a_commit_with_its_tag(tmp_path: Path) -> None:
    """Otherwise nothing is made, and nothing that lies there is deleted."""
    tree, out = tmp_path / "tree", tmp_path / "out"
    shutil.copytree(ROOT / "packaging", tree / "packaging")
    shutil.copy(ROOT / "pyproject.toml", tree)
    out.mkdir()
    git = ["git", "-C", str(tree), "-c", "user.name=A", "-c", "user.email=a@a.example"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        subprocess.run([*git, *words], check=True, timeout=60)
    assert "Release: the commit has no tag v" in refused(tree, out)
    (tree / "new").touch()
    assert "Release: the tree is not what a commit has" in refused(tree, out)
    assert out.exists()


def refused(tree: Path, out: Path) -> str:
    environment = {**os.environ, "SIGN_KEY": "key", "OUT": str(out)}
    done = subprocess.run([tree / "packaging/release"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    return done.stderr


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="the package is made on Debian")
def test_a_release_is_made_and_checked(tmp_path: Path) -> None:
    """All files are there, and the lists name what the package holds, at the versions of constraints.txt."""
    key, out = new_key(tmp_path / "key"), tmp_path / "release"
    network = {name: value for name, value in os.environ.items() if VARIABLES.match(name) or name[:2] == "GO"}
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], **network}
    environment |= {"SIGN_KEY": str(key), "TRIAL": "yes", "OUT": str(out)}
    made = subprocess.run(
        [ROOT / "packaging/release"], env=environment, capture_output=True, text=True, timeout=3000
    )
    assert made.returncode == 0, made.stdout + made.stderr
    named = [re.escape(name).replace("VERSION", r"0\.1\.0(~git[\w.]+)?").replace("amd64", r"\w+") for name in NAMES]
    files = sorted(path.name for path in out.iterdir())
    assert len(files) == len(named)
    assert all(any(re.fullmatch(name, file) for file in files) for name in named), files
    done = check(out, key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": OK\n") == len(files) - 2
    (source,) = out.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        assert "voice_dpki-0.1.0/docs/man/ledger-node.1" in archive.getnames()
    look_at_lists(out, tmp_path)


def look_at_lists(out: Path, scratch: Path) -> None:
    (package,) = out.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, scratch / "package"], check=True, timeout=600)
    home = scratch / "package/usr/lib/voice-dpki"
    carried = {
        tuple(path.name.removesuffix(".dist-info").split("-", 1))
        for path in home.glob("lib/python3*/site-packages/*.dist-info")
    }
    told = json.loads((out / "voice-dpki.cdx.json").read_text())
    listed = {(plain(one["name"]), one["version"]) for one in told["components"]}
    assert listed == {(plain(name), version) for name, version in carried} - {("voice-dpki", "0.1.0")}
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert listed <= {(plain(name), version) for name, version in pins.items()}
    told = json.loads((out / "cometbft.cdx.json").read_text())
    version = subprocess.run([home / "bin/cometbft", "version"], capture_output=True, text=True, check=True)
    assert told["metadata"]["component"]["version"].removeprefix("v") == version.stdout.strip()
    assert "github.com/cosmos/gogoproto" in {one["name"] for one in told["components"]}


def plain(name: str) -> str:
    """Return the name of a package as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
