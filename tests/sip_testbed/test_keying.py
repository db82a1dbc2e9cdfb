"""What a telephone demands of the other side's identity before it asks its ledger node."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sip_testbed.credentials import Credentials, ModernCredentials
from sip_testbed.enciphered_keying import PkeKeying
from sip_testbed.keying import Keying
from sip_testbed.modern_keying import ModernKeying
from tests.recorded import recorded
from voice_dpki.effects import SystemClock, SystemRandom
from voice_dpki.ledger.names import number_keys
from voice_dpki.ledger.signatures import key_id_of
from voice_dpki.mikey.agreement import Strength
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.modern import ModernInitiator, ModernParty
from voice_dpki.mikey.modes import Initiator, Responder
from voice_dpki.mikey.payloads import CertificateHash, DhValue
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sdp import key_mgmt_value
from voice_dpki.mikey.steps import PeerClaim
from voice_dpki.names import Tn
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.encipherment import LocalDecrypter
from voice_dpki.x509.keys import generate_es256, generate_rsa
from voice_dpki.x509.profile import build_certificate, digest_of, read_profile
from voice_dpki.x509.recorded import CertStatus
from voice_dpki.x509.tnauthlist import TnRange

CALLER, CALLEE = "sip:+493023125001@a.example", "sip:+442079460123@b.example"
HELD = Allotment(("a.example", "b.example"), (TnRange(Tn("493023125000"), 1000), TnRange(Tn("442079460000"), 1000)))
CLOCK, RANDOM = SystemClock(), SystemRandom()


def party(uri: str) -> Party:
    signer, now_s = generate_rsa(), int(CLOCK.now_s())
    certificate = build_certificate(
        signer, organization="Operator", common_name="user", uris=[uri], random=RANDOM,
        not_before_s=now_s - 60, not_after_s=now_s + 3600,
    )  # fmt: skip
    return Party(uri, certificate, signer)


class Unasked:
    """A ledger node that must not be asked."""

    def client(self, clock: object) -> "Unasked":
        return self

    async def resolve(self, *args: object, **options: object) -> None:
        raise AssertionError("the ledger was asked")

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    "uri", ["sip:alice@a.example", "sip:+493023125001;phone-context=a.example@a.example", "sip:*21#@a.example"]
)
async def test_a_caller_without_a_number_is_refused(uri: str) -> None:
    profile = SrtpProfile.AES_CM_128_HMAC_SHA1_80
    credentials = Credentials(party(CALLEE), profile, cast(Any, Unasked()))
    keying = Keying(credentials, cast(Any, SimpleNamespace()), CLOCK, RANDOM)
    offer = Initiator(party(uri)).offer(
        responder_uri=CALLEE, profile=profile, random=RANDOM, now_s=CLOCK.now_s() + 1
    )
    with pytest.raises(MikeyError, match="URI has no telephone number") as caught:
        await keying.accept([key_mgmt_value(offer.message)], uri)
    await keying.close()
    assert caught.value.failure is Failure.IDENTITY


class Listing(Unasked):
    """A ledger node with certificates of the callee's number."""

    def __init__(self, *found: tuple[int, CertStatus, bytes]) -> None:
        self.found = {digest_of(der): (height, status, der) for height, status, der in found}

    async def listed(self, keys: Any) -> list[Any]:
        assert list(keys) == number_keys(Tn("442079460123"))
        return [await self.resolve(digest) for digest in self.found]

    async def resolve(self, *args: Any, **_: object) -> Any:
        (digest,) = args
        height, status, der = self.found[digest]
        held = Allotment(("b.example",), (TnRange(Tn("442079460000"), 1000),))
        said = recorded(der, held, "Operator", status=status)
        return SimpleNamespace(
            digest=digest, status=status, height=9, recorded=replace(said, der=der),
            record=SimpleNamespace(recorded_height=height, key_id=key_id_of(read_profile(der).public_key_der)),
        )  # fmt: skip


def pke_with(ledger: Any) -> PkeKeying:
    own = party(CALLER)
    decrypter = LocalDecrypter.of(cast(Any, own.signer))
    profile = SrtpProfile.AES_CM_128_HMAC_SHA1_80
    credentials = Credentials(own, profile, ledger, mode="pke", decrypter=decrypter)
    return PkeKeying(credentials, cast(Any, SimpleNamespace(note=lambda *told, **how: None)), CLOCK, RANDOM)


async def test_the_newest_valid_certificate_of_the_callee_is_encrypted_to() -> None:
    old, new, revoked, other = (
        party(uri).certificate for uri in (CALLEE, CALLEE, CALLEE, "sip:+442079460124@b.example")
    )
    valid = CertStatus.VALID
    keying = pke_with(
        Listing((5, valid, old), (7, valid, new), (9, CertStatus.REVOKED, revoked), (8, valid, other))
    )
    await keying.meet(CALLEE)
    assert keying.offer(CALLEE).sent.one(CertificateHash).digest == digest_of(new)


async def test_an_offer_within_a_call_is_encrypted_to_the_key_that_it_began_with() -> None:
    """Whoever has the key that keys are encrypted to has those at once; so no newer one is let in."""
    old, new = (party(CALLEE).certificate for _ in range(2))
    ledger = Listing((5, CertStatus.VALID, old))
    keying = pke_with(ledger)

    async def offered_to() -> bytes:
        await keying.meet(CALLEE)
        return keying.offer(CALLEE).sent.one(CertificateHash).digest

    keying.begin_call("callee")
    assert await offered_to() == digest_of(old)
    claim = PeerClaim("Responder", CALLEE, keying.offer(CALLEE).sent, read_profile(old))
    await keying._inquiry.compare(claim, await ledger.resolve(digest_of(old)))
    ledger.found[digest_of(new)] = (7, CertStatus.VALID, new)
    assert await offered_to() == digest_of(old)
    ledger.found[digest_of(old)] = (5, CertStatus.REVOKED, old)
    with pytest.raises(MikeyError, match="no certificate of the Responder"):
        await offered_to()
    keying.begin_call("callee")
    assert await offered_to() == digest_of(new)


async def test_calls_beside_one_another_keep_keys_of_their_own() -> None:
    """As at a gateway, whose telephone may have two calls; each is held to the key that it began with."""
    callers = [party(CALLER) for _ in range(2)]
    ledger = cast(Any, Vouching(*(each.certificate for each in callers)))
    credentials = Credentials(party(CALLEE), SrtpProfile.AES_CM_128_HMAC_SHA1_80, ledger)
    keying = Keying(credentials, cast(Any, SimpleNamespace(note=lambda *told, **how: None)), CLOCK, RANDOM)
    calls = [keying.of_call("caller") for _ in callers]

    def offer(caller: Party) -> list[str]:
        given: dict[str, Any] = {"profile": keying.profile, "random": RANDOM, "now_s": CLOCK.now_s() + 1}
        return [key_mgmt_value(Initiator(caller).offer(responder_uri=CALLEE, **given).message)]

    for call, caller in zip(calls, callers, strict=True):
        await call.accept(offer(caller), CALLER)
    for call, caller in zip(calls, reversed(callers), strict=True):
        with pytest.raises(MikeyError, match="not the one with which the call began"):
            await call.accept(offer(caller), CALLER)
    keying._pairs.make()
    assert len({call.offer(CALLEE).sent.one(DhValue) for call in calls}) == 2  # a pair is for one exchange
    await keying.close()


async def test_without_a_certificate_of_the_callee_there_is_no_offer() -> None:
    keying = pke_with(Listing((9, CertStatus.REVOKED, party(CALLEE).certificate)))
    with pytest.raises(MikeyError, match="no certificate of the Responder") as caught:
        await keying.meet(CALLEE)
    assert caught.value.failure is Failure.LEDGER
    with pytest.raises(MikeyError, match="was not looked up"):
        keying.offer(CALLEE)
    with pytest.raises(MikeyError, match="no telephone number"):
        await keying.meet("sip:alice@b.example")


class Vouching:
    """A ledger node that vouches for certificates."""

    def __init__(self, *ders: bytes) -> None:
        self.held = {digest_of(der): der for der in ders}

    def client(self, clock: object) -> "Vouching":
        return self

    async def aclose(self) -> None:
        pass

    async def resolve(self, digest: Any, *, with_certificate: bool) -> Any:
        said = recorded(self.held[digest], HELD, "Operator", height=2)
        return SimpleNamespace(recorded=said, status=CertStatus.VALID, height=2)


def modern_party(uri: str) -> ModernParty:
    signer, now_s = generate_es256(), int(CLOCK.now_s())
    certificate = build_certificate(
        signer, organization="Operator", common_name="user", uris=[uri], random=RANDOM,
        not_before_s=now_s - 60, not_after_s=now_s + 3600,
    )  # fmt: skip
    return ModernParty(uri, certificate, signer)


@pytest.mark.parametrize("began_modern", [True, False])
async def test_a_call_keeps_the_mode_that_it_began_in(began_modern: bool) -> None:
    """Each mode has a key of its own, so the other mode would let another key in."""
    profile = SrtpProfile.AES_CM_128_HMAC_SHA1_80
    caller, standard_caller = modern_party(CALLER), party(CALLER)
    ledger = cast(Any, Vouching(caller.certificate, standard_caller.certificate))
    own, standard = (Credentials(each, profile, ledger) for each in (modern_party(CALLEE), party(CALLEE)))
    credentials = ModernCredentials(own, standard=standard, standard_domains=frozenset({"a.example"}))
    tracer = cast(Any, SimpleNamespace(note=lambda *given, **more: None))
    keying = ModernKeying(credentials, tracer, CLOCK, RANDOM)
    modern, dh_sign = ModernInitiator(caller), Initiator(standard_caller)

    def offer(is_modern: bool) -> list[str]:
        given: dict[str, Any] = {"responder_uri": CALLEE, "profile": profile, "random": RANDOM}
        given["now_s"] = CLOCK.now_s() + 1
        made = modern.offer(**given, strength=Strength.MODERN) if is_modern else dh_sign.offer(**given)
        return [key_mgmt_value(made.message)]

    for _ in range(2):
        keying.begin_call("caller")
        await keying.accept(offer(began_modern), CALLER)
        with pytest.raises(MikeyError, match="the call began in another mode") as caught:
            await keying.accept(offer(not began_modern), CALLER)
        assert caught.value.failure is Failure.PIN
        await keying.accept(offer(began_modern), CALLER)
    await keying.close()


def with_a_standard_domain(domain: str, own_uri: str, *others: Party) -> ModernKeying:
    """A telephone that agrees on keys by DH-SIGN with the parties of one domain."""
    profile, ledger = (
        SrtpProfile.AES_CM_128_HMAC_SHA1_80,
        cast(Any, Vouching(*(each.certificate for each in others))),
    )
    own, standard = (Credentials(each, profile, ledger) for each in (modern_party(own_uri), party(own_uri)))
    credentials = ModernCredentials(own, standard=standard, standard_domains=frozenset({domain}))
    tracer = cast(Any, SimpleNamespace(note=lambda *given, **more: None))
    return ModernKeying(credentials, tracer, CLOCK, RANDOM)


@pytest.mark.parametrize("host", ["a.example", "b.example"])
async def test_dh_sign_is_accepted_by_the_domain_in_the_id_not_by_that_in_from(host: str) -> None:
    """From is what the caller writes; the ID is what it signs, and what the ledger vouches for."""
    caller = party(f"sip:+493023125001@{host}")
    keying = with_a_standard_domain("a.example", CALLEE, caller)
    given: dict[str, Any] = {"profile": keying.profile, "random": RANDOM, "now_s": CLOCK.now_s() + 1}
    offer = [key_mgmt_value(Initiator(caller).offer(responder_uri=CALLEE, **given).message)]
    if host == "a.example":
        assert (await keying.accept(offer, CALLER)).keys
    else:
        with pytest.raises(MikeyError, match="ID is at no domain from which DH-SIGN is accepted") as caught:
            await keying.accept(offer, CALLER)
        assert caught.value.failure is Failure.STRENGTH
    await keying.close()


@pytest.mark.parametrize("host", ["a.example", "b.example"])
async def test_a_number_dialled_at_a_standard_domain_is_not_answered_from_another(host: str) -> None:
    callee = party(f"sip:+442079460123@{host}")
    keying = with_a_standard_domain("b.example", CALLER, callee)
    offer = keying.offer(CALLEE)
    responder = Responder(callee, ReplayCache(started_s=0.0))
    now_s = CLOCK.now_s()
    claim = responder.receive(
        offer.message, initiator_uri=CALLER, key_mgmt_ids=("mikey",), now_s=now_s, steady_s=now_s
    )
    assert isinstance(claim, PeerClaim)
    answer = [
        key_mgmt_value(
            responder.prepare(claim, random=RANDOM)
            .release(recorded(claim.certificate.der, HELD, "Operator"), now_s)
            .message
        )
    ]
    if host == "b.example":
        assert await keying.confirm(offer, answer)
    else:
        with pytest.raises(MikeyError, match="ID is at no domain from which DH-SIGN is accepted") as caught:
            await keying.confirm(offer, answer)
        assert caught.value.failure is Failure.STRENGTH
    await keying.close()
