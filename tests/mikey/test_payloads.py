"""Payloads and messages: what is written is read again, and any bytes parse or raise MikeyError."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.codec.cursor import Cursor
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import MAX_MESSAGE_BYTES, MAX_PAYLOADS, Header, Message, SrtpId, serialize
from voice_dpki.mikey.payloads import (
    DH_BYTES,
    HASH_BYTES,
    MAC_BYTES,
    PAYLOADS,
    TIMESTAMP_BYTES,
    Certificate,
    CertificateHash,
    DhValue,
    EnvelopeKey,
    Error,
    GeneralExtension,
    Identity,
    Kemac,
    KeyData,
    KeyValidity,
    Payload,
    Rand,
    SecurityPolicy,
    Signature,
    Timestamp,
    Verification,
)
from voice_dpki.mikey.registry import DhGroup, HashFunc, KeyType, MacAlg, PayloadType

byte = st.integers(0, 255)
data = st.binary(max_size=300)
short = st.binary(max_size=20)


def sized(lengths: dict[int, int], build: type) -> st.SearchStrategy:
    """A payload of (number, bytes) whose length follows from its number."""
    return st.sampled_from(sorted(lengths)).flatmap(
        lambda number: st.binary(min_size=lengths[number], max_size=lengths[number]).map(
            lambda value: build(number, value)
        )
    )


validities = st.none() | st.builds(KeyValidity, short) | st.builds(KeyValidity, short, short)
macs = sized(MAC_BYTES, Verification)
strategies: dict[type[Payload], st.SearchStrategy] = {
    Kemac: st.builds(lambda alg, octets, mac: Kemac(alg, octets, mac.auth_alg, mac.data), byte, data, macs),
    EnvelopeKey: st.builds(EnvelopeKey, st.integers(0, 3), data),
    DhValue: st.builds(
        lambda value, kv: DhValue(value.group, value.value, kv), sized(DH_BYTES, DhValue), validities
    ),
    Signature: st.builds(Signature, st.integers(0, 15), data),
    Timestamp: sized(TIMESTAMP_BYTES, Timestamp),
    Identity: st.builds(Identity, byte, data),
    Certificate: st.builds(Certificate, byte, data),
    CertificateHash: sized(HASH_BYTES, CertificateHash),
    Verification: macs,
    SecurityPolicy: st.builds(SecurityPolicy, byte, byte, st.lists(st.tuples(byte, short), max_size=8).map(tuple)),
    Rand: st.builds(Rand, st.binary(max_size=255)),
    Error: st.builds(Error, byte),
    GeneralExtension: st.builds(GeneralExtension, byte, data),
    KeyData: st.builds(KeyData, st.sampled_from([KeyType.TGK, KeyType.TEK]), data, st.none(), validities)
    | st.builds(KeyData, st.sampled_from([KeyType.TGK_SALT, KeyType.TEK_SALT]), data, short, validities),
}
payloads = st.one_of(*(strategy for kind, strategy in strategies.items() if kind is not Signature))
ssrc = st.integers(0, 2**32 - 1)
headers = st.builds(
    Header,
    data_type=byte,
    csb_id=ssrc,
    prf=st.integers(0, 127),
    sessions=st.lists(st.builds(SrtpId, byte, ssrc, ssrc), max_size=4).map(tuple),
    respond=st.booleans(),
)
messages = st.tuples(
    headers,
    st.lists(payloads, max_size=10),
    st.lists(strategies[Signature], max_size=1),
).map(lambda parts: (parts[0], (*parts[1], *parts[2])))


@given(messages)
def test_what_is_written_is_read_again(message: tuple[Header, tuple[Payload, ...]]) -> None:
    header, chain = message
    octets = serialize(header, chain)
    assert len(octets) > MAX_MESSAGE_BYTES or Message.parse(octets) == Message(header, chain, octets)


@given(messages, st.integers(0, 5000), st.binary(min_size=1, max_size=3))
def test_any_damage_is_refused_or_read(message: tuple[Header, tuple[Payload, ...]], at: int, junk: bytes) -> None:
    octets = serialize(*message)
    at %= len(octets)
    for damaged in (octets[:at], octets[:at] + junk + octets[at + len(junk) :], octets + junk):
        parses_or_refuses(damaged)


@given(st.binary(max_size=600))
def test_any_bytes_behind_a_header_are_refused_or_read(octets: bytes) -> None:
    parses_or_refuses(octets)
    parses_or_refuses(Header(4, 1, 0).serialize(octets[0] % 22 if octets else 0) + octets)


def parses_or_refuses(octets: bytes) -> None:
    with suppress(MikeyError):
        assert Message.parse(octets).octets == octets


def test_every_payload_type_of_the_registry_has_a_class() -> None:
    assert set(PAYLOADS) == set(PayloadType) - {PayloadType.LAST}


def test_every_payload_class_has_a_strategy_here() -> None:
    assert set(strategies) == set(PAYLOADS.values())


@pytest.mark.parametrize("kind", PAYLOADS.values())
@given(drawn=st.data())
def test_each_class_reads_what_it_wrote(kind: type[Payload], drawn: st.DataObject) -> None:
    payload = drawn.draw(strategies[kind])
    cursor = Cursor(payload.serialize(), kind.__name__)
    assert (type(payload), kind.parse(cursor)) == (kind, payload)
    cursor.finish()


class TestRefusals:
    def refuse(self, octets: bytes) -> MikeyError:
        with pytest.raises(MikeyError) as caught:
            Message.parse(octets)
        return caught.value

    def test_a_message_that_is_too_long(self) -> None:
        chain = (Certificate(0, bytes(MAX_MESSAGE_BYTES)),)
        assert self.refuse(serialize(Header(4, 1, 0), chain)).failure is Failure.MALFORMED

    def test_more_payloads_than_any_mode_needs(self) -> None:
        assert (
            self.refuse(serialize(Header(4, 1, 0), (Error(0),) * (MAX_PAYLOADS + 1))).failure is Failure.MALFORMED
        )

    def test_another_version(self) -> None:
        assert self.refuse(b"\x02" + serialize(Header(4, 1, 0), ())[1:]).failure is Failure.VERSION

    def test_another_map_type(self) -> None:
        assert self.refuse(serialize(Header(4, 1, 0, map_type=2), ())).failure is Failure.CRYPTO_SESSIONS

    def test_an_unknown_group_is_named(self) -> None:
        error = self.refuse(serialize(Header(4, 1, 0), (DhValue(255, bytes(32)),)))
        assert (error.failure, error.step) == (Failure.DH_GROUP, "DH")

    def test_an_unknown_payload(self) -> None:
        assert self.refuse(Header(4, 1, 0).serialize(14) + bytes(10)).failure is Failure.PAYLOAD

    def test_bytes_after_the_last_payload(self) -> None:
        assert self.refuse(serialize(Header(4, 1, 0), (Error(0),)) + b"\0").failure is Failure.MALFORMED

    def test_unknown_key_types_and_validities(self) -> None:
        for types in (0x40, 0x03):
            octets = Header(4, 1, 0).serialize(PayloadType.KEY_DATA) + bytes([0, types, 0, 0])
            assert self.refuse(octets).failure is Failure.MALFORMED


def test_an_error_is_named_for_people() -> None:
    assert Error.parse(Cursor(bytes([6, 0, 0]), "ERR")).name == "INVALID_DH"
    assert Error(200).name == "200"


@pytest.mark.parametrize(
    ("payload", "head"),
    [
        (EnvelopeKey(3, bytes(0x3FFF)), "ffff"),
        (EnvelopeKey(0, bytes(0x2000)), "2000"),
        (EnvelopeKey(1, b""), "4000"),
        (Signature(15, bytes(0xFFF)), "ffff"),
        (Signature(1, bytes(0x800)), "1800"),
        (Signature(0, b""), "0000"),
    ],
)
def test_a_length_that_shares_its_octets_has_all_its_bits(payload: EnvelopeKey | Signature, head: str) -> None:
    """RFC 3830 §6.3: 2 bits of cache indicator and 14 of length; §6.5: 4 bits of type and 12 of length."""
    octets = payload.serialize()
    assert octets[:2].hex() == head
    assert type(payload).parse(Cursor(octets, "payload")) == payload


def test_lengths_that_follow_from_a_number() -> None:
    """RFC 3830 §6.2, §6.4, §6.6, §6.8; RFC 6043 §6.2, §6.6; RFC 7748 §5; FIPS 203, table 3."""
    assert TIMESTAMP_BYTES == {0: 8, 1: 8, 2: 4}
    assert MAC_BYTES == {MacAlg.NULL: 0, MacAlg.HMAC_SHA_1_160: 20, MacAlg.HMAC_SHA_256_256: 32}
    assert HASH_BYTES == {HashFunc.SHA_1: 20, HashFunc.MD5: 16, HashFunc.SHA_256: 32}
    assert DH_BYTES == {
        DhGroup.OAKLEY_5: 192,
        DhGroup.OAKLEY_1: 96,
        DhGroup.OAKLEY_2: 128,
        DhGroup.X25519: 32,
        DhGroup.X25519MLKEM768_OFFER: 1216,
        DhGroup.X25519MLKEM768_ANSWER: 1120,
    }
