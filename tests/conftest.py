"""What every test shares: real peers by mark, skipped where they are missing and demanded in CI."""

import os
import shutil

import pytest
from hypothesis import settings

# The machine's load must not decide a property test, so there is no deadline; `make fuzz` runs many more examples.
settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile("fuzz", deadline=None, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

PACKAGES = {
    "tshark": "tshark",
    "secsipidx": "secsipidx",
    "sipp": "sip-tester",
    "chromium": "chromium",
    "ip": "iproute2",
    "charon": "strongswan-charon",
    "swanctl": "strongswan-swanctl",
}
"""Debian package that holds each peer program."""

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/lib/ipsec"))
"""Where peers are looked for; strongSwan's daemon is not on the PATH."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose peer is not installed, naming the command that installs it; in CI fail instead."""
    for mark in item.iter_markers("peer"):
        program = mark.args[0]
        if shutil.which(program, path=PATH) is None:
            missing = f"{program} is missing; install it: apt-get install {PACKAGES[program]}"
            if os.environ.get("CI") == "true":
                pytest.fail(missing)
            pytest.skip(missing)
