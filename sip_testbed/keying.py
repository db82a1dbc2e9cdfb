"""Keying of a user agent's calls by MIKEY, with the other side's certificate resolved at its own ledger node."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeAlias, TypeVar

from sip_testbed.pinning import PeerKey, Pinning, Standing
from sip_testbed.user_agent_config import Credentials
from voice_dpki.codec.telephone import number_in_uri
from voice_dpki.effects import Clock, Random
from voice_dpki.ledger.answers import InquiryError, Resolution
from voice_dpki.mikey import dh
from voice_dpki.mikey.certified import KeyingAnswer
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.modes import Initiator, Offer, Responder
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sdp import mikey_message, protocol_ids
from voice_dpki.mikey.shared import SharedOffer
from voice_dpki.mikey.steps import PeerClaim
from voice_dpki.shell.trace import Tracer, ms_since
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import CertStatus

log = logging.getLogger(__name__)

PAIR_AFTER_S: Final = 1.0
"""Delay before the next key pair is made after one was used, by which time the call should be set up."""

_T = TypeVar("_T")
_O = TypeVar("_O")


AnyOffer: TypeAlias = Offer | SharedOffer


class KeyAgreement(Protocol[_O]):
    """What a telephone needs of either way of keying, `Keying` or `SharedKeying`."""

    profile: SrtpProfile
    ms: float
    peer_key: PeerKey | None
    """How the other side's key of the last agreement is known; None where keys are shared."""

    def offer(self, responder_uri: str) -> _O:
        """Return the offer of a call, with its I_MESSAGE."""
        ...

    async def accept(self, key_mgmt: Sequence[str], initiator_uri: str) -> KeyingAnswer:
        """Verify an offer and answer it; raises MikeyError."""
        ...

    async def confirm(self, offer: _O, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify the answer to an offer; raises MikeyError."""
        ...

    def end(self, offer: _O) -> None:
        """Forget a crypto session bundle once its call is over."""
        ...


class Keying:
    """One user agent's side of all its key agreements. Call `close` at the end."""

    def __init__(self, credentials: Credentials, tracer: Tracer, clock: Clock, random: Random) -> None:
        self.profile = credentials.profile
        self._party = credentials.party
        self.ms = 0.0
        """Time that the last agreement took on this side in milliseconds, including the ledger's answer."""
        self.peer_key: PeerKey | None = None
        self._tracer = tracer
        self._clock = clock
        self._random = random
        self._initiator = Initiator(credentials.party)
        replays = ReplayCache(started_s=clock.steady_s())
        self._responder = Responder(credentials.party, replays, [credentials.profile])
        self._ledger = credentials.ledger.client(clock)
        pins = credentials.pins
        self._pinning = None if pins is None else Pinning(pins, self._ledger, tells=credentials.tells_changed_keys)
        self._pair: dh.KeyPair | None = None
        self._making: asyncio.TimerHandle | None = None

    async def prepare(self) -> None:
        """Make a Diffie-Hellman pair and a first inquiry at the ledger, to spare the first call the wait.

        The inquiry is about our own certificate, which reveals early what would make calls fail.
        """
        self._make_pair()
        try:
            own = await self._ledger.resolve(digest_of(self._party.certificate), with_certificate=False)
        except InquiryError as error:
            log.warning("our ledger node cannot be relied on", extra={"fields": {"reason": str(error)}})
        else:
            fields = {"status": str(own.status), "height": own.height}
            log.info("our own certificate", extra={"fields": fields})

    async def close(self) -> None:
        """Close the connection to the ledger node."""
        if self._making is not None:
            self._making.cancel()
        await self._ledger.aclose()

    def offer(self, responder_uri: str) -> Offer:
        """Return the offer of a call, with its I_MESSAGE."""
        began_s = time.perf_counter()
        offer = self._initiator.offer(
            responder_uri=responder_uri,
            profile=self.profile,
            random=self._random,
            now_s=self._clock.now_s(),
            pair=self._take_pair(),
        )
        self.ms = ms_since(began_s)
        self._tracer.note(f"MIKEY DH-SIGN offered ({self.profile})", step="MIKEY", ms=self.ms)
        return offer

    async def accept(self, key_mgmt: Sequence[str], initiator_uri: str) -> KeyingAnswer:
        """Verify an offer and answer it; raises MikeyError."""
        began_s = time.perf_counter()
        octets, ids = mikey_message(key_mgmt), protocol_ids(key_mgmt)
        claim = self._responder.receive(
            octets,
            initiator_uri=initiator_uri,
            key_mgmt_ids=ids,
            now_s=self._clock.now_s(),
            steady_s=self._clock.steady_s(),
        )
        prepare = partial(self._responder.prepare, claim, random=self._random, pair=self._take_pair())
        prepared, found = await self._resolve_during(prepare, claim)
        now_s, steady_s = self._clock.now_s(), self._clock.steady_s()
        answer = self._responder.complete(prepared, found.recorded, now_s=now_s, steady_s=steady_s)
        await self._compare(claim, found, called=False)
        self._agreed(began_s)
        return answer

    async def confirm(self, offer: Offer, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify the answer to an offer; raises MikeyError."""
        began_s = time.perf_counter() - self.ms / 1000
        claim = offer.receive(mikey_message(key_mgmt), now_s=self._clock.now_s())
        prepared, found = await self._resolve_during(partial(offer.prepare, claim), claim)
        keys = offer.complete(prepared, found.recorded, now_s=self._clock.now_s())
        await self._compare(claim, found, called=True)
        self._agreed(began_s)
        return keys

    def end(self, offer: Offer) -> None:
        """Forget a crypto session bundle once its call is over."""
        self._initiator.close(offer.csb_id)

    async def _compare(self, claim: PeerClaim, found: Resolution, *, called: bool) -> None:
        """Compare the other side's key with that of earlier calls, pin it if that is due, and tell `peer_key`.

        Raises MikeyError for another key (`Pinning.check`); the agreement then is to be forgotten.
        """
        if self._pinning is None:
            return
        key = await self._pinning.check(claim, found)
        told = await self._pinning.keep(claim, key, self._clock.now_s(), called=called)
        self.peer_key = PeerKey(key.standing, (*key.remarks, *told))
        if called or key.standing is not Standing.FIRST:
            fits = key.standing is not Standing.CHANGED
            self._tracer.note(f"key of {claim.uri}: {key.standing.about}", step="MIKEY pin", ok=fits)

    def _agreed(self, began_s: float) -> None:
        self.ms = ms_since(began_s)
        self._tracer.note(f"MIKEY DH-SIGN, TEK agreed ({self.profile})", step="MIKEY", ok=True, ms=self.ms)

    def _take_pair(self) -> dh.KeyPair | None:
        """Return the pair that was made in advance, if any, and schedule the next one after the call's set-up."""
        pair, self._pair = self._pair, None
        if self._making is None:
            self._making = asyncio.get_running_loop().call_later(PAIR_AFTER_S, self._make_pair)
        return pair

    def _make_pair(self) -> None:
        self._making, self._pair = None, dh.new_pair(self._random)

    async def _resolve_during(self, work: Callable[[], _T], claim: PeerClaim) -> tuple[_T, Resolution]:
        """Do `work` during the inquiry about a certificate; raises MikeyError, that of `work` first."""
        asking = asyncio.ensure_future(self._resolve(claim))
        try:
            for _ in range(2):  # one turn of the loop to write the inquiry, one to send it
                await asyncio.sleep(0)
            done = work()
        except BaseException:
            asking.cancel()
            raise
        return done, await asking

    async def _resolve(self, claim: PeerClaim) -> Resolution:
        """Return what our own ledger node proves of a certificate; raises MikeyError, also without an answer.

        An identity without a number is refused, too: telephones here are identified by numbers alone.
        `Prepared.release` checks that the number is allotted to the operator that recorded the certificate.
        """
        began_s = time.perf_counter()
        if number_in_uri(claim.uri) is None:
            raise MikeyError(Failure.IDENTITY, f"the {claim.role}'s URI has no telephone number")
        try:
            resolution = await self._ledger.resolve(claim.digest, with_certificate=False)
        except InquiryError as error:
            raise MikeyError(Failure.LEDGER, f"the {claim.role}'s certificate is not resolved: {error}") from None
        status, height = resolution.status, resolution.height
        text = f"certificate of {claim.uri} {status} on the ledger at height {height}"
        self._tracer.note(text, step="MIKEY ledger", ok=status is CertStatus.VALID, ms=ms_since(began_s))
        return resolution
