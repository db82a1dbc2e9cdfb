"""Changes of a call that are given up while the other side considers them: both sides know the same afterwards."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from sipmessage import Request

from tests.wire.sip.agents import TIMEOUT_S, Make, Peer, in_dialog, until
from tests.wire.sip.test_reinvite import called, placed, with_offer
from tests.wire.sip.test_update import answered, update
from voice_dpki.wire.sip import changes, updates
from voice_dpki.wire.sip.changes import Reinvite
from voice_dpki.wire.sip.user_agent import Call


async def given_up(task: "asyncio.Task[object]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def considered(call: Call, peer: Peer, *, status: int | None = 100) -> Request:
    """A re-INVITE of ours that the peer has got, with a provisional response if any, and that was given up then."""
    change = asyncio.create_task(call.reinvite(lambda: b"hold"))
    invite = await peer.request("INVITE")
    if status is not None:
        peer.answer(invite, status)
    await given_up(change)
    return invite


async def test_a_change_that_is_given_up_is_cancelled_and_the_call_goes_on(make: Make, peer: Peer) -> None:
    call = await placed(make, peer)
    invite = await considered(call, peer)
    cancel = await peer.request("CANCEL")
    assert cancel.headers["Via"] == invite.headers["Via"]
    assert cancel.headers["CSeq"] == invite.headers["CSeq"].replace("INVITE", "CANCEL")
    peer.answer(cancel, 200)
    again = asyncio.create_task(call.reinvite(lambda: b"resume"))
    peer.answer(invite, 487)
    await peer.request("ACK")
    peer.answer(await peer.request("INVITE"), 200)
    await peer.request("ACK")
    assert (await asyncio.wait_for(again, TIMEOUT_S)).status == 200
    assert call.is_up


async def test_one_that_is_given_up_is_cancelled_only_after_a_provisional_response(make: Make, peer: Peer) -> None:
    """RFC 3261 §9.1; until its final response it is in progress, and no other crosses it (§14.1, §14.2)."""
    call = await placed(make, peer)
    change = asyncio.create_task(call.reinvite(lambda: b"hold"))
    invite = await peer.request("INVITE")
    await given_up(change)
    again = asyncio.create_task(call.reinvite(lambda: b"resume"))
    for _ in range(2):
        repeated, _address = await peer.received.get()
        assert isinstance(repeated, Request)
        assert (repeated.method, repeated.body) == ("INVITE", b"hold")
    assert not call._changes.progress.may_send
    peer.answer(invite, 100)
    peer.answer(await peer.request("CANCEL"), 200)
    peer.answer(invite, 487)
    resumed = await peer.request("INVITE")
    assert resumed.body == b"resume"
    peer.answer(resumed, 200)
    assert (await asyncio.wait_for(again, TIMEOUT_S)).status == 200


async def test_a_2xx_that_crosses_the_cancel_is_acknowledged_and_ends_the_call(make: Make, peer: Peer) -> None:
    call = await placed(make, peer)
    invite = await considered(call, peer)
    peer.answer(await peer.request("CANCEL"), 481)
    peer.answer(invite, 200)
    assert (await peer.request("ACK")).headers["CSeq"] == "2 ACK"
    bye = await peer.request("BYE")
    assert "given up" in bye.headers["Reason"]
    peer.answer(invite, 200)
    assert (await peer.request("ACK")).headers["CSeq"] == "2 ACK"
    peer.answer(bye, 200)
    assert call.ended.is_set()


async def test_a_2xx_that_comes_just_as_the_change_is_given_up_ends_the_call(
    make: Make, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer has come, but whoever waited for it never gets it."""
    call = await placed(make, peer)
    change = asyncio.create_task(call.reinvite(lambda: b"hold"))
    invite = await peer.request("INVITE")
    restart = call._changes.refreshing.restart

    def cancelled() -> None:
        restart()
        change.cancel()

    monkeypatch.setattr(call._changes.refreshing, "restart", cancelled)
    peer.answer(invite, 200)
    await peer.request("ACK")
    peer.answer(await peer.request("BYE"), 200)
    assert call.ended.is_set()
    with suppress(asyncio.CancelledError):
        await change


@pytest.mark.parametrize("status", [481, 408])
async def test_the_end_of_the_dialog_is_seen_after_a_change_was_given_up(
    make: Make, peer: Peer, status: int
) -> None:
    call = await placed(make, peer)
    peer.answer(await considered(call, peer), status)
    peer.answer(await peer.request("BYE"), 200)
    assert call.ended.is_set()


@pytest.mark.parametrize("headers", [("Min-SE", "120"), ("WWW-Authenticate", 'Digest realm="r", nonce="n"')])
async def test_a_change_that_was_given_up_is_not_tried_again(
    make: Make, peer: Peer, headers: tuple[str, str]
) -> None:
    call = await placed(make, peer)
    invite = await considered(call, peer)
    await peer.request("CANCEL")
    peer.answer(invite, 422 if headers[0] == "Min-SE" else 401, headers)
    await until(lambda: call._changes.progress.may_send)
    ended = asyncio.create_task(call.bye())
    while not isinstance((message := (await peer.received.get())[0]), Request) or message.method != "BYE":
        assert not isinstance(message, Request) or message.method in ("CANCEL", "ACK") or message.body == b"hold"
        assert message.headers["CSeq"].split()[0] == "2"
    peer.answer(message, 200)
    await ended


def waits(started: list[Reinvite]) -> Callable[[Reinvite], Awaitable[None]]:
    async def on_reinvite(change: Reinvite) -> None:
        started.append(change)
        await asyncio.Event().wait()

    return on_reinvite


async def test_a_change_that_nobody_answers_in_time_is_refused(
    make: Make, peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Reinvite, "limit_s", 0.01)
    monkeypatch.setattr(updates.Update, "limit_s", 0.01)
    call, invite, tag, address = await called(make, peer)
    call.on_reinvite(waits([]))
    peer.send(with_offer(in_dialog(invite, "INVITE", tag, "two", 2)), address)
    assert (await peer.response(504)).headers["CSeq"] == "2 INVITE"
    peer.send(update(invite, tag, 3, body=b"v=0\r\n"), address)
    while (await peer.response(504)).headers["CSeq"] != "3 UPDATE":
        pass  # the first 504 again, as it has no ACK
    assert call.is_up
    assert "took too long" in caplog.text
    assert "Traceback" not in caplog.text


def test_an_update_is_answered_before_its_sender_gives_up() -> None:
    """That is after 64*T1 with T1 as RFC 3261 has it, and a half of it is left for the way and for repetitions."""
    assert updates.Update.limit_s <= 64 * 0.5 / 2


async def test_the_time_for_the_ack_begins_with_the_answer(
    make: Make, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late answer leaves as much time for its ACK and for what follows that as an early one."""
    monkeypatch.setattr(Reinvite, "limit_s", 0.2)
    call, invite, tag, address = await called(make, peer)
    done: list[float] = []

    async def late(change: Reinvite) -> None:
        assert change.limit is not None
        before_s = change.limit.when()
        with suppress(TimeoutError):
            await change.accept(b"answer")
        assert before_s is not None
        done.append((change.limit.when() or 0.0) - before_s)

    call.on_reinvite(late)
    peer.send(with_offer(in_dialog(invite, "INVITE", tag, "two", 2)), address)
    await answered(peer, 200, 2)
    peer.send(in_dialog(invite, "ACK", tag, "ack2", 2), address)
    await until(lambda: done)
    assert done[0] > changes.MAX_CHANGE_S / 2


async def test_a_handler_that_is_ended_while_it_waits_for_the_ack_leaves_the_call_able_to_change(
    make: Make, peer: Peer
) -> None:
    call, invite, tag, address = await called(make, peer)
    cancelled = asyncio.Event()

    async def accepts_and_is_cancelled(change: Reinvite) -> None:
        accepting = asyncio.create_task(change.accept(b"answer"))
        await until(lambda: change.is_answered)
        await given_up(accepting)
        cancelled.set()

    call.on_reinvite(accepts_and_is_cancelled)
    peer.send(with_offer(in_dialog(invite, "INVITE", tag, "two", 2)), address)
    await asyncio.wait_for(cancelled.wait(), TIMEOUT_S)
    await until(lambda: call._changes.progress.may_send)
