"""A leg that DTLS keys, against another one: with and without ICE, and with what strangers send."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aioice import stun

from voice_dpki.effects import SystemRandom
from voice_dpki.media.rtp import RtpPacket
from voice_dpki.sip.dtls_sdp import DtlsDescription, Fingerprint, Setup
from voice_dpki.wire import dtls_leg
from voice_dpki.wire.dtls import DtlsError, DtlsIdentity, DtlsSrtp
from voice_dpki.wire.dtls_leg import MAX_OTHERS, DtlsLeg
from voice_dpki.wire.ice_lite import IceLite
from voice_dpki.wire.relay import UNAUTHENTIC

HOST, TIMEOUT_S = "127.0.0.1", 30

Legs = tuple[DtlsLeg, DtlsLeg]


@pytest.fixture
async def legs() -> AsyncIterator[Legs]:
    async with AsyncExitStack() as stack:
        pair = tuple(DtlsLeg(HOST, DtlsIdentity(), IceLite(SystemRandom())) for _ in range(2))
        for leg in pair:
            await leg.open()
            stack.push_async_callback(leg.close)
        yield pair  # type: ignore[misc]


def told(leg: DtlsLeg, *, ice: bool = False, fingerprint: Fingerprint | None = None) -> DtlsDescription:
    """What the SDP of a leg says."""
    names = (leg.ice.name, leg.ice.password) if ice else None
    return DtlsDescription((fingerprint or leg.identity.fingerprint,), Setup.ACTPASS, names)


async def keyed(*legs: DtlsLeg) -> list[str]:
    async with asyncio.timeout(TIMEOUT_S):
        return [await leg.keyed for leg in legs]


async def test_both_are_keyed_and_hear_each_other(legs: Legs) -> None:
    one, other = legs
    other.handshake(told(one), (HOST, one.port), client=False)
    one.handshake(told(other), (HOST, other.port), client=True)
    assert await keyed(one, other) == ["AEAD_AES_128_GCM"] * 2
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    other.deliver_to(lambda clear, is_control: heard.put_nowait(clear))
    packet = RtpPacket(0, 1, 2, 3, b"speech").serialize()
    one.send(packet, False)
    async with asyncio.timeout(TIMEOUT_S):
        assert await heard.get() == packet
        await one.close()
        await other.ended.wait()


async def test_a_client_hello_may_overtake_the_answer(legs: Legs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linphone's is, which begins as soon as it has answered; it is sent once here."""
    one, other = legs
    monkeypatch.setattr(DtlsSrtp, "timeout_s", lambda _: None)
    monkeypatch.setattr(one, "transmit", lambda data, _: other.take(data, (HOST, one.port), False))  # at once
    one.handshake(told(other), (HOST, other.port), client=True)
    other.handshake(told(one), (HOST, one.port), client=False)
    assert len(await keyed(one, other)) == 2


async def test_another_certificate_keys_nothing(legs: Legs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtls_leg, "HANDSHAKE_S", 1_000.0)  # it ends the call at once
    one, other = legs
    other.handshake(told(one, fingerprint=Fingerprint("sha-256", bytes(32))), (HOST, one.port), client=False)
    one.handshake(told(other), (HOST, other.port), client=True)
    with pytest.raises(DtlsError, match="not that of the SDP"):
        await keyed(other)
    assert not other.is_keyed


async def test_strangers_take_no_part(legs: Legs) -> None:
    one, other = legs
    async with AsyncExitStack() as stack:
        strangers = [DtlsLeg(HOST, DtlsIdentity(), IceLite(SystemRandom())) for _ in range(MAX_OTHERS)]
        other.handshake(told(one), (HOST, one.port), client=False)
        for stranger in strangers:
            await stranger.open()
            stack.push_async_callback(stranger.close)
            stranger.handshake(told(other), (HOST, other.port), client=True)
        async with asyncio.timeout(TIMEOUT_S):
            while other.dropped[UNAUTHENTIC] < MAX_OTHERS:  # they go on after they were refused
                await asyncio.sleep(0.01)
        assert not other.keyed.done()
        one.handshake(told(other), (HOST, other.port), client=True)
        assert len(await keyed(one, other)) == 2


async def test_the_peer_may_be_behind_a_nat_without_ice(legs: Legs) -> None:
    one, other = legs
    other.handshake(told(one), ("192.0.2.1", 9), client=False)  # its private address, say
    one.handshake(told(other), (HOST, other.port), client=True)
    assert len(await keyed(one, other)) == 2
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    one.deliver_to(lambda clear, is_control: heard.put_nowait(clear))
    packet = RtpPacket(0, 1, 2, 3, b"speech").serialize()
    other.send(packet, False)
    async with asyncio.timeout(TIMEOUT_S):
        assert await heard.get() == packet


async def test_with_ice_a_source_without_a_check_takes_no_part(legs: Legs) -> None:
    one, other = legs
    other.handshake(told(one, ice=True), ("192.0.2.1", 9), client=False)
    one.handshake(told(other), (HOST, other.port), client=True)
    async with asyncio.timeout(TIMEOUT_S):
        while not other.dropped[UNAUTHENTIC]:
            await asyncio.sleep(0.01)
    assert not other.keyed.done()


async def test_with_ice_the_handshake_waits_for_an_authentic_check(legs: Legs) -> None:
    lite, peer = legs
    lite.handshake(told(peer, ice=True), ("192.0.2.1", 9), client=True)  # nobody is at the SDP's address
    await asyncio.sleep(0)
    assert lite.keyed.done() is False
    peer.handshake(told(lite), (HOST, lite.port), client=False)
    forged = check(lite, b"wrong password of somebody")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(forged, (HOST, lite.port))
    peer.transmit(check(lite, lite.ice.password.encode()), (HOST, lite.port))
    assert len(await keyed(lite, peer)) == 2


def check(leg: DtlsLeg, password: bytes) -> bytes:
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, os.urandom(12))
    request.attributes |= {"USERNAME": f"{leg.ice.name}:peer", "USE-CANDIDATE": None}
    request.add_message_integrity(password)
    return bytes(request)
