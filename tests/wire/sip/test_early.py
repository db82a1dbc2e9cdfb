"""Answers before the answer: reliable provisional responses (RFC 3262) over real sockets, ours and a peer's."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sipmessage import Request, Response

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
from voice_dpki.errors import LocalError
from voice_dpki.sip.message import header_values, make_response, set_body
from voice_dpki.wire.sip.early_dialogs import MAX_EARLY_DIALOGS, EarlyAnswer
from voice_dpki.wire.sip.provisional import UnacknowledgedError
from voice_dpki.wire.sip.user_agent import Call, IncomingCall, UserAgent


async def test_an_answer_comes_before_the_answer_and_the_200_has_none(pair: tuple[UserAgent, UserAgent]) -> None:
    caller, callee = pair
    calls: list[IncomingCall] = []
    callee.on_invite = keeps(calls)
    call = await caller.invite(TARGET, b"offer")
    early: list[EarlyAnswer] = []
    call.on_early(early.append)
    await until(lambda: calls)
    (incoming,) = calls
    assert incoming.takes_early
    await incoming.progress(b"early answer")
    assert [answer.sdp for answer in early] == [b"early answer"]
    assert not call.is_answered
    await incoming.answer(b"early answer")
    answer = await call.answered()
    assert (answer.status, answer.sdp, answer.tag) == (200, b"early answer", early[0].tag)
    await asyncio.wait_for(incoming.established.wait(), TIMEOUT_S)
    await call.bye()
    assert incoming.ended_by_peer, "the CSeq went on where PRACK had left it"


# The caller, against a peer.


async def placed(make: Make, peer: Peer) -> tuple[Call, Request, list[EarlyAnswer]]:
    call = await (await make(CALLER, peer.hop)).invite(TARGET, SDP)
    early: list[EarlyAnswer] = []
    call.on_early(early.append)
    return call, await peer.request("INVITE"), early


def progress(
    peer: Peer, invite: Request, number: int, sdp: bytes = b"", *, tag: str = "peer", contact: str = ""
) -> None:
    headers = [
        ("Require", "100rel"),
        ("RSeq", str(number)),
        ("Contact", contact or f"<sip:peer@{peer.hop.address}>"),
    ]
    headers.append(("Record-Route", f"<sip:{peer.hop.address};lr;early>"))
    response = make_response(invite, 183, to_tag=tag, headers=headers)
    if sdp:
        set_body(response, sdp, "application/sdp")
    peer.send(response)


async def test_each_reliable_response_is_acknowledged_once_and_in_order(make: Make, peer: Peer) -> None:
    call, invite, early = await placed(make, peer)
    assert "100rel" in header_values(invite, "Supported")
    for number in (776656, 776656, 776658, 776657):
        progress(peer, invite, number, b"answer %d" % number)
    first, second = await peer.request("PRACK"), await peer.request("PRACK")
    assert [prack.headers["RAck"] for prack in (first, second)] == ["776656 1 INVITE", "776657 1 INVITE"]
    assert [prack.headers["CSeq"] for prack in (first, second)] == ["2 PRACK", "3 PRACK"]
    assert header_values(first, "Route") == [f"<sip:{peer.hop.address};lr;early>"]
    assert first.headers["To"].endswith(";tag=peer")
    for prack in (first, second):
        peer.answer(prack, 200)
    assert [answer.sdp for answer in early] == [b"answer 776656"], "the first description is the answer (§5)"
    peer.answer(invite, 200)
    assert (await peer.request("ACK")).headers["CSeq"] == "1 ACK"
    assert (await call.answered()).sdp == b"answer 776656"
    call.hang_up()
    assert (await peer.request("BYE")).headers["CSeq"] == "4 BYE"


async def test_what_is_not_reliable_or_cannot_be_read_is_not_acknowledged(make: Make, peer: Peer) -> None:
    call, invite, early = await placed(make, peer)
    response = make_response(invite, 183, to_tag="peer", headers=[("Contact", f"<sip:peer@{peer.hop.address}>")])
    set_body(response, b"preview", "application/sdp")
    peer.send(response)
    progress(peer, invite, 0, b"no number")
    progress(peer, invite, 5, b"no way back", contact="<mailto:peer@b.example>")
    progress(peer, invite, 6, b"no tag", tag="")
    await until(call.ringing.is_set)
    progress(peer, invite, 7, b"good", tag="good")
    assert (await peer.request("PRACK")).headers["RAck"] == "7 1 INVITE"
    assert [answer.sdp for answer in early] == [b"good"]


async def test_telephones_beyond_the_limit_are_not_acknowledged(make: Make, peer: Peer) -> None:
    call, invite, early = await placed(make, peer)
    for place in range(MAX_EARLY_DIALOGS + 3):
        progress(peer, invite, 100 + place, b"answer", tag=f"fork-{place}")
    progress(peer, invite, 101, tag="fork-0")
    racks = [(await peer.request("PRACK")).headers["RAck"] for _ in range(MAX_EARLY_DIALOGS + 1)]
    assert racks == [f"{100 + place} 1 INVITE" for place in (*range(MAX_EARLY_DIALOGS), 1)]
    assert [answer.tag for answer in early] == [f"fork-{place}" for place in range(MAX_EARLY_DIALOGS)]
    assert not call.is_answered


def taken(peer: Peer, invite: Request, tag: str, contact: str = "") -> None:
    peer.send(
        make_response(invite, 200, to_tag=tag, headers=[("Contact", contact or f"<sip:peer@{peer.hop.address}>")])
    )


async def acks(peer: Peer, count: int) -> list[str]:
    """The tags that the next ACKs are for."""
    return [str((await peer.request("ACK")).to_address.parameters["tag"]) for _ in range(count)]


async def bye(peer: Peer) -> tuple[str, str]:
    """The CSeq and the tag of the next BYE, which is answered."""
    request = await peer.request("BYE")
    peer.answer(request, 200)
    return request.headers["CSeq"], str(request.to_address.parameters["tag"])


async def test_a_telephone_that_loses_gets_one_bye_after_its_prack(make: Make, peer: Peer) -> None:
    """The BYE's number follows that of the PRACK in the same dialog, without which it gets 500."""
    call, invite, _ = await placed(make, peer)
    for number, tag in ((7, "A"), (9, "B")):
        progress(peer, invite, number, b"answer", tag=tag)
        prack = await peer.request("PRACK")
        assert prack.headers["CSeq"] == "2 PRACK"
        peer.answer(prack, 200)
    taken(peer, invite, "A")
    taken(peer, invite, "B")
    assert await acks(peer, 2) == ["A", "B"]
    assert await bye(peer) == ("3 BYE", "B")
    for tag in ("B", "A", "B"):  # their ACKs were lost
        taken(peer, invite, tag)
    taken(peer, invite, "C", contact="<mailto:peer@b.example>")
    assert await acks(peer, 3) == ["B", "A", "B"]
    assert call.is_up
    call.hang_up()
    assert await bye(peer) == ("3 BYE", "A")


async def test_telephones_beyond_the_limit_are_hung_up_on_too(make: Make, peer: Peer) -> None:
    """Each 2xx is acknowledged, and then ended by BYE (RFC 3261 §13.2.2.4)."""
    call, invite, _ = await placed(make, peer)
    tags = [f"fork-{place}" for place in range(MAX_EARLY_DIALOGS + 3)]
    for tag in tags:
        taken(peer, invite, tag)
    assert await acks(peer, len(tags)) == tags
    for tag in (tags[-1], tags[0]):  # their ACKs were lost
        taken(peer, invite, tag)
    assert {await bye(peer) for _ in tags[1:]} == {("2 BYE", tag) for tag in tags[1:]}
    assert call.is_up
    call.hang_up()
    assert await bye(peer) == ("2 BYE", tags[0])


async def test_telephones_beyond_the_limit_are_hung_up_on_few_at_a_time(make: Make, peer: Peer) -> None:
    """A 2xx that finds too many BYEs without answer gets no ACK, so that it comes again."""
    call, invite, _ = await placed(make, peer)
    kept, surplus = ([f"{kind}-{place}" for place in range(MAX_EARLY_DIALOGS)] for kind in ("kept", "surplus"))
    for tag in (*kept, *surplus, "later", surplus[0]):
        taken(peer, invite, tag)
    assert await acks(peer, 2 * MAX_EARLY_DIALOGS + 1) == [*kept, *surplus, surplus[0]], "none for the later one"
    ended = [await bye(peer) for _ in (*kept[1:], *surplus)]
    assert set(ended) == {("2 BYE", tag) for tag in (*kept[1:], *surplus)}
    await until(lambda: not call._hanging_up)
    taken(peer, invite, "later")
    assert await acks(peer, 1) == ["later"]
    assert await bye(peer) == ("2 BYE", "later")
    assert call.is_up


# The callee, against a peer.


def wants(invite: bytes, name: str) -> bytes:
    return invite.replace(b"\r\nIdentity:", f"\r\n{name}: 100rel\r\nIdentity:".encode())


def prack(invite: bytes, tag: str, sequence: int, rack: str, body: bytes = b"") -> bytes:
    text = in_dialog(invite, "PRACK", tag, f"prack{sequence}", sequence)
    end = b"RAck: %s\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s" % (
        rack.encode(),
        len(body),
        body,
    )
    return text.replace(b"Content-Type: application/sdp\r\n", b"").replace(b"Content-Length: 0\r\n\r\n", end)


async def called(
    make: Make, peer: Peer, name: str, act: Callable[[IncomingCall], Awaitable[None]]
) -> tuple[UserAgent, bytes, tuple[str, int]]:
    agent = await make(CALLEE, peer.hop)
    agent.on_invite = act
    invite, address = wants(invite_to(agent, peer), name), (HOST, agent.address.port)
    peer.send(invite, address)
    return agent, invite, address


async def test_a_reliable_response_is_repeated_until_the_right_prack(make: Make, peer: Peer) -> None:
    steps: list[str] = []

    async def act(call: IncomingCall) -> None:
        for body in (b"first", b"second"):
            await call.progress(body)
            steps.append(body.decode())
        await call.answer(b"not again")

    _, invite, address = await called(make, peer, "Supported", act)
    first = await peer.response(183)
    number, tag = int(first.headers["RSeq"]), str(first.to_address.parameters["tag"])
    assert (first.body, header_values(first, "Require")) == (b"first", ["100rel"])
    for _ in range(2):
        assert (await peer.response(183)).headers["RSeq"] == str(number)
    wrong = (f"{number + 1} 1 INVITE", f"{number} 2 INVITE", f"{number} 1 UPDATE")
    for sequence, rack in enumerate(wrong, 2):
        peer.send(prack(invite, tag, sequence, rack), address)
        await peer.response(481)
    peer.send(prack(invite, tag, 5, "nothing"), address)
    await peer.response(400)
    assert steps == []
    peer.send(prack(invite, tag, 6, f"{number} 1 INVITE"), address)
    await peer.response(200)
    while (second := await peer.response(183)).headers["RSeq"] == str(number):
        pass
    assert (second.headers["RSeq"], second.body) == (str(number + 1), b"second")
    peer.send(prack(invite, tag, 7, f"{number} 1 INVITE"), address)
    await peer.response(481)
    peer.send(prack(invite, tag, 8, f"{number + 1} 1 INVITE"), address)
    while (answer := await peer.response(200)).headers["CSeq"] != "1 INVITE":
        pass
    assert answer.body == b""
    assert steps == ["first", "second"]


async def test_the_answer_waits_for_the_prack(make: Make, peer: Peer) -> None:
    async def act(call: IncomingCall) -> None:
        await asyncio.gather(call.progress(b"early"), call.answer(b"early"))

    _, invite, address = await called(make, peer, "Supported", act)
    early = await peer.response(183)
    peer.send(in_dialog(invite, "OPTIONS", str(early.to_address.parameters["tag"]), "ask", 2), address)
    assert (await peer.response(200)).headers["CSeq"] == "2 OPTIONS", "not the 200 to the INVITE"
    peer.send(
        prack(invite, str(early.to_address.parameters["tag"]), 3, f"{early.headers['RSeq']} 1 INVITE"), address
    )
    assert (await peer.response(200)).headers["CSeq"] == "3 PRACK"
    assert (await peer.response(200)).headers["CSeq"] == "1 INVITE"


async def test_without_a_prack_the_call_is_refused(make: Make, peer: Peer) -> None:
    failed: list[Exception] = []

    async def act(call: IncomingCall) -> None:
        with pytest.raises(UnacknowledgedError) as caught:
            await call.progress(b"early")
        failed.append(caught.value)

    await called(make, peer, "Supported", act)
    await peer.response(504)
    await until(lambda: failed)


async def test_a_caller_that_does_not_know_it_gets_no_early_answer(make: Make, peer: Peer) -> None:
    async def act(call: IncomingCall) -> None:
        with pytest.raises(LocalError, match="takes no answer"):
            await call.progress(b"early")
        await call.answer(b"answer")

    await called(make, peer, "Unsupported", act)
    assert (await peer.response(200)).body == b"answer"


async def test_a_caller_that_gives_up_ends_the_wait(make: Make, peer: Peer) -> None:
    failed: list[Exception] = []

    async def act(call: IncomingCall) -> None:
        with pytest.raises(UnacknowledgedError) as caught:
            await call.progress(b"early")
        failed.append(caught.value)

    _, invite, address = await called(make, peer, "Supported", act)
    await peer.response(183)
    cancel = invite.split(b"Identity")[0].replace(b"INVITE", b"CANCEL").split(b"P-Asserted")[0]
    peer.send(cancel + b"Content-Length: 0\r\n\r\n", address)
    await peer.response(487)
    await until(lambda: failed)


async def test_an_offer_in_a_prack_is_refused_and_the_response_counts_as_acknowledged(
    make: Make, peer: Peer
) -> None:
    async def act(call: IncomingCall) -> None:
        await call.progress(b"early")
        await call.answer(b"early")

    _, invite, address = await called(make, peer, "Supported", act)
    early = await peer.response(183)
    rack = f"{early.headers['RSeq']} 1 INVITE"
    peer.send(prack(invite, str(early.to_address.parameters["tag"]), 2, rack, b"v=0\r\n"), address)
    await peer.response(488)
    assert (await peer.response(200)).headers["CSeq"] == "1 INVITE"


@pytest.mark.parametrize(("name", "reliable"), [("Require", True), ("Supported", False)])
async def test_ringing_is_reliable_where_the_caller_demands_it(
    make: Make, peer: Peer, name: str, reliable: bool
) -> None:
    async def act(call: IncomingCall) -> None:
        await call.ring()
        await call.answer(SDP)

    _, invite, address = await called(make, peer, name, act)
    ringing = await peer.response(180)
    assert (ringing.headers.get("RSeq") is not None) is reliable
    if reliable:
        tag = str(ringing.to_address.parameters["tag"])
        peer.send(prack(invite, tag, 2, f"{ringing.headers['RSeq']} 1 INVITE"), address)
    while (answer := await peer.response(200)).headers["CSeq"] != "1 INVITE":
        pass
    assert answer.body == SDP


async def test_a_caller_without_an_offer_gets_no_reliable_response(make: Make, peer: Peer) -> None:
    """It would have to hold our offer (RFC 3261 §13.2.1), so the first that comes is the 200."""

    async def act(call: IncomingCall) -> None:
        assert not call.takes_early
        await call.ring()
        await call.answer(b"offer")

    agent = await make(CALLEE, peer.hop)
    agent.on_invite = act
    invite = wants(invite_to(agent, peer), "Require").replace(b"Content-Length: 5\r\n\r\nv=0\r\n", b"")
    peer.send(invite.replace(b"Content-Type: application/sdp\r\n", b"") + b"\r\n", (HOST, agent.address.port))
    message, _ = await asyncio.wait_for(peer.received.get(), TIMEOUT_S)
    assert isinstance(message, Response)
    assert (message.code, message.body) == (200, b"offer")


async def test_an_unknown_extension_is_refused_by_its_name(make: Make, peer: Peer) -> None:
    calls: list[IncomingCall] = []
    agent = await make(CALLEE, peer.hop)
    agent.on_invite = keeps(calls)
    invite = wants(invite_to(agent, peer), "Require").replace(b"100rel", b"100rel, precondition")
    peer.send(invite, (HOST, agent.address.port))
    assert header_values(await peer.response(420), "Unsupported") == ["precondition"]
    assert calls == []
