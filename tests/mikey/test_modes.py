"""DH-SIGN: an exchange gives both sides the same keys, and everything else is refused with its own code."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.certificates import with_usage
from tests.clocks import STEPS_S
from tests.mikey.conftest import secrets_of
from tests.without import removals
from voice_dpki.codec.ntp import ntp_time
from voice_dpki.errors import LocalError
from voice_dpki.mikey import dh
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Header, Message, SrtpId, serialize
from voice_dpki.mikey.modes import Initiator, Responder
from voice_dpki.mikey.payloads import (
    Certificate,
    CertificateHash,
    DhValue,
    Error,
    GeneralExtension,
    Identity,
    Payload,
    Rand,
    SecurityPolicy,
    Signature,
    Timestamp,
)
from voice_dpki.mikey.policy import SrtpProfile, policy_for, profile_of
from voice_dpki.mikey.registry import ErrorNumber, Prf
from voice_dpki.mikey.replay import MAX_SKEW_S, SET_S, ReplayCache, timestamp_at, unix_time_s
from voice_dpki.names import Tn
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import read_profile
from voice_dpki.x509.recorded import CertStatus
from voice_dpki.x509.tnauthlist import TnRange

NOW_S = 1_790_000_000.0


def resign(octets: bytes, signer: LocalSigner, change: Callable[[Header, list[Payload]], Any]) -> bytes:
    """Change a message and sign it again: what a peer with a good key and bad manners would send."""
    message = Message.parse(octets)
    payloads = list(message.payloads[:-1])
    header = change(message.header, payloads) or message.header
    unsigned = serialize(header, (*payloads, Signature(1, bytes(256))))[:-256]
    return unsigned + signer.sign(unsigned)


def put(kind: type[Payload], *values: Payload) -> Callable[[Header, list[Payload]], None]:
    """Replace all payloads of a class by `values`, where the first of them stood."""

    def change(header: Header, payloads: list[Payload]) -> None:
        at = next((i for i, payload in enumerate(payloads) if isinstance(payload, kind)), len(payloads))
        payloads[:] = [payload for payload in payloads if not isinstance(payload, kind)]
        payloads[at:at] = values

    return change


def head(**fields: Any) -> Callable[[Header, list[Payload]], Header]:
    return lambda header, payloads: replace(header, **fields)


def sessions(of: Callable[..., tuple[Any, ...]]) -> Callable[[Header, list[Payload]], Header]:
    return lambda header, payloads: replace(header, sessions=of(*header.sessions))


class Scripted:
    """Draws the given words of 4 bytes, and always the same for everything else."""

    def __init__(self, words: list[int]) -> None:
        self.words = words

    def token(self, size: int) -> bytes:
        return self.words.pop(0).to_bytes(4, "big") if size == 4 else b"\x01" * size


class TestExchange:
    @pytest.mark.parametrize("profile", SrtpProfile)
    @pytest.mark.parametrize("prf", Prf)
    def test_both_sides_hold_the_same_keys(self, new_call: Any, profile: SrtpProfile, prf: Prf) -> None:
        call = new_call(profile=profile, prf=prf)
        offer = call.offer()
        answer = call.accept(offer.message)
        keys = call.read_answer(offer, answer.message)
        assert secrets_of(answer.keys) == secrets_of(SrtpKeys(profile, keys.receive, keys.send))
        assert 0 != keys.send.ssrc != keys.receive.ssrc != 0
        assert len({keys.send.tek, keys.receive.tek, keys.send.salt, keys.receive.salt}) == 4
        assert {len(keys.send.tek), len(keys.receive.tek)} == {profile.key_bytes}
        assert {len(keys.send.salt), len(keys.receive.salt)} == {profile.salt_bytes}

    def test_two_calls_share_neither_keys_nor_bundle_nor_timestamp(self, call: Any) -> None:
        first, second = call.offer(), call.offer()
        assert first.csb_id != second.csb_id
        assert first.sent.one(Timestamp) != second.sent.one(Timestamp)
        one = call.read_answer(first, call.accept(first.message).message)
        other = call.read_answer(second, call.accept(second.message).message)
        assert one.send.tek != other.send.tek

    def test_each_bundle_has_a_rand_of_its_own(self, call: Any) -> None:
        """RFC 3830 §6.11: generated for this bundle alone, by 128 bits or more."""
        rands = [call.offer().sent.one(Rand).rand for _ in range(3)]
        assert len(set(rands)) == 3
        assert {len(rand) for rand in rands} == {16}

    def test_a_bundle_id_is_free_again_when_its_call_has_ended(self, call: Any) -> None:
        taken = call.offer().csb_id
        call.random = Scripted([0, 7, taken, 8, 9, taken])
        offer = call.offer()
        assert (offer.sent.header.sessions[0].ssrc, offer.csb_id) == (7, 8)
        call.initiator.close(taken)
        assert call.offer().csb_id == taken

    def test_a_peer_of_the_next_era_of_ntp_is_understood(self) -> None:
        era_s = 2_085_978_496.0  # 2036-02-07: the 64 bits start again
        for now_s, sent_s in ((era_s - 5, era_s + 5), (era_s + 5, era_s - 5)):
            assert unix_time_s(timestamp_at(ntp_time(sent_s)), now_s) == pytest.approx(sent_s)

    @pytest.mark.parametrize("ahead_s", [-3600.25, -60.5, -0.25, 0.75, 61.5, 3600.25])
    def test_a_time_is_read_to_the_fraction_of_a_second(self, ahead_s: float) -> None:
        assert unix_time_s(timestamp_at(ntp_time(NOW_S + ahead_s)), NOW_S) == NOW_S + ahead_s

    def test_the_other_mandatory_timestamp_type_is_understood(self) -> None:
        assert unix_time_s(Timestamp(1, ntp_time(NOW_S).to_bytes(8, "big")), NOW_S) == NOW_S

    def test_an_unknown_general_extension_is_ignored(self, call: Any, signers: Any) -> None:
        octets = resign(call.offer().message, signers[0], lambda h, p: p.append(GeneralExtension(0, b"vendor")))
        assert call.accept(octets).message


OFFERS: list[tuple[str, Callable[..., Any], Failure]] = [
    ("an answer sent as an offer", head(data_type=5), Failure.DATA_TYPE),
    ("a pre-shared key message", head(data_type=0), Failure.DATA_TYPE),
    ("an unknown PRF", head(prf=77), Failure.PRF),
    ("one crypto session", head(sessions=(SrtpId(0, 1),)), Failure.CRYPTO_SESSIONS),
    ("no SSRC of the Initiator", head(sessions=(SrtpId(0, 0), SrtpId(0, 0))), Failure.CRYPTO_SESSIONS),
    ("an SSRC chosen for the Responder", head(sessions=(SrtpId(0, 1), SrtpId(0, 2))), Failure.CRYPTO_SESSIONS),
    ("packets counted already", head(sessions=(SrtpId(0, 1, 1), SrtpId(0, 0))), Failure.CRYPTO_SESSIONS),
    ("an empty map", head(sessions=(), map_type=1), Failure.CRYPTO_SESSIONS),
    ("a policy that is not there", head(sessions=(SrtpId(3, 1), SrtpId(3, 0))), Failure.POLICY),
    ("a policy that is not there for us", head(sessions=(SrtpId(0, 1), SrtpId(3, 0))), Failure.POLICY),
    ("a policy that is not there for them", head(sessions=(SrtpId(3, 1), SrtpId(0, 0))), Failure.POLICY),
    ("no timestamp", put(Timestamp), Failure.PAYLOAD),
    ("no RAND", put(Rand), Failure.PAYLOAD),
    ("no certificate", put(Certificate), Failure.PAYLOAD),
    ("no policy", put(SecurityPolicy), Failure.PAYLOAD),
    ("no identity", put(Identity), Failure.PAYLOAD),
    ("no SDP IDs", put(GeneralExtension), Failure.PAYLOAD),
    ("a vendor's extension in their place", put(GeneralExtension, GeneralExtension(0, b"")), Failure.SDP_IDS),
    ("a payload of another mode", lambda h, p: p.append(CertificateHash(0, bytes(20))), Failure.PAYLOAD),
    ("a stale timestamp", put(Timestamp, timestamp_at(ntp_time(NOW_S - 61))), Failure.TIMESTAMP),
    ("a timestamp ahead", put(Timestamp, timestamp_at(ntp_time(NOW_S + 61))), Failure.TIMESTAMP),
    ("a counter", put(Timestamp, Timestamp(2, bytes(4))), Failure.TIMESTAMP_TYPE),
    ("older than our memory", put(Timestamp, timestamp_at(ntp_time(NOW_S - 11))), Failure.REPLAY),
    ("protocols peeled off", put(GeneralExtension, GeneralExtension(1, b"mikey;keyp1")), Failure.SDP_IDS),
    ("a short RAND", put(Rand, Rand(bytes(15))), Failure.RAND),
    ("another group", put(DhValue, DhValue(2, bytes(128))), Failure.DH_GROUP),
    ("a public value of 1", put(DhValue, DhValue(0, (1).to_bytes(192, "big"))), Failure.DH_VALUE),
    ("a public value of 0", put(DhValue, DhValue(0, bytes(192))), Failure.DH_VALUE),
    ("a public value of p-1", put(DhValue, DhValue(0, (dh.PRIME - 1).to_bytes(192, "big"))), Failure.DH_VALUE),
    ("a public value above p", put(DhValue, DhValue(0, b"\xff" * 192)), Failure.DH_VALUE),
    ("a certificate URL", put(Certificate, Certificate(1, b"http://x/")), Failure.CERTIFICATE),
    ("a certificate for encryption", put(Certificate, Certificate(3, b"x")), Failure.CERTIFICATE),
    ("no certificate in CERT", put(Certificate, Certificate(0, b"junk")), Failure.CERTIFICATE),
    (
        "somebody else as the caller",
        put(Identity, Identity(1, b"sip:+1@a.example"), Identity(1, b"sip:+442079460123@b.example")),
        Failure.IDENTITY,
    ),
    (
        "an NAI where a URI is due",
        put(Identity, Identity(0, b"sip:+493023125001@a.example"), Identity(1, b"sip:+442079460123@b.example")),
        Failure.IDENTITY,
    ),
    (
        "another Responder",
        put(Identity, Identity(1, b"sip:+493023125001@a.example"), Identity(1, b"sip:+2@b.example")),
        Failure.IDENTITY,
    ),
    ("F8 for SRTP", put(SecurityPolicy, SecurityPolicy(0, 0, ((0, b"\x02"),))), Failure.POLICY),
    ("no encryption", put(SecurityPolicy, SecurityPolicy(0, 0, ((7, b"\x00"),))), Failure.POLICY),
    ("no authentication", put(SecurityPolicy, SecurityPolicy(0, 0, ((10, b"\x00"),))), Failure.POLICY),
    ("a shorter tag", put(SecurityPolicy, SecurityPolicy(0, 0, ((11, b"\x04"),))), Failure.POLICY),
    ("a parameter given twice", put(SecurityPolicy, SecurityPolicy(0, 0, ((0, b"\x01"),) * 2)), Failure.POLICY),
    ("an unknown parameter", put(SecurityPolicy, SecurityPolicy(0, 0, ((99, b"\x01"),))), Failure.POLICY),
    ("another security protocol", put(SecurityPolicy, SecurityPolicy(0, 1, ())), Failure.POLICY),
]


@pytest.mark.parametrize(("change", "failure"), [row[1:] for row in OFFERS], ids=[row[0] for row in OFFERS])
def test_an_offer_is_refused(call: Any, signers: Any, change: Callable[..., Any], failure: Failure) -> None:
    octets = resign(call.offer().message, signers[0], change)
    with pytest.raises(MikeyError) as caught:
        call.accept(octets)
    assert caught.value.failure is failure
    answer = call.responder.error_message(octets, caught.value)
    if answer is not None:
        assert Message.parse(answer).one(Error).number == caught.value.number


ANSWERS: list[tuple[str, Callable[..., Any], Failure]] = [
    ("an offer sent as an answer", head(data_type=4), Failure.DATA_TYPE),
    ("another PRF", head(prf=0), Failure.PRF),
    ("another bundle", head(csb_id=1), Failure.CSB_ID),
    ("no SSRC", sessions(lambda first, second: (first, SrtpId(0, 0))), Failure.CRYPTO_SESSIONS),
    ("our own SSRC", sessions(lambda first, second: (first, first)), Failure.CRYPTO_SESSIONS),
    ("our SSRC changed", sessions(lambda first, second: (SrtpId(0, 5), second)), Failure.CRYPTO_SESSIONS),
    ("another policy", sessions(lambda first, second: (first, SrtpId(1, 7))), Failure.CRYPTO_SESSIONS),
    ("no crypto session", head(sessions=()), Failure.CRYPTO_SESSIONS),
    ("another timestamp", put(Timestamp, timestamp_at(ntp_time(NOW_S + 1))), Failure.TIMESTAMP_ECHO),
    ("one DH value", put(DhValue, DhValue(0, bytes(192))), Failure.PAYLOAD),
    ("DHr of another group", put(DhValue, DhValue(2, bytes(128)), DhValue(0, bytes(192))), Failure.DH_GROUP),
    ("DHi changed", put(DhValue, DhValue(0, b"\1" * 192), DhValue(0, b"\2" * 192)), Failure.DH_ECHO),
    ("a RAND of the Responder", lambda h, p: p.append(Rand(bytes(16))), Failure.PAYLOAD),
    ("a policy of the Responder", lambda h, p: p.append(policy_for(SrtpProfile.AEAD_AES_128_GCM)), Failure.PAYLOAD),
    (
        "somebody else answering",
        put(Identity, Identity(1, b"sip:+2@b.example"), Identity(1, b"sip:+493023125001@a.example")),
        Failure.IDENTITY,
    ),
    (
        "another Initiator",
        put(Identity, Identity(1, b"sip:+442079460123@b.example"), Identity(1, b"sip:+1@a.example")),
        Failure.IDENTITY,
    ),
]


@pytest.mark.parametrize(("change", "failure"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_an_answer_is_refused(call: Any, signers: Any, change: Callable[..., Any], failure: Failure) -> None:
    offer = call.offer()
    octets = resign(call.accept(offer.message).message, signers[1], change)
    with pytest.raises(MikeyError) as caught:
        call.read_answer(offer, octets)
    assert caught.value.failure is failure


@pytest.mark.parametrize("prf", Prf)
def test_an_answer_with_another_prf_is_refused(new_call: Any, signers: Any, prf: Prf) -> None:
    call = new_call(prf=prf)
    offer = call.offer()
    octets = resign(call.accept(offer.message).message, signers[1], head(prf=1 - prf))
    with pytest.raises(MikeyError, match="the PRF") as caught:
        call.read_answer(offer, octets)
    assert caught.value.failure is Failure.PRF


def test_an_answer_with_a_public_value_of_1(call: Any, signers: Any) -> None:
    offer = call.offer()
    values = DhValue(0, (1).to_bytes(192, "big")), offer.sent.one(DhValue)
    octets = resign(call.accept(offer.message).message, signers[1], put(DhValue, *values))
    with pytest.raises(MikeyError) as caught:
        call.read_answer(offer, octets)
    assert caught.value.failure is Failure.DH_VALUE


class TestSignatures:
    def test_another_key(self, call: Any, signers: Any) -> None:
        octets = resign(call.offer().message, signers[1], lambda h, p: None)
        with pytest.raises(MikeyError, match="step SIGN: the signature of the Initiator's message does not verify"):
            call.accept(octets)

    def test_an_answer_with_another_key(self, call: Any, signers: Any) -> None:
        offer = call.offer()
        octets = resign(call.accept(offer.message).message, signers[0], lambda h, p: None)
        with pytest.raises(MikeyError, match="step SIGN: the signature of the Responder's message does not verify"):
            call.read_answer(offer, octets)

    def test_without_the_check_a_changed_answer_is_taken(self, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the attack of the scenario mikey-answer-changed would gain: nothing else refuses it."""
        offer = call.offer()
        octets = bytearray(call.accept(offer.message).message)
        octets[-8] ^= 1
        with pytest.raises(MikeyError, match="step SIGN"):
            call.read_answer(offer, bytes(octets))
        for removed in removals("MIKEY SIGN"):
            monkeypatch.setattr(*removed)
        assert isinstance(call.read_answer(offer, bytes(octets)), SrtpKeys)

    @pytest.mark.parametrize("s_type", [0, 2])
    def test_another_signature_type(self, call: Any, s_type: int) -> None:
        """0 is PKCS #1 v1.5, and 2 is nobody's."""
        octets = bytearray(call.offer().message)
        octets[-258] = octets[-258] & 0x0F | s_type << 4
        with pytest.raises(MikeyError) as caught:
            call.accept(bytes(octets))
        assert caught.value.failure is Failure.SIGNATURE_TYPE

    def test_a_refused_message_is_not_remembered(self, call: Any, signers: Any) -> None:
        offer = call.offer()
        with pytest.raises(MikeyError):
            call.accept(resign(offer.message, signers[1], lambda h, p: None))
        assert not call.responder._replays._entries
        assert call.accept(offer.message).message


class TestCertificates:
    def offered(self, call: Any, signer: LocalSigner, certificate: bytes) -> None:
        call.accept(resign(call.offer().message, signer, put(Certificate, Certificate(2, certificate))))

    def test_a_key_that_mikey_cannot_sign_with(self, call: Any, signers: Any, new_certificate: Any) -> None:
        certificate = new_certificate(generate_es256(), call.caller.uri)
        with pytest.raises(MikeyError, match=r"step CERT: the Initiator's certificate .* key is not RSA"):
            self.offered(call, signers[0], certificate)

    def test_a_certificate_for_another_identity(self, call: Any, signers: Any, new_certificate: Any) -> None:
        certificate = new_certificate(signers[0], "sip:+493023125999@a.example")
        with pytest.raises(MikeyError, match="step ID: the Initiator's certificate does not name its ID"):
            self.offered(call, signers[0], certificate)

    def test_a_certificate_that_has_expired(self, call: Any, signers: Any, new_certificate: Any) -> None:
        certificate = new_certificate(signers[0], call.caller.uri, not_after_s=int(NOW_S) - 1)
        with pytest.raises(MikeyError, match="step CERT"):
            self.offered(call, signers[0], certificate)

    @pytest.mark.parametrize(
        "status", [status for status in CertStatus if status not in (CertStatus.VALID, CertStatus.NOT_YET_VALID)]
    )
    def test_a_certificate_that_the_ledger_does_not_vouch_for(
        self, call: Any, new_record: Any, status: CertStatus
    ) -> None:
        claim = call.receive(call.offer().message)
        with pytest.raises(MikeyError, match=r"step ledger: .* at height 9") as caught:
            call.complete(claim, new_record(claim, status))
        assert caught.value.number is ErrorNumber.INVALID_CERT

    def test_a_certificate_that_expired_during_the_agreement(self, call: Any, new_record: Any) -> None:
        claim = call.receive(call.offer().message)
        record = new_record(claim, not_after_s=int(NOW_S) - 1)
        with pytest.raises(MikeyError, match="step ledger: the Initiator's certificate has expired"):
            call.complete(claim, record)

    @pytest.mark.parametrize("uri", ["sip:+442079460001@a.example", "sip:+493023125002@c.example"])
    def test_a_certificate_with_another_name_that_is_not_its_operator_s(
        self, call: Any, signers: Any, new_certificate: Any, new_record: Any, uri: str
    ) -> None:
        """The party of this call is the operator's. The certificate is refused for the other name in it."""
        certificate = new_certificate(signers[0], call.caller.uri, uri)
        call.caller = Party(call.caller.uri, certificate, signers[0])
        call.initiator = Initiator(call.caller)
        claim = call.receive(call.offer().message)
        record = new_record(claim, domains=("a.example",), ranges=(TnRange(Tn("493023125000"), 100),))
        with pytest.raises(MikeyError, match="step ledger: the organisation that recorded"):
            call.complete(claim, record)

    def test_a_certificate_that_another_domain_recorded(self, call: Any, new_record: Any) -> None:
        claim = call.receive(call.offer().message)
        record = new_record(claim, domains=("b.example", "xa.example"))
        with pytest.raises(MikeyError, match=r"step ledger: the organisation that recorded .* hold the domain"):
            call.complete(claim, record)

    @pytest.mark.parametrize("host", ["xa.example", "a.example.b.example", "aa.example"])
    def test_a_name_that_only_ends_like_a_domain(
        self, new_party: Any, call: Any, new_record: Any, host: str
    ) -> None:
        call.caller = new_party(f"sip:+493023125001@{host}")
        call.initiator = Initiator(call.caller)
        claim = call.receive(call.offer().message)
        with pytest.raises(MikeyError, match=r"step ledger: the organisation that recorded .* hold the domain"):
            call.complete(claim, new_record(claim, domains=("a.example",)))

    @pytest.mark.parametrize(("usage", "admitted"), [("key_encipherment", False), ("digital_signature", True)])
    def test_a_certificate_that_is_not_for_signing(
        self, call: Any, signers: Any, new_certificate: Any, usage: str, admitted: bool
    ) -> None:
        certificate = with_usage(new_certificate(signers[0], call.caller.uri), signers[0], usage)
        if admitted:
            self.offered(call, signers[0], certificate)
            return
        with pytest.raises(MikeyError, match=r"step CERT: .* does not admit digital signatures"):
            self.offered(call, signers[0], certificate)

    def test_names_below_a_domain_are_its_holder_s_too(self, new_party: Any, call: Any, new_record: Any) -> None:
        call.caller = new_party("sip:+493023125001@pbx.a.example")
        call.initiator = Initiator(call.caller)
        claim = call.receive(call.offer().message)
        record = new_record(claim, domains=("a.example",))
        assert call.complete(claim, record).message

    def test_a_record_of_another_certificate_is_our_own_fault(self, call: Any, new_record: Any) -> None:
        claim = call.receive(call.offer().message)
        record = replace(new_record(claim), digest=bytes(32))
        with pytest.raises(LocalError):
            call.complete(claim, record)


class TestReplays:
    def test_the_same_offer_again(self, call: Any) -> None:
        octets = call.offer().message
        call.accept(octets)
        with pytest.raises(MikeyError, match="step T: the message was accepted before"):
            call.accept(octets)

    def test_the_same_offer_while_the_first_is_resolved(self, call: Any) -> None:
        octets = call.offer().message
        one, other = call.receive(octets), call.receive(octets)
        call.answer(one)
        with pytest.raises(MikeyError) as caught:
            call.answer(other)
        assert caught.value.failure is Failure.REPLAY

    def test_room_is_made_of_what_cannot_be_replayed_any_more_and_of_nothing_else(self, call: Any) -> None:
        cache, kept_s = ReplayCache(0, max_entries=1), 10 + MAX_SKEW_S + SET_S
        stamp = timestamp_at(ntp_time(NOW_S))
        cache.remember(b"first", stamp, now_s=NOW_S, steady_s=10)
        with pytest.raises(MikeyError, match="full"):
            cache.remember(b"second", stamp, now_s=NOW_S, steady_s=kept_s)
        with pytest.raises(MikeyError, match="accepted before"):
            cache.check(b"first", stamp, now_s=NOW_S, steady_s=kept_s)
        cache.remember(b"second", stamp, now_s=NOW_S, steady_s=kept_s + 1)

    def test_the_last_place_is_taken_and_not_one_more(self) -> None:
        cache, stamp = ReplayCache(0, max_entries=2), timestamp_at(ntp_time(NOW_S))
        for number in range(2):
            cache.remember(b"%d" % number, stamp, now_s=NOW_S, steady_s=10, organization=f"{number}")
        with pytest.raises(MikeyError, match="full"):
            cache.remember(b"2", stamp, now_s=NOW_S, steady_s=10, organization="2")

    def test_an_organisation_that_floods_leaves_room_for_others(self, call: Any) -> None:
        cache, stamp = ReplayCache(0, max_entries=100), timestamp_at(ntp_time(NOW_S))

        def taken(number: int, organization: str) -> bool:
            octets = f"{organization} {number}".encode()
            try:
                cache.remember(octets, stamp, now_s=NOW_S, steady_s=10, organization=organization)
            except MikeyError as error:
                return "the replay cache is full" not in str(error)
            return True

        assert sum(taken(number, "flooder") for number in range(200)) == 51
        assert sum(taken(number, "other") for number in range(200)) == 25
        assert taken(0, "third")

    def test_room_is_kept_by_the_certificates_organisation(self, call: Any) -> None:
        call.accept(call.offer().message)
        (_, organization), *_ = call.responder._replays._entries.values()
        assert organization == read_profile(call.caller.certificate).organization != ""

    def test_a_full_cache_refuses_until_entries_expire(self, call: Any) -> None:
        call.responder = Responder(call.callee, ReplayCache(NOW_S - 10, max_entries=2))
        for _ in range(2):
            call.accept(call.offer().message)
        with pytest.raises(MikeyError, match="the replay cache is full"):
            call.accept(call.offer().message)
        later_s = NOW_S + 121
        assert call.answer(call.receive(call.offer(later_s).message, now_s=later_s), later_s).message


class TestClocks:
    """What is remembered ages by the monotonic clock, whatever the wall clock is set to."""

    @pytest.mark.parametrize("step_s", STEPS_S)
    def test_an_initiator_whose_clock_was_wrong_once_is_understood_again(self, call: Any, step_s: float) -> None:
        with pytest.raises(MikeyError, match="from our clock") as caught:
            call.receive(call.offer(NOW_S + step_s).message)
        assert caught.value.failure is Failure.TIMESTAMP
        assert call.accept(call.offer(NOW_S).message).message

    def test_timestamps_rise_while_the_clock_stands_still_or_goes_back_a_little(self, call: Any) -> None:
        sent = [call.offer(NOW_S - back_s).sent.one(Timestamp).value for back_s in (0, 0, 0.2, 0.9)]
        assert sent == sorted(set(sent))

    def test_a_clock_that_goes_back_by_more_than_a_second_is_followed(self, call: Any) -> None:
        sent = [call.offer(NOW_S - back_s).sent.one(Timestamp) for back_s in (0, 1.5)]
        assert sent == [timestamp_at(ntp_time(NOW_S)), timestamp_at(ntp_time(NOW_S - 1.5))]

    @pytest.mark.parametrize("step_s", [600, 3600])
    def test_a_responder_whose_clock_was_set_to_and_fro_remembers(self, call: Any, step_s: float) -> None:
        call.responder = Responder(call.callee, ReplayCache(NOW_S - 10, max_entries=2))
        call.steady_s = NOW_S
        octets = call.offer().message
        call.accept(octets)
        with pytest.raises(MikeyError):
            call.receive(octets, now_s=NOW_S + step_s)
        call.answer(call.receive(call.offer(NOW_S + step_s).message, now_s=NOW_S + step_s), NOW_S + step_s)
        with pytest.raises(MikeyError, match="the replay cache is full"):
            call.answer(call.receive(call.offer(NOW_S + step_s).message, now_s=NOW_S + step_s), NOW_S + step_s)
        with pytest.raises(MikeyError, match="accepted before"):
            call.accept(octets)

    @pytest.mark.parametrize("set_s", [10, 40, SET_S])
    def test_a_clock_set_back_admits_no_replay(self, call: Any, set_s: float) -> None:
        """Set back, at any time, by as much as the ledger lets pass."""
        octets = call.offer().message
        call.accept(octets)
        for waited_s in range(0, 200, 5):
            call.steady_s = NOW_S + waited_s
            for now_s in (NOW_S + waited_s, NOW_S + waited_s - set_s):
                call.responder._replays.max_entries = len(call.responder._replays._entries)  # forgets what it may
                with pytest.raises(MikeyError) as caught:
                    call.answer(call.receive(octets, now_s=now_s), now_s)
                assert caught.value.failure in (Failure.REPLAY, Failure.TIMESTAMP)

    def test_a_clock_set_right_after_the_start_does_not_shut_callers_out(self, call: Any) -> None:
        """The Responder was started an hour ahead; its memory of replays is still as long as it has run."""
        call.responder = Responder(call.callee, ReplayCache(started_s=NOW_S))
        call.steady_s = NOW_S + 5
        right_s = NOW_S - 3600
        assert call.answer(call.receive(call.offer(right_s).message, now_s=right_s + 1), right_s + 1).message
        with pytest.raises(MikeyError, match="older than this Responder's memory"):
            call.receive(call.offer(right_s - 10).message, now_s=right_s + 1)


class TestErrors:
    def test_the_initiator_reads_an_error_as_a_hint(self, new_call: Any) -> None:
        call = new_call(profile=SrtpProfile.AEAD_AES_128_GCM, accepted=(SrtpProfile.AES_CM_128_HMAC_SHA1_80,))
        offer = call.offer()
        with pytest.raises(MikeyError, match="AEAD_AES_128_GCM is not accepted") as caught:
            call.accept(offer.message)
        answer = call.responder.error_message(offer.message, caught.value)
        policies = Message.parse(answer).all(SecurityPolicy)
        assert [profile_of(policy) for policy in policies] == [SrtpProfile.AES_CM_128_HMAC_SHA1_80]
        with pytest.raises(MikeyError, match="INVALID_SPPAR") as hint:
            call.read_answer(offer, answer)
        assert hint.value.failure is Failure.PEER_ERROR

    def test_a_broken_message_gets_no_error_message(self, call: Any) -> None:
        error = MikeyError(Failure.MALFORMED, "broken")
        assert call.responder.error_message(b"junk", error) is None


class TestPolicies:
    @pytest.mark.parametrize("profile", SrtpProfile)
    def test_a_policy_means_its_profile(self, profile: SrtpProfile) -> None:
        assert profile_of(policy_for(profile, 3)) is profile

    def test_defaults_are_those_of_srtp(self) -> None:
        assert profile_of(SecurityPolicy(0, 0, ())) is SrtpProfile.AES_CM_128_HMAC_SHA1_80

    def test_the_parameters_of_rfc_7714_alone_are_enough(self) -> None:
        policy = SecurityPolicy(0, 0, ((0, b"\x06"), (1, b"\x10"), (20, b"\x10")))
        assert profile_of(policy) is SrtpProfile.AEAD_AES_128_GCM

    def test_gcm_with_another_tag_or_key_length(self) -> None:
        for parameters in (
            ((0, b"\x06"), (20, b"\x08")),
            ((0, b"\x06"), (1, b"\x20"), (20, b"\x10")),
            ((0, b"\x06"),),
        ):
            with pytest.raises(MikeyError):
                profile_of(SecurityPolicy(0, 0, parameters))


class TestOurselves:
    def test_an_ecdsa_key_cannot_sign(self, call: Any, new_certificate: Any) -> None:
        signer = generate_es256()
        with pytest.raises(LocalError, match="MIKEY signs with RSA"):
            Party(call.caller.uri, new_certificate(signer, call.caller.uri), signer)

    def test_a_certificate_of_another_key(self, call: Any, signers: Any) -> None:
        with pytest.raises(LocalError, match="not for the signing key"):
            Party(call.caller.uri, call.caller.certificate, signers[1])

    def test_a_certificate_of_another_identity(self, call: Any, signers: Any) -> None:
        with pytest.raises(LocalError, match="does not name our identity"):
            Party(call.callee.uri, call.caller.certificate, signers[0])

    def test_a_broken_certificate(self, call: Any, signers: Any) -> None:
        with pytest.raises(LocalError, match="our own certificate"):
            Party(call.caller.uri, b"junk", signers[0])
