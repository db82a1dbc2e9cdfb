"""Keying of a user agent's calls by MIKEY, with the other side's certificate resolved at its own ledger node."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from copy import copy
from functools import partial
from typing import Any, ClassVar, Final, Protocol, Self, TypeAlias, TypeVar

from sip_testbed.credentials import Credentials
from sip_testbed.inquiry import Inquiry
from sip_testbed.pinning import PeerKey
from sip_testbed.rivals import Party
from sip_testbed.updating import Updating
from voice_dpki.codec.telephone import host_in_uri
from voice_dpki.effects import Clock, Random
from voice_dpki.ledger.answers import Resolution
from voice_dpki.mikey import dh
from voice_dpki.mikey.certified import CertifiedResponder, KeyingAnswer, Prepared
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Message
from voice_dpki.mikey.modern import ModernOffer
from voice_dpki.mikey.modes import Initiator, Offer, Responder
from voice_dpki.mikey.pke import PkeOffer
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.registry import DataType
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.rsa_r import ReverseOffer
from voice_dpki.mikey.sdp import mikey_message, protocol_ids
from voice_dpki.mikey.shared import SharedOffer
from voice_dpki.mikey.steps import AnyClaim, PeerClaim
from voice_dpki.mikey.update import UpdateOffer
from voice_dpki.shell.trace import Tracer, ms_since

PAIR_AFTER_S: Final = 1.0
"""Delay from the use of a key pair to the making of the next one; the call should be set up by then."""

_T = TypeVar("_T")
_O = TypeVar("_O")


AnyOffer: TypeAlias = Offer | PkeOffer | ReverseOffer | ModernOffer | SharedOffer
KeyOffer: TypeAlias = AnyOffer | UpdateOffer
"""Offers that can be made within a call."""

_NAMES: Final[dict[int, str]] = {
    DataType.DH_INIT: "DH-SIGN",
    DataType.PKE_INIT: "PKE",
    DataType.RSA_R_INIT: "RSA-R",
}


class KeyAgreement(Protocol[_O]):
    """Interface of each way of keying: `CertifiedKeying`, `ModernKeying` or `SharedKeying`."""

    profile: SrtpProfile
    ms: float

    @property
    def updating(self) -> Updating:
        """The updates of the call's bundle."""
        ...

    @property
    def peer_key(self) -> PeerKey | None:
        """How the other side's key of the last agreement is known; None where keys are shared."""
        ...

    @property
    def elements(self) -> Sequence[str]:
        """The network elements that the last agreement's certificate names; encryption ends there."""
        ...

    async def meet(self, responder_uri: str) -> None:
        """Look up what an offer to the Responder needs; raises MikeyError if that fails."""
        ...

    def begin_call(self, party: Party) -> None:
        """Begin a call with a `party`: all agreements of the call must show the key of the first one."""
        ...

    def of_call(self, party: Party) -> Self:
        """Return the keying of a concurrent call with a `party`. Only the original is closed."""
        ...

    def offer(self, responder_uri: str, lines: int = 1) -> _O:
        """Return the offer of a call, with its I_MESSAGE, for `lines` m-lines.

        Raises MikeyError if `meet` has not looked up what the offer needs.
        """
        ...

    async def accept(self, key_mgmt: Sequence[str], initiator_uri: str, lines: int = 1) -> KeyingAnswer:
        """Verify an offer that may key up to `lines` m-lines, and answer it; raises MikeyError.

        Pass the answer's bundle to `updating` only once the answer is sent: a refused call or change leaves none.
        """
        ...

    async def confirm(self, offer: _O, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify the answer to an offer; raises MikeyError."""
        ...

    def end(self, offer: _O) -> None:
        """Forget a crypto session bundle once its call is over."""
        ...

    async def keep_key(self) -> Sequence[str]:
        """Pin the key of the last agreement, if that is due: its owner has answered the call.

        Returns clauses for the report.
        """
        ...

    async def rivals(self) -> Sequence[str]:
        """Return clauses about other certificates for the parties of the last agreement (`rivals_of`)."""
        ...


async def offer_to(keying: KeyAgreement[_O] | None, responder_uri: str, lines: int = 1) -> _O | None:
    """Look up what the offer of a call for `lines` m-lines needs, and return it; raises MikeyError.

    Returns None for media in clear.
    """
    if keying is None:
        return None
    await keying.meet(responder_uri)
    return keying.offer(responder_uri, lines)


async def accept_again(
    keying: KeyAgreement[Any], key_mgmt: Sequence[str], initiator_uri: str, lines: int
) -> KeyingAnswer:
    """Answer an offer of other keys within a call: an update of its bundle, or an agreement.

    Raises MikeyError. As with `KeyAgreement.accept`, the bundle stays as it is until the answer is sent.
    """
    if keying.updating.is_update(key_mgmt):
        return keying.updating.accept(key_mgmt)
    return await keying.accept(key_mgmt, initiator_uri, lines)


async def confirm_again(
    keying: KeyAgreement[Any] | None, offer: KeyOffer | None, key_mgmt: Sequence[str]
) -> SrtpKeys | None:
    """Verify the answer to an offer of other keys within a call; raises MikeyError. None without such an offer."""
    if keying is None or offer is None:
        return None
    if isinstance(offer, UpdateOffer):
        return keying.updating.confirm(offer, key_mgmt)
    return await keying.confirm(offer, key_mgmt)


class _Pairs:
    """Diffie-Hellman key pairs that are made in advance, each for one exchange of any call."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._pair: dh.KeyPair | None = None
        self._making: asyncio.TimerHandle | None = None

    def take(self) -> dh.KeyPair | None:
        """Return the pair that was made in advance, if any, and schedule the next one after the call's set-up."""
        pair, self._pair = self._pair, None
        if self._making is None:
            self._making = asyncio.get_running_loop().call_later(PAIR_AFTER_S, self.make)
        return pair

    def make(self) -> None:
        """Make a pair now."""
        self._making, self._pair = None, dh.new_pair(self._random)

    def close(self) -> None:
        """Cancel the making of the next pair."""
        if self._making is not None:
            self._making.cancel()


class CertifiedKeying:
    """One user agent's side of all its key agreements by the standard modes. Call `close` at the end.

    Offers by DH-SIGN are answered whatever the mode of our own offers: such calls have forward secrecy.
    """

    name: ClassVar[str]
    """The name of the mode of our offers."""

    def __init__(
        self,
        credentials: Credentials,
        tracer: Tracer,
        clock: Clock,
        random: Random,
        domains: Collection[str] | None = None,
    ) -> None:
        """Keys are agreed only with parties of `domains`, in lower case; None for all."""
        self.profile = credentials.profile
        self.ms = 0.0
        """Time that the last agreement took on this side in milliseconds, including the ledger's answer."""
        self._tracer = tracer
        self._clock = clock
        self._random = random
        self._domains = domains
        self._replays = ReplayCache(started_s=clock.steady_s())
        self.updating = Updating(tracer, clock, random, self._replays)
        signing = Responder(credentials.party, self._replays, [credentials.profile])
        self._responders: dict[int, CertifiedResponder] = {signing.kind: signing}
        self._inquiry = Inquiry(credentials, tracer, clock)
        self._pairs = _Pairs(random)

    async def prepare(self) -> None:
        """Make a Diffie-Hellman pair and a first inquiry at the ledger, so that the first call need not wait.

        The inquiry is about our own certificate, so the log shows early what would make calls fail.
        """
        self._pairs.make()
        await self._inquiry.prepare()

    @property
    def peer_key(self) -> PeerKey | None:
        """How we know the other side's key, see `Inquiry`."""
        return self._inquiry.peer_key

    @property
    def elements(self) -> Sequence[str]:
        """Where encryption ends, see `Inquiry`."""
        return self._inquiry.elements

    async def close(self) -> None:
        """Close the connection to the ledger node."""
        self._pairs.close()
        await self._inquiry.aclose()

    def begin_call(self, party: Party) -> None:
        """Begin a call with a `party`, which must keep its key (`Inquiry.begin_call`)."""
        self._inquiry.begin_call(party)
        self.updating.forget()

    def of_call(self, party: Party) -> Self:
        """Return the keying of a concurrent call; see `KeyAgreement`."""
        other = copy(self)
        other._inquiry, other.updating = self._inquiry.of_call(), self.updating.of_call()
        other.begin_call(party)
        return other

    async def meet(self, responder_uri: str) -> None:
        """Do nothing: an offer needs only the Responder's URI."""

    async def accept(self, key_mgmt: Sequence[str], initiator_uri: str, lines: int = 1) -> KeyingAnswer:
        """Verify an offer that may key up to `lines` m-lines, and answer it; raises MikeyError."""
        began_s = time.perf_counter()
        octets, ids = mikey_message(key_mgmt), protocol_ids(key_mgmt)
        responder = self._responder_of(octets)
        claim = responder.receive(
            octets,
            initiator_uri=initiator_uri,
            key_mgmt_ids=ids,
            now_s=self._clock.now_s(),
            steady_s=self._clock.steady_s(),
            lines=lines,
        )
        prepared, found = await self._vouched(partial(self._prepared_by, responder), claim)
        now_s, steady_s = self._clock.now_s(), self._clock.steady_s()
        answer = responder.complete(prepared, found.recorded, now_s=now_s, steady_s=steady_s)
        await self._inquiry.compare(prepared.claim, found)
        self._agreed(began_s, _NAMES[responder.kind])
        return answer

    async def _confirm(self, offer: Offer | ReverseOffer, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify a signed answer, and ask the ledger about its sender; raises MikeyError."""
        began_s = time.perf_counter() - self.ms / 1000
        claim = offer.receive(mikey_message(key_mgmt), now_s=self._clock.now_s())
        prepared, found = await self._vouched(offer.prepare, claim)
        keys = offer.complete(prepared, found.recorded, now_s=self._clock.now_s())
        await self._inquiry.compare(prepared.claim, found)
        self._initiated(prepared, found)
        self._agreed(began_s, self.name)
        return keys

    def _initiated(self, prepared: Prepared[SrtpKeys], found: Resolution) -> None:
        """Keep what updates need of our answered offer: in most modes nothing."""
        self.updating.forget()

    def _answer_too(self, responder: CertifiedResponder) -> None:
        self._responders[responder.kind] = responder

    async def keep_key(self) -> Sequence[str]:
        """Pin the other side's key, see `Inquiry`."""
        return await self._inquiry.keep_key()

    async def rivals(self) -> Sequence[str]:
        """Return clauses about other certificates for the parties of the last agreement, and trace each."""
        return await self._inquiry.rivals()

    def _responder_of(self, octets: bytes) -> CertifiedResponder:
        kind = Message.parse(octets).header.data_type
        if kind not in self._responders:
            modes = " and ".join(_NAMES[each] for each in self._responders)
            raise MikeyError(Failure.DATA_TYPE, f"data type {kind} is no offer by {modes}, which are accepted here")
        return self._responders[kind]

    def _prepared_by(self, responder: CertifiedResponder, claim: PeerClaim) -> Prepared[KeyingAnswer]:
        if isinstance(responder, Responder):
            return responder.prepare(claim, random=self._random, pair=self._pairs.take())
        return responder.prepare(claim, random=self._random)

    def _offered(self, began_s: float) -> None:
        self.ms = ms_since(began_s)
        self._tracer.note(f"MIKEY {self.name} offered ({self.profile})", step="MIKEY", ms=self.ms)

    def _agreed(self, began_s: float, name: str) -> None:
        self.ms = ms_since(began_s)
        self._tracer.note(f"MIKEY {name}, TEK agreed ({self.profile})", step="MIKEY", ok=True, ms=self.ms)

    async def _vouched(
        self, prepare: Callable[[PeerClaim], Prepared[_T]], claim: AnyClaim
    ) -> tuple[Prepared[_T], Resolution]:
        """Return the result of `prepare` for a claim, and the resolution of its certificate; raises MikeyError."""
        self._check_domain(claim)
        if isinstance(claim, PeerClaim):
            return await self._resolve_during(partial(prepare, claim), claim)
        found = await self._resolve(claim, with_certificate=True)
        return prepare(claim.present(found.recorded, self._clock.now_s())), found

    def _check_domain(self, claim: AnyClaim) -> None:
        """Check the host of the ID, which is signed and for which the ledger vouches.

        The host of the URI in SIP is neither: the caller writes From.
        """
        if self._domains is not None and host_in_uri(claim.uri) not in self._domains:
            raise MikeyError(
                Failure.STRENGTH, f"the {claim.role}'s ID is at no domain from which {self.name} is accepted"
            )

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


class Keying(CertifiedKeying):
    """Keying by DH-SIGN."""

    name = "DH-SIGN"

    def __init__(
        self,
        credentials: Credentials,
        tracer: Tracer,
        clock: Clock,
        random: Random,
        domains: Collection[str] | None = None,
    ) -> None:
        """See `CertifiedKeying`."""
        super().__init__(credentials, tracer, clock, random, domains)
        self._initiator = Initiator(credentials.party)

    def offer(self, responder_uri: str, lines: int = 1) -> Offer:
        """Return the offer of a call, with its I_MESSAGE, for `lines` m-lines."""
        began_s = time.perf_counter()
        offer = self._initiator.offer(
            responder_uri=responder_uri,
            profile=self.profile,
            random=self._random,
            now_s=self._clock.now_s(),
            pair=self._pairs.take(),
            lines=lines,
        )
        self._offered(began_s)
        return offer

    async def confirm(self, offer: Offer, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify the answer to an offer; raises MikeyError."""
        return await self._confirm(offer, key_mgmt)

    def end(self, offer: Offer) -> None:
        """Forget a crypto session bundle once its call is over."""
        self._initiator.close(offer.csb_id)
