"""The modern mode: an exchange gives both sides the same keys, and everything else is refused with its own code."""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.mikey.conftest import CALLEE, CALLER, NOW_S, Call, certificate_for, secrets_of
from tests.mikey.modern_calls import HELD, ModernCall, party, resign, vouched
from tests.mikey.test_modes import head, put, sessions
from tests.mikey.test_mutation import flips, refused_by
from voice_dpki.codec.ntp import ntp_time
from voice_dpki.errors import LocalError
from voice_dpki.mikey.agreement import Strength
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.mark import MARK
from voice_dpki.mikey.message import Message, SrtpId
from voice_dpki.mikey.modern import ModernParty, is_modern
from voice_dpki.mikey.payloads import (
    Certificate,
    CertificateHash,
    DhValue,
    Error,
    GeneralExtension,
    Identity,
    KeyValidity,
    Rand,
    SecurityPolicy,
    Timestamp,
)
from voice_dpki.mikey.policy import SrtpProfile, policy_for, profile_of, short_policy_for
from voice_dpki.mikey.registry import ErrorNumber
from voice_dpki.mikey.replay import timestamp_at
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import CertStatus

SIGNERS = generate_es256(), generate_es256()
OFFER, ANSWER = b"voice-dpki/mikey-offer/v1\0", b"voice-dpki/mikey-answer/v1\0"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The n of SEC 2 §2.4.2."""
BOTH = pytest.mark.parametrize("strength", Strength)


@pytest.fixture(scope="module")
def modern_parties() -> tuple[ModernParty, ModernParty]:
    caller, callee = SIGNERS
    return party(caller, CALLER), party(callee, CALLEE)


@pytest.fixture
def new_modern(modern_parties: tuple[ModernParty, ModernParty]) -> Callable[..., ModernCall]:
    return partial(ModernCall, *modern_parties)


@pytest.fixture
def modern(new_modern: Callable[..., ModernCall]) -> ModernCall:
    return new_modern()


def again(octets: bytes, change: Callable[..., Any], signer: LocalSigner = SIGNERS[0]) -> bytes:
    """An offer, changed and signed again."""
    return resign(octets, signer, OFFER, change)


def answered_again(offer: bytes, octets: bytes, change: Callable[..., Any]) -> bytes:
    """An answer, changed and signed again by the callee."""
    return resign(octets, SIGNERS[1], ANSWER + hashlib.sha256(offer).digest(), change)


def signed_otherwise(octets: bytes) -> bytes:
    """The message with (r, n - s) for its signature (r, s), which anyone can make and which verifies as well."""
    return octets[:-32] + (P256_ORDER - int.from_bytes(octets[-32:], "big")).to_bytes(32, "big")


class TestExchange:
    @BOTH
    @pytest.mark.parametrize("profile", SrtpProfile)
    def test_both_sides_hold_the_same_keys(self, new_modern: Any, strength: Strength, profile: SrtpProfile) -> None:
        call = new_modern(strength=strength, profile=profile)
        offer = call.offer()
        answer = call.accept(offer.message)
        keys = call.read_answer(offer, answer.message)
        assert secrets_of(answer.keys) == secrets_of(SrtpKeys(profile, keys.receive, keys.send))
        assert 0 != keys.send.ssrc != keys.receive.ssrc != 0
        assert len({keys.send.tek, keys.receive.tek, keys.send.salt, keys.receive.salt}) == 4
        assert {len(keys.send.tek), len(keys.receive.tek)} == {profile.key_bytes}

    @pytest.mark.parametrize("profile", SrtpProfile)
    def test_the_small_form_is_small(self, new_modern: Any, profile: SrtpProfile) -> None:
        """An INVITE with it, and with a telephone's other lines, must fit a datagram of 1300 bytes."""
        call = new_modern(profile=profile)
        offer = call.offer().message
        assert len(base64.b64encode(offer)) <= 400
        assert len(base64.b64encode(call.accept(offer).message)) <= 300

    def test_two_calls_share_neither_keys_nor_bundle_nor_values(self, modern: ModernCall) -> None:
        first, second = modern.offer(), modern.offer()
        assert first.csb_id != second.csb_id
        for kind in (Timestamp, Rand, DhValue):
            assert first.sent.one(kind) != second.sent.one(kind)
        one = modern.read_answer(first, modern.accept(first.message).message)
        other = modern.read_answer(second, modern.accept(second.message).message)
        assert one.send.tek != other.send.tek

    def test_the_callee_may_answer_at_its_own_domain(self, modern: ModernCall) -> None:
        """A number that was dialled at one domain is routed to another."""
        callee = party(SIGNERS[1], "sip:+442079460123@a.example")
        call = ModernCall(modern.caller, callee)
        offer = call.offer()
        assert call.read_answer(offer, call.accept(offer.message).message)

    def test_an_unknown_general_extension_is_ignored(self, modern: ModernCall) -> None:
        octets = again(modern.offer().message, lambda h, p: p.append(GeneralExtension(0, b"another vendor")))
        assert modern.accept(octets).message

    def test_a_whole_policy_is_as_good_as_a_short_one(self, modern: ModernCall) -> None:
        for profile in SrtpProfile:
            octets = again(modern.offer().message, put(SecurityPolicy, policy_for(profile)))
            assert modern.accept(octets).keys.profile is profile
            assert profile_of(short_policy_for(profile)) is profile

    def test_ended_bundles_are_forgotten(self, modern: ModernCall) -> None:
        offer = modern.offer()
        modern.initiator.close(offer.csb_id)
        assert not modern.initiator._bundles._open


OFFERS: list[tuple[str, Callable[..., Any], Failure]] = [
    ("an answer sent as an offer", head(data_type=5), Failure.DATA_TYPE),
    ("SHA-1 for the keys", head(prf=0), Failure.PRF),
    ("an unknown PRF", head(prf=77), Failure.PRF),
    ("one crypto session", head(sessions=(SrtpId(0, 1),)), Failure.CRYPTO_SESSIONS),
    ("an SSRC chosen for the Responder", head(sessions=(SrtpId(0, 1), SrtpId(0, 2))), Failure.CRYPTO_SESSIONS),
    ("a policy that is not there", head(sessions=(SrtpId(3, 1), SrtpId(3, 0))), Failure.POLICY),
    ("no timestamp", put(Timestamp), Failure.PAYLOAD),
    ("no RAND", put(Rand), Failure.PAYLOAD),
    ("a RAND of 15 bytes", put(Rand, Rand(bytes(15))), Failure.RAND),
    ("no certificate", put(CertificateHash), Failure.PAYLOAD),
    ("a certificate in whole", put(CertificateHash, Certificate(2, b"0")), Failure.PAYLOAD),
    ("a certificate by SHA-1", put(CertificateHash, CertificateHash(0, bytes(20))), Failure.HASH),
    ("no policy", put(SecurityPolicy), Failure.PAYLOAD),
    ("no encryption", put(SecurityPolicy, SecurityPolicy(0, 0, ((7, b"\x00"),))), Failure.POLICY),
    ("one identity", put(Identity, Identity(1, CALLER.encode())), Failure.PAYLOAD),
    (
        "another Initiator",
        put(Identity, Identity(1, b"sip:+493023125002@a.example"), Identity(1, CALLEE.encode())),
        Failure.IDENTITY,
    ),
    (
        "another Responder",
        put(Identity, Identity(1, CALLER.encode()), Identity(1, b"sip:+442079460124@b.example")),
        Failure.IDENTITY,
    ),
    ("no public value", put(DhValue), Failure.PAYLOAD),
    ("the standard's group", put(DhValue, DhValue(0, bytes(192))), Failure.STRENGTH),
    ("an answer's group", put(DhValue, DhValue(243, bytes(1120))), Failure.STRENGTH),
    ("a value of small order", put(DhValue, DhValue(241, bytes(32))), Failure.DH_VALUE),
    ("another of small order", put(DhValue, DhValue(241, b"\1" + bytes(31))), Failure.DH_VALUE),
    ("a hybrid value of small order", put(DhValue, DhValue(242, bytes(1216))), Failure.DH_VALUE),
    ("no key of ML-KEM", put(DhValue, DhValue(242, b"\xff" * 1184 + b"\x09" + bytes(31))), Failure.DH_VALUE),
    ("a validity of the value", put(DhValue, DhValue(241, b"\5" * 32, KeyValidity(b"1"))), Failure.PAYLOAD),
    ("no mark", put(GeneralExtension, GeneralExtension(1, b"mikey")), Failure.PAYLOAD),
    (
        "another vendor's mark",
        put(GeneralExtension, GeneralExtension(0, b"mykey"), GeneralExtension(1, b"mikey")),
        Failure.VERSION,
    ),
    (
        "another version",
        put(GeneralExtension, replace(MARK, data=b"vDPKI\x02"), GeneralExtension(1, b"mikey")),
        Failure.VERSION,
    ),
    (
        "two versions",
        lambda h, p: p.append(replace(MARK, data=b"vDPKI\x02")),
        Failure.VERSION,
    ),
    (
        "other protocols than the SDP's",
        put(GeneralExtension, MARK, GeneralExtension(1, b"a;mikey")),
        Failure.SDP_IDS,
    ),
    ("a stale timestamp", put(Timestamp, timestamp_at(ntp_time(NOW_S - 61))), Failure.TIMESTAMP),
    ("a timestamp ahead", put(Timestamp, timestamp_at(ntp_time(NOW_S + 61))), Failure.TIMESTAMP),
    ("an older one than our memory", put(Timestamp, timestamp_at(ntp_time(NOW_S - 11))), Failure.REPLAY),
    ("a counter", put(Timestamp, Timestamp(2, bytes(4))), Failure.TIMESTAMP_TYPE),
]


@pytest.mark.parametrize(("change", "failure"), [row[1:] for row in OFFERS], ids=[row[0] for row in OFFERS])
def test_an_offer_is_refused(modern: ModernCall, change: Callable[..., Any], failure: Failure) -> None:
    octets = again(modern.offer().message, change)
    with pytest.raises(MikeyError) as caught:
        modern.accept(octets)
    assert caught.value.failure is failure
    assert not modern.responder._replays._entries, "what is refused is not remembered"
    told = modern.responder.error_message(octets, caught.value)
    if told is not None:
        assert Message.parse(told).one(Error).number == caught.value.number


ANSWERS: list[tuple[str, Callable[..., Any], Failure]] = [
    ("an offer sent as an answer", head(data_type=4), Failure.DATA_TYPE),
    ("another PRF", head(prf=0), Failure.PRF),
    ("another bundle", head(csb_id=1), Failure.CSB_ID),
    ("no SSRC", sessions(lambda first, second: (first, SrtpId(0, 0))), Failure.CRYPTO_SESSIONS),
    ("our own SSRC", sessions(lambda first, second: (first, first)), Failure.CRYPTO_SESSIONS),
    ("another timestamp", put(Timestamp, timestamp_at(ntp_time(NOW_S + 1))), Failure.TIMESTAMP_ECHO),
    ("no public value", put(DhValue), Failure.PAYLOAD),
    ("the other group", put(DhValue, DhValue(243, bytes(1120))), Failure.DH_GROUP),
    ("an offer's group", put(DhValue, DhValue(242, bytes(1216))), Failure.DH_GROUP),
    ("the standard's group", put(DhValue, DhValue(0, bytes(192))), Failure.DH_GROUP),
    ("a value of small order", put(DhValue, DhValue(241, bytes(32))), Failure.DH_VALUE),
    ("a validity of the value", put(DhValue, DhValue(241, b"\5" * 32, KeyValidity(b"1"))), Failure.PAYLOAD),
    ("somebody else answering", put(Identity, Identity(1, b"sip:+442079460124@b.example")), Failure.IDENTITY),
    ("an ID that is no text", put(Identity, Identity(1, b"\xff")), Failure.IDENTITY),
    ("no mark", put(GeneralExtension), Failure.PAYLOAD),
    ("another version", put(GeneralExtension, replace(MARK, data=b"vDPKI\x02")), Failure.VERSION),
    ("a certificate by SHA-1", put(CertificateHash, CertificateHash(0, bytes(20))), Failure.HASH),
    ("a RAND of the Responder", lambda h, p: p.append(Rand(bytes(16))), Failure.PAYLOAD),
    ("the offer's signature context", lambda h, p: None, Failure.SIGNATURE),
]


@pytest.mark.parametrize(("change", "failure"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_an_answer_is_refused(modern: ModernCall, change: Callable[..., Any], failure: Failure) -> None:
    offer = modern.offer()
    octets = modern.accept(offer.message).message
    if failure is Failure.SIGNATURE:
        changed = resign(octets, SIGNERS[1], OFFER + hashlib.sha256(offer.message).digest(), change)
    else:
        changed = answered_again(offer.message, octets, change)
    with pytest.raises(MikeyError) as caught:
        modern.read_answer(offer, changed)
    assert caught.value.failure is failure


class TestSignatures:
    def test_another_key(self, modern: ModernCall) -> None:
        octets = again(modern.offer().message, lambda h, p: None, SIGNERS[1])
        with pytest.raises(MikeyError, match="step SIGN: the signature of the Initiator's message does not verify"):
            modern.accept(octets)

    def test_a_signature_without_our_context(self, modern: ModernCall) -> None:
        """What the key signs for another purpose is no offer."""
        octets = resign(modern.offer().message, SIGNERS[0], b"", lambda h, p: None)
        with pytest.raises(MikeyError, match="step SIGN"):
            modern.accept(octets)

    def test_an_answer_to_another_offer(self, modern: ModernCall) -> None:
        """All that the answer repeats is the same in both offers; the hash tells them apart."""
        offer = modern.offer()
        other = again(offer.message, put(DhValue, DhValue(241, b"\x09" + bytes(31))))
        answer = modern.accept(other)
        with pytest.raises(MikeyError, match="step SIGN: the signature of the Responder's message does not verify"):
            modern.read_answer(offer, answer.message)

    @pytest.mark.parametrize("s_type", [0, 1, 2, 14])
    def test_another_signature_type(self, modern: ModernCall, s_type: int) -> None:
        octets = bytearray(modern.offer().message)
        octets[-66] = octets[-66] & 0x0F | s_type << 4
        with pytest.raises(MikeyError) as caught:
            modern.accept(bytes(octets))
        assert caught.value.failure is Failure.SIGNATURE_TYPE

    def test_a_signature_in_der(self, modern: ModernCall) -> None:
        octets = modern.offer().message
        der = b"\x30" * 70
        with pytest.raises(MikeyError, match="step SIGN"):
            modern.accept(octets[:-66] + bytes([0xF0, len(der)]) + der)


class TestCertificates:
    @pytest.mark.parametrize(
        "status", [s for s in CertStatus if s not in (CertStatus.VALID, CertStatus.NOT_YET_VALID)]
    )
    def test_one_that_the_ledger_does_not_vouch_for(self, modern: ModernCall, status: CertStatus) -> None:
        with pytest.raises(MikeyError, match=r"step ledger: .* at height 9") as caught:
            modern.accept(modern.offer().message, vouched(modern.caller, status=status))
        assert caught.value.number is ErrorNumber.INVALID_CERT

    def test_one_that_the_ledger_does_not_give(self, modern: ModernCall) -> None:
        with pytest.raises(MikeyError, match="did not give the certificate"):
            modern.accept(modern.offer().message, vouched(modern.caller, der=None))

    def test_another_than_the_ledger_was_asked_about(self, modern: ModernCall) -> None:
        with pytest.raises(MikeyError, match=r"step CERT: .* is another than the ledger was asked about"):
            modern.accept(modern.offer().message, vouched(modern.callee))

    def test_a_key_of_another_kind(self, modern: ModernCall, signers: Any) -> None:
        certificate = certificate_for(signers[0], CALLER)
        octets = again(modern.offer().message, put(CertificateHash, CertificateHash(2, digest_of(certificate))))
        said = replace(vouched(modern.caller), digest=digest_of(certificate), der=certificate)
        with pytest.raises(MikeyError, match="key is not ECDSA on P-256"):
            modern.accept(octets, said)

    def test_a_certificate_of_somebody_else(self, modern: ModernCall) -> None:
        other = party(SIGNERS[0], "sip:+493023125099@a.example")
        octets = again(
            modern.offer().message, put(CertificateHash, CertificateHash(2, digest_of(other.certificate)))
        )
        with pytest.raises(MikeyError, match="step ID: the Initiator's certificate does not name") as caught:
            modern.accept(octets, vouched(other))
        assert caught.value.failure is Failure.IDENTITY

    @pytest.mark.parametrize("held", [replace(HELD, domains=()), replace(HELD, ranges=())])
    def test_a_number_or_domain_that_has_moved_to_another_operator(self, modern: ModernCall, held: Any) -> None:
        with pytest.raises(MikeyError, match="step ledger"):
            modern.accept(modern.offer().message, vouched(modern.caller, allotment=held))

    def test_a_callee_that_the_ledger_does_not_vouch_for(self, modern: ModernCall) -> None:
        offer = modern.offer()
        octets = modern.accept(offer.message).message
        with pytest.raises(MikeyError, match="step ledger: the Responder's certificate was revoked"):
            modern.read_answer(offer, octets, vouched(modern.callee, status=CertStatus.REVOKED))


class TestReplays:
    def test_an_offer_is_answered_once(self, modern: ModernCall) -> None:
        octets = modern.offer().message
        assert modern.accept(octets).message
        with pytest.raises(MikeyError) as caught:
            modern.accept(octets)
        assert caught.value.failure is Failure.REPLAY

    def test_the_other_spelling_of_the_signature_does_not_make_a_new_offer(self, new_modern: Any) -> None:
        octets = new_modern().offer().message
        other = signed_otherwise(octets)
        for first, second in ((octets, other), (other, octets)):
            modern = new_modern()
            assert modern.accept(first).message
            with pytest.raises(MikeyError) as caught:
                modern.accept(second)
            assert caught.value.failure is Failure.REPLAY

    def test_what_is_remembered_is_what_was_checked(self, modern: ModernCall) -> None:
        """Two copies that arrive together are both new when they are checked, and one of them is accepted."""
        octets = modern.offer().message
        other = signed_otherwise(octets)
        claims = [modern.receive(each) for each in (octets, other)]
        given: dict[str, Any] = {"random": modern.random, "now_s": NOW_S, "steady_s": NOW_S}
        assert modern.responder.complete(claims[0], vouched(modern.caller), **given).message
        with pytest.raises(MikeyError) as caught:
            modern.responder.complete(claims[1], vouched(modern.caller), **given)
        assert caught.value.failure is Failure.REPLAY

    def test_a_restart_does_not_accept_an_old_offer_anew(self, new_modern: Any) -> None:
        octets = new_modern().offer(NOW_S - 20).message
        with pytest.raises(MikeyError, match="older than this Responder's memory"):
            new_modern().accept(octets)

    def test_a_refused_offer_does_not_keep_out_the_good_one(self, modern: ModernCall) -> None:
        octets = modern.offer().message
        with pytest.raises(MikeyError):
            modern.accept(octets, vouched(modern.caller, status=CertStatus.SUSPENDED))
        assert modern.accept(octets).message


class TestStrength:
    def test_less_than_the_least_is_refused(self, new_modern: Any) -> None:
        call = new_modern(least=Strength.HYBRID)
        with pytest.raises(MikeyError, match="in X25519, and at least X25519MLKEM768 is accepted") as caught:
            call.accept(call.offer().message)
        assert (caught.value.failure, caught.value.number) == (Failure.STRENGTH, ErrorNumber.INVALID_DH)

    def test_more_than_the_least_is_accepted(self, new_modern: Any) -> None:
        assert new_modern(strength=Strength.HYBRID).accept(new_modern(strength=Strength.HYBRID).offer().message)

    def test_a_group_of_somebody_else(self, modern: ModernCall) -> None:
        """Group 255 is X25519 for the crate mykey, with other keys from it: its length is not known here."""
        octets = modern.offer().message
        at = octets.index(b"\x15\xf1")  # a General extension follows the value
        with pytest.raises(MikeyError) as caught:
            modern.accept(octets[: at + 1] + b"\xff" + octets[at + 2 :])
        assert caught.value.failure is Failure.DH_GROUP


class TestStandardPeers:
    """Who speaks RFC 3830 alone is told so by the standard's own errors, and tells us by them."""

    @BOTH
    def test_one_that_is_offered_the_mode_answers_an_error(
        self, new_modern: Any, call: Call, strength: Strength
    ) -> None:
        offer = new_modern(strength=strength).offer()
        assert is_modern(offer.message)
        with pytest.raises(MikeyError, match="not accepted, only OAKLEY 5") as caught:
            call.receive(offer.message)
        assert caught.value.number is ErrorNumber.INVALID_DH
        error = call.responder.error_message(offer.message, caught.value)
        assert error
        with pytest.raises(MikeyError, match="INVALID_DH") as told:
            offer.receive(error)
        assert told.value.failure is Failure.PEER_ERROR

    def test_its_own_offer_is_below_our_strength(self, modern: ModernCall, call: Call) -> None:
        octets = call.offer().message
        assert not is_modern(octets)
        with pytest.raises(MikeyError, match="OAKLEY_5 is weaker than X25519") as caught:
            modern.accept(octets)
        assert caught.value.number is ErrorNumber.INVALID_DH

    def test_its_answer_is_none_of_this_mode(self, modern: ModernCall, call: Call) -> None:
        offer = modern.offer()
        answer = call.accept(call.offer().message).message
        with pytest.raises(MikeyError):
            offer.receive(answer)


class TestOurselves:
    def test_an_rsa_key_cannot_sign(self, signers: Any) -> None:
        with pytest.raises(LocalError, match="ECDSA on P-256"):
            ModernParty(CALLER, certificate_for(signers[0], CALLER), signers[0])

    def test_secrets_are_not_shown(self, modern: ModernCall) -> None:
        offer = modern.offer()
        assert "X25519PrivateKey" not in repr(offer) + repr(offer._exchange)


@BOTH
def test_every_changed_byte_of_the_offer(new_modern: Any, strength: Strength) -> None:
    call = new_modern(strength=strength)
    octets = call.offer().message
    changed = flips(octets) if strength is Strength.MODERN else bytes_changed(octets)
    failures = Counter(refused_by(call.accept, each) for each in changed)
    assert failures.total() == len(changed)
    assert failures.keys() >= {Failure.SIGNATURE, Failure.IDENTITY, Failure.SDP_IDS, Failure.VERSION}


@BOTH
def test_every_changed_byte_of_the_answer(new_modern: Any, strength: Strength) -> None:
    call = new_modern(strength=strength)
    offer = call.offer()
    octets = call.accept(offer.message).message
    changed = flips(octets) if strength is Strength.MODERN else bytes_changed(octets)
    failures = Counter(refused_by(partial(call.read_answer, offer), each) for each in changed)
    assert failures.total() == len(changed)
    assert failures.keys() >= {Failure.SIGNATURE, Failure.IDENTITY, Failure.CRYPTO_SESSIONS, Failure.VERSION}


def bytes_changed(octets: bytes) -> list[bytes]:
    """The message with each of its bytes changed, one at a time."""
    return [octets[:at] + bytes([octets[at] ^ 0xA5]) + octets[at + 1 :] for at in range(len(octets))]


def test_every_truncation(modern: ModernCall) -> None:
    offer = modern.offer()
    answer = modern.accept(offer.message).message
    for octets, read in ((offer.message, modern.accept), (answer, offer.receive)):
        for end in range(len(octets)):
            with pytest.raises(MikeyError):
                read(octets[:end])
