"""What a peer with the right key, and a MAC or signature that is right, may still not send: mode by mode.

Both ends are ours, so none of these messages is ever made by our own code. RFC 3830 §5.1 to §5.3, §6.1, RFC 4650
§3.1, RFC 4738 §3.6.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.mikey.conftest import CALLEE, CALLER, NOW_S, Call, certificate_for, recorded
from tests.mikey.modern_calls import ModernCall, party, vouched
from tests.mikey.test_modes import put as instead
from tests.mikey.test_modes import resign
from tests.mikey.test_pke import Line as EncryptedTo
from tests.mikey.test_pke import put, refused
from tests.mikey.test_rsa_r import Line as Reverse
from tests.mikey.test_shared import SECRET, Line
from tests.mikey.test_update import Agreed, agreed
from voice_dpki.errors import LocalError
from voice_dpki.mikey.agreement import Strength
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Message, SrtpId, serialize
from voice_dpki.mikey.modern import is_modern
from voice_dpki.mikey.payloads import (
    Certificate,
    DhValue,
    GeneralExtension,
    Identity,
    Kemac,
    Payload,
    Rand,
    Timestamp,
)
from voice_dpki.mikey.pke import recipient_of
from voice_dpki.mikey.registry import CertType, DhGroup, EncrAlg
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.rsa_r import ReverseInitiator
from voice_dpki.mikey.shared import SharedOffer, SharedResponder
from voice_dpki.mikey.steps import NamedClaim, PeerClaim, identity_of
from voice_dpki.mikey.transport import MessageKeys, parties_of
from voice_dpki.names import CertDigest
from voice_dpki.x509.encipherment import LocalDecrypter
from voice_dpki.x509.keys import LocalSigner, generate_es256
from voice_dpki.x509.profile import digest_of, read_profile

THIRD = "sip:+493023125099@a.example"
OTHER_GROUPS = [DhValue(DhGroup.OAKLEY_1, bytes(95) + b"\5"), DhValue(DhGroup.OAKLEY_2, bytes(127) + b"\5")]
UNPLUSSED = "sip:4915112345678@a.example"
"""A number that the operator does not hold, written without the `+` by which nodes compare it with ranges."""


def sealed_again(keys: MessageKeys, octets: bytes, change: Callable[[list[Payload]], Any]) -> bytes:
    """A message that ends with KEMAC, after a change and with a MAC that is right for it."""
    message = Message.parse(octets)
    payloads, kemac = list(message.payloads[:-1]), message.one(Kemac)
    change(payloads)
    return keys.sealed(message.header, tuple(payloads), EncrAlg(kemac.encr_alg), kemac.encr_data)


def identities(*uris: str) -> Callable[[list[Payload]], None]:
    """Put others in the places of the identities."""

    def change(payloads: list[Payload]) -> None:
        others = iter(uris)
        payloads[:] = [identity_of(next(others)) if isinstance(each, Identity) else each for each in payloads]

    return change


def values(first: DhValue | None = None, second: DhValue | None = None) -> Callable[[list[Payload]], None]:
    """Put others in the places of DHr and DHi."""

    def change(payloads: list[Payload]) -> None:
        others = iter((first, second))
        payloads[:] = [(next(others) or each) if isinstance(each, DhValue) else each for each in payloads]

    return change


ANSWERS = [
    (identities(CALLER, CALLEE), Failure.IDENTITY),
    (identities(CALLEE, THIRD), Failure.IDENTITY),
    (identities(THIRD, CALLER), Failure.IDENTITY),
    (values(None, DhValue(DhGroup.OAKLEY_5, b"\1" * 192)), Failure.DH_ECHO),
    (values(None, DhValue(DhGroup.OAKLEY_5, b"\xff" * 192)), Failure.DH_ECHO),
    *((values(value), Failure.DH_GROUP) for value in OTHER_GROUPS),
]
"""Answers of DHHMAC, which returns both identities and DHi (RFC 4650 §3.1), in a group of its standard (§4.2)."""


class TestPreSharedKeys:
    @pytest.mark.parametrize(("change", "failure"), ANSWERS)
    def test_other_answers_of_dhhmac(self, change: Callable[..., Any], failure: Failure) -> None:
        line = Line()
        offer = line.offer("dhhmac")
        octets = line.accept(offer.message).message
        assert refused(lambda: offer.confirm(sealed_again(offer._keys, octets, change))) is failure
        assert offer.confirm(sealed_again(offer._keys, octets, lambda payloads: None)).send

    @pytest.mark.parametrize("named", [CALLER, THIRD])
    def test_an_answer_of_psk_by_another(self, named: str) -> None:
        line = Line()
        offer = line.offer("psk")
        header = Message.parse(line.accept(offer.message).message).header
        time = offer.sent.one(Timestamp)
        octets = offer._keys.verified(
            header, (time, identity_of(named)), parties_of(CALLER.encode(), CALLEE.encode(), time)
        )
        assert refused(lambda: offer.confirm(octets)) is Failure.IDENTITY

    @pytest.mark.parametrize("value", OTHER_GROUPS)
    def test_an_offer_in_another_group(self, value: DhValue) -> None:
        line = Line()
        offer = line.offer("dhhmac")
        assert (
            refused(lambda: line.accept(sealed_again(offer._keys, offer.message, put(value)))) is Failure.DH_GROUP
        )

    @pytest.mark.parametrize("mode", ["psk", "dhhmac"])
    def test_the_least_rand_has_16_bytes_and_it_may_have_more(self, mode: str) -> None:
        line = Line()
        offer = line.offer(mode)
        assert refused(lambda: line.accept(with_rand(offer, 15))) is Failure.RAND
        for size in (16, 17, 255):
            assert line.accept(with_rand(offer, size)).message

    @pytest.mark.parametrize("mode", ["psk", "dhhmac"])
    def test_the_least_key_has_16_bytes(self, mode: str) -> None:
        line = Line(secret=SECRET[:16])
        offer = line.offer(mode)
        assert offer.confirm(line.accept(offer.message).message).send
        line.responder = SharedResponder(CALLEE, {CALLER: SECRET[:15]}.get, ReplayCache(started_s=0))
        with pytest.raises(MikeyError, match="no key is shared"):
            line.accept(offer.message)

    def test_ended_bundles_are_forgotten(self) -> None:
        line = Line()
        offers = [line.offer("psk"), line.offer("dhhmac")]
        line.initiator.close(offers[0].csb_id)
        assert line.initiator._bundles._open == {offers[1].csb_id}


def with_rand(offer: SharedOffer, size: int) -> bytes:
    """The offer with a RAND of another length, from which its keys are derived, too."""
    rand = bytes(range(size))
    keys = MessageKeys(SECRET, offer._keys.prf, offer.csb_id, rand)
    message = offer.sent
    kemac, timestamp = message.one(Kemac), message.one(Timestamp)
    data = keys.crypt(offer._keys.crypt(kemac.encr_data, timestamp), timestamp)
    payloads = tuple(Rand(rand) if isinstance(each, Rand) else each for each in message.payloads[:-1])
    return keys.sealed(message.header, payloads, EncrAlg(kemac.encr_alg), data)


UPDATE_ANSWERS = [
    (identities(CALLER, CALLEE), Failure.IDENTITY),
    (identities(THIRD, CALLER), Failure.IDENTITY),
    (identities(CALLEE, THIRD), Failure.IDENTITY),
    (values(None, DhValue(DhGroup.OAKLEY_5, b"\1" * 192)), Failure.DH_ECHO),
    (values(None, DhValue(DhGroup.OAKLEY_5, b"\xff" * 192)), Failure.DH_ECHO),
    *((values(value), Failure.DH_GROUP) for value in OTHER_GROUPS),
]


class TestUpdates:
    @pytest.fixture
    def dhhmac(self, parties: tuple[Party, Party]) -> Agreed:
        return agreed("dhhmac", parties)

    @pytest.mark.parametrize(("change", "failure"), UPDATE_ANSWERS)
    def test_other_answers_of_dhhmac(self, dhhmac: Agreed, change: Callable[..., Any], failure: Failure) -> None:
        offer = dhhmac.offer()
        octets = dhhmac.accept(offer.message).message
        assert refused(lambda: offer.confirm(sealed_again(dhhmac.ours.keys, octets, change))) is failure

    @pytest.mark.parametrize("value", OTHER_GROUPS)
    def test_an_update_in_another_group(self, dhhmac: Agreed, value: DhValue) -> None:
        octets = dhhmac.sealed(dhhmac.offer(), put(value))
        assert refused(lambda: dhhmac.accept(octets)) is Failure.DH_GROUP

    @pytest.mark.parametrize(("algorithm", "data"), [(EncrAlg.NULL, b"\0"), (EncrAlg.AES_CM_256, b"")])
    def test_an_update_with_a_key_where_dhhmac_has_none(
        self, dhhmac: Agreed, algorithm: EncrAlg, data: bytes
    ) -> None:
        sent = dhhmac.offer().sent
        octets = dhhmac.ours.keys.sealed(sent.header, sent.payloads[:-1], algorithm, data)
        assert refused(lambda: dhhmac.accept(octets)) is Failure.ENCRYPTION

    def test_an_answer_with_a_key_where_dhhmac_has_none(self, dhhmac: Agreed) -> None:
        offer = dhhmac.offer()
        message = Message.parse(dhhmac.accept(offer.message).message)
        for algorithm, data in ((EncrAlg.NULL, b"\0"), (EncrAlg.AES_CM_256, b"")):
            octets = dhhmac.ours.keys.sealed(message.header, message.payloads[:-1], algorithm, data)
            assert refused(lambda octets=octets: offer.confirm(octets)) is Failure.ENCRYPTION  # type: ignore[misc]

    @pytest.mark.parametrize("named", [CALLER, THIRD])
    @pytest.mark.parametrize("mode", ["psk", "pke", "rsa-r"])
    def test_an_answer_by_another(self, mode: str, named: str, parties: tuple[Party, Party]) -> None:
        call = agreed(mode, parties)
        offer = call.offer()
        header, time = Message.parse(call.accept(offer.message).message).header, offer.sent.one(Timestamp)
        covered = parties_of(CALLER.encode(), CALLEE.encode(), time)
        octets = call.ours.keys.verified(header, (time, identity_of(named)), covered)
        assert refused(lambda: offer.confirm(octets)) is Failure.IDENTITY

    def test_other_parties_than_those_of_the_bundle(self, parties: tuple[Party, Party]) -> None:
        call = agreed("psk", parties)
        for uris in ((CALLEE, CALLER), (THIRD, CALLEE), (CALLER, THIRD)):
            octets = call.sealed(call.offer(), identities(*uris))
            assert refused(lambda octets=octets: call.accept(octets)) is Failure.IDENTITY  # type: ignore[misc]

    @pytest.mark.parametrize("apart", [-1, 1])
    def test_another_bundle(self, parties: tuple[Party, Party], apart: int) -> None:
        call = agreed("psk", parties)
        octets = call.sealed(call.offer(), lambda payloads: None, csb_id=call.ours.keys.csb_id + apart)
        assert refused(lambda: call.accept(octets)) is Failure.CSB_ID

    @pytest.mark.parametrize(("ours", "theirs"), [((1, 1), (0, 0)), ((1, 1), (1, 0)), ((0, 0), (0, 1))])
    def test_a_policy_of_another_number(
        self, parties: tuple[Party, Party], ours: tuple[int, int], theirs: tuple[int, int]
    ) -> None:
        """A bundle's policy need not have the number 0, which ours have."""
        call = agreed("psk", parties)
        call.ours, call.theirs = (
            replace(bundle, sessions=tuple(SrtpId(number, 7) for number in ours))
            for bundle in (call.ours, call.theirs)
        )
        offer = call.offer()
        assert offer.confirm(call.accept(offer.message).message).keys.send.ssrc
        later = call.offer(NOW_S + 2)
        sessions = tuple(
            replace(each, policy_no=number) for each, number in zip(later.sent.header.sessions, theirs, strict=True)
        )
        octets = call.sealed(later, lambda payloads: None, sessions=sessions)
        assert refused(lambda: call.accept(octets, NOW_S + 2)) is Failure.POLICY

    def test_a_replay_is_refused_before_anything_is_computed_for_it(self, parties: tuple[Party, Party]) -> None:
        call = agreed("psk", parties)
        octets = call.offer().message
        call.accept(octets)
        assert refused(lambda: call.accept(octets, key_mgmt_ids=("other",))) is Failure.REPLAY

    def test_a_replay_is_refused_by_memory_alone(self, parties: tuple[Party, Party]) -> None:
        """While the bundle is still that of before the update, its time alone would let the replay pass."""
        call = agreed("psk", parties)
        octets = call.offer().message
        call.accept(octets)
        assert call.theirs.timestamp.value < Message.parse(octets).one(Timestamp).value
        with pytest.raises(MikeyError, match="accepted before"):
            call.accept(octets)


class TestCertificates:
    def test_one_of_another_type_is_none_of_ours(self, call: Call, signers: Any) -> None:
        """RFC 3830 §6.7: type 3 is for encryption, and 4 on are nobody's; the certificate in it is a good one."""
        good = call.caller.certificate
        for kind in (CertType.X509V3_ENCR, 4, 255):
            change = instead(Certificate, Certificate(kind, good))
            with pytest.raises(MikeyError, match=f"certificate type {int(kind)} is not") as caught:
                call.receive(resign(call.offer().message, signers[0], change))
            assert caught.value.failure is Failure.CERTIFICATE
        for kind in (CertType.X509V3, CertType.X509V3_SIGN):
            assert call.receive(
                resign(call.offer().message, signers[0], instead(Certificate, Certificate(kind, good)))
            )

    def test_the_claim_tells_by_what_the_ledger_knows_it(self, call: Call) -> None:
        assert call.receive(call.offer().message).digest == digest_of(call.caller.certificate)

    @pytest.mark.parametrize("digest", [bytes(32), b"\xff" * 32])
    def test_a_named_one_is_the_one_that_the_ledger_gives(
        self, parties: tuple[Party, Party], digest: bytes
    ) -> None:
        caller, callee = parties
        sent = Line().offer("psk").sent
        for named, given in ((caller, callee), (callee, caller)):
            claim = NamedClaim("Initiator", CALLER, sent, digest_of(named.certificate))
            record = recorded(PeerClaim("Initiator", CALLER, sent, read_profile(given.certificate)))
            with pytest.raises(LocalError, match="about another certificate"):
                claim.present(replace(record, digest=CertDigest(digest)), NOW_S)
            with pytest.raises(MikeyError, match="the ledger does not give"):
                claim.present(replace(record, digest=claim.digest), NOW_S)

    def test_a_number_without_its_plus_is_the_operator_s_too(self, parties: tuple[Party, Party]) -> None:
        """Nodes compare only numbers with `+` when they record a certificate; calls are routed by others, too."""
        signer = parties[1].signer
        assert isinstance(signer, LocalSigner)
        der = certificate_for(signer, UNPLUSSED)
        claim = PeerClaim("Responder", UNPLUSSED, Line().offer("psk").sent, read_profile(der))
        with pytest.raises(MikeyError, match="is not allotted the number") as caught:
            recipient_of(recorded(claim), UNPLUSSED, NOW_S)
        assert caught.value.failure is Failure.LEDGER

    def test_the_key_that_opens_envelopes_is_the_certificate_s(self, parties: tuple[Party, Party]) -> None:
        caller, callee = parties
        assert isinstance(callee.signer, LocalSigner)
        with pytest.raises(LocalError, match="not for the key that decrypts"):
            ReverseInitiator(caller, LocalDecrypter.of(callee.signer))

    @pytest.mark.parametrize("size", [15, 16, 17])
    def test_the_least_rand_of_an_answer_has_16_bytes(self, parties: tuple[Party, Party], size: int) -> None:
        line = Reverse(*parties)
        offer = line.offer()
        octets = line.resigned(offer, lambda payloads: payloads.pop(1))
        bare = replace(offer, message=octets, sent=Message.parse(octets))
        answer = line.answered(line.accept(octets).message, put(Rand(bytes(size))))
        expected = Failure.RAND if size == 15 else Failure.MAC
        assert refused(lambda: line.confirm(bare, answer)) is expected

    @pytest.mark.parametrize("kind", [0, 1, 3, 5, 255])
    def test_other_extensions_of_an_answer_are_ignored(self, parties: tuple[Party, Party], kind: int) -> None:
        """Only that of a CSB ID, 4, is for groups (RFC 4738 §3.9.3)."""
        line = Reverse(*parties)
        offer = line.offer()
        octets = line.accept(offer.message).message
        more = line.answered(octets, lambda payloads: payloads.append(GeneralExtension(kind, b"more")))
        assert line.confirm(offer, more)

    def test_the_least_rand_of_an_offer(self, parties: tuple[Party, Party]) -> None:
        for line in (EncryptedTo(*parties), Reverse(*parties)):
            octets = line.resigned(line.offer(), put(Rand(bytes(15))))  # type: ignore[arg-type]
            assert refused(lambda line=line, octets=octets: line.accept(octets)) is Failure.RAND  # type: ignore[misc]


class TestModern:
    @pytest.fixture
    def modern(self) -> ModernCall:
        return ModernCall(party(generate_es256(), CALLER), party(generate_es256(), CALLEE))

    def test_only_offers_are_offers(self, modern: ModernCall, call: Call) -> None:
        offer = modern.offer()
        assert is_modern(offer.message)
        assert not is_modern(modern.accept(offer.message).message)
        assert not is_modern(call.offer().message)

    def test_an_offer_of_another_kind_with_a_group_of_ours_is_none(self, modern: ModernCall) -> None:
        sent = modern.offer().sent
        for kind in (3, 5, 7):
            assert not is_modern(serialize(replace(sent.header, data_type=kind), sent.payloads))

    @pytest.mark.parametrize("strength", Strength)
    def test_claims_and_offers_tell_their_strength(self, modern: ModernCall, strength: Strength) -> None:
        modern.strength = strength
        offer = modern.offer()
        assert offer.strength is strength
        assert modern.receive(offer.message).strength is strength
        assert offer.receive(modern.accept(offer.message).message).strength is strength

    def test_a_proven_claim_has_the_certificate_that_the_ledger_gave(self, modern: ModernCall) -> None:
        claim = modern.receive(modern.offer().message)
        proven = claim.proven(vouched(modern.caller), NOW_S)
        assert (proven.role, proven.uri, proven.message) == ("Initiator", CALLER, claim.message)
        assert proven.certificate == read_profile(modern.caller.certificate)
        for digest in (bytes(32), b"\xff" * 32):
            with pytest.raises(MikeyError) as caught:
                claim.proven(vouched(modern.caller, digest=digest), NOW_S)
            assert caught.value.failure is Failure.CERTIFICATE

    def test_a_stranger_is_refused_before_the_ledger_is_asked(self, modern: ModernCall) -> None:
        octets, ids = modern.offer().message, ("mikey",)
        with pytest.raises(MikeyError, match="the Initiator's ID is not the party of this call") as caught:
            modern.responder.receive(octets, initiator_uri=THIRD, key_mgmt_ids=ids, now_s=NOW_S, steady_s=NOW_S)
        assert caught.value.failure is Failure.IDENTITY

    def test_a_replay_is_refused_before_the_ledger_is_asked(self, modern: ModernCall) -> None:
        octets = modern.offer().message
        modern.accept(octets)
        with pytest.raises(MikeyError, match="accepted before"):
            modern.receive(octets)

    def test_a_number_without_its_plus_is_the_operator_s_too(self, modern: ModernCall) -> None:
        caller = party(generate_es256(), UNPLUSSED)
        call = ModernCall(caller, modern.callee)
        claim = call.responder.receive(
            call.offer().message, initiator_uri=UNPLUSSED, key_mgmt_ids=("mikey",), now_s=NOW_S, steady_s=NOW_S
        )
        with pytest.raises(MikeyError, match="is not allotted the number") as caught:
            claim.proven(vouched(caller), NOW_S)
        assert caught.value.failure is Failure.LEDGER

    def test_the_reason_is_told_with_the_policies_that_we_have(self, modern: ModernCall) -> None:
        octets = modern.offer().message
        told = modern.responder.error_message(octets, MikeyError(Failure.STRENGTH, "too weak"))
        assert told is not None
        assert Message.parse(told).header.csb_id == Message.parse(octets).header.csb_id
