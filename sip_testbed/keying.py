"""How a user agent keys its calls: MIKEY, with the other side's certificate resolved on its own ledger node."""

import logging
import time
from collections.abc import Sequence

from sip_testbed.user_agent_config import Credentials
from voice_dpki.effects import Clock, Random
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.answers import InquiryError, Resolution
from voice_dpki.ledger.client import LedgerClient
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.modes import Answer, Initiator, Offer, Responder
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sdp import mikey_message, protocol_ids
from voice_dpki.mikey.steps import PeerClaim, Recorded
from voice_dpki.shell.trace import Tracer
from voice_dpki.sip.message import parse_uri
from voice_dpki.stir.tn import canonical_tn
from voice_dpki.x509.profile import digest_of

log = logging.getLogger(__name__)


class Keying:
    """One user agent's side of all its key agreements. `close` it."""

    def __init__(self, credentials: Credentials, tracer: Tracer, clock: Clock, random: Random) -> None:
        self.profile = credentials.profile
        self._party = credentials.party
        self.ms = 0.0
        """Time that the last agreement took on this side, the ledger's answer included."""
        self._tracer = tracer
        self._clock = clock
        self._random = random
        self._initiator = Initiator(credentials.party)
        replays = ReplayCache(started_s=clock.now_s())
        self._responder = Responder(credentials.party, replays, [credentials.profile])
        self._ledger = LedgerClient.of_genesis(
            credentials.ledger_url, credentials.genesis, clock=clock, max_age_s=credentials.max_age_s
        )

    async def prepare(self) -> None:
        """Ask the ledger for our own certificate: tells early what would make calls fail, and warms the way up."""
        try:
            own = await self._ledger.resolve(digest_of(self._party.certificate), with_certificate=False)
        except InquiryError as error:
            log.warning("our ledger node cannot be relied on", extra={"fields": {"reason": str(error)}})
        else:
            fields = {"status": str(own.status), "height": own.height}
            log.info("our own certificate", extra={"fields": fields})

    async def close(self) -> None:
        """Close the connection to the ledger node."""
        await self._ledger.aclose()

    def offer(self, responder_uri: str) -> Offer:
        """Make the I_MESSAGE of a call."""
        began_s = time.perf_counter()
        offer = self._initiator.offer(
            responder_uri=responder_uri, profile=self.profile, random=self._random, now_s=self._clock.now_s()
        )
        self.ms = _since_ms(began_s)
        self._tracer.note(f"MIKEY DH-SIGN offered ({self.profile})", step="MIKEY", ms=self.ms)
        return offer

    async def accept(self, key_mgmt: Sequence[str], initiator_uri: str) -> Answer:
        """Verify an offer and answer it; raises MikeyError."""
        began_s = time.perf_counter()
        octets, ids = mikey_message(key_mgmt), protocol_ids(key_mgmt)
        claim = self._responder.receive(
            octets, initiator_uri=initiator_uri, key_mgmt_ids=ids, now_s=self._clock.now_s()
        )
        recorded = await self._resolve(claim)
        answer = self._responder.complete(claim, recorded, random=self._random, now_s=self._clock.now_s())
        self._agreed(began_s)
        return answer

    async def confirm(self, offer: Offer, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify the answer to an offer; raises MikeyError."""
        began_s = time.perf_counter() - self.ms / 1000
        claim = offer.receive(mikey_message(key_mgmt), now_s=self._clock.now_s())
        keys = offer.complete(claim, await self._resolve(claim))
        self._agreed(began_s)
        return keys

    def end(self, offer: Offer) -> None:
        """Forget a bundle, once its call is over."""
        self._initiator.close(offer.csb_id)

    def _agreed(self, began_s: float) -> None:
        self.ms = _since_ms(began_s)
        self._tracer.note(f"MIKEY DH-SIGN, TEK agreed ({self.profile})", step="MIKEY", ok=True, ms=self.ms)

    async def _resolve(self, claim: PeerClaim) -> Recorded:
        """Ask our own ledger node about a certificate; no answer is a refusal."""
        try:
            resolution = await self._ledger.resolve(claim.digest, with_certificate=False)
        except InquiryError as error:
            raise MikeyError(Failure.LEDGER, f"the {claim.role}'s certificate is not resolved: {error}") from None
        _check_number(claim, resolution)
        status, height = resolution.status, resolution.height
        text = f"certificate of {claim.uri} {status} on the ledger at height {height}"
        self._tracer.note(text, step="MIKEY ledger", ok=status == "valid")
        domains = resolution.member.domains if resolution.member else ()
        return Recorded(claim.digest, status, height, domains)


def _check_number(claim: PeerClaim, resolution: Resolution) -> None:
    """Demand that the number in the URI is one that the ledger allots to the recording operator."""
    member = resolution.member
    try:
        number = canonical_tn(parse_uri(claim.uri).user or "")
    except MalformedError as error:
        raise MikeyError(Failure.IDENTITY, f"the {claim.role}'s URI has no telephone number: {error}") from None
    if member is not None and not any(allotted.covers(number) for allotted in member.ranges):
        whose = f"the operator that recorded the {claim.role}'s certificate"
        raise MikeyError(Failure.LEDGER, f"{whose} is not allotted the number of its URI")


def _since_ms(began_s: float) -> float:
    return round((time.perf_counter() - began_s) * 1000, 3)
