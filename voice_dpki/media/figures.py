"""Statistics of one side of a call, over the streams of all its agreements."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from voice_dpki.media.codecs import FRAME_S
from voice_dpki.media.control import Control
from voice_dpki.media.mos import MIN_PACKETS, mos, r_factor
from voice_dpki.media.playout_statistics import PlayoutStatistics
from voice_dpki.media.stream import Dropped
from voice_dpki.media.streams import Streams


@dataclass(frozen=True, slots=True)
class MediaStatistics:
    """Statistics of one side of a call: `sent` is about its own stream, everything else about the peer's.

    A figure that could not be measured is None: without packets there is no loss, no jitter and no MOS.
    """

    codec: str
    srtp: str | None
    sent: int
    received: int
    lost: int
    late: int
    overflow: int
    """Packets of a burst after a stall that were dropped so that the newest could be played."""
    duplicate: int
    concealed: int
    unauthentic: int
    foreign: int
    foreign_from: str | None
    """Source of the first foreign packet, as "host:port"."""
    other: int
    """Packets with a payload type or SSRC that was not agreed."""
    malformed: int
    loss: float | None
    """Fraction of the peer's packets that could not be played: lost, late or overflow."""
    jitter_ms: float | None
    playout_delay_ms: float | None
    """Mean time from a packet's arrival until it was played."""
    paused_ms: float | None
    """Time without anything to play, after playout had begun."""
    round_trip_ms: float | None
    said_s: tuple[float, ...]
    """Seconds of speech sent under each agreement, in the order of the agreements."""
    mos: float | None
    """Estimate from 1 to 4.5, in which lost frames and paused frames count alike; None if fewer than MIN_PACKETS
    were received."""


class Counting(Protocol):
    """The streams of one agreement, of speech or of pictures."""

    @property
    def control(self) -> Control:
        """Their RTCP."""
        ...

    @property
    def sent(self) -> int:
        """Packets sent under this agreement."""
        ...

    @property
    def is_continued(self) -> bool:
        """Whether packets of an earlier agreement had the same SSRC."""
        ...

    @property
    def receiving(self) -> "Dropping":
        """The stream that the peer sends."""
        ...


class Dropping(Protocol):
    """A stream that the peer sends."""

    dropped: Counter[Dropped]

    def statistics(self) -> PlayoutStatistics:
        """Return the counts of the packets that were accepted."""
        ...


@dataclass(frozen=True, slots=True)
class Counted:
    """The counts of streams, of one agreement or summed over several."""

    sent: int = 0
    expected: int = 0
    playout: PlayoutStatistics = field(default_factory=PlayoutStatistics)
    dropped: Counter[Dropped] = field(default_factory=Counter)

    @classmethod
    def of(cls, streams: Counting) -> "Counted":
        """Return the counts of one agreement's streams so far.

        Sequence numbers do not show packets lost after the last one received; the sender's report does. If an
        earlier agreement had the same SSRC, the report includes its packets, so it is not used.
        """
        playout, dropped = streams.receiving.statistics(), Counter(streams.receiving.dropped)
        reported = 0 if streams.is_continued else streams.control.peer_packets or 0
        return cls(streams.sent, max(playout.expected, reported), playout, dropped)

    def plus(self, later: "Counted") -> "Counted":
        """Return the sum with what was counted later."""
        return Counted(
            self.sent + later.sent,
            self.expected + later.expected,
            self.playout.plus(later.playout),
            self.dropped + later.dropped,
        )


def figures(
    streams: Streams, counted: Counted, foreign_from: str | None, said_s: Iterable[float] = ()
) -> MediaStatistics:
    """Return a call's statistics from its last agreement's `streams`, and what all have `counted` and said."""
    playout, dropped, expected = counted.playout, counted.dropped, counted.expected
    lost = max(0, expected - playout.received)
    round_trip_s = streams.control.round_trip_s
    delay_s = playout.delay_s + FRAME_S + (round_trip_s or 0.0) / 2
    unplayed = lost + playout.late + playout.overflow
    loss = min(1.0, unplayed / expected) if expected else 0.0
    pauses = playout.paused_s / FRAME_S
    missed = min(1.0, (unplayed + pauses) / (expected + pauses)) if expected else 0.0
    enough = playout.received >= MIN_PACKETS
    return MediaStatistics(
        codec=streams.codec.name,
        srtp=None if streams.keys is None else str(streams.keys.profile),
        sent=counted.sent,
        received=playout.received,
        lost=lost,
        late=playout.late,
        overflow=playout.overflow,
        duplicate=playout.duplicate + dropped[Dropped.REPLAYED],
        concealed=playout.concealed,
        unauthentic=dropped[Dropped.UNAUTHENTIC],
        foreign=dropped[Dropped.FOREIGN],
        foreign_from=foreign_from,
        other=dropped[Dropped.OTHER],
        malformed=dropped[Dropped.MALFORMED],
        loss=round(loss, 4) if expected else None,
        jitter_ms=round(1000 * playout.jitter / streams.codec.clock_rate, 3) if playout.received else None,
        playout_delay_ms=round(1000 * playout.delay_s, 3) if playout.received else None,
        paused_ms=round(1000 * playout.paused_s, 3) if playout.received else None,
        round_trip_ms=None if round_trip_s is None else round(1000 * round_trip_s, 3),
        said_s=tuple(round(each_s, 3) for each_s in said_s),
        mos=round(mos(r_factor(streams.codec, missed, 1000 * delay_s)), 2) if enough else None,
    )
