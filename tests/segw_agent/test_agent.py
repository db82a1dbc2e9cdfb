"""The agent as a process: what a plugin asks it over its socket, with a real ledger behind it."""

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segw_agent.attachment.events import KINDS
from segw_agent.attachment.network import BOUND_S, Testbed
from segw_agent.attachment.site import BOOT_DIGEST, GATEWAY_NAME, OPERATOR, VENDOR
from segw_agent.policy import IntegrityPolicy, Side
from segw_agent.protocol import AgentAnswer, Operation, Request
from tests.campaign import bent, campaign, rounds
from voice_dpki.effects import SystemClock
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.identity import fqdn, subject_identity
from voice_dpki.ikev2.integrity import IntegrityInfo, Result
from voice_dpki.ledger.answers import AnswerVerifier
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.records import CertStatus
from voice_dpki.stage.processes import Program, Running, TraceReader, stop_all
from voice_dpki.stage.site import Credential
from voice_dpki.wire.ledger.client import light_client
from voice_dpki.x509.keys import from_pem
from voice_dpki.x509.profile import read_profile

SA = SaName(b"\1" * 8, b"\2" * 8)


class Agent:
    def __init__(self, testbed: Testbed, folder: Path, own: Credential, **policy: Any) -> None:
        self.path = folder / "agent.sock"
        self.testbed = testbed
        urls = [f"http://{testbed.addresses['ledger-a']}"]
        sections = {
            "socket": self.path,
            "own": {"certificate": own.certificate, "key": own.key},
            "integrity": {"measurements": {"boot": BOOT_DIGEST}},
            "ledger": {"genesis": "genesis.json", "urls": urls, "timeout_s": 1.0},
            "policy": {"organizations": [VENDOR, OPERATOR], "allow": ["*.example", "*"], **policy},
            "listen": {"port": 0},
            "trace": {"file": folder / "agent.jsonl"},
        }
        config = testbed.site.config("agent", sections)
        arguments = ("start", "--config", str(config))
        program = Program("agent", "segw_agent.main", arguments, folder / "agent.jsonl", folder / "agent.log")
        self.running = Running(program, KINDS)
        self.log = program.log

    def ask(self, request: Request) -> AgentAnswer:
        return AgentAnswer.parse(self.exchange(request.serialize()))

    def exchange(self, octets: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.path))
            connection.sendall(octets)
            return received(connection)

    def judge(self, credential: Credential, **changes: Any) -> AgentAnswer:
        parts: dict[str, Any] = {
            "operation": Operation.JUDGE,
            "side": Side.GATEWAY,
            "sa": SA,
            "certificate": credential.der,
            "identification": fqdn(credential.name),
        }
        return self.ask(Request(**parts | changes))

    def until(self, credential: Credential, code: str) -> AgentAnswer:
        """Ask until the answer is `code`: a change must count within the bound."""
        deadline = time.monotonic() + BOUND_S
        while (answer := self.judge(credential)).code != code:
            assert time.monotonic() < deadline, answer
            time.sleep(0.01)
        return answer


def received(connection: socket.socket) -> bytes:
    head = connection.recv(2, socket.MSG_WAITALL)
    return connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)


@pytest.fixture(scope="module")
def segw(testbed: Testbed) -> Credential:
    credential = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR)
    testbed.record(credential)
    return credential


@pytest.fixture(scope="module")
def agent(testbed: Testbed, segw: Credential, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    started = Agent(testbed, tmp_path_factory.mktemp("agent"), segw)
    started.running.wait_ready()
    yield started
    stop_all([started.running])
    assert started.running.status == 0


def device(testbed: Testbed, number: int) -> Credential:
    return testbed.site.credential(f"enb{number}", f"enb{number}.vendor.example", VENDOR)


def test_life_of_a_certificate(testbed: Testbed, agent: Agent) -> None:
    enb = device(testbed, 1)
    assert agent.judge(enb).code == "not-recorded"
    testbed.record(enb)
    answer = agent.judge(enb)
    assert (answer.yes, answer.code) == (True, "vouched-for")
    assert agent.judge(enb, identification=subject_identity(enb.der)).yes
    testbed.change(enb, CertStatus.SUSPENDED, "certificateHold")
    agent.until(enb, "suspended")
    testbed.change(enb, CertStatus.VALID, "removeFromCRL")
    agent.until(enb, "vouched-for")
    testbed.change(enb, CertStatus.REVOKED, "keyCompromise")
    answer = agent.until(enb, "revoked")
    assert not answer.yes
    assert answer.sentence == "step 5.4 certificate: the certificate was revoked on the ledger"
    assert agent.judge(enb, side=Side.DEVICE).sentence.startswith("step 8 SeGW certificate")


def test_a_second_agent_leaves_the_socket_to_the_first(testbed: Testbed, agent: Agent) -> None:
    command = [sys.executable, "-m", "segw_agent.main", *agent.running.program.arguments]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    said = (
        f"main.py: {agent.path}: another program serves on this socket; stop it first, or configure another socket"
    )
    assert second.stderr.splitlines()[-1] == said
    assert agent.judge(device(testbed, 77)).code == "not-recorded"


def test_cache_is_quick_and_never_wrong(testbed: Testbed, agent: Agent) -> None:
    enb = device(testbed, 2)
    testbed.record(enb)
    assert agent.judge(enb).yes
    before = inquiries_of(agent)
    for _ in range(50):
        assert agent.judge(enb).yes
    assert inquiries_of(agent) == before | {"cache": before.get("cache", 0) + 50}, "the ledger was not asked once"
    testbed.change(enb, CertStatus.REVOKED, "keyCompromise")
    agent.until(enb, "revoked")


def inquiries_of(agent: Agent) -> dict[str, float]:
    """Tell how many certificates were found valid, by source."""
    pattern = r'^voice_dpki_segw_inquiries_total\{outcome="valid",source="(\w+)"\} (\S+)$'
    return {source: float(number) for source, number in re.findall(pattern, metrics_of(agent), re.MULTILINE)}


def metrics_of(agent: Agent) -> str:
    log = agent.log.read_text()
    address = next(line.split('"address": "')[1].split('"')[0] for line in log.splitlines() if '"metrics"' in line)
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
        return answer.read().decode()


def test_a_device_cannot_vouch_for_itself(testbed: Testbed, agent: Agent) -> None:
    """An answer from before the revocation is proved, and not too old for a device's judgement of a gateway."""
    enb = device(testbed, 8)
    testbed.record(enb)
    url = f"http://{testbed.addresses['ledger-a']}/ledger/v1/status/{enb.digest.hex()}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        kept = answer.read()
    testbed.change(enb, CertStatus.REVOKED, "keyCompromise")
    agent.until(enb, "revoked")
    assert agent.judge(enb, ledger_answer=kept).code == "revoked"


def test_identity_must_be_the_certificates(testbed: Testbed, agent: Agent) -> None:
    enb = device(testbed, 3)
    testbed.record(enb)
    answer = agent.judge(enb, identification=fqdn("enb4.vendor.example"))
    assert (answer.code, answer.sentence) == ("identity", "step 4 IDi: the identity is not the certificate's")


def test_policy_of_the_plugin_counts(testbed: Testbed, agent: Agent) -> None:
    enb = device(testbed, 5)
    testbed.record(enb)
    assert agent.judge(enb, policy=IntegrityPolicy.REQUIRE).code == "integrity-missing"
    assert agent.judge(enb, integrity_info=b"").code == "integrity-malformed"
    assert agent.judge(enb, integrity_info=b"", policy=IntegrityPolicy.IGNORE).code == "integrity-malformed"
    signer, profile = from_pem(enb.key.read_bytes()), read_profile(enb.der)
    content = IntegrityInfo(Result.PASSED, int(time.time()), ()).sign(signer, SA, profile.digest)
    assert agent.judge(enb, integrity_info=content, policy=IntegrityPolicy.REQUIRE).yes
    assert agent.judge(enb, integrity_info=content, sa=SaName(SA.spi_i, bytes(8))).code == "integrity-forged"


def test_no_certificate(agent: Agent, segw: Credential) -> None:
    assert agent.judge(segw, certificate=b"no certificate").code == "profile"
    assert agent.judge(segw, certificate=segw.der + b"\0").code == "profile"


def test_statements(testbed: Testbed, agent: Agent, segw: Credential) -> None:
    parts = {"operation": Operation.STATE, "sa": SA, "certificate": segw.der}
    stapled = agent.ask(Request(**parts, side=Side.GATEWAY))  # type: ignore[arg-type]
    while not stapled.yes:  # an agent that has just begun has not fetched it yet
        time.sleep(0.05)
        stapled = agent.ask(Request(**parts, side=Side.GATEWAY))  # type: ignore[arg-type]
    assert stapled.ledger_answer
    verifier = AnswerVerifier(light_client(load_genesis(testbed.site.genesis.read_bytes())), max_age_s=30)
    now_s = SystemClock().now_s()
    proved = verifier.verify(stapled.ledger_answer, segw.digest, now_s, min_height=0, with_certificate=False)
    assert proved.status is CertStatus.VALID
    assert agent.judge(segw, side=Side.DEVICE, ledger_answer=stapled.ledger_answer).yes
    stated = agent.ask(Request(**parts, side=Side.DEVICE))  # type: ignore[arg-type]
    assert stated.integrity_info
    IntegrityInfo.parse(stated.integrity_info).verify(SA, read_profile(segw.der))
    other = agent.ask(Request(**{**parts, "certificate": b"another's"}, side=Side.GATEWAY))  # type: ignore[arg-type]
    assert (other.yes, other.code) == (False, "not-configured")


@pytest.mark.parametrize("octets", [b"\0\0", b"\0\1x", b"\0\3\2\1\1", b"\xff\xff" + bytes(65_535)])
def test_malformed_requests_end_the_connection(agent: Agent, octets: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(agent.path))
        connection.sendall(octets)
        assert AgentAnswer.parse(received(connection)).code == "malformed"
        assert connection.recv(1) == b""


@given(octets=st.binary(max_size=200), sized=st.booleans())
@settings(max_examples=60)
def test_any_bytes_on_the_socket(agent: Agent, octets: bytes, sized: bool) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(agent.path))
        connection.sendall(len(octets).to_bytes(2, "big") + octets if sized else octets)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert agent.running.status is None


@campaign
@pytest.mark.timeout(3600)
def test_bent_requests_for_a_time(
    request: pytest.FixtureRequest, testbed: Testbed, agent: Agent, segw: Credential
) -> None:
    """Requests that are bent, several on a connection, whole or in pieces; then the agent still judges rightly."""
    known = device(testbed, 8)
    testbed.record(known)
    frames = [_request(side, credential) for side in Side for credential in (known, segw, device(testbed, 9))]
    agent.running.trace = TraceReader(agent.path.with_name("no longer read"), KINDS)
    for number, chance in enumerate(rounds(request), 1):
        if number % 20_000 == 0:  # each refusal is a line, here and there
            assert "raceback" not in agent.log.read_text()
            os.truncate(agent.log, 0)
            os.truncate(agent.path.with_name("agent.jsonl"), 0)
        octets = b"".join(_framed(chance, bent(chance, chance.choice(frames)[2:], frames)) for _ in range(3))
        with (
            socket.socket(socket.AF_UNIX) as connection,
            contextlib.suppress(BrokenPipeError, ConnectionResetError),
        ):
            connection.settimeout(60)
            connection.connect(str(agent.path))
            cut = chance.randrange(len(octets) + 1)
            connection.sendall(octets[:cut])
            connection.sendall(octets[cut:])
            connection.shutdown(socket.SHUT_WR)
            while head := connection.recv(2, socket.MSG_WAITALL):
                answer = AgentAnswer.parse(connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
                assert answer.code != "internal"
                if answer.code == "malformed":
                    break
    assert agent.running.status is None
    assert agent.judge(known).yes
    assert agent.judge(device(testbed, 9)).code == "not-recorded"


def _request(side: Side, credential: Credential) -> bytes:
    return Request(
        operation=Operation.JUDGE,
        side=side,
        sa=SA,
        certificate=credential.der,
        identification=fqdn(credential.name),
        integrity_info=IntegrityInfo(Result.PASSED, int(time.time()), ()).sign(
            from_pem(credential.key.read_bytes()), SA, credential.digest
        ),
        ledger_answer=b'{"proof": ""}' if side is Side.DEVICE else None,
        connection="devices",
    ).serialize()


def _framed(chance: random.Random, body: bytes) -> bytes:
    """Give a body its length, and now and then another's."""
    size = len(body) if chance.random() < 0.9 else chance.randrange(2**16)
    return min(size, 2**16 - 1).to_bytes(2, "big") + body[: 2**16 - 1]


def test_nothing_went_wrong_unnoticed(agent: Agent) -> None:
    assert "raceback" not in agent.log.read_text()


def test_several_requests_on_a_connection(testbed: Testbed, agent: Agent, segw: Credential) -> None:
    request = Request(operation=Operation.STATE, side=Side.GATEWAY, sa=SA, certificate=segw.der).serialize()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(agent.path))
        deadline, admitted = time.monotonic() + 60, [False]
        while not all(admitted):  # on a busy machine the ledger may not answer within the agent's deadline
            assert time.monotonic() < deadline
            connection.sendall(request[:5])
            connection.sendall(request[5:] + request)
            admitted = [AgentAnswer.parse(received(connection)).yes for _ in range(2)]


def test_socket_is_not_for_everybody(agent: Agent) -> None:
    assert agent.path.stat().st_mode & 0o777 == 0o660


def test_ledger_out_of_reach(testbed: Testbed, agent: Agent) -> None:
    """A new certificate is refused at once after the bound; what was known is no longer relied on."""
    known, new = device(testbed, 6), device(testbed, 7)
    testbed.record(known, new)
    assert agent.judge(known).yes
    testbed.freeze("ledger-a")
    try:
        began = time.monotonic()
        assert agent.judge(new).code == "ledger-unreachable"
        time.sleep(max(0.0, 2.2 - (time.monotonic() - began)))
        assert agent.judge(known).code == "ledger-unreachable"
    finally:
        testbed.thaw("ledger-a")
    deadline = time.monotonic() + 60
    while not agent.judge(known).yes:
        assert time.monotonic() < deadline
