"""User agents over real sockets: two of them, and one against a peer that loses, repeats and misbehaves."""

import asyncio
import re
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from sipmessage import Request

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
from voice_dpki.sip.hop import TRANSPORTS
from voice_dpki.sip.keepalive import KeepAliveTimes
from voice_dpki.sip.message import Hop, encode, header_values, make_response, parse_message
from voice_dpki.wire.sip.registration import Backoff
from voice_dpki.wire.sip.user_agent import IncomingCall, RegistrationError, UserAgent

# Two user agents.


async def test_a_call_is_placed_answered_and_ended_by_either_side(pair: tuple[UserAgent, UserAgent]) -> None:
    caller, callee = pair
    calls: list[IncomingCall] = []
    callee.on_invite = keeps(calls)
    for ended_by_caller in (True, False):
        call = await caller.invite(TARGET, b"offer")
        await until(lambda: calls)
        incoming = calls.pop()
        assert incoming.sdp == b"offer"
        await incoming.ring()
        await until(call.ringing.is_set)
        await incoming.answer(b"answer")
        answer = await call.answered()
        assert (answer.status, answer.sdp) == (200, b"answer")
        assert answer.setup_ms > 0
        await incoming.established.wait()
        first, second = (call, incoming) if ended_by_caller else (incoming, call)
        await first.bye()
        assert first.ended.is_set()
        assert second.ended.is_set()
        assert second.ended_by_peer
        assert not first.ended_by_peer


async def test_a_call_can_be_refused_with_a_reason(pair: tuple[UserAgent, UserAgent]) -> None:
    caller, callee = pair

    async def busy(call: IncomingCall) -> None:
        await call.reject(486, headers=[("Reason", 'Q.850;cause=17;text="a, b"')])

    callee.on_invite = busy
    call = await caller.invite(TARGET, SDP)
    answer = await call.answered()
    assert (answer.status, answer.reason, answer.reasons) == (486, "Busy Here", ['Q.850;cause=17;text="a, b"'])
    assert call.ended.is_set()


async def test_a_call_that_rings_can_be_cancelled(pair: tuple[UserAgent, UserAgent]) -> None:
    caller, callee = pair
    calls: list[IncomingCall] = []
    callee.on_invite = keeps(calls)
    call = await caller.invite(TARGET, SDP)
    call.cancel()  # before any response: it must wait for the first (RFC 3261 §9.1)
    await until(lambda: calls)
    await calls[0].ring()
    assert (await call.answered()).status == 487
    await calls[0].ended.wait()
    assert calls[0].ended_by_peer
    await calls[0].answer(SDP)
    assert not calls[0].established.is_set()


async def test_an_answer_that_crosses_the_cancel_is_ended(pair: tuple[UserAgent, UserAgent]) -> None:
    caller, callee = pair
    calls: list[IncomingCall] = []
    callee.on_invite = keeps(calls)
    call = await caller.invite(TARGET, SDP)
    await until(lambda: calls)
    await calls[0].answer(SDP)
    call.cancel()
    assert (await call.answered()).status == 200
    await calls[0].ended.wait()


async def test_who_is_not_there_for_calls_says_so(pair: tuple[UserAgent, UserAgent]) -> None:
    assert (await (await pair[0].invite(TARGET, SDP)).answered()).status == 480


async def test_a_handler_that_fails_refuses_the_call(pair: tuple[UserAgent, UserAgent]) -> None:
    async def fails(call: IncomingCall) -> None:
        raise RuntimeError("no sound card")

    pair[1].on_invite = fails
    assert (await (await pair[0].invite(TARGET, SDP)).answered()).status == 480


async def test_silence_is_408_and_nobody_listening_503_at_once(make: Make) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((HOST, 0))
        silent = await make(CALLER, Hop("udp", HOST, listener.getsockname()[1]))
        assert (await (await silent.invite(TARGET, SDP)).answered()).status == 408
    for transport in ("udp", "tcp"):
        refused = await make(CALLER, Hop(transport, HOST, 9))
        assert (await (await refused.invite(TARGET, SDP)).answered()).status == 503


async def test_closing_ends_the_calls(pair: tuple[UserAgent, UserAgent]) -> None:
    caller, callee = pair
    calls: list[IncomingCall] = []
    callee.on_invite = keeps(calls)
    call = await caller.invite(TARGET, SDP)
    await until(lambda: calls)
    await calls[0].answer(SDP)
    await call.answered()
    await caller.close()
    await asyncio.wait_for(calls[0].ended.wait(), TIMEOUT_S)


async def test_closing_gives_up_calls_that_ring(pair: tuple[UserAgent, UserAgent]) -> None:
    caller, callee = pair
    calls: list[IncomingCall] = []
    callee.on_invite = keeps(calls)
    first = await caller.invite(TARGET, SDP)
    await until(lambda: calls)
    await calls[0].ring()
    await until(first.ringing.is_set)
    await caller.close()
    await asyncio.wait_for(calls[0].ended.wait(), TIMEOUT_S)


async def test_a_callee_that_hangs_up_before_it_answers_refuses(pair: tuple[UserAgent, UserAgent]) -> None:
    caller, callee = pair

    async def on_invite(call: IncomingCall) -> None:
        await call.bye()

    callee.on_invite = on_invite
    assert (await (await caller.invite(TARGET, SDP)).answered()).status == 480


# One against a peer.


async def test_each_2xx_is_acknowledged_again(make: Make, peer: Peer) -> None:
    agent = await make(CALLER, peer.hop)
    call = await agent.invite(TARGET, SDP)
    invite = await peer.request("INVITE")
    routes = [("Record-Route", "<sip:127.0.0.99;lr>"), ("Record-Route", f"<sip:{peer.hop.address};lr>")]
    for _ in range(3):
        peer.answer(invite, 200, *routes)
        ack = await peer.request("ACK")
        assert header_values(ack, "Route") == [routes[1][1], routes[0][1]]
    assert (await call.answered()).status == 200
    peer.answer(invite, 200, *routes[1:], to_tag="another-branch")
    await peer.request("ACK")
    bye = await peer.request("BYE")
    assert bye.headers["To"].endswith("another-branch")
    peer.answer(bye, 200)
    assert not call.ended.is_set()


async def test_the_challenge_of_a_proxy_is_answered_once(make: Make, peer: Peer) -> None:
    agent = await make(CALLER, peer.hop)
    call = await agent.invite(TARGET, SDP)
    challenge = ("Proxy-Authenticate", 'Digest realm="a.example", nonce="n1", algorithm=SHA-256, qop="auth"')
    first = await peer.request("INVITE")
    peer.answer(first, 407, challenge)
    await peer.request("ACK")
    second = await peer.request("INVITE")
    assert second.headers["CSeq"] == "2 INVITE"
    assert second.headers["Call-ID"] == first.headers["Call-ID"]
    assert 'username="+493023125001"' in second.headers["Proxy-Authorization"]
    stale = (challenge[0], challenge[1].replace("n1", "n2") + ", stale=true")
    peer.answer(second, 407, stale)
    third = await peer.request("INVITE")
    assert 'nonce="n2"' in third.headers["Proxy-Authorization"]
    peer.answer(third, 407, challenge)
    assert (await call.answered()).status == 407


async def test_md5_is_not_answered_unless_the_account_allows_it(make: Make, peer: Peer) -> None:
    agent = await make(CALLER, peer.hop)
    call = await agent.invite(TARGET, SDP)
    invite = await peer.request("INVITE")
    peer.answer(invite, 407, ("Proxy-Authenticate", 'Digest realm="a.example", nonce="n", qop="auth"'))
    assert (await call.answered()).status == 407


async def test_a_2xx_that_makes_no_dialog_fails_the_call(make: Make, peer: Peer) -> None:
    agent = await make(CALLER, peer.hop)
    call = await agent.invite(TARGET, SDP)
    peer.send(make_response(await peer.request("INVITE"), 200, to_tag="x"))
    assert (await call.answered()).status == 500


async def test_an_answer_is_repeated_until_the_ack_and_a_repeated_invite_is_the_same_call(
    make: Make, peer: Peer
) -> None:
    agent = await make(CALLEE, peer.hop)
    calls: list[IncomingCall] = []
    agent.on_invite = keeps(calls)
    address = (HOST, agent.address.port)
    invite = invite_to(agent, peer)
    for _ in range(2):
        peer.send(invite, address)
    await until(lambda: calls)
    assert (calls[0].verstat, calls[0].identity) == ("TN-Validation-Passed", ["a.b.c;info=<https://x>"])
    assert calls[0].from_ == "<sip:+493023125001@a.example>;tag=peer"
    await calls[0].answer(b"answer")
    peer.send(invite, address)
    for _ in range(4):
        ok = await peer.response(200)
    tag = ok.to_address.parameters["tag"]
    assert tag
    peer.send(invite_to(agent, peer, "merged"), address)
    await peer.response(482)
    assert len(calls) == 1
    peer.send(in_dialog(invite, "ACK", tag, "ack", 1), address)
    await calls[0].established.wait()
    peer.send(in_dialog(invite, "INVITE", tag, "again", 2), address)
    await peer.response(488)
    peer.send(in_dialog(invite, "INFO", tag, "info", 3), address)
    await peer.response(405)
    peer.send(in_dialog(invite, "BYE", tag, "late", 2), address)
    await peer.response(500)
    peer.send(in_dialog(invite, "BYE", "wrong", "stray", 4), address)
    await peer.response(481)
    assert not calls[0].ended.is_set()
    peer.send(in_dialog(invite, "BYE", tag, "bye", 5), address)
    await peer.response(200)
    assert calls[0].ended_by_peer


async def test_only_the_own_proxy_asserts_who_calls(make: Make, peer: Peer) -> None:
    agent = await make(CALLEE, Hop("udp", "127.0.0.2", 5060), proxy_only=False)
    calls: list[IncomingCall] = []
    agent.on_invite = keeps(calls)
    peer.send(invite_to(agent, peer), (HOST, agent.address.port))
    await until(lambda: calls)
    assert (calls[0].asserted_identity, calls[0].verstat) == (None, None)


async def test_an_answer_that_nobody_acknowledges_is_taken_back(make: Make, peer: Peer) -> None:
    agent = await make(CALLEE, peer.hop)
    calls: list[IncomingCall] = []
    agent.on_invite = keeps(calls)
    peer.send(invite_to(agent, peer), (HOST, agent.address.port))
    await until(lambda: calls)
    await calls[0].answer(SDP)
    bye = await peer.request("BYE")
    peer.answer(bye, 200)
    assert calls[0].ended.is_set()


async def test_what_a_user_agent_does_not_do_is_refused(make: Make, peer: Peer) -> None:
    agent = await make(CALLEE, peer.hop)
    agent.on_invite = keeps([])
    address = (HOST, agent.address.port)
    invite = invite_to(agent, peer)
    peer.send(invite.replace(b"Identity: a", b"Require: magic\r\nIdentity: a"), address)
    assert (await peer.response(420)).headers["Unsupported"] == "magic"
    peer.send(invite.replace(b"bKone", b"bKtwo").replace(b"Contact: <sip:peer", b"Contact: <tel:peer"), address)
    await peer.response(400)
    options = invite.replace(b"INVITE", b"OPTIONS").replace(b"bKone", b"bKthree")
    peer.send(options, address)
    assert "INVITE" in (await peer.response(200)).headers["Allow"]
    peer.send(options.replace(b"OPTIONS", b"MESSAGE"), address)
    await peer.response(405)
    peer.send(options.replace(b"OPTIONS", b"CANCEL"), address)
    await peer.response(481)


async def test_a_registration_is_authenticated_renewed_and_removed(make: Make, peer: Peer) -> None:
    agent = await make(CALLER, peer.hop)
    work = asyncio.create_task(agent.register(60))
    register = await peer.request("REGISTER")
    assert str(register.uri) == "sip:a.example"
    peer.answer(
        register, 401, ("WWW-Authenticate", 'Digest realm="a.example", nonce="n", algorithm=SHA-256, qop="auth"')
    )
    register = await peer.request("REGISTER")
    assert register.headers["CSeq"] == "2 REGISTER"
    contact = header_values(register, "Contact")[0]
    assert contact == f"<sip:+493023125001@{agent.address.address}>;expires=60"
    peer.answer(
        register, 200, ("Contact", "<sip:other@127.0.0.9>;expires=7"), ("Contact", contact.removesuffix("60") + "1")
    )
    assert await work == 1
    register = await peer.request("REGISTER")  # renewed by itself
    assert register.headers["CSeq"] == "3 REGISTER"
    peer.answer(register, 200, ("Contact", contact))
    work = asyncio.create_task(agent.register(0))
    peer.answer(await peer.request("REGISTER"), 200)
    assert await work == 0


async def test_a_registration_takes_the_time_that_is_offered(make: Make, peer: Peer) -> None:
    agent = await make(CALLER, peer.hop)
    work = asyncio.create_task(agent.register(5))
    peer.answer(await peer.request("REGISTER"), 423, ("Min-Expires", "60"))
    register = await peer.request("REGISTER")
    peer.answer(register, 200, ("Contact", header_values(register, "Contact")[0]))
    assert await work == 60


async def test_a_registration_that_is_refused_is_an_error(make: Make, peer: Peer) -> None:
    agent = await make(CALLER, peer.hop)
    work = asyncio.create_task(agent.register())
    peer.answer(await peer.request("REGISTER"), 403)
    with pytest.raises(RegistrationError) as refused:
        await work
    assert refused.value.status == 403


CHALLENGE = 'Digest realm="{}", nonce="n", algorithm=SHA-256, qop="auth"'


@pytest.mark.parametrize("failure", ["503", "403", "silence", "without the contact"])
async def test_a_missed_refresh_is_made_up_for(make: Make, peer: Peer, failure: str) -> None:
    agent = await make(CALLER, peer.hop)
    work = asyncio.create_task(agent.register(60))
    register = await peer.request("REGISTER")
    contact = header_values(register, "Contact")[0]
    peer.answer(register, 200, ("Contact", contact.removesuffix("60") + "1"))
    assert await work == 1
    call_ids = {register.headers["Call-ID"]}
    for _ in range(1 if failure == "silence" else 3):  # the refresh and the tries after it come to nothing
        register = await peer.request("REGISTER")
        if failure == "silence":
            register = await peer.request("REGISTER")
        if failure.isdigit():
            peer.answer(register, int(failure))
        elif failure != "silence":
            peer.answer(register, 200, ("Contact", "<sip:other@127.0.0.9>"))
        call_ids.add(register.headers["Call-ID"])
    await until(lambda: agent._registration._failures > 0)

    async def accept_all() -> None:  # a busy machine answers the first when it has been given up
        while True:
            register = await peer.request("REGISTER")
            peer.answer(register, 200, ("Contact", contact))
            call_ids.add(register.headers["Call-ID"])

    accepting = asyncio.create_task(accept_all())
    await until(lambda: agent._registration._failures == 0)
    accepting.cancel()
    assert len(call_ids) == 1


async def test_retry_after_is_obeyed(make: Make, peer: Peer) -> None:
    agent = await make(CALLER, peer.hop)
    work = asyncio.create_task(agent.register(60))
    peer.answer(await peer.request("REGISTER"), 503, ("Retry-After", "18000 (upgrade);duration=5"))
    with pytest.raises(RegistrationError) as refused:
        await work
    assert refused.value.retry_after_s == 3_600
    assert refused.value.passes


async def test_a_telephone_that_starts_before_its_registrar_waits_for_it(make: Make, peer: Peer) -> None:
    agent = await make(CALLER, peer.hop)
    work = asyncio.create_task(agent.register(60, until_done=True))
    for _ in range(3):
        peer.answer(await peer.request("REGISTER"), 503)
    register = await peer.request("REGISTER")
    peer.answer(register, 200, ("Contact", header_values(register, "Contact")[0]))
    assert await work == 60
    work = asyncio.create_task(agent.register(60, until_done=True))
    peer.answer(await peer.request("REGISTER"), 403)
    with pytest.raises(RegistrationError):
        await work


def test_the_wait_doubles_within_bounds(make_random: Callable[[], Any]) -> None:
    """RFC 5626 §4.5: 30 s doubled up to 1,800 s, and a random part of 50 to 100 percent."""
    waits = [Backoff().wait_s(failures, make_random()) for failures in range(1, 40)]
    bounds = [min(1_800.0, 30.0 * 2**count) for count in range(39)]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))


async def test_a_lost_connection_is_registered_over_again(make: Make) -> None:
    """The flow on which the telephone is called is gone with it."""
    seen: asyncio.Queue[Request] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            register = parse_message(await reader.readuntil(b"\r\n\r\n"))
            assert isinstance(register, Request)
            seen.put_nowait(register)
            contact = ("Contact", header_values(register, "Contact")[0])
            writer.write(encode(make_response(register, 200, to_tag="r", headers=[contact])))
            await writer.drain()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        hop = Hop("tcp", *server.sockets[0].getsockname())
        agent = await make(CALLER, hop, instance="urn:uuid:00000000-0000-1000-8000-000A95A0E128")
        assert await agent.register(600) == 600
        first, again = await seen.get(), await asyncio.wait_for(seen.get(), TIMEOUT_S)
        await agent.close()
    contact = header_values(first, "Contact")[0]
    assert contact.endswith(';expires=600;+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>";reg-id=1')
    assert (header_values(again, "Contact")[0], again.headers["Supported"]) == (contact, "path, outbound")


async def test_only_the_own_domain_s_challenge_is_answered(make: Make, peer: Peer) -> None:
    """Whoever gets an answer to a nonce of its own can guess at the password."""
    agent = await make(CALLER, peer.hop)
    call = await agent.invite(TARGET, SDP)
    invite = await peer.request("INVITE")
    headers = [("Proxy-Authenticate", CHALLENGE.format(realm)) for realm in ("b.example", "")]
    peer.answer(invite, 407, *headers)
    assert (await call.answered()).status == 407
    call = await agent.invite(TARGET, SDP)
    peer.answer(await peer.request("INVITE"), 407, *headers, ("Proxy-Authenticate", CHALLENGE.format("A.example")))
    await peer.request("ACK")
    answered = await peer.request("INVITE")
    assert 'realm="A.example"' in answered.headers["Proxy-Authorization"]
    peer.answer(answered, 486)
    await call.answered()


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("sip:+442079460999@b.example", 404),
        ("sip:+442079460123@c.example", 404),
        ("sip:b.example", 404),
        ("sip:+442079460123@127.0.0.1", 180),
        ("sip:442079460123@B.EXAMPLE;user=phone", 180),
        ("tel:+442079460123", 180),
    ],
)
async def test_a_telephone_takes_its_own_calls_alone(make: Make, peer: Peer, uri: str, status: int) -> None:
    agent = await make(CALLEE, peer.hop)

    async def ring(call: IncomingCall) -> None:
        await call.ring()

    agent.on_invite = ring
    data = invite_to(agent, peer)
    peer.send(re.sub(rb"^INVITE \S+", b"INVITE " + uri.encode(), data), (HOST, agent.address.port))
    await peer.response(status)


async def test_a_call_past_the_proxy_is_refused(make: Make, peer: Peer) -> None:
    agent = await make(CALLEE, Hop("udp", "127.0.0.2", 5060))
    calls: list[IncomingCall] = []
    agent.on_invite = keeps(calls)
    peer.send(invite_to(agent, peer), (HOST, agent.address.port))
    assert "proxy" in (await peer.response(403)).phrase
    peer.send(
        invite_to(agent, peer).replace(b"INVITE", b"BYE").replace(b"bKone", b"bKx"), (HOST, agent.address.port)
    )
    await peer.response(403)
    assert calls == []


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_a_forged_source_address_is_not_the_proxy(make: Make, peer: Peer, transport: str) -> None:
    """Anybody can write the proxy's address into a datagram, so what should come by TCP or TLS is refused."""
    proxy = Hop(transport, HOST, peer.hop.port)
    agent = await make(CALLEE, proxy)
    calls: list[IncomingCall] = []
    agent.on_invite = keeps(calls)
    peer.send(invite_to(agent, peer), (HOST, agent.address.port))
    assert "proxy" in (await peer.response(403)).phrase
    assert calls == []
    open_to_all = await make(CALLEE, proxy, proxy_only=False)
    open_to_all.on_invite = keeps(calls)
    peer.send(invite_to(open_to_all, peer), (HOST, open_to_all.address.port))
    await until(lambda: calls)
    assert (calls[0].asserted_identity, calls[0].verstat) == (None, None)


@pytest.mark.parametrize("peer", TRANSPORTS)
@pytest.mark.parametrize("source", TRANSPORTS)
def test_a_peer_is_heard_over_its_own_transport_or_a_stronger_one(source: str, peer: str) -> None:
    strong_enough = (source, peer) not in {("udp", "tcp"), ("udp", "tls"), ("tcp", "tls")}
    assert Hop(source, HOST, 1).is_from(Hop(peer, HOST, 2)) is strong_enough
    assert not Hop(source, "127.0.0.2", 1).is_from(Hop(peer, HOST, 1))


async def test_a_connection_is_kept_open_as_often_as_the_registrar_says(make: Make) -> None:
    """RFC 5626 §4.4: after 0.8 to 1 s by Flow-Timer, in place of 96 to 120 s."""
    pings: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):  # also where the test ends first
            register = parse_message(await reader.readuntil(b"\r\n\r\n"))
            assert isinstance(register, Request)
            headers = [("Contact", header_values(register, "Contact")[0]), ("Flow-Timer", "1")]
            writer.write(encode(make_response(register, 200, to_tag="r", headers=headers)))
            for _ in range(2):
                pings.put_nowait(await reader.readexactly(4))
                writer.write(b"\r\n")
            await reader.read()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        agent = await make(CALLER, Hop("tcp", *server.sockets[0].getsockname()), keep_alive=KeepAliveTimes())
        assert await agent.register(600) == 600
        assert [await asyncio.wait_for(pings.get(), TIMEOUT_S) for _ in range(2)] == [b"\r\n\r\n"] * 2
        await agent.close()
