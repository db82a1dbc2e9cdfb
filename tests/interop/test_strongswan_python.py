"""strongSwan on one side, this project's own device or gateway on the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest

from voice_dpki.ledger.records import CertStatus

from .strongswan.charon import device_connection, gateway_connection, wait_until
from .strongswan.site import GATEWAY, Site, make_site, settings
from .strongswan.world import NOTICED_S, Identity, Process, forwarded, policy

pytestmark = pytest.mark.netns

FAILURES = ("integrity check failed", "parsing failed", "not responding")
"""What charon says of a peer that does it wrong."""

LIFETIME = "lifetime = { ike_s = 3.6, child_s = 2.4 }\n"
"""They are rekeyed after 2.9 to 3.2 s and 1.9 to 2.2 s, about when charon does it if it is told to."""


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


class PythonDevice:
    """Attaches once. It has no way to the ledger, and believes what the gateway's agent has stapled."""

    def __init__(self, site: Site, device: Identity, more: str = "", top: str = "stay = false\n") -> None:
        path = site.path / f"python-{device.name}"
        config = path.with_suffix(".toml")
        config.write_text(
            'host = "10.1.0.2"\ngateway = { host = "10.1.0.1" }\n'
            + top
            + device.write(path)
            + more
            + f'[ledger]\ngenesis = "{site.ledger.folder}/genesis.json"\nmax_age_s = 10\n'
            + policy("Operator A", "*.a.example")
        )
        command = ("segw_agent.main", "device", "--config", config)
        self.process = Process(path.with_suffix(".log"), *command, namespace=site.names["device"])
        self.status = self.process.wait() if "stay = false" in top else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()
        print(self.process.log())


@pytest.fixture
def port_500_is_free(site: Site) -> Iterator[None]:
    """The device's address belongs to the Python device while the test runs."""
    with site.without_charon("device"):
        yield


@pytest.mark.usefixtures("port_500_is_free")
def test_python_device_at_a_strongswan_gateway(site: Site) -> None:
    gateway, device = site.charons["gateway"], site.recorded()
    with settings(gateway, integrity_policy="require"):
        attached = PythonDevice(site, device, more="[integrity]\npassed = true\n")
    assert attached.status == 0, attached.process.log()
    assert "10.9.0." in attached.process.log()
    assert f"voice-dpki: '{device.name}' vouched for: vouched-for: " in gateway.log()
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


@contextmanager
def rekeying(site: Site, options: dict[str, Any]) -> Iterator[None]:
    """Let the gateway's connection have other options for a while."""
    connection = gateway_connection(GATEWAY, [site.gateway.certificate], **options)
    site.charons["gateway"].configure(connection, site.gateway.pem)
    try:
        yield
    finally:
        site.configure_gateway()


@pytest.mark.usefixtures("port_500_is_free")
@pytest.mark.parametrize(("who", "pfs"), [("device", True), ("gateway", False), ("both", True)])
def test_python_device_and_a_strongswan_gateway_rekey(site: Site, who: str, pfs: bool) -> None:
    gateway, device = site.charons["gateway"], site.recorded()
    esp = "aes128gcm16-ecp256" if pfs else "aes128gcm16"
    times = {"rekey_time": "2s", "rand_time": "0s", "life_time": "6s"}
    child = {"local_ts": ["10.8.0.0/24"], "esp_proposals": [esp]}
    options: dict[str, Any] = {"children": {"child": child | (times if who != "device" else {})}}
    options |= {"rekey_time": "3s", "rand_time": "0s", "over_time": "3s"} if who != "device" else {}
    top = "" if who == "gateway" else LIFETIME
    since = len(gateway.log())
    with rekeying(site, options), PythonDevice(site, device, top=top) as attached:
        wait_until(lambda: attached.process.log().count('"IKE SA rekeyed"') >= 1, attached.process.log())
        wait_until(lambda: attached.process.log().count('"child SA rekeyed"') >= 2, attached.process.log())
        wait_until(lambda: len(gateway.sas()) == 1, "one SA stands")
        assert '"SA closed"' not in attached.process.log()
        site.ledger.change(device, CertStatus.REVOKED)
        wait_until(lambda: '"SA closed"' in attached.process.log(), "the rekeyed SA is ended", NOTICED_S)
        assert attached.process.wait() == 0, attached.process.log()
    for failure in FAILURES:
        assert failure not in gateway.log()[since:]


@contextmanager
def python_gateway(site: Site, top: str = "") -> Iterator[Process]:
    config = site.path / "python-gateway.toml"
    config.write_text(
        'host = "10.1.0.1"\npool = "10.9.0.0/24"\ninner = "10.8.0.0/24"\n'
        + top
        + site.gateway.write(site.path / "python-gateway")
        + site.ledger.section()
        + policy("Vendor V", "*.example")
    )
    with site.without_charon("gateway"), forwarded(site.names["gateway"], site.ledger.port):
        command = ("segw_agent.main", "gateway", "--config", config)
        log = config.with_suffix(".log")
        log.unlink(missing_ok=True)
        gateway = Process(log, *command, namespace=site.names["gateway"])
        try:
            gateway.says("ready")
            yield gateway
        finally:
            gateway.stop()


def test_strongswan_device_at_a_python_gateway(site: Site) -> None:
    device = site.charons["device"]
    with python_gateway(site) as gateway:
        known = site.recorded()
        assert site.attach(known), device.log()[-3000:]
        assert device.inner_address().startswith("10.9.0.")
        assert f"voice-dpki: '{GATEWAY}' vouched for: vouched-for: " in device.log()
        device.terminate()
        assert not site.attach(site.identity())
        assert "not-recorded" in gateway.log()


@pytest.mark.parametrize(("who", "pfs"), [("device", False), ("device", True), ("gateway", True), ("both", False)])
def test_strongswan_device_and_a_python_gateway_rekey(site: Site, who: str, pfs: bool) -> None:
    charon, device = site.charons["device"], site.recorded()
    child: dict[str, Any] = {
        "remote_ts": ["10.8.0.0/24"],
        "esp_proposals": ["aes128gcm16-ecp256" if pfs else "aes128gcm16"],
    }
    times = {}
    if who != "gateway":
        child |= {"rekey_time": "2s", "rand_time": "0s", "life_time": "6s"}
        times = {"rekey_time": "3s", "rand_time": "0s", "over_time": "3s"}
    connection = device_connection(device.name, [device.certificate], GATEWAY, children={"child": child}, **times)
    charon.configure(connection, device.pem)
    since = len(charon.log())
    with python_gateway(site, "" if who == "device" else LIFETIME) as gateway:
        assert charon.initiate(), charon.log()[since:]
        wait_until(lambda: gateway.log().count('"IKE SA rekeyed"') >= 1, gateway.log())
        wait_until(lambda: gateway.log().count('"child SA rekeyed"') >= 2, gateway.log())
        wait_until(lambda: [sa["child-sas"] for sa in charon.sas() if sa["child-sas"]], "the child SA stands")
        assert '"SA closed"' not in gateway.log()
        site.ledger.change(device, CertStatus.REVOKED)
        wait_until(lambda: '"live SA ended"' in gateway.log(), "the rekeyed SA is ended", NOTICED_S)
        wait_until(lambda: not charon.sas(), "charon hears of it")
    for failure in FAILURES:
        assert failure not in charon.log()[since:]
