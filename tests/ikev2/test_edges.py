"""Edges that honest ends do not reach: limits, draws that have to be made again, and what a peer leaves out."""

import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA512

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ikev2 import auth, child
from voice_dpki.ikev2.crypto import AesCbcHmac, AesGcm, IkeKeys, ProtectionError
from voice_dpki.ikev2.events import Datagram, Established, Failed, Path, SaName, Trusted, Untrusted
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.identity import check_identity, fqdn, subject_identity
from voice_dpki.ikev2.integrity import IntegrityInfo, Measurement, Result
from voice_dpki.ikev2.message import MAX_MESSAGE_BYTES, Header, Message, parse_payloads, serialize
from voice_dpki.ikev2.nat import behind_nat, nat_notifies
from voice_dpki.ikev2.payloads import (
    Authentication,
    Certificate,
    Delete,
    Identification,
    KeyExchange,
    Notify,
    SecurityAssociation,
)
from voice_dpki.ikev2.proposals import IKE_SUITES
from voice_dpki.ikev2.protect import Opener
from voice_dpki.ikev2.registry import (
    AuthMethod,
    IdType,
    NotifyType,
    PayloadType,
)
from voice_dpki.ikev2.rekey import Life, new_ike_spi
from voice_dpki.ikev2.responder import Limits
from voice_dpki.ikev2.sa import _read_certificate
from voice_dpki.ikev2.states import State
from voice_dpki.x509.keys import LocalSigner
from voice_dpki.x509.profile import read_profile

from .conftest import DEVICE, NOW_S, CountingRandom, Wire, certificate_for, party

SA = SaName(b"\1" * 8, b"\2" * 8)
NewWire = Callable[..., Wire]


class Draws:
    """Random bytes that a test has laid down."""

    def __init__(self, *tokens: bytes) -> None:
        self.tokens: Iterator[bytes] = iter(tokens)

    def token(self, size: int) -> bytes:
        token = next(self.tokens)
        assert len(token) == size
        return token


def test_reserved_spis_are_drawn_again() -> None:
    """RFC 4303 §2.1: 1 to 255 are reserved; RFC 7296 §3.1: the SPI of an IKE SA is not zero."""
    assert child.new_spi(Draws(bytes(4), b"\0\0\0\xff", b"\0\0\1\0")) == b"\0\0\1\0"
    assert new_ike_spi(Draws(bytes(8), b"\0" * 7 + b"\1")) == b"\0" * 7 + b"\1"


# --- AUTH: RSASSA-PKCS1-v1_5 with SHA-256, as strongSwan makes it (RFC 7427 appendix A.1) ------------------------


def pkcs1(signer: LocalSigner, octets: bytes, kind: SHA256 | SHA512) -> Authentication:
    key = signer.private_key
    assert isinstance(key, RSAPrivateKey)
    signature = key.sign(octets, padding.PKCS1v15(), kind)
    named = bytes.fromhex("0f300d06092a864886f70d01010b0500")
    return Authentication(AuthMethod.DIGITAL_SIGNATURE, named + signature)


def test_rsa_pkcs1(keys: dict[str, LocalSigner]) -> None:
    signer = keys["device-rsa"]
    made = pkcs1(signer, b"octets", SHA256())
    auth.verify(made, b"octets", signer.public_key_der)
    for bad, octets, key in (
        (made, b"other", "device-rsa"),
        (made, b"octets", "gateway-rsa"),
        (made, b"octets", "device"),  # an EC key
        (pkcs1(signer, b"octets", SHA512()), b"octets", "device-rsa"),
    ):
        with pytest.raises(IkeError) as caught:
            auth.verify(bad, octets, keys[key].public_key_der)
        assert caught.value.failure is Failure.SIGNATURE


# --- identities ---------------------------------------------------------------------------------------------------


def test_identities_of_a_certificate(keys: dict[str, LocalSigner]) -> None:
    der = certificate_for(keys["device"], DEVICE)
    profile = read_profile(der)
    assert check_identity(fqdn(DEVICE.upper()), profile) == DEVICE
    other = subject_identity(certificate_for(keys["device"], DEVICE, "Other"))
    for identification, sentence in (
        (fqdn(""), "1 to 1024 bytes"),
        (Identification(IdType.FQDN, b"x" * 1025), "1 to 1024 bytes"),
        (Identification(IdType.FQDN, b"x" * 1024), "not the certificate's"),
        (other, "not the certificate's"),
        (Identification(IdType.RFC822_ADDR, DEVICE.encode()), "type RFC822_ADDR cannot"),
        (Identification(200, DEVICE.encode()), "type 200 cannot"),
    ):
        with pytest.raises(IkeError, match=sentence) as caught:
            check_identity(identification, profile)
        assert caught.value.failure is Failure.IDENTITY


def test_a_message_needs_a_certificate_of_the_one_encoding(keys: dict[str, LocalSigner]) -> None:
    der = certificate_for(keys["device"], DEVICE, not_before_s=int(NOW_S) - 3600, not_after_s=int(NOW_S) + 3600)
    assert _read_certificate((Certificate(4, der),)).der == der
    for payloads in ((), (Certificate(12, der),), (Certificate(12, der), Certificate(4, der))):
        with pytest.raises(IkeError, match=r"no X\.509 certificate") as caught:
            _read_certificate(payloads)
        assert caught.value.failure is Failure.CERTIFICATE


# --- messages -----------------------------------------------------------------------------------------------------


def test_a_message_has_at_most_what_udp_carries() -> None:
    header = Header(*SA, 34, 0, True, False)
    longest = serialize(header, (Notify(1, bytes(MAX_MESSAGE_BYTES - 28 - 8)),))
    assert len(longest) == 65_507
    assert len(Message.parse(longest).payloads) == 1
    with pytest.raises(MalformedError, match="more than 65507 bytes"):
        Message.parse(serialize(header, (Notify(1, bytes(MAX_MESSAGE_BYTES - 28 - 7)),)))


@pytest.mark.parametrize("kind", [PayloadType.SK, PayloadType.SKF])
def test_an_encrypted_payload_is_not_within_another(kind: PayloadType) -> None:
    with pytest.raises(MalformedError, match="within another one"):
        parse_payloads(kind, b"\0\0\0\x0c" + b"\0\1\0\1" + bytes(4))


def test_a_message_in_clear_is_not_opened() -> None:
    clear = Message.parse(serialize(Header(*SA, 37, 2, True, False), (Notify(1, b""),)))
    with pytest.raises(ProtectionError):
        Opener(AesGcm(bytes(20))).open(clear)


def test_padding_is_not_longer_than_the_content() -> None:
    cipher = AesGcm(bytes(20))
    iv = bytes(8)
    for content, opened in ((b"\0", b""), (b"\1", None), (b"x\1", b""), (b"x\2", None)):
        sealed = iv + cipher._aead.encrypt(cipher._salt + iv, content, b"header")
        if opened is None:
            with pytest.raises(ProtectionError):
                cipher.open(b"header", sealed)
        else:
            assert cipher.open(b"header", sealed) == opened


def test_iv_counters_do_not_begin_again() -> None:
    """RFC 5282 §3.1: an IV must not come twice under one key."""
    cipher = AesGcm(bytes(20))
    first, second = cipher.seal(b"", b"x"), cipher.seal(b"", b"x")
    assert (first[:8], second[:8]) == (bytes(8), bytes(7) + b"\1")
    cipher._sent = (1 << 64) - 1
    assert cipher.seal(b"", b"x")[:8] == b"\xff" * 8
    with pytest.raises(LocalError, match="more messages"):
        cipher.seal(b"", b"x")


def test_a_body_without_room_for_content_is_not_opened() -> None:
    cbc = AesCbcHmac(bytes(16), bytes(32), CountingRandom("iv"))
    sealed = bytes(16)  # an IV and no block
    with pytest.raises(ProtectionError):
        cbc.open(b"header", sealed + cbc._tag(b"header" + sealed))
    with pytest.raises(ProtectionError):
        AesGcm(bytes(20)).open(b"header", bytes(24))


def test_without_both_notifies_there_is_no_nat(wire: Wire) -> None:
    notifies = nat_notifies(SA, wire.device.path)
    back = Path(wire.device.path.remote, wire.device.path.local)
    header = Header(*SA, 34, 0, True, False)
    for payloads, nat in ((notifies, False), (notifies[:1], False), (notifies[1:], False), ((), False)):
        assert behind_nat(SA, Message(header, payloads), back) is nat
    assert behind_nat(SA, Message(header, notifies), wire.device.path)


# --- N(INTEGRITY_INFO) --------------------------------------------------------------------------------------------


class LongSigner:
    """Makes signatures of 4 KB, which no key of the profile does."""

    algorithm = "PS256"
    public_key_der = b""

    def sign(self, _data: bytes) -> bytes:
        return bytes(4096)


def test_a_statement_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(LocalError, match="at most 4096 bytes"):
        IntegrityInfo(Result.PASSED, 1_790_000_000, ()).sign(LongSigner(), SA, bytes(32))


def test_a_measurement_has_a_name_in_utf_8(keys: dict[str, LocalSigner]) -> None:
    statement = IntegrityInfo(Result.PASSED, 1_790_000_000, (Measurement("boot", bytes(32)),))
    content = statement.sign(keys["device"], SA, bytes(32))
    with pytest.raises(MalformedError, match="not UTF-8"):
        IntegrityInfo.parse(content.replace(b"boot", b"b\xff\xfft"))


# --- SAs that are not there, and verdicts that come late ----------------------------------------------------------


def test_a_verdict_counts_once(wire: Wire) -> None:
    no = Untrusted("revoked", "5.4 certificate", "the certificate was revoked")
    name = wire.start().happened("gateway", Established)[0].sa
    before = len(wire.seen)
    wire.gateway.judge(name, no, wire.now_s)
    wire.device.judge(no, wire.now_s)
    wire.run()
    assert len(wire.seen) == before
    assert wire.device.state is State.ESTABLISHED
    assert [sa.name for sa in wire.gateway.sas()] == [name]
    assert not wire.happened("gateway", Failed) + wire.happened("device", Failed)


def test_of_an_unknown_sa_nothing_is_done(wire: Wire) -> None:
    wire.start()
    wire.gateway.judge(SA, Trusted(), wire.now_s)
    wire.gateway.delete(SA, "gone", wire.now_s)
    assert wire.gateway.forget_others(SA, "gone", wire.now_s) == 0
    assert wire.gateway.keys_of(SA) is None
    name = next(wire.gateway.sas()).name
    assert wire.gateway.keys_of(name) == wire.device.keys
    assert not wire.gateway.take_events() + wire.gateway.take_datagrams()


def unaware(datagram: Datagram) -> Datagram:
    """The same message of IKE_SA_INIT, from an end that does not know RFC 7427."""
    message = Message.parse(datagram.data)
    hashes = NotifyType.SIGNATURE_HASH_ALGORITHMS
    rest = [each for each in message.payloads if not (isinstance(each, Notify) and each.type == hashes)]
    return replace(datagram, data=serialize(message.header, rest))


def test_a_gateway_with_an_rsa_key_refuses_who_takes_sha_1_only(
    new_wire: NewWire, keys: dict[str, LocalSigner]
) -> None:
    """Signatures with SHA-1 are not made. A device with an EC key can sign without RFC 7427 (RFC 4754)."""
    wire = new_wire(rsa=True, device_party=party(DEVICE, keys["device"]))
    wire.device.start(wire.now_s)
    (request,) = wire.device.take_datagrams()
    older = unaware(request)
    wire.device._sent = older.data  # what its AUTH signs
    wire.deliver(older)
    wire.run()
    assert [each.error.failure for each in wire.happened("gateway", Failed)] == [Failure.AUTH_METHOD]
    assert wire.seen[-1].payloads == ("N(AUTHENTICATION_FAILED)",)
    assert not list(wire.gateway.sas())


def test_a_device_with_an_rsa_key_waits_for_an_answer_that_it_can_sign_for(new_wire: NewWire) -> None:
    """Nobody has signed the first answer, which may be forged (RFC 7296 §2.21.1)."""
    wire = new_wire(rsa=True)
    wire.device.start(wire.now_s)
    (request,) = wire.device.take_datagrams()
    wire.deliver(request)
    (answer,) = wire.gateway.take_datagrams()
    wire.deliver(unaware(answer))
    assert (wire.device.state, wire.device.take_events()) == (State.INIT, [])
    wire.deliver(answer)
    assert wire.run().happened("device", Established)


def test_a_device_with_an_rsa_key_gives_up_on_a_gateway_that_takes_sha_1_only(new_wire: NewWire) -> None:
    wire = new_wire(rsa=True)
    wire.path = lambda datagram: [unaware(datagram) if datagram.exchange == "IKE_SA_INIT" else datagram]
    wire.start().wait(10)
    (failed,) = wire.happened("device", Failed)
    assert failed.error.failure is Failure.AUTH_METHOD


def test_an_answer_without_an_spi_keys_nothing(wire: Wire) -> None:
    wire.device.start(wire.now_s)
    (request,) = wire.device.take_datagrams()
    wire.deliver(request)
    (answer,) = wire.gateway.take_datagrams()
    wire.deliver(replace(answer, data=answer.data[:8] + bytes(8) + answer.data[16:]))
    assert (wire.device.state, wire.device.dropped) == (State.INIT, 1)
    assert wire.device.timer_s() is not None
    wire.deliver(answer)
    assert wire.device.state is State.AUTH
    assert wire.device._refused_until_s is None, "nothing is due any more"


def test_an_answer_of_another_group_keys_nothing(wire: Wire) -> None:
    """The suite that is chosen and the public value are of the group that the request has a value for."""
    wire.device.start(wire.now_s)
    (request,) = wire.device.take_datagrams()
    wire.deliver(request)
    (answer,) = wire.gateway.take_datagrams()
    message = Message.parse(answer.data)
    other = next(suite for suite in IKE_SUITES if suite.group != wire.device._group)
    accepted, value, *rest = message.payloads
    assert isinstance(accepted, SecurityAssociation)
    assert isinstance(value, KeyExchange)
    chosen = SecurityAssociation((replace(accepted.proposals[0], transforms=other.transforms()),))
    for payloads in ((chosen, value, *rest), (accepted, replace(value, group=int(other.group)), *rest)):
        wire.deliver(replace(answer, data=serialize(message.header, payloads)))
        assert wire.device._refused is not None
        assert wire.device._refused.failure is Failure.KE_GROUP
        assert wire.device.state is State.INIT
        wire.device._refused = None


def test_a_demand_for_a_cookie_that_comes_twice_is_dropped_once(new_wire: NewWire) -> None:
    wire = new_wire(limits=Limits(cookie_from=0))
    wire.device.start(wire.now_s)
    (request,) = wire.device.take_datagrams()
    wire.deliver(request)
    (demand,) = wire.gateway.take_datagrams()
    wire.deliver(demand)
    (again,) = wire.device.take_datagrams()
    assert (again.payloads[0], wire.device.dropped) == ("N(COOKIE)", 0)
    wire.deliver(demand)
    assert (wire.device.take_datagrams(), wire.device.dropped) == ([], 1)


@pytest.mark.parametrize(("size", "taken"), [(1, True), (64, True), (65, False), (0, False)])
def test_a_cookie_has_1_to_64_bytes(wire: Wire, size: int, taken: bool) -> None:
    """RFC 7296 §2.6."""
    wire.device.start(wire.now_s)
    wire.device.take_datagrams()
    header = Header(wire.device.name.spi_i, bytes(8), 34, 0, False, True)
    wire.device.receive(
        Message.parse(serialize(header, (Notify(NotifyType.COOKIE, bytes(size)),))), wire.device.path, NOW_S
    )
    assert [each.payloads[0] for each in wire.device.take_datagrams()] == ["N(COOKIE)"] * taken
    assert wire.device.dropped == (0 if taken else 1)


def test_the_keys_of_each_direction() -> None:
    """RFC 7296 §2.14: SK_ai and SK_ei are for what the original Initiator sends. Both ends are ours."""
    suite = next(suite for suite in IKE_SUITES if not suite.cipher.is_aead)
    keys = IkeKeys.derive(suite, b"shared", (b"i", b"r"), SA)
    for of_initiator, integrity in ((True, keys.sk_ai), (False, keys.sk_ar)):
        cipher = keys.cipher(CountingRandom("iv"), of_initiator=of_initiator)
        sealed = cipher.seal(b"header", b"x")
        tag = hmac.digest(integrity, b"header" + sealed[:-16], hashlib.sha256)[:16]
        assert sealed[-16:] == tag


def test_rekeying_is_due_after_80_to_90_percent_of_a_life() -> None:
    for token, part in ((b"\0", 0.8), (b"\xff", 0.9)):
        life = Life.of(1000, 50.0, Draws(token))
        assert life.rekey_at_s == pytest.approx(50 + 1000 * part)
        assert life.ends_s == 1050


def test_a_deletion_names_spis_unless_it_is_of_the_ike_sa() -> None:
    """RFC 7296 §3.11, also for a protocol that nobody has: the octets are written back as they were read."""
    for octets in ("00040001 01020304", "03040001 01020304", "02040002 01020304 05060708", "01000000"):
        data = bytes.fromhex(octets)
        assert Delete.parse(data).serialize() == data


def test_what_comes_before_and_after_the_first_exchange_is_counted(wire: Wire) -> None:
    header = Header(wire.device.name.spi_i, SA.spi_r, 37, 0, False, False)
    request = Message.parse(serialize(header, ()))
    wire.device.receive(request, wire.device.path, wire.now_s)
    assert wire.device.dropped == 1
    wire.path = lambda _datagram: []
    wire.start().wait(30)
    assert wire.device.state is State.CLOSED
    wire.device.receive(request, wire.device.path, wire.now_s)
    assert wire.device.dropped == 2
    assert not wire.device.take_datagrams()
