"""Signing of INVITEs: the same service as for JSON over HTTP, with the INVITE itself as the request."""

from dataclasses import dataclass, replace

from sipmessage import Request

from authn_server.config import SigningPeer
from authn_server.service import AuthnService
from voice_dpki.effects import Clock, Random
from voice_dpki.sip.message import encode
from voice_dpki.sip.redirect import Additions
from voice_dpki.stir.national import Country
from voice_dpki.wire.sip.asked import Terms, date_value, read_invite, signed, signing_of

OVER_HTTP = Terms()
"""A client with a token is trusted with the attestation, as in the other forms."""


@dataclass(frozen=True, slots=True)
class InviteSigner:
    """Signs INVITEs."""

    service: AuthnService
    clock: Clock
    random: Random
    country: Country | None = None
    """The country by whose dialling plan numbers are read."""

    async def sign_text(self, body: bytes, client: str = "") -> bytes:
        """Return the text of an INVITE from the `client` of that name with its Identity; raises RequestError."""
        request = read_invite(body)
        identity, iat_s = await self.sign(request, OVER_HTTP, client)
        return encode(signed(request, identity, iat_s))

    async def additions(self, request: Request, peer: SigningPeer) -> Additions:
        """Return what a SIP peer is to add to its INVITE; raises RequestError."""
        identity, iat_s = await self.sign(request, peer.terms, peer.name)
        has_date = request.headers.get("Date") is not None
        return Additions((("Identity", identity),), () if has_date else (("Date", date_value(iat_s)),))

    async def sign(self, request: Request, terms: Terms, client: str = "") -> tuple[str, int]:
        """Return the Identity of a client's INVITE, and the Unix time that it signs; raises RequestError."""
        asked = signing_of(request, terms, self.clock.now_s(), self.random, self.country)
        asked = replace(asked, source=replace(asked.source, peer=client))
        identity = await self.service.identity_for(asked)
        return identity.serialize(), asked.iat_s
