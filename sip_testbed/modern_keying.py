"""Keying of a user agent's calls by MIKEY's modern mode, and by DH-SIGN with peers that know no other."""

import time
from collections.abc import Sequence
from copy import copy
from typing import Final, Self, TypeAlias

from sip_testbed.credentials import ModernCredentials
from sip_testbed.inquiry import Inquiry
from sip_testbed.keying import Keying
from sip_testbed.pinning import PeerKey
from sip_testbed.rivals import Party
from sip_testbed.updating import Updating
from voice_dpki.codec.telephone import host_in_uri
from voice_dpki.effects import Clock, Random
from voice_dpki.ledger.answers import Resolution
from voice_dpki.mikey.agreement import Strength
from voice_dpki.mikey.certified import KeyingAnswer
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.modern import (
    ModernClaim,
    ModernInitiator,
    ModernOffer,
    ModernParty,
    ModernResponder,
    is_modern,
)
from voice_dpki.mikey.modes import Offer
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sdp import mikey_message, protocol_ids
from voice_dpki.shell.trace import Tracer, ms_since

_NAMES: Final = {Strength.MODERN: "modern", Strength.HYBRID: "hybrid"}

AnyModernOffer: TypeAlias = ModernOffer | Offer


class ModernKeying:
    """One user agent's side of all its key agreements; see `sip_testbed.keying.Keying`.

    Configuration decides the mode, and no other is tried. Peers of the standard domains are offered DH-SIGN and may
    offer it; from all others it is refused as too weak. The domain in the ID of the message decides, for which the
    ledger must vouch.
    """

    def __init__(self, credentials: ModernCredentials, tracer: Tracer, clock: Clock, random: Random) -> None:
        own, standard = credentials.own, credentials.standard
        self.profile = own.profile
        self.ms = 0.0
        """Time that the last agreement took on this side in milliseconds, including the ledger's answer."""
        self.peer_key: PeerKey | None = None
        self.elements: Sequence[str] = ()
        self._credentials = credentials
        self._tracer = tracer
        self._clock = clock
        self._random = random
        party = own.party
        assert isinstance(party, ModernParty)
        self._initiator = ModernInitiator(party)
        replays = ReplayCache(started_s=clock.steady_s())
        self._responder = ModernResponder(party, replays, [own.profile], least=credentials.least)
        self._inquiry = Inquiry(own, tracer, clock)
        domains = credentials.standard_domains
        self._standard = None if standard is None else Keying(standard, tracer, clock, random, domains)
        self._latest: Inquiry | Keying | None = None
        """The inquiry or keying of the last agreement; None before the first one of a call."""
        self._has_begun = False
        self.updating = Updating(tracer, clock, random)
        """Always empty: neither the modern mode nor DH-SIGN has updates here."""

    async def prepare(self) -> None:
        """Make a first inquiry at the ledger, so that the first call need not wait."""
        await self._inquiry.prepare()
        if self._standard is not None:
            await self._standard.prepare()

    async def close(self) -> None:
        """Close the connections to the ledger node."""
        await self._inquiry.aclose()
        if self._standard is not None:
            await self._standard.close()

    async def meet(self, responder_uri: str) -> None:
        """Do nothing: an offer needs only the Responder's URI."""

    def begin_call(self, party: Party) -> None:
        """Begin a call with a `party`, which must keep its key (`Inquiry.begin_call`)."""
        self._latest, self._has_begun = None, True
        self._inquiry.begin_call(party)
        if self._standard is not None:
            self._standard.begin_call(party)

    def of_call(self, party: Party) -> Self:
        """Return the keying of a concurrent call; see `KeyAgreement`."""
        other = copy(self)
        other._inquiry, other.updating = self._inquiry.of_call(), self.updating.of_call()
        other.peer_key, other.elements = None, ()
        if self._standard is not None:
            other._standard = self._standard.of_call(party)
        other.begin_call(party)
        return other

    def offer(self, responder_uri: str, lines: int = 1) -> AnyModernOffer:
        """Return the offer of a call, with its I_MESSAGE, for `lines` m-lines."""
        standard = self._standard_for(responder_uri)
        if standard is not None:
            offer = standard.offer(responder_uri, lines)
            self.ms = standard.ms
            return offer
        began_s = time.perf_counter()
        modern = self._initiator.offer(
            responder_uri=responder_uri,
            profile=self.profile,
            random=self._random,
            now_s=self._clock.now_s(),
            strength=self._credentials.strength,
            lines=lines,
        )
        self.ms = ms_since(began_s)
        text = f"MIKEY {_NAMES[modern.strength]} offered ({self.profile})"
        self._tracer.note(text, step="MIKEY", ms=self.ms)
        return modern

    async def accept(self, key_mgmt: Sequence[str], initiator_uri: str, lines: int = 1) -> KeyingAnswer:
        """Verify an offer that may key up to `lines` m-lines, and answer it; raises MikeyError."""
        began_s = time.perf_counter()
        octets = mikey_message(key_mgmt)
        standard = self._standard_for(initiator_uri)
        if standard is not None and not is_modern(octets):
            answer = await standard.accept(key_mgmt, initiator_uri, lines)
            self._go_by(standard)
            self.ms, self.peer_key, self.elements = standard.ms, standard.peer_key, standard.elements
            return answer
        claim = self._responder.receive(
            octets,
            initiator_uri=initiator_uri,
            key_mgmt_ids=protocol_ids(key_mgmt),
            now_s=self._clock.now_s(),
            steady_s=self._clock.steady_s(),
            lines=lines,
        )
        found = await self._resolve(claim)
        now_s, steady_s = self._clock.now_s(), self._clock.steady_s()
        answer = self._responder.complete(
            claim, found.recorded, random=self._random, now_s=now_s, steady_s=steady_s
        )
        await self._compare(claim, found)
        self._agreed(claim.strength, began_s)
        return answer

    async def confirm(self, offer: AnyModernOffer, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify the answer to an offer; raises MikeyError."""
        if isinstance(offer, Offer):
            return await self._confirm_standard(offer, key_mgmt)
        began_s = time.perf_counter() - self.ms / 1000
        claim = offer.receive(mikey_message(key_mgmt))
        found = await self._resolve(claim)
        keys = offer.complete(claim, found.recorded, now_s=self._clock.now_s())
        await self._compare(claim, found)
        self._agreed(offer.strength, began_s)
        return keys

    def end(self, offer: AnyModernOffer) -> None:
        """Forget a crypto session bundle once its call is over."""
        if isinstance(offer, ModernOffer):
            self._initiator.close(offer.csb_id)
        elif self._standard is not None:
            self._standard.end(offer)

    async def keep_key(self) -> Sequence[str]:
        """Pin the other side's key, see `Inquiry`."""
        return () if self._latest is None else await self._latest.keep_key()

    async def rivals(self) -> Sequence[str]:
        """Return clauses about other certificates for the parties of the last agreement, and trace each."""
        return () if self._latest is None else await self._latest.rivals()

    async def _confirm_standard(self, offer: Offer, key_mgmt: Sequence[str]) -> SrtpKeys:
        if self._standard is None:
            raise MikeyError(Failure.KEY_MGMT, "the offer was made with keys that this telephone does not have")
        keys = await self._standard.confirm(offer, key_mgmt)
        self._go_by(self._standard)
        self.ms, self.peer_key = self._standard.ms, self._standard.peer_key
        self.elements = self._standard.elements
        return keys

    def _standard_for(self, uri: str) -> Keying | None:
        """Return the keying by DH-SIGN if the party of `uri` is of a standard domain."""
        return self._standard if host_in_uri(uri) in self._credentials.standard_domains else None

    def _agreed(self, strength: Strength, began_s: float) -> None:
        self.ms = ms_since(began_s)
        text = f"MIKEY {_NAMES[strength]}, TEK agreed ({self.profile})"
        self._tracer.note(text, step="MIKEY", ok=True, ms=self.ms)

    async def _resolve(self, claim: ModernClaim) -> Resolution:
        return await self._inquiry.resolve(claim.role, claim.uri, claim.digest, with_certificate=True)

    async def _compare(self, claim: ModernClaim, found: Resolution) -> None:
        """Compare the other side's key with that of earlier calls; raises MikeyError (see `Inquiry.compare`)."""
        proven = claim.proven(found.recorded, self._clock.now_s())
        await self._inquiry.compare(proven, found)
        self._go_by(self._inquiry)
        self.peer_key, self.elements = self._inquiry.peer_key, self._inquiry.elements

    def _go_by(self, latest: Inquiry | Keying) -> None:
        """Note the inquiry or keying of an agreement; raises MikeyError if the call began with the other one."""
        if self._has_begun and self._latest not in (None, latest):
            raise MikeyError(Failure.PIN, "the call began in another mode, with another key of the other side")
        self._latest = latest
