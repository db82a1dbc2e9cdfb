"""PKE: an exchange, octets that the test builds by itself from the text of RFC 3830, and what is refused."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_der_x509_certificate

from tests.certificates import with_usage
from tests.mikey.conftest import CALLEE, CALLER, NOW_S, CountingRandom, recorded, secrets_of
from voice_dpki.errors import LocalError
from voice_dpki.mikey.certified import KeyingAnswer, Party
from voice_dpki.mikey.envelope import MAX_ENVELOPE_KEY_BYTES, seal, wrap
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Message, serialize
from voice_dpki.mikey.payloads import (
    CertificateHash,
    EnvelopeKey,
    Identity,
    Kemac,
    KeyData,
    Payload,
    Rand,
    Signature,
    Timestamp,
    Verification,
)
from voice_dpki.mikey.pke import PkeInitiator, PkeOffer, PkeResponder, Recipient, recipient_of
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.registry import EncrAlg, HashFunc, KeyType, MacAlg, PayloadType, Prf
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.steps import PeerClaim, identity_of
from voice_dpki.mikey.transport import MessageKeys
from voice_dpki.x509.encipherment import LocalDecrypter
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import read_profile
from voice_dpki.x509.recorded import CertStatus

PROFILE = SrtpProfile.AES_CM_128_HMAC_SHA1_80


class Line:
    """A caller, and a callee whose certificate it has."""

    def __init__(self, caller: Party, callee: Party) -> None:
        self.random = CountingRandom("pke")
        self.caller, self.callee = caller, callee
        self.initiator = PkeInitiator(caller)
        self.recipient = Recipient(callee.uri, read_profile(callee.certificate))
        assert isinstance(callee.signer, LocalSigner)
        self.decrypter = LocalDecrypter.of(callee.signer)
        self.responder = PkeResponder(callee, self.decrypter, ReplayCache(started_s=0))

    def offer(self, **changes: Any) -> PkeOffer:
        options: dict[str, Any] = {"profile": PROFILE, "now_s": NOW_S, **changes}
        return self.initiator.offer(self.recipient, random=self.random, **options)

    def receive(self, octets: bytes, **changes: Any) -> PeerClaim:
        options: dict[str, Any] = {"initiator_uri": CALLER, "key_mgmt_ids": ("mikey",), "now_s": NOW_S}
        claim = self.responder.receive(octets, steady_s=NOW_S, **{**options, **changes})
        assert isinstance(claim, PeerClaim)
        return claim

    def accept(self, octets: bytes, status: CertStatus = CertStatus.VALID, **changes: Any) -> KeyingAnswer:
        claim = self.receive(octets, **changes)
        prepared = self.responder.prepare(claim, random=self.random)
        record = recorded(claim, status)
        return self.responder.complete(prepared, record, now_s=NOW_S, steady_s=NOW_S)

    def resigned(self, offer: PkeOffer, change: Callable[[list[Payload]], Any], **header: Any) -> bytes:
        """The offer after a change, signed by the caller: what somebody with a good key and bad manners sends."""
        payloads = list(offer.sent.payloads[:-1])
        change(payloads)
        head = replace(offer.sent.header, **header)
        unsigned = serialize(head, (*payloads, Signature(1, bytes(256))))[:-256]
        return unsigned + self.caller.signer.sign(unsigned)


@pytest.fixture
def line(parties: tuple[Party, Party]) -> Line:
    return Line(*parties)


def refused(act: Callable[[], object]) -> Failure:
    with pytest.raises(MikeyError) as caught:
        act()
    return caught.value.failure


def put(value: Payload) -> Callable[[list[Payload]], None]:
    """Replace the payload of the value's class."""

    def change(payloads: list[Payload]) -> None:
        payloads[:] = [value if type(each) is type(value) else each for each in payloads]

    return change


@pytest.mark.parametrize("profile", SrtpProfile)
@pytest.mark.parametrize("prf", Prf)
def test_both_sides_hold_the_same_keys(line: Line, prf: Prf, profile: SrtpProfile) -> None:
    offer = line.offer(prf=prf, profile=profile)
    answer = line.accept(offer.message)
    keys = offer.confirm(answer.message)
    assert secrets_of(answer.keys) == secrets_of(SrtpKeys(profile, keys.receive, keys.send))
    assert len({keys.send.tek, keys.receive.tek, keys.send.ssrc, keys.receive.ssrc}) == 4


def test_keys_and_envelopes_are_drawn_anew(line: Line) -> None:
    first, second = line.offer(), line.offer()
    assert first._tgk != second._tgk
    assert first._keys.secret != second._keys.secret
    assert first.csb_id != second.csb_id


# From outside: the messages by the text of the RFC, with hashlib, hmac and AES alone.


def prf_of(name: str, key: bytes, label: bytes, size: int) -> bytes:
    """RFC 3830 §4.1.2, for keys of at most 32 bytes: one block."""
    out, link = b"", label
    while len(out) < size:
        link = hmac.digest(key, link, name)
        out += hmac.digest(key, link + label, name)
    return out[:size]


SUITES: dict[Prf, tuple[str, int, int, Any]] = {
    Prf.MIKEY_1: ("sha1", 16, 20, padding.PKCS1v15()),
    Prf.HMAC_SHA_256: ("sha256", 32, 32, padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)),
}
"""By PRF: hash, length of the encryption key, length of the MAC and its key, padding of the envelope."""


def private_of(party: Party) -> RSAPrivateKey:
    assert isinstance(party.signer, LocalSigner)
    assert isinstance(party.signer.private_key, RSAPrivateKey)
    return party.signer.private_key


@pytest.mark.parametrize("prf", Prf)
def test_our_messages_are_those_of_the_text(line: Line, prf: Prf) -> None:
    """§3.2, §4.1.4, §4.2.3, §5.2, §6.2, §6.3, §6.8, §6.9, §6.13, down to the octet."""
    name, encr_bytes, mac_bytes, scheme = SUITES[prf]
    offer = line.offer(prf=prf)
    octets = offer.message
    private = private_of(line.callee)
    envelope = offer.sent.one(EnvelopeKey)
    secret = private.decrypt(envelope.data, scheme)
    csb, rand, time = octets[4:8], offer.sent.one(Rand).rand, offer.sent.one(Timestamp).value
    keys = {
        what: prf_of(name, secret, bytes.fromhex(constant) + b"\xff" + csb + rand, size)
        for what, constant, size in (
            ("encr", "150533E1", encr_bytes),
            ("auth", "2D22AC75", mac_bytes),
            ("salt", "29B88916", 14),
        )
    }
    # KEMAC: IDi, then one TGK, encrypted; the MAC over this payload alone, whose next payload counts as zero.
    uri = CALLER.encode()
    clear = bytes([20, 1]) + len(uri).to_bytes(2, "big") + uri
    clear += bytes([0, 0]) + len(offer._tgk).to_bytes(2, "big") + offer._tgk
    vector = bytes(a ^ b for a, b in zip(keys["salt"], bytes(2) + csb + time, strict=True)) + bytes(2)
    sealed = Cipher(algorithms.AES(keys["encr"]), modes.CTR(vector)).encryptor().update(clear)
    alg = 1 if prf is Prf.MIKEY_1 else 3
    mac_alg = 1 if prf is Prf.MIKEY_1 else 2
    kemac = bytes([0, alg]) + len(sealed).to_bytes(2, "big") + sealed + bytes([mac_alg])
    kemac += hmac.digest(keys["auth"], kemac, name)
    digest = hashlib.new(name, line.callee.certificate).digest()
    chash = bytes([2, 0 if name == "sha1" else 2]) + digest
    pke = bytes([4]) + (2 << 14 | 256).to_bytes(2, "big") + envelope.data
    tail = bytes([8]) + kemac[1:] + chash + pke + (1 << 12 | 256).to_bytes(2, "big")
    assert octets[:-256].endswith(tail)
    assert octets[:4] == bytes([1, 2, 5, 0x80 | prf])
    public = load_der_x509_certificate(line.caller.certificate).public_key()
    pss = padding.PSS(padding.MGF1(SHA256()), 32)
    public.verify(octets[-256:], octets[:-256], pss, SHA256())  # type: ignore[union-attr,call-arg,arg-type]
    # The verification message: V over itself, IDi, IDr and T.
    answer = line.accept(octets).message
    covered = answer[:-mac_bytes] + CALLER.encode() + CALLEE.encode() + time
    assert answer[-mac_bytes:] == hmac.digest(keys["auth"], covered, name)
    assert answer[:4] == bytes([1, 3, 5, prf])
    # The keys of both streams (§4.1.3).
    agreed = offer.confirm(answer)
    for cs_id, key in ((1, agreed.send), (2, agreed.receive)):
        label = bytes([cs_id]) + csb + rand
        assert key.tek == prf_of(name, offer._tgk, bytes.fromhex("2AD01C64") + label, 16)
        assert key.salt == prf_of(name, offer._tgk, bytes.fromhex("39A2C14B") + label, 14)


def of_octets(line: Line, prf: Prf, key_bytes: int, tgk_bytes: int) -> bytes:
    """An offer with an envelope key and a TGK of other lengths than ours."""
    offer = line.offer(prf=prf)
    secret, tgk = bytes(range(key_bytes)), bytes(range(100, 100 + tgk_bytes))
    timestamp, rand = offer.sent.one(Timestamp), offer.sent.one(Rand).rand
    keys = MessageKeys(secret, prf, offer.csb_id, rand)

    def change(payloads: list[Payload]) -> None:
        put(seal(keys, identity_of(CALLER), tgk, timestamp))(payloads)
        put(wrap(secret, prf, line.recipient.certificate))(payloads)

    return line.resigned(offer, change)


@pytest.mark.parametrize("size", [16, 24, 31, 32, 33, 64])
@pytest.mark.parametrize("prf", Prf)
def test_keys_of_other_lengths_are_accepted(line: Line, prf: Prf, size: int) -> None:
    assert line.accept(of_octets(line, prf, size, size)).message


@pytest.mark.parametrize(
    ("key_bytes", "tgk_bytes", "failure"),
    [(15, 32, Failure.MAC), (MAX_ENVELOPE_KEY_BYTES + 1, 32, Failure.MAC), (32, 15, Failure.PAYLOAD)],
)
@pytest.mark.parametrize("prf", Prf)
def test_keys_of_too_few_or_many_bytes_are_refused(
    line: Line, prf: Prf, key_bytes: int, tgk_bytes: int, failure: Failure
) -> None:
    assert refused(lambda: line.accept(of_octets(line, prf, key_bytes, tgk_bytes))) is failure


# What is refused.


def test_every_truncation_is_refused(line: Line) -> None:
    offer = line.offer()
    for end in range(len(offer.message)):
        with pytest.raises(MikeyError):
            line.accept(offer.message[:end])
    answer = line.accept(offer.message).message
    for end in range(len(answer)):
        with pytest.raises(MikeyError):
            offer.confirm(answer[:end])


def test_every_changed_byte_of_the_envelope_is_refused_whoever_signs(line: Line) -> None:
    """A caller that signs what it does not know: the MAC tells, and nothing tells more."""
    offer = line.offer()
    envelope, kemac = offer.sent.one(EnvelopeKey), offer.sent.one(Kemac)
    broken: list[Payload] = [replace(envelope, data=data) for data in with_each_fifth_byte_changed(envelope.data)]
    broken += [replace(kemac, encr_data=data) for data in with_each_fifth_byte_changed(kemac.encr_data)]
    for payload in broken:
        octets = line.resigned(offer, put(payload))
        assert refused(lambda octets=octets: line.accept(octets)) is Failure.MAC  # type: ignore[misc]


def with_each_fifth_byte_changed(data: bytes) -> list[bytes]:
    return [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data), 5)]


@pytest.mark.parametrize("prf", Prf)
@pytest.mark.parametrize("data", [b"", bytes(255), bytes(256), b"\xff" * 256, bytes(257)])
def test_an_envelope_that_cannot_be_opened_tells_nothing(line: Line, prf: Prf, data: bytes) -> None:
    octets = line.resigned(line.offer(prf=prf), put(EnvelopeKey(2, data)))
    assert refused(lambda: line.accept(octets)) is Failure.MAC


def test_the_encrypted_identity_must_be_that_of_the_caller(line: Line) -> None:
    """§3.2: else a KEMAC and its envelope could be taken from another's message."""
    offer = line.offer()
    other = seal(offer._keys, identity_of("sip:+493099@a.example"), offer._tgk, offer.sent.one(Timestamp))
    assert refused(lambda: line.accept(line.resigned(offer, put(other)))) is Failure.IDENTITY


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (put(CertificateHash(HashFunc.SHA_256, bytes(32))), Failure.HASH),
        (put(CertificateHash(HashFunc.MD5, bytes(16))), Failure.HASH),
        (put(EnvelopeKey(3, bytes(256))), Failure.PAYLOAD),
        (put(Kemac(EncrAlg.AES_CM_256, b"", MacAlg.NULL, b"")), Failure.MAC),
        (put(Kemac(EncrAlg.AES_CM_256, b"", MacAlg.HMAC_SHA_1_160, bytes(20))), Failure.MAC),
        (lambda payloads: payloads.pop(), Failure.PAYLOAD),
        (lambda payloads: payloads.append(Verification(2, bytes(32))), Failure.PAYLOAD),
    ],
)
def test_other_payloads_are_refused(line: Line, change: Callable[..., Any], failure: Failure) -> None:
    assert refused(lambda: line.accept(line.resigned(line.offer(), change))) is failure


@pytest.mark.parametrize("algorithm", [EncrAlg.NULL, EncrAlg.AES_CM_128, EncrAlg.AES_KW_128])
def test_other_encryption_than_that_of_the_prf_is_refused(line: Line, algorithm: EncrAlg) -> None:
    offer = line.offer()

    class Other(MessageKeys):
        encr_alg = algorithm

    keys = Other(offer._keys.secret, offer._keys.prf, offer.csb_id, offer._keys.rand)
    kemac = keys.sealed_alone(offer.sent.one(Kemac).encr_data)
    assert refused(lambda: line.accept(line.resigned(offer, put(kemac)))) is Failure.ENCRYPTION


@pytest.mark.parametrize(
    "data",
    [
        (),
        (identity_of(CALLER),),
        (KeyData(KeyType.TGK, bytes(32)),),
        (identity_of(CALLER), KeyData(KeyType.TEK, bytes(32))),
        (identity_of(CALLER), KeyData(KeyType.TGK_SALT, bytes(32), bytes(14))),
        (identity_of(CALLER), KeyData(KeyType.TGK, bytes(32)), KeyData(KeyType.TGK, bytes(32))),
        (identity_of(CALLER), Rand(bytes(16))),
    ],
)
def test_key_data_must_be_an_identity_and_one_tgk(line: Line, data: tuple[Payload, ...]) -> None:
    offer = line.offer()
    kinds = [payload.kind for payload in data[1:]] + [PayloadType.LAST]
    clear = b"".join(bytes([kind]) + each.serialize() for each, kind in zip(data, kinds, strict=False))
    kemac = offer._keys.sealed_alone(offer._keys.crypt(clear, offer.sent.one(Timestamp)))
    octets = line.resigned(offer, put(kemac))
    assert refused(lambda: line.accept(octets)) in (Failure.PAYLOAD, Failure.MALFORMED)


def test_an_offer_that_asks_for_no_answer_is_refused(line: Line) -> None:
    octets = line.resigned(line.offer(), lambda payloads: None, respond=False)
    assert refused(lambda: line.accept(octets)) is Failure.PAYLOAD


def test_a_replay_is_refused(line: Line) -> None:
    octets = line.offer().message
    line.accept(octets)
    assert refused(lambda: line.accept(octets)) is Failure.REPLAY


def test_only_what_verified_is_remembered(line: Line) -> None:
    octets = line.offer().message
    assert refused(lambda: line.accept(octets, key_mgmt_ids=("mikey", "other"))) is Failure.SDP_IDS
    assert refused(lambda: line.accept(octets, status=CertStatus.REVOKED)) is Failure.LEDGER
    line.accept(octets)


def test_a_caller_that_is_somebody_else_is_refused(line: Line) -> None:
    octets = line.offer().message
    assert refused(lambda: line.accept(octets, initiator_uri="sip:+493099@a.example")) is Failure.IDENTITY


def test_the_answer_to_another_offer_is_refused(line: Line) -> None:
    first, second = line.offer(), line.offer()
    assert refused(lambda: first.confirm(line.accept(second.message).message)) is Failure.CSB_ID


def test_an_answer_of_another_party_is_refused(line: Line) -> None:
    offer = line.offer()
    answer = Message.parse(line.accept(offer.message).message)
    other = tuple(identity_of(CALLER) if isinstance(each, Identity) else each for each in answer.payloads)
    assert refused(lambda: offer.confirm(serialize(answer.header, other))) is Failure.IDENTITY


# The certificate that keys are encrypted to.


class TestRecipients:
    def claim(self, line: Line, certificate: bytes) -> Any:
        return PeerClaim("Responder", CALLEE, Message.parse(line.offer().message), read_profile(certificate))

    def test_it_is_what_the_ledger_vouches_for(self, line: Line) -> None:
        record = recorded(self.claim(line, line.callee.certificate))
        found = recipient_of(replace(record, der=line.callee.certificate), CALLEE, NOW_S)
        assert found == line.recipient

    def test_its_number_may_have_been_dialled_at_another_domain(self, line: Line) -> None:
        record = recorded(self.claim(line, line.callee.certificate))
        found = recipient_of(replace(record, der=line.callee.certificate), "sip:+442079460123@a.example", NOW_S)
        assert found.uri == CALLEE

    @pytest.mark.parametrize("status", [CertStatus.REVOKED, CertStatus.SUSPENDED, CertStatus.UNKNOWN])
    def test_one_without_good_standing_is_refused(self, line: Line, status: CertStatus) -> None:
        record = replace(recorded(self.claim(line, line.callee.certificate), status), der=line.callee.certificate)
        assert refused(lambda: recipient_of(record, CALLEE, NOW_S)) is Failure.LEDGER

    def test_one_that_was_not_given_is_refused(self, line: Line) -> None:
        record = replace(recorded(self.claim(line, line.callee.certificate)), der=None)
        assert refused(lambda: recipient_of(record, CALLEE, NOW_S)) is Failure.LEDGER

    def test_one_of_somebody_else_is_refused(self, line: Line) -> None:
        record = replace(recorded(self.claim(line, line.caller.certificate)), der=line.caller.certificate)
        assert refused(lambda: recipient_of(record, CALLEE, NOW_S)) is Failure.IDENTITY

    def test_one_of_an_operator_without_the_number_is_refused(self, line: Line) -> None:
        record = recorded(self.claim(line, line.callee.certificate), ranges=())
        assert (
            refused(lambda: recipient_of(replace(record, der=line.callee.certificate), CALLEE, NOW_S))
            is Failure.LEDGER
        )

    def test_one_that_is_only_for_signatures_is_refused(self, line: Line) -> None:
        assert isinstance(line.callee.signer, LocalSigner)
        der = with_usage(line.callee.certificate, line.callee.signer, "digital_signature")
        record = replace(recorded(self.claim(line, der)), der=der)
        with pytest.raises(MikeyError, match="does not admit encryption of keys"):
            recipient_of(record, CALLEE, NOW_S)


def test_our_certificate_must_be_for_the_key_that_decrypts(line: Line) -> None:
    assert isinstance(line.caller.signer, LocalSigner)
    with pytest.raises(LocalError, match="the key that decrypts"):
        PkeResponder(line.callee, LocalDecrypter.of(line.caller.signer), ReplayCache(started_s=0))
    with pytest.raises(LocalError, match="only an RSA key"):
        LocalDecrypter.of(generate_es256())
