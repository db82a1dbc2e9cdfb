"""Octets on the wire and keys, made here from the words of RFC 7296 and RFC 7427 with hashlib and struct alone.

Both ends are ours and understand one another even where both are wrong. Nothing here uses the code to say what the
code should do: the only parser is `chain`, which follows §3.1 and §3.2.
"""

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from voice_dpki.ikev2 import auth, proposals
from voice_dpki.ikev2.crypto import ChildKeys, IkeKeys
from voice_dpki.ikev2.events import Address, CertificateToJudge, Closed, Datagram, Established, Failed, Path, SaName
from voice_dpki.ikev2.failures import Failure
from voice_dpki.ikev2.identity import fqdn
from voice_dpki.ikev2.payloads import Payload, Unknown
from voice_dpki.ikev2.proposals import CBC_256, GCM_128, IkeSuite
from voice_dpki.ikev2.registry import ExchangeType, Group
from voice_dpki.ikev2.sa import Party
from voice_dpki.x509.keys import LocalSigner

from .conftest import DEVICE, DEVICE_AT, GATEWAY, GATEWAY_AT, Wire, certificate_for, new_device, party

NewWire = Callable[..., Wire]

NONCE, NOTIFY, DELETE = 40, 41, 42
"""Types of payloads (§3.2)."""
NAT_SOURCE, NAT_DESTINATION, HASH_ALGORITHMS = 16388, 16389, 16431
"""Types of notifies (§3.10.1, RFC 7427 §4)."""
UNSUPPORTED_CRITICAL_PAYLOAD = 1
STRANGE = 200
"""A payload of the private range (§3.2), which nobody here knows."""


def chain(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Give type and body of each payload of a message in clear."""
    following, at = octets[16], 28
    while following:
        kind, (following, length) = following, struct.unpack_from("!BxH", octets, at)
        yield kind, octets[at + 4 : at + length]
        at += length
    assert at == len(octets) == struct.unpack_from("!I", octets, 24)[0]


def notify(octets: bytes, wanted: int) -> bytes:
    """Return the data of the message's notify of a type (§3.10)."""
    bodies = [body for kind, body in chain(octets) if kind == NOTIFY]
    (data,) = (body[4 + body[1] :] for body in bodies if struct.unpack_from("!H", body, 2)[0] == wanted)
    return data


def nonce(octets: bytes) -> bytes:
    (value,) = (body for kind, body in chain(octets) if kind == NONCE)
    return value


def prf(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)


def prf_plus(key: bytes, seed: bytes) -> bytes:
    """T1 | T2 | T3 | ... up to T12 (§2.13)."""
    blocks = [b""]
    for number in range(1, 13):
        blocks.append(prf(key, blocks[-1] + seed + bytes([number])))
    return b"".join(blocks)


def cut(stream: bytes, *sizes: int) -> list[bytes]:
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    return [stream[end - size : end] for end, size in zip(ends, sizes, strict=True)]


# --- keys ---------------------------------------------------------------------------------------------------------

SHARED, NI, NR, SPI_I, SPI_R = b"\xaa" * 32, b"i" * 32, b"r" * 32, b"\1" * 8, b"\2" * 8
SIZES = {GCM_128: (0, 16 + 4), CBC_256: (32, 32)}
"""Octets of an integrity key and of an encryption key, with the salt that AES-GCM takes from it (RFC 5282 §7.1)."""


@pytest.mark.parametrize("cipher", SIZES)
@pytest.mark.parametrize("old", [None, b"\xdd" * 32])
def test_keys_of_an_ike_sa(cipher: proposals.CipherSuite, old: bytes | None) -> None:
    """§2.14, and for a rekeyed one §2.18: in the order SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi, SK_pr."""
    skeyseed = prf(NI + NR, SHARED) if old is None else prf(old, SHARED + NI + NR)
    stream = prf_plus(skeyseed, NI + NR + SPI_I + SPI_R)
    integrity, encryption = SIZES[cipher]
    expected = cut(stream, 32, integrity, integrity, encryption, encryption, 32, 32)
    keys = IkeKeys.derive(IkeSuite(cipher, Group.ECP_256), SHARED, (NI, NR), SaName(SPI_I, SPI_R), old_sk_d=old)
    assert [keys.sk_d, keys.sk_ai, keys.sk_ar, keys.sk_ei, keys.sk_er, keys.sk_pi, keys.sk_pr] == expected


@pytest.mark.parametrize("cipher", SIZES)
@pytest.mark.parametrize("shared", [b"", SHARED])
def test_keymat(cipher: proposals.CipherSuite, shared: bytes) -> None:
    """§2.17: the Initiator's direction first, and in each the encryption key before the integrity key."""
    integrity, encryption = SIZES[cipher]
    first, second, third, fourth = cut(
        prf_plus(b"\xdd" * 32, shared + NI + NR), encryption, integrity, encryption, integrity
    )
    keys = ChildKeys.derive(cipher, b"\xdd" * 32, (NI, NR), shared)
    assert (keys.initiator, keys.responder) == ((first, second), (third, fourth))


# --- nonces -------------------------------------------------------------------------------------------------------


def test_nonces_are_new_and_long_enough(new_wire: NewWire, keys: dict[str, LocalSigner]) -> None:
    """§2.10: at least 128 bits, at least half the key of the prf, and never the same twice."""
    wire, found = new_wire(), []
    for number in range(3):
        wire.device, wire.seen = new_device(party(DEVICE, keys["device"]), seed=f"device {number}"), []
        wire.start()
        found += [nonce(each.data) for each in wire.seen[:2]]
    assert {len(each) for each in found} == {32}
    assert len(set(found)) == 6


# --- AUTH ---------------------------------------------------------------------------------------------------------


@dataclass
class Listening:
    """A signer that keeps what it was asked to sign."""

    signer: LocalSigner
    signed: list[bytes] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.signer, name)

    def sign(self, data: bytes) -> bytes:
        self.signed.append(data)
        return self.signer.sign(data)


def listening(name: str, signer: Listening) -> Party:
    return Party(certificate_for(signer.signer, name), fqdn(name), signer)


def test_what_each_end_signs(new_wire: NewWire, keys: dict[str, LocalSigner]) -> None:
    """§2.15: its own first message, the nonce of the other end, and prf(SK_p, the body of its ID payload)."""
    device, gateway = (Listening(keys[end]) for end in ("device", "gateway"))
    wire = new_wire(device_party=listening(DEVICE, device))
    wire.gateway.party = listening(GATEWAY, gateway)
    wire.start()
    request, response = wire.seen[0].data, wire.seen[1].data
    sk = wire.device.keys
    assert sk is not None
    id_i, id_r = (b"\2\0\0\0" + name.encode() for name in (DEVICE, GATEWAY))  # ID_FQDN (§3.5)
    assert device.signed == [request + nonce(response) + prf(sk.sk_pi, id_i)]
    assert gateway.signed == [response + nonce(request) + prf(sk.sk_pr, id_r)]


def test_the_form_of_a_digital_signature(keys: dict[str, LocalSigner]) -> None:
    """RFC 7427 §3: method 14, the length of the AlgorithmIdentifier, itself (appendix A.3.2), the signature."""
    octets = auth.sign(keys["device"], b"octets", digital=True).serialize()
    assert octets[:17] == bytes.fromhex("0e000000 0c 300a06082a8648ce3d040302")
    assert octets[17] == 0x30, "the signature is a SEQUENCE of r and s"


def test_each_end_names_the_hashes_that_it_takes(wire: Wire) -> None:
    """RFC 7427 §4: a list of 16-bit numbers of the registry, in which 2 is SHA2-256."""
    wire.start()
    assert [notify(each.data, HASH_ALGORITHMS) for each in wire.seen[:2]] == [b"\0\2"] * 2


@pytest.mark.parametrize(("told", "method"), [(b"\0\1\0\2", 14), (b"\0\1\0\3", 9), (b"\2\0", 9)])
def test_no_hash_is_used_that_the_peer_has_not_named(
    new_wire: NewWire, monkeypatch: pytest.MonkeyPatch, told: bytes, method: int
) -> None:
    """RFC 7427 §4: without SHA2-256 among them, an ECDSA key signs as in RFC 4754, by method 9."""
    made, sign = [], auth.sign

    def listen(*arguments: Any, **options: Any) -> Any:
        made.append(sign(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(auth, "sign", listen)
    wire = new_wire()

    def path(datagram: Datagram) -> list[Datagram]:
        if datagram.exchange != "IKE_SA_INIT" or not datagram.is_response:
            return [datagram]
        old = struct.pack("!BBH", 0, 0, HASH_ALGORITHMS) + b"\0\2"
        assert datagram.data.endswith(old)
        return [replace(datagram, data=_resized(datagram.data, len(old) + 4, old[:-2] + told))]

    wire.path = path
    wire.start()
    assert made[0].serialize()[0] == method


def _resized(octets: bytes, size: int, last: bytes) -> bytes:
    """Give a message another last payload in place of the one of `size` octets."""
    octets = octets[:-size] + struct.pack("!BBH", 0, 0, 4 + len(last)) + last
    return octets[:24] + struct.pack("!I", len(octets)) + octets[28:]


# --- NAT ----------------------------------------------------------------------------------------------------------


def nat_hash(octets: bytes, address: Address) -> bytes:
    """SHA-1 of the SPIs in the header, the address and the port (§2.23)."""
    packed = IPv4Address(address.host).packed + struct.pack("!H", address.port)
    return hashlib.sha1(octets[:16] + packed).digest()


def test_nat_detection(wire: Wire) -> None:
    """§2.23: the source is where the sender is, the destination where it sends to."""
    wire.start()
    for octets, here, there in (
        (wire.seen[0].data, DEVICE_AT, GATEWAY_AT),
        (wire.seen[1].data, GATEWAY_AT, DEVICE_AT),
    ):
        assert notify(octets, NAT_SOURCE) == nat_hash(octets, here)
        assert notify(octets, NAT_DESTINATION) == nat_hash(octets, there)
    assert wire.seen[0].data[8:16] == bytes(8)


BEYOND = Address("127.0.0.9", 10_500)


@pytest.mark.parametrize(
    ("source", "destination", "moves"),
    [
        ([GATEWAY_AT], DEVICE_AT, False),
        ([BEYOND, GATEWAY_AT], DEVICE_AT, False),
        ([BEYOND], DEVICE_AT, True),
        ([GATEWAY_AT], BEYOND, True),
        ([Address(GATEWAY_AT.host, 501)], DEVICE_AT, True),
    ],
)
def test_a_device_finds_the_nat(
    new_wire: NewWire, source: list[Address], destination: Address, moves: bool
) -> None:
    """§2.23: neither of the sources is where the answer came from, or the destination is not where it arrived.

    The answer is the gateway's, with the notifies of another gateway, which says what it sees from its side.
    """
    marked = Path(Address("127.0.0.2", 4500), Address("127.0.0.3", 4500), marked=True)
    wire = new_wire(marked_path=marked)

    def path(datagram: Datagram) -> list[Datagram]:
        if not (datagram.is_response and datagram.exchange == "IKE_SA_INIT"):
            return [datagram]
        return [replace(datagram, data=_told(datagram.data, source, destination))]

    wire.path = path
    wire.start()
    assert wire.seen[2].path.marked is moves


def _told(octets: bytes, source: list[Address], destination: Address) -> bytes:
    """Write the message again with these NAT_DETECTION notifies alone."""
    kept = [(kind, body) for kind, body in chain(octets) if kind != NOTIFY]
    said = [(NAT_SOURCE, each) for each in source] + [(NAT_DESTINATION, destination)]
    kept += [(NOTIFY, struct.pack("!BBH", 0, 0, of) + nat_hash(octets, where)) for of, where in said]
    following = [kind for kind, _ in kept[1:]] + [0]
    payloads = b"".join(
        struct.pack("!BBH", after, 0, 4 + len(body)) + body
        for (_, body), after in zip(kept, following, strict=True)
    )
    return octets[:16] + bytes([kept[0][0]]) + octets[17:24] + struct.pack("!I", 28 + len(payloads)) + payloads


# --- payloads that are not known ----------------------------------------------------------------------------------


def with_strange(octets: bytes, *, critical: bool) -> bytes:
    """Put a payload that nobody knows in front of a message's first one (§3.2)."""
    payload = struct.pack("!BBH", octets[16], 0x80 if critical else 0, 8) + b"what"
    head = octets[:16] + bytes([STRANGE]) + octets[17:24]
    return head + struct.pack("!I", len(octets) + len(payload)) + payload + octets[28:]


def test_a_critical_payload_in_the_first_request(wire: Wire) -> None:
    """§2.5: the message is rejected as a whole, and the answer names the payload's type."""
    wire.device.start(wire.now_s)
    (request,) = wire.device.take_datagrams()
    wire.deliver(replace(request, data=with_strange(request.data, critical=True)))
    (answer,) = wire.gateway.take_datagrams()
    assert notify(answer.data, UNSUPPORTED_CRITICAL_PAYLOAD) == bytes([STRANGE])
    assert len(wire.gateway) == 0
    wire.deliver(replace(request, data=with_strange(request.data, critical=False)))
    (answer,) = wire.gateway.take_datagrams()
    assert nonce(answer.data)


@pytest.mark.parametrize("critical", [True, False])
def test_a_critical_payload_in_the_first_answer(wire: Wire, critical: bool) -> None:
    """One that is not critical is ignored, so the exchange goes on until AUTH, which covers the answer."""
    wire.path = lambda datagram: [
        replace(datagram, data=with_strange(datagram.data, critical=critical))
        if datagram.is_response and datagram.exchange == "IKE_SA_INIT"
        else datagram
    ]
    wire.start().wait(2)
    failures = [each.error.failure for each in wire.happened("device", Failed)]
    assert failures == [Failure.CRITICAL_PAYLOAD if critical else Failure.SIGNATURE]
    assert bool(wire.happened("gateway", CertificateToJudge)) is not critical


@pytest.mark.parametrize(("critical", "answer"), [(True, "N(UNSUPPORTED_CRITICAL_PAYLOAD)"), (False, None)])
def test_a_critical_payload_on_an_sa_that_stands(wire: Wire, critical: bool, answer: str | None) -> None:
    """§2.5, §2.21.3: the request is answered and does nothing else, and the SA stands."""
    wire.start()
    wire.device._ask(ExchangeType.INFORMATIONAL, (Unknown(STRANGE, b"what", critical),), wire.now_s)
    wire.run()
    assert wire.seen[-1].payloads == ((answer,) if answer else ())
    assert list(wire.gateway.sas())


def test_an_authentic_answer_with_a_critical_payload(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """§2.5: the message is rejected, and who sends one is not understood."""
    wire.start().wait(2)
    (sa,) = wire.gateway.sas()
    strange = (Unknown(STRANGE, b"what", True),)
    monkeypatch.setattr(sa, "_informational", lambda *_: sa._answer(ExchangeType.INFORMATIONAL, strange))
    wire.device.probe(wire.now_s)
    wire.run()
    assert wire.happened("device", Closed)[0].reason == "a critical payload is not known"


# --- deletion -----------------------------------------------------------------------------------------------------


def test_an_ike_sa_that_is_deleted_is_named_by_its_header(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """§1.4.1, §3.11: protocol 1, no SPI; the answer is empty, and both ends forget the SA."""
    wire.start()
    told: list[Payload] = []
    sa = next(wire.gateway.sas())
    informational = sa._informational

    def listen(payloads: tuple[Payload, ...], now_s: float) -> None:
        told.extend(payloads)
        informational(payloads, now_s)

    monkeypatch.setattr(sa, "_informational", listen)
    wire.device.delete("switched off", wire.now_s)
    wire.run()
    (delete,) = told
    assert (int(delete.kind), delete.serialize()) == (DELETE, b"\1\0\0\0")
    assert wire.seen[-1].payloads == ()
    assert wire.happened("gateway", Closed)
    assert not list(wire.gateway.sas())
    assert wire.happened("device", Established)
