"""Transfers by REFER and Replaces over real sockets: between user agents, and against a peer that misbehaves."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.wire.sip.agents import (
    CALLEE,
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
from tests.wire.sip.test_reinvite import called, connected, placed
from voice_dpki.errors import LocalError
from voice_dpki.sip.refer import ReferTo, Replaces
from voice_dpki.wire.sip import referral
from voice_dpki.wire.sip.referral import Referral
from voice_dpki.wire.sip.user_agent import IncomingCall, UserAgent

OWN = "sip:+493023125001@a.example"
THIRD = ReferTo("sip:+493023125002@a.example", Replaces("consultation@host", "theirs", "ours"))


def tells(status: int, seen: list[Referral]) -> Callable[[Referral], Awaitable[None]]:
    async def on_refer(asked: Referral) -> None:
        seen.append(asked)
        await asked.accept()
        await asked.tell(status)
        await asked.tell(500)  # which nobody hears

    return on_refer


@pytest.mark.parametrize("status", [200, 486])
async def test_either_side_hears_what_became_of_its_refer(pair: tuple[UserAgent, UserAgent], status: int) -> None:
    seen: list[Referral] = []
    for one, other in (ends := await connected(pair), ends[::-1]):
        other.referrals.on_refer = tells(status, seen)
        for _ in range(2):
            assert await asyncio.wait_for(one.referrals.send(THIRD, OWN), TIMEOUT_S) == status
    assert [(each.whom, each.referred_by) for each in seen] == [(THIRD, OWN)] * 4
    assert not ends[0].ended.is_set()


async def test_a_refer_that_nobody_takes_is_declined(pair: tuple[UserAgent, UserAgent]) -> None:
    one, other = await connected(pair)
    assert await one.referrals.send(THIRD, OWN) == 603

    async def refuse(asked: Referral) -> None:
        asked.refuse(403)

    async def fail(asked: Referral) -> None:
        raise RuntimeError("broken")

    async def fail_later(asked: Referral) -> None:
        await asked.accept()
        raise RuntimeError("broken")

    for on_refer, status in ((refuse, 403), (fail, 500), (fail_later, 500)):
        other.referrals.on_refer = on_refer
        assert await asyncio.wait_for(one.referrals.send(THIRD, OWN), TIMEOUT_S) == status
    await one.bye()
    assert await one.referrals.send(THIRD, OWN) == 481


async def test_one_refer_at_a_time(pair: tuple[UserAgent, UserAgent]) -> None:
    one, other = await connected(pair)
    seen: list[Referral] = []
    done = asyncio.Event()

    async def wait(asked: Referral) -> None:
        seen.append(asked)
        await asked.accept()
        await done.wait()
        await asked.tell(200)

    other.referrals.on_refer = wait
    first = asyncio.create_task(one.referrals.send(THIRD, OWN))
    await until(lambda: seen)
    with pytest.raises(LocalError):
        await one.referrals.send(THIRD, OWN)
    again = await one.ask("REFER", (("Refer-To", "<sip:+4930@a.example>"),))
    assert again.code == 491
    done.set()
    assert await asyncio.wait_for(first, TIMEOUT_S) == 200


@pytest.mark.parametrize(
    ("state", "body", "status"),
    [
        ("terminated;reason=noresource", b"SIP/2.0 100 Trying\r\n", 100),  # over, and nobody says how
        ("active;expires=60", b"SIP/2.0 200 OK\r\n", 200),
        ("terminated;reason=timeout", b"SIP/2.0 486 Busy Here\r\n", 486),
    ],
)
async def test_what_a_stranger_tells(make: Make, peer: Peer, state: str, body: bytes, status: int) -> None:
    """A peer that tells before it answers, repeats itself, and tells what is none of our business."""
    call = await placed(make, peer)
    asked = asyncio.create_task(call.referrals.send(THIRD, OWN))
    refer = await peer.request("REFER")
    number = int(refer.headers["CSeq"].split()[0])
    assert refer.headers["Refer-To"] == (
        "<sip:+493023125002@a.example?Replaces=consultation%40host%3Bto-tag%3Dtheirs%3Bfrom-tag%3Dours>"
    )
    assert refer.headers["Referred-By"] == f"<{OWN}>"
    address, sequence = peer.address, 0

    async def notify(
        body: bytes, *, event: str = "refer", kind: str = "message/sipfrag", state: str = state
    ) -> int:
        nonlocal sequence
        sequence += 1
        peer.send(
            f"NOTIFY {refer.headers['Contact'].strip('<>')} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {peer.hop.address};branch=z9hG4bKn{sequence}\r\nMax-Forwards: 70\r\n"
            f"From: {refer.headers['To']}\r\nTo: {refer.headers['From']}\r\nCall-ID: {call.call_id}\r\n"
            f"CSeq: {sequence} NOTIFY\r\nContact: <sip:peer@{peer.hop.address}>\r\nEvent: {event}\r\n"
            f"Subscription-State: {state}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body,
            address,
        )
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                message, _ = await peer.received.get()
                if message.headers["CSeq"] == f"{sequence} NOTIFY":
                    return int(getattr(message, "code", 0))

    assert await notify(b"SIP/2.0 100 Trying\r\n", state="active;expires=60") == 200
    assert await notify(body, event="presence") == 489
    assert await notify(body, event=f"refer;id={number - 1}") == 481
    assert await notify(body, kind="text/plain") == 415
    assert await notify(b"what?") == 400
    assert not asked.done()
    assert await notify(body, event=f"refer;id={number}") == 200
    peer.answer(refer, 202)
    assert await asyncio.wait_for(asked, TIMEOUT_S) == status
    assert await notify(body) == 481  # it is about nothing now


async def test_who_says_nothing_after_a_refer(make: Make, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referral, "EXPIRES_S", 0.05)
    call = await placed(make, peer)
    asked = asyncio.create_task(call.referrals.send(THIRD, OWN))
    peer.answer(await peer.request("REFER"), 202)
    assert await asyncio.wait_for(asked, TIMEOUT_S) == 408
    asked = asyncio.create_task(call.referrals.send(THIRD, OWN))
    peer.answer(await peer.request("REFER"), 202)
    ending = asyncio.create_task(call.bye())
    assert await asyncio.wait_for(asked, TIMEOUT_S) == 408
    peer.answer(await peer.request("BYE"), 200)
    await ending


async def test_a_refer_is_told_of_as_the_standard_has_it(make: Make, peer: Peer) -> None:
    """The octets of RFC 3515 §4.1: 202, a NOTIFY at once, and one with the final status."""
    call, invite, tag, address = await called(make, peer)
    call.referrals.on_refer = tells(200, [])
    refer = in_dialog(invite, "REFER", tag, "refer", 7)
    given = b"Refer-To: <sip:+493023125002@a.example>\r\n"
    for number, field in enumerate((b"", given + given, b"Refer-To: <sip:a@b?Route=x>\r\n"), 2):
        peer.send(_with(in_dialog(invite, "REFER", tag, f"refer{number}", number), field), address)
        assert (await peer.response(400)).headers["CSeq"] == f"{number} REFER"
    peer.send(_with(refer, given), address)
    accepted = await peer.response(202)
    assert "Contact" in {name.title() for name in accepted.headers.keys()}  # noqa: SIM118 - no mapping
    told = []
    for _ in range(2):
        notify = await peer.request("NOTIFY")
        peer.answer(notify, 200)
        state = notify.headers["Subscription-State"].split(";")[0]
        told.append((notify.headers["Event"], state, notify.headers["Content-Type"], notify.body))
    assert told == [
        ("refer;id=7", "active", "message/sipfrag", b"SIP/2.0 100 Trying\r\n"),
        ("refer;id=7", "terminated", "message/sipfrag", b"SIP/2.0 200 OK\r\n"),
    ]


def _with(message: bytes, field: bytes) -> bytes:
    head, _, body = message.partition(b"\r\n\r\n")
    return head + b"\r\n" + field + b"\r\n" + body


@pytest.mark.parametrize(("method", "status"), [("REFER", 405), ("NOTIFY", 405), ("INVITE", 420)])
async def test_a_telephone_without_transfers_knows_nothing_of_them(
    make: Make, peer: Peer, method: str, status: int
) -> None:
    agent = await make(CALLEE, peer.hop, transfers=False)
    invite, address = invite_to(agent, peer), ("127.0.0.1", agent.address.port)
    peer.send(_with(invite.replace(b"INVITE", method.encode()), b"Require: replaces\r\n"), address)
    refused = await peer.response(status)
    assert "REFER" not in str(refused.headers.get("Allow"))


async def test_nobody_passes_us_on_outside_a_call(make: Make, peer: Peer) -> None:
    agent = await make(CALLEE, peer.hop)
    invite, address = invite_to(agent, peer), ("127.0.0.1", agent.address.port)
    peer.send(_with(invite.replace(b"INVITE", b"REFER"), b"Refer-To: <sip:+4930@a.example>\r\n"), address)
    await peer.response(403)
    peer.send(
        _with(invite.replace(b"INVITE", b"NOTIFY").replace(b"branch=", b"branch=z9hG4bKn"), b"Event: refer\r\n"),
        address,
    )
    await peer.response(481)


# Replaces.


async def test_a_call_that_replaces_another_says_which(pair: tuple[UserAgent, UserAgent]) -> None:
    caller, _ = pair
    one, other = await connected(pair)
    calls: list[IncomingCall] = []
    assert one.dialog is not None
    value = Replaces(one.call_id, one.dialog.remote_tag, one.dialog.local_tag).serialize()
    headers = (("Replaces", value), ("Require", "replaces"))
    assert (await (await caller.invite(TARGET, SDP, headers)).answered()).status == 603
    other.on_replaced = keeps(calls)
    second = await caller.invite(TARGET, SDP, headers)
    await until(lambda: calls)
    await calls[0].answer(SDP)
    assert (await second.answered()).status == 200
    assert not one.ended.is_set()  # the owner ends it


@pytest.mark.parametrize("changed", ["call_id", "local_tag", "remote_tag", "early", "twice", "over"])
async def test_a_stranger_replaces_nothing(pair: tuple[UserAgent, UserAgent], changed: str) -> None:
    caller, callee = pair
    one, other = await connected(pair)
    calls: list[IncomingCall] = []
    callee.on_invite = other.on_replaced = keeps(calls)
    dialog = one.dialog
    assert dialog is not None
    given = {"call_id": one.call_id, "remote_tag": dialog.remote_tag, "local_tag": dialog.local_tag}
    given |= {changed: "guessed"} if changed in given else {}
    value = f"{given['call_id']};to-tag={given['remote_tag']};from-tag={given['local_tag']}"
    value += {"early": ";early-only", "twice": f", {value}"}.get(changed, "")
    if changed == "over":
        await one.bye()
    answer = await (await caller.invite(TARGET, SDP, (("Replaces", value),))).answered()
    assert answer.status == {"early": 486, "twice": 400}.get(changed, 481)
    assert calls == []


async def test_a_call_that_still_rings_is_not_replaced(pair: tuple[UserAgent, UserAgent]) -> None:
    """Its identifiers are the caller's own to give away, and the callee has not answered yet."""
    caller, callee = pair
    calls: list[IncomingCall] = []
    callee.on_invite = keeps(calls)
    first = await caller.invite(TARGET, SDP)
    await until(lambda: calls)
    dialog = calls[0].dialog
    value = Replaces(first.call_id, dialog.local_tag, dialog.remote_tag).serialize()
    assert (await (await caller.invite(TARGET, SDP, (("Replaces", value),))).answered()).status == 481
