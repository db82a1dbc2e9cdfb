"""What the Debian package does after an upgrade, with a systemctl that refuses one service."""

import os
import subprocess
from pathlib import Path

import pytest

POSTINST = Path(__file__).parents[1] / "packaging/debian/postinst"

SYSTEMCTL = """\
#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
  list-units*) printf 'voice-dpki-%s.service loaded\\n' authn-server ledger-node verify-server ;;
  *voice-dpki-authn-server.service) exit 1 ;;
esac
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script on a machine with systemd, whose programs are in `tmp_path`."""
    for name, text in {
        "systemctl": SYSTEMCTL,
        "systemd-sysusers": "#!/bin/sh\n",
        "systemd-tmpfiles": "#!/bin/sh\n",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "postinst"
    script.write_text(POSTINST.read_text().replace("/run/systemd/system", str(tmp_path)))
    return script


def test_a_service_that_does_not_start_again_leaves_the_others_and_dpkg_alone(script: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    done = subprocess.run(
        ["sh", str(script), "configure", "1.0"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert "not started again: voice-dpki-authn-server.service." in done.stderr
    restarted = [line.split()[-1] for line in calls.read_text().splitlines() if line.startswith("try-restart")]
    names = ("authn-server", "ledger-node", "verify-server")
    assert restarted == [f"voice-dpki-{name}.service" for name in names]
