"""Stock strongSwan without a plugin, at both ends: the ledger decides by way of the bridge CA and OCSP."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from segw_agent.bridge import config
from segw_agent.bridge.authority import issue
from voice_dpki.ledger.records import CertStatus
from voice_dpki.x509.profile import read_profile

from .strongswan.charon import wait_until
from .strongswan.stock import VALIDITY_S, Bridge, StockSite, make_stock_site
from .strongswan.world import Identity, forwarded

pytestmark = pytest.mark.netns

STRICT_REFUSAL = "constraint check failed: "


@pytest.fixture(scope="module")
def site() -> Iterator[StockSite]:
    with make_stock_site() as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_left(site: StockSite) -> Iterator[None]:
    """Each test begins without tunnels, and without OCSP answers that are kept."""
    for charon in site.charons.values():
        charon.flush()
    yield
    site.clear()


def test_up_by_certificates_of_the_bridge(site: StockSite) -> None:
    device, gateway = site.charons["device"], site.charons["gateway"]
    assert "voice-dpki" not in gateway.log()  # no plugin of ours is loaded
    one = site.recorded()
    with site.attached(one, site.bridge.issue(one)):
        assert device.ping(device.inner_address())
    for charon in (device, gateway):
        assert 'ocsp response correctly signed by "CN=Operator A bridge CA 1 OCSP"' in charon.log()
        assert "certificate status is good" in charon.log()


def test_revoked_when_the_answer_before_may_not_be_kept_any_longer(site: StockSite) -> None:
    device = site.recorded()
    certificate = site.bridge.issue(device)
    with site.attached(device, certificate):
        pass
    site.ledger.change(device, CertStatus.REVOKED)
    wait_until(lambda: not site.admits(device, certificate), "the revocation takes effect", 10 * VALIDITY_S)
    site.refused(device, certificate, "certificate was revoked on", "reason: key compromise")


def test_revoked_at_once_where_answers_are_flushed(site: StockSite) -> None:
    device = site.recorded()
    certificate = site.bridge.issue(device)
    with site.attached(device, certificate):
        pass
    site.ledger.change(device, CertStatus.REVOKED)
    site.charons["gateway"].flush()
    site.refused(device, certificate, "certificate was revoked on")


def test_suspended_and_resumed(site: StockSite) -> None:
    device = site.recorded()
    certificate = site.bridge.issue(device)
    site.ledger.change(device, CertStatus.SUSPENDED)
    site.refused(device, certificate, "reason: certificate hold")
    site.ledger.change(device, CertStatus.VALID)
    refused_s = time.monotonic()
    wait_until(lambda: time.monotonic() > refused_s + VALIDITY_S + 1, "the answer could not be kept any longer")
    site.refused(device, certificate, "reason: certificate hold")  # charon keeps to it, though it is stale
    site.charons["gateway"].flush()
    with site.attached(device, certificate):
        pass


def test_a_self_signed_certificate_is_none_of_the_bridges(site: StockSite) -> None:
    device = site.recorded()
    site.refused(device, device.certificate, "no trusted ECDSA public key found")


def test_issued_behind_the_ledgers_back(site: StockSite) -> None:
    device = Identity("enb0.vendor.example", "Vendor V")
    bridge = config.Bridge.load(site.bridge.config)
    issued = issue(bridge.authority(), read_profile(device.certificate), bridge.config.ocsp_url)
    certificate = issued.public_bytes(Encoding.DER)
    site.refused(device, certificate, "ocsp response contains no status on our certificate", STRICT_REFUSAL)


def test_the_responder_is_away(site: StockSite) -> None:
    device = site.recorded()
    certificate = site.bridge.issue(device)
    with site.unreachable("gateway"):
        site.refused(device, certificate, "ocsp check failed", STRICT_REFUSAL)
    with site.attached(device, certificate):
        pass


def test_the_ledger_is_away(site: StockSite) -> None:
    device = site.recorded()
    certificate = site.bridge.issue(device)
    site.ledger.process.signal(signal.SIGSTOP)
    try:
        site.refused(device, certificate, "ocsp response status: try later", STRICT_REFUSAL)
    finally:
        site.ledger.process.signal(signal.SIGCONT)
    with site.attached(device, certificate):
        pass


@pytest.mark.parametrize("away", [False, True])
def test_the_device_checks_the_gateway(site: StockSite, away: bool) -> None:
    other = Identity(f"segw{2 + away}.a.example", "Operator A")
    site.ledger.record(other)
    site.load_gateway(other, other.name)
    device, client = site.recorded(), site.charons["device"]
    certificate = site.bridge.issue(device)
    with site.attached(device, certificate, other.name):
        pass
    client.flush()
    since = len(client.log())
    if away:
        with site.unreachable("device"):
            assert not site.attach(device, certificate, other.name)
    else:
        site.ledger.change(other, CertStatus.REVOKED)
        assert not site.attach(device, certificate, other.name)
    said = client.log()[since:]
    assert (STRICT_REFUSAL if away else "certificate was revoked on") in said
    assert "generating INFORMATIONAL request 2 [ N(AUTH_FAILED) ]" in said
    wait_until(lambda: not site.charons["gateway"].sas(), "the gateway gives up")


def test_two_certificates_for_one_identity(site: StockSite) -> None:
    old = site.recorded()
    new = Identity(old.name, "Vendor V")
    site.ledger.record(new)
    certificates = {identity.digest: site.bridge.issue(identity) for identity in (old, new)}
    for identity in (old, new, old):
        with site.attached(identity, certificates[identity.digest]):
            pass
    site.ledger.change(old, CertStatus.REVOKED)
    site.charons["gateway"].flush()
    site.refused(old, certificates[old.digest], "certificate was revoked on")
    with site.attached(new, certificates[new.digest]):
        pass


def test_reauthentication_asks_again(site: StockSite) -> None:
    device, client = site.recorded(), site.charons["device"]
    certificate = site.bridge.issue(device)
    with site.attached(device, certificate):
        site.ledger.change(device, CertStatus.REVOKED)
        site.charons["gateway"].flush()
        assert client.sas()  # OCSP ends nothing by itself
        with client.session() as session:
            session.rekey({"ike": "tunnel", "reauth": "yes"})
        wait_until(lambda: not site.charons["gateway"].sas(), "the gateway has no SA any more")


def test_roll_over_of_the_ca(site: StockSite) -> None:
    device = site.recorded()
    second = Bridge(site.path / "bridge-2", site.ledger, 2)
    try:
        with ExitStack() as stack:
            for side, charon in site.charons.items():
                stack.enter_context(forwarded(site.names[side], second.port))
                charon.load_ca(second.ca)
            for bridge in (site.bridge, second):
                with site.attached(device, bridge.issue(device)):
                    pass
    finally:
        second.process.stop()
    assert 'ocsp response correctly signed by "CN=Operator A bridge CA 2 OCSP"' in site.charons["gateway"].log()
