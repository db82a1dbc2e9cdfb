"""RTCP of what was sent and of what was not, in octets of RFC 3550 §6.4."""

import struct

from tests.media.conftest import CountingRandom
from voice_dpki.media.codecs import CODECS
from voice_dpki.media.control import Control
from voice_dpki.media.srtp import Clear
from voice_dpki.media.stream import ReceiveStream, SendStream

CODEC = CODECS["PCMU"]
SSRC = 0x0A0B0C0D
SENDER_REPORT, RECEIVER_REPORT = 200, 201


class End:
    """A telephone's stream to its peer, and what it reports of it once a second."""

    def __init__(self) -> None:
        self.sending = SendStream(CODEC, 0, SSRC, Clear(), CountingRandom())
        self.control = Control(self.sending, ReceiveStream(CODEC, 0, None, Clear()), Clear(), "x")
        self.now_s = 1_790_000_000.0

    def say(self) -> None:
        self.sending.send(bytes(320))

    def report(self, **what: bool) -> bytes:
        self.now_s += 1
        return self.control.report(self.now_s, **what)[0]

    def kinds(self, number: int) -> list[int]:
        return [self.report()[1] for _ in range(number)]


def test_before_the_first_packet_a_receiver_report_is_sent_and_it_is_empty() -> None:
    """RC 0, PT 201, one word after the header: the SSRC (§6.4.2); the CNAME comes behind it (§6.1)."""
    report = End().report()
    assert report[:8] == struct.pack("!BBHI", 0x80, RECEIVER_REPORT, 1, SSRC)
    assert report[8:10] == b"\x81\xca"


def test_what_was_sent_is_told_by_a_sender_report_at_once() -> None:
    end = End()
    end.say()
    report = end.report()
    assert report[:8] == struct.pack("!BBHI", 0x80, SENDER_REPORT, 6, SSRC)
    assert struct.unpack("!II", report[20:28]) == (1, 160)


def test_who_has_sent_nothing_since_the_report_before_last_reports_as_a_receiver() -> None:
    """§6.4: "since issuing the last report or the previous one"; so on hold, and until speech goes on."""
    end = End()
    end.say()
    assert end.kinds(4) == [SENDER_REPORT, SENDER_REPORT, RECEIVER_REPORT, RECEIVER_REPORT]
    end.say()
    assert end.kinds(3) == [SENDER_REPORT, SENDER_REPORT, RECEIVER_REPORT]


def test_goodbye_has_a_receiver_report_before_it_where_nothing_was_sent() -> None:
    end = End()
    end.report()
    report = end.report(goodbye=True)
    assert report[1] == RECEIVER_REPORT
    assert report.endswith(struct.pack("!BBHI", 0x81, 203, 1, SSRC))


def test_the_first_packet_is_followed_by_a_sender_report_once() -> None:
    """RFC 6051 §2.1.1: so that pictures and speech can be put together from the beginning."""
    end = End()
    due = [end.control.owes_sender_report]
    end.report()
    due.append(end.control.owes_sender_report)
    end.say()
    due.append(end.control.owes_sender_report)
    end.report()
    end.say()
    due.append(end.control.owes_sender_report)
    assert due == [False, False, True, False]


def test_who_has_sent_nothing_at_all_has_no_goodbye_to_say() -> None:
    """§6.3.7: "which never sent an RTP or RTCP packet MUST NOT send a BYE packet"."""
    silent, reporting, speaking = End(), End(), End()
    reporting.report()
    speaking.say()
    assert [end.control.is_known for end in (silent, reporting, speaking)] == [False, True, True]


def test_a_receivers_report_tells_the_round_trip() -> None:
    """Who only listens learns none, and the speaker does by the RR."""
    speaker, listener = End(), End()
    listener.sending.ssrc = SSRC + 1
    speaker.say()
    listener.control._receiving.ssrc = SSRC
    listener.control.receive(speaker.report(), listener.now_s)
    listener.now_s += 0.5
    assert speaker.control.receive(listener.report(), speaker.now_s + 1.54)
    assert speaker.control.round_trip_s is not None
    assert abs(speaker.control.round_trip_s - 0.04) < 0.001
