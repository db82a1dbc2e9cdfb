"""Keying of a user agent's calls by MIKEY, with the other side's certificate resolved at its own ledger node."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeAlias, TypeVar

from sip_testbed.credentials import Credentials
from sip_testbed.inquiry import Inquiry
from sip_testbed.pinning import PeerKey
from voice_dpki.effects import Clock, Random
from voice_dpki.ledger.answers import Resolution
from voice_dpki.mikey import dh
from voice_dpki.mikey.certified import KeyingAnswer, Prepared
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.modern import ModernOffer
from voice_dpki.mikey.modes import Initiator, Offer, Responder
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sdp import mikey_message, protocol_ids
from voice_dpki.mikey.shared import SharedOffer
from voice_dpki.mikey.steps import AnyClaim, PeerClaim
from voice_dpki.shell.trace import Tracer, ms_since

PAIR_AFTER_S: Final = 1.0
"""Delay before the next key pair is made after one was used, by which time the call should be set up."""

_T = TypeVar("_T")
_O = TypeVar("_O")


AnyOffer: TypeAlias = Offer | ModernOffer | SharedOffer


class KeyAgreement(Protocol[_O]):
    """What a telephone needs of each way of keying: `Keying`, `ModernKeying` or `SharedKeying`."""

    profile: SrtpProfile
    ms: float

    @property
    def peer_key(self) -> PeerKey | None:
        """How the other side's key of the last agreement is known; None where keys are shared."""
        ...

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

    async def rivals(self) -> Sequence[str]:
        """Return clauses about other certificates for the parties of the last agreement (`rivals_of`)."""
        ...


class Keying:
    """One user agent's side of all its key agreements. Call `close` at the end."""

    def __init__(self, credentials: Credentials, tracer: Tracer, clock: Clock, random: Random) -> None:
        self.profile = credentials.profile
        self.ms = 0.0
        """Time that the last agreement took on this side in milliseconds, including the ledger's answer."""
        self._tracer = tracer
        self._clock = clock
        self._random = random
        self._initiator = Initiator(credentials.party)
        replays = ReplayCache(started_s=clock.steady_s())
        self._responder = Responder(credentials.party, replays, [credentials.profile])
        self._inquiry = Inquiry(credentials, tracer, clock)
        self._pair: dh.KeyPair | None = None
        self._making: asyncio.TimerHandle | None = None

    async def prepare(self) -> None:
        """Make a Diffie-Hellman pair and a first inquiry at the ledger, to spare the first call the wait.

        The inquiry is about our own certificate, which reveals early what would make calls fail.
        """
        self._make_pair()
        await self._inquiry.prepare()

    @property
    def peer_key(self) -> PeerKey | None:
        """How we know the other side's key, see `Inquiry`."""
        return self._inquiry.peer_key

    async def close(self) -> None:
        """Close the connection to the ledger node."""
        if self._making is not None:
            self._making.cancel()
        await self._inquiry.aclose()

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
        prepare = partial(self._responder.prepare, random=self._random, pair=self._take_pair())
        prepared, found = await self._vouched(prepare, claim)
        now_s, steady_s = self._clock.now_s(), self._clock.steady_s()
        answer = self._responder.complete(prepared, found.recorded, now_s=now_s, steady_s=steady_s)
        await self._inquiry.compare(prepared.claim, found, called=False)
        self._agreed(began_s)
        return answer

    async def confirm(self, offer: Offer, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify the answer to an offer; raises MikeyError."""
        began_s = time.perf_counter() - self.ms / 1000
        claim = offer.receive(mikey_message(key_mgmt), now_s=self._clock.now_s())
        prepared, found = await self._vouched(offer.prepare, claim)
        keys = offer.complete(prepared, found.recorded, now_s=self._clock.now_s())
        await self._inquiry.compare(prepared.claim, found, called=True)
        self._agreed(began_s)
        return keys

    def end(self, offer: Offer) -> None:
        """Forget a crypto session bundle once its call is over."""
        self._initiator.close(offer.csb_id)

    async def rivals(self) -> Sequence[str]:
        """Return clauses about other certificates for the parties of the last agreement, and trace each."""
        return await self._inquiry.rivals()

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

    async def _vouched(
        self, prepare: Callable[[PeerClaim], Prepared[_T]], claim: AnyClaim
    ) -> tuple[Prepared[_T], Resolution]:
        """Do what the certificate is needed for, and return that and what the ledger says; raises MikeyError."""
        if isinstance(claim, PeerClaim):
            return await self._resolve_during(partial(prepare, claim), claim)
        found = await self._resolve(claim, with_certificate=True)
        return prepare(claim.present(found.recorded, self._clock.now_s())), found

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

    async def _resolve(self, claim: AnyClaim, *, with_certificate: bool = False) -> Resolution:
        return await self._inquiry.resolve(claim.role, claim.uri, claim.digest, with_certificate=with_certificate)
