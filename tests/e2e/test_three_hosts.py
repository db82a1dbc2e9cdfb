"""docs/three-hosts.md on three bare Debian 12 that systemd has booted and a bridge joins: its blocks as they stand.

The hosts found a ledger with the package that they have installed, and a call goes from one Kamailio to the other.
Two of them are upgraded while calls go on.
"""

import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.booted import Booted, booted
from tests.debians import bare_machine
from tests.e2e.debian_packages import build_packages
from tests.machines import Machine

PAGE = (Path(__file__).parents[2] / "docs/three-hosts.md").read_text()
STEP = re.compile(
    r"^<!-- (?P<who>each|host \w|hosts a and b): run -->\n```sh\n(?P<script>.*?)^```$", re.MULTILINE | re.DOTALL
)
SHOWN = re.search(r"^<!-- shown -->\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

FROM_DEBIAN = (
    "apt-get -qq update && apt-get -qq install --yes --no-install-recommends "
    "python3 systemd-sysv openssl openssh-server openssh-client kamailio netbase sip-tester procps"
)
"""What the package needs, what the page installs, for the hosts have no network, and what its readers have."""

SSH = """\
mkdir -p /root/.ssh && chmod 700 /root/.ssh && cd /root/.ssh
cat >id_ed25519 && chmod 600 id_ed25519 && ssh-keygen -y -f id_ed25519 >authorized_keys
printf 'StrictHostKeyChecking accept-new\\nLogLevel ERROR\\n' >config
"""

LOGS = "journalctl --no-pager --unit 'voice-dpki-*' --unit kamailio | tail -n 50"

CALLS = (
    "sipp 192.0.2.1:5060 -sf /usr/share/doc/voice-dpki/docs/kamailio/caller.xml -i 192.0.2.11 -p 5060 -t t1 "
    "-r 10 -m 100000 -nostdin >/root/calls.txt 2>&1"
)
"""Ten calls a second, until SIPp is told to begin no more; it succeeds if all of them did."""


class Hosts:
    """The three hosts, by the names that the page gives them."""

    def __init__(self, booted_hosts: Sequence[Booted]) -> None:
        self.by_name = dict(zip("abc", booted_hosts, strict=True))

    def do(self, who: str, script: str) -> str:
        """Run a block of the page at whom it names, at the same time; return what they printed."""
        names = "abc" if who == "each" else re.findall(r"\b[abc]\b", who.replace(" and ", " "))
        with ThreadPoolExecutor(3) as pool:
            return "".join(pool.map(self._do, names, [script] * len(names)))

    def _do(self, name: str, script: str) -> str:
        host = self.by_name[name]
        try:
            return host.do(f"set -e\n{script}")
        except AssertionError:
            print(f"host {name}:", host.run(LOGS).stdout)
            raise


def steps() -> list[tuple[str, str]]:
    """Return who runs what; the ledger begins in the hour of the test."""
    page = PAGE.replace("2026-12-01T12:00:00Z", datetime.now(UTC).strftime("%Y-%m-%dT%H:00:00Z"))
    return [(found["who"], found["script"]) for found in STEP.finditer(page)]


@contextmanager
def joined(hosts: Sequence[Booted]) -> Iterator[None]:
    """Join hosts by a bridge, and give them the addresses of the page."""
    space = f"vdh{os.getpid()}"
    subprocess.run(["ip", "netns", "add", space], check=True)
    try:
        _ip(space, "link", "add", "bridge", "type", "bridge")
        _ip(space, "link", "set", "bridge", "up")
        for number, host in enumerate(hosts, 1):
            pid = str(host.pid)
            _ip(space, "link", "add", f"host{number}", "type", "veth", "peer", "name", "eth0", "netns", pid)
            _ip(space, "link", "set", f"host{number}", "master", "bridge", "up")
            for address in (f"192.0.2.{number}/24", f"192.0.2.1{number}/32"):
                _at(pid, "address", "add", address, "dev", "eth0")
            _at(pid, "link", "set", "eth0", "up")
        yield
    finally:
        subprocess.run(["ip", "netns", "del", space], check=True)


def _ip(space: str, *arguments: str) -> None:
    subprocess.run(["ip", "-n", space, *arguments], check=True)


def _at(pid: str, *arguments: str) -> None:
    subprocess.run(["nsenter", "--target", pid, "--net", "ip", *arguments], check=True)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three bare machines with the package in /root, and a newer one in /root/newer."""
    folder = tmp_path_factory.mktemp("hosts")
    packages = build_packages(folder)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)

    def prepare(machine: Machine) -> None:
        done = machine.run(FROM_DEBIAN, DEBIAN_FRONTEND="noninteractive")
        assert done.returncode == 0, done.stderr
        machine.copy(packages.old, Path("/root") / packages.old.name)
        machine.copy(packages.new, Path("/root/newer") / packages.new.name)
        subprocess.run(machine.command(SSH), input=(folder / "key").read_text(), text=True, check=True)

    with ExitStack() as stack:
        machines = []
        for name in "abc":
            (folder / name).mkdir()
            machines.append(stack.enter_context(bare_machine("bookworm", folder / name)))
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(prepare, machines))
        up = [stack.enter_context(booted(each, f"vdh{os.getpid()}{at}")) for at, each in enumerate(machines)]
        stack.enter_context(joined(up))
        yield Hosts(up)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.netns
@pytest.mark.peer("debootstrap")
def test_from_packages_to_a_verified_call_and_an_upgrade_under_calls(hosts: Hosts) -> None:
    *before, upgrade, remove = steps()
    printed = [hosts.do(*step) for step in before]
    assert SHOWN is not None
    assert printed[-1].replace("\r", "").splitlines()[0] == SHOWN[1].strip()
    upgraded_while_calls_go_on(hosts, upgrade)
    keys = hosts.do("host c", "sha256sum /etc/voice-dpki/*/*.pem /etc/voice-dpki/ledger-node/keys/*")
    hosts.do(*remove)
    assert hosts.do("host c", "sha256sum /etc/voice-dpki/*/*.pem /etc/voice-dpki/ledger-node/keys/*") == keys


def upgraded_while_calls_go_on(hosts: Hosts, upgrade: tuple[str, str]) -> None:
    """No call fails, and each is signed and verified; the new version runs at the end."""
    calling = hosts.by_name["a"]
    failed: list[int] = []
    caller = threading.Thread(target=lambda: failed.append(calling.run(CALLS).returncode))
    caller.start()
    try:
        for name in "ab":
            hosts.do(f"host {name}", upgrade[1])
            hosts.do(f"host {name}", REPLACED)
    finally:
        calling.run("pkill -USR1 -x sipp")
        caller.join()
    assert failed == [0], calling.do("tail -n 50 /root/calls.txt")
    told = hosts.do("host b", "tr -d '\\r' </root/callee.msg")
    verdicts = verdicts_of(told)
    print(f"{len(verdicts)} calls, {sum(verdicts.values())} of them verified")
    assert len(verdicts) > 50
    unverified = [call for call, is_verified in verdicts.items() if not is_verified]
    if unverified:
        print("\n\n".join(each for each in invites_of(told) if any(call in each for call in unverified)))
        print(hosts.do("hosts a and b", LOGS.replace("-n 50", "-n 300")))
    assert unverified == []


REPLACED = """\
for unit in authn-server verify-server; do
  until journalctl --no-pager -u voice-dpki-$unit | grep -q 'all workers are replaced'; do sleep 1; done
done
"""
"""Waits until both servers run the new version."""


def verdicts_of(messages: str) -> dict[str, bool]:
    """Return, by Call-ID, whether the telephone that was called is told that the number is verified."""
    called = {re.findall(r"^Call-ID: (.*)$", each, re.MULTILINE)[0]: each for each in invites_of(messages)}
    return {call: "verstat=TN-Validation-Passed" in each for call, each in called.items()}


def invites_of(messages: str) -> list[str]:
    """Return the heads of the INVITEs that a telephone has received."""
    return re.findall(r"^INVITE .*?\n\n", messages, re.MULTILINE | re.DOTALL)
