"""A call of more packets than there are sequence numbers, over a hold, another codec and new keys; no sockets."""

from itertools import cycle
from typing import Any

import pytest

from voice_dpki.media.codecs import CODECS, Codec
from voice_dpki.media.correlate import correlate
from voice_dpki.media.pcm import Pcm
from voice_dpki.media.recording import Recorder
from voice_dpki.media.streams import Streams
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.policy import SrtpProfile

PACKETS = 70_000
FRAME_S = 0.02
FRAME_BYTES = 320
COMPARED_S = 3.0
"""How much of the end of what was said must have been heard, but for what the listener has still to play."""

PCMU, PCMA = CODECS["PCMU"], CODECS["PCMA"]


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + FRAME_BYTES] for at in range(0, len(data) - FRAME_BYTES + 1, FRAME_BYTES)]


def heard_at_the_end(said: Pcm, heard: Pcm) -> float:
    """Correlation of the end of what was said with what was heard around it."""
    end_s = said.duration_s - 0.5
    around = heard.part(heard.duration_s - COMPARED_S - 1, heard.duration_s)
    return correlate(said.part(end_s - COMPARED_S, end_s), around).coefficient


class Ends:
    """Both ends of a call, which speak in turn; the clock counts frames."""

    def __init__(self, keys: tuple[SrtpKeys, SrtpKeys], random: Any, speech: Any) -> None:
        self.random = random
        self.frames = 0
        self._speech = [cycle(pieces(speech(who, 4).data)) for who in ("caller", "callee")]
        self.begin(keys)

    def begin(self, keys: tuple[SrtpKeys, SrtpKeys]) -> None:
        self._go_on(*(Streams.begin(PCMU, 0, 0, each, self.random) for each in keys))

    def continue_with(self, codec: Codec) -> None:
        number = codec.payload_type
        self._go_on(*(each.continued(codec, number, number, self.random) for each in (self.one, self.other)))

    def _go_on(self, one: Streams, other: Streams) -> None:
        """Take other streams, whose recordings are as long as the call, not only two minutes."""
        self.one, self.other = one, other
        for each in (one, other):
            each.receiving._recorder = Recorder(each.codec.clock_rate, PACKETS * FRAME_S)

    def talk(self, packets: int) -> None:
        """Have both speak; each has heard the other at the end of it."""
        for _ in range(packets):
            self.frames += 1
            for speech, speaker, listener in zip(self._speech, *self._both_ways(), strict=True):
                _, wire = speaker.say(next(speech))
                assert listener.receiving.receive(wire, self.frames * FRAME_S)
                listener.receiving.play(self.frames * FRAME_S)
        for speaker, listener in zip(*self._both_ways(), strict=True):
            assert heard_at_the_end(speaker.said, listener.receiving.heard()) >= 0.99

    def _both_ways(self) -> tuple[tuple[Streams, Streams], tuple[Streams, Streams]]:
        """Speakers, and their listeners."""
        return (self.one, self.other), (self.other, self.one)

    def hold(self, frames: int) -> None:
        for _ in range(frames):
            self.frames += 1
            for each in (self.one, self.other):
                each.pass_over()


@pytest.mark.timeout(600)  # on a busy machine
@pytest.mark.parametrize("profile", SrtpProfile)
def test_70000_packets_with_changes_are_all_heard(
    profile: SrtpProfile, new_keys: Any, random: Any, speech: Any
) -> None:
    ends = Ends(new_keys(profile), random, speech)
    ends.talk(60_000)
    ends.hold(500)
    ends.talk(9_000)  # by now the numbers have wrapped, whatever the first was
    ends.continue_with(PCMA)
    ends.talk(1_000)
    assert ends.one.sending.packets == PACKETS
    assert not ends.other.receiving.dropped
    counted = ends.other.receiving.statistics()
    assert (counted.received, counted.lost, counted.late) == (1_000, 0, 0)
    ends.begin(new_keys(profile, "others"))
    ends.talk(500)
    assert not ends.one.receiving.dropped
