"""The gateway's agent is replaced while devices attach at strongSwan: none is refused, and none is forgotten."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from voice_dpki.ledger.records import CertStatus

from .strongswan.charon import wait_until
from .strongswan.site import Site, make_site
from .strongswan.world import Identity, Process

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with make_site() as made:
        made.start_agents()
        yield made


@contextmanager
def attaching(site: Site, devices: list[Identity]) -> Iterator[list[bool]]:
    """Have devices attach, one after the other without a pause; gives whether each could."""
    outcomes: list[bool] = []
    stop = threading.Event()

    def attach() -> None:
        while not stop.is_set():
            outcomes.append(site.attach(devices[len(outcomes) % len(devices)]))

    thread = threading.Thread(target=attach)
    thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        thread.join()


def another(outcomes: list[bool]) -> None:
    """Wait until one more device has attached."""
    done = len(outcomes)
    wait_until(lambda: len(outcomes) > done, "another device has attached")


def replace(site: Site, side: str, number: int) -> None:
    """Start another agent of the same configuration, which takes over, and wait for the end of the one before."""
    before, config = site.agents[side], site.path / f"{side}-agent.toml"
    log = site.path / f"{side}-agent-{number}.log"
    site.agents[side] = Process(log, "segw_agent.main", "start", "--config", config, "--take-over")
    site.agents[side].says('"ready"')
    assert before.wait() == 0, before.log()


def test_no_attachment_is_lost_while_the_agent_is_replaced_twice(site: Site) -> None:
    gateway = site.charons["gateway"]
    devices = [site.recorded() for _ in range(4)]
    with attaching(site, devices) as outcomes:
        another(outcomes)
        for number in range(2):
            replace(site, "gateway", number)
            site.agents["gateway"].says('"vouched for"')
            another(outcomes)
    assert all(outcomes), gateway.log()[-3000:]
    assert "refused" not in gateway.log()


def test_what_an_agent_admitted_is_ended_by_its_second_successor(site: Site) -> None:
    gateway, device = site.charons["gateway"], site.recorded()
    assert site.attach(device), gateway.log()[-3000:]
    for number in range(2, 4):
        replace(site, "gateway", number)
    assert len(gateway.sas()) >= 1
    site.ledger.change(device, CertStatus.REVOKED)
    wait_until(lambda: device.name.encode() not in {sa["remote-id"] for sa in gateway.sas()}, "its SA is ended")
    site.agents["gateway"].says('"live SA ended"')


def test_a_device_whose_agent_is_replaced_still_deletes_its_old_sa(site: Site) -> None:
    """What was admitted before counts as an older SA of the same connection (step 9 of the flow)."""
    device, identity = site.charons["device"], site.recorded()
    assert site.attach(identity)
    replace(site, "device", 0)
    assert site.attach(identity)
    wait_until(lambda: len(device.sas()) == 1, "one SA stands")
    site.agents["device"].says('"replaced"')
