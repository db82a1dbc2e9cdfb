"""Re-INVITEs within a call through the gateway: those that change nothing are answered, and others are refused.

A session timer (RFC 4028) has one side repeat its description, so that both know that the call is still up.
"""

import logging
from dataclasses import dataclass
from typing import Final

from voice_dpki.errors import MalformedError
from voice_dpki.sip.sdp import SessionDescription
from voice_dpki.wire.sip.call import Leg
from voice_dpki.wire.sip.changes import Reinvite

log = logging.getLogger(__name__)

NOT_ACCEPTABLE: Final = 488


@dataclass(frozen=True, slots=True)
class Described:
    """What both sides of one leg have said last: our description, and the other side's."""

    ours: SessionDescription
    theirs: SessionDescription

    def is_repeated_by(self, offer: bytes) -> bool:
        """Tell whether an offer says what the other side has said before, but for the number of the version.

        An empty one, which asks for our offer, changes nothing either. Raises MalformedError.
        """
        return not offer or _compared(SessionDescription.parse(offer)) == _compared(self.theirs)


def keep_up(leg: Leg, described: Described) -> None:
    """Answer the leg's refreshes, send those that are ours, and refuse changes."""

    async def answer(change: Reinvite) -> None:
        try:
            repeated = described.is_repeated_by(change.sdp)
        except MalformedError:
            repeated = False
        if repeated:
            await change.accept(described.ours.serialize())
        else:
            change.refuse(NOT_ACCEPTABLE)

    async def refresh() -> None:
        final = await leg.reinvite(described.ours.serialize)
        log.debug("refresh of a call", extra={"fields": {"status": final.status}})

    leg.on_reinvite(answer)
    leg.on_refresh(refresh)


def _compared(described: SessionDescription) -> SessionDescription:
    return described.map_lines(lambda line: None if line.startswith("o=") else line)
