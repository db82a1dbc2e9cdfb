"""Keying of a user agent's calls by the modes of MIKEY that encrypt keys to a certificate, PKE and RSA-R."""

import time
from collections.abc import Sequence
from typing import Final

from sip_testbed.credentials import Credentials
from sip_testbed.keying import CertifiedKeying
from voice_dpki.effects import Clock, Decrypter, Random
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answers import Resolution
from voice_dpki.mikey.certified import Prepared
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.pke import PkeInitiator, PkeOffer, PkeResponder, Recipient
from voice_dpki.mikey.rsa_r import PreparedReverse, ReverseInitiator, ReverseOffer, ReverseResponder
from voice_dpki.mikey.sdp import mikey_message
from voice_dpki.mikey.steps import PeerClaim
from voice_dpki.shell.trace import Tracer

MAX_MET: Final = 64
"""Most parties whose certificates are kept for offers to them; the oldest entry is dropped first."""


class PkeKeying(CertifiedKeying):
    """Keying by PKE: `meet` finds the Responder's certificate, to which `offer` encrypts the keys."""

    name = "PKE"

    def __init__(self, credentials: Credentials, tracer: Tracer, clock: Clock, random: Random) -> None:
        super().__init__(credentials, tracer, clock, random)
        self._initiator = PkeInitiator(credentials.party)
        profiles, decrypter = [credentials.profile], _decrypter(credentials)
        self._answer_too(PkeResponder(credentials.party, decrypter, self._replays, profiles))
        self._met: dict[str, tuple[Recipient, Resolution]] = {}
        self._offered_to: dict[int, tuple[Recipient, Resolution]] = {}

    async def meet(self, responder_uri: str) -> None:
        """Ask the ledger for the Responder's certificate; raises MikeyError if it has none to encrypt to."""
        found = await self._inquiry.recipient(responder_uri)
        self._met.pop(responder_uri, None)
        while len(self._met) >= MAX_MET:
            del self._met[next(iter(self._met))]
        self._met[responder_uri] = found

    def offer(self, responder_uri: str, lines: int = 1) -> PkeOffer:
        """Return the offer of a call, with its I_MESSAGE, for `lines` m-lines.

        Raises MikeyError if `meet` has not found the certificate of this party.
        """
        began_s = time.perf_counter()
        found = self._met.get(responder_uri)
        if found is None:
            raise MikeyError(Failure.CERTIFICATE, "the Responder's certificate was not looked up")
        offer = self._initiator.offer(
            found[0], profile=self.profile, random=self._random, now_s=self._clock.now_s(), lines=lines
        )
        self._offered_to[offer.csb_id] = found
        self._offered(began_s)
        return offer

    async def confirm(self, offer: PkeOffer, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify the answer to an offer; raises MikeyError. The peer's key is that of its certificate."""
        began_s = time.perf_counter() - self.ms / 1000
        keys = offer.confirm(mikey_message(key_mgmt))
        recipient, found = self._offered_to[offer.csb_id]
        claim = PeerClaim("Responder", recipient.uri, offer.sent, recipient.certificate)
        await self._inquiry.compare(claim, found)
        self.updating.initiated(offer.bundle(mikey_message(key_mgmt)), self._initiator)
        self._agreed(began_s, self.name)
        return keys

    def end(self, offer: PkeOffer) -> None:
        """Forget a crypto session bundle once its call is over."""
        self._initiator.close(offer.csb_id)
        self._offered_to.pop(offer.csb_id, None)


class ReverseKeying(CertifiedKeying):
    """Keying by RSA-R: the Responder encrypts the keys to our certificate."""

    name = "RSA-R"

    def __init__(self, credentials: Credentials, tracer: Tracer, clock: Clock, random: Random) -> None:
        super().__init__(credentials, tracer, clock, random)
        self._initiator = ReverseInitiator(credentials.party, _decrypter(credentials))
        self._answer_too(ReverseResponder(credentials.party, self._replays, [credentials.profile]))

    def offer(self, responder_uri: str, lines: int = 1) -> ReverseOffer:
        """Return the offer of a call, with its I_MESSAGE, for `lines` m-lines."""
        began_s = time.perf_counter()
        offer = self._initiator.offer(
            responder_uri=responder_uri,
            profile=self.profile,
            random=self._random,
            now_s=self._clock.now_s(),
            lines=lines,
        )
        self._offered(began_s)
        return offer

    async def confirm(self, offer: ReverseOffer, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify the answer to an offer; raises MikeyError."""
        return await self._confirm(offer, key_mgmt)

    def _initiated(self, prepared: Prepared[SrtpKeys], found: Resolution) -> None:
        """Keep the bundle, unless the Responder forbids caching of its envelope key."""
        assert isinstance(prepared, PreparedReverse)
        bundle = prepared.release_bundle(found.recorded, self._clock.now_s())
        self.updating.initiated(bundle, self._initiator)

    def end(self, offer: ReverseOffer) -> None:
        """Forget a crypto session bundle once its call is over."""
        self._initiator.close(offer.csb_id)


def _decrypter(credentials: Credentials) -> Decrypter:
    if credentials.decrypter is None:
        raise LocalError("a mode of MIKEY that encrypts to certificates needs the key that decrypts")
    return credentials.decrypter
