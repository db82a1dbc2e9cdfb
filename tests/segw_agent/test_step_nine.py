"""Step 9: the device deletes its old IKE SA after it has judged the gateway's certificate; the gateway does not."""

import asyncio
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from segw_agent.attachment.network import Testbed
from segw_agent.attachment.site import GATEWAY_NAME, OPERATOR, VENDOR
from segw_agent.config import load_device
from segw_agent.device import Device, Outcome
from segw_agent.live import LiveSas
from segw_agent.live_log import LiveLog, LiveSa
from segw_agent.policy import Question, Side
from segw_agent.rules import PeerRefusedError
from segw_agent.tracer import IkeTracer
from segw_agent.watch import Watch
from tests.ports import free_port
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.ikev2.events import SaName
from voice_dpki.ledger.clock import LedgerClock
from voice_dpki.names import CertDigest
from voice_dpki.stage.events import NoteEvent, ResultEvent

from .conftest import wait_until


class Site:
    """A gateway that runs, and a device that is recorded."""

    def __init__(self, testbed: Testbed) -> None:
        self.testbed, self.port = testbed, free_port()
        self.gateway = testbed.site.credential("segw", GATEWAY_NAME, OPERATOR)
        self.device = testbed.site.credential("enb-nine", "enb9.vendor.example", VENDOR)
        testbed.record(self.gateway, self.device)
        testbed.start_gateway(self.gateway, listen={"port": self.port})

    def live(self) -> int:
        """How many SAs stand at the gateway."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        (value,) = (line.split()[1] for line in lines if line.startswith("voice_dpki_segw_live_sas "))
        return int(float(value))


@pytest.fixture(scope="module")
def site(testbed: Testbed) -> Site:
    return Site(testbed)


def old_sas_told(site: Site) -> int:
    """Count what the gateway has said of old IKE SAs, to devices of other tests too."""
    events = site.testbed.events()
    return sum(isinstance(e, NoteEvent) and e.actor == "gateway" and "old IKE SA" in e.text for e in events)


def test_three_attachments_leave_one_sa(site: Site) -> None:
    before = old_sas_told(site)
    running = site.testbed.start_device(site.device, attach=3, stay=True)
    results = iter(range(1, 100))
    running.wait_for(lambda event: isinstance(event, ResultEvent) and next(results) == 3, "attach three times", 60)
    wait_until(lambda: site.live() == 1, "one SA stands")
    running.trace.poll()
    said = [event.text for event in running.trace.events if isinstance(event, NoteEvent)]
    steps = [text[0] for text in said if text.startswith(("8 SeGW's certificate verified", "9 the old IKE SA"))]
    assert steps == ["8", "8", "9", "8", "9"]
    site.testbed.end(["device"])
    wait_until(lambda: site.live() == 0, "the device has gone")
    assert old_sas_told(site) == before, "the gateway deleted none itself"


class Choosing:
    """A device's judge that trusts the first gateway that it sees, and refuses it the second time."""

    def __init__(self, judge: Any) -> None:
        self.judge_of_it, self.seen = judge, 0

    async def judge(self, question: Question) -> Any:
        self.seen += 1
        if self.seen > 1:
            raise PeerRefusedError("revoked", "8 SeGW certificate", "the certificate was revoked on the ledger")
        return await self.judge_of_it.judge(question)


async def test_a_device_that_refuses_the_gateway_keeps_what_it_had(site: Site) -> None:
    device, stop = await asyncio.to_thread(_prepared, site), asyncio.Event()
    judge = Choosing(device._judge)
    device._judge = judge  # type: ignore[assignment]
    running = asyncio.create_task(device.run(stop))
    await asyncio.to_thread(wait_until, lambda: judge.seen == 2 and site.live() == 1, "it refuses")
    await asyncio.sleep(0.2)
    assert not running.done(), "it stays, with the SA that it had"
    assert site.live() == 1
    stop.set()
    ended: Outcome = await running
    assert (ended.attached, ended.code) == (False, "revoked")
    await asyncio.to_thread(wait_until, lambda: site.live() == 0, "the old SA is deleted when the device goes")


def _prepared(site: Site) -> Device:
    site.testbed.start_device(site.device, attach=2, stay=True)
    site.testbed.end(["device"])
    wait_until(lambda: site.live() == 0, "that device has gone")
    config, setup = load_device(site.testbed.folder / "device.toml")
    return Device(config, setup, SystemClock(), SystemRandom(), IkeTracer(None, "device"))


# --- INITIAL_CONTACT: who has lost its SA says so ----------------------------------------------------------------


def test_a_device_that_was_switched_off_replaces_its_sa(site: Site) -> None:
    """It ended without a word. Its next SA comes with INITIAL_CONTACT, and the gateway deletes the one it has."""
    first = site.testbed.start_device(site.device, stay=True)
    first.wait_for(lambda event: isinstance(event, ResultEvent), "attach", 60)
    first.send(signal.SIGKILL)
    first.wait_end(60)
    assert site.live() == 1
    site.testbed.end(["device"])
    second = site.testbed.start_device(site.device, stay=True)
    second.wait_for(lambda event: isinstance(event, ResultEvent), "attach", 60)
    wait_until(lambda: site.live() == 1, "the old SA is given up")
    site.testbed.end(["device"])


# --- the agent of a device on strongSwan --------------------------------------------------------------------------


class Ends:
    """A daemon that ends what it is told to."""

    def __init__(self) -> None:
        self.ended: list[SaName] = []

    async def end(self, sa: LiveSa, reason: str) -> bool:
        self.ended.append(sa.name)
        return True

    async def standing(self) -> None:
        return None


def sa(number: int, side: Side = Side.DEVICE, **changes: Any) -> LiveSa:
    parts: dict[str, Any] = {"identity": GATEWAY_NAME, "connection": "segw"} | changes
    name = SaName(bytes([number]) * 8, b"\1" * 8)
    facts = (CertDigest(b"\1" * 32), OPERATOR, 2**31, 0.0, (), (), None)
    return LiveSa(name, number, side, parts["identity"], *facts, connection=parts["connection"])


async def test_the_agent_of_a_device_ends_its_older_sas_once_the_new_one_stands(tmp_path: Path) -> None:
    """Those with the same gateway by the same connection, and none that the daemon has made since."""
    log = LiveLog(tmp_path / "live.jsonl")
    log.load()
    others = [sa(4, Side.GATEWAY), sa(5, identity="segw.b.example"), sa(6, connection="other")]
    for each in (sa(1), sa(2), *others, sa(7), sa(8)):
        log.add(each)
    control = Ends()
    watch = Watch([], LedgerClock(SystemClock(), 0), bound_s=2, max_age_s=30, max_entries=10)
    live = LiveSas(None, watch, control, SystemClock(), log)  # type: ignore[arg-type]  # nothing is judged here
    await live._end_marked()
    assert control.ended == [], "an SA that is only vouched for replaces none"
    live.established(sa(9).name)
    live.established(sa(4).name)
    await live._end_marked()
    assert control.ended == []
    live.established(sa(7).name)
    await live._end_marked()
    assert sorted(control.ended) == [sa(1).name, sa(2).name]
    assert len(live) == 5
