"""Two parties of the modern mode, and an exchange between them whose every part a test can bend."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.mikey.conftest import CALLEE, CALLER, NOW_S, CountingRandom, certificate_for
from tests.recorded import recorded as say_recorded
from voice_dpki.mikey.agreement import Strength
from voice_dpki.mikey.certified import KeyingAnswer
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Header, Message, serialize
from voice_dpki.mikey.modern import ModernClaim, ModernInitiator, ModernOffer, ModernParty, ModernResponder
from voice_dpki.mikey.payloads import Payload, Signature
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.names import Tn
from voice_dpki.x509.allotment import Allotment
from voice_dpki.x509.keys import LocalSigner
from voice_dpki.x509.recorded import RecordedCertificate
from voice_dpki.x509.tnauthlist import TnRange

HELD = Allotment(("a.example", "b.example"), (TnRange(Tn("493023125000"), 100), TnRange(Tn("442079460000"), 1000)))
"""What the operator of both parties holds."""


def party(signer: LocalSigner, uri: str) -> ModernParty:
    """A party whose certificate names `uri`."""
    return ModernParty(uri, certificate_for(signer, uri), signer)


def vouched(party: ModernParty, **said: Any) -> RecordedCertificate:
    """What the ledger says of a party's certificate."""
    return replace(say_recorded(party.certificate, HELD, "Operator", height=9), **said)


@dataclass
class ModernCall:
    """One exchange at NOW_S; the halves are separate, so that a test may change what passes between them."""

    caller: ModernParty
    callee: ModernParty
    strength: Strength = Strength.MODERN
    profile: SrtpProfile = SrtpProfile.AES_CM_128_HMAC_SHA1_80
    random: CountingRandom = field(default_factory=lambda: CountingRandom("modern"))
    accepted: tuple[SrtpProfile, ...] = tuple(SrtpProfile)
    least: Strength = Strength.MODERN
    started_s: float = NOW_S - 10
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.initiator = ModernInitiator(self.caller)
        self.responder = ModernResponder(
            self.callee, ReplayCache(self.started_s), self.accepted, least=self.least, **self.options
        )

    def offer(self, now_s: float = NOW_S) -> ModernOffer:
        return self.initiator.offer(
            responder_uri=CALLEE,
            profile=self.profile,
            random=self.random,
            now_s=now_s,
            strength=self.strength,
        )

    def receive(self, octets: bytes, *, ids: tuple[str, ...] = ("mikey",), now_s: float = NOW_S) -> ModernClaim:
        return self.responder.receive(octets, initiator_uri=CALLER, key_mgmt_ids=ids, now_s=now_s, steady_s=now_s)

    def accept(
        self, octets: bytes, recorded: RecordedCertificate | None = None, now_s: float = NOW_S
    ) -> KeyingAnswer:
        claim = self.receive(octets, now_s=now_s)
        return self.responder.complete(
            claim, recorded or vouched(self.caller), random=self.random, now_s=now_s, steady_s=now_s
        )

    def read_answer(
        self, offer: ModernOffer, octets: bytes, recorded: RecordedCertificate | None = None
    ) -> SrtpKeys:
        return offer.complete(offer.receive(octets), recorded or vouched(self.callee), now_s=NOW_S)


def resign(
    octets: bytes, signer: LocalSigner, context: bytes, change: Callable[[Header, list[Payload]], Any]
) -> bytes:
    """Change a message and sign it again: what a peer with a good key and bad manners would send."""
    message = Message.parse(octets)
    payloads = list(message.payloads[:-1])
    header = change(message.header, payloads) or message.header
    unsigned = serialize(header, (*payloads, Signature(15, bytes(64))))[:-64]
    return unsigned + signer.sign(context + unsigned)
