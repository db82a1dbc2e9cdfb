"""The evidence of one call, by which `sip_testbed.assess` judges it: traces and recordings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sip_testbed.events import RtpEvent, SipEvent
from sip_testbed.result import Purpose
from sip_testbed.scenarios import Scenario
from sip_testbed.transfer import ATTENDED, TRANSFER
from voice_dpki.stage.events import Event, NoteEvent, ResultEvent


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one call: its events by time, and the recordings by name ("caller.said")."""

    scenario: Scenario
    codec: str
    srtp: str | None
    events: Sequence[Event]
    recordings: Mapping[str, bytes] = field(default_factory=dict)
    changes: Sequence[str] = ()
    """The changes by re-INVITE that the caller was to make."""
    early_s: float = 0.0
    """Seconds of media that the callee was to play before its answer."""

    @property
    def transfer(self) -> str | None:
        """The kind of transfer that the caller was to make, if any."""
        return next((name for name in self.changes if name in (TRANSFER, ATTENDED)), None)

    def result(self, role: str, purpose: Purpose = "call") -> Mapping[str, Any]:
        """Return the last result of a user agent of that purpose; empty if it took no part."""
        results = (event for event in self.events if isinstance(event, ResultEvent) and event.actor == role)
        found = [event.data for event in results if event.data.get("purpose", "call") == purpose]
        return found[-1] if found else {}

    def notes(self, *actors: str) -> list[NoteEvent]:
        """Return the notes of these actors, or of all actors if none is given, by time."""
        return [
            event for event in self.events if isinstance(event, NoteEvent) and (not actors or event.actor in actors)
        ]

    def rtp(self) -> list[RtpEvent]:
        """Return all RTP packets, without RTCP."""
        return [event for event in self.events if isinstance(event, RtpEvent) and not event.is_control]

    def invites(self, src: str, dst_actor: str) -> list[SipEvent]:
        """Return the INVITEs that `src` sent to an address that `dst_actor` sends from."""
        homes = {event.src for event in self.events if isinstance(event, SipEvent) and event.actor == dst_actor}
        return [
            event
            for event in self.events
            if isinstance(event, SipEvent)
            and event.actor == src
            and event.data.startswith(b"INVITE ")
            and event.dst in homes
        ]
