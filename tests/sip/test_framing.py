"""Streams: the same messages come out however the bytes are cut."""

import gc
import weakref

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
