"""Two parties with certificates of the profile, and an exchange between them whose every part a test can bend."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.recorded import recorded as say_recorded
from voice_dpki.mikey.certified import KeyingAnswer, Party
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.modes import Initiator, Offer, Responder
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.registry import Prf
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.steps import PeerClaim
from voice_dpki.names import Tn
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.keys import LocalSigner, generate_rsa
from voice_dpki.x509.profile import build_certificate
from voice_dpki.x509.recorded import CertStatus, RecordedCertificate
from voice_dpki.x509.tnauthlist import TnRange

NOW_S = 1_790_000_000.0
CALLER, CALLEE = "sip:+493023125001@a.example", "sip:+442079460123@b.example"


@dataclass
class CountingRandom:
    """Random bytes that are the same in every run."""

    seed: str
    drawn: int = 0

    def token(self, size: int) -> bytes:
        self.drawn += 1
        return hashlib.shake_256(f"{self.seed}/{self.drawn}".encode()).digest(size)


def certificate_for(signer: LocalSigner, *uris: str, **times: int) -> bytes:
    validity: dict[str, Any] = {"not_before_s": int(NOW_S) - 3600, "not_after_s": int(NOW_S) + 3600} | times
    return build_certificate(
        signer, organization="Operator", common_name="user", uris=uris, random=CountingRandom(uris[0]), **validity
    )


@dataclass
class Call:
    """One exchange at NOW_S; the halves are separate, so that a test may change what passes between them."""

    caller: Party
    callee: Party
    profile: SrtpProfile = SrtpProfile.AES_CM_128_HMAC_SHA1_80
    prf: Prf = Prf.HMAC_SHA_256
    random: CountingRandom = field(default_factory=lambda: CountingRandom("call"))
    accepted: tuple[SrtpProfile, ...] = tuple(SrtpProfile)
    started_s: float = NOW_S - 10
    steady_s: float | None = None

    def __post_init__(self) -> None:
        self.initiator = Initiator(self.caller)
        self.responder = Responder(self.callee, ReplayCache(self.started_s), self.accepted)

    def offer(self, now_s: float = NOW_S) -> Offer:
        return self.initiator.offer(
            responder_uri=self.callee.uri,
            profile=self.profile,
            random=self.random,
            now_s=now_s,
            prf=self.prf,
        )

    def receive(self, octets: bytes, *, ids: tuple[str, ...] = ("mikey",), now_s: float = NOW_S) -> PeerClaim:
        clocks: dict[str, Any] = self.clocks(now_s)
        claim = self.responder.receive(octets, initiator_uri=self.caller.uri, key_mgmt_ids=ids, **clocks)
        assert isinstance(claim, PeerClaim)
        return claim

    def clocks(self, now_s: float) -> dict[str, float]:
        """The wall clock shows `now_s`; the monotonic one is level with it unless `steady_s` says otherwise."""
        return {"now_s": now_s, "steady_s": now_s if self.steady_s is None else self.steady_s}

    def answer(self, claim: PeerClaim, now_s: float = NOW_S) -> KeyingAnswer:
        return self.complete(claim, recorded(claim), now_s)

    def complete(self, claim: PeerClaim, record: RecordedCertificate, now_s: float = NOW_S) -> KeyingAnswer:
        prepared = self.responder.prepare(claim, random=self.random)
        return self.responder.complete(prepared, record, **self.clocks(now_s))

    def accept(self, octets: bytes) -> KeyingAnswer:
        return self.answer(self.receive(octets))

    def read_answer(self, offer: Offer, octets: bytes) -> object:
        claim = offer.receive(octets, now_s=NOW_S)
        assert isinstance(claim, PeerClaim)
        return offer.complete(offer.prepare(claim), recorded(claim), now_s=NOW_S)


def recorded(
    claim: PeerClaim,
    status: CertStatus = CertStatus.VALID,
    domains: tuple[str, ...] = ("a.example", "b.example"),
    ranges: tuple[TnRange, ...] = (TnRange(Tn("493023125000"), 100), TnRange(Tn("442079460000"), 1000)),
    **said: Any,
) -> RecordedCertificate:
    held = Allotment(domains, ranges)
    return say_recorded(claim.certificate.der, held, "Operator", status=status, height=9, **said)


def secrets_of(keys: SrtpKeys) -> tuple[object, ...]:
    """What an agreement gave one side, to compare with the other's."""
    return keys.profile, *((stream.ssrc, stream.tek, stream.salt) for stream in (keys.send, keys.receive))


@pytest.fixture(scope="session")
def signers() -> tuple[LocalSigner, LocalSigner]:
    return generate_rsa(), generate_rsa()


@pytest.fixture(scope="session")
def parties(signers: tuple[LocalSigner, LocalSigner]) -> tuple[Party, Party]:
    caller, callee = signers
    return (
        Party(CALLER, certificate_for(caller, CALLER), caller),
        Party(CALLEE, certificate_for(callee, CALLEE), callee),
    )


@pytest.fixture
def call(parties: tuple[Party, Party]) -> Call:
    return Call(*parties)


@pytest.fixture
def new_call(parties: tuple[Party, Party]) -> Callable[..., Call]:
    return lambda **options: Call(*parties, **options)


@pytest.fixture
def new_certificate() -> Callable[..., bytes]:
    return certificate_for


@pytest.fixture
def new_party(signers: tuple[LocalSigner, LocalSigner]) -> Callable[[str], Party]:
    return lambda uri: Party(uri, certificate_for(signers[0], uri), signers[0])


@pytest.fixture
def new_record() -> Callable[..., RecordedCertificate]:
    return recorded
