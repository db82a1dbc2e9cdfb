"""Clients of OCSP whose clocks are wrong, and that keep no answers: they accept what the bridge says, no longer."""

import subprocess
from functools import partial
from pathlib import Path

import pytest

from voice_dpki.ledger.records import CertStatus

from .strongswan.charon import wait_until
from .strongswan.stock import VALIDITY_S, Forgetful, StockSite, make_stock_site
from .strongswan.world import Identity

pytestmark = [pytest.mark.netns, pytest.mark.peer("openssl"), pytest.mark.peer("faketime")]

NOT_KEPT = "answers_kept = false\n"
OFF_S = 240
"""Within the skew that is configured by default, and far beyond the validity of an answer."""


@pytest.mark.parametrize("error_s", [-OFF_S, OFF_S])
def test_both_ends_with_a_wrong_clock_attach_and_hear_of_a_revocation_at_once(error_s: int) -> None:
    with make_stock_site(partial(Forgetful, error_s=error_s), NOT_KEPT) as site:
        device = site.recorded()
        certificate = site.bridge.issue(device)
        for _ in range(2):
            with site.attached(device, certificate):
                pass
        site.ledger.change(device, CertStatus.REVOKED)
        site.refused(device, certificate, "certificate was revoked on")
        other = site.recorded()
        with site.attached(other, site.bridge.issue(other)):
            pass


def test_a_right_clock_trusts_no_longer_for_them() -> None:
    """nextUpdate is minutes away, and nothing is kept until then: neither that it is good, nor that it is not."""
    with make_stock_site(Forgetful, NOT_KEPT) as site:
        device = site.recorded()
        certificate = site.bridge.issue(device)
        with site.attached(device, certificate):
            pass
        site.ledger.change(device, CertStatus.SUSPENDED)
        site.refused(device, certificate, "reason: certificate hold")
        site.ledger.change(device, CertStatus.VALID)
        with site.attached(device, certificate):
            pass


def test_where_answers_are_kept_a_clock_that_is_ahead_accepts_none() -> None:
    """As before: a later nextUpdate would have all others trust longer."""
    with make_stock_site(partial(Forgetful, error_s=OFF_S)) as site:
        device = site.recorded()
        assert not site.attach(device, site.bridge.issue(device))
        assert "ocsp response is stale" in site.charons["device"].log() + site.charons["gateway"].log()


def test_openssl_with_a_wrong_clock(tmp_path: Path) -> None:
    with make_stock_site(Forgetful, NOT_KEPT) as site:
        device = site.recorded()
        ask = partial(asked, site, device, tmp_path)
        site.bridge.issue(device)
        for error_s in (-OFF_S, 0, OFF_S):
            said = ask(error_s)
            assert ": good" in said, said
            assert "WARNING: Status times invalid" not in said, said
        assert "WARNING: Status times invalid" in ask(OFF_S * 2)
        site.ledger.change(device, CertStatus.REVOKED)
        wait_until(lambda: ": revoked" in ask(OFF_S), "the revocation is answered", 10 * VALIDITY_S)


def asked(site: StockSite, device: Identity, folder: Path, error_s: int) -> str:
    """Ask as openssl does with a clock that is wrong; it allows no difference beside what the answer allows."""
    bridge = site.bridge
    certificate = bridge.path / "issued" / f"{device.digest.hex()}.pem"
    ca = str(bridge.path / "ca.pem")
    command = ["faketime", "-f", f"{error_s:+d}s", "openssl", "ocsp", "-validity_period", "0", "-issuer", ca]
    command += ["-CAfile", ca, "-cert", str(certificate), "-url", f"http://127.0.0.1:{bridge.port}/ocsp"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    return done.stdout + done.stderr
