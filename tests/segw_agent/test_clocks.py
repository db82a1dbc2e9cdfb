"""Each program of the gateway's side with its wall clock set while it runs: it trusts nobody that it must not, says
why, and recovers once the clock is right.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from segw_agent.attachment.network import BOUND_S, Testbed
from segw_agent.attachment.site import GATEWAY_NAME, OPERATOR, OTHER_VENDOR, VENDOR
from tests.clocks import FakeTime, by_step, health, said, until
from tests.ports import free_port
from tests.segw_agent.bridge.test_bridge import Bridge, Failure, Status
from tests.segw_agent.test_agent import Agent
from voice_dpki.ledger.records import CertStatus
from voice_dpki.stage.events import ResultEvent
from voice_dpki.stage.processes import Running, stop_all
from voice_dpki.stage.site import Credential

pytestmark = pytest.mark.peer("faketime")


SHORT_BOUND_S = 1.0
"""What gateway and device are given, for shorter tests."""


class ClockTestbed(Testbed):
    """Every program goes by a clock of its own."""

    def __init__(self, logs: Path) -> None:
        super().__init__(logs)
        self.clocks = FakeTime(self.folder)
        self.metrics_port = free_port()
        self._number = iter(range(1000))

    def start_program(
        self, actor: str, module: str, arguments: Sequence[str], sections: Mapping[str, object]
    ) -> Running:
        with self.clocks.of(actor):
            return super().start_program(actor, module, arguments, sections)

    @staticmethod
    def _ledger_section(urls: list[str]) -> dict[str, object]:
        return {"genesis": "genesis.json", "urls": urls, "timeout_s": SHORT_BOUND_S, "bound_s": SHORT_BOUND_S}

    def device_credential(self) -> Credential:
        name = f"clock{next(self._number)}"
        made = self.site.credential(name, f"{name}.vendor.example", VENDOR)
        self.record(made)
        return made

    def attach(self, own: Credential, *, error_s: float = 0, **options: Any) -> dict[str, Any]:
        """Attach a device; returns its result, once it has one."""
        self.clocks.at_start_s["device"] = error_s
        running = self.start_device(own, **options)
        result = running.wait_for(lambda event: isinstance(event, ResultEvent), "attach or be refused", 60)
        assert isinstance(result, ResultEvent)
        return dict(result.data)


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClockTestbed]:
    with ClockTestbed(tmp_path_factory.mktemp("logs")) as running:
        running.start_ledger()
        yield running


@pytest.fixture(scope="module")
def segw(testbed: ClockTestbed) -> Credential:
    credential = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR)
    testbed.record(credential)
    return credential


@pytest.fixture
def gateway(testbed: ClockTestbed, segw: Credential) -> Iterator[str]:
    testbed.start_gateway(segw, listen={"port": testbed.metrics_port})
    yield f"127.0.0.1:{testbed.metrics_port}"
    assert testbed.running["gateway"].status is None
    testbed.end(["device", "gateway"])


@by_step(-3600)
def test_gateway(testbed: ClockTestbed, gateway: str, step_s: int) -> None:
    known = testbed.device_credential()
    assert testbed.attach(known)["attached"]
    testbed.freeze("ledger-a")
    try:  # it was revoked since, for all that the gateway knows, and the node is not heard
        testbed.clocks.set("gateway", step_s)
        time.sleep(SHORT_BOUND_S + 0.2)
        assert not testbed.attach(known)["attached"]
    finally:
        testbed.thaw("ledger-a")
    until(lambda: health(gateway)[0] == 503, "the gateway says that its clock is wrong")
    assert not testbed.attach(known)["attached"]
    log = testbed.logs / "gateway.log"
    assert said(log, "ledger-clock") >= 1
    assert said(log, "clock was set") >= 1
    assert said(log, '"clock is wrong"') >= 1
    testbed.clocks.set("gateway", 0)
    until(lambda: health(gateway)[0] == 200, "the gateway says that its clock is right")
    until(lambda: testbed.attach(known)["attached"], "the device attaches again")


@by_step()
def test_gateway_keeps_live_sas_and_ends_them_once_its_clock_is_right(
    testbed: ClockTestbed, gateway: str, step_s: int
) -> None:
    revoked = testbed.device_credential()
    assert testbed.attach(revoked, stay=True)["attached"]
    staying = testbed.running["device"]
    testbed.clocks.set("gateway", step_s)
    until(lambda: health(gateway)[0] == 503, "the gateway says that its clock is wrong")
    testbed.change(revoked, CertStatus.REVOKED, "keyCompromise")
    time.sleep(1)
    assert staying.status is None
    testbed.clocks.set("gateway", 0)
    staying.wait_end(60)


@by_step()
def test_device(testbed: ClockTestbed, segw: Credential, step_s: int) -> None:
    """A device that is wrong from the start trusts no staple; one that was attached keeps its SA and its timers."""
    known = testbed.device_credential()
    testbed.start_gateway(segw, integrity="ignore")
    wrong = testbed.attach(known, error_s=step_s, integrity=False)
    assert (wrong["attached"], wrong["code"]) == (False, "ledger-clock" if step_s < 0 else "ledger-stale")
    assert testbed.attach(known, stay=True)["attached"]
    staying = testbed.running["device"]
    testbed.clocks.set("device", step_s)
    time.sleep(1.5)
    assert staying.status is None
    testbed.clocks.set("device", 0)
    time.sleep(0.5)
    testbed.end(["device", "gateway"])
    assert staying.status == 0


@by_step()
def test_agent(testbed: ClockTestbed, segw: Credential, step_s: int, tmp_path: Path) -> None:
    known = testbed.device_credential()
    with testbed.clocks.of("agent"):
        agent = Agent(testbed, tmp_path, segw)
    try:
        agent.running.wait_ready()
        assert agent.judge(known).yes
        testbed.freeze("ledger-a")
        try:
            testbed.clocks.set("agent", step_s)
            time.sleep(BOUND_S + 0.5)
            assert not agent.judge(known).yes
        finally:
            testbed.thaw("ledger-a")
        until(lambda: agent.judge(known).code == "ledger-clock", "the agent says that its clock is wrong")
        assert said(agent.log, '"clock is wrong"') == 1
        testbed.clocks.set("agent", 0)
        until(lambda: agent.judge(known).yes, "the agent trusts again")
    finally:
        stop_all([agent.running])
    assert agent.running.status == 0


@by_step()
@pytest.mark.peer("openssl")
def test_ocsp_bridge(testbed: ClockTestbed, step_s: int, tmp_path: Path) -> None:
    known = testbed.device_credential()
    bridge = Bridge(testbed, tmp_path)
    with testbed.clocks.of("bridge"):
        bridge.start()
    try:
        assert bridge.ask(known).certificate_status is Status.GOOD
        testbed.clocks.set("bridge", step_s)
        testbed.change(known, CertStatus.REVOKED, "keyCompromise")
        assert bridge.ask(known).response_status is Failure.TRY_LATER
        assert health(bridge.url.removeprefix("http://"))[0] == 503
        testbed.clocks.set("bridge", 0)
        assert bridge.ask(known).certificate_status is Status.REVOKED
        assert health(bridge.url.removeprefix("http://"))[0] == 200
    finally:
        bridge.stop()


def height_of(address: object) -> int:
    return int(httpx.get(f"http://{address}/ledger/v1/node", trust_env=False).json()["height"])


@by_step(3600)
def test_engine(testbed: ClockTestbed, step_s: int) -> None:
    address = testbed.addresses["engine"]
    testbed.clocks.set("engine", step_s)
    try:
        until(lambda: health(address)[0] == 503, "the engine says that its clock is wrong")
        height = height_of(address)
        other = testbed.site.credential(f"other{step_s}", "enb1.other.example", OTHER_VENDOR)
        headers = {"authorization": f"Bearer {testbed.site.tokens[OTHER_VENDOR]}"}
        answer = httpx.post(
            f"http://{address}/ledger/v1/submissions", content=other.der, headers=headers, trust_env=False
        )
        assert answer.status_code == 503
        assert "no blocks are made: this machine's clock" in answer.json()["detail"]
        assert height_of(address) == height
    finally:
        testbed.clocks.set("engine", 0)
    until(lambda: health(address)[0] == 200, "the engine says that its clock is right")
    testbed.device_credential()


@by_step()
def test_follower(testbed: ClockTestbed, step_s: int) -> None:
    """It takes no block from the future, and answers nothing by a clock that is behind what it has."""
    known = testbed.device_credential()
    address = testbed.addresses["ledger-a"]
    status = f"http://{address}/ledger/v1/status/{known.digest.hex()}"
    testbed.clocks.set("ledger-a", step_s)
    try:
        until(lambda: health(address)[0] == 503, "the follower says that its clock is wrong")
        if step_s < 0:
            answer = httpx.get(status, trust_env=False)
            assert answer.status_code == 503
            assert "clock is" in answer.json()["detail"]
    finally:
        testbed.clocks.set("ledger-a", 0)
    until(lambda: health(address)[0] == 200, "the follower says that its clock is right")
    testbed.device_credential()
    assert httpx.get(status, trust_env=False).json()["status"] == "valid"


@by_step()
def test_edge(testbed: ClockTestbed, step_s: int) -> None:
    known = testbed.device_credential()
    port = free_port()
    sections = {
        "node": {"name": "edge", "data_dir": "data-edge", "genesis": "genesis.json"},
        "listen": {"port": port},
        "edge": {"url": f"http://{testbed.addresses['engine']}"},
    }
    testbed._launch("edge", "ledger_node", ("start",), sections).wait_ready()
    try:
        address, status = f"127.0.0.1:{port}", f"http://127.0.0.1:{port}/ledger/v1/status/{known.digest.hex()}"
        assert httpx.get(status, trust_env=False).json()["status"] == "valid"
        testbed.clocks.set("edge", step_s)
        until(lambda: health(address)[0] == 503, "the edge says that its clock is wrong")
        assert httpx.get(status, trust_env=False).status_code == (503 if step_s < 0 else 200)
        testbed.clocks.set("edge", 0)
        until(lambda: health(address)[0] == 200, "the edge says that its clock is right")
        assert httpx.get(status, trust_env=False).json()["status"] == "valid"
    finally:
        testbed.end(["edge"])
