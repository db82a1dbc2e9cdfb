"""Every bit of both messages matters: flipped, the message is refused with a documented error."""

from collections import Counter
from typing import Any

import pytest

from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.modes import Responder
from voice_dpki.mikey.replay import ReplayCache

NOW_S = 1_790_000_000.0


def flips(octets: bytes) -> list[bytes]:
    """The message with each of its bits changed, one at a time."""
    flipped = []
    for at in range(len(octets)):
        for bit in range(8):
            copy = bytearray(octets)
            copy[at] ^= 1 << bit
            flipped.append(bytes(copy))
    return flipped


def refused_by(read: Any, octets: bytes) -> Failure:
    with pytest.raises(MikeyError) as caught:
        read(octets)
    return caught.value.failure


def test_every_bit_of_the_i_message(call: Any) -> None:
    octets = call.offer().message
    failures = Counter(refused_by(call.accept, flipped) for flipped in flips(octets))
    assert failures.total() == 8 * len(octets)
    assert failures.keys() >= {Failure.SIGNATURE, Failure.CERTIFICATE, Failure.IDENTITY, Failure.SDP_IDS}


def test_every_bit_of_the_r_message(call: Any) -> None:
    offer = call.offer()
    octets = call.accept(offer.message).message
    failures = Counter(refused_by(lambda flipped: call.read_answer(offer, flipped), f) for f in flips(octets))
    assert failures.total() == 8 * len(octets)
    assert failures.keys() >= {Failure.SIGNATURE, Failure.CERTIFICATE, Failure.DH_ECHO, Failure.CRYPTO_SESSIONS}


def test_every_truncation(call: Any) -> None:
    offer = call.offer()
    answer = call.accept(offer.message).message
    responder = Responder(call.callee, ReplayCache(NOW_S - 10))
    for end in range(len(offer.message)):
        with pytest.raises(MikeyError):
            responder.receive(
                offer.message[:end],
                initiator_uri=call.caller.uri,
                key_mgmt_ids=("mikey",),
                now_s=NOW_S,
                steady_s=NOW_S,
            )
    for end in range(len(answer)):
        with pytest.raises(MikeyError):
            offer.receive(answer[:end], now_s=NOW_S)
