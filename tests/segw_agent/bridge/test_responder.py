"""The responder's own bounds: an expired certificate signs nothing, and only so many questions wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from segw_agent import main
from segw_agent.assembly import inquiry_nodes
from segw_agent.attachment.network import Testbed
from segw_agent.attachment.site import VENDOR
from segw_agent.bridge import responder as responder_module
from segw_agent.bridge.config import Bridge
from segw_agent.bridge.responder import MAX_AT_ONCE, Responder
from segw_agent.bridge.serial import serial_of
from segw_agent.bridge.vouching import NotVouchedError, Vouched, Vouching
from segw_agent.policy import Side
from segw_agent.rules import PeerRefusedError, Step
from voice_dpki.effects import Clock, SystemClock
from voice_dpki.ledger.answers import InquiryCode, InquiryError
from voice_dpki.ledger.records import CertStatus
from voice_dpki.shell.readiness import State
from voice_dpki.stage.site import Credential

Status, Failure = ocsp.OCSPCertStatus, ocsp.OCSPResponseStatus
YEAR_S = 366 * 86_400


class Later:
    """A clock that is ahead."""

    def __init__(self, by_s: float) -> None:
        self._by_s = by_s

    def now_s(self) -> float:
        return SystemClock().now_s() + self._by_s

    def steady_s(self) -> float:
        return SystemClock().steady_s() + self._by_s


@pytest.fixture(scope="module")
def bridge(testbed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Bridge:
    folder = tmp_path_factory.mktemp("bridge")
    sections = {
        "ocsp_url": "http://127.0.0.1:26690/ocsp",
        "ca": {"name": "A CA", "certificate": folder / "ca.pem", "key": folder / "ca.key"},
        "responder": {"certificate": folder / "ocsp.pem", "key": folder / "ocsp.key"},
        "listen": {"port": 0},
        "ledger": {"genesis": "genesis.json", "urls": [f"http://{testbed.addresses['ledger-a']}"]},
        "policy": {"organizations": [VENDOR], "allow": ["*.vendor.example"]},
    }
    path: Path = testbed.site.config("responder", sections)
    assert main.main(["bridge", "init", "--config", str(path), "--responder-days", "300"]) == 0
    return Bridge.load(path)


@pytest.fixture(scope="module")
def device(testbed: Testbed) -> Credential:
    made = testbed.site.credential("responder-device", "enb1.responder.vendor.example", VENDOR)
    testbed.record(made)
    return made


@pytest.fixture(scope="module")
def revoked(testbed: Testbed) -> tuple[Credential, float]:
    """A device that is revoked, and a time before that."""
    made = testbed.site.credential("responder-revoked", "enb2.responder.vendor.example", VENDOR)
    testbed.record(made)
    before_s = SystemClock().now_s()
    testbed.change(made, CertStatus.REVOKED, "keyCompromise")
    return made, before_s


@asynccontextmanager
async def responding(
    bridge: Bridge, clock: Clock, skew_s: float = 0.0, ahead_s: float = 0.0
) -> AsyncIterator[Responder]:
    async with inquiry_nodes(bridge.setup(), SystemClock()) as nodes:
        vouching = Vouching(nodes, bridge.config.policy, SystemClock())
        signer, skews = bridge.answer_signer(), {"skew_s": skew_s, "ahead_s": ahead_s}
        made = Responder(vouching, signer, clock, validity_s=5, max_age_s=30, **skews)
        async with aclosing(made):
            yield made


def request(bridge: Bridge, device: Credential) -> bytes:
    ca = x509.load_pem_x509_certificate(bridge.file(bridge.config.ca.certificate).read_bytes())
    by_ca = ocsp.OCSPRequestBuilder().add_certificate(ca, ca, hashes.SHA1()).build()
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        by_ca.issuer_name_hash, by_ca.issuer_key_hash, serial_of(device.digest), hashes.SHA1()
    )
    return builder.build().public_bytes(Encoding.DER)


async def ask(responder: Responder, data: bytes) -> ocsp.OCSPResponse:
    return ocsp.load_der_ocsp_response(await responder.answer(data))


async def test_an_expired_responder_signs_nothing(bridge: Bridge, device: Credential) -> None:
    data = request(bridge, device)
    async with responding(bridge, SystemClock()) as responder:
        assert (await ask(responder, data)).certificate_status is Status.GOOD
    async with responding(bridge, Later(YEAR_S)) as responder:
        assert (await ask(responder, data)).response_status is Failure.INTERNAL_ERROR


@pytest.mark.parametrize("ahead_s", [-3.0, 28.0])
async def test_updates_lie_around_now(bridge: Bridge, device: Credential, ahead_s: float) -> None:
    clock = Later(ahead_s)  # behind the validators' clock, and so far ahead that the proof is about to be too old
    async with responding(bridge, clock) as responder:
        answer = await ask(responder, request(bridge, device))
    assert answer.next_update_utc
    this_s, next_s = answer.this_update_utc.timestamp(), answer.next_update_utc.timestamp()
    assert this_s <= clock.now_s()
    assert this_s <= next_s <= min(this_s + 31, clock.now_s() + 5)


@pytest.mark.parametrize("skew_s", [0.0, 300.0])
async def test_a_client_whose_clock_is_behind_accepts_answers_and_keeps_none_longer(
    bridge: Bridge, device: Credential, skew_s: float
) -> None:
    """thisUpdate is earlier by the skew that is configured; nextUpdate is what it is without."""
    async with responding(bridge, SystemClock(), skew_s=skew_s) as responder:
        before_s = SystemClock().now_s()
        answer = await ask(responder, request(bridge, device))
        after_s = SystemClock().now_s()
    assert answer.next_update_utc
    this_s, next_s = answer.this_update_utc.timestamp(), answer.next_update_utc.timestamp()
    assert before_s - 31 <= this_s + skew_s <= after_s
    assert before_s - 1 <= next_s - 5 <= after_s
    for behind_s, accepted in ((0, True), (skew_s, True), (skew_s + 60, False)):
        assert (this_s <= after_s - behind_s <= next_s) is accepted


@pytest.mark.parametrize("kept", [True, False])
async def test_a_client_whose_clock_is_ahead_accepts_answers_where_none_are_kept(
    bridge: Bridge, device: Credential, kept: bool
) -> None:
    """nextUpdate is later by the skew then; where answers are kept, that would be longer trust."""
    configured = replace(bridge, config=msgspec.structs.replace(bridge.config, answers_kept=kept))
    skew_s = bridge.config.clock_skew_s
    async with responding(bridge, SystemClock(), skew_s, configured.ahead_s) as responder:
        before_s = SystemClock().now_s()
        answer = await ask(responder, request(bridge, device))
        after_s = SystemClock().now_s()
    assert answer.next_update_utc
    this_s, next_s = answer.this_update_utc.timestamp(), answer.next_update_utc.timestamp()
    assert before_s - 1 <= next_s - 5 - (0 if kept else skew_s) <= after_s
    for off_s, accepted in ((-skew_s, True), (0, True), (skew_s, not kept), (skew_s + 60, False)):
        assert (this_s <= before_s + off_s <= next_s) is accepted, off_s


async def test_a_revocation_is_as_late_as_it_was_for_all_clocks(
    bridge: Bridge, revoked: tuple[Credential, float]
) -> None:
    device, before_s = revoked
    async with responding(bridge, SystemClock(), skew_s=300.0) as responder:
        answer = await ask(responder, request(bridge, device))
    assert answer.certificate_status is Status.REVOKED
    assert answer.revocation_time_utc
    assert before_s - 31 <= answer.revocation_time_utc.timestamp() <= SystemClock().now_s()


async def test_only_so_many_questions_wait(bridge: Bridge, device: Credential, testbed: Testbed) -> None:
    data = request(bridge, device)
    async with responding(bridge, SystemClock()) as responder:
        testbed.freeze("ledger-a")
        try:
            waiting = [asyncio.create_task(ask(responder, data)) for _ in range(MAX_AT_ONCE)]
            await asyncio.sleep(0)  # all have begun
            assert (await ask(responder, data)).response_status is Failure.TRY_LATER
            assert not any(task.done() for task in waiting)
        finally:
            testbed.thaw("ledger-a")
        assert {(await task).response_status for task in waiting} <= {Failure.SUCCESSFUL, Failure.TRY_LATER}
        assert (await ask(responder, data)).certificate_status is Status.GOOD


class Mute:
    """A ledger that gives no answer until it is told to, and then proves that nobody has the certificate."""

    def __init__(self) -> None:
        self.mute = True

    async def about_serial(self, _serial: int) -> Vouched:
        if self.mute:
            raise InquiryError(InquiryCode.UNREACHABLE, "the node is silent")
        refusal = PeerRefusedError("not-recorded", Step.CERTIFICATE.named(Side.GATEWAY), "not recorded")
        raise NotVouchedError(refusal, SystemClock().now_s(), None, None)


async def test_a_ledger_that_is_back_is_known_without_a_question(
    bridge: Bridge, device: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load balancer that reads 503 at /readyz sends no questions, which alone told of it before."""
    monkeypatch.setattr(responder_module, "AGAIN_S", 0.01)
    ledger = Mute()
    signer = bridge.answer_signer()
    made = Responder(cast("Vouching", ledger), signer, SystemClock(), validity_s=5, max_age_s=30)
    async with aclosing(made):
        assert (await ask(made, request(bridge, device))).response_status is Failure.TRY_LATER
        await asyncio.sleep(0.05)
        assert made.readiness.find("ledger").state is State.FAILED
        ledger.mute = False
        async with asyncio.timeout(60):
            while made.readiness.find("ledger").state is State.FAILED:
                await asyncio.sleep(0.01)
        assert made.readiness.find("ledger").state is State.OK
