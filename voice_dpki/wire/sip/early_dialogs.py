"""Early dialogs of a placed call, one for each telephone that rings.

Only reliable provisional responses (RFC 3262) count: they are acknowledged, arrive in order, and make the dialog in
which that telephone's final answer comes.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sipmessage import Request, Response

from voice_dpki.errors import MalformedError
from voice_dpki.sip.dialog import Dialog
from voice_dpki.sip.message import Envelope
from voice_dpki.sip.reliable import Rack, Received, is_reliable, read_number_of
from voice_dpki.wire.sip.line import Line

log = logging.getLogger(__name__)

MAX_EARLY_DIALOGS: Final = 8
"""Most early dialogs of one call: provisional responses of further telephones are not acknowledged.

A further telephone that answers gets ACK and BYE; at most so many of these BYEs are open at a time."""


@dataclass(frozen=True, slots=True)
class EarlyAnswer:
    """The answer to our offer that one telephone gives before it is picked up; `host` is that of its Contact."""

    tag: str
    sdp: bytes
    host: str


@dataclass(slots=True)
class _Early:
    dialog: Dialog
    received: Received = field(default_factory=Received)
    sdp: bytes = b""
    """The session description of the first reliable response with one; later ones count for nothing (§5)."""


class EarlyDialogs:
    """The early dialogs of one placed call, by the tag of the telephone."""

    def __init__(self, line: Line) -> None:
        self.on_answer: Callable[[EarlyAnswer], None] | None = None
        """Called with the first session description of each telephone."""
        self._line = line
        self._found: dict[str, _Early] = {}

    def receive(self, invite: Request, response: Response, envelope: Envelope) -> None:
        """Take a provisional response to `invite`; acknowledge it if it is reliable, and comes in order."""
        if not is_reliable(response):
            return
        try:
            number = read_number_of(response)
            early = self._of(invite, response, envelope)
            if early.received.take(number):
                self._acknowledge(early.dialog, Rack(number, envelope.sequence, "INVITE"))
                self._answered(early, envelope.to_tag, response.body)
        except MalformedError as error:
            log.info("provisional response ignored", extra={"fields": {"reason": str(error)}})

    def confirm(self, dialog: Dialog, tag: str) -> bytes:
        """Continue the early dialog of `tag` in the `dialog` of its 2xx (RFC 3261 §13.2.2.4).

        Returns the session description of its provisional responses, which is the answer; empty if there was none.
        """
        early = self._found.get(tag)
        if early is None:
            return b""
        dialog.local_sequence = early.dialog.local_sequence
        dialog.remote_sequence = early.dialog.remote_sequence
        return early.sdp

    def dialog_with(self, tag: str) -> Dialog | None:
        """Return the early dialog with the telephone of this tag, or None."""
        early = self._found.get(tag)
        return early.dialog if early else None

    def _of(self, invite: Request, response: Response, envelope: Envelope) -> _Early:
        """Return the early dialog of a response, which may be its first one; raises MalformedError."""
        tag = envelope.to_tag
        if tag not in self._found:
            if len(self._found) >= MAX_EARLY_DIALOGS:
                raise MalformedError(f"more than {MAX_EARLY_DIALOGS} telephones answer one call")
            self._found[tag] = _Early(Dialog.of_caller(invite, response, envelope))
        return self._found[tag]

    def _acknowledge(self, dialog: Dialog, rack: Rack) -> None:
        prack = dialog.request("PRACK")
        prack.headers.set("RAck", rack.serialize())
        self._line.exchange.run(self._line.exchange.ask(prack, dialog.next_hop()))

    def _answered(self, early: _Early, tag: str, sdp: bytes) -> None:
        if sdp and not early.sdp:
            early.sdp = sdp
            if self.on_answer is not None:
                self.on_answer(EarlyAnswer(tag, sdp, early.dialog.target.host))
