"""The certificate of the server comes to its end."""

import logging
from dataclasses import replace

import pytest

from authn_server import expiry
from authn_server.config import load_setup
from authn_server.expiry import AGAIN_S, Expiry
from tests.clocks import SettableClock
from voice_dpki.effects import SystemClock
from voice_dpki.shell.expiring import DAY_S
from voice_dpki.shortfalls import SHORTFALLS
from voice_dpki.x509.profile import CertificateProfile, digest_of

from .conftest import Site

START_S = 1_790_000_000


@pytest.fixture
def profile(site: Site) -> CertificateProfile:
    """A certificate of 90 days."""
    made = load_setup(site.config, SystemClock()).credential.value.profile
    return replace(made, not_before_s=START_S, not_after_s=START_S + 90 * DAY_S)


@pytest.mark.parametrize(
    ("days", "warn_days", "said"),
    [
        (75, 14, ""),
        (76.5, 14, "expires in 13 days"),
        (89, 14, "expires in 24 hours"),
        (89.99, 14, "expires in 14 minutes"),
        (90, 14, "has expired, and signs nothing"),
        (91, 14, "has expired, and signs nothing"),
        (60, 1000, ""),
        (70, 1000, "expires in 20 days"),
        (89.9, 0, ""),
    ],
)
def test_it_is_told_while_there_is_time(
    profile: CertificateProfile, days: float, warn_days: float, said: str
) -> None:
    watch = Expiry(lambda: profile, SettableClock(START_S + days * DAY_S), warn_days)
    notes = SHORTFALLS.notes()
    assert (said in watch.shortfall(), notes) == (True, [watch.shortfall()] if said else [])


def test_the_log_says_so_once_a_day_and_of_each_certificate(
    profile: CertificateProfile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "authn_server.expiry")
    clock = SettableClock(START_S + 80 * DAY_S)
    held = [profile]
    watch = Expiry(lambda: held[0], clock, 14)
    for _ in range(3):
        watch.look()
    assert len(caplog.records) == 1
    assert expiry.NOT_AFTER._value.get() == profile.not_after_s
    clock.elapse(AGAIN_S)
    watch.look()
    assert len(caplog.records) == 2
    held[0] = replace(profile, digest=digest_of(b"another"))
    watch.look()
    assert len(caplog.records) == 3
    held[0] = replace(profile, not_after_s=START_S + 900 * DAY_S)
    clock.elapse(AGAIN_S)
    watch.look()
    assert (len(caplog.records), watch.shortfall()) == (3, "")
