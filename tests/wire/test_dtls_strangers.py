"""What strangers send to a leg that DTLS keys without ICE: it costs no place, ends no call, goes to no victim."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from OpenSSL import SSL

from voice_dpki.effects import SystemRandom
from voice_dpki.sip.dtls_sdp import DtlsDescription, Setup
from voice_dpki.wire.dtls import DtlsIdentity, DtlsSrtp
from voice_dpki.wire.dtls_leg import MAX_OTHERS, DtlsLeg
from voice_dpki.wire.dtls_listener import DtlsListener
from voice_dpki.wire.early import Address
from voice_dpki.wire.ice_lite import IceLite
from voice_dpki.wire.relay import UNAUTHENTIC

IN_SDP, BEHIND_NAT = ("127.0.0.1", 9), ("127.0.0.5", 7_777)
ALERT = bytes.fromhex("15fefd 0000 000000000009 0002 0228")
"""A fatal handshake_failure in clear (RFC 6347 §4.1, RFC 5246 §7.2)."""

FIRST_RESEND_S = 1.0
"""When OpenSSL sends a flight again (RFC 6347 §4.2.4.1)."""

TELEPHONE, GATEWAY = DtlsIdentity(), DtlsIdentity()


class Client:
    """A telephone or a stranger at `source`: what the leg sends it, and a handshake in memory."""

    def __init__(self, leg: DtlsLeg, source: Address) -> None:
        self.leg, self.source = leg, source
        self.dtls = DtlsSrtp(TELEPHONE, (GATEWAY.fingerprint,), client=True)
        self.hello = self.dtls.start()[0]
        self.sent: list[bytes] = []

    def say(self, *datagrams: bytes) -> list[bytes]:
        """Send datagrams, and return the answers."""
        self.sent.clear()
        for datagram in datagrams:
            self.leg.take(datagram, self.source, False)
        return list(self.sent)

    def greet(self) -> list[bytes]:
        """Return the cookie, as who receives at the source can, and get the leg's first flight."""
        (verify,) = self.say(self.hello)
        return self.say(*self.dtls.receive(verify))

    def finish(self) -> None:
        """Do the handshake to its end."""
        answers = self.greet()
        while answers:
            answers = self.say(*(made for each in answers for made in self.dtls.receive(each)))


At = Callable[[Address], Client]


@pytest.fixture
async def leg() -> AsyncIterator[DtlsLeg]:
    made = DtlsLeg("127.0.0.1", GATEWAY, IceLite(SystemRandom()))
    made.handshake(DtlsDescription((TELEPHONE.fingerprint,), Setup.ACTIVE, None), IN_SDP, client=False)
    yield made
    await made.close()


@pytest.fixture
def at(leg: DtlsLeg, monkeypatch: pytest.MonkeyPatch) -> At:
    clients: dict[Address, Client] = {}
    monkeypatch.setattr(leg, "transmit", lambda wire, remote: clients[remote].sent.append(wire))

    def client(source: Address) -> Client:
        clients[source] = Client(leg, source)
        return clients[source]

    return client


def stranger(number: int) -> Address:
    return ("127.0.0.9", 1_000 + number)


@pytest.mark.parametrize("source", [IN_SDP, BEHIND_NAT])
async def test_who_returns_the_cookie_is_keyed(leg: DtlsLeg, at: At, source: Address) -> None:
    at(source).finish()
    assert await leg.keyed == "AEAD_AES_128_GCM"


async def test_what_is_no_hello_or_has_no_cookie_takes_no_place(leg: DtlsLeg, at: At) -> None:
    hello = at(BEHIND_NAT).hello
    junk = [bytes([first]) + bytes(80) for first in range(20, 64)] + [hello[:40], hello[:13], ALERT]
    for number, each in enumerate(junk):
        assert at(stranger(number)).say(each) == []
        assert leg.dropped[UNAUTHENTIC] == number + 1
    for number in range(2 * MAX_OTHERS):
        assert len(at(stranger(number)).say(hello)) == 1
    at(BEHIND_NAT).finish()
    assert leg.is_keyed


async def test_alerts_from_the_sdps_address_end_no_call(leg: DtlsLeg, at: At) -> None:
    assert at(IN_SDP).say(ALERT) == []
    broken = at(IN_SDP)
    assert broken.greet()
    broken.say(ALERT)
    assert not leg.keyed.done()
    at(IN_SDP).finish()
    assert leg.is_keyed


async def test_a_forged_source_is_sent_less_than_was_sent_and_once(leg: DtlsLeg, at: At) -> None:
    victim = at(stranger(1))
    (answer,) = victim.say(victim.hello)
    assert len(answer) < len(victim.hello)
    await asyncio.sleep(FIRST_RESEND_S + 0.3)
    assert victim.sent == [answer]


async def test_a_cookie_is_worth_nothing_at_another_address(at: At) -> None:
    one, victim = at(stranger(1)), at(stranger(2))
    (verify,) = one.say(one.hello)
    (with_cookie,) = one.dtls.receive(verify)
    (answer,) = victim.say(with_cookie)
    assert len(answer) == len(verify)


async def test_a_place_is_given_back_when_its_handshake_breaks(leg: DtlsLeg, at: At) -> None:
    strangers = [at(stranger(number)) for number in range(MAX_OTHERS)]
    assert all(each.greet() for each in strangers)
    late = at(BEHIND_NAT)
    assert late.say(late.hello) == []
    strangers[0].say(ALERT)
    at(BEHIND_NAT).finish()
    assert leg.is_keyed


async def test_strangers_leave_a_place_for_the_sdps_address(leg: DtlsLeg, at: At) -> None:
    assert all(at(stranger(number)).greet() for number in range(MAX_OTHERS))
    at(IN_SDP).finish()
    assert leg.is_keyed


def told_of_a_wrong_setting() -> list[object]:
    with pytest.raises(SSL.Error) as caught:
        GATEWAY.context().set_cipher_list(b"NONE-SUCH")
    return list(caught.value.args[0])


def test_a_malformed_hello_leaves_no_error_that_another_would_tell() -> None:
    listener = DtlsListener(GATEWAY, (TELEPHONE.fingerprint,))
    hello = DtlsSrtp(TELEPHONE, (GATEWAY.fingerprint,), client=True).start()[0]
    alone = told_of_a_wrong_setting()
    assert listener.receive(b"", IN_SDP) == (None, [])
    for at in range(1, len(hello)):
        for malformed in (hello[:at], hello[:at] + b"\0" + hello[at + 1 :], hello[:at] + b"\xff" + hello[at + 1 :]):
            made, answer = listener.receive(malformed, IN_SDP)
            assert made is None
            assert sum(map(len, answer)) < len(hello)
        assert told_of_a_wrong_setting() == alone
