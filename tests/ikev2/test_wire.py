"""Each payload's octets, written down from the figures of RFC 7296 §3 and RFC 7383 §2.5, and each of its bounds.

Reading back what was written proves little where both ends are ours: they may agree on something else.
"""

from collections.abc import Callable
from typing import Any

import pytest

from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.message import Header, Message, parse_payloads, serialize, serialize_payloads
from voice_dpki.ikev2.payloads import (
    PAYLOADS,
    Authentication,
    Certificate,
    CertificateRequest,
    Configuration,
    Delete,
    Encrypted,
    EncryptedFragment,
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

AES = Transform(1, 12, 128)
"""ENCR_AES_CBC with a key of 128 bits (§3.3.2, §3.3.5)."""

ONE = Proposal(1, 1, b"", (Transform(4, 19),))
NOWHERE = Selector(7, bytes(4), bytes(4))

OCTETS: dict[str, tuple[int, Payload, str]] = {
    "SA": (
        33,
        SecurityAssociation(
            (
                Proposal(1, 3, bytes.fromhex("c0ffee01"), (AES, Transform(3, 12), Transform(5, 0))),
                Proposal(2, 1, b"", (Transform(4, 19),)),
            )
        ),
        "02 00 0028 01 03 04 03 c0ffee01"  # §3.3.1: 2 where a proposal follows; its length; number, protocol, sizes
        "03 00 000c 01 00 000c 800e 0080"  # §3.3.2: 3 where a transform follows; §3.3.5: AF set, type 14
        "03 00 0008 03 00 000c"
        "00 00 0008 05 00 0000"
        "00 00 0010 02 01 00 01"
        "00 00 0008 04 00 0013",
    ),
    "KE": (34, KeyExchange(0x0113, b"\xaa\xbb"), "0113 0000 aabb"),  # §3.4
    "IDi": (35, IdInitiator(2, b"a.b"), "02 000000 612e62"),  # §3.5
    "IDr": (36, IdResponder(11, b"\1"), "0b 000000 01"),
    "CERT": (37, Certificate(4, b"\x30\x00"), "04 3000"),  # §3.6
    "CERTREQ": (38, CertificateRequest(4, b"\x11" * 20), "04" + "11" * 20),  # §3.7
    "AUTH": (39, Authentication(14, b"\xaa"), "0e 000000 aa"),  # §3.8
    "Nonce": (40, Nonce(bytes(range(16))), "000102030405060708090a0b0c0d0e0f"),  # §3.9
    "N": (41, Notify(0x4009, b"\xdd", 3, b"\1\2\3\4"), "03 04 4009 01020304 dd"),  # §3.10
    "D": (42, Delete(3, (b"\1\2\3\4", b"\5\6\7\x08")), "03 04 0002 01020304 05060708"),  # §3.11
    "D of the IKE SA": (42, Delete(1), "01 00 0000"),
    "V": (43, VendorId(b"\x77\x66"), "7766"),  # §3.12
    "TSi": (  # §3.13
        44,
        TsInitiator(
            (Selector(7, b"\x0a\0\0\1", b"\x0a\0\0\2", 17, (1, 0x0203)), Selector(8, bytes(16), b"\xff" * 16))
        ),
        "02 000000 07 11 0010 0001 0203 0a000001 0a000002 08 00 0028 0000 ffff" + "00" * 16 + "ff" * 16,
    ),
    "TSr": (
        45,
        TsResponder((Selector(7, bytes(4), b"\xff" * 4),)),
        "01 000000 07 00 0010 0000 ffff 00000000 ffffffff",
    ),
    "CP": (
        47,
        Configuration(2, ((1, b"\x0a\1\2\3"), (0x7001, b""))),
        "02 000000 0001 0004 0a010203 7001 0000",
    ),  # §3.15
}
"""By name: the type (§3.2), the payload, and its body."""


@pytest.mark.parametrize("name", OCTETS)
def test_octets_of_a_payload(name: str) -> None:
    kind, payload, body = OCTETS[name]
    octets = bytes.fromhex(body)
    assert payload.serialize() == octets
    assert PAYLOADS[kind].parse(octets) == payload
    assert (PAYLOADS[kind].kind, payload.kind) == (kind, kind)


def test_every_payload_has_its_octets_here() -> None:
    assert {kind for kind, _, _ in OCTETS.values()} == set(PAYLOADS)


def test_a_chain_of_payloads() -> None:
    """§3.2: type of the next payload, the critical bit, the length with these four bytes, the body."""
    chain = Nonce(bytes(16)), Unknown(200, b"\x99", critical=True), VendorId(b"")
    octets = bytes.fromhex("c8 00 0014" + "00" * 16 + "2b 80 0005 99" + "00 00 0004")
    assert serialize_payloads(chain) == octets
    assert parse_payloads(40, octets) == chain
    assert serialize_payloads((VendorId(b"\1"),), 46) == bytes.fromhex("2e 00 0005 01")
    assert (serialize_payloads(()), parse_payloads(0, b"")) == (b"", ())
    # The lower seven bits are reserved, and ignored.
    assert parse_payloads(200, bytes.fromhex("00 7f 0004"))[0] == Unknown(200, b"")


def test_a_header() -> None:
    """§3.1: both SPIs, next payload, version 2.0, exchange, flags, message ID, length."""
    spis = "1112131415161718 2122232425262728"
    for initiator, response, flags in (
        (True, False, "08"),
        (False, True, "20"),
        (True, True, "28"),
        (False, False, "00"),
    ):
        octets = bytes.fromhex(f"{spis} 2b 20 25 {flags} 01020304 00000021 00 00 0005 aa")
        header = Header(octets[:8], octets[8:16], 37, 0x01020304, initiator, response)
        assert serialize(header, (VendorId(b"\xaa"),)) == octets
        assert Message.parse(octets) == Message(header, (VendorId(b"\xaa"),), octets)
    empty = bytes.fromhex(f"{spis} 00 20 22 08 00000000 0000001c")
    assert serialize(Header(octets[:8], octets[8:16], 34, 0, True, False), ()) == empty
    # Of the version's low half and of the other flags nothing is asked (§2.5, §3.1).
    assert Message.parse(empty[:17] + b"\x2f" + empty[18:19] + b"\xdf" + empty[20:]).header.from_initiator


def test_of_another_version_only_the_header_is_read() -> None:
    octets = bytes(16) + bytes.fromhex("2b 30 22 08 00000000 00000000 ff")
    message = Message.parse(octets)
    assert (message.header.major, message.payloads) == (3, ())


def test_encrypted_payloads() -> None:
    """§3.14: the next payload is the first one inside. RFC 7383 §2.5: number and total come before the IV."""
    assert parse_payloads(46, bytes.fromhex("29 00 0006 abcd"), encrypted=True) == (Encrypted(41, b"\xab\xcd"),)
    assert Encrypted(41, b"\xab\xcd").serialize() == b"\xab\xcd"
    fragment = EncryptedFragment(41, 0x0102, 0x0304, b"\xab\xcd")
    octets = bytes.fromhex("29 00 000a 0102 0304 abcd")
    assert parse_payloads(53, octets, encrypted=True) == (fragment,)
    assert fragment.serialize() == octets[4:]
    with pytest.raises(MalformedError):
        parse_payloads(46, bytes.fromhex("00 00 0006 abcd 00"), encrypted=True)  # nothing stands behind it


@pytest.mark.parametrize(("number", "total", "right"), [(1, 1, True), (2, 2, True), (0, 1, False), (2, 1, False)])
def test_the_number_of_a_fragment(number: int, total: int, right: bool) -> None:
    body = bytes((0, number, 0, total))
    if right:
        assert EncryptedFragment.of(0, body) == EncryptedFragment(0, number, total, b"")
    else:
        with pytest.raises(MalformedError, match="outside of its total"):
            EncryptedFragment.of(0, body)


# --- what is ignored ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "given", "read"),
    [
        (34, "0013 ffff aa", KeyExchange(19, b"\xaa")),
        (35, "02 ffffff 61", IdInitiator(2, b"a")),
        (39, "0e ffffff aa", Authentication(14, b"\xaa")),
        (44, "00 ffffff", TsInitiator(())),
        (47, "01 ffffff 8001 0001 aa", Configuration(1, ((1, b"\xaa"),))),  # §3.15.1: the first bit is reserved
        (33, "00 ff 0010 01 01 00 01 00 ff 0008 04 ff 0013", SecurityAssociation((ONE,))),
        (44, "02 000000 09 00 0006 abcd 07 00 0010 0000 ffff 00000000 00000000", TsInitiator((NOWHERE,))),
    ],
)  # fmt: skip
def test_reserved_bits_and_unknown_selectors_are_ignored(kind: int, given: str, read: Payload) -> None:
    assert PAYLOADS[kind].parse(bytes.fromhex(given)) == read


@pytest.mark.parametrize(
    ("attributes", "bits", "unknown"),
    [
        ("", None, False),
        ("800e 0100", 256, False),
        ("800e 0100 800e 0080", 256, True),  # §3.3.5: an attribute comes once
        ("000e 0002 0100", None, True),  # the key length has the form of four bytes (AF = 1)
        ("800f 0100", None, True),
        ("000f 0003 aabbcc 800e 0080", 128, True),
        ("000f 0000", None, True),
    ],
)
def test_attributes_of_a_transform(attributes: str, bits: int | None, unknown: bool) -> None:
    """§3.3.5: with AF set two bytes of value follow the type, otherwise a length of two bytes and the value."""
    octets = bytes.fromhex(attributes)
    size = len(octets) + 8
    body = bytes((0, 0, 0, size + 8, 1, 1, 0, 1, 0, 0, 0, size, 1, 0, 0, 12)) + octets
    (proposal,) = SecurityAssociation.parse(body).proposals
    assert proposal.transforms == (Transform(1, 12, bits, unknown),)


# --- bounds -------------------------------------------------------------------------------------------------------


def transforms(count: int) -> Payload:
    return SecurityAssociation((Proposal(1, 1, b"", (Transform(4, 19),) * count),))


@pytest.mark.parametrize(
    ("most", "what", "make"),
    [
        (32, "SA", lambda count: SecurityAssociation((ONE,) * count)),
        (64, "proposal", transforms),
        (64, "D", lambda count: Delete(3, (bytes(4),) * count)),
        (64, "TS", lambda count: TsInitiator((NOWHERE,) * count)),
        (32, "CP", lambda count: Configuration(1, ((1, b""),) * count)),
    ],
)  # fmt: skip
def test_how_many_entries_a_payload_has(most: int, what: str, make: Callable[[int], Any]) -> None:
    longest = make(most)
    assert PAYLOADS[longest.kind].parse(longest.serialize()) == longest
    with pytest.raises(MalformedError, match=f"^IKEv2 {what}: more than {most} entries$"):
        PAYLOADS[longest.kind].parse(make(most + 1).serialize())


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (33, "00 00 0010 01 01 00 02 00 00 0008 04 00 0013"),  # fewer transforms than the proposal says
        (33, "00 00 0018 01 01 00 01 03 00 0008 04 00 0013 00 00 0008 04 00 0014"),  # more
        (33, "00 00 0010 01 01 00 00 00 00 0008 04 00 0013"),
        (33, "00 00 0010 01 01 00 01 02 00 0008 04 00 0013"),  # the mark of a proposal at a transform
        (33, "03 00 0008 01 01 00 00 00 00 0008 02 01 00 00"),  # and the other way round
        (33, "00 00 0008 01 01 00 00 00"),  # something behind the last proposal
        (33, "00 00 0003"),
        (33, "00 00 0008 01 01 08 00"),  # no room for the SPI
        (40, "00" * 15),
        (40, "00" * 257),
        (41, "00 04 0001 010203"),
        (42, "01 04 0001 01020304"),  # §3.11: the IKE SA has no SPI here
        (42, "03 00 0000"),
        (42, "03 00 0001"),
        (42, "03 04 0001 01020304 05"),
        (42, "03 04 0002 01020304"),
        (44, "01 000000 07 00 000f 0000 ffff 00000000 000000"),
        (44, "01 000000 07 00 0011 0000 ffff 00000000 00000000 00"),
        (44, "01 000000 08 00 0010 0000 ffff 00000000 00000000"),
        (44, "01 000000 09 00 0003"),
        (44, "00 000000 00"),
        (47, "01 000000 0001 0002 aa"),
        (47, "01 000000 00"),
    ],
)
def test_what_does_not_add_up_is_malformed(kind: int, body: str) -> None:
    with pytest.raises(MalformedError):
        PAYLOADS[kind].parse(bytes.fromhex(body))


@pytest.mark.parametrize("size", [16, 256])
def test_the_shortest_and_the_longest_nonce(size: int) -> None:
    assert Nonce.parse(bytes(size)) == Nonce(bytes(size))


def test_64_payloads_are_read() -> None:
    """Only one more is too many."""
    header = Header(bytes(8), bytes(8), 34, 0, True, False)
    assert len(Message.parse(serialize(header, (VendorId(b""),) * 64)).payloads) == 64


def test_the_values_of_a_configuration() -> None:
    payload = Configuration(2, ((1, b""), (2, b"\xff"), (1, b"\1")))
    assert (payload.value(1), payload.value(2), payload.value(3)) == (b"", b"\xff", None)  # type: ignore[arg-type]
