"""Re-INVITEs within a call through the gateway: those that change nothing are answered, and others are refused.

A session timer (RFC 4028) has one side repeat its description, so that both know that the call is still up. The
keys are those that the call began with. An answer that says otherwise ends the call, as its media would be lost.
"""

import logging
from dataclasses import dataclass
from typing import Final

from sip_testbed.gateway_rules import reasons
from voice_dpki.errors import MalformedError
from voice_dpki.sip.dtls_sdp import DTLS_PROTOCOLS, DtlsDescription
from voice_dpki.sip.offer_answer import check_answer
from voice_dpki.sip.sdes import CRYPTO, MAX_CRYPTOS, Crypto, NotSupportedError
from voice_dpki.sip.sdp import SessionDescription
from voice_dpki.wire.sip.call import Leg
from voice_dpki.wire.sip.changes import Reinvite

log = logging.getLogger(__name__)

NOT_ACCEPTABLE: Final = 488


@dataclass(frozen=True, slots=True)
class Described:
    """What both sides of one leg have said last, and what of it holds now that the call is up."""

    ours: SessionDescription
    """Our description, with nothing but what was agreed: it answers, too."""
    theirs: SessionDescription
    """The other side's, as it came."""
    agreed: SessionDescription
    """The other side's one section, with the key and the side of the handshake that were agreed alone."""

    def is_repeated_by(self, offer: bytes) -> bool:
        """Tell whether an offer says what the other side has said before, but for the number of the version.

        An empty one, which asks for our offer, changes nothing either. Raises MalformedError.
        """
        return not offer or _compared(SessionDescription.parse(offer)) == _compared(self.theirs)

    def check_answer(self, answer: bytes) -> None:
        """Raise MalformedError for an answer to `ours` with other keys or addresses than were agreed."""
        read = SessionDescription.parse(answer)
        check_answer(self.ours, read)
        if _what_counts(read) != _what_counts(self.agreed):
            raise MalformedError("the answer to a refresh changes keys, addresses or directions of the media")


def keep_up(leg: Leg, described: Described, name: str) -> None:
    """Answer the leg's refreshes, send those that are ours, and refuse changes; `name` is the gateway's.

    The call ends if an answer to a description of ours differs from what was agreed.
    """

    async def check(answer: bytes) -> None:
        try:
            described.check_answer(answer)
        except MalformedError as error:
            log.info("a refresh ends a call", extra={"fields": {"reason": str(error)}})
            await leg.bye(reasons(str(error), name))

    async def answer(change: Reinvite) -> None:
        try:
            repeated = described.is_repeated_by(change.sdp)
        except MalformedError:
            repeated = False
        if not repeated:
            change.refuse(NOT_ACCEPTABLE)
            return
        acknowledged = await change.accept(described.ours.serialize())
        if not change.sdp:
            await check(acknowledged)

    async def refresh() -> None:
        final = await leg.reinvite(described.ours.serialize)
        log.debug("refresh of a call", extra={"fields": {"status": final.status}})
        if 200 <= final.status < 300:
            await check(final.sdp)

    leg.on_reinvite(answer)
    leg.on_refresh(refresh)


def _compared(described: SessionDescription) -> SessionDescription:
    return described.map_lines(lambda line: None if line.startswith("o=") else line)


def _what_counts(described: SessionDescription) -> tuple[object, ...]:
    """Return protocol, direction, keys, and addresses unless ICE finds those; raises MalformedError."""
    audio = described.audio
    dtls = DtlsDescription.read(described) if audio.protocol in DTLS_PROTOCOLS else None
    addresses = () if dtls and dtls.ice else (described.audio_address, described.audio_control_address)
    keys = (described.audio_key_mgmt, _cryptos(described), dtls)
    return audio.protocol, described.audio_direction, addresses, keys


def _cryptos(described: SessionDescription) -> tuple[Crypto | str, ...]:
    """Return the keys of SDES; those that are not supported, as text."""
    found: list[Crypto | str] = []
    for value in described.audio.attributes(CRYPTO)[: MAX_CRYPTOS + 1]:
        try:
            found.append(Crypto.parse(value))
        except NotSupportedError:
            found.append(value)
    return tuple(found)
