"""Payloads and messages: what is written is read back, and any bytes parse or raise the documented error."""

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.events import Datagram, Path, SaName
from voice_dpki.ikev2.integrity import IntegrityInfo
from voice_dpki.ikev2.message import Header, Message, parse_payloads, serialize, serialize_payloads
from voice_dpki.ikev2.payloads import (
    PAYLOADS,
    Authentication,
    Certificate,
    CertificateRequest,
    Configuration,
    Delete,
    IdInitiator,
    IdResponder,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    Proposal,
    SecurityAssociation,
    Selector,
    Transform,
    TsInitiator,
    TsResponder,
    Unknown,
    VendorId,
)
from voice_dpki.ikev2.protect import _seal_one
from voice_dpki.ikev2.registry import PayloadType, Protocol, TsType

from .conftest import DEVICE_AT, GATEWAY_AT, Wire

bytes_ = st.binary(max_size=40)
byte = st.integers(0, 255)
word = st.integers(0, 65_535)
transforms = st.builds(Transform, byte, word, st.none() | word)
proposals = st.builds(Proposal, byte, byte, st.binary(max_size=8), st.lists(transforms, max_size=5).map(tuple))
v4 = st.builds(
    Selector,
    st.just(int(TsType.IPV4_ADDR_RANGE)),
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=4, max_size=4),
    byte,
    st.tuples(word, word),
)
v6 = st.builds(
    Selector,
    st.just(int(TsType.IPV6_ADDR_RANGE)),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
)
selectors = st.lists(v4 | v6, max_size=4).map(tuple)
spis = st.lists(st.binary(min_size=4, max_size=4), max_size=4).map(tuple)
payloads: st.SearchStrategy[Payload] = st.one_of(
    st.builds(SecurityAssociation, st.lists(proposals, min_size=1, max_size=4).map(tuple)),
    st.builds(KeyExchange, word, bytes_),
    st.builds(Nonce, st.binary(min_size=16, max_size=256)),
    st.builds(IdInitiator, byte, bytes_),
    st.builds(IdResponder, byte, bytes_),
    st.builds(Certificate, byte, bytes_),
    st.builds(CertificateRequest, byte, bytes_),
    st.builds(Authentication, byte, bytes_),
    st.builds(Notify, word, bytes_, byte, st.binary(max_size=8)),
    st.builds(Delete, st.just(int(Protocol.ESP)), spis),
    st.just(Delete(Protocol.IKE)),
    st.builds(VendorId, bytes_),
    st.builds(TsInitiator, selectors),
    st.builds(TsResponder, selectors),
    st.builds(Configuration, byte, st.lists(st.tuples(st.integers(0, 0x7FFF), bytes_), max_size=4).map(tuple)),
    st.builds(Unknown, st.sampled_from((49, 50, 200)), bytes_, st.booleans()),
)
headers = st.builds(
    Header,
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=8, max_size=8),
    byte,
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.booleans(),
)


@given(headers, st.lists(payloads, max_size=6).map(tuple))
def test_what_is_written_is_read_back(header: Header, content: tuple[Payload, ...]) -> None:
    octets = serialize(header, content)
    assert Message.parse(octets) == Message(header, content, octets)


@given(st.binary(max_size=400))
def test_any_bytes(octets: bytes) -> None:
    parses_or_malformed(octets)


@given(headers, st.lists(payloads, max_size=6).map(tuple), st.data())
def test_messages_bent(header: Header, content: tuple[Payload, ...], data: st.DataObject) -> None:
    """Near-messages get deeper than random bytes: cut, with a byte changed, and with a length made to fit again."""
    octets = bytearray(serialize(header, content))
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] = data.draw(byte)
    octets = octets[: data.draw(st.integers(0, len(octets)))]
    parses_or_malformed(bytes(octets))
    octets[24:28] = len(octets).to_bytes(4, "big")
    parses_or_malformed(bytes(octets))


@pytest.mark.parametrize("kind", [*PAYLOADS, PayloadType.SKF])
@given(st.binary(max_size=120))
def test_any_body(kind: int, body: bytes) -> None:
    try:
        parsed = parse_payloads(kind, b"\0\0" + (len(body) + 4).to_bytes(2, "big") + body, encrypted=True)
    except MalformedError:
        return
    if kind != PayloadType.SKF:
        again = serialize_payloads(parsed)
        assert parse_payloads(kind, again) == parsed


@given(st.binary(max_size=300))
def test_any_integrity_info(data: bytes) -> None:
    try:
        info = IntegrityInfo.parse(data)
    except MalformedError:
        return
    assert info.serialize() == data


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_responder_takes_any_bytes(octets: list[bytes]) -> None:
    wire = _wire()
    for each in octets:
        wire.gateway.receive(each, Path(GATEWAY_AT, DEVICE_AT), wire.now_s)
    assert len(wire.gateway) == 0


changes = st.lists(st.tuples(st.integers(0, 2**16), byte), min_size=1, max_size=4)


@given(st.integers(0, 3), changes)
def test_both_ends_take_bent_messages(which: int, changed: list[tuple[int, int]]) -> None:
    wire, count = _wire(), iter(range(100))

    def path(datagram: Datagram) -> list[Datagram]:
        if next(count) != which:
            return [datagram]
        octets = bytearray(datagram.data)
        for at, value in changed:
            octets[28 + at % (len(octets) - 28)] = value
        try:
            Message.parse(bytes(octets))
        except MalformedError:
            return []
        return [replace(datagram, data=bytes(octets))]

    wire.path = path
    wire.start()


@given(st.sampled_from((*PAYLOADS, 0, 46, 53, 200)), st.binary(max_size=60), st.sampled_from((34, 35, 36, 37)))
def test_both_ends_take_any_authentic_content(first: int, content: bytes, exchange: int) -> None:
    """What is properly encrypted by the peer may still be anything: as a request, and in place of its answer."""
    wire = _wire().start()
    device, (gateway,) = wire.device, wire.gateway.sas()
    for sender in (device, gateway):
        header = Header(*device.name, exchange, sender._requests.next_id, sender.is_initiator, False)
        octets = _seal_one(header, PayloadType.SK, first, b"", content, sender._cipher)
        wire.deliver(Datagram(sender.path, octets, "", False, ()))
    device.probe(wire.now_s)
    if device._requests.waiting_for is not None:
        header = Header(*device.name, exchange, device._requests.waiting_for, False, True)
        octets = _seal_one(header, PayloadType.SK, first, b"", content, gateway._cipher)
        wire.deliver(Datagram(gateway.path, octets, "", True, ()))
    wire.run()


_MAKE: list[Callable[[], Wire]] = []


@pytest.fixture(autouse=True)
def _wires(new_wire: Callable[[], Wire]) -> None:
    _MAKE[:] = [new_wire]


def _wire() -> Wire:
    return _MAKE[0]()


def parses_or_malformed(octets: bytes) -> None:
    with contextlib.suppress(MalformedError):
        Message.parse(octets)


# --- by hand ------------------------------------------------------------------------------------------------------


def message(first: int, body: bytes) -> bytes:
    size = (28 + len(body)).to_bytes(4, "big")
    return bytes(8) + bytes(8) + bytes((first, 0x20, 34, 8)) + bytes(4) + size + body


@pytest.mark.parametrize(
    ("first", "body", "words"),
    [
        (PayloadType.NONCE, b"\0\0\0\x08abcd", "16 to 256 bytes"),
        (PayloadType.NONCE, b"\0\0\0\x03", "expected"),
        (PayloadType.NONCE, b"", "expected"),
        (PayloadType.SA, b"\0\0\0\x0c\0\0\0\x08\1\1\0\1", "expected"),
        (PayloadType.SA, b"\0\0\0\x0c\1\0\0\x08\1\1\0\0", "Last Substruc"),
        (PayloadType.DELETE, b"\0\0\0\x08\1\0\0\1", "without an SPI"),
        (PayloadType.SKF, b"\0\0\0\x08\0\2\0\1", "outside of its total"),
        (PayloadType.NONE, b"x", "too many"),
    ],
)
def test_malformed(first: int, body: bytes, words: str) -> None:
    with pytest.raises(MalformedError, match=words):
        Message.parse(message(first, body))


def test_length_must_be_the_datagrams() -> None:
    with pytest.raises(MalformedError, match="length"):
        Message.parse(message(0, b"") + b"x")


def test_too_many_payloads() -> None:
    with pytest.raises(MalformedError, match="64 payloads"):
        Message.parse(serialize(Header(bytes(8), bytes(8), 34, 0, True, False), (VendorId(b""),) * 65))


def test_names_of_an_sa() -> None:
    assert str(SaName(b"\1" * 8, b"\2" * 8)) == "0101010101010101_i 0202020202020202_r"
