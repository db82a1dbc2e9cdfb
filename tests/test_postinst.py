"""What the Debian package does after an upgrade, with a systemctl that refuses one service."""

import os
import subprocess
from pathlib import Path

import pytest

from voice_dpki.x509.keys import generate_es256, to_pem

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
    text = POSTINST.read_text().replace("/run/systemd/system", str(tmp_path))
    script.write_text(text.replace("/etc/voice-dpki", str(tmp_path / "etc")))
    return script


def test_an_upgrade_names_the_keys_that_a_service_may_read_and_does_not_need(script: Path, tmp_path: Path) -> None:
    unnamed = ["keys/endorsing", "keys/old", "keys/tls", "keys/my ca", "validator"]
    for name in ("ledger-node/keys", "private", "authn-server"):
        (tmp_path / "etc" / name).mkdir(parents=True)
    (tmp_path / "etc/ledger-node/config.toml").write_text(
        f"validator_key = \"keys/validator.pem\"\nnode_key = '{tmp_path}/etc/ledger-node/keys/node.pem'\n"
        'tls = { key = "keys/my tls.pem" }  # not "keys/endorsing.pem"\n# key = "keys/old.pem"\n'
    )
    named = ("ledger-node/keys/validator", "ledger-node/keys/node", "ledger-node/keys/my tls")
    for name in (*named, *(f"ledger-node/{name}" for name in unnamed), "private/endorsing", "authn-server/a"):
        (tmp_path / f"etc/{name}.pem").write_bytes(to_pem(generate_es256()))
    (tmp_path / "etc/ledger-node/keys/endorsing.pub.pem").write_text("-----BEGIN PUBLIC KEY-----\n")
    done = subprocess.run(
        ["sh", str(script), "configure"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = [line.partition("/ledger-node/")[2].partition(".pem, which its")[0] for line in done.stderr.splitlines()]
    assert (done.returncode, sorted(told)) == (0, sorted(unnamed))


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
