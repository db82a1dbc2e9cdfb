"""Streams: the same messages come out however the bytes are cut."""

import gc
import weakref
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.sip.framing import PING, StreamFramer
from voice_dpki.sip.message import MAX_MESSAGE_BYTES

ONE = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 5\r\n\r\nhello"
TWO = b"SIP/2.0 200 OK\r\nl :0\r\n\r\n"


def test_messages_and_keep_alives_are_told_apart() -> None:
    framer = StreamFramer()
    assert framer.receive(PING + ONE + b"\r\n" + TWO + PING) == [ONE, TWO]
    assert framer.pings == 2
    assert not framer.waiting


@given(st.lists(st.integers(1, 30), min_size=1))
def test_the_cut_does_not_matter(sizes: list[int]) -> None:
    stream, framer, messages = PING + ONE + ONE + TWO + b"\r\n\r\n" + ONE, StreamFramer(), []
    at = 0
    for size in [*sizes, len(stream)]:
        messages += framer.receive(stream[at : at + size])
        at += size
    assert messages == [ONE, ONE, TWO, ONE]
    assert framer.pings == 2


@pytest.mark.parametrize(
    "data",
    [
        b"OPTIONS sip:a SIP/2.0\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: x\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nSubject: a\r\n Content-Length: 5\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 999999\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: -5\r\n\r\n",
        b"x" * (2 * MAX_MESSAGE_BYTES),
    ],
)
def test_a_stream_that_cannot_be_followed_is_given_up(data: bytes) -> None:
    framer = StreamFramer()
    assert framer.receive(ONE + data + ONE) == [ONE]
    assert framer.error is not None
    assert data.startswith(framer.error.head[:65536])
    assert framer.receive(ONE) == []
    assert not framer.waiting


@pytest.mark.parametrize(
    ("data", "waiting"),
    [
        (b"", False),
        (b"\r", False),
        (b"\r\n\r\n", False),
        (b"O", True),
        (b"\r\nO", True),
        (ONE[:-1], True),
        (ONE, False),
        (ONE + b"S", True),
    ],
)
def test_part_of_a_message_waits_for_the_rest(data: bytes, waiting: bool) -> None:
    framer = StreamFramer()
    framer.receive(data)
    assert framer.waiting is waiting


def test_a_message_has_at_most_65536_bytes() -> None:
    head = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 65489\r\n\r\n"
    assert len(head) + 65_489 == MAX_MESSAGE_BYTES + 1
    framer = StreamFramer()
    longest = head.replace(b"489", b"488") + bytes(65_488)
    assert framer.receive(longest + ONE) == [longest, ONE]
    assert framer.receive(head) == []
    assert str(framer.error) == "a SIP message over 65536 bytes"


def test_a_header_has_at_most_65536_bytes() -> None:
    framer = StreamFramer()
    framer.receive(b"x" * MAX_MESSAGE_BYTES)
    assert framer.error is None
    framer.receive(b"x")
    assert str(framer.error) == "no end of the SIP header within 65536 bytes"


def test_the_length_may_stand_in_the_first_line() -> None:
    """Whether that is SIP is not for the framer to say."""
    assert StreamFramer().receive(b"l: 1\r\n\r\nx" + ONE) == [b"l: 1\r\n\r\nx", ONE]


def test_a_header_that_comes_in_pieces_is_searched_once() -> None:
    """Else 64 KiB that come byte by byte take minutes."""

    class Recorded(bytearray):
        begins: ClassVar[list[int]] = []

        def find(self, what: Any, begin: Any = 0, *end: Any) -> int:
            self.begins.append(begin)
            return super().find(what, begin, *end)

    framer = StreamFramer()
    framer._buffer = Recorded()
    assert framer.receive(PING) == []
    for at in range(len(ONE)):
        assert framer.receive(ONE[at : at + 1]) == ([ONE] if at == len(ONE) - 1 else [])
    assert framer.receive(TWO) == [TWO]
    head = ONE.index(PING) + len(PING)
    assert Recorded.begins == [0, *(max(0, size - 4) for size in range(1, head + 1)), 0, 0, 0]


def test_what_has_not_been_looked_at_waits() -> None:
    framer = StreamFramer()
    framer.feed(PING + b"\r\n")
    assert framer.waiting


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_any_stream_gives_messages_or_is_given_up(chunks: list[bytes]) -> None:
    framer = StreamFramer()
    for chunk in chunks:
        for message in framer.receive(chunk):
            assert b"\r\n\r\n" in message
    assert not (framer.error and framer.waiting)


def test_a_broken_stream_is_freed_with_its_connection() -> None:
    """Not first when garbage is collected: a stranger breaks streams much faster, and each holds 64 KiB or more."""
    framer = StreamFramer()
    framer.receive(b"a" * (MAX_MESSAGE_BYTES + 1))
    assert framer.error is not None
    gone = weakref.ref(framer)
    gc.disable()
    try:
        del framer
        assert gone() is None
    finally:
        gc.enable()
