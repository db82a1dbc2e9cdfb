"""The sizes, times and counts of MIKEY's side, each by its own number, and what happens at them.

The other tests take most of them from the code, so a changed number changes those tests with it.
"""

from types import ModuleType

import pytest

from tests.mikey.conftest import NOW_S
from tests.mikey.test_shared import SECRET, Line
from voice_dpki.codec.ntp import ntp_time
from voice_dpki.mikey import agreement, dh, envelope, message, replay, sdp, sessions, shared, steps, strength
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.message import Message, serialize
from voice_dpki.mikey.payloads import GeneralExtension, Kemac
from voice_dpki.mikey.registry import ExtensionType, Prf
from voice_dpki.mikey.replay import ReplayCache, timestamp_at
from voice_dpki.mikey.transport import MessageKeys

NUMBERS: list[tuple[ModuleType, dict[str, float]]] = [
    (agreement, {"X25519_BYTES": 32, "ENCAPSULATION_KEY_BYTES": 1184, "CIPHERTEXT_BYTES": 1088, "SEED_BYTES": 64}),
    (dh, {"GENERATOR": 2, "SECRET_BYTES": 32}),
    (envelope, {"ENVELOPE_KEY_BYTES": 32, "MAX_ENVELOPE_KEY_BYTES": 64}),
    (message, {"MAX_MESSAGE_BYTES": 16_384, "MAX_PAYLOADS": 32}),
    (replay, {"MAX_SKEW_S": 60, "MAX_REPLAY_ENTRIES": 4096, "SET_S": 60}),
    (sdp, {"MAX_VALUES": 8}),
    (sessions, {"MAX_LINES": 4}),
    (shared, {"MIN_KEY_BYTES": 16, "TGK_BYTES": 32}),
    (steps, {"RAND_BYTES": 16}),
    (strength, {"MAX_RSA_BITS": 4096, "MAX_RSA_EXPONENT": 4_294_967_295}),
]


@pytest.mark.parametrize(("module", "numbers"), NUMBERS)
def test_numbers_are_those_that_were_decided(module: ModuleType, numbers: dict[str, float]) -> None:
    assert {name: getattr(module, name) for name in numbers} == numbers


def refused(cache: ReplayCache, octets: bytes, sent_s: float, steady_s: float = 1000.0) -> str:
    try:
        cache.check(octets, timestamp_at(ntp_time(sent_s)), now_s=NOW_S, steady_s=steady_s)
    except MikeyError as error:
        return str(error.failure)
    return ""


def test_a_message_may_be_a_minute_off_and_no_longer() -> None:
    cache = ReplayCache(started_s=0)
    for apart_s, wanted in ((60.0, ""), (60.25, Failure.TIMESTAMP)):
        assert refused(cache, b"", NOW_S - apart_s) == wanted
        assert refused(cache, b"", NOW_S + apart_s) == wanted


def test_a_message_may_be_as_old_as_the_memory_and_no_older() -> None:
    cache = ReplayCache(started_s=100.0)
    for age_s, wanted in ((9.75, ""), (10.0, ""), (10.25, Failure.REPLAY)):
        assert refused(cache, b"", NOW_S - age_s, steady_s=110.0) == wanted


@pytest.mark.parametrize(("ahead_s", "kept_s"), [(0, 120), (-30, 90), (30, 150)])
def test_a_message_is_remembered_until_nobody_could_replay_it(ahead_s: int, kept_s: int) -> None:
    """Until its timestamp is a minute old, and another minute, by which a wall clock may be set back."""
    stamp, fresh = timestamp_at(ntp_time(NOW_S + ahead_s)), timestamp_at(ntp_time(NOW_S + kept_s))
    cache = ReplayCache(started_s=0, max_entries=1)
    cache.remember(b"first", stamp, now_s=NOW_S, steady_s=1000.0)
    with pytest.raises(MikeyError, match="full"):
        cache.remember(b"second", fresh, now_s=NOW_S + kept_s, steady_s=1000.0 + kept_s)
    cache.remember(b"second", fresh, now_s=NOW_S + kept_s, steady_s=1000.25 + kept_s)


@pytest.mark.parametrize(("places", "most"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)])
def test_an_organisation_holds_one_entry_more_than_there_are_free_places(places: int, most: int) -> None:
    cache, stamp = ReplayCache(started_s=0, max_entries=places), timestamp_at(ntp_time(NOW_S))
    for number in range(most):
        cache.remember(b"%d" % number, stamp, now_s=NOW_S, steady_s=1000.0, organization="one")
    with pytest.raises(MikeyError, match="full"):
        cache.remember(b"more", stamp, now_s=NOW_S, steady_s=1000.0, organization="one")


def test_the_mac_ends_the_message_and_is_the_last_payload_s() -> None:
    """RFC 3830 §5.2: what followed it would be covered by nothing."""
    sent = Line().offer("psk").sent
    keys, mac = MessageKeys(SECRET, Prf.HMAC_SHA_256, sent.header.csb_id, bytes(16)), bytes(range(32))
    *kept, kemac = sent.payloads
    assert isinstance(kemac, Kemac)
    broken = Kemac(kemac.encr_alg, kemac.encr_data, kemac.mac_alg, mac)
    copy = GeneralExtension(ExtensionType.VENDOR_ID, mac)
    copied = Message.parse(serialize(sent.header, (*kept, broken, copy)))
    assert copied.octets.endswith(mac)
    for message_ in (copied, Message(sent.header, (*kept, broken), serialize(sent.header, (*kept, kemac)))):
        with pytest.raises(MikeyError, match="not at the end") as caught:
            keys.check_kemac(message_)
        assert caught.value.failure is Failure.PAYLOAD
