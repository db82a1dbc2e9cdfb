"""UPDATE (RFC 3311) over real sockets: before and after the answer, between two user agents and against a peer."""

import asyncio

import pytest
from sipmessage import Request, Response

from tests.wire.sip.agents import (
    CALLEE,
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
from tests.wire.sip.test_early import placed as called_peer
from tests.wire.sip.test_early import prack, progress, wants
from tests.wire.sip.test_reinvite import accepts, called, placed
from voice_dpki.errors import LocalError
from voice_dpki.sip.message import header_values
from voice_dpki.wire.sip.changes import Reinvite, UnchangedError
from voice_dpki.wire.sip.user_agent import IncomingCall, UserAgent

VERDICT = "<sip:+442079460123;verstat=TN-Validation-Passed@a.example;user=phone>"


async def test_a_callee_updates_before_and_after_it_answers(pair: tuple[UserAgent, UserAgent]) -> None:
    caller, callee = pair
    calls: list[IncomingCall] = []
    callee.on_invite = keeps(calls)
    call = await caller.invite(TARGET, SDP)
    await until(lambda: calls)
    await calls[0].progress(b"early")
    assert "UPDATE" in calls[0].peer_methods
    assert (await calls[0].update()).status == 200
    assert not call.is_answered
    await calls[0].answer(b"early")
    await call.answered()
    await asyncio.wait_for(calls[0].established.wait(), TIMEOUT_S)
    for leg in (calls[0], call, calls[0]):
        assert (await leg.update()).status == 200
    assert "UPDATE" in call.peer_methods
    await call.bye()
    assert calls[0].ended_by_peer
    with pytest.raises(LocalError, match="over"):
        await call.update()


async def test_an_update_that_finds_no_dialog_ends_the_call(make: Make, peer: Peer) -> None:
    call = await placed(make, peer)
    updating = asyncio.create_task(call.update())
    update = await peer.request("UPDATE")
    assert (update.body, update.headers["Contact"][:5]) == (b"", "<sip:")
    peer.answer(update, 481)
    peer.answer(await peer.request("BYE"), 200)
    assert (await updating).status == 481
    assert call.ended.is_set()


async def test_an_update_is_sent_again_with_a_longer_interval(make: Make, peer: Peer) -> None:
    call = await placed(make, peer)
    updating = asyncio.create_task(call.update())
    peer.answer(await peer.request("UPDATE"), 422, ("Min-SE", "120"))
    again = await peer.request("UPDATE")
    assert again.headers["Min-SE"] == "120"
    peer.answer(again, 200, ("Session-Expires", "120;refresher=uac"), ("Contact", "<mailto:x@y>"))
    assert (await updating).status == 200
    assert call.dialog is not None
    assert call.dialog.target.host == HOST, "a Contact that cannot be used leaves the old one"


def update(invite: bytes, tag: str, sequence: int, extra: str = "", body: bytes = b"") -> bytes:
    text = in_dialog(invite, "UPDATE", tag, f"update{sequence}", sequence)
    kind = "Content-Type: application/sdp\r\n" if body else ""
    end = f"{extra}{kind}Content-Length: {len(body)}\r\n\r\n".encode() + body
    return text.replace(b"Content-Length: 0\r\n\r\n", end)


async def answered(peer: Peer, status: int, sequence: int) -> Response:
    """The response with `status` to the request of that number: the 200 to the INVITE may come again before it."""
    while (response := await peer.response(status)).headers["CSeq"].split()[0] != str(sequence):
        pass
    return response


async def test_a_change_by_update_is_made_by_its_answer(make: Make, peer: Peer) -> None:
    call, invite, tag, address = await called(make, peer)
    seen: list[bytes] = []
    call.on_reinvite(accepts(seen, b"v=0\r\n"))
    peer.send(update(invite, tag, 2, body=b"v=0\r\no=1\r\n"), address)
    answer = await answered(peer, 200, 2)
    assert (answer.headers["CSeq"], answer.body) == ("2 UPDATE", b"v=0\r\n")
    assert "UPDATE" in header_values(answer, "Allow")
    await until(lambda: len(seen) == 2)
    assert seen == [b"v=0\r\no=1\r\n", b""]


async def test_an_update_without_an_offer_moves_the_target_and_sets_the_session_timer(
    make: Make, peer: Peer
) -> None:
    call, invite, tag, address = await called(make, peer)
    moved = invite.replace(b"Contact: <sip:peer@", b"Contact: <sip:moved@")
    timed = "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n"
    peer.send(update(moved, tag, 2, timed), address)
    answer = await answered(peer, 200, 2)
    assert answer.headers["Session-Expires"] == "90;refresher=uac"
    assert call.dialog is not None
    assert call.dialog.target.user == "moved"
    peer.send(update(invite.replace(b"Contact: <sip:", b"Contact: <mailto:"), tag, 3), address)
    await peer.response(400)
    assert call.dialog.target.user == "moved"
    peer.send(update(invite, tag, 4, timed.replace("90", "89")), address)
    assert (await peer.response(422)).headers["Min-SE"] == "90"


async def test_updates_that_come_at_the_wrong_time_are_refused(make: Make, peer: Peer) -> None:
    call, invite, tag, address = await called(make, peer)
    peer.send(update(invite, tag, 2, body=SDP), address)
    await peer.response(488)
    goes_on = asyncio.Event()

    async def waits(change: Reinvite) -> None:
        await goes_on.wait()
        await change.accept(b"late")

    call.on_reinvite(waits)
    peer.send(update(invite, tag, 3, body=SDP), address)
    await until(lambda: call._changes.progress.updated)
    for sequence, body in ((4, SDP), (5, b"")):
        peer.send(update(invite, tag, sequence, body=body), address)
        assert 0 <= int((await peer.response(500)).headers["Retry-After"]) <= 10
    peer.send(in_dialog(invite, "INVITE", tag, "crossing", 6), address)
    assert 0 <= int((await peer.response(500)).headers["Retry-After"]) <= 10
    goes_on.set()
    assert (await answered(peer, 200, 3)).headers["CSeq"] == "3 UPDATE"
    offering = asyncio.create_task(call.reinvite(lambda: SDP))
    crossed = await peer.request("INVITE")
    peer.send(update(invite, tag, 7, body=SDP), address)
    await peer.response(491)
    peer.answer(crossed, 488)
    await offering


async def test_an_update_that_nobody_answers_is_refused(make: Make, peer: Peer) -> None:
    call, invite, tag, address = await called(make, peer)

    async def forgets(change: Reinvite) -> None:
        """Leave it unanswered."""

    call.on_reinvite(forgets)
    for sequence in (2, 3):
        peer.send(update(invite, tag, sequence, body=SDP), address)
        assert (await peer.response(500)).headers.get("Retry-After") is None


async def test_a_stranger_of_the_same_call_changes_and_ends_nothing(make: Make, peer: Peer) -> None:
    """Another telephone of a forked call has Call-ID and our tag, and a tag of its own (RFC 3261 §12.2.2)."""
    call, invite, tag, address = await called(make, peer)
    stranger = invite.replace(b"tag=peer", b"tag=stranger")
    for sequence, method in enumerate(("UPDATE", "BYE", "INVITE", "OPTIONS", "PRACK"), 2):
        peer.send(in_dialog(stranger, method, tag, f"stranger{method}", sequence), address)
        await peer.response(481)
    assert not call.ended.is_set()


# Before the answer.


async def test_a_caller_takes_no_change_before_the_answer_and_hears_who_answers(make: Make, peer: Peer) -> None:
    call, invite, _ = await called_peer(make, peer)
    told: list[str] = []
    call.on_connected = told.append
    progress(peer, invite, 1, SDP)
    peer.answer(await peer.request("PRACK"), 200)
    tag = str(invite.from_address.parameters["tag"])
    back = peer_invite(invite, peer)
    for sequence, (status, extra, body) in enumerate(
        (
            (488, "", SDP),
            (200, f"P-Asserted-Identity: {VERDICT}\r\n", b""),
            (200, "P-Asserted-Identity: x\r\n", b""),
        ),
        1,
    ):
        peer.send(update(back, tag, sequence, extra, body), peer.address)
        await peer.response(status)
    assert (told, call.connected) == (["TN-Validation-Passed"], "TN-Validation-Passed")
    for sequence, method in ((4, "BYE"), (5, "INVITE")):
        peer.send(in_dialog(back, method, tag, method.lower(), sequence), peer.address)
        await peer.response(481)
    peer.send(update(back.replace(b"tag=peer", b"tag=none"), tag, 6), peer.address)
    await peer.response(481)
    peer.answer(invite, 200)
    await call.answered()
    peer.send(in_dialog(back, "OPTIONS", tag, "old", 3), peer.address)
    await peer.response(500)  # its numbers go on where they were


def peer_invite(invite: Request, peer: Peer) -> bytes:
    """A request of the peer in the call that it was invited to, as `invite_to` writes them."""
    return (
        f"INVITE sip:+493023125001@{peer.address[0]}:{peer.address[1]} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {peer.hop.address};branch=z9hG4bKone\r\n"
        "From: <sip:+442079460123@b.example>;tag=peer\r\nTo: <sip:+493023125001@b.example>\r\n"
        f"Call-ID: {invite.headers['Call-ID']}\r\nCSeq: 1 INVITE\r\nContact: <sip:peer@{peer.hop.address}>\r\n"
        "P-Asserted"
    ).encode()


@pytest.mark.parametrize("early", [True, False])
async def test_a_callee_takes_a_change_before_the_answer_once_the_offer_has_its_own(
    make: Make, peer: Peer, early: bool
) -> None:
    seen: list[bytes] = []

    async def act(call: IncomingCall) -> None:
        call.on_reinvite(accepts(seen, b"changed"))
        if early:
            await call.progress(b"early")
        else:
            await call.ring()

    agent = await make(CALLEE, peer.hop)
    agent.on_invite = act
    invite, address = wants(invite_to(agent, peer), "Supported"), (HOST, agent.address.port)
    peer.send(invite, address)
    first = await peer.response(183 if early else 180)
    tag = str(first.to_address.parameters["tag"])
    if early:
        peer.send(prack(invite, tag, 2, f"{first.headers['RSeq']} 1 INVITE"), address)
        await peer.response(200)
    peer.send(update(invite, tag, 3, body=SDP), address)
    answer = await peer.response(200 if early else 500)
    assert answer.body == (b"changed" if early else b"")
    assert seen == ([SDP, b""] if early else [])


@pytest.mark.parametrize("method", ["CANCEL", "BYE"])
async def test_a_change_by_update_is_refused_and_not_made_once_the_call_has_ended(
    make: Make, peer: Peer, method: str
) -> None:
    calls: list[IncomingCall] = []
    agent = await make(CALLEE, peer.hop)
    agent.on_invite = keeps(calls)
    invite, address = wants(invite_to(agent, peer), "Supported"), (HOST, agent.address.port)
    peer.send(invite, address)
    await until(lambda: calls)
    progressing = asyncio.create_task(calls[0].progress(b"early"))
    early = await peer.response(183)
    tag = str(early.to_address.parameters["tag"])
    peer.send(prack(invite, tag, 2, f"{early.headers['RSeq']} 1 INVITE"), address)
    await progressing
    asked, goes_on, outcome = asyncio.Event(), asyncio.Event(), list[str]()

    async def slow(change: Reinvite) -> None:
        asked.set()
        await goes_on.wait()  # as for an inquiry about new keys
        try:
            await change.accept(b"answer", lambda: outcome.append("applied"))
        except UnchangedError:
            outcome.append("refused")

    calls[0].on_reinvite(slow)
    peer.send(update(invite, tag, 3, body=b"offer"), address)
    await asyncio.wait_for(asked.wait(), TIMEOUT_S)
    end = in_dialog(invite, method, tag, "one" if method == "CANCEL" else "bye", 1 if method == "CANCEL" else 4)
    peer.send(end.replace(f";tag={tag}".encode(), b"") if method == "CANCEL" else end, address)
    while (refusal := await peer.response(487)).headers["CSeq"] != "3 UPDATE":
        pass
    assert refusal.headers["To"].endswith(tag)
    await until(calls[0].ended.is_set)
    goes_on.set()
    await until(lambda: outcome)
    assert outcome == ["refused"]


async def test_what_is_told_of_one_telephone_is_not_told_of_another_that_answers(make: Make, peer: Peer) -> None:
    call, invite, _ = await called_peer(make, peer)
    for number, tag in ((7, "one"), (9, "other")):
        progress(peer, invite, number, SDP, tag=tag)
        peer.answer(await peer.request("PRACK"), 200)
    ours = str(invite.from_address.parameters["tag"])
    back = peer_invite(invite, peer).replace(b"tag=peer", b"tag=other")
    peer.send(update(back, ours, 1, f"P-Asserted-Identity: {VERDICT}\r\n", b""), peer.address)
    await peer.response(200)
    assert call.connected == "TN-Validation-Passed", "only the other one is known"
    peer.answer(invite, 200, to_tag="one")
    assert (await call.answered()).status == 200
    assert call.connected is None
    assert call.verdicts == {"other": "TN-Validation-Passed"}
