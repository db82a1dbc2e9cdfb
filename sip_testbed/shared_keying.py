"""Keying of a user agent's calls under keys that it shares with others: PSK and DHHMAC, without a ledger."""

import time
from collections.abc import Sequence
from copy import copy
from typing import Self

from sip_testbed.pinning import PeerKey
from sip_testbed.rivals import Party
from sip_testbed.updating import Updating
from sip_testbed.user_agent_config import SharedCredentials
from voice_dpki.codec.telephone import is_same_party
from voice_dpki.effects import Clock, Random
from voice_dpki.mikey.certified import KeyingAnswer
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sdp import mikey_message, protocol_ids
from voice_dpki.mikey.shared import SharedInitiator, SharedOffer, SharedResponder
from voice_dpki.shell.trace import Tracer, ms_since

_NAMES = {"psk": "PSK", "dhhmac": "DHHMAC"}


class SharedKeying:
    """One user agent's side of all its key agreements under shared keys; see `sip_testbed.keying.Keying`."""

    def __init__(self, credentials: SharedCredentials, tracer: Tracer, clock: Clock, random: Random) -> None:
        self.profile = credentials.profile
        self.ms = 0.0
        self.peer_key: PeerKey | None = None
        self._credentials = credentials
        self._tracer = tracer
        self._clock = clock
        self._random = random
        self._initiator = SharedInitiator(credentials.uri, self._key_of)
        replays = ReplayCache(started_s=clock.steady_s())
        self.elements: Sequence[str] = ()
        """Always empty: no certificate names elements where a key is shared."""
        self.updating = Updating(tracer, clock, random, replays)
        self._responder = SharedResponder(credentials.uri, self._key_of, replays, [credentials.profile])

    async def prepare(self) -> None:
        """Do nothing: there is no ledger to ask."""

    async def close(self) -> None:
        """Do nothing."""

    async def meet(self, responder_uri: str) -> None:
        """Find out whether a key is shared with the Responder; raises MikeyError if not."""
        if self._key_of(responder_uri) is None:
            raise MikeyError(Failure.IDENTITY, "no key is shared with the Responder")

    def begin_call(self, party: Party) -> None:
        """Forget the bundle of the call before; the holder of the shared key is the party."""
        self.updating.forget()

    def of_call(self, party: Party) -> Self:
        """Return the keying of a concurrent call."""
        other = copy(self)
        other.updating = self.updating.of_call()
        return other

    def offer(self, responder_uri: str, lines: int = 1) -> SharedOffer:
        """Return the offer of a call for `lines` m-lines.

        Raises LocalError if no key is shared with the Responder, which `meet` checks.
        """
        began_s = time.perf_counter()
        is_psk = self._credentials.mode == "psk"
        make = self._initiator.offer_psk if is_psk else self._initiator.offer_dhhmac
        offer: SharedOffer = make(
            responder_uri=responder_uri,
            profile=self.profile,
            random=self._random,
            now_s=self._clock.now_s(),
            lines=lines,
        )
        self.ms = ms_since(began_s)
        self._tracer.note(f"MIKEY {self._name} offered ({self.profile})", step="MIKEY", ms=self.ms)
        return offer

    async def accept(self, key_mgmt: Sequence[str], initiator_uri: str, lines: int = 1) -> KeyingAnswer:
        """Verify an offer that may key up to `lines` m-lines, and answer it; raises MikeyError."""
        began_s = time.perf_counter()
        answer = self._responder.accept(
            mikey_message(key_mgmt),
            initiator_uri=initiator_uri,
            key_mgmt_ids=protocol_ids(key_mgmt),
            random=self._random,
            now_s=self._clock.now_s(),
            steady_s=self._clock.steady_s(),
            lines=lines,
        )
        self._agreed(began_s)
        return answer

    async def confirm(self, offer: SharedOffer, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify the answer to an offer; raises MikeyError."""
        began_s = time.perf_counter() - self.ms / 1000
        octets = mikey_message(key_mgmt)
        keys = offer.confirm(octets)
        self.updating.initiated(offer.bundle(octets), self._initiator)
        self._agreed(began_s)
        return keys

    def end(self, offer: SharedOffer) -> None:
        """Forget a crypto session bundle once its call is over."""
        self._initiator.close(offer.csb_id)

    async def keep_key(self) -> Sequence[str]:
        """Return nothing: the holder of the shared key is the party."""
        return ()

    async def rivals(self) -> Sequence[str]:
        """Return nothing: there are no certificates."""
        return ()

    @property
    def _name(self) -> str:
        return _NAMES[self._credentials.mode]

    def _agreed(self, began_s: float) -> None:
        self.ms = ms_since(began_s)
        text = f"MIKEY {self._name}, TEK agreed ({self.profile})"
        self._tracer.note(text, step="MIKEY", ok=True, ms=self.ms)

    def _key_of(self, uri: str) -> bytes | None:
        """Return the key that is shared with the party of a URI, whatever domain its number was dialled at."""
        shared = self._credentials.shared
        return next((key for peer, key in shared.items() if is_same_party(peer, uri)), None)
