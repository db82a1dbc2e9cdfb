"""DTLS-SRTP in memory: keys on both sides if the certificates are those of the SDP, and else none."""

import contextlib
from collections.abc import Callable

import pytest
from aiortc import RTCCertificate
from OpenSSL import SSL

from voice_dpki.sip.dtls_sdp import Fingerprint
from voice_dpki.wire.dtls import MAX_HANDSHAKE_BYTES, MTU_BYTES, DtlsError, DtlsIdentity, DtlsSrtp


@pytest.fixture(scope="module")
def identities() -> tuple[DtlsIdentity, DtlsIdentity]:
    return DtlsIdentity(), DtlsIdentity()


def talk(one: DtlsSrtp, other: DtlsSrtp, change: Callable[[bytes], list[bytes]] = lambda sent: [sent]) -> None:
    """Let both sides send until neither does."""
    sides, waiting = (one, other), one.start() + other.start()
    turn = 1
    while waiting:
        assert all(len(datagram) <= MTU_BYTES for datagram in waiting)
        waiting = [made for sent in waiting for got in change(sent) for made in sides[turn].receive(got)]
        turn = 1 - turn


def shake_hands(peer: SSL.Connection, server: DtlsSrtp) -> None:
    while server.keys is None:
        with contextlib.suppress(SSL.WantReadError):
            peer.do_handshake()
        for made in server.receive(peer.bio_read(65_536)):
            peer.bio_write(made)


def pair(identities: tuple[DtlsIdentity, DtlsIdentity]) -> tuple[DtlsSrtp, DtlsSrtp]:
    one, other = identities
    return DtlsSrtp(one, [other.fingerprint], client=True), DtlsSrtp(other, [one.fingerprint], client=False)


def test_both_sides_have_each_others_keys(identities: tuple[DtlsIdentity, DtlsIdentity]) -> None:
    client, server = pair(identities)
    talk(client, server)
    assert client.keys is not None
    assert server.keys is not None
    assert (client.keys.suite, len(client.keys.send)) == ("AEAD_AES_128_GCM", 28)
    assert (client.keys.send, client.keys.receive) == (server.keys.receive, server.keys.send)
    assert client.keys.send != client.keys.receive
    assert client.keys.send.hex() not in repr(client.keys)


def test_the_end_is_told(identities: tuple[DtlsIdentity, DtlsIdentity]) -> None:
    client, server = pair(identities)
    talk(client, server)
    (end,) = client.close()
    server.receive(end)
    assert server.closed


@pytest.mark.parametrize("who", ["client", "server"])
def test_another_certificate_than_the_sdps_gives_no_keys(
    identities: tuple[DtlsIdentity, DtlsIdentity], who: str
) -> None:
    one, other = identities
    wrong = Fingerprint("sha-256", bytes(32))
    client = DtlsSrtp(one, [wrong if who == "client" else other.fingerprint], client=True)
    server = DtlsSrtp(other, [wrong if who == "server" else one.fingerprint], client=False)
    with pytest.raises(DtlsError, match="not that of the SDP"):
        talk(client, server)
    assert (client if who == "client" else server).keys is None


def test_all_fingerprints_must_match(identities: tuple[DtlsIdentity, DtlsIdentity]) -> None:
    one, other = identities
    both = [other.fingerprint, Fingerprint("sha-384", bytes(48))]
    with pytest.raises(DtlsError, match="not that of the SDP"):
        talk(DtlsSrtp(one, both, client=True), DtlsSrtp(other, [one.fingerprint], client=False))


def test_a_peer_without_srtp_gives_no_keys(identities: tuple[DtlsIdentity, DtlsIdentity]) -> None:
    context = identities[0].context()
    context.set_verify(SSL.VERIFY_NONE)
    plain = SSL.Context(SSL.DTLS_METHOD)
    plain.use_certificate(identities[1].certificate)
    plain.use_privatekey(identities[1].key)
    peer = SSL.Connection(plain, None)
    peer.set_connect_state()
    server = DtlsSrtp(identities[0], [identities[1].fingerprint], client=False)
    with pytest.raises(DtlsError, match="no SRTP suite"):
        shake_hands(peer, server)


def test_a_lost_flight_is_sent_again(identities: tuple[DtlsIdentity, DtlsIdentity]) -> None:
    client, _ = pair(identities)
    assert client.start()
    due_s = client.timeout_s()
    assert due_s is not None
    assert 0 < due_s <= 1.1


def test_a_handshake_that_never_ends_is_ended(identities: tuple[DtlsIdentity, DtlsIdentity]) -> None:
    _, server = pair(identities)
    for _ in range(MAX_HANDSHAKE_BYTES // 1000):
        server.receive(b"\x16\xfe\xfd" + bytes(997))
    with pytest.raises(DtlsError, match="more than"):
        server.receive(bytes(1000))


def test_octets_that_are_no_dtls_give_nothing(identities: tuple[DtlsIdentity, DtlsIdentity]) -> None:
    client, server = pair(identities)
    for junk in (b"", b"\x16", bytes(100), b"\x17\xfe\xfd" + bytes(60)):
        assert server.receive(junk) == []
    talk(client, server)
    assert server.keys is not None


def test_the_fingerprint_is_what_aiortc_computes(identities: tuple[DtlsIdentity, DtlsIdentity]) -> None:
    ours = identities[0]
    theirs = RTCCertificate(ours.key, ours.certificate).getFingerprints()[0]
    assert ours.fingerprint.serialize() == f"{theirs.algorithm} {theirs.value}"


def test_data_of_the_peer_is_thrown_away_and_the_end_behind_it_is_seen(
    identities: tuple[DtlsIdentity, DtlsIdentity],
) -> None:
    """DTLS-SRTP carries no data; a peer that sends some takes no memory with it."""
    client, server = pair(identities)
    talk(client, server)
    for _ in range(20):
        client._connection.send(b"data")
    server.receive(client._connection.bio_read(65_536))
    with pytest.raises(SSL.WantReadError):
        server._connection.recv(2048)
    for _ in range(3):
        client._connection.send(b"data")
    records = client._connection.bio_read(65_536) + b"".join(client.close())
    server.receive(records)
    assert server.closed
