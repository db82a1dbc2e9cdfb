"""Step 9 on strongSwan as shipped: who attaches anew deletes its old IKE SA, once it has judged the gateway."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .strongswan.agent_double import AgentDouble, Request, ask
from .strongswan.charon import CAP_S, Charon, gateway_connection, wait_until
from .strongswan.site import GATEWAY, Site, make_site, settings
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


@pytest.fixture
def slow_judge(site: Site) -> Iterator[tuple[AgentDouble, threading.Event]]:
    """The device's agent, which judges the gateway's certificate (step 8) when the event is set, and not before."""
    may_judge = threading.Event()

    def judge(request: Request) -> bytes:
        assert may_judge.wait(CAP_S)
        return ask(site.socket("device"), request)

    double = AgentDouble(site.path / "slow.sock", judge, lambda request: ask(site.socket("device"), request))
    with double, settings(site.charons["device"], socket=double.path, deadline_ms=int(CAP_S * 1000)):
        try:
            yield double, may_judge
        finally:
            may_judge.set()


def in_order(text: str, *patterns: str) -> None:
    """Fail unless a log has lines that match, each behind the one before."""
    at = 0
    for pattern in patterns:
        found = re.compile(pattern).search(text, at)
        assert found, f"{pattern!r} does not come where it should in:\n{text}"
        at = found.end()


def test_the_old_sa_is_deleted_after_the_device_has_judged_and_by_the_device(
    site: Site, slow_judge: tuple[AgentDouble, threading.Event]
) -> None:
    """Steps 4 to 9: the gateway has let the device in by then, and keeps the old SA until it is told."""
    device, gateway, identity = site.charons["device"], site.charons["gateway"], site.recorded()
    double, may_judge = slow_judge
    may_judge.set()
    assert site.attach(identity), device.log()[-3000:]
    old, judged = spis(device), len(double.judged())
    since = [len(each.log()) for each in (device, gateway)]
    said = len(site.agents["device"].log())

    may_judge.clear()
    with ThreadPoolExecutor(1) as other:
        attached = other.submit(site.attach, identity)
        wait_until(lambda: len(double.judged()) > judged, "the device judges the gateway's certificate (step 8)")
        wait_until(lambda: len(spis(gateway)) == 2, "the gateway has authenticated the device, and keeps both SAs")
        assert old < spis(gateway)
        assert "deleting IKE_SA" not in device.log()[since[0] :]
        may_judge.set()
        assert attached.result(CAP_S)
    wait_until(lambda: len(spis(device)) == 1 and not spis(device) & old, "the new SA stands alone at the device")
    wait_until(lambda: spis(gateway) == spis(device), "and at the gateway")
    assert device.ping(device.inner_address())

    device_log, gateway_log = (each.log()[at:] for each, at in zip((device, gateway), since, strict=True))
    in_order(
        gateway_log,
        r"parsed IKE_AUTH request 1 \[ IDi CERT",  # step 4
        f"'{identity.name}' vouched for: ",  # steps 5 and 6: the ledger's answer
        f"'{identity.name}' trusted: ",
        r"IKE_SA tunnel\[\d+\] established",
        r"generating IKE_AUTH response 1 \[ IDr CERT",  # step 7
        r"parsed INFORMATIONAL request \d+ \[ D \]",
        r"received DELETE for IKE_SA tunnel\[\d+\]",
    )
    assert gateway_log.count("deleting IKE_SA") == gateway_log.count("received DELETE for IKE_SA") == 1
    assert "uniqueness policy" not in gateway_log, "the gateway would have deleted it by itself, if later"
    in_order(
        device_log,
        r"parsed IKE_AUTH response 1 \[ IDr CERT",
        f"'{GATEWAY}' vouched for: ",  # step 8
        f"'{GATEWAY}' trusted: ",
        r"IKE_SA tunnel\[\d+\] established",
        r"deleting IKE_SA tunnel\[\d+\]",  # step 9
        r"generating INFORMATIONAL request \d+ \[ D \]",
    )
    in_order(site.agents["device"].log()[said:], '"vouched for"', '"trusted"', '"live SA ended".*"replaced"')


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
