"""The parts by themselves: states, window, cookies, keys against published vectors, proposals, pool, integrity."""

import hashlib
import hmac
from ipaddress import IPv4Address, IPv4Network

import pytest

from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ikev2 import auth, child, crypto, proposals
from voice_dpki.ikev2.cookies import Cookies
from voice_dpki.ikev2.crypto import IkeKeys, KeyPair, ProtectionError
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.identity import fqdn
from voice_dpki.ikev2.integrity import IntegrityInfo, Measurement, Result
from voice_dpki.ikev2.message import Header, Message
from voice_dpki.ikev2.payloads import (
    Authentication,
    Identification,
    Notify,
    Proposal,
    SecurityAssociation,
    Transform,
)
from voice_dpki.ikev2.protect import Opener, seal
from voice_dpki.ikev2.registry import AuthMethod, Group, IdType, NotifyType, Protocol, TransformType
from voice_dpki.ikev2.states import TRANSITIONS, Move, State, moved
from voice_dpki.ikev2.window import Requests, Retransmission
from voice_dpki.x509.keys import LocalSigner, SignatureError
from voice_dpki.x509.profile import read_profile

from .conftest import DEVICE, CountingRandom, certificate_for

SA = SaName(b"\1" * 8, b"\2" * 8)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("move", Move)
def test_every_state_with_every_move(state: State, move: Move) -> None:
    if (state, move) in TRANSITIONS:
        assert moved(state, move) is TRANSITIONS[state, move]
    else:
        with pytest.raises(LocalError, match="cannot"):
            moved(state, move)


def test_nothing_leaves_the_end() -> None:
    assert not [state for state, _ in TRANSITIONS if state is State.CLOSED]
    assert {state for state, move in TRANSITIONS if move is Move.CLOSE} == set(State) - {State.CLOSED}


def test_retransmission_times() -> None:
    requests = Requests(Retransmission(first_s=1, factor=2, tries=3))
    requests.sent((), 0)
    assert requests.due_s == 1
    assert requests.repeat(0.5) == ()
    assert requests.repeat(1) == ()
    assert requests.due_s == 3
    requests.repeat(3)
    assert requests.due_s == 7
    assert requests.repeat(7) is None
    assert requests.due_s is None


# --- cookies ------------------------------------------------------------------------------------------------------


def test_cookie_is_for_one_request_and_a_time() -> None:
    cookies = Cookies(CountingRandom("cookies"))
    cookie = cookies.make(b"nonce", "192.0.2.1", b"spi", 0)
    assert cookies.holds(cookie, b"nonce", "192.0.2.1", b"spi", 1)
    assert not cookies.holds(cookie, b"other", "192.0.2.1", b"spi", 1)
    assert not cookies.holds(cookie, b"nonce", "192.0.2.2", b"spi", 1)
    assert not cookies.holds(cookie[:-1] + b"x", b"nonce", "192.0.2.1", b"spi", 1)
    assert not cookies.holds(b"", b"nonce", "192.0.2.1", b"spi", 1)
    assert cookies.holds(cookie, b"nonce", "192.0.2.1", b"spi", 61)
    assert not cookies.holds(cookie, b"nonce", "192.0.2.1", b"spi", 122)


def test_old_secret_does_not_come_back_after_silence() -> None:
    cookies = Cookies(CountingRandom("cookies"))
    cookie = cookies.make(b"nonce", "192.0.2.1", b"spi", 0)
    assert not cookies.holds(cookie, b"nonce", "192.0.2.1", b"spi", 1000)


# --- keys ---------------------------------------------------------------------------------------------------------


def test_ecdh_vector_of_rfc_5903() -> None:
    """RFC 5903 §8.1: both public values and the shared secret of P-256."""

    class Fixed:
        def token(self, size: int) -> bytes:
            return (secret - 1).to_bytes(size, "big")

    secret = 0xC88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433
    pair = KeyPair(Group.ECP_256, Fixed())
    assert pair.public_value.hex() == (
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
        "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"
    )
    peer = bytes.fromhex(
        "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
        "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"
    )
    assert pair.shared(peer).hex() == "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de"


@pytest.mark.parametrize("value", [b"", b"\0" * 64, b"\xff" * 64, b"\1" * 63])
def test_no_point(value: bytes) -> None:
    with pytest.raises(IkeError) as caught:
        KeyPair(Group.ECP_256, CountingRandom("k")).shared(value)
    assert caught.value.failure is Failure.KE_VALUE


def test_prf_plus_is_a_chain() -> None:
    first = hmac.digest(b"key", b"seed\1", hashlib.sha256)
    second = hmac.digest(b"key", first + b"seed\2", hashlib.sha256)
    assert crypto.prf_plus(b"key", b"seed", 40) == (first + second)[:40]


@pytest.mark.parametrize("suite", proposals.IKE_SUITES[:4], ids=lambda suite: suite.name)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 3000])
def test_ciphers_keep_content(suite: proposals.IkeSuite, size: int) -> None:
    keys = IkeKeys.derive(suite, b"shared", (b"i", b"r"), SA)
    for of_initiator in (True, False):
        sender = keys.cipher(CountingRandom("iv"), of_initiator=of_initiator)
        receiver = keys.cipher(CountingRandom("iv"), of_initiator=of_initiator)
        sealed = sender.seal(b"header", b"x" * size)
        assert len(sealed) == sender.sealed_bytes(size)
        assert receiver.open(b"header", sealed) == b"x" * size
        for bad in (sealed[:-1], sealed[1:], b"", bytes(len(sealed)), sealed + b"\0"):
            with pytest.raises(ProtectionError):
                receiver.open(b"header", bad)
        with pytest.raises(ProtectionError):
            receiver.open(b"other", sealed)


def test_a_fragment_alone_is_not_a_message() -> None:
    keys = IkeKeys.derive(proposals.IKE_SUITES[0], b"shared", (b"i", b"r"), SA)
    cipher = keys.cipher(CountingRandom("iv"), of_initiator=True)
    header = Header(*SA, 37, 2, True, False)
    notify = Notify(NotifyType.COOKIE, b"x" * 900)
    first, second, third = seal(header, (notify,), cipher, 400)
    opener = Opener(cipher)
    assert opener.open(Message.parse(third)) is None
    assert opener.open(Message.parse(first)) is None
    assert opener.open(Message.parse(first)) is None
    assert opener.open(Message.parse(second)) == (notify,)
    coarse = seal(header, (notify,), cipher, 600)
    assert opener.open(Message.parse(coarse[0])) is None
    assert opener.open(Message.parse(first)) is None  # cut finer: begins again
    assert opener.open(Message.parse(coarse[1])) is None
    assert opener.open(Message.parse(second)) is None
    assert opener.open(Message.parse(third)) == (notify,)


def test_too_many_fragments() -> None:
    keys = IkeKeys.derive(proposals.IKE_SUITES[0], b"shared", (b"i", b"r"), SA)
    cipher = keys.cipher(CountingRandom("iv"), of_initiator=True)
    fragments = seal(Header(*SA, 37, 2, True, False), (Notify(1, b"x" * 6000),), cipher, 100)
    with pytest.raises(IkeError, match="128 fragments"):
        Opener(cipher).open(Message.parse(fragments[0]))


def test_fragments_that_are_too_long_together() -> None:
    keys = IkeKeys.derive(proposals.IKE_SUITES[0], b"shared", (b"i", b"r"), SA)
    cipher = keys.cipher(CountingRandom("iv"), of_initiator=True)
    # A notify that fills the longest message, 65507 bytes, and one that is a byte longer: two fragments each.
    for over, fits in ((0, True), (1, False)):
        notify = Notify(1, bytes(65_507 - 8 + over))
        first, second = seal(Header(*SA, 37, 2, True, False), (notify,), cipher, 40_000)
        opener = Opener(cipher)
        assert opener.open(Message.parse(first)) is None
        if fits:
            assert opener.open(Message.parse(second)) == (notify,)
        else:
            with pytest.raises(IkeError, match="more than 65507 bytes"):
                opener.open(Message.parse(second))


# --- proposals ----------------------------------------------------------------------------------------------------


def test_our_preference_decides() -> None:
    offered = proposals.offer(proposals.IKE_SUITES[::-1], Protocol.IKE)
    suite, proposal = proposals.choose(offered, proposals.IKE_SUITES, Protocol.IKE)
    assert suite == proposals.IKE_SUITES[0]
    assert proposals.chosen(SecurityAssociation((proposal,)), proposals.IKE_SUITES, Protocol.IKE)[0] == suite


def test_proposal_with_alternatives() -> None:
    """A peer may list several transforms of a type in one proposal, and NONE for what it can do without."""
    wanted = proposals.EspSuite(proposals.GCM_128)
    many = (
        *wanted.transforms(),
        Transform(TransformType.ENCR, 20, 256),
        Transform(TransformType.KE, 0),
        Transform(TransformType.KE, 19),
        Transform(TransformType.ESN, 1),
    )
    suite, proposal = proposals.choose(
        SecurityAssociation((Proposal(1, Protocol.ESP, b"spi1", many),)), [wanted], Protocol.ESP
    )
    assert suite == wanted
    assert proposal.transforms == wanted.transforms()


@pytest.mark.parametrize(
    "extra",
    [Transform(TransformType.KE, 19), Transform(6, 35), Transform(TransformType.INTEG, 12)],
    ids=["group", "unknown type", "integrity with an AEAD"],
)
def test_what_cannot_be_left_out_is_not_chosen(extra: Transform) -> None:
    suite = proposals.EspSuite(proposals.GCM_128)
    offered = SecurityAssociation((Proposal(1, Protocol.ESP, b"spi1", (*suite.transforms(), extra)),))
    with pytest.raises(IkeError):
        proposals.choose(offered, [suite], Protocol.ESP)


def test_unknown_attribute_is_not_chosen() -> None:
    suite = proposals.EspSuite(proposals.GCM_128)
    bent = tuple(Transform(each.type, each.id, each.key_bits, True) for each in suite.transforms())
    with pytest.raises(IkeError):
        proposals.choose(SecurityAssociation((Proposal(1, 3, b"spi1", bent),)), [suite], Protocol.ESP)


def test_answer_must_be_what_was_offered() -> None:
    cbc = proposals.offer(proposals.IKE_SUITES[2:3], Protocol.IKE)
    with pytest.raises(IkeError):
        proposals.chosen(cbc, proposals.IKE_SUITES[:1], Protocol.IKE)
    two = proposals.offer(proposals.IKE_SUITES[:2], Protocol.IKE)
    with pytest.raises(IkeError):
        proposals.chosen(two, proposals.IKE_SUITES, Protocol.IKE)


# --- child SA -----------------------------------------------------------------------------------------------------


def test_narrowing() -> None:
    inner = child.network_selector(IPv4Network("10.8.0.0/16"))
    assert child.narrowed((child.EVERYTHING,), inner) == (inner,)
    assert child.narrowed((child.network_selector(IPv4Network("10.9.0.0/16")),), inner) == ()
    part = child.network_selector(IPv4Network("10.8.1.0/24"))
    assert child.narrowed((part, part, child.EVERYTHING), inner) == (part, inner)


def test_pool() -> None:
    pool = child.AddressPool(IPv4Network("10.9.0.0/30"))
    assert pool.take("one") == pool.take("one") == IPv4Address("10.9.0.1")
    assert pool.take("two") == IPv4Address("10.9.0.2")
    with pytest.raises(child.ChildError):
        pool.take("three")
    pool.give_back("one")
    with pytest.raises(child.ChildError):
        pool.take("three")
    pool.give_back("one")
    assert pool.take("three") == IPv4Address("10.9.0.1")
    pool.give_back("nobody")


# --- AUTH ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["device", "device-rsa"])
def test_signatures(keys: dict[str, LocalSigner], name: str) -> None:
    signer = keys[name]
    made = auth.sign(signer, b"octets", digital=True)
    auth.verify(made, b"octets", signer.public_key_der)
    for octets, key in ((b"other", signer.public_key_der), (b"octets", keys["other"].public_key_der)):
        with pytest.raises(IkeError) as caught:
            auth.verify(made, octets, key)
        assert caught.value.failure is Failure.SIGNATURE


def test_older_ways(keys: dict[str, LocalSigner]) -> None:
    made = auth.sign(keys["device"], b"octets", digital=False)
    assert made.method == AuthMethod.ECDSA_P256
    auth.verify(made, b"octets", keys["device"].public_key_der)
    with pytest.raises(LocalError, match="SHA-1"):
        auth.sign(keys["device-rsa"], b"octets", digital=False)


@pytest.mark.parametrize(
    "made",
    [
        Authentication(AuthMethod.RSA, bytes(256)),
        Authentication(AuthMethod.SHARED_KEY, bytes(32)),
        Authentication(AuthMethod.NULL, bytes(32)),
        Authentication(AuthMethod.DIGITAL_SIGNATURE, b""),
        Authentication(AuthMethod.DIGITAL_SIGNATURE, b"\xff"),
        Authentication(AuthMethod.DIGITAL_SIGNATURE, bytes((11,)) + bytes.fromhex("300906072a8648ce3d0401") + b"x"),
    ],
)
def test_methods_that_are_refused(keys: dict[str, LocalSigner], made: Authentication) -> None:
    with pytest.raises(IkeError) as caught:
        auth.verify(made, b"octets", keys["device"].public_key_der)
    assert caught.value.failure is Failure.AUTH_METHOD


BEYOND = b"\x02\x21\x01" + bytes(32)
"""2^256 in DER: one more than r and s have room for."""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30\x00",
        b"\x30\x06\x02\x01\x00\x02\x01\x00",
        b"\x30\x06\x02\x01\xff\x02\x01\x01",
        b"\x30\x06\x02\x01\x01\x02\x01\xff",
        b"\x30\x26" + BEYOND + b"\x02\x01\x01",
        b"\x30\x26\x02\x01\x01" + BEYOND,
        b"x" * 70,
    ],
)
def test_odd_ecdsa_signatures(keys: dict[str, LocalSigner], data: bytes) -> None:
    made = Authentication(AuthMethod.DIGITAL_SIGNATURE, bytes((12,)) + auth.ECDSA_SHA256 + data)
    with pytest.raises(IkeError) as caught:
        auth.verify(made, b"octets", keys["device"].public_key_der)
    assert caught.value.failure is Failure.SIGNATURE


def test_hash_list() -> None:
    assert auth.knows_sha256(Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, b"\0\1\0\2"))
    assert not auth.knows_sha256(Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, b"\0\1\2\0"))
    assert not auth.knows_sha256(None)


def test_signed_octets_cover_the_identity() -> None:
    one, other = (
        auth.signed_octets(b"message", b"nonce", b"key", fqdn(name)) for name in ("a.example", "b.example")
    )
    assert one[:-32] == other[:-32] == b"messagenonce"
    assert one != other
    assert Identification(IdType.FQDN, b"x").serialize() == b"\2\0\0\0x"


# --- integrity ----------------------------------------------------------------------------------------------------


def statement(**changes: object) -> IntegrityInfo:
    parts = {"result": Result.PASSED, "time_s": 1_790_000_000, "measurements": (Measurement("boot", b"\1" * 32),)}
    return IntegrityInfo(**parts | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["device", "device-rsa"])
def test_integrity_statement(keys: dict[str, LocalSigner], name: str) -> None:
    profile = read_profile(certificate_for(keys[name], DEVICE))
    content = statement().sign(keys[name], SA, profile.digest)
    info = IntegrityInfo.parse(content)
    assert info.measurements == (Measurement("boot", b"\1" * 32),)
    info.verify(SA, profile)
    with pytest.raises(SignatureError):
        info.verify(SaName(SA.spi_i, b"\3" * 8), profile)
    with pytest.raises(SignatureError):
        info.verify(SA, read_profile(certificate_for(keys[name], DEVICE, "Other")))
    with pytest.raises(SignatureError):
        IntegrityInfo.parse(content.replace(b"boot", b"root")).verify(SA, profile)


def test_integrity_bounds() -> None:
    with pytest.raises(MalformedError, match="twice"):
        statement(measurements=(Measurement("a", bytes(32)),) * 2)
    with pytest.raises(MalformedError, match="1 to 64"):
        statement(measurements=(Measurement("", bytes(32)),))
    with pytest.raises(MalformedError, match="version"):
        IntegrityInfo.parse(b"\2" + bytes(20))
    with pytest.raises(MalformedError, match="result"):
        IntegrityInfo.parse(b"\1\7" + bytes(20))
    with pytest.raises(MalformedError, match="4096"):
        IntegrityInfo.parse(bytes(4097))
