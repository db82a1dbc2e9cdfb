"""Changes of a call by re-INVITE over real sockets: between two user agents, and against a peer that misbehaves."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from tests.wire.sip.agents import (
    CALLEE,
    CALLER,
    HOST,
    SDP,
    TARGET,
    TIMEOUT_S,
    Make,
    Peer,
    in_dialog,
    invite_to,
    keeps,
    until,
)
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.sip.message import make_response
from voice_dpki.wire.sip import changes
from voice_dpki.wire.sip.changes import Reinvite
from voice_dpki.wire.sip.user_agent import Call, IncomingCall, UserAgent


async def connected(pair: tuple[UserAgent, UserAgent]) -> tuple[Call, IncomingCall]:
    """An answered call between two user agents: the caller's end and the callee's."""
    caller, callee = pair
    calls: list[IncomingCall] = []
    callee.on_invite = keeps(calls)
    call = await caller.invite(TARGET, b"offer 1")
    await until(lambda: calls)
    await calls[0].answer(b"answer 1")
    await call.answered()
    await asyncio.wait_for(calls[0].established.wait(), TIMEOUT_S)
    return call, calls[0]


def accepts(seen: list[bytes], answer: bytes = b"answer") -> Callable[[Reinvite], Awaitable[None]]:
    async def on_reinvite(change: Reinvite) -> None:
        seen.append(change.sdp)
        seen.append(await change.accept(answer))

    return on_reinvite


async def called(make: Make, peer: Peer) -> tuple[IncomingCall, bytes, str, tuple[str, int]]:
    """A call of the peer that was answered and acknowledged: our end, its INVITE, our tag, and our address."""
    agent = await make(CALLEE, peer.hop)
    calls: list[IncomingCall] = []
    agent.on_invite = keeps(calls)
    invite, address = invite_to(agent, peer), (HOST, agent.address.port)
    peer.send(invite, address)
    await until(lambda: calls)
    await calls[0].answer(b"answer")
    tag = str((await peer.response(200)).to_address.parameters["tag"])
    peer.send(in_dialog(invite, "ACK", tag, "ack", 1), address)
    await asyncio.wait_for(calls[0].established.wait(), TIMEOUT_S)
    return calls[0], invite, tag, address


async def placed(make: Make, peer: Peer) -> Call:
    """A call to the peer, which has answered."""
    call = await (await make(CALLER, peer.hop)).invite(TARGET, SDP)
    peer.answer(await peer.request("INVITE"), 200)
    await peer.request("ACK")
    return call


async def test_either_side_changes_the_session_and_the_call_goes_on(pair: tuple[UserAgent, UserAgent]) -> None:
    one, other = await connected(pair)
    seen: list[bytes] = []
    one.on_reinvite(accepts(seen, b"caller"))
    other.on_reinvite(accepts(seen, b"callee"))
    for leg, wanted in ((one, b"callee"), (one, b"callee"), (other, b"caller"), (one, b"callee")):
        answer = await asyncio.wait_for(leg.reinvite(lambda: b"offer"), TIMEOUT_S)
        assert (answer.status, answer.sdp) == (200, wanted)
    await until(lambda: len(seen) == 8)
    assert seen == [b"offer", b""] * 4
    await one.bye()
    assert other.ended_by_peer


async def test_a_refused_change_leaves_the_call(pair: tuple[UserAgent, UserAgent]) -> None:
    one, other = await connected(pair)
    assert (await one.reinvite(lambda: b"nobody takes it")).status == 488

    async def refuse(change: Reinvite) -> None:
        change.refuse(488, None, [("Warning", '399 b "no"')])
        with pytest.raises(PeerError, match="cancelled"):
            await change.accept(b"too late")

    other.on_reinvite(refuse)
    answer = await one.reinvite(lambda: b"offer")
    assert (answer.status, answer.headers["Warning"]) == (488, '399 b "no"')

    async def forget(change: Reinvite) -> None:
        """Leave it unanswered."""

    other.on_reinvite(forget)
    assert (await one.reinvite(lambda: b"offer")).status == 500

    async def fail(change: Reinvite) -> None:
        raise RuntimeError("broken")

    other.on_reinvite(fail)
    assert (await one.reinvite(lambda: b"offer")).status == 500
    assert not one.ended.is_set()
    await other.bye()
    with pytest.raises(LocalError, match="over"):
        await one.reinvite(lambda: b"offer")


async def test_changes_that_cross_are_both_made(
    pair: tuple[UserAgent, UserAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each side gets 491 and tries again, at another time than the other (RFC 3261 §14.1)."""
    waits: list[bool] = []

    def wait_s(_random: object, *, owns_call_id: bool) -> float:
        waits.append(owns_call_id)
        return 0.6 if owns_call_id else 0.0

    monkeypatch.setattr(changes, "glare_wait_s", wait_s)
    one, other = await connected(pair)
    seen: list[bytes] = []
    one.on_reinvite(accepts(seen))
    other.on_reinvite(accepts(seen))
    async with asyncio.timeout(TIMEOUT_S):
        answers = await asyncio.gather(one.reinvite(lambda: b"of one"), other.reinvite(lambda: b"of the other"))
    assert [answer.status for answer in answers] == [200, 200]
    await until(lambda: len(seen) == 4)
    assert sorted(seen[::2]) == [b"of one", b"of the other"]
    assert sorted(waits) == [False, True]


async def test_a_change_that_the_other_side_finds_crossing_is_offered_again(
    make: Make, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever always answers 491 gets three tries, and the call goes on."""
    monkeypatch.setattr(changes, "glare_wait_s", lambda _random, owns_call_id: 0.0)
    call = await placed(make, peer)
    for statuses in ((491, 200), (491, 491, 491)):
        change = asyncio.create_task(call.reinvite(lambda: b"hold"))
        for status in statuses:
            peer.answer(await peer.request("INVITE"), status)
            await peer.request("ACK")
        assert (await asyncio.wait_for(change, TIMEOUT_S)).status == statuses[-1]
    assert call.is_up


async def test_changes_of_one_side_follow_one_another(pair: tuple[UserAgent, UserAgent]) -> None:
    one, other = await connected(pair)
    seen: list[bytes] = []
    other.on_reinvite(accepts(seen))
    async with asyncio.timeout(TIMEOUT_S):
        answers = await asyncio.gather(*(one.reinvite(partial(bytes, [number])) for number in b"012"))
    assert [answer.status for answer in answers] == [200] * 3
    assert seen[::2] == [b"0", b"1", b"2"]


async def test_a_reinvite_without_an_offer_gets_ours_and_answers_it_in_the_ack(make: Make, peer: Peer) -> None:
    call, invite, tag, address = await called(make, peer)
    seen: list[bytes] = []
    call.on_reinvite(accepts(seen, b"our offer"))
    peer.send(in_dialog(invite, "INVITE", tag, "late", 2), address)
    assert (await peer.response(200)).body == b"our offer"
    peer.send(in_dialog(invite, "INVITE", tag, "early", 3), address)
    await peer.response(491)  # our offer has no answer yet
    ack = in_dialog(invite, "ACK", tag, "ack2", 2).replace(b"Length: 0\r\n\r\n", b"Length: 6\r\n\r\nanswer")
    peer.send(ack, address)
    await until(lambda: len(seen) == 2)
    assert seen == [b"", b"answer"]


async def test_what_comes_at_the_wrong_time_is_refused(make: Make, peer: Peer) -> None:
    call, invite, tag, address = await called(make, peer)
    held: list[Reinvite] = []
    done = asyncio.Event()

    async def hold(change: Reinvite) -> None:
        held.append(change)
        await done.wait()

    call.on_reinvite(hold)
    peer.send(in_dialog(invite, "INVITE", tag, "stale", 1), address)
    await peer.response(500)
    peer.send(in_dialog(invite, "INVITE", tag, "two", 2), address)
    await until(lambda: held)
    peer.send(in_dialog(invite, "INVITE", tag, "three", 3), address)
    while (early := await peer.response(500)).headers["CSeq"] != "3 INVITE":
        pass  # the first 500 again, as it has no ACK
    assert 0 <= int(early.headers["Retry-After"]) <= 10
    peer.send(in_dialog(invite, "CANCEL", tag, "two", 2), address)
    await peer.response(487)
    done.set()
    ours = asyncio.create_task(call.reinvite(lambda: b"ours"))
    peer_sees = await peer.request("INVITE")
    peer.send(in_dialog(invite, "INVITE", tag, "four", 4), address)
    await peer.response(491)
    peer.answer(peer_sees, 200)
    assert (await asyncio.wait_for(ours, TIMEOUT_S)).status == 200
    await peer.request("ACK")


async def test_a_call_that_ends_refuses_the_change_under_way(make: Make, peer: Peer) -> None:
    call, invite, tag, address = await called(make, peer)

    async def wait(change: Reinvite) -> None:
        await call.ended.wait()

    call.on_reinvite(wait)
    peer.send(in_dialog(invite, "INVITE", tag, "two", 2), address)
    peer.send(in_dialog(invite, "BYE", tag, "bye", 3), address)
    await peer.response(487)
    assert call.ended_by_peer


def moved(message: bytes, contact: str) -> bytes:
    return message.replace(b"Contact: <sip:peer@", f"Contact: <{contact}>\r\nOther: <".encode())


async def test_a_change_moves_the_target_only_if_it_is_accepted(make: Make, peer: Peer) -> None:
    """RFC 6141 §4.6: an error response leaves the remote target."""
    call, invite, tag, address = await called(make, peer)
    again = f"sip:moved@{peer.hop.address}"
    peer.send(moved(in_dialog(invite, "INVITE", tag, "two", 2), again), address)
    await peer.response(488)
    assert call.dialog.target.user == "peer"
    seen: list[bytes] = []
    call.on_reinvite(accepts(seen))
    peer.send(moved(in_dialog(invite, "INVITE", tag, "three", 3), "tel:+49301"), address)
    await peer.response(400)
    peer.send(moved(in_dialog(invite, "INVITE", tag, "four", 4), again), address)
    await peer.response(200)
    peer.send(in_dialog(invite, "ACK", tag, "ack4", 4), address)
    await until(lambda: len(seen) == 3)
    ended = asyncio.create_task(call.bye())
    bye = await peer.request("BYE")
    assert bye.uri.user == "moved"
    peer.answer(bye, 200)
    await asyncio.wait_for(ended, TIMEOUT_S)


async def test_the_2xx_to_our_change_moves_the_target_and_is_acknowledged_each_time(make: Make, peer: Peer) -> None:
    call = await placed(make, peer)
    change = asyncio.create_task(call.reinvite(lambda: b"hold"))
    invite = await peer.request("INVITE")
    assert (invite.headers["CSeq"], invite.body, invite.to_address.parameters["tag"]) == (
        "2 INVITE",
        b"hold",
        "peer",
    )
    response = make_response(invite, 200, headers=[("Contact", f"<sip:moved@{peer.hop.address}>")])
    for _ in range(2):
        peer.send(response)
        ack = await peer.request("ACK")
        assert (ack.headers["CSeq"], ack.uri.user) == ("2 ACK", "moved")
    assert (await change).status == 200


@pytest.mark.parametrize("status", [481, 408])
async def test_an_answer_that_knows_no_dialog_ends_the_call(make: Make, peer: Peer, status: int) -> None:
    call = await placed(make, peer)
    change = asyncio.create_task(call.reinvite(lambda: b"hold"))
    peer.answer(await peer.request("INVITE"), status)
    peer.answer(await peer.request("BYE"), 200)
    assert (await asyncio.wait_for(change, TIMEOUT_S)).status == status
    assert call.ended.is_set()


async def test_a_change_that_nobody_acknowledges_ends_the_call(make: Make, peer: Peer) -> None:
    call, invite, tag, address = await called(make, peer)
    call.on_reinvite(accepts([]))
    peer.send(in_dialog(invite, "INVITE", tag, "two", 2), address)
    await peer.response(200)
    peer.send(in_dialog(invite, "ACK", tag, "ack2", 2), address)
    await until(lambda: call._changes.progress.may_send)
    peer.send(in_dialog(invite, "INVITE", tag, "three", 3), address)
    await peer.response(200)
    for number in (1, 2):  # the ACKs of other INVITEs acknowledge nothing
        peer.send(in_dialog(invite, "ACK", tag, f"ack{number}", number), address)
    await peer.response(200)
    peer.answer(await peer.request("BYE"), 200)
    await asyncio.wait_for(call.ended.wait(), TIMEOUT_S)


def with_offer(invite: bytes) -> bytes:
    headers = b"Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\noffer"
    return invite.replace(b"Content-Type: application/sdp\r\n", b"").replace(b"Content-Length: 0\r\n\r\n", headers)


def waits_for(call: IncomingCall, acks: int) -> bool:
    return len(call._changes._unacknowledged) == acks


async def test_a_lost_ack_is_made_up_for_after_the_next_change(make: Make, peer: Peer) -> None:
    """It comes again for each repetition of our 2xx; a third change waits until then."""
    call, invite, tag, address = await called(make, peer)
    seen: list[bytes] = []
    call.on_reinvite(accepts(seen))
    await until(partial(waits_for, call, 0))
    for number in (2, 3):
        peer.send(with_offer(in_dialog(invite, "INVITE", tag, f"change{number}", number)), address)
        await until(partial(waits_for, call, number - 1))
    peer.send(with_offer(in_dialog(invite, "INVITE", tag, "change4", 4)), address)
    assert (await peer.response(500)).headers["Retry-After"] == "1"
    for number in (3, 2):
        peer.send(in_dialog(invite, "ACK", tag, f"ack{number}", number), address)
    await until(lambda: call._changes.progress.may_send)
    assert seen == [b"offer", b"offer", b"", b""]
    peer.send(with_offer(in_dialog(invite, "INVITE", tag, "change5", 5)), address)
    await until(lambda: len(seen) == 5)
    peer.send(in_dialog(invite, "ACK", tag, "ack5", 5), address)
    await until(lambda: call._changes.progress.may_send)
    assert not call.ended.is_set()
