"""Session timers over real sockets, with intervals of tenths of seconds (RFC 4028)."""

import asyncio

import pytest

from tests.wire.sip.agents import CALLEE, CALLER, SDP, TARGET, TIMEOUT_S, Make, Peer, keeps, until
from tests.wire.sip.test_reinvite import accepts
from voice_dpki.sip.message import Hop
from voice_dpki.sip.session_timer import Interval
from voice_dpki.wire.sip.user_agent import Call, IncomingCall


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interval, "refresh_after_s", 0.1)
    monkeypatch.setattr(Interval, "end_after_s", 1.5)


async def timed_call(make: Make) -> tuple[Call, IncomingCall]:
    callee = await make(CALLEE, Hop("udp", "127.0.0.1", 9))
    caller = await make(CALLER, callee.address, session_s=120)
    calls: list[IncomingCall] = []
    callee.on_invite = keeps(calls)
    call = await caller.invite(TARGET, SDP)
    await until(lambda: calls)
    assert calls[0].request.headers["Session-Expires"] == "120"
    await calls[0].answer(SDP)
    answer = await call.answered()
    assert answer.headers["Session-Expires"] == "120;refresher=uac"
    return call, calls[0]


@pytest.mark.usefixtures("fast")
async def test_a_call_is_refreshed_and_ends_once_nobody_does(make: Make) -> None:
    call, incoming = await timed_call(make)
    seen: list[bytes] = []
    incoming.on_reinvite(accepts(seen))
    sends = asyncio.Event()
    sends.set()

    async def refresh() -> None:
        if sends.is_set():
            await call.reinvite(lambda: b"same")

    call.on_refresh(refresh)
    call._changes.refreshing.restart()
    await until(lambda: len(seen) >= 8)
    assert not incoming.ended.is_set()
    sends.clear()
    await asyncio.wait_for(asyncio.gather(call.ended.wait(), incoming.ended.wait()), TIMEOUT_S)


@pytest.mark.usefixtures("fast")
async def test_the_end_that_does_not_refresh_ends_a_call_whose_other_end_is_gone(make: Make) -> None:
    call, incoming = await timed_call(make)  # the caller was to refresh, and has nothing to do it with
    await asyncio.wait_for(incoming.ended.wait(), TIMEOUT_S)
    await asyncio.wait_for(call.ended.wait(), TIMEOUT_S)
    assert call.ended_by_peer
    assert call.end_headers["Reason"].startswith("SIP;cause=408;")


async def test_an_interval_that_is_too_short_for_somebody_is_lengthened(make: Make, peer: Peer) -> None:
    agent = await make(CALLER, peer.hop, session_s=120)
    call = await agent.invite(TARGET, SDP)
    peer.answer(await peer.request("INVITE"), 422, ("Min-SE", "300"))
    again = await peer.request("INVITE")
    assert (again.headers["Session-Expires"], again.headers["Min-SE"]) == ("300", "300")
    assert again.headers["CSeq"] == "2 INVITE"
    peer.answer(again, 200, ("Session-Expires", "300;refresher=uac"), ("Require", "timer"))
    await peer.request("ACK")
    assert call._changes.timer.interval == Interval(300, is_ours=True)
    change = asyncio.create_task(call.reinvite(lambda: b"hold"))
    invite = await peer.request("INVITE")
    assert invite.headers["Session-Expires"] == "300;refresher=uac"
    peer.answer(invite, 422, ("Min-SE", "600"))
    longer = await peer.request("INVITE")
    assert longer.headers["Session-Expires"] == "600;refresher=uac"
    peer.answer(longer, 200)
    await peer.request("ACK")
    assert (await change).status == 200
    assert call._changes.timer.interval == Interval(600, is_ours=True)  # the other side does not know timers
