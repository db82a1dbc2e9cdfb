"""A media session: the sockets and the clock around one call's streams.

The session is opened before the call is offered, because SDP must name its port; packets that arrive before the
keys are agreed wait for them. After `start`, `say` sends speech in real time, and the peer's speech is played into
a recording.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from voice_dpki.effects import Clock, Random
from voice_dpki.errors import LocalError
from voice_dpki.media.codecs import FRAME_S, Codec
from voice_dpki.media.figures import MediaStatistics, figures
from voice_dpki.media.keypad import Keypad
from voice_dpki.media.pcm import SAMPLE_BYTES, Pcm
from voice_dpki.media.streams import Streams
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.wire.media_ports import RtpTracer
from voice_dpki.wire.rtp_session import RtpSession

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 5.0
"""Time between RTCP reports (RFC 3550 §6.2); the first comes after half of it (§6.3.1)."""

QUIET_S = 0.3
"""Time without RTP after which a peer counts as silent."""

RESTS_S = 2.0
"""The same after comfort noise: a peer need not send it again while its background noise stays the same."""

MAX_KEPT_BACK_S = 10.0
"""How long after the speech digits wait for the end of a hold; then they are dropped."""

MAX_RECORDED_S = 120.0
"""Longest recording kept of the streams that changes of the call have ended, per direction."""


class MediaSession(RtpSession[Streams]):
    """One call's media at one pair of ports. Make it with `open`, and `close` it in any case."""

    def __init__(self, host: str, tracer: RtpTracer | None, clock: Clock, random: Random) -> None:
        super().__init__(host, tracer, clock, random)
        self.keypad = Keypad()
        """To use another one, set it before the SDP is made."""
        self._past_said: list[Pcm] = []
        self._past_heard: list[Pcm] = []
        self._may_dial = True
        self._due_s: float | None = None
        """When the next frame of speech is due, by the loop's clock; None before the first."""
        self._last_received_s: float | None = None
        self._heard = asyncio.Event()

    def start(
        self,
        codec: Codec,
        *,
        payload_type: int,
        remote: tuple[str, int],
        receive_type: int | None = None,
        remote_control: tuple[str, int] | None = None,
        keys: SrtpKeys | None = None,
    ) -> None:
        """Begin; `keys` come from MIKEY, and None means RTP in clear.

        `remote` and `remote_control` are where the peer's SDP wants RTP and RTCP, by default one port above. If
        they are the same, both share a port at each side (RFC 5761). `payload_type` is the one that we send, and
        `receive_type` that which the peer sends, by default the same.

        Raises MalformedError for an address to which nothing can be sent.
        """
        if self._streams is not None:
            raise LocalError("the media session has started already")
        self._move(remote, remote_control)
        receive_type = payload_type if receive_type is None else receive_type
        streams = Streams.begin(codec, payload_type, receive_type, keys, self._random, self.keypad.agreed)
        self._begin(streams, self._tick())

    def change(
        self,
        codec: Codec,
        *,
        payload_type: int,
        remote: tuple[str, int],
        receive_type: int | None = None,
        remote_control: tuple[str, int] | None = None,
        keys: SrtpKeys | None = None,
    ) -> None:
        """Apply a new offer and its answer, as in `start`.

        Without new `keys` and with the same codec, the streams go on: SSRC, sequence numbers and roll-over counter
        stay, which SRTP needs. New keys begin new streams with SSRCs of their own, and so does another codec in
        clear. Those are received from now on, beside those of before; we send them once `switch` is called, which
        is when the other side has both keys and answer (RFC 4567 §4.1.2).

        Raises MalformedError for an address that nothing can be sent to, and then changes nothing.
        """
        now = self._started()
        self._move(remote, remote_control)
        receive_type = payload_type if receive_type is None else receive_type
        if keys is None and codec == now.codec:
            now.retype(payload_type, receive_type, self.keypad.agreed)
            return
        if keys is None and now.keys is not None:
            self._replace(now.continued(codec, payload_type, receive_type, self._random, self.keypad.agreed))
        else:
            self._replace(Streams.begin(codec, payload_type, receive_type, keys, self._random, self.keypad.agreed))

    def allow_sending(self, allowed: bool, *, digits: bool | None = None) -> None:
        """Send speech, or skip it, as on hold; reports are sent in either case (RFC 3264 §5.1).

        `digits` tells whether digits may be sent, by default as `allowed`: to a side that we hold they may.
        """
        super().allow_sending(allowed)
        self._may_dial = allowed if digits is None else digits

    def _empty(self, streams: Streams) -> None:
        """Play what is left of streams that are over, and keep their recordings."""
        streams.receiving.play(float("inf"))
        if sum(pcm.duration_s for pcm in self._past_said) < MAX_RECORDED_S:
            self._past_said.append(streams.said)
            self._past_heard.append(streams.receiving.heard())

    async def say(self, speech: Pcm) -> None:
        """Send `speech` in real time, one packet every 20 ms, and silence after it while digits are dialled.

        Digits wait for the end of the other side's hold, up to MAX_KEPT_BACK_S after the speech.
        A pause since the last speech passes in the stream as silence (RFC 3550 §5.1).
        """
        loop = asyncio.get_running_loop()
        next_s, done, kept_back = self._after_pause_s(loop.time()), 0, 0
        codec: Codec | None = None
        frames: list[bytes] = []
        while True:
            await asyncio.sleep(next_s - loop.time())
            streams = self._sends()
            if streams.codec is not codec:  # a change may bring another in the middle of the speech
                codec = streams.codec
                frames = list(speech.resampled(codec.clock_rate).frames(codec.frame_samples))
            if done >= len(frames):
                kept_back += not self._dials
                if not self.keypad.is_dialling(streams) or kept_back * FRAME_S > MAX_KEPT_BACK_S:
                    return
            self._say(streams, frames[done] if done < len(frames) else bytes(codec.frame_samples * SAMPLE_BYTES))
            next_s, done = next_s + FRAME_S, done + 1
            self._due_s = next_s
            streams.control.next_frame_s = self._began_s + next_s
            if streams.control.owes_sender_report:
                self._send_report(streams)

    def _after_pause_s(self, now_s: float) -> float:
        """Let the pause until now pass in the streams, and return when their next frame is due."""
        if self._due_s is None:
            return now_s
        frames = max(0, int((now_s - self._due_s) / FRAME_S))
        self._sends().lapse(frames)
        return self._due_s + frames * FRAME_S

    def _say(self, streams: Streams, frame: bytes) -> None:
        for packet in self.keypad.say(streams, frame, may_send=self._sends_media, may_dial=self._dials):
            self._send(packet, is_control=False)

    @property
    def _dials(self) -> bool:
        return self._may_dial and not self._peer.is_on_hold

    @property
    def began_s(self) -> float:
        """Unix time at the zero of the loop's clock, the common time base of the call's streams."""
        return self._began_s

    def plays_at_s(self, sampled_s: float) -> float | None:
        """Return when what the peer said at a time of its NTP clock is played, by the loop's clock.

        Returns None until its speech and a report on it have come.
        """
        for streams in reversed(self._agreements() if self._streams is not None else []):
            clock = streams.control.peer_clock
            due_s = streams.receiving.due_s(clock.timestamp_at(sampled_s)) if clock else None
            if due_s is not None:
                return due_s
        return None

    async def wait_until_quiet(self, timeout_s: float) -> None:
        """Wait until the peer has spoken and fallen silent, or has left; at most `timeout_s`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while loop.time() < end_s and not self._started().control.goodbye:
            last_s = self._last_received_s
            quiet_s = RESTS_S if self._started().receiving.rests else QUIET_S
            if last_s is not None and loop.time() - last_s > quiet_s:
                return
            await asyncio.sleep(FRAME_S)

    async def heard_within(self, limit_s: float) -> bool:
        """Tell whether authentic RTP or RTCP of the peer has arrived; wait at most `limit_s` for the first packet.

        Sends a report at once, so that a peer that waits in the same way hears from us even if we say nothing. The
        first report of a unicast session may go without delay (RFC 3550 §6.2).
        """
        self._send_report(self._sends())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), limit_s)
        return self.heard_peer

    @property
    def heard_peer(self) -> bool:
        """Whether any authentic RTP or RTCP of the peer has arrived."""
        return self._heard.is_set()

    async def finish(self) -> None:
        """Leave the session: send an RTCP BYE, and play what is still buffered."""
        if await self._leave_call():
            self._play(float("inf"))

    @property
    def said(self) -> Pcm:
        """What was said, at the last codec's rate."""
        return self._joined([*self._past_said, *(streams.said for streams in self._agreements())])

    @property
    def heard(self) -> Pcm:
        """What was heard, at the last codec's rate; lost packets leave their time filled or silent."""
        return self._joined([*self._past_heard, *(streams.receiving.heard() for streams in self._agreements())])

    def _joined(self, pieces: Iterable[Pcm]) -> Pcm:
        rate = self._started().codec.clock_rate
        return Pcm(rate, b"".join(piece.resampled(rate).data for piece in pieces))

    def statistics(self) -> MediaStatistics:
        """Return what was counted so far, changes of the call included."""
        said_s = (*(pcm.duration_s for pcm in self._past_said), *(each.said_s for each in self._agreements()))
        return figures(self._started(), self._counted(), self._peer.foreign_from, said_s)

    def _heard_of(self, spoken_s: float | None) -> None:
        self._last_received_s = self._last_received_s if spoken_s is None else spoken_s
        self._heard.set()

    async def _tick(self) -> None:
        """Every 20 ms, play what is due; every REPORT_INTERVAL_S, send a report."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        report_s = next_s + REPORT_INTERVAL_S / 2
        while True:
            self._play(loop.time())
            if loop.time() >= report_s:
                self._send_report(self._sends())
                report_s += REPORT_INTERVAL_S
            next_s += FRAME_S
            await asyncio.sleep(max(0.0, next_s - loop.time()))

    def _play(self, now_s: float) -> None:
        for streams in self._agreements():
            streams.receiving.play(now_s)
