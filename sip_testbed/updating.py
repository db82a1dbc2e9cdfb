"""New keys for a running call by updates of its crypto session bundle (RFC 3830 §4.5), in the modes that have them.

The side that initiated the bundle sends them; the other one begins a new agreement if it wants new keys. An update
needs no certificate and no ledger: it is protected by the key that its parties share, or by its envelope key.
"""

from collections.abc import Sequence

from voice_dpki.effects import Clock, Random
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.mikey.bundle import Bundle
from voice_dpki.mikey.certified import CertifiedInitiator, KeyingAnswer
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Message
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.sdp import mikey_message, protocol_ids
from voice_dpki.mikey.shared import SharedInitiator
from voice_dpki.mikey.update import UpdateOffer, accept_update, offer_update
from voice_dpki.shell.trace import Tracer


class NoUpdateError(PeerError):
    """New keys take a new agreement: the call has no bundle of ours, or the other side refuses its update."""


class Updating:
    """The bundle of one call at a time: `forget` it when the call begins, and when it is over."""

    def __init__(self, tracer: Tracer, clock: Clock, random: Random, replays: ReplayCache | None = None) -> None:
        self._tracer = tracer
        self._clock = clock
        self._random = random
        self._replays = replays or ReplayCache(started_s=clock.steady_s())
        self._bundle: Bundle | None = None
        self._initiator: CertifiedInitiator | SharedInitiator | None = None
        """Our initiator whose offer began the bundle; None if the other side began it."""

    def of_call(self) -> "Updating":
        """Return the updates of another call, which has a bundle of its own."""
        return Updating(self._tracer, self._clock, self._random, self._replays)

    def forget(self) -> None:
        """Forget the bundle, and with it the key of its updates."""
        self._bundle = self._initiator = None

    def initiated(self, bundle: Bundle | None, initiator: CertifiedInitiator | SharedInitiator) -> None:
        """Take the bundle of an offer of ours that was answered; None in a mode that has no updates."""
        self._bundle, self._initiator = bundle, initiator

    def answered(self, bundle: Bundle | None) -> None:
        """Take the bundle of an offer or update that we have answered; None in a mode that has no updates."""
        self._bundle, self._initiator = bundle, None

    def offer(self) -> UpdateOffer:
        """Return an update of the call's bundle; raises NoUpdateError where new keys take a new agreement.

        That is so in modes without updates, in a bundle of the other side, and after the clock was set back.
        """
        if self._bundle is None or self._initiator is None:
            raise NoUpdateError("the call has no bundle of ours that could be updated")
        timestamp = self._initiator.next_timestamp(self._clock.now_s())
        try:
            offer = offer_update(self._bundle, timestamp, random=self._random)
        except LocalError as error:
            raise NoUpdateError(str(error)) from error
        self._tracer.note(f"MIKEY update offered ({self._bundle.profile})", step="MIKEY")
        return offer

    def is_update(self, key_mgmt: Sequence[str]) -> bool:
        """Tell whether an offer is for the call's bundle, which only an update may be; raises MikeyError."""
        octets = mikey_message(key_mgmt)
        return self._bundle is not None and Message.parse(octets).header.csb_id == self._bundle.keys.csb_id

    def accept(self, key_mgmt: Sequence[str]) -> KeyingAnswer:
        """Verify an update and make the answer; raises MikeyError, also for one that is not later than the last.

        `answered` takes the bundle of the answer once that is sent.
        """
        if self._bundle is None or self._initiator is not None:
            raise MikeyError(Failure.CSB_ID, "an update comes from the side alone that began the bundle")
        answer = accept_update(
            self._bundle,
            mikey_message(key_mgmt),
            self._replays,
            key_mgmt_ids=protocol_ids(key_mgmt),
            random=self._random,
            now_s=self._clock.now_s(),
            steady_s=self._clock.steady_s(),
        )
        self._agreed(answer.updated.keys)
        return KeyingAnswer(answer.message, answer.updated.keys, answer.updated.bundle)

    def confirm(self, offer: UpdateOffer, key_mgmt: Sequence[str]) -> SrtpKeys:
        """Verify the answer to an update; raises MikeyError."""
        updated = offer.confirm(mikey_message(key_mgmt))
        self._bundle = updated.bundle
        self._agreed(updated.keys)
        return updated.keys

    def _agreed(self, keys: SrtpKeys) -> None:
        self._tracer.note(f"MIKEY update, TEK agreed ({keys.profile})", step="MIKEY", ok=True)
