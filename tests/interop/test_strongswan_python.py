"""strongSwan on one side, this project's own device or gateway on the other."""

from collections.abc import Iterator

import pytest

from .strongswan.charon import wait_until
from .strongswan.site import GATEWAY, Site, make_site, settings
from .strongswan.world import Identity, Process, forwarded, policy

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with make_site() as made:
        made.start_agents()
        yield made


class PythonDevice:
    """Attaches once. It has no way to the ledger, and believes what the gateway's agent has stapled."""

    def __init__(self, site: Site, device: Identity, more: str = "") -> None:
        path = site.path / f"python-{device.name}"
        config = path.with_suffix(".toml")
        config.write_text(
            'host = "10.1.0.2"\ngateway = { host = "10.1.0.1" }\nstay = false\n'
            + device.write(path)
            + more
            + f'[ledger]\ngenesis = "{site.ledger.folder}/genesis.json"\nmax_age_s = 10\n'
            + policy("Operator A", "*.a.example")
        )
        command = ("segw_agent.main", "device", "--config", config)
        self.process = Process(path.with_suffix(".log"), *command, namespace=site.names["device"])
        self.status = self.process.wait()


@pytest.fixture
def port_500_is_free(site: Site) -> Iterator[None]:
    """The device's address belongs to the Python device while the test runs."""
    site.charons["device"].stop()
    yield
    site.charons["device"].start()


@pytest.mark.usefixtures("port_500_is_free")
def test_python_device_at_a_strongswan_gateway(site: Site) -> None:
    gateway, device = site.charons["gateway"], site.recorded()
    with settings(gateway, integrity_policy="require"):
        attached = PythonDevice(site, device, more="[integrity]\npassed = true\n")
    assert attached.status == 0, attached.process.log()
    assert "10.9.0." in attached.process.log()
    assert f"voice-dpki: '{device.name}' trusted: trusted: " in gateway.log()
    wait_until(lambda: not gateway.sas(), "the device's deletion")


@pytest.mark.usefixtures("port_500_is_free")
def test_python_device_that_the_strongswan_gateway_refuses(site: Site) -> None:
    stranger = site.identity()
    refused = PythonDevice(site, stranger)
    assert refused.status == 1
    assert "AUTHENTICATION_FAILED" in refused.process.log()
    assert f"voice-dpki: '{stranger.name}' refused: not-recorded: " in site.charons["gateway"].log()


@pytest.mark.usefixtures("port_500_is_free")
def test_python_device_that_gets_no_proof_from_the_gateway(site: Site) -> None:
    with settings(site.charons["gateway"], ledger_answer=0):
        refused = PythonDevice(site, site.recorded())
    assert refused.status == 1
    assert "ledger-unreachable" in refused.process.log()
    wait_until(lambda: not site.charons["gateway"].sas(), "the gateway was told")


def test_strongswan_device_at_a_python_gateway(site: Site) -> None:
    device = site.charons["device"]
    site.charons["gateway"].stop()
    config = site.path / "python-gateway.toml"
    config.write_text(
        'host = "10.1.0.1"\npool = "10.9.0.0/24"\ninner = "10.8.0.0/24"\n'
        + site.gateway.write(site.path / "python-gateway")
        + site.ledger.section()
        + policy("Vendor V", "*.example")
    )
    log = config.with_suffix(".log")
    with forwarded(site.names["gateway"], site.ledger.port):
        command = ("segw_agent.main", "gateway", "--config", config)
        gateway = Process(log, *command, namespace=site.names["gateway"])
        try:
            gateway.says("ready")
            known = site.recorded()
            assert site.attach(known), device.log()[-3000:]
            assert device.inner_address().startswith("10.9.0.")
            assert f"voice-dpki: '{GATEWAY}' trusted: trusted: " in device.log()
            device.terminate()
            assert not site.attach(site.identity())
            assert "not-recorded" in gateway.log()
        finally:
            gateway.stop()
