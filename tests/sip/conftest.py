"""What SIP tests share: requests as text, randomness that repeats, and a clock that tests turn by hand."""

import itertools
from collections.abc import Callable

import pytest


class CountingRandom:
    """Fresh bytes that are the same in each run."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def token(self, size: int) -> bytes:
        return next(self._count).to_bytes(size, "big")


def request_bytes(
    method: str = "INVITE",
    uri: str = "sip:+442079460123@b.example",
    *,
    branch: str = "z9hG4bKone",
    sent_by: str = "127.0.0.6:5060",
    transport: str = "UDP",
    from_tag: str = "caller",
    to_tag: str = "",
    call_id: str = "call-1",
    sequence: int = 1,
    headers: str = "",
    body: bytes = b"",
) -> bytes:
    """One request, as a peer would send it."""
    to = f"<sip:+442079460123@b.example>{f';tag={to_tag}' if to_tag else ''}"
    lines = (
        f"{method} {uri} SIP/2.0\r\n"
        f"Via: SIP/2.0/{transport} {sent_by};branch={branch}\r\n"
        "Max-Forwards: 70\r\n"
        f"From: <sip:+493023125001@a.example>;tag={from_tag}\r\n"
        f"To: {to}\r\n"
        f"Call-ID: {call_id}\r\n"
        f"CSeq: {sequence} {method}\r\n"
        f"Contact: <sip:+493023125001@{sent_by}>\r\n"
        f"{headers}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return lines.encode() + body


@pytest.fixture
def random() -> CountingRandom:
    return CountingRandom()


@pytest.fixture(scope="session")
def request_text() -> Callable[..., bytes]:
    return request_bytes


@pytest.fixture(scope="session")
def make_random() -> Callable[[], CountingRandom]:
    return CountingRandom
