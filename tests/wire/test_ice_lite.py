"""ICE's lite side: the check of RFC 5769, aioice's checks, and what is no check for us."""

import os
import random as stdlib_random

import pytest
from aioice import stun

from voice_dpki.effects import SystemRandom
from voice_dpki.wire.ice_lite import IceLite

# RFC 5769 §2.1: user name evtj:h6vY, password VOkJxbRl1RmTxUk/WvJxBt.
RFC_CHECK = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff"
    "80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
SOURCE = ("192.0.2.1", 32_853)


@pytest.fixture
def ice() -> IceLite:
    made = IceLite(SystemRandom())
    made.name, made.password = "evtj", "VOkJxbRl1RmTxUk/WvJxBt"
    return made


def test_the_rfcs_check_is_answered(ice: IceLite) -> None:
    answer = ice.check(RFC_CHECK, SOURCE)
    assert answer is not None
    assert not answer.nominates
    read = stun.parse_message(answer.response)
    assert read.transaction_id == RFC_CHECK[8:20]
    assert read.attributes["XOR-MAPPED-ADDRESS"] == SOURCE
    assert read.check_message_integrity(ice.password.encode())


def test_a_changed_check_is_not(ice: IceLite) -> None:
    # But for the head of FINGERPRINT: another attribute there is behind MESSAGE-INTEGRITY and does not count.
    for at in [*range(100), *range(104, 108)]:
        changed = RFC_CHECK[:at] + bytes([RFC_CHECK[at] ^ 1]) + RFC_CHECK[at + 1 :]
        assert ice.check(changed, SOURCE) is None, at


def test_nomination_is_seen(ice: IceLite) -> None:
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, os.urandom(12))
    request.attributes |= {"USERNAME": "evtj:other", "USE-CANDIDATE": None, "PRIORITY": 1}
    request.add_message_integrity(ice.password.encode())
    answer = ice.check(bytes(request), SOURCE)
    assert answer is not None
    assert answer.nominates


def test_a_check_for_another_name_or_without_proof_is_not_ours(ice: IceLite) -> None:
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, os.urandom(12), {"USERNAME": "evtj:a"})
    assert ice.check(bytes(request), SOURCE) is None
    request.attributes["USERNAME"] = "else:a"
    request.add_message_integrity(ice.password.encode())
    assert ice.check(bytes(request), SOURCE) is None


def test_any_octets_are_answered_or_not() -> None:
    ice, lottery = IceLite(SystemRandom()), stdlib_random.Random(7)
    for _ in range(5000):
        data = bytearray(RFC_CHECK[: lottery.randrange(len(RFC_CHECK) + 1)])
        for _ in range(lottery.randrange(8)):
            if data:
                data[lottery.randrange(len(data))] = lottery.randrange(256)
        data[2:4] = max(0, len(data) - 20).to_bytes(2, "big")
        assert ice.check(bytes(data), SOURCE) is None
    assert ice.check(RFC_CHECK + bytes(1000), SOURCE) is None
