"""Messages that key several m-lines, in every mode: two crypto sessions for each, in order, and keys for each."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.mikey.conftest import CALLEE, CALLER, NOW_S, Call, CountingRandom, recorded
from tests.mikey.modern_calls import ModernCall, party, vouched
from tests.mikey.test_pke import Line as EncryptedTo
from tests.mikey.test_pke import prf_of
from tests.mikey.test_rsa_r import Line as Reverse
from tests.mikey.test_shared import Line as Shared
from tests.mikey.test_tshark import MIKEY_PORT, decode
from tests.mikey.test_update import agreed
from voice_dpki.errors import LocalError
from voice_dpki.mikey.agreement import Strength
from voice_dpki.mikey.certified import KeyingAnswer, Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Header, SrtpId
from voice_dpki.mikey.payloads import Rand
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.registry import DataType, Prf
from voice_dpki.mikey.sessions import MAX_LINES, offered_sessions
from voice_dpki.mikey.steps import PeerClaim, check_answer_header, check_offer_header
from voice_dpki.mikey.update import accept_update, offer_update
from voice_dpki.x509.keys import generate_es256

MODES = ("dh-sign", "psk", "dhhmac", "pke", "rsa-r", "modern", "hybrid")
PROFILE = SrtpProfile.AES_CM_128_HMAC_SHA1_80


@dataclass
class Exchange:
    """An offer and its answer, as whoever made each holds the keys."""

    offer: Any
    answer: KeyingAnswer
    keys: SrtpKeys


def exchange(mode: str, parties: tuple[Party, Party], lines: int, may_key: int | None = None) -> Exchange:
    """Let an offer for `lines` m-lines be answered by somebody whose SDP has `may_key`."""
    count = {"lines": lines if may_key is None else may_key}
    clocks = {"now_s": NOW_S, "steady_s": NOW_S}
    to_read: dict[str, Any] = {"initiator_uri": CALLER, "key_mgmt_ids": ("mikey",), **clocks, **count}
    given: dict[str, Any] = {"responder_uri": CALLEE, "profile": PROFILE, "now_s": NOW_S}
    if mode in ("psk", "dhhmac"):
        shared = Shared()
        offer: Any = shared.offer(mode, lines=lines)
        answer = shared.accept(offer.message, **count)
        return Exchange(offer, answer, offer.confirm(answer.message))
    if mode in ("modern", "hybrid"):
        signers = generate_es256(), generate_es256()
        modern = ModernCall(party(signers[0], CALLER), party(signers[1], CALLEE))
        strength = Strength.MODERN if mode == "modern" else Strength.HYBRID
        offer = modern.initiator.offer(random=modern.random, strength=strength, lines=lines, **given)
        claim = modern.responder.receive(offer.message, **to_read)
        answer = modern.responder.complete(claim, vouched(modern.caller), random=modern.random, **clocks)
        return Exchange(offer, answer, modern.read_answer(offer, answer.message))
    line: Any = {"dh-sign": Call, "pke": EncryptedTo, "rsa-r": Reverse}[mode](*parties)
    made = line.offer if mode == "pke" else partial(line.initiator.offer, random=line.random, **given)
    offer = made(lines=lines)
    claim = line.responder.receive(offer.message, **to_read)
    prepared = line.responder.prepare(claim, random=line.random)
    answer = line.responder.complete(prepared, recorded(claim), **clocks)
    if mode == "pke":
        return Exchange(offer, answer, offer.confirm(answer.message))
    theirs = offer.receive(answer.message, now_s=NOW_S)
    assert isinstance(theirs, PeerClaim)
    return Exchange(offer, answer, offer.complete(offer.prepare(theirs), recorded(theirs), now_s=NOW_S))


def turned(keys: SrtpKeys) -> SrtpKeys:
    """The keys as the other side has them."""
    return replace(keys, send=keys.receive, receive=keys.send)


def secrets(keys: SrtpKeys) -> list[Any]:
    return [[(each.ssrc, each.tek, each.salt) for each in (line.send, line.receive)] for line in keys.lines]


@pytest.mark.parametrize("lines", [1, 2, MAX_LINES])
@pytest.mark.parametrize("mode", MODES)
def test_both_sides_hold_the_same_keys_for_each_line(mode: str, lines: int, parties: tuple[Party, Party]) -> None:
    done = exchange(mode, parties, lines)
    ours, theirs = done.keys.lines, done.answer.keys.lines
    assert len(ours) == len(theirs) == lines
    assert [secrets(turned(line)) for line in theirs] == [secrets(line) for line in ours]
    streams = [stream for line in ours for stream in (line.send, line.receive)]
    for name in ("ssrc", "tek", "salt"):
        assert len({getattr(stream, name) for stream in streams}) == 2 * lines, f"no two streams share their {name}"


@pytest.mark.parametrize("mode", MODES)
def test_the_map_is_that_of_the_standard_octet_by_octet(mode: str, parties: tuple[Party, Party]) -> None:
    """RFC 3830 §6.1.1: #CS, type 0, then policy, SSRC and ROC of each; RFC 4567 §7.1: two IDs for each m-line."""
    done = exchange(mode, parties, 2)
    audio, video = done.keys.lines
    ours = [audio.send.ssrc, video.send.ssrc]
    for octets, theirs in (
        (done.offer.message, [0, 0]),
        (done.answer.message, [audio.receive.ssrc, video.receive.ssrc]),
    ):
        assert octets[8:10] == bytes([4, 0])
        entries = [struct.unpack("!BII", octets[at : at + 9]) for at in range(10, 46, 9)]
        wanted = [ours[0], theirs[0], ours[1], theirs[1]]
        assert entries == [(0, ssrc, 0) for ssrc in wanted]


def test_keys_follow_from_the_crypto_session_by_the_text(parties: tuple[Party, Party]) -> None:
    """RFC 3830 §4.1.3 with nothing but HMAC: label = constant, CS ID, CSB ID, RAND."""
    done = exchange("psk", parties, 3)
    csb, rand = done.offer.message[4:8], done.offer.sent.one(Rand).rand
    streams = [stream for line in done.keys.lines for stream in (line.send, line.receive)]
    for cs_id, stream in enumerate(streams, start=1):
        label = bytes([cs_id]) + csb + rand
        assert stream.tek == prf_of("sha256", done.offer._tgk, bytes.fromhex("2AD01C64") + label, 16)
        assert stream.salt == prf_of("sha256", done.offer._tgk, bytes.fromhex("39A2C14B") + label, 14)


@pytest.mark.parametrize("mode", MODES)
def test_more_lines_than_the_session_description_has_are_refused(mode: str, parties: tuple[Party, Party]) -> None:
    with pytest.raises(MikeyError) as caught:
        exchange(mode, parties, 2, may_key=1)
    assert caught.value.failure is Failure.CRYPTO_SESSIONS


@pytest.mark.parametrize("mode", MODES)
def test_fewer_lines_are_the_first_of_them(mode: str, parties: tuple[Party, Party]) -> None:
    done = exchange(mode, parties, 1, may_key=3)
    assert len(done.answer.keys.lines) == 1


@pytest.mark.parametrize("lines", [0, MAX_LINES + 1])
def test_no_message_keys_more_lines_than_the_bound(lines: int) -> None:
    with pytest.raises(LocalError):
        offered_sessions(CountingRandom("bound"), lines)


OURS, THEIRS = SrtpId(0, 1), SrtpId(0, 0)


@pytest.mark.parametrize(
    "sessions",
    [
        (OURS, THEIRS, SrtpId(0, 2)),
        (OURS, THEIRS, SrtpId(0, 2), SrtpId(0, 3)),
        (OURS, THEIRS, THEIRS, SrtpId(0, 2)),
        (OURS, THEIRS, THEIRS, THEIRS),
        (OURS, THEIRS, OURS, THEIRS),
        (OURS, THEIRS, SrtpId(0, 2, 1), THEIRS),
        (OURS, THEIRS, SrtpId(0, 2), SrtpId(0, 0, 1)),
        (),
    ],
)
def test_maps_that_do_not_fit_are_refused(sessions: tuple[SrtpId, ...]) -> None:
    with pytest.raises(MikeyError) as caught:
        check_offer_header(Header(DataType.DH_INIT, 1, Prf.HMAC_SHA_256, sessions), lines=2)
    assert caught.value.failure is Failure.CRYPTO_SESSIONS


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s[:2],
        lambda s: (*s, SrtpId(0, 9), SrtpId(0, 10)),
        lambda s: (s[2], s[3], s[0], s[1]),
        lambda s: (s[0], s[1], s[2], replace(s[3], ssrc=0)),
        lambda s: (s[0], s[1], s[2], replace(s[3], ssrc=s[1].ssrc)),
        lambda s: (s[0], s[1], s[2], replace(s[3], ssrc=s[0].ssrc)),
        lambda s: (s[0], s[1], s[2], replace(s[3], roc=1)),
        lambda s: (s[0], s[1], s[2], replace(s[3], policy_no=1)),
        lambda s: (s[0], s[1], replace(s[2], ssrc=77), s[3]),
    ],
)
def test_an_answer_with_another_map_is_refused(change: Callable[..., tuple[SrtpId, ...]]) -> None:
    sent = Header(DataType.DH_INIT, 1, Prf.HMAC_SHA_256, (OURS, THEIRS, SrtpId(0, 2), THEIRS), respond=True)
    good = (OURS, SrtpId(0, 3), SrtpId(0, 2), SrtpId(0, 4))
    answer = Header(DataType.DH_RESP, 1, Prf.HMAC_SHA_256, good)
    check_answer_header(sent, answer, DataType.DH_RESP)
    with pytest.raises(MikeyError) as caught:
        check_answer_header(sent, replace(answer, sessions=change(good)), DataType.DH_RESP)
    assert caught.value.failure is Failure.CRYPTO_SESSIONS


@pytest.mark.parametrize("mode", ["psk", "dhhmac"])
def test_an_update_keys_all_lines_anew(mode: str, parties: tuple[Party, Party]) -> None:
    done, call = exchange(mode, parties, 2), agreed(mode, parties)
    bundle = done.offer.bundle(done.answer.message)
    assert done.answer.bundle is not None
    timestamp = call.line.initiator.next_timestamp(NOW_S + 1)
    update = offer_update(bundle, timestamp, random=call.random)
    clocks = {"now_s": NOW_S + 1, "steady_s": NOW_S + 1}
    answer = accept_update(
        done.answer.bundle, update.message, call.replays, key_mgmt_ids=("mikey",), random=call.random, **clocks
    )
    keys = update.confirm(answer.message).keys
    assert [secrets(turned(line)) for line in answer.updated.keys.lines] == [secrets(line) for line in keys.lines]
    teks = {stream.tek for each in (done.keys, keys) for line in each.lines for stream in (line.send, line.receive)}
    assert len(teks) == 8
    narrowed = replace(bundle, sessions=bundle.sessions[:2])
    with pytest.raises(MikeyError):
        accept_update(narrowed, update.message, call.replays, key_mgmt_ids=("mikey",), random=call.random, **clocks)


@pytest.mark.peer("tshark")
def test_tshark_reads_them(parties: tuple[Party, Party], tmp_path: Path) -> None:
    """tshark stops in silence at what it does not know, which comes after the map."""
    messages = []
    for mode in MODES:
        done = exchange(mode, parties, 2)
        messages += [done.offer.message, done.answer.message]
    text = decode(tmp_path, *((MIKEY_PORT, message) for message in messages))
    assert "alformed" not in text
    assert text.count("#CS: 4") == len(messages)
