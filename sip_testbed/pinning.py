"""Key pinning: a telephone compares the other side's key with the one that the same party had before.

The ledger says that the operator which holds a number recorded a certificate for it. That operator could record a
second one, for a key of its own, and answer in the subscriber's place. So the telephone pins the key of each party
that it calls, and accepts another key only as the pinned one's successor: the ledger records a renewal only with a
signature by the old key. Any other key is refused, or only reported if the configuration says so.

docs/trust.md explains what this protects against, and what not.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sip_testbed.pin_store import Pin, PinStore
from sip_testbed.rivals import Party
from voice_dpki.codec.telephone import number_in_uri
from voice_dpki.errors import LocalError
from voice_dpki.ledger.answers import InquiryError, Resolution
from voice_dpki.ledger.signatures import key_id_of
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.pke import Recipient
from voice_dpki.mikey.steps import PeerClaim
from voice_dpki.names import Tn
from voice_dpki.wire.ledger.client import LedgerClient
from voice_dpki.x509.recorded import CertStatus

log = logging.getLogger(__name__)

MAX_LINKS: Final = 16
"""Most renewals in a row between two calls to the same party; each costs an inquiry."""

MAX_FOLLOWED: Final = 16
"""Most certificates of a party whose renewals are followed to find one to encrypt to."""

_OLD: Final = {
    CertStatus.VALID: "its certificate is valid on the ledger, too",
    CertStatus.UNKNOWN: "its certificate is no longer on the ledger",
}


class Standing(StrEnum):
    """How a telephone knows the other side's key; result.json has these values."""

    FIRST = "first"
    """There was nothing to compare it with."""
    KNOWN = "known"
    """It is the key of earlier calls."""
    RENEWED = "renewed"
    """The key of earlier calls has signed, on the ledger, for the certificate of this one."""
    CHANGED = "changed"
    """It is another one, and the configuration has such calls reported and not refused."""

    @property
    def about(self) -> str:
        """The same as a clause about the key."""
        return _ABOUT[self]


_ABOUT: Final = {
    Standing.FIRST: "no other one is known",
    Standing.KNOWN: "that of earlier calls",
    Standing.RENEWED: "signed for by that of earlier calls",
    Standing.CHANGED: "another one than in earlier calls",
}


@dataclass(frozen=True, slots=True)
class PeerKey:
    """The other side's key as we know it, and a clause about it for the call's report, if there is one to tell."""

    standing: Standing
    remarks: tuple[str, ...] = ()
    pin: Pin | None = None
    """The pin with which it was compared."""


class Pinning:
    """The pins of a telephone, and what its ledger node proves of renewals."""

    def __init__(self, store: PinStore, ledger: LedgerClient, *, tells: bool = False) -> None:
        """With `tells`, a changed key is only reported and logged, and the call goes on."""
        self._store = store
        self._ledger = ledger
        self._tells = tells

    async def check(self, claim: PeerClaim, found: Resolution, party: Party) -> PeerKey:
        """Compare a party's key with its pin; `found` is what the ledger says of the certificate of its claim.

        Raises MikeyError for another key that does not follow the pinned one, unless such calls are only reported.
        """
        pin = self._pin_of(_number(claim.role, claim.uri))
        if pin is None:
            return PeerKey(Standing.FIRST)
        if key_id_of(claim.certificate.public_key_der) == pin.key_id:
            return PeerKey(Standing.KNOWN, pin=pin)
        try:
            if await self._follows(found, pin):
                return PeerKey(Standing.RENEWED, pin=pin)
            sentence = await self._changed(pin, found)
        except InquiryError as error:
            told = f"the {claim.role}'s key is not the one of earlier calls, and whether it follows is not known"
            raise MikeyError(Failure.PIN, f"{told}: {error}") from None
        log.warning("another key than before", extra={"fields": {"party": claim.role, "reason": sentence}})
        if not self._tells:
            raise MikeyError(Failure.PIN, f"the {claim.role}'s {sentence}")
        return PeerKey(Standing.CHANGED, (f"the {party}'s {sentence}",), pin)

    async def known_first(self, uri: str, listed: Sequence[Resolution]) -> list[Resolution]:
        """Return the certificates of a party, those first whose key is the pinned one or follows it.

        Apart from that their order stays. At most MAX_FOLLOWED renewed ones are followed back. Raises MikeyError,
        and InquiryError.
        """
        pin = self._pin_of(_number("Responder", uri))
        if pin is None:
            return list(listed)
        known = {each.digest for each in listed if each.record and each.record.key_id == pin.key_id}
        renewed = [each for each in listed if each.record and each.record.replaces and each.digest not in known]
        known |= {each.digest for each in renewed[:MAX_FOLLOWED] if await self._follows(each, pin)}
        return sorted(listed, key=lambda each: each.digest not in known)

    async def check_recipient(self, recipient: Recipient, found: Resolution) -> None:
        """Check the key of a party before keys are encrypted to it: its holder can read them at once.

        `found` is what the ledger says of its certificate. Raises MikeyError for a key that is not the pinned one
        and does not follow it, unless such calls are only reported, and InquiryError.
        """
        pin = None if self._tells else self._pin_of(_number("Responder", recipient.uri))
        if pin is None or key_id_of(recipient.certificate.public_key_der) == pin.key_id:
            return
        if not await self._follows(found, pin):
            raise MikeyError(Failure.PIN, f"the Responder's {await self._changed(pin, found)}")

    async def keep(self, claim: PeerClaim, key: PeerKey, now_s: float, party: Party) -> Sequence[str]:
        """Pin the key of a party that has answered, if we called it, or if the key follows the pin.

        A party that only calls us is not pinned, so that strangers cannot fill the file. A pin that another call
        has written since the comparison stays. Returns remarks for the report.
        """
        if key.standing is not Standing.RENEWED and not (party == "callee" and key.standing is Standing.FIRST):
            return ()
        profile = claim.certificate
        pin = Pin(
            number=_number(claim.role, claim.uri),
            uri=claim.uri,
            digest=claim.digest,
            key_id=key_id_of(profile.public_key_der),
            organization=profile.organization or "",
            since_s=int(now_s),
        )
        try:
            await asyncio.to_thread(self._store.keep, pin, key.pin)
        except LocalError as error:
            log.error("a key cannot be pinned", extra={"fields": {"reason": str(error)}})
            return (f"the {party}'s key could not be pinned: the log says why",)
        return ()

    def _pin_of(self, number: Tn) -> Pin | None:
        try:
            return self._store.find(number)
        except LocalError as error:
            log.error("pins cannot be read", extra={"fields": {"reason": str(error)}})
            raise MikeyError(Failure.PIN, "the keys of earlier calls cannot be read here") from None

    async def _follows(self, found: Resolution, pin: Pin) -> bool:
        """Return whether renewals on the ledger lead from the pinned certificate or key to that of `found`."""
        record = found.record
        for _ in range(MAX_LINKS):
            if record is None or record.replaces is None:
                return False
            if record.replaces == pin.digest:
                return True
            record = (await self._ledger.resolve(record.replaces, with_certificate=False)).record
            if record is not None and record.key_id == pin.key_id:
                return True
        return False

    async def _changed(self, pin: Pin, found: Resolution) -> str:
        """Return a clause about a key that does not follow the pinned one, with what may explain it."""
        old = await self._ledger.resolve(pin.digest, with_certificate=False)
        told = _OLD.get(old.status, f"its certificate is {old.status} on the ledger")
        clause = f"key is not the one of earlier calls, which has not signed for it; {told}"
        recorder = found.record.organization if found.record else pin.organization
        if recorder != pin.organization:
            clause += f", and was recorded by {pin.organization}, this one by {recorder}"
        return clause


def _number(role: str, uri: str) -> Tn:
    """Return the number that identifies a party; raises MikeyError if its URI has none."""
    number = number_in_uri(uri)
    if number is None:
        raise MikeyError(Failure.IDENTITY, f"the {role}'s URI has no telephone number")
    return number
