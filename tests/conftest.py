"""What every test shares: real peers by mark, skipped where they are missing and demanded in CI."""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from weakref import WeakSet, WeakValueDictionary

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests import described, exchanges
from tests.disks import NoMountsError, small_disk
from tests.judge import build
from tests.soft_hsm import SoftHsm
from voice_dpki.clock_health import HEALTH
from voice_dpki.shell import token_key
from voice_dpki.shortfalls import SHORTFALLS

# The machine's load must not decide a property test, so there is no deadline; `make fuzz` runs many more examples.
# `too_slow` goes by the wall clock, and would judge a busy machine.
PATIENT = [HealthCheck.too_slow]
settings.register_profile("default", deadline=None, max_examples=100, suppress_health_check=PATIENT)
settings.register_profile("fuzz", deadline=None, max_examples=20_000, suppress_health_check=PATIENT)
# `make mutants` asks only whether a test fails: the same examples each time, and none made smaller.
settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=PATIENT,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

PACKAGES = {
    "tshark": "tshark",
    "secsipidx": "secsipidx",
    "sipp": "sip-tester",
    "chromium": "chromium",
    "ip": "iproute2",
    "nft": "nftables",
    "conntrack": "conntrack",
    "libgstsdp-1.0.so.0": "libgstreamer-plugins-base1.0-0",
    "charon": "strongswan-charon",
    "swanctl": "strongswan-swanctl",
    "openssl": "openssl",
    "ssh-keygen": "openssh-client",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "faketime": "faketime",
    "curl": "curl",
    "jq": "jq",
    "redis-server": "redis-server",
    "softhsm2-util": "softhsm2",
    "man": "man-db",
    "pkcs11-tool": "opensc",
    "sngrep": "sngrep",
    "baresip": "baresip-core",
    "linphonec": "linphone-cli",
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "systemd-analyze": "systemd",
}
"""Debian package that holds each peer: a program, or a library."""

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/lib/ipsec"))
"""Where peers are looked for; strongSwan's daemon is not on the PATH."""

LIBRARIES = Path("/usr/lib")
"""Where Debian has shared libraries, in a folder for each architecture."""


@functools.cache
def no_namespaces() -> str:
    """Tell why network namespaces cannot be made and entered here; an empty text if they can."""
    if os.geteuid() != 0 or shutil.which("ip", path=PATH) is None:
        return "network namespaces need root and iproute2: apt-get install iproute2"
    name = f"vdt{os.getpid()}"
    try:
        for command in (("add", name), ("exec", name, "true")):
            subprocess.run(["ip", "netns", *command], check=True, capture_output=True, text=True, timeout=60)
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here, as in a chroot: {error.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=60)
    return ""


def _is_installed(peer: str) -> bool:
    """Tell whether a program or a library is here."""
    if ".so." in peer:
        return any(LIBRARIES.glob(f"*/{peer}"))
    return shutil.which(peer, path=PATH) is not None


def _missing(item: pytest.Item) -> Iterator[str]:
    for mark in item.iter_markers("peer"):
        program = mark.args[0]
        if not _is_installed(program):
            yield f"{program} is missing; install it: apt-get install {PACKAGES[program]}"
    if item.get_closest_marker("netns") and (reason := no_namespaces()):
        yield reason


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose peer is not installed, naming the command that installs it; in CI fail instead."""
    for missing in _missing(item):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)


@pytest.fixture(autouse=True)
def _own_clock_health(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks and stores of other tests, to which something still refers, do not count."""
    monkeypatch.setattr(HEALTH, "_sources", WeakSet())
    monkeypatch.setattr(SHORTFALLS, "_sources", WeakSet())
    monkeypatch.setattr(HEALTH, "_said", False)


@pytest.fixture(scope="session")
def second_verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of tests/second_verifier, for tests.judge."""
    return build(tmp_path_factory.mktemp("second-verifier"))


@pytest.fixture(scope="session")
def _made_hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    hsm = SoftHsm(tmp_path_factory.mktemp("hsm"))
    hsm.make()
    return hsm


@pytest.fixture
def hsm(_made_hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """An HSM with the key "sti" in the token "calls", for this process and those that it starts."""
    (tmp_path / "hsm").mkdir()
    hsm = _made_hsm.copy(tmp_path / "hsm")
    for name, value in hsm.variables.items():
        monkeypatch.setenv(name, value)
    # Keys of other tests, to which something still refers, do not count.
    monkeypatch.setattr(token_key, "_KEYS", WeakValueDictionary())
    hsm.use_here()
    return hsm


@pytest.fixture(scope="session", autouse=True)
def _watched() -> Iterator[None]:
    with exchanges.watch(), described.watch():
        yield


@pytest.fixture(autouse=True)
def _described(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which something was said or made that docs/openapi/ledger-node.json or docs/spec lacks."""
    yield
    found = [*exchanges.UNDESCRIBED, *described.UNDESCRIBED]
    exchanges.UNDESCRIBED.clear()
    described.UNDESCRIBED.clear()
    if request.node.get_closest_marker("undescribed") is None:
        assert not found, "not described: " + "\n".join(found[:5])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes an empty disk of so many kilobytes; skipped where nothing can be mounted, and in CI it fails."""
    with ExitStack() as mounted:

        def make(kilobytes: int) -> Path:
            try:
                return mounted.enter_context(small_disk(tmp_path / "disk", kilobytes))
            except NoMountsError as error:
                (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"nothing can be mounted: {error}")

        yield make
