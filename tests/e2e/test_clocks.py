"""Two operators whose services' wall clocks are set while they run.

No call passes that must not, nothing stops, and all is well once the clocks are right.
"""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from sip_testbed.network import Testbed
from sip_testbed.placing import CallOptions, place_call
from sip_testbed.provision import CALLEE, CALLER
from sip_testbed.report import Report
from sip_testbed.scenarios import DEFAULT, SCENARIOS
from tests.clocks import FakeTime, by_step, health, said, until
from voice_dpki.stage.processes import Running
from voice_dpki.stir.forms import SIGNING_PATH, VERIFICATION_PATH

pytestmark = pytest.mark.peer("faketime")


class ClockTestbed(Testbed):
    """Every program goes by a clock of its own."""

    def __init__(self, logs: Path) -> None:
        super().__init__(logs)
        self.clocks = FakeTime(self.folder)
        self.set_at_call: tuple[str, float] | None = None
        """Whose clock is set when the caller is started, all others being up."""

    def start_program(
        self, actor: str, module: str, arguments: Sequence[str], sections: Mapping[str, object]
    ) -> Running:
        with self.clocks.of(actor):
            started = super().start_program(actor, module, arguments, sections)
        if actor == "caller" and self.set_at_call is not None:
            self.clocks.set(*self.set_at_call)
        return started

    def post(self, actor: str, path: str, token: str, body: dict[str, Any]) -> httpx.Response:
        headers = {"authorization": f"Bearer {(self.folder / token).read_text().split()[0]}"}
        return httpx.post(f"http://{self.addresses[actor]}{path}", json=body, headers=headers, trust_env=False)

    def sign(self) -> httpx.Response:
        request: dict[str, object] = {"attest": "A", "orig": {"tn": str(CALLER)}, "dest": {"tn": [str(CALLEE)]}}
        request |= {"iat": int(time.time()), "origid": str(uuid.uuid4())}
        return self.post("authn-a", SIGNING_PATH, "sign-a.token", {"signingRequest": request})

    def identity(self) -> str:
        return str(self.sign().json()["signingResponse"]["identity"])

    def verify(self, identity: str) -> dict[str, Any]:
        request = {"from": {"tn": str(CALLER)}, "to": {"tn": [str(CALLEE)]}}
        request |= {"time": int(time.time()), "identity": identity}
        answer = self.post("verify-b", VERIFICATION_PATH, "verify-b.token", {"verificationRequest": request})
        return dict(answer.json()["verificationResponse"])


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClockTestbed]:
    with ClockTestbed(tmp_path_factory.mktemp("logs")) as testbed:
        testbed.start()
        testbed.record_all()
        yield testbed
        assert all(running.status is None for running in testbed.running.values())


@by_step()
def test_authentication_server(testbed: ClockTestbed, step_s: int) -> None:
    until(lambda: testbed.sign().status_code == 200, "it signs")
    testbed.clocks.set("authn-a", step_s)
    refused = testbed.sign()
    assert refused.status_code in (400, 403)
    assert "clock" in refused.text
    until(lambda: said(testbed.logs / "authn-a.log", "clock was set"), "it says that its clock was set")
    testbed.clocks.set("authn-a", 0)
    until(lambda: testbed.sign().status_code == 200, "it signs again")


@by_step()
def test_verification_server(testbed: ClockTestbed, step_s: int) -> None:
    first, second = testbed.identity(), testbed.identity()
    assert testbed.verify(first)["verstat"] == "TN-Validation-Passed"
    testbed.clocks.set("verify-b", step_s)
    until(lambda: health(testbed.addresses["verify-b"])[0] == 503, "it says that its clock is wrong")
    for identity in (first, second):
        verdict = testbed.verify(identity)
        assert verdict["verstat"] == "No-TN-Validation"
        assert "this machine's clock" in verdict["reasondesc"]
    testbed.clocks.set("verify-b", 0)
    until(lambda: health(testbed.addresses["verify-b"])[0] == 200, "it says that its clock is right")
    assert "used before" in testbed.verify(first)["reasondesc"]
    assert testbed.verify(second)["verstat"] == "TN-Validation-Passed"


@pytest.mark.parametrize("actor", ["proxy-a", "proxy-b", "caller", "callee"])
@by_step()
def test_proxies_and_telephones(testbed: ClockTestbed, actor: str, step_s: int, tmp_path: Path) -> None:
    """A call that is dated or keyed by a wrong clock is not taken for good; the next one, by a right one, is."""

    def call(name: str) -> Report:
        return place_call(testbed, SCENARIOS[DEFAULT], CallOptions(say_s=1.0), tmp_path / name).report

    testbed.set_at_call = actor, step_s
    if actor == "caller":
        testbed.clocks.at_start_s[actor] = step_s
    try:
        wrong = call("wrong")
    finally:
        testbed.set_at_call = None
        if actor.startswith("proxy"):
            testbed.clocks.set(actor, 0)
    assert wrong.held is (actor == "proxy-b"), wrong.seen  # the called proxy goes by the caller's Date
    assert wrong.held or "clock" in wrong.seen.sentence
    right = call("right")
    assert right.held, [check for check in right.checks if not check.held]
