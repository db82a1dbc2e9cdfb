"""Bounds and branches of IKEv2's parts, one by one, where an exchange between honest ends does not come by."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ikev2 import auth, child
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.identity import check_identity, fqdn, subject_identity
from voice_dpki.ikev2.integrity import IntegrityInfo, Measurement, Result
from voice_dpki.ikev2.payloads import (
    Authentication,
    Configuration,
    Identification,
    Notify,
)
from voice_dpki.ikev2.proposals import (
    ESP_SUITES,
)
from voice_dpki.ikev2.reading import peer_error
from voice_dpki.ikev2.registry import AuthMethod, CfgAttribute, CfgType, IdType, NotifyType
from voice_dpki.x509.keys import LocalSigner
from voice_dpki.x509.profile import read_profile

from .conftest import DEVICE, certificate_for

SA = SaName(b"\1" * 8, b"\2" * 8)


class Draws:
    """Random bytes that a test has laid down; each must be asked for with its size."""

    def __init__(self, *tokens: bytes) -> None:
        self.tokens: Iterator[bytes] = iter(tokens)

    def token(self, size: int) -> bytes:
        token = next(self.tokens)
        assert len(token) == size
        return token


def refused(failure: Failure, act: Callable[[], object]) -> IkeError:
    with pytest.raises(IkeError) as caught:
        act()
    assert caught.value.failure is failure
    return caught.value


# --- AUTH ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "known"),
    [
        (b"\0\2", True),
        (b"\0\2\0\1", True),
        (b"\0\1\0\2\0\3", True),
        (b"\1\0\2\1", False),  # 0x0100 and 0x0201
        (b"\0\1\0\2"[:3], False),
        (b"\0", False),
        (b"", False),
    ],
)
def test_a_list_of_hashes_has_numbers_of_two_octets(numbers: bytes, known: bool) -> None:
    """RFC 7427 §4."""
    assert auth.knows_sha256(Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, numbers)) is known


@pytest.mark.parametrize("method", [*range(1, 9), 10, 13, 15, 255])
def test_only_two_methods_are_taken(keys: dict[str, LocalSigner], method: int) -> None:
    """RFC 7296 §3.8, whatever stands behind the number."""
    for digital in (True, False):
        made = replace(auth.sign(keys["device"], b"octets", digital=digital), method=method)
        error = refused(Failure.AUTH_METHOD, partial(auth.verify, made, b"octets", keys["device"].public_key_der))
        assert error.sentence == f"authentication method {method} is not accepted, only signatures"


def test_a_digital_signature_is_what_others_verify(keys: dict[str, LocalSigner]) -> None:
    """RFC 7427 §3, RFC 3279 §2.2.3: r and s in DER; in RFC 4754 §3, side by side."""
    key = load_der_public_key(keys["device"].public_key_der)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    made = auth.sign(keys["device"], b"octets", digital=True)
    key.verify(made.data[13:], b"octets", ec.ECDSA(SHA256()))
    raw = auth.sign(keys["device"], b"octets", digital=False)
    assert (raw.method, len(raw.data)) == (9, 64)


@pytest.mark.parametrize("size", [11, 13])
def test_the_length_of_an_algorithm_is_kept_to(keys: dict[str, LocalSigner], size: int) -> None:
    made = auth.sign(keys["device"], b"octets", digital=True)
    bent = Authentication(AuthMethod.DIGITAL_SIGNATURE, bytes((size,)) + made.data[1:])
    refused(Failure.AUTH_METHOD, lambda: auth.verify(bent, b"octets", keys["device"].public_key_der))


@pytest.mark.parametrize(("name", "digital", "can"), [
    ("device", True, True), ("device", False, True), ("device-rsa", True, True), ("device-rsa", False, False),
])  # fmt: skip
def test_who_can_sign_for_whom(keys: dict[str, LocalSigner], name: str, digital: bool, can: bool) -> None:
    if can:
        auth.check_can_sign(keys[name], digital=digital)
        made = auth.sign(keys[name], b"octets", digital=digital)
        auth.verify(made, b"octets", keys[name].public_key_der)
    else:
        refused(Failure.AUTH_METHOD, lambda: auth.check_can_sign(keys[name], digital=digital))
        with pytest.raises(LocalError):
            auth.sign(keys[name], b"octets", digital=digital)


# --- identities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*IdType, 0, 4, 255])
def test_kinds_of_identities(keys: dict[str, LocalSigner], kind: int) -> None:
    """RFC 7296 §3.5: the same octets under another type are another identity."""
    profile = read_profile(certificate_for(keys["device"], DEVICE))
    subject = subject_identity(profile.der)
    for data, own in ((DEVICE.encode(), IdType.FQDN), (subject.data, IdType.DER_ASN1_DN)):
        if kind == own:
            assert check_identity(Identification(kind, data), profile)
            continue
        error = refused(Failure.IDENTITY, partial(check_identity, Identification(kind, data), profile))
        known = kind in (IdType.FQDN, IdType.DER_ASN1_DN)
        assert ("not the certificate's" in error.sentence) is known
        assert (
            f"of type {IdType(kind).name if kind in set(IdType) else kind} cannot" in error.sentence
        ) is not known


def test_a_distinguished_name_is_compared_octet_by_octet(keys: dict[str, LocalSigner]) -> None:
    profile = read_profile(certificate_for(keys["device"], DEVICE))
    subject = subject_identity(profile.der)
    for data in (subject.data[:-1], subject.data + b"\0", subject.data[:-1] + b"\xff", b"\xff", b"\0"):
        refused(Failure.IDENTITY, partial(check_identity, replace(subject, data=data), profile))


@pytest.mark.parametrize(
    ("size", "sentence"), [(0, "1 to 1024"), (1, "not the"), (1024, "not the"), (1025, "1 to 1024")]
)
def test_how_long_an_identity_is(keys: dict[str, LocalSigner], size: int, sentence: str) -> None:
    profile = read_profile(certificate_for(keys["device"], DEVICE))
    assert sentence in refused(Failure.IDENTITY, lambda: check_identity(fqdn("x" * size), profile)).sentence


# --- the child SA -------------------------------------------------------------------------------------------------

INNER = IPv4Network("10.8.0.0/16")
OURS = child.network_selector(INNER)


def test_selectors_of_two_types_have_nothing_in_common() -> None:
    """Whichever comes first; the lower address family is not the one that counts."""
    other = replace(OURS, ts_type=8)
    assert child.narrowed((OURS,), other) == child.narrowed((other,), OURS) == ()


def test_what_is_asked_for_and_what_is_given() -> None:
    """RFC 7296 §3.15: an Initiator asks by CFG_REQUEST, and believes CFG_REPLY."""
    wanted = CfgAttribute.INTERNAL_IP4_ADDRESS
    for kind, attributes, asks in (
        (CfgType.REQUEST, ((wanted, b""),), True),
        (CfgType.REQUEST, ((CfgAttribute.INTERNAL_IP4_DNS, b""), (wanted, b"\1\2\3\4")), True),
        (CfgType.REQUEST, ((CfgAttribute.INTERNAL_IP4_DNS, b""),), False),
        (CfgType.REPLY, ((wanted, b""),), False),
        (CfgType.SET, ((wanted, b""),), False),
        (0, ((wanted, b""),), False),
    ):
        assert child.wants_address((Configuration(kind, attributes),)) is asks
    assert not child.wants_address(())
    made = child.Offer(b"\0\0\1\0", ESP_SUITES[:1])
    options: dict[str, Any] = {"inner": INNER, "address": None, "sk_d": bytes(32), "nonces": (b"i", b"r")}
    rest = child.answer(made.payloads(), spi=b"\0\0\2\0", **options).payloads
    for kind in (CfgType.REQUEST, CfgType.SET, CfgType.ACK, 0, 5):
        given = Configuration(kind, ((wanted, b"\x0a\1\2\3"),))
        with pytest.raises(child.ChildError, match="no inner address"):
            made.complete((given, *rest), bytes(32), (b"i", b"r"))


def test_the_octets_of_a_child_sas_answer() -> None:
    """RFC 7296 §2.7, §2.9, §2.19: the chosen proposal under its number and with our SPI, CP, narrowed selectors."""
    offered = child.Offer(b"\0\0\1\0", (ESP_SUITES[0], ESP_SUITES[2])).payloads()
    answer = child.answer(
        offered, spi=b"\0\0\2\0", suites=ESP_SUITES[2:], inner=INNER, address=IPv4Address("10.9.0.7"),
        sk_d=bytes(32), nonces=(b"i", b"r"),
    )  # fmt: skip
    assert [each.serialize().hex() for each in answer.payloads] == [
        "02000000" "0001" "0004" "0a090007",
        "00000028" "02030403" "00000200" "0300000c0100000c800e0080" "030000080300000c" "0000000805000000",
        "01000000" "07000010" "0000ffff" "0a090007" "0a090007",
        "01000000" "07000010" "0000ffff" "0a080000" "0a08ffff",
    ]  # fmt: skip
    assert (answer.child.spi_i, answer.child.spi_r) == (b"\0\0\1\0", b"\0\0\2\0")


@pytest.mark.parametrize("name", ["initiator", "responder"])
def test_what_ends_the_negotiation_of_a_child_sa_has_a_name(name: str) -> None:
    error = child.ChildError(NotifyType.TS_UNACCEPTABLE, name)
    assert (error.code, error.step, error.notify) == (
        "child-ts-unacceptable", "7 IKE_AUTH", NotifyType.TS_UNACCEPTABLE
    )  # fmt: skip


def test_the_addresses_of_a_pool() -> None:
    """All but the network's first and last; given in turn, so that one that was given back rests for a while."""
    pool = child.AddressPool(IPv4Network("10.9.0.0/29"))
    assert pool.take("a") == IPv4Address("10.9.0.1")
    pool.give_back("a")
    assert [str(pool.take(name)) for name in "bcdef"] == [f"10.9.0.{at}" for at in (2, 3, 4, 5, 6)]
    assert pool.take("g") == IPv4Address("10.9.0.1")
    with pytest.raises(child.ChildError) as caught:
        pool.take("h")
    assert caught.value.notify is NotifyType.INTERNAL_ADDRESS_FAILURE
    for empty in ("10.9.0.0/32", "10.9.0.0/31"):
        with pytest.raises(child.ChildError):
            child.AddressPool(IPv4Network(empty)).take("a")
    assert child.AddressPool(IPv4Network("10.0.0.0/8"))._size == 1 << 20
    assert child.AddressPool(IPv4Network("10.0.0.0/12"))._size == (1 << 20) - 2


# --- N(INTEGRITY_INFO) --------------------------------------------------------------------------------------------

STATED = IntegrityInfo(Result.FAILED, 0x01020304, (Measurement("boot", b"\xdd" * 32),), b"\xaa\xbb")
OCTETS = bytes.fromhex("01 01 0000000001020304 01 04 626f6f74" + "dd" * 32 + "0002 aabb")


def test_the_octets_of_a_statement() -> None:
    """docs/integrity-info.md."""
    assert STATED.serialize() == OCTETS
    assert IntegrityInfo.parse(OCTETS) == STATED
    assert STATED.signed_octets(SA, b"H" * 32) == (
        b"voice-dpki/integrity-info/v1\0" + b"\1" * 8 + b"\2" * 8 + b"H" * 32 + OCTETS[:-4]
    )


@pytest.mark.parametrize("octets", [OCTETS + b"\0", OCTETS[:-1], OCTETS[:-4], b"", b"\1"])
def test_a_statement_is_read_to_its_end(octets: bytes) -> None:
    with pytest.raises(MalformedError):
        IntegrityInfo.parse(octets)


@pytest.mark.parametrize(
    ("version", "result", "right"), [(1, 0, True), (1, 1, True), (1, 2, False), (0, 0, False), (2, 0, False)]
)
def test_versions_and_results_of_a_statement(version: int, result: int, right: bool) -> None:
    octets = bytes((version, result)) + OCTETS[2:]
    if right:
        assert IntegrityInfo.parse(octets).result is Result(result)
    else:
        with pytest.raises(MalformedError):
            IntegrityInfo.parse(octets)


def test_how_much_a_statement_holds() -> None:
    def measured(count: int, size: int = 3) -> IntegrityInfo:
        names = (f"{at:03}".ljust(size, "x") for at in range(count))
        return IntegrityInfo(Result.PASSED, 0, tuple(Measurement(name, bytes(32)) for name in names))

    assert IntegrityInfo.parse(measured(16, 64).serialize()) == measured(16, 64)
    assert len(measured(1, 64).measurements) == 1
    for count, size in ((17, 3), (1, 65)):
        with pytest.raises(MalformedError):
            measured(count, size)
    longest = IntegrityInfo(Result.PASSED, 0, (), bytes(4096 - 13)).serialize()
    assert len(longest) == 4096
    assert IntegrityInfo.parse(longest).serialize() == longest
    with pytest.raises(MalformedError, match="more than 4096 bytes"):
        IntegrityInfo.parse(IntegrityInfo(Result.PASSED, 0, (), bytes(4096 - 12)).serialize())


@pytest.mark.parametrize(("size", "right"), [(4083, True), (4084, False)])
def test_how_long_a_statement_is_made(size: int, right: bool) -> None:
    class Signing:
        algorithm, public_key_der = "PS256", b""

        def sign(self, _data: bytes) -> bytes:
            return bytes(size)

    statement = IntegrityInfo(Result.PASSED, 0, ())
    if right:
        assert len(statement.sign(Signing(), SA, bytes(32))) == 4096
    else:
        with pytest.raises(LocalError, match="at most 4096"):
            statement.sign(Signing(), SA, bytes(32))


@pytest.mark.parametrize(("number", "is_error"), [(1, True), (16_383, True), (16_384, False), (16_385, False)])
def test_where_errors_end_and_statuses_begin(number: int, is_error: bool) -> None:
    """RFC 7296 §3.10.1: 1 to 16383 are errors."""
    notify = Notify(number)
    assert peer_error((notify,)) == (notify if is_error else None)
