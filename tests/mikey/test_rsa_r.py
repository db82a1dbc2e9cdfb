"""RSA-R: an exchange, octets by the text of RFC 4738, who may answer, and everything that is refused."""

import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_der_x509_certificate

from tests.certificates import with_usage
from tests.mikey.conftest import CALLEE, CALLER, NOW_S, CountingRandom, certificate_for, recorded, secrets_of
from tests.mikey.test_pke import SUITES, prf_of, private_of, put, refused
from voice_dpki.errors import LocalError
from voice_dpki.mikey.bundle import Bundle
from voice_dpki.mikey.certified import KeyingAnswer, Party
from voice_dpki.mikey.envelope import seal
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Message, serialize
from voice_dpki.mikey.payloads import (
    Certificate,
    EnvelopeKey,
    GeneralExtension,
    Identity,
    Kemac,
    Payload,
    Rand,
    SecurityPolicy,
    Signature,
    Timestamp,
)
from voice_dpki.mikey.policy import SrtpProfile, policy_for
from voice_dpki.mikey.registry import CertType, ExtensionType, Prf
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.rsa_r import ReverseInitiator, ReverseOffer, ReverseResponder
from voice_dpki.mikey.steps import AnyClaim, NamedClaim, PeerClaim, identity_of
from voice_dpki.mikey.transport import MessageKeys
from voice_dpki.x509.encipherment import LocalDecrypter
from voice_dpki.x509.keys import LocalSigner
from voice_dpki.x509.profile import digest_of, read_profile
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate

PROFILE = SrtpProfile.AES_CM_128_HMAC_SHA1_80
OTHER = "sip:+442079460124@b.example"


class Line:
    """A caller, and a callee that encrypts to it."""

    def __init__(self, caller: Party, callee: Party) -> None:
        self.random = CountingRandom("rsa-r")
        self.caller, self.callee = caller, callee
        assert isinstance(caller.signer, LocalSigner)
        self.initiator = ReverseInitiator(caller, LocalDecrypter.of(caller.signer))
        self.responder = ReverseResponder(callee, ReplayCache(started_s=0))

    def offer(self, **changes: Any) -> ReverseOffer:
        options: dict[str, Any] = {"responder_uri": CALLEE, "profile": PROFILE, "now_s": NOW_S, **changes}
        return self.initiator.offer(random=self.random, **options)

    def accept(
        self, octets: bytes, status: CertStatus = CertStatus.VALID, initiator_uri: str = CALLER
    ) -> KeyingAnswer:
        claim = self.presented(
            self.responder.receive(
                octets, initiator_uri=initiator_uri, key_mgmt_ids=("mikey",), now_s=NOW_S, steady_s=NOW_S
            )
        )
        prepared = self.responder.prepare(claim, random=self.random)
        return self.responder.complete(prepared, recorded(claim, status), now_s=NOW_S, steady_s=NOW_S)

    def confirm(self, offer: ReverseOffer, octets: bytes, status: CertStatus = CertStatus.VALID) -> SrtpKeys:
        claim = self.presented(offer.receive(octets, now_s=NOW_S))
        return offer.complete(offer.prepare(claim), recorded(claim, status), now_s=NOW_S)

    def bundle(self, offer: ReverseOffer, octets: bytes) -> Bundle | None:
        """What the caller keeps of the exchange for updates."""
        claim = self.presented(offer.receive(octets, now_s=NOW_S))
        return offer.prepare(claim).release_bundle(recorded(claim), NOW_S)

    def presented(self, claim: AnyClaim) -> PeerClaim:
        """The claim, with the certificate that a ledger of the two parties gives."""
        if isinstance(claim, PeerClaim):
            return claim
        known = {digest_of(party.certificate): party.certificate for party in (self.caller, self.callee)}
        return claim.present(of_ledger(claim, known.get(claim.digest)), NOW_S)

    def resigned(self, offer: ReverseOffer, change: Callable[[list[Payload]], Any], **header: Any) -> bytes:
        """The offer after a change, signed by the caller."""
        payloads = list(offer.sent.payloads[:-1])
        change(payloads)
        unsigned = serialize(replace(offer.sent.header, **header), (*payloads, Signature(1, bytes(256))))[:-256]
        return unsigned + self.caller.signer.sign(unsigned)

    def answered(self, octets: bytes, change: Callable[[list[Payload]], Any]) -> bytes:
        """The answer after a change, signed by the callee."""
        message = Message.parse(octets)
        payloads = list(message.payloads[:-1])
        change(payloads)
        unsigned = serialize(message.header, (*payloads, Signature(1, bytes(256))))[:-256]
        idr = next((each.data for each in payloads if isinstance(each, Identity)), b"")
        more = CALLER.encode() + idr + message.one(Timestamp).value
        return unsigned + self.callee.signer.sign(unsigned[:-2] + more)


def of_ledger(claim: NamedClaim, der: bytes | None) -> RecordedCertificate:
    if der is None:
        return RecordedCertificate(digest=claim.digest, status=CertStatus.UNKNOWN)
    said = recorded(PeerClaim(claim.role, claim.uri, claim.message, read_profile(der)))
    return replace(said, digest=claim.digest, der=der)


@pytest.fixture
def line(parties: tuple[Party, Party]) -> Line:
    return Line(*parties)


@pytest.mark.parametrize("profile", SrtpProfile)
@pytest.mark.parametrize("prf", Prf)
def test_both_sides_hold_the_same_keys(line: Line, prf: Prf, profile: SrtpProfile) -> None:
    offer = line.offer(prf=prf, profile=profile)
    answer = line.accept(offer.message)
    keys = line.confirm(offer, answer.message)
    assert secrets_of(answer.keys) == secrets_of(SrtpKeys(profile, keys.receive, keys.send))
    assert len({keys.send.tek, keys.receive.tek, keys.send.ssrc, keys.receive.ssrc}) == 4


@pytest.mark.parametrize("prf", Prf)
def test_our_messages_are_those_of_the_text(line: Line, prf: Prf) -> None:
    """RFC 4738 §3.4, §3.6 and RFC 3830 §4.1.4, §4.2.3, §6.2, §6.3, down to the octet."""
    name, encr_bytes, mac_bytes, scheme = SUITES[prf]
    offer = line.offer(prf=prf)
    pss = padding.PSS(padding.MGF1(SHA256()), 32)
    caller: Any = load_der_x509_certificate(line.caller.certificate).public_key()
    caller.verify(offer.message[-256:], offer.message[:-256], pss, SHA256())
    assert offer.message[:4] == bytes([1, 9, 5, 0x80 | prf])
    octets = line.accept(offer.message).message
    answer = Message.parse(octets)
    assert octets[:4] == bytes([1, 10, 5, prf])
    csb, rand, time = octets[4:8], offer.sent.one(Rand).rand, offer.sent.one(Timestamp).value
    envelope = answer.one(EnvelopeKey)
    secret = private_of(line.caller).decrypt(envelope.data, scheme)

    def derived(constant: str, size: int) -> bytes:
        return prf_of(name, secret, bytes.fromhex(constant) + b"\xff" + csb + rand, size)

    salt, sealed = derived("29B88916", 14), answer.one(Kemac).encr_data
    vector = bytes(a ^ b for a, b in zip(salt, bytes(2) + csb + time, strict=True)) + bytes(2)
    key = derived("150533E1", encr_bytes)
    clear = Cipher(algorithms.AES(key), modes.CTR(vector)).decryptor().update(sealed)
    uri = CALLEE.encode()
    head = bytes([20, 1]) + len(uri).to_bytes(2, "big") + uri + bytes([0, 0, 0, 32])
    assert clear[:-32] == head
    kemac = bytes([0, 1 if prf is Prf.MIKEY_1 else 3]) + len(sealed).to_bytes(2, "big") + sealed
    kemac += bytes([1 if prf is Prf.MIKEY_1 else 2])
    kemac += hmac.digest(derived("2D22AC75", mac_bytes), kemac, name)
    pke = bytes([4]) + (2 << 14 | 256).to_bytes(2, "big") + envelope.data
    body = bytes([2]) + kemac[1:] + pke
    assert octets[:-258].endswith(body)
    callee: Any = load_der_x509_certificate(line.callee.certificate).public_key()
    covered = octets[:-258] + CALLER.encode() + uri + time
    callee.verify(octets[-256:], covered, pss, SHA256())
    agreed = line.confirm(offer, octets)
    for cs_id, stream in ((1, agreed.send), (2, agreed.receive)):
        label = bytes([cs_id]) + csb + rand
        assert stream.tek == prf_of(name, clear[-32:], bytes.fromhex("2AD01C64") + label, 16)


def test_every_truncation_is_refused(line: Line) -> None:
    offer = line.offer()
    for end in range(len(offer.message)):
        with pytest.raises(MikeyError):
            line.accept(offer.message[:end])
    answer = line.accept(offer.message).message
    for end in range(len(answer)):
        with pytest.raises(MikeyError):
            line.confirm(offer, answer[:end])


# RAND: exactly one side sends it.


def test_a_caller_without_rand_has_that_of_the_callee(line: Line) -> None:
    offer = line.offer()

    def without(payloads: list[Payload]) -> None:
        payloads[:] = [each for each in payloads if not isinstance(each, Rand)]

    octets = line.resigned(offer, without)
    answer = line.accept(octets)
    bare = replace(offer, message=octets, sent=Message.parse(octets))
    keys = line.confirm(bare, answer.message)
    assert secrets_of(answer.keys) == secrets_of(SrtpKeys(PROFILE, keys.receive, keys.send))
    assert len(Message.parse(answer.message).one(Rand).rand) == 16
    assert refused(lambda: line.confirm(bare, line.answered(answer.message, without))) is Failure.RAND


def test_a_rand_of_both_is_refused(line: Line) -> None:
    offer = line.offer()
    answer = line.accept(offer.message).message
    both = line.answered(answer, lambda payloads: payloads.append(Rand(bytes(16))))
    assert refused(lambda: line.confirm(offer, both)) is Failure.RAND


# Who answers.


def other_party(line: Line) -> Party:
    return Party(OTHER, certificate_for(line.callee.signer, OTHER), line.callee.signer)  # type: ignore[arg-type]


def test_somebody_else_may_answer_a_call_that_may_be_retargeted(line: Line) -> None:
    """And the claim says who, for whom the ledger must vouch as for anybody."""
    offer = line.offer(retargetable=True)
    assert offer.sent.all(Identity) == (identity_of(CALLER),)
    line.responder = ReverseResponder(other_party(line), ReplayCache(started_s=0))
    answer = line.accept(offer.message).message
    claim = offer.receive(answer, now_s=NOW_S)
    assert isinstance(claim, PeerClaim)
    assert claim.uri == OTHER
    prepared = offer.prepare(claim)
    assert isinstance(offer.complete(prepared, recorded(claim), now_s=NOW_S), SrtpKeys)
    for record in (recorded(claim, CertStatus.REVOKED), recorded(claim, ranges=()), recorded(claim, domains=())):
        with pytest.raises(MikeyError) as caught:
            offer.complete(prepared, record, now_s=NOW_S)
        assert caught.value.failure is Failure.LEDGER


def test_nobody_else_may_answer_a_call_to_one_party(line: Line) -> None:
    offer = line.offer()
    line.responder = ReverseResponder(other_party(line), ReplayCache(started_s=0))
    assert refused(lambda: line.accept(offer.message)) is Failure.IDENTITY
    line.callee = other_party(line)
    line.responder = ReverseResponder(line.callee, ReplayCache(started_s=0))
    open_ = line.offer(retargetable=True)
    answer = line.accept(open_.message).message
    asked = replace(open_, responder_uri=CALLEE)
    assert refused(lambda: line.confirm(asked, answer)) is Failure.IDENTITY


def test_certificates_by_url_are_asked_of_the_ledger_alone(line: Line) -> None:
    caller, callee = (
        replace(party, certificate_url=f"https://certs.{host}/{digest_of(party.certificate).hex()}")
        for party, host in ((line.caller, "a.example"), (line.callee, "b.example"))
    )
    named = Line(caller, callee)
    offer = named.offer()
    assert offer.sent.one(Certificate).cert_type == CertType.X509V3_URL
    assert len(offer.message) < len(line.offer().message) - 500
    answer = named.accept(offer.message)
    assert Message.parse(answer.message).one(Certificate).cert_type == CertType.X509V3_URL
    assert secrets_of(named.confirm(offer, answer.message))[1:] == secrets_of(answer.keys)[:0:-1]


@pytest.mark.parametrize(
    "url", [b"", b"http://x/", b"ftp://a.example/" + b"0" * 64, b"\xff", b"https://a/" + b"0" * 63]
)
def test_a_url_that_names_no_certificate_is_refused(line: Line, url: bytes) -> None:
    octets = line.resigned(line.offer(), put(Certificate(CertType.X509V3_URL, url)))
    assert refused(lambda: line.accept(octets)) is Failure.CERTIFICATE


def test_a_certificate_that_the_ledger_does_not_have_is_refused(line: Line) -> None:
    url = b"https://certs.a.example/" + b"0" * 64
    octets = line.resigned(line.offer(), put(Certificate(CertType.X509V3_URL, url)))
    with pytest.raises(MikeyError, match="step ledger: the Initiator's certificate is not recorded"):
        line.accept(octets)


def test_a_named_certificate_is_judged_like_one_that_was_sent(line: Line) -> None:
    url = f"https://certs.b.example/{digest_of(line.callee.certificate).hex()}".encode()
    octets = line.resigned(line.offer(), put(Certificate(CertType.X509V3_URL, url)))
    with pytest.raises(MikeyError, match="does not name its ID"):
        line.accept(octets)


def test_the_answer_about_another_certificate_is_our_own_fault(line: Line) -> None:
    claim = NamedClaim("Initiator", CALLER, line.offer().sent, digest_of(line.caller.certificate))
    record = of_ledger(replace(claim, digest=digest_of(b"")), line.callee.certificate)
    with pytest.raises(LocalError):
        claim.present(record, NOW_S)
    with pytest.raises(MikeyError, match="the ledger does not give"):
        claim.present(replace(record, digest=claim.digest), NOW_S)


def test_the_url_of_our_own_certificate_must_name_it(line: Line) -> None:
    with pytest.raises(LocalError, match="names another certificate"):
        replace(line.caller, certificate_url="https://certs.a.example/" + "0" * 64)
    with pytest.raises(LocalError, match="the URL of our own certificate"):
        replace(line.caller, certificate_url="https://certs.a.example/")


# What is refused.


def test_a_caller_whose_certificate_is_only_for_signatures_is_refused(line: Line) -> None:
    assert isinstance(line.caller.signer, LocalSigner)
    der = with_usage(line.caller.certificate, line.caller.signer, "digital_signature")
    offer = line.resigned(line.offer(), put(Certificate(CertType.X509V3_SIGN, der)))
    with pytest.raises(MikeyError, match="does not admit encryption of keys") as caught:
        line.accept(offer)
    assert caught.value.failure is Failure.LEDGER


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (put(policy_for(SrtpProfile.AEAD_AES_128_GCM)), Failure.POLICY),
        (lambda payloads: payloads.append(policy_for(PROFILE, 1)), Failure.PAYLOAD),
        (put(Timestamp(0, bytes(8))), Failure.TIMESTAMP_ECHO),
        (put(identity_of(CALLER)), Failure.IDENTITY),
        (put(EnvelopeKey(2, bytes(256))), Failure.MAC),
        (put(EnvelopeKey(3, bytes(256))), Failure.PAYLOAD),
        (lambda payloads: payloads.append(GeneralExtension(ExtensionType.CSB_ID, bytes(4))), Failure.CSB_ID),
    ],
)
def test_other_answers_are_refused(line: Line, change: Callable[..., Any], failure: Failure) -> None:
    offer = line.offer()
    octets = line.answered(line.accept(offer.message).message, change)
    assert refused(lambda: line.confirm(offer, octets)) is failure


def test_the_encrypted_identity_must_be_that_of_the_callee(line: Line) -> None:
    offer = line.offer()
    octets = line.accept(offer.message).message
    answer = Message.parse(octets)
    secret = private_of(line.caller).decrypt(answer.one(EnvelopeKey).data, SUITES[Prf.HMAC_SHA_256][3])
    keys = MessageKeys(secret, Prf.HMAC_SHA_256, offer.csb_id, offer.sent.one(Rand).rand)
    kemac = seal(keys, identity_of(OTHER), bytes(32), offer.sent.one(Timestamp))
    assert refused(lambda: line.confirm(offer, line.answered(octets, put(kemac)))) is Failure.IDENTITY


def test_a_signature_over_the_message_alone_is_refused(line: Line) -> None:
    """§3.6: SIGNr covers IDi, IDr and T besides."""
    offer = line.offer()
    octets = line.accept(offer.message).message
    for signed in (octets[:-256], octets[:-258]):
        forged = octets[:-256] + line.callee.signer.sign(signed)
        assert refused(lambda forged=forged: line.confirm(offer, forged)) is Failure.SIGNATURE  # type: ignore[misc]


def test_an_offer_with_v_unset_is_refused(line: Line) -> None:
    octets = line.resigned(line.offer(), lambda payloads: None, respond=False)
    assert refused(lambda: line.accept(octets)) is Failure.PAYLOAD


def test_a_replay_is_refused(line: Line) -> None:
    octets = line.offer().message
    line.accept(octets)
    assert refused(lambda: line.accept(octets)) is Failure.REPLAY


def test_only_what_verified_is_remembered(line: Line) -> None:
    octets = line.offer().message
    assert refused(lambda: line.accept(octets, status=CertStatus.REVOKED)) is Failure.LEDGER
    line.accept(octets)


def test_the_policy_of_the_offer_is_sent_back(line: Line) -> None:
    offer = line.offer(profile=SrtpProfile.AEAD_AES_128_GCM)
    answer = Message.parse(line.accept(offer.message).message)
    assert answer.one(SecurityPolicy) == offer.sent.one(SecurityPolicy)
