"""One judgement: the agent, the bridge, the gateway in Python and the device refuse with the same words."""

import asyncio
import logging
from dataclasses import replace
from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import Any, cast

import pytest

from segw_agent.agent import Agent
from segw_agent.bridge.vouching import NotVouchedError, Vouching
from segw_agent.device import Device
from segw_agent.gateway import Gateway
from segw_agent.live import LiveSas
from segw_agent.policy import CertificatePolicy, IntegrityPolicy, Side
from segw_agent.protocol import Operation, Request
from segw_agent.refusals import Refusals
from segw_agent.vici_control import _report
from tests.ikev2.conftest import SETTINGS, CountingRandom, Wire, new_device, party
from voice_dpki.ikev2.events import CertificateToJudge, Failed, Untrusted
from voice_dpki.ikev2.identity import fqdn
from voice_dpki.ikev2.responder import Responder

from .test_rules import BROKEN, NAMES, SA, SIGNER, UNFIT, At, Case, certificate, judge_of, nodes_of, policy

Refused = tuple[str, str]
"""The code and the sentence of a refusal, without the step, which each side numbers as the flow does."""


def at_the_agent(case: Case, side: Side = Side.GATEWAY) -> Refused:
    request = Request(
        operation=Operation.JUDGE,
        side=side,
        sa=SA,
        certificate=case.profile.der,
        identification=fqdn(case.identity),
        integrity_info=case.content,
        policy=IntegrityPolicy.IGNORE,
    )
    answer = asyncio.run(Agent(judge_of(case)).answer(request))
    assert not answer.yes
    return answer.code, answer.sentence.partition(": ")[2]


def at_the_bridge(case: Case) -> Refused:
    outside: Any = At(case=case)
    keys = {key: getattr(case.policy, key) for key in CertificatePolicy.__struct_fields__}
    with pytest.raises(NotVouchedError) as refused:
        asyncio.run(Vouching(nodes_of(outside), CertificatePolicy(**keys), outside).about(case.profile.digest))
    return refused.value.code, refused.value.sentence


class Told:
    """The end of an IKE SA that waits for a verdict."""

    def __init__(self) -> None:
        self.verdict: Any = None

    def judge(self, *arguments: Any) -> None:
        self.verdict = arguments[-2]


def at_the_python_gateway(case: Case) -> Refused:
    gateway, told = object.__new__(Gateway), Told()
    gateway._judge, gateway._questions, gateway.responder = judge_of(case), {}, cast(Any, told)
    gateway._clock = cast(Any, At(case=case))
    gateway._refusals = Refusals(logging.getLogger(__name__), "device refused")
    gateway._pump = lambda: None  # type: ignore[method-assign]
    asyncio.run(gateway._decide(case.question()))
    return _told(told)


def at_the_python_device(case: Case) -> Refused:
    device, told = object.__new__(Device), Told()
    device._judge, device._clock = judge_of(case), cast(Any, At(case=case))
    device._pump = lambda: None  # type: ignore[method-assign]
    claim = CertificateToJudge(SA, case.identity, case.profile, case.content, None)
    asyncio.run(device._decide(cast(Any, told), claim))
    return _told(told)


def _told(told: Told) -> Refused:
    assert isinstance(told.verdict, Untrusted)
    return told.verdict.code, told.verdict.sentence


ONLY_AT_ONE = {"not-given", "profile"}
"""What only the bridge meets, for the others have the certificate of the peer; `test_a_malformed_certificate`."""
OF_DEVICES = {code for code in BROKEN if code.startswith("integrity-")}
"""What only a gateway judges, and the bridge knows nothing of."""


@pytest.mark.parametrize("code", sorted(BROKEN.keys() - ONLY_AT_ONE - OF_DEVICES))
def test_all_four_refuse_with_the_same_code_and_sentence(code: str) -> None:
    case = BROKEN[code][0]
    refused = at_the_agent(case)
    assert refused[0] == code
    assert at_the_bridge(case) == refused
    assert at_the_python_gateway(case) == refused
    assert at_the_python_device(case) == refused
    assert at_the_agent(case, Side.DEVICE) == refused


def test_a_vendor_that_has_lost_one_of_two_domains() -> None:
    """Of the names that its certificates bear, one is another member's now."""
    both = certificate(*NAMES, "enb1.elsewhere.example")
    case = Case(profile=both, policy=policy(allow=("*",)))
    lost = "the organisation that recorded the certificate does not hold the domain of each of its names"
    assert at_the_agent(case) == ("domain", lost)
    assert at_the_bridge(case) == at_the_python_gateway(case) == at_the_python_device(case) == ("domain", lost)


def test_the_bridge_says_the_same_of_a_serial_that_nobody_recorded() -> None:
    class Nothing(At):
        async def resolve_prefix(self, _prefix: bytes) -> Any:
            return SimpleNamespace(others=(), recorded=(), header=SimpleNamespace(time_ns=1))

    case = BROKEN["not-recorded"][0]
    outside: Any = Nothing(case=case)
    keys = {key: getattr(case.policy, key) for key in CertificatePolicy.__struct_fields__}
    with pytest.raises(NotVouchedError) as refused:
        asyncio.run(Vouching(nodes_of(outside), CertificatePolicy(**keys), outside).about_serial(1))
    assert (refused.value.code, refused.value.sentence) == at_the_agent(case)


def test_trusted_is_said_only_once_the_daemon_has_verified_auth(caplog: pytest.LogCaptureFixture) -> None:
    """Anybody can show a certificate that the ledger vouches for; only its holder can sign with it."""
    caplog.set_level(logging.INFO)
    case = Case()
    outside: Any = At(case=case)
    outside.clock = outside
    judge = judge_of(case)
    live = LiveSas(judge, outside, outside, outside)
    request = Request(
        operation=Operation.JUDGE,
        side=Side.GATEWAY,
        sa=SA,
        certificate=case.profile.der,
        identification=fqdn(case.identity),
        integrity_info=case.content,
    )
    answer = asyncio.run(Agent(judge, live).answer(request))
    assert (answer.yes, answer.code) == (True, "vouched-for")
    assert [record.message for record in caplog.records] == ["vouched for"]
    up = {
        "up": b"yes",
        "conn": {"initiator-spi": SA.spi_i.hex().encode(), "responder-spi": SA.spi_r.hex().encode()},
    }
    for heard in (up, up | {"conn": {**up["conn"], "responder-spi": b"07" * 8}}):  # type: ignore[dict-item]
        heard["conn"] = {**heard["conn"], "uniqueid": b"1"}  # type: ignore[dict-item]
        _report(heard, cast(Any, SimpleNamespace(call_soon_threadsafe=lambda call, *with_: call(*with_))), live)
    assert [record.message for record in caplog.records] == ["vouched for", "trusted"]
    assert len(live) == 1


# --- before the ledger is asked -----------------------------------------------------------------------------------


def of_the_cores(der: bytes) -> set[Refused]:
    """How both ends of IKEv2 in Python refuse a certificate that the peer shows."""
    return {_of_core(der, end) for end in ("device", "gateway")}


def _of_core(der: bytes, end: str) -> Refused:
    peers, ours = party(NAMES[0], SIGNER), party("other.example", SIGNER)
    object.__setattr__(peers, "certificate", der)
    shows, judges = (peers, ours) if end == "gateway" else (ours, peers)
    inner = IPv4Network("10.8.0.0/16")
    gateway = Responder(judges, SETTINGS, CountingRandom("gateway"), pool=inner, inner=inner)
    wire = Wire(new_device(shows), gateway).start()
    (failed,) = wire.happened(end, Failed)
    return failed.error.code, failed.error.sentence


@pytest.mark.parametrize("der", [UNFIT.der, b"no certificate"], ids=["key usage", "malformed"])
def test_what_a_certificate_shows_by_itself(der: bytes) -> None:
    """A key that may not sign, or no certificate at all: the agent and both cores say what the bridge says."""
    case = BROKEN["key-usage"][0] if der == UNFIT.der else BROKEN["profile"][0]
    shown = replace(case, profile=replace(case.profile, der=der))
    expected = at_the_agent(shown)
    assert of_the_cores(der) == {expected}
    assert at_the_bridge(case) == expected
