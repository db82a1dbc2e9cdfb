"""What a telephone writes about a call: its trace, its log, its recordings, and its result."""

import logging
from dataclasses import asdict
from typing import Any, Final

from sip_testbed import remarks
from sip_testbed.conversation import SILENCE
from sip_testbed.digits import keep_digits
from sip_testbed.keying import KeyAgreement
from sip_testbed.media_policy import severity_of, step_of
from sip_testbed.result import Result, keep_recording, keep_result
from sip_testbed.user_agent_config import TelephoneSetup
from voice_dpki.errors import LocalError, VoiceDpkiError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.shell.trace import Tracer
from voice_dpki.wire.media import MediaSession
from voice_dpki.wire.sip.user_agent import IncomingCall

log = logging.getLogger("sip_testbed.telephone")

_GIVEN_UP: Final = {
    200: "the caller did not acknowledge our answer",
    487: "the caller gave up before the call was answered",
}


class CallReport:
    """Writes the trace notes, logs, recordings and results of one telephone's calls."""

    def __init__(self, setup: TelephoneSetup, tracer: Tracer) -> None:
        self._setup = setup
        self._tracer = tracer
        self._unkept: LocalError | None = None

    def refused(self, result: Result, error: VoiceDpkiError) -> None:
        """Record that we refuse or end a call because of an error, which is one of FAILED."""
        step = step_of(error)
        result.refused_by, result.reason = step, str(error)
        self._tracer.note(f"refused: {error}", step=step, ok=False)
        log.log(severity_of(error), "call refused", extra={"fields": {"step": step, "reason": str(error)}})

    def agreed(self, result: Result, keying: KeyAgreement[Any] | None, keys: SrtpKeys | None) -> None:
        """Record the agreed codec and SRTP profile, and how the other side's own key is known."""
        result.codec = self._setup.codec.name
        result.srtp = str(keys.profile) if keys else None
        if keying is None:
            return
        result.mikey_ms = keying.ms
        if keying.peer_key:
            result.peer_key = keying.peer_key.standing
            result.remarks += keying.peer_key.remarks
        result.remarks += remarks.encryption_end("callee" if result.role == "caller" else "caller", keying.elements)

    def silent(self, result: Result, sentence: str) -> None:
        """Record that we end the call because no media arrived."""
        result.refused_by, result.reason = SILENCE, sentence
        self._tracer.note(f"ended: {sentence}", step=SILENCE, ok=False)
        log.warning("call ended", extra={"fields": {"step": SILENCE, "reason": sentence}})

    def given_up(self, result: Result, call: IncomingCall) -> None:
        """Record that a call ended before its caller had acknowledged our answer."""
        result.status = call.status
        told = _GIVEN_UP.get(call.status or 0, "the call was not answered in time")
        result.reason = f"{told}{remarks.reasons_of(call.end_headers)}"

    def keep(self, media: MediaSession, result: Result) -> None:
        """Write the recordings, and put the media statistics into the result and the trace.

        A recording that cannot be written is logged, and becomes one of the result's remarks.
        """
        result.media = counted = media.statistics()
        keep_digits(media.keypad, result, self._tracer)
        result.remarks += remarks.foreign_media("callee" if result.role == "caller" else "caller", counted)
        note = remarks.media_note(counted)
        self._tracer.note(note, step="media", ok=counted.received > 0 and not counted.unauthentic)
        for path, pcm in ((self._setup.said, media.said), (self._setup.heard, media.heard)):
            try:
                if path is not None:
                    keep_recording(path, pcm)
            except LocalError as error:
                self._not_kept("recording", result, error)

    def write(self, result: Result) -> None:
        """Write the result of a call that is over; a failure is logged, and becomes one of its remarks."""
        self._unkept = None
        try:
            if self._setup.result is not None:
                keep_result(self._setup.result, result)
        except LocalError as error:
            self._unkept = error
            self._not_kept("result", result, error)
        self._tracer.result(**asdict(result))

    def _not_kept(self, what: str, result: Result, error: LocalError) -> None:
        log.error(f"{what} cannot be written", extra={"fields": {"reason": str(error)}})
        result.remarks.append(f"a {what} of the {result.role} was not kept: {error}")

    def check_kept(self) -> None:
        """Raise the LocalError that says why the last result was not kept, if it was not."""
        if self._unkept is not None:
            raise self._unkept
