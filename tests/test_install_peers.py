"""tests/install-peers: what it installs starts no service on the developer's machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "install-peers"
APT_GET = """\
#!/bin/sh
case $1 in install) cat /usr/sbin/policy-rc.d; /usr/sbin/policy-rc.d; echo "policy $?" ;; esac >>FOLDER/said
"""
RUN = 'mount -t tmpfs none /usr/sbin && { PREPARE; } && PATH="$0" sh "$1" && ls -A /usr/sbin'


def installed(folder: Path, prepare: str) -> tuple[str, str]:
    """Install with a package manager that tells what the policy is; return that, and what is left in /usr/sbin."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("sh", "id", "ls", "rm", "cat", "chmod"):
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "apt-get").write_text(APT_GET.replace("FOLDER", str(folder)))
    (tools / "apt-get").chmod(0o755)
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", RUN.replace("PREPARE", prepare)]
    done = subprocess.run([*command, str(tools), str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return (folder / "said").read_text(), done.stdout.splitlines()[-1]


@pytest.mark.netns
@pytest.mark.peer("unshare")
def test_no_service_is_started_while_peers_are_installed(tmp_path: Path) -> None:
    said, left = installed(tmp_path, "true")
    assert said.endswith("policy 101\n")
    assert left.startswith("Installing the peers")  # nothing is left


@pytest.mark.netns
@pytest.mark.peer("unshare")
def test_a_policy_that_is_there_stays(tmp_path: Path) -> None:
    own = "printf '#!/bin/sh\\nexit 7\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d"
    said, left = installed(tmp_path, own)
    assert said.endswith("policy 7\n")
    assert left == "policy-rc.d"
