"""Secrets of a connection's octets, in whichever pieces they come."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.shell.hidden import Hidden, hidden_in_sip

KEY = b"WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
SECRETS = (
    b"Bearer t0ken-of-a",
    b"Basic YTpi",
    b"Bearer",
    b"folded",
    b"bypass-t0ken",
    b"json-t0ken",
    rb"quot\"ed\\",
    KEY,
)
STREAM = (
    b"POST /a HTTP/1.1\r\nHost: a\r\nauthorization: Bearer t0ken-of-a\r\nContent-Length: 16\r\n\r\n"
    b'{"bypass":"json-t0ken"}{ "bypass" : "quot\\"ed\\\\", "shown": 1}'
    b"GET /b HTTP/1.1\r\nProxy-Authorization:\tBasic YTpi\r\nAuthorization-Info: shown\r\n\r\n"
    b"GET /c HTTP/1.1\r\nAUTHORIZATION : Bearer\r\n folded\r\nHost: b\r\n\r\n"
    b"INVITE sip:b SIP/2.0\r\nP-Identity-Bypass: bypass-t0ken\r\nAuthorization-Info: shown\r\n\r\n"
    b"a=crypto:1 A inline:" + KEY + b"|2^20|1:4\r\na=crypto:2 A INLINE:" + KEY + b"\r\n"
)


def without_secrets(octets: bytes) -> bytes:
    for secret in SECRETS:
        octets = octets.replace(secret, re.sub(rb"[^ ]", b"*", secret))
    return octets


def hidden(*pieces: bytes) -> bytes:
    direction = Hidden()
    return b"".join(direction.hide(piece) for piece in pieces)


def test_what_is_no_secret_stays_and_its_length_does() -> None:
    assert hidden(STREAM) == without_secrets(STREAM)
    assert without_secrets(STREAM).count(b"shown") == 3


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_of_any_size_give_the_same(size: int) -> None:
    pieces = (STREAM[at : at + size] for at in range(0, len(STREAM), size))
    assert hidden(*pieces) == without_secrets(STREAM)


def test_a_cut_at_any_octet_gives_the_same() -> None:
    for at in range(len(STREAM)):
        assert hidden(STREAM[:at], STREAM[at:]) == without_secrets(STREAM), at


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_cuts_anywhere_give_the_same(cuts: list[int]) -> None:
    pieces = [STREAM[begin:end] for begin, end in pairwise([0, *sorted(cuts), len(STREAM)])]
    assert hidden(*pieces) == without_secrets(STREAM)


def test_the_first_line_of_a_connection_may_be_the_secret_one() -> None:
    assert hidden(b"Authoriz", b"ation: Bearer x\r\n\r\n") == b"Authorization: ****** *\r\n\r\n"


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_octets_keep_their_number_and_their_lines(pieces: list[bytes]) -> None:
    given_, shown = b"".join(pieces), hidden(*pieces)
    assert len(shown) == len(given_)
    assert [at for at, octet in enumerate(shown) if octet in b"\r\n"] == [
        at for at, octet in enumerate(given_) if octet in b"\r\n"
    ]


def test_a_sip_message_keeps_its_digest_and_loses_its_bypass() -> None:
    message = b"INVITE sip:b SIP/2.0\r\nAuthorization: Digest a\r\np-identity-bypass: t0ken\r\n\r\na=b inline:k\r\n"
    assert hidden_in_sip(message) == message.replace(b"t0ken", b"*****").replace(b"inline:k", b"inline:*")
