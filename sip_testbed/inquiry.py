"""A telephone's checks of the other side's certificate, against the ledger and against the key of earlier calls."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from typing import Final

from sip_testbed.credentials import Credentials
from sip_testbed.pinning import PeerKey, Pinning, Standing
from sip_testbed.rivals import Party, rivals_of
from voice_dpki.codec.telephone import number_in_uri
from voice_dpki.effects import Clock
from voice_dpki.ledger.answers import InquiryError, Resolution
from voice_dpki.ledger.names import number_keys
from voice_dpki.ledger.signatures import key_id_of
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.pke import Recipient, recipient_of
from voice_dpki.mikey.steps import PeerClaim
from voice_dpki.names import CertDigest, Tn
from voice_dpki.shell.trace import Tracer, ms_since
from voice_dpki.x509.elements import elements_of
from voice_dpki.x509.profile import digest_of, read_profile
from voice_dpki.x509.recorded import CertStatus

log = logging.getLogger(__name__)

MAX_CERTIFICATES: Final = 16
"""Most certificates of a number that are tried to find one to encrypt to."""

_PARTIES: dict[str, Party] = {"Initiator": "caller", "Responder": "callee"}
"""The party that the other side is, by its role in MIKEY, if `begin_call` was not called."""


class Inquiry:
    """Inquiries at a telephone's own ledger node, and its pins. Call `aclose` at the end."""

    def __init__(self, credentials: Credentials, tracer: Tracer, clock: Clock) -> None:
        self.peer_key: PeerKey | None = None
        """How we know the key of the last agreement's other side; None where keys are not pinned."""
        self.elements: tuple[str, ...] = ()
        """The network elements, such as gateways, in the last agreement's certificate: they hold the media keys."""
        self._own = credentials.party
        self._peer: PeerClaim | None = None
        self._party: Party | None = None
        self._to_pin: tuple[PeerClaim, PeerKey] | None = None
        """The claim and the key of the last agreement, until `keep_key` pins it."""
        self._began_with: bytes | None = None
        """The other side's key in this call's first agreement."""
        self._tracer = tracer
        self._clock = clock
        self._ledger = credentials.ledger.client(clock)
        pins = credentials.pins
        self._pinning = None if pins is None else Pinning(pins, self._ledger, tells=credentials.tells_changed_keys)

    async def aclose(self) -> None:
        """Close the connection to the ledger node."""
        await self._ledger.aclose()

    async def prepare(self) -> None:
        """Make a first inquiry, so that the first call need not wait for the connection.

        The inquiry is about our own certificate, so the log shows early what would make calls fail.
        """
        try:
            own = await self._ledger.resolve(digest_of(self._own.certificate), with_certificate=False)
        except InquiryError as error:
            log.warning("our ledger node cannot be relied on", extra={"fields": {"reason": str(error)}})
        else:
            fields = {"status": str(own.status), "height": own.height}
            log.info("our own certificate", extra={"fields": fields})

    async def resolve(self, role: str, uri: str, digest: CertDigest, *, with_certificate: bool) -> Resolution:
        """Return what our own ledger node proves of the certificate of the `role` in MIKEY.

        Raises MikeyError, also if the node does not answer. An identity without a number is refused, too: here
        telephones are identified by numbers alone. Not checked here: whether the number is allotted to the operator
        that recorded the certificate.
        """
        began_s = time.perf_counter()
        if number_in_uri(uri) is None:
            raise MikeyError(Failure.IDENTITY, f"the {role}'s URI has no telephone number")
        try:
            resolution = await self._ledger.resolve(digest, with_certificate=with_certificate)
        except InquiryError as error:
            raise MikeyError(Failure.LEDGER, f"the {role}'s certificate is not resolved: {error}") from None
        self._note(uri, resolution, began_s)
        return resolution

    async def recipient(self, uri: str) -> tuple[Recipient, Resolution]:
        """Return the party `uri` with its newest certificate that keys can be encrypted to, and its resolution.

        With pins, it is the newest whose key is the pinned one or follows it, and within a call the newest with the
        key that the call began with. A number has other certificates, too, which sign calls or key media otherwise.

        Raises MikeyError, also if the node does not answer, and for another key (`Pinning.check_recipient`).
        """
        began_s, number = time.perf_counter(), number_in_uri(uri)
        if number is None:
            raise MikeyError(Failure.IDENTITY, "the Responder's URI has no telephone number")
        try:
            recipient, found = await self._first_recipient(uri, await self._candidates(uri, number))
            if self._pinning is not None:
                await self._pinning.check_recipient(recipient, found)
        except InquiryError as error:
            sentence = f"the Responder's certificate is not resolved: {error}"
            raise MikeyError(Failure.LEDGER, sentence) from None
        self._note(recipient.uri, found, began_s)
        return recipient, found

    async def _candidates(self, uri: str, number: Tn) -> Sequence[Resolution]:
        """Return the valid certificates of a number in the order in which they are tried.

        Within a call, only those with the key that the call began with.
        """
        listed = await self._ledger.listed(number_keys(number))
        newest = sorted(filter(_is_valid, listed), key=_recorded_at, reverse=True)
        known = newest if self._pinning is None else await self._pinning.known_first(uri, newest)
        if self._began_with is None:
            return known
        return [each for each in known if each.record and each.record.key_id == self._began_with]

    async def _first_recipient(self, uri: str, candidates: Sequence[Resolution]) -> tuple[Recipient, Resolution]:
        """Return the party with the first certificate that keys can be encrypted to; raises MikeyError for none."""
        for each in candidates[:MAX_CERTIFICATES]:
            found = await self._ledger.resolve(each.digest)
            with suppress(MikeyError):
                return recipient_of(found.recorded, uri, self._clock.now_s()), found
        raise MikeyError(Failure.LEDGER, "the ledger has no certificate of the Responder to encrypt keys to")

    def _note(self, uri: str, found: Resolution, began_s: float) -> None:
        text = f"certificate of {uri} {found.status} on the ledger at height {found.height}"
        self._tracer.note(text, step="MIKEY ledger", ok=found.status is CertStatus.VALID, ms=ms_since(began_s))

    def of_call(self) -> "Inquiry":
        """Return an inquiry for another concurrent call, with state of its own. Only the original is closed."""
        other = copy(self)
        other.peer_key, other.elements = None, ()
        other._peer = other._party = other._began_with = other._to_pin = None
        return other

    def begin_call(self, party: Party) -> None:
        """Begin a call with a `party`: all agreements of the call must show the key of the first one."""
        self._party, self._began_with, self._peer, self.peer_key = party, None, None, None
        self._to_pin = None

    async def compare(self, claim: PeerClaim, found: Resolution) -> None:
        """Compare the other side's key with that of earlier calls, and set `peer_key`.

        Only `keep_key` pins it: a telephone of a forked call may agree on keys and never answer.

        Raises MikeyError for another key (`Pinning.check`), and for another one than earlier in this call; the
        caller must then forget the agreement.
        """
        self._to_pin = None
        party, key_id = self._party or _PARTIES[claim.role], key_id_of(claim.certificate.public_key_der)
        if self._began_with not in (None, key_id):
            raise MikeyError(Failure.PIN, f"the {claim.role}'s key is not the one with which the call began")
        if self._pinning is not None:
            await self._compare_pin(self._pinning, claim, found, party)
        self._peer, self._began_with = claim, key_id if self._party else None
        self.elements = elements_of(claim.certificate)
        if self.elements:
            self._tracer.note(f"encryption ends at {', '.join(self.elements)}", step="MIKEY", ok=True)

    async def _compare_pin(self, pinning: Pinning, claim: PeerClaim, found: Resolution, party: Party) -> None:
        key = await pinning.check(claim, found, party)
        self.peer_key, self._to_pin = key, (claim, key)
        if party == "callee" or key.standing is not Standing.FIRST:
            fits = key.standing is not Standing.CHANGED
            self._tracer.note(f"key of {claim.uri}: {key.standing.about}", step="MIKEY pin", ok=fits)

    async def keep_key(self) -> Sequence[str]:
        """Pin the key that the last agreement showed, if that is due (`Pinning.keep`): its owner has answered.

        Returns clauses for the call's report.
        """
        pinning, due, self._to_pin = self._pinning, self._to_pin, None
        if pinning is None or due is None:
            return ()
        claim, key = due
        return await pinning.keep(claim, key, self._clock.now_s(), self._party or _PARTIES[claim.role])

    async def rivals(self) -> Sequence[str]:
        """Return clauses about other certificates for the parties of the last agreement, and trace each."""
        if self._peer is None:
            return ()
        own, party = read_profile(self._own.certificate), self._party or _PARTIES[self._peer.role]
        told = await rivals_of(self._ledger, self._peer, party, self._own.uri, own)
        for clause in told:
            self._tracer.note(clause, step="MIKEY ledger", ok=False)
        return told


def _is_valid(found: Resolution) -> bool:
    return found.status is CertStatus.VALID


def _recorded_at(found: Resolution) -> int:
    return found.record.recorded_height if found.record else 0
