"""The package for Debian 12, on a bare Debian 12 whose first process is systemd: installed, run, upgraded, removed.

Services are set up by the blocks of docs/install.md as they stand. The host that gets the package has no network.
"""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.booted import Booted, booted
from tests.debians import bare_machine
from tests.e2e.debian_packages import build_packages

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "packaging/debian/units"
NAMES = sorted(path.stem for path in UNITS.glob("*.service"))
PAGE = (ROOT / "docs/install.md").read_text()
RATINGS = dict(re.findall(r"^\| `(voice-dpki-[a-z-]+)` \| (\d\.\d) \|$", PAGE, re.MULTILINE))
BLOCKS = re.findall(r"^<!-- host: run -->\n```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

FROM_DEBIAN = (
    "apt-get -qq update && apt-get -qq install --yes --no-install-recommends python3 systemd-sysv curl openssl"
)
"""What the package needs, and what the page's reader has."""

SEVERAL_WORKERS = "voice-dpki-authn-server"
"""Its processes are replaced one by one, as the page has two of them."""

CONFIGURATIONS = {
    "cps-server": """\
audiences = ["cps.a.example"]
organizations = ["Operator A"]
ledger_url = "http://127.0.0.1:26680"
genesis = "genesis.json"
trust_file = "/var/lib/voice-dpki/cps-server/trust.json"
[listen]
port = 8093
""",
    "segw-agent": """\
socket = "/run/segw-agent/agent.sock"
[ledger]
urls = ["http://127.0.0.1:26680"]
genesis = "genesis.json"
trust = "/var/lib/voice-dpki/segw-agent/trust.json"
[policy]
organizations = ["Operator A"]
allow = ["*.a.example"]
integrity = "ignore"
[listen]
port = 9464
""",
    "segw-bridge": """\
ocsp_url = "http://192.0.2.1:26690/ocsp"
[ca]
name = "Operator A bridge CA 1"
certificate = "bridge-ca.pem"
key = "/etc/voice-dpki/private/bridge-ca.key"
[responder]
certificate = "bridge-ocsp.pem"
key = "bridge-ocsp.key"
[listen]
port = 26690
[ledger]
urls = ["http://127.0.0.1:26680"]
genesis = "genesis.json"
[policy]
organizations = ["Operator A"]
allow = ["*.a.example"]
""",
}
"""Of the services that the page starts nowhere."""

SIGNED = """\
token=$(cut -d' ' -f2 /etc/voice-dpki/authn-server/proxy.tokens)
curl -sS http://127.0.0.1:8091/stir/v1/signing -H "Authorization: Bearer $token" \\
  -H 'Content-Type: application/json' -d '{"signingRequest": {"attest": "A",
  "orig": {"tn": "493023125001"}, "dest": {"tn": ["442079460001"]},
  "iat": '$(date +%s)', "origid": "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"}}'
"""
VERIFIED = """\
token=$(cut -d' ' -f2 /etc/voice-dpki/verify-server/proxy.tokens | head -n 1)
curl -sS http://127.0.0.1:8092/stir/v1/verification -H "Authorization: Bearer $token" \\
  -H 'Content-Type: application/json' -d '{"verificationRequest": {"from": {"tn": "493023125001"},
  "to": {"tn": ["442079460001"]}, "time": '$(date +%s)', "identity": "IDENTITY"}}'
"""


PRIVATE_KEYS = (
    "setpriv --reuid={0} --regid={0} --clear-groups grep -rlI 'PRIVATE KEY-----' /etc/voice-dpki 2>/dev/null"
)
"""Names all private keys that a service's user may read."""

NEEDED = {
    "voice-dpki-ledger-node": ["node.pem", "validator.pem"],
    "voice-dpki-authn-server": ["authn.pem"],
    "voice-dpki-segw-bridge": ["bridge-ocsp.key"],
}
"""Those that a service uses."""


@pytest.mark.peer("systemd-analyze")
@pytest.mark.parametrize("name", NAMES)
def test_no_unit_is_rated_worse_than_the_page_says(name: str) -> None:
    """Units and their drop-ins as files, judged by systemd 252 or newer."""
    command = [
        "systemd-analyze",
        "security",
        "--no-pager",
        "--offline=true",
        "--threshold=100",
        str(UNITS / f"{name}.service"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"SYSTEMD_UNIT_PATH": f"{UNITS}:"}, timeout=60
    )
    rated = re.search(r"exposure level for \S+: (\d\.\d)", done.stdout)
    assert rated, done.stderr
    assert float(rated[1]) <= float(RATINGS[name])


def test_every_unit_has_a_user_folders_and_a_place_on_the_page() -> None:
    users = re.findall(r"^u (\S+) ", (UNITS.parent / "sysusers.conf").read_text(), re.MULTILINE)
    assert sorted(users) == NAMES == sorted(RATINGS)
    folders = (UNITS.parent / "tmpfiles.conf").read_text()
    for name in NAMES:
        unit, short = (UNITS / f"{name}.service").read_text(), name.removeprefix("voice-dpki-")
        assert f"User={name}\nGroup={name}\n" in unit
        assert f"--config /etc/voice-dpki/{short}/config.toml\nStateDirectory=voice-dpki/{short}\n" in unit
        assert (
            f"d /etc/voice-dpki/{short} 2750 root {name}\nZ /etc/voice-dpki/{short} ~2750 root {name}\n" in folders
        )
        assert f"d /var/lib/voice-dpki/{short} 0700 {name} {name}\n" in folders
        assert f"| `{name}` | `/etc/voice-dpki/{short}` |" in PAGE


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Booted]:
    """A bare Debian 12 with systemd, on which nothing of the project is, but for the two packages in /root."""
    packages = build_packages(tmp_path)
    (tmp_path / "machine").mkdir()
    with ExitStack() as stack:
        machine = stack.enter_context(bare_machine("bookworm", tmp_path / "machine"))
        prepared = machine.run(FROM_DEBIAN, DEBIAN_FRONTEND="noninteractive")
        assert prepared.returncode == 0, prepared.stderr
        machine.copy(packages.old, Path("/root/old.deb"))
        machine.copy(packages.new, Path("/root/new.deb"))
        yield stack.enter_context(booted(machine, f"voice-dpki-{tmp_path.parent.name}"))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.peer("debootstrap")
def test_the_package_is_installed_run_upgraded_and_removed(host: Booted) -> None:
    host.do("dpkg --install old.deb")
    assert host.run("systemctl start voice-dpki-cps-server").returncode != 0, "it has no configuration yet"
    for block in BLOCKS:
        host.do(f"set -e\n{block}")
    start_the_others(host)
    look_at_confinement(host)
    call(host)
    reload(host)
    hang(host)
    before = pids(host)
    host.do("dpkg --install new.deb")
    assert host.do("dpkg-query -W -f '${Version}' voice-dpki") == "0.1.0"
    after = pids(host)
    assert {name for name in NAMES if after[name] == before[name]} == {SEVERAL_WORKERS}
    assert "0" not in after.values(), "an upgrade restarts what runs"
    host.do(
        f"until journalctl --no-pager -u {SEVERAL_WORKERS} | grep -q 'all workers are replaced'; do sleep 1; done"
    )
    call(host)
    keys = kept(host)
    removed = host.run("dpkg --remove voice-dpki")
    assert "stay in /etc/voice-dpki" in removed.stderr
    assert host.do("systemctl list-units --plain --no-legend --state=active 'voice-dpki-*'") == ""
    assert host.run("test -e /usr/lib/voice-dpki").returncode
    assert kept(host) == keys
    host.do("dpkg --install new.deb")
    host.do("systemctl start voice-dpki-ledger-node voice-dpki-authn-server voice-dpki-verify-server")
    call(host)
    purged = host.run("dpkg --purge voice-dpki")
    assert "voice-dpki: deleting /etc/voice-dpki/ledger-node/keys/validator.pem\n" in purged.stderr
    assert (
        "voice-dpki: deleting /var/lib/voice-dpki/ledger-node/cometbft/data/priv_validator_state.json\n"
        in purged.stderr
    )
    assert host.do("find / -xdev -name '*voice-dpki*' -not -path '/proc/*' -not -path '/root/*'") == ""


def start_the_others(host: Booted) -> None:
    """Start the services that the page configures nowhere."""
    for name, text in CONFIGURATIONS.items():
        folder = f"/etc/voice-dpki/{name}"
        host.do(
            f"cp /etc/voice-dpki/ledger-node/genesis.json {folder} && cat >{folder}/config.toml <<'END'\n{text}END"
        )
    host.do("segw-agent bridge init --config /etc/voice-dpki/segw-bridge/config.toml")
    for name in CONFIGURATIONS:
        host.do(f"systemctl start voice-dpki-{name}")


def look_at_confinement(host: Booted) -> None:
    """systemd accepts the units, and each service runs as its own user, and reads its own files alone."""
    for name in NAMES:
        host.do(f"systemd-analyze verify --man=no {name}.service")
        pid, user = host.do(f"systemctl show -P MainPID -P User {name}").split()
        assert host.do(f"stat -c %U /proc/{pid}").strip() == user == name
        readable = host.run(PRIVATE_KEYS.format(name)).stdout.split()
        assert (name, [Path(file).name for file in sorted(readable)]) == (name, NEEDED.get(name, []))
    for key in ("keys/endorsing.pem", "bridge-ca.key"):
        host.do(f"grep -q PRIVATE /etc/voice-dpki/private/{key}")
    assert "limit" not in host.do("journalctl -u 'voice-dpki-*' -p warning --no-pager")


def call(host: Booted) -> None:
    """A call is signed and verified, once the ledger is followed again after a start."""
    end_s = time.monotonic() + 60
    while True:
        signed = json.loads(host.do(SIGNED))
        if "signingResponse" in signed:
            verified = json.loads(host.do(VERIFIED.replace("IDENTITY", signed["signingResponse"]["identity"])))
            if verified.get("verificationResponse", {}).get("verstat") == "TN-Validation-Passed":
                return
        assert time.monotonic() < end_s, signed
        time.sleep(1)


def reload(host: Booted) -> None:
    """A reload reads a file that only root could read, and is no restart."""
    before = pids(host)
    host.do("umask 077; echo 'other 00112233445566778899aabbccddeeff' >/etc/voice-dpki/verify-server/new")
    host.do("cd /etc/voice-dpki/verify-server; cat proxy.tokens >>new; mv new proxy.tokens")
    host.do("systemctl reload voice-dpki-verify-server")
    assert pids(host) == before
    assert "configuration read again" in host.do("journalctl --no-pager -u voice-dpki-verify-server")
    tokens = "/etc/voice-dpki/verify-server/proxy.tokens"
    assert host.do(f"stat -c '%U %G %a' {tokens}") == "root voice-dpki-verify-server 640\n"


def hang(host: Booted) -> None:
    """A service whose event loop stands still is ended, and started again."""
    folder = "/run/systemd/system/voice-dpki-cps-server.service.d"
    host.do(f"mkdir -p {folder} && printf '[Service]\\nWatchdogSec=5\\nRestartSec=0\\n' >{folder}/watchdog.conf")
    host.do("systemctl daemon-reload && systemctl restart voice-dpki-cps-server")
    stopped = pids(host)["voice-dpki-cps-server"]
    host.do(f"kill -STOP {stopped}")
    end_s = time.monotonic() + 60
    while pids(host)["voice-dpki-cps-server"] in ("0", stopped):
        assert time.monotonic() < end_s, "systemd leaves it"
        time.sleep(0.5)
    assert "Watchdog timeout" in host.do("journalctl --no-pager -u voice-dpki-cps-server")
    host.do(f"rm -r {folder} && systemctl daemon-reload && systemctl restart voice-dpki-cps-server")


def pids(host: Booted) -> dict[str, str]:
    return {name: host.do(f"systemctl show -P MainPID {name}").strip() for name in NAMES}


def kept(host: Booted) -> str:
    """The digests of all keys and configurations, and of what the validator has signed."""
    return host.do(
        "find /etc/voice-dpki /var/lib/voice-dpki/ledger-node/cometbft/config -type f | sort | xargs sha256sum"
    )
