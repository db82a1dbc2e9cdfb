"""docs/containers.md: the image is built, and compose.yaml's services run from it, as far as `buildah run` can.

Each operator has a network namespace of its own, which stands for what Compose would make.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.debians import VARIABLES, debian
from tests.e2e.debian_packages import build_packages

ROOT = Path(__file__).parents[2]
HERE = ROOT / "packaging/container"
COMPOSE = yaml.safe_load((HERE / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
PAGE = (ROOT / "docs/containers.md").read_text()
(SUBMIT,) = re.findall(r"^<!-- a-ledger-node: run -->\n```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
UNITS = ROOT / "packaging/debian/units"
START_S = 120
PREFIX = f"vc{os.getpid() % 10_000}"
"""Begins the names of namespaces and interfaces."""


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_run_as_its_unit_runs_it(name: str) -> None:
    """The same user, command and folders, with nothing to write but its volume."""
    service, (operator, program) = SERVICES[name], name.split("-", 1)
    unit = (UNITS / f"voice-dpki-{program}.service").read_text()
    assert f"User={service['user']}\n" in unit
    assert f"ExecStart=/usr/bin/{' '.join(service['command'])}\n" in unit
    assert service["volumes"] == [
        f"./{operator}/{program}:/etc/voice-dpki/{program}:ro",
        f"{name}:/var/lib/voice-dpki/{program}",
    ]
    assert name in COMPOSE["volumes"]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    network = service.get("network_mode") or service["networks"]["operators"]["ipv4_address"]
    assert network in (f"service:{operator}-ledger-node", f"192.0.2.{'abc'.index(operator) + 1}")


def test_the_page_tells_each_users_number() -> None:
    users = re.findall(r"^u voice-dpki-(\S+) ", (UNITS.parent / "sysusers.conf").read_text(), re.MULTILINE)
    told = re.findall(r"\b(9\d\d)\s(?:is\s)?`([a-z-]+)`", PAGE)
    assert told == [(str(900 + at), name) for at, name in enumerate(users)]
    assert "\nFIRST=900 " in (HERE / "make-image").read_text()


class Containers:
    """The services of one working container of the image."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self._environment = folder, environment
        self.started: list[subprocess.Popen[bytes]] = []
        made = self.do(["buildah", "from", "localhost/voice-dpki"])
        self.name = made.stdout.strip().splitlines()[-1]

    def do(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command of buildah, which must succeed."""
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def run(self, script: str, *options: str) -> str:
        """Run a script of the shell in it, and return its output."""
        return self.do(["buildah", "run", *options, self.name, "--", "sh", "-ec", script]).stdout

    def volumes(self, name: str) -> list[str]:
        """Return the options that give a service its folders; an own one is the user's, as a volume is."""
        options = []
        for volume in SERVICES[name]["volumes"]:
            source, target = volume.split(":", 1)
            folder = self.folder / source
            if not folder.exists():
                folder.mkdir()
                user = 900 + ["ledger-node", "authn-server", "verify-server"].index(name[2:])
                os.chown(folder, user, user)
            options += ["--volume", f"{folder}:{target}"]
        return options

    def start(self, name: str) -> None:
        """Start a service in its operator's namespace."""
        service = SERVICES[name]
        within = ["ip", "netns", "exec", f"{PREFIX}{name[0]}", "buildah", "run", "--user", service["user"]]
        command = [*within, *self.volumes(name), self.name, "--", *service["command"]]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.started.append(subprocess.Popen(command, env=self._environment, stdout=log, stderr=log))


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    """Build the image in a storage of its own; DEB may name a package that is built already."""
    storage = tmp_path / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/storage"\nrunroot = "{tmp_path}/running"\n'
    )
    network = {name: value for name, value in os.environ.items() if VARIABLES.match(name)}
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path), **network}
    environment |= {"CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot"}
    package = os.environ.get("DEB") or str(build_packages(tmp_path).old)
    made = {"BASE": str(debian("bookworm")), "DEB": package, "OUT": str(tmp_path / "image")}
    done = subprocess.run(
        [HERE / "make-image"], env=environment | made, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    made_of = Containers(tmp_path, environment)
    yield made_of
    for process in made_of.started:
        process.wait(timeout=60)
    shutil.rmtree(tmp_path / "storage")


@pytest.fixture
def namespaces() -> Iterator[None]:
    """Have one for each operator, with the address that compose.yaml gives it, and end what runs there."""
    with ExitStack() as stack:
        ip("link", "add", PREFIX, "type", "bridge")
        stack.callback(ip, "link", "del", PREFIX)
        ip("link", "set", PREFIX, "up")
        for operator in "abc":
            space, cable = f"{PREFIX}{operator}", f"{PREFIX}v{operator}"
            ip("netns", "add", space)
            stack.callback(ip, "netns", "del", space)
            stack.callback(end, space)
            ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", cable, "master", PREFIX, "up")
            address = SERVICES[f"{operator}-ledger-node"]["networks"]["operators"]["ipv4_address"]
            ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", space, "link", "set", link, "up")
        yield


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=60).stdout


def end(space: str) -> None:
    """End the processes of a namespace: buildah passes no signal on."""
    for pid in ip("netns", "pids", space).split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue


def asked(port: int, path: str, *options: str) -> dict[str, Any]:
    """Ask a service of operator a; the answer is empty where nothing listens."""
    url = f"http://127.0.0.1:{port}{path}"
    command = ["ip", "netns", "exec", f"{PREFIX}a", "curl", "-sS", *options, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout or "{}")


def wait_ready(port: int, logs: Path) -> None:
    end_s = time.monotonic() + START_S
    while (told := asked(port, "/readyz")).get("status") != "ready":
        assert time.monotonic() < end_s, (told, [log.read_text()[-1500:] for log in logs.glob("*.log")])
        time.sleep(1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.netns
@pytest.mark.peer("curl")
@pytest.mark.peer("buildah")
@pytest.mark.peer("debootstrap")
def test_three_operators_found_a_ledger_and_a_call_is_verified(containers: Containers, namespaces: None) -> None:
    folder = containers.folder
    assert containers.run("id -un; id -u") == "voice-dpki-ledger-node\n900\n"
    for name in ("voice-dpki", "ledger-node", "authn-server", "verify-server"):
        assert containers.run(f"{name} --version") == f"{name} 0.1.0\n"
    options = ["--user", "root", "--volume", f"{folder}:/trial", "--volume", f"{HERE}:/container:ro"]
    containers.run("cd /trial && /container/configure-three", *options)
    for operator in "abc":
        containers.start(f"{operator}-ledger-node")
    wait_ready(26680, folder)
    in_node = ["ip", "netns", "exec", f"{PREFIX}a", "buildah", "run", *containers.volumes("a-ledger-node")]
    submit = [containers.name, "--", "sh", "-ec", f"cd /etc/voice-dpki/ledger-node\n{SUBMIT}"]
    assert "1 recorded" in containers.do([*in_node, *submit]).stdout
    for name, port in (("a-authn-server", 8091), ("a-verify-server", 8092)):
        containers.start(name)
        wait_ready(port, folder)
    call(folder)


def call(folder: Path) -> None:
    """Operator a signs a call, and verifies it."""
    tokens = (folder / "a/authn-server/proxy.tokens").read_text().split()
    headers = ("-H", f"Authorization: Bearer {tokens[1]}", "-H", "Content-Type: application/json", "-d")
    called = {"tn": ["442079460001"]}
    wanted = {"attest": "A", "orig": {"tn": "493023125001"}, "dest": called, "iat": int(time.time())}
    wanted["origid"] = "5f4e3b1c-7d2a-4b8e-9c1d-2e3f4a5b6c7d"
    signed = asked(8091, "/stir/v1/signing", *headers, json.dumps({"signingRequest": wanted}))
    asking = {"from": {"tn": "493023125001"}, "to": called, "time": int(time.time())}
    asking["identity"] = signed["signingResponse"]["identity"]
    verified = asked(8092, "/stir/v1/verification", *headers, json.dumps({"verificationRequest": asking}))
    assert verified["verificationResponse"]["verstat"] == "TN-Validation-Passed"
