"""Who a message may come from: the party of the call by URI or by number, and by number only as the ledger says."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.recorded import recorded
from voice_dpki.errors import LocalError
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.modes import Initiator, Offer, Responder
from voice_dpki.mikey.payloads import Identity
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.steps import PeerClaim, read_party
from voice_dpki.names import Tn
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.keys import generate_rsa
from voice_dpki.x509.recorded import RecordedCertificate
from voice_dpki.x509.tnauthlist import TnRange

NOW_S = 1_790_000_000.0
CALLER, CALLEE = "sip:+493023125001@a.example", "sip:+442079460123@b.example"
DIALLED = "sip:+442079460123@a.example"
"""The callee's number at the caller's own domain, as a user dials digits."""
ALLOTTED = {
    "a.example": (TnRange(Tn("493023125000"), 100),),
    "b.example": (TnRange(Tn("442079460000"), 1000),),
    "c.example": (TnRange(Tn("33199006000"), 100),),
}


def vouch(claim: Any, operator: str) -> RecordedCertificate:
    """What the ledger proves of a certificate that `operator` recorded."""
    return recorded(claim.certificate.der, Allotment((operator,), ALLOTTED[operator]), "Operator")


@dataclass
class Dialled:
    """A call in which SIP names the parties otherwise than the certificates may."""

    call: Any

    def offer(self, to: str) -> Offer:
        return self.call.initiator.offer(
            responder_uri=to, profile=SrtpProfile.AES_CM_128_HMAC_SHA1_80, random=self.call.random, now_s=NOW_S
        )

    def accept(self, offer: Offer, seen: str = CALLER, recorded_by: str = "a.example") -> bytes:
        """The callee's side: `seen` is who calls in SIP, and `recorded_by` vouches for the caller."""
        claim = self.call.responder.receive(
            offer.message, initiator_uri=seen, key_mgmt_ids=("mikey",), now_s=NOW_S, steady_s=NOW_S
        )
        return self.call.complete(claim, vouch(claim, recorded_by)).message

    def confirm(self, offer: Offer, answer: bytes, recorded_by: str = "b.example") -> SrtpKeys:
        claim = offer.receive(answer, now_s=NOW_S)
        assert isinstance(claim, PeerClaim)
        return offer.complete(offer.prepare(claim), vouch(claim, recorded_by), now_s=NOW_S)


@pytest.fixture
def dialled(call: Any) -> Dialled:
    return Dialled(call)


def calling_as(dialled: Dialled, new_party: Any, uri: str) -> None:
    """Give the caller a certificate of its own for `uri`."""
    dialled.call.caller = new_party(uri)
    dialled.call.initiator = Initiator(dialled.call.caller)


def answering_as(dialled: Dialled, uri: str, new_certificate: Any) -> None:
    """Have somebody else answer, with a certificate of their own for `uri`."""
    signer = generate_rsa()
    party = Party(uri, new_certificate(signer, uri), signer)
    dialled.call.responder = Responder(party, ReplayCache(NOW_S - 10))


@pytest.mark.parametrize(
    "to",
    [
        CALLEE,
        DIALLED,
        "sip:+442079460123@A.EXAMPLE:5060;user=phone",
        "sip:442079460123@a.example",
        "sip:+44-20-7946-0123@a.example;transport=tcp",
        "sips:+442079460123@a.example",
    ],
)
def test_a_number_may_be_dialled_at_any_domain(dialled: Dialled, to: str) -> None:
    offer = dialled.offer(to)
    keys = dialled.confirm(offer, dialled.accept(offer))
    assert keys.send.ssrc


@pytest.mark.parametrize(
    "to",
    [
        "sip:+442079460124@b.example",
        "sip:+442079460123:secret@a.example",
        "sip:+442079460123;phone-context=b.example@b.example",
        "tel:+442079460123",
        "sip:alice@b.example",
    ],
)
def test_an_offer_to_another_party_is_not_ours(dialled: Dialled, to: str) -> None:
    with pytest.raises(MikeyError, match="for another Responder") as caught:
        dialled.accept(dialled.offer(to))
    assert caught.value.failure is Failure.IDENTITY


@pytest.mark.parametrize("seen", ["sip:+493023125001@sbc.example", "sip:493023125001@A.example;user=phone"])
def test_a_caller_may_be_named_at_another_host(dialled: Dialled, seen: str) -> None:
    assert dialled.accept(dialled.offer(DIALLED), seen)


@pytest.mark.parametrize("seen", ["sip:+493023125002@a.example", "sip:anonymous@a.example", "sip:a.example"])
def test_a_caller_of_another_number_is_refused(dialled: Dialled, seen: str) -> None:
    with pytest.raises(MikeyError, match="Initiator's ID is not the party of this call"):
        dialled.accept(dialled.offer(DIALLED), seen)


class TestWhoHoldsTheNumber:
    """Operator C has recorded certificates for numbers of A and of B at its own domain."""

    def test_the_caller_s(self, dialled: Dialled, new_party: Any) -> None:
        calling_as(dialled, new_party, "sip:+493023125001@c.example")
        with pytest.raises(MikeyError, match="is not allotted the number") as caught:
            dialled.accept(dialled.offer(DIALLED), recorded_by="c.example")
        assert caught.value.failure is Failure.LEDGER

    def test_the_callee_s(self, dialled: Dialled, new_certificate: Any) -> None:
        answering_as(dialled, "sip:+442079460123@c.example", new_certificate)
        offer = dialled.offer(DIALLED)
        answer = dialled.accept(offer)
        with pytest.raises(MikeyError, match="is not allotted the number") as caught:
            dialled.confirm(offer, answer, "c.example")
        assert caught.value.failure is Failure.LEDGER

    @pytest.mark.parametrize("user", ["442079460123", "+44-20-79460123"])
    def test_in_a_spelling_that_the_ledger_does_not_look_at(
        self, dialled: Dialled, new_certificate: Any, user: str
    ) -> None:
        """Nodes hold only a user with `+` to the ranges when they record a certificate."""
        answering_as(dialled, f"sip:{user}@c.example", new_certificate)
        offer = dialled.offer(DIALLED)
        answer = dialled.accept(offer)
        with pytest.raises(MikeyError, match="is not allotted the number"):
            dialled.confirm(offer, answer, "c.example")

    def test_where_the_uri_that_was_dialled_is_c_s(self, dialled: Dialled, new_certificate: Any) -> None:
        """Equality is no way around the check."""
        answering_as(dialled, "sip:+442079460123@c.example", new_certificate)
        offer = dialled.offer("sip:+442079460123@c.example")
        answer = dialled.accept(offer)
        with pytest.raises(MikeyError, match="is not allotted the number"):
            dialled.confirm(offer, answer, "c.example")

    def test_the_ledger_is_asked_about_the_certificate_s_domain_and_not_the_dialled_one(
        self, dialled: Dialled, new_certificate: Any
    ) -> None:
        """B holds the number, but the certificate names it at a domain of somebody else."""
        answering_as(dialled, "sip:+442079460123@c.example", new_certificate)
        offer = dialled.offer(CALLEE)
        answer = dialled.accept(offer)
        with pytest.raises(MikeyError, match="does not hold the domain") as caught:
            dialled.confirm(offer, answer, "b.example")
        assert caught.value.failure is Failure.LEDGER

    def test_a_second_host_behind_the_parameters_does_not_count(
        self, dialled: Dialled, new_certificate: Any
    ) -> None:
        answering_as(dialled, "sip:+442079460123@c.example;x=@b.example", new_certificate)
        offer = dialled.offer(CALLEE)
        answer = dialled.accept(offer)
        with pytest.raises(MikeyError, match="does not hold the domain"):
            dialled.confirm(offer, answer, "b.example")

    @pytest.mark.parametrize("domains", [(), ("b.example",)])
    def test_without_numbers_of_the_operator_nothing_is_given_out(
        self, dialled: Dialled, domains: tuple[str, ...]
    ) -> None:
        offer = dialled.offer(DIALLED)
        claim = offer.receive(dialled.accept(offer), now_s=NOW_S)
        assert isinstance(claim, PeerClaim)
        said = recorded(claim.certificate.der, Allotment(domains), "Operator")
        with pytest.raises(MikeyError) as caught:
            offer.complete(offer.prepare(claim), said, now_s=NOW_S)
        assert caught.value.failure is Failure.LEDGER


def test_a_name_is_the_party_only_where_it_is_equal(dialled: Dialled, new_party: Any) -> None:
    calling_as(dialled, new_party, "sip:alice@a.example")
    assert dialled.accept(dialled.offer(CALLEE), "sip:alice@a.example")
    with pytest.raises(MikeyError, match="not the party of this call"):
        dialled.accept(dialled.offer(CALLEE), "sip:alice@b.example")


@pytest.mark.parametrize("identity", [Identity(0, CALLEE.encode()), Identity(1, CALLEE.encode() + b"\xff")])
def test_only_a_uri_is_an_identity(identity: Identity) -> None:
    assert read_party(identity, CALLEE) is None


def test_our_own_certificate_must_name_us_literally(new_certificate: Any) -> None:
    signer = generate_rsa()
    with pytest.raises(LocalError, match="does not name our identity"):
        Party(DIALLED, new_certificate(signer, CALLEE), signer)
