"""Strangers whose devices are refused: they cannot fill the log, nor the gateway's memory."""

import logging
from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import Any, cast

import pytest

from segw_agent.agent import Agent
from segw_agent.gateway import Gateway
from segw_agent.policy import Question, Side
from segw_agent.protocol import Operation, Request
from segw_agent.refusals import MAX_CODES, Refusals
from segw_agent.tracer import IkeTracer
from tests.ikev2.conftest import GATEWAY, CountingRandom, party
from voice_dpki.effects import SystemClock
from voice_dpki.ikev2.events import Failed, SaName, Trusted
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.payloads import Identification
from voice_dpki.ikev2.responder import Responder
from voice_dpki.ikev2.sa import Settings
from voice_dpki.x509.keys import generate_es256

FLOOD = 300


def name_of(number: int) -> SaName:
    return SaName(number.to_bytes(8, "big"), b"\1" * 8)


class TrustingJudge:
    async def judge(self, question: Question) -> Trusted:
        return Trusted()


@pytest.fixture
def gateway() -> Gateway:
    """A gateway with a responder that has no SA, and without sockets or a ledger."""
    made = object.__new__(Gateway)
    inner = IPv4Network("10.0.0.0/24")
    owner = party(GATEWAY, generate_es256())
    made.responder = Responder(owner, Settings(), CountingRandom("gateway"), pool=inner, inner=inner)
    made._clock, made._tracer, made._timer = SystemClock(), IkeTracer(None, "gateway"), None
    made._judge, made._assembly = cast(Any, TrustingJudge()), cast(Any, SimpleNamespace(staple=None))
    made._questions, made._refusals = {}, Refusals(logging.getLogger("segw_agent.gateway"), "device refused")
    return made


def said(caplog: pytest.LogCaptureFixture, message: str) -> int:
    return [record.message for record in caplog.records].count(message)


async def test_an_sa_that_is_gone_when_it_is_judged_leaves_nothing_behind(gateway: Gateway) -> None:
    for number in range(FLOOD):
        certificate = cast(Any, None)
        await gateway._decide(Question(Side.GATEWAY, name_of(number), "enb1", certificate))
    assert gateway._questions == {}


def test_refused_devices_cannot_fill_the_gateways_log(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(FLOOD):
        gateway._failed(Failed(name_of(number), IkeError(Failure.TIMEOUT, "the peer did not go on to IKE_AUTH")))
    assert 1 <= said(caplog, "device refused") < FLOOD / 10
    caplog.clear()
    gateway._failed(Failed(name_of(0), IkeError(Failure.JUDGED, "revoked", code="revoked")))
    assert said(caplog, "device refused") == 1  # one reason does not hide another
    for number in range(FLOOD):
        gateway._failed(Failed(name_of(0), IkeError(Failure.JUDGED, "whatever", code=f"code-{number}")))
    assert len(gateway._refusals._of_code) == MAX_CODES


async def test_refused_peers_cannot_fill_the_agents_log(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(cast(Any, TrustingJudge()))
    for number in range(FLOOD):
        request = Request(
            operation=Operation.JUDGE,
            side=Side.GATEWAY,
            sa=name_of(number),
            certificate=b"no certificate",
            identification=Identification(2, b"enb1"),
        )
        answer = await agent.answer(request)
        assert not answer.yes
    assert 1 <= said(caplog, "refused") < FLOOD / 10
