"""A call of more packets than there are sequence numbers, over a hold, another codec and new keys; no sockets."""

from typing import Any

import pytest

from voice_dpki.media.codecs import CODECS, Codec
from voice_dpki.media.streams import Streams
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.policy import SrtpProfile

PACKETS = 70_000
FRAME_S = 0.02
PCMU, PCMA = CODECS["PCMU"], CODECS["PCMA"]


class Ends:
    """Both ends of a call, which speak in turn; the clock counts frames."""

    def __init__(self, keys: tuple[SrtpKeys, SrtpKeys], random: Any) -> None:
        self.random = random
        self.frames = 0
        self.begin(keys)

    def begin(self, keys: tuple[SrtpKeys, SrtpKeys]) -> None:
        self.one, self.other = (Streams.begin(PCMU, 0, 0, each, self.random) for each in keys)

    def continue_with(self, codec: Codec) -> None:
        number = codec.payload_type
        self.one, self.other = (
            each.continued(codec, number, number, self.random) for each in (self.one, self.other)
        )

    def talk(self, packets: int, frame: bytes = bytes(320)) -> None:
        for _ in range(packets):
            self.frames += 1
            for speaker, listener in ((self.one, self.other), (self.other, self.one)):
                _, wire = speaker.say(frame)
                assert listener.receiving.receive(wire, self.frames * FRAME_S)
                listener.receiving.play(self.frames * FRAME_S)

    def hold(self, frames: int) -> None:
        for _ in range(frames):
            self.frames += 1
            for each in (self.one, self.other):
                each.pass_over(bytes(320))


@pytest.mark.parametrize("profile", SrtpProfile)
def test_70000_packets_with_changes_are_all_heard(profile: SrtpProfile, new_keys: Any, random: Any) -> None:
    ends = Ends(new_keys(profile), random)
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
    ends.talk(10)
    assert not ends.one.receiving.dropped
