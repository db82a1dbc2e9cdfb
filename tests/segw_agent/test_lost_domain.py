"""Operators vote that a member holds no domain any more, and everybody refuses its certificates."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from cryptography.x509 import ReasonFlags

from segw_agent.attachment.network import Testbed
from segw_agent.attachment.site import CHAIN_ID, DEVICE_NAME, GATEWAY_NAME, OPERATOR, VENDOR
from segw_agent.policy import Side
from tests.present import present
from voice_dpki.effects import SystemClock
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.proposals import SetMember, encode_change
from voice_dpki.ledger.transactions import Propose, endorse
from voice_dpki.stage.events import NoteEvent, ResultEvent
from voice_dpki.stage.processes import stop_all
from voice_dpki.stage.site import Credential
from voice_dpki.x509.keys import from_pem

from .bridge.test_bridge import Bridge, Status
from .conftest import wait_until
from .test_agent import Agent

LOST = "the organisation that recorded the certificate does not hold the domain of each of its names"


class VotingTestbed(Testbed):
    """One in which a vote takes effect in the next block."""

    def _node(self, node: str) -> dict[str, object]:
        sections = super()._node(node)
        if node == "engine":
            sections["engine"] = {"validator_keys": ["validator.pem"], "heartbeat_s": 0.1}
        return sections

    def prepare(self) -> None:
        form = json.loads(self.site.genesis.read_bytes())
        form["app_state"]["parameters"] = {"delay_s": 0, "delay_blocks": 1}
        self.site.genesis.write_text(json.dumps(form))

    def take_domains(self, organization: str) -> None:
        """Let the only operator propose, and thereby decide, that a member holds no domain."""
        member = replace(present(load_genesis(self.site.genesis.read_bytes()).member(organization)), domains=())
        until_s = int(SystemClock().now_s()) + 3600
        proposal = Propose(CHAIN_ID, OPERATOR, until_s, encode_change(SetMember(member, 0)))
        signer = from_pem((self.site.folder / "operator-a-endorsing.pem").read_bytes())
        url = f"http://{self.addresses['engine']}/ledger/v1/transactions"
        answer = httpx.post(url, content=endorse(proposal, [signer]), trust_env=False, timeout=60)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[VotingTestbed]:
    with VotingTestbed(tmp_path / "logs") as running:
        running.prepare()
        running.start_ledger()
        yield running


def attach(testbed: VotingTestbed, enb: Credential) -> tuple[str, list[tuple[object, str]]]:
    """Attach a device once: the code of its result, and the code and sentence of each refusal that was traced."""
    before = len(testbed.events())
    testbed.start_device(enb).wait_end(60)
    testbed.end(["device"])
    new = testbed.events()[before:]
    (result,) = (event for event in new if isinstance(event, ResultEvent))
    notes = [event for event in new if isinstance(event, NoteEvent) and "code" in event.data]
    return str(result.data["code"]), [(note.data["code"], note.text.partition(": ")[2]) for note in notes]


def test_agent_bridge_gateway_and_device_refuse_who_lost_its_domain_by_vote(
    testbed: VotingTestbed, tmp_path: Path
) -> None:
    segw = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR)
    enb = testbed.site.credential("enb1", DEVICE_NAME, VENDOR)
    testbed.record(segw, enb)
    agent, bridge = Agent(testbed, tmp_path, segw), Bridge(testbed, tmp_path)
    agent.running.wait_ready()
    try:
        bridge.start()
        testbed.start_gateway(segw)
        assert agent.judge(enb).yes
        assert bridge.ask(enb).certificate_status is Status.GOOD
        assert attach(testbed, enb) == ("", [])

        testbed.take_domains(OPERATOR)
        wait_until(lambda: attach(testbed, enb) == ("domain", [("domain", LOST)]), "the device refuses the gateway")
        assert agent.judge(segw, side=Side.DEVICE).sentence == f"step 8 SeGW certificate: {LOST}"

        testbed.take_domains(VENDOR)
        assert agent.until(enb, "domain").sentence == f"step 5.4 certificate: {LOST}"
        answer = bridge.ask(enb)
        assert answer.certificate_status is Status.REVOKED
        assert answer.revocation_reason is ReasonFlags.privilege_withdrawn
        wait_until(
            lambda: attach(testbed, enb) == ("peer-authentication-failed", [("domain", LOST)]),
            "the gateway refuses the device",
        )
    finally:
        bridge.stop()
        stop_all([agent.running])
