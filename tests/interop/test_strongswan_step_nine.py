"""Step 9 on strongSwan as shipped: who attaches anew deletes its old IKE SA, once it has judged the gateway."""

from collections.abc import Iterator

import pytest

from .strongswan.charon import Charon, gateway_connection, wait_until
from .strongswan.site import GATEWAY, Site, make_site
from .strongswan.world import Identity
from .test_strongswan_python import PythonDevice, python_gateway

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with make_site() as made:
        made.start_agents()
        yield made


@pytest.fixture(autouse=True)
def nothing_left(site: Site) -> Iterator[None]:
    """Each test begins without tunnels."""
    yield
    site.clear()


def spis(charon: Charon) -> set[bytes]:
    return {sa["initiator-spi"] for sa in charon.sas()}


def newest(charon: Charon) -> bytes:
    """The SPI of the SA that charon has made last."""
    return bytes(max(charon.sas(), key=lambda sa: int(sa["uniqueid"]))["initiator-spi"])


def test_three_attachments_of_strongswan_leave_one_sa_at_strongswan(site: Site) -> None:
    device, gateway, identity = site.charons["device"], site.charons["gateway"], site.recorded()
    since = len(gateway.log())
    for _ in range(3):
        assert site.attach(identity), device.log()[-3000:]
    last = newest(device)
    wait_until(lambda: spis(device) == {last}, "one SA stands at the device")
    wait_until(lambda: spis(gateway) == {last}, "and the same one at the gateway")
    assert gateway.log()[since:].count(f"'{identity.name}' trusted: ") == 3
    assert '"code":"replaced"' in site.agents["device"].log().replace(" ", "")
    assert device.ping(device.inner_address())


def test_three_attachments_of_strongswan_leave_one_sa_at_a_python_gateway(site: Site) -> None:
    device = site.charons["device"]
    with python_gateway(site) as gateway:
        identity = site.recorded()
        for _ in range(3):
            assert site.attach(identity), device.log()[-3000:]
        last = newest(device)
        wait_until(lambda: spis(device) == {last}, "one SA stands at the device")
        wait_until(lambda: gateway.log().count('"SA closed"') == 2, "the gateway has heard it")
        assert gateway.log().count("deleted by the peer") == 2
        device.terminate_all()


def test_three_attachments_in_python_leave_one_sa_at_strongswan(site: Site) -> None:
    gateway, identity = site.charons["gateway"], site.recorded()
    with site.without_charon("device"), PythonDevice(site, identity, top="attach = 3\n") as attached:
        wait_until(lambda: attached.process.log().count('"attached"') == 3, attached.process.log())
        wait_until(lambda: len(gateway.sas()) == 1, "one SA stands")


def test_a_device_that_refuses_the_gateway_keeps_what_it_had(site: Site) -> None:
    """The gateway has another certificate by now, which nobody has recorded."""
    device, gateway, identity = site.charons["device"], site.charons["gateway"], site.recorded()
    assert site.attach(identity), device.log()[-3000:]
    before = spis(device)
    other = Identity(GATEWAY, "Operator A")
    gateway.configure(gateway_connection(GATEWAY, [other.certificate]), other.pem)
    try:
        since = len(device.log())
        assert not site.attach(identity)
        assert f"'{GATEWAY}' refused: not-recorded: " in device.log()[since:]
        assert spis(device) == before
        wait_until(lambda: spis(gateway) == before, "the gateway has what the device has")
        assert device.ping(device.inner_address())
    finally:
        site.configure_gateway()


def test_a_device_that_has_lost_its_sa_replaces_it(site: Site) -> None:
    """It says so with INITIAL_CONTACT, long before dead peer detection would find out."""
    device, gateway, identity = site.charons["device"], site.charons["gateway"], site.recorded()
    assert site.attach(identity), device.log()[-3000:]
    assert device.process is not None
    device.process.kill()
    device.process.wait()
    site.start("device")
    since = len(gateway.log())
    assert site.attach(identity), device.log()[-3000:]
    wait_until(lambda: spis(gateway) == spis(device), "only the new SA stands")
    assert "N(INIT_CONTACT)" in gateway.log()[since:]
