"""PSK and DHHMAC: between two of ours, against octets of other implementations, and under every change."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.mikey.conftest import CALLEE, CALLER, NOW_S, CountingRandom
from voice_dpki.errors import LocalError
from voice_dpki.mikey import dh
from voice_dpki.mikey.certified import KeyingAnswer
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import EnvelopeConstant, KeyedPrf, Label, StreamKey
from voice_dpki.mikey.message import Header, Message, SrtpId, serialize
from voice_dpki.mikey.payloads import (
    DhValue,
    Identity,
    Kemac,
    KeyData,
    Payload,
    Rand,
    Timestamp,
    Verification,
)
from voice_dpki.mikey.policy import SrtpProfile, policy_for
from voice_dpki.mikey.registry import DataType, DhGroup, EncrAlg, IdType, KeyType, MacAlg, Prf, TimestampType
from voice_dpki.mikey.replay import MAX_SKEW_S, ReplayCache
from voice_dpki.mikey.shared import SharedInitiator, SharedOffer, SharedResponder, open_tgk
from voice_dpki.mikey.transport import MessageKeys, parties_of

VECTORS = Path(__file__).parents[1] / "vectors" / "mikey"
SECRET = bytes(range(64, 96))
PROFILE = SrtpProfile.AES_CM_128_HMAC_SHA1_80
MODES = ("psk", "dhhmac")


class Line:
    """A caller and a callee that share a key."""

    def __init__(self, secret: bytes = SECRET, callee_secret: bytes | None = None) -> None:
        self.random = CountingRandom("line")
        self.initiator = SharedInitiator(CALLER, {CALLEE: secret}.get)
        theirs = secret if callee_secret is None else callee_secret
        self.responder = SharedResponder(CALLEE, {CALLER: theirs}.get, ReplayCache(started_s=0))

    def offer(self, mode: str, **changes: Any) -> SharedOffer:
        make = self.initiator.offer_psk if mode == "psk" else self.initiator.offer_dhhmac
        options: dict[str, Any] = {"responder_uri": CALLEE, "profile": PROFILE, "now_s": NOW_S, **changes}
        offer: SharedOffer = make(random=self.random, **options)
        return offer

    def accept(self, octets: bytes, **changes: Any) -> KeyingAnswer:
        options: dict[str, Any] = {
            "initiator_uri": CALLER,
            "key_mgmt_ids": ("mikey",),
            "now_s": NOW_S,
            "steady_s": 1000.0,
            **changes,
        }
        return self.responder.accept(octets, random=self.random, **options)


def refused(act: Callable[[], object]) -> Failure:
    with pytest.raises(MikeyError) as caught:
        act()
    return caught.value.failure


def changed(offer: SharedOffer, change: Callable[[tuple[Payload, ...]], tuple[Payload, ...]]) -> bytes:
    """The offer with other payloads before KEMAC, and a MAC that is right for them."""
    kept = tuple(payload for payload in offer.sent.payloads if not isinstance(payload, Kemac))
    kemac = offer.sent.one(Kemac)
    return offer._keys.sealed(offer.sent.header, change(kept), EncrAlg(kemac.encr_alg), kemac.encr_data)


@pytest.mark.parametrize("profile", SrtpProfile)
@pytest.mark.parametrize("prf", Prf)
@pytest.mark.parametrize("mode", MODES)
def test_both_sides_agree(mode: str, prf: Prf, profile: SrtpProfile) -> None:
    line = Line()
    offer = line.offer(mode, prf=prf, profile=profile)
    answer = line.accept(offer.message)
    keys = offer.confirm(answer.message)
    assert keys.profile is answer.keys.profile is profile
    assert (keys.send, keys.receive) == (answer.keys.receive, answer.keys.send)
    assert len({keys.send.tek, keys.receive.tek, line.offer(mode).message}) == 3
    assert len({keys.send.ssrc, keys.receive.ssrc, 0}) == 3


@pytest.mark.parametrize("mode", MODES)
def test_another_key_is_refused(mode: str) -> None:
    line = Line(callee_secret=SECRET[::-1])
    assert refused(lambda: line.accept(line.offer(mode).message)) is Failure.MAC


@pytest.mark.parametrize("mode", MODES)
def test_every_changed_byte_is_refused(mode: str) -> None:
    line = Line()
    offer = line.offer(mode)
    octets = offer.message
    for at in range(len(octets)):
        for bit in (0x01, 0x80):
            with pytest.raises(MikeyError):
                line.accept(octets[:at] + bytes([octets[at] ^ bit]) + octets[at + 1 :])
    answer = line.accept(octets).message
    for at in range(len(answer)):
        for bit in (0x01, 0x80):
            with pytest.raises(MikeyError):
                offer.confirm(answer[:at] + bytes([answer[at] ^ bit]) + answer[at + 1 :])
    offer.confirm(answer)


@pytest.mark.parametrize("mode", MODES)
def test_every_truncation_is_refused(mode: str) -> None:
    line = Line()
    offer = line.offer(mode)
    for end in range(len(offer.message)):
        with pytest.raises(MikeyError):
            line.accept(offer.message[:end])
    answer = line.accept(offer.message).message
    for end in range(len(answer)):
        with pytest.raises(MikeyError):
            offer.confirm(answer[:end])


@pytest.mark.parametrize("mode", MODES)
def test_a_replay_and_a_wrong_time_are_refused(mode: str) -> None:
    line = Line()
    octets = line.offer(mode).message
    assert refused(lambda: line.accept(octets, now_s=NOW_S + MAX_SKEW_S + 1)) is Failure.TIMESTAMP
    assert refused(lambda: line.accept(octets, now_s=NOW_S + 30, steady_s=10.0)) is Failure.REPLAY
    line.accept(octets)
    assert refused(lambda: line.accept(octets)) is Failure.REPLAY


@pytest.mark.parametrize("mode", MODES)
def test_only_what_verified_is_remembered(mode: str) -> None:
    line = Line()
    octets = line.offer(mode).message
    assert refused(lambda: line.accept(octets, key_mgmt_ids=("mikey", "other"))) is Failure.SDP_IDS
    line.accept(octets)


@pytest.mark.parametrize("mode", MODES)
def test_other_parties_are_refused(mode: str) -> None:
    line = Line()
    octets = line.offer(mode).message
    assert refused(lambda: line.accept(octets, initiator_uri="sip:+493099@a.example")) is Failure.IDENTITY
    elsewhere = SharedResponder("sip:+493098@b.example", {CALLER: SECRET}.get, ReplayCache(started_s=0))
    line.responder = elsewhere
    assert refused(lambda: line.accept(octets)) is Failure.IDENTITY
    for key in ({}, {CALLER: SECRET[:15]}):
        line.responder = SharedResponder(CALLEE, key.get, ReplayCache(started_s=0))
        assert refused(lambda: line.accept(octets)) is Failure.IDENTITY


@pytest.mark.parametrize("mode", MODES)
def test_who_shares_a_key_too_is_not_the_party_of_this_call(mode: str) -> None:
    """The MAC is right, for one key serves several parties here; the names in the offer tell them apart."""
    line = Line()
    octets = line.offer(mode).message
    for uri, caller, why in (
        (CALLEE, "sip:+493099@a.example", "the Initiator's ID"),
        ("sip:+493098@b.example", CALLER, "for another Responder"),
    ):
        line.responder = SharedResponder(uri, lambda _: SECRET, ReplayCache(started_s=0))
        with pytest.raises(MikeyError, match=why) as caught:
            line.accept(octets, initiator_uri=caller)
        assert caught.value.failure is Failure.IDENTITY


@pytest.mark.parametrize("mode", MODES)
def test_a_replay_is_refused_before_anything_is_computed_for_it(mode: str) -> None:
    line = Line()
    octets = line.offer(mode).message
    line.accept(octets)
    assert refused(lambda: line.accept(octets, key_mgmt_ids=("other",))) is Failure.REPLAY


@pytest.mark.parametrize("secret", [None, b"", SECRET[:15]])
@pytest.mark.parametrize("mode", MODES)
def test_no_offer_without_a_key(mode: str, secret: bytes | None) -> None:
    line = Line()
    line.initiator = SharedInitiator(CALLER, {CALLEE: secret}.get)
    with pytest.raises(LocalError, match="16 bytes"):
        line.offer(mode)


@pytest.mark.parametrize("mode", MODES)
def test_the_null_mac_is_refused(mode: str) -> None:
    """It authenticates nothing, though both standards have it."""
    line = Line()
    offer = line.offer(mode)
    kept = offer.sent.payloads[:-1]
    null = serialize(offer.sent.header, (*kept, replace(offer.sent.one(Kemac), mac_alg=MacAlg.NULL, mac=b"")))
    assert refused(lambda: line.accept(null)) is Failure.MAC
    with pytest.raises(MikeyError, match="MAC algorithm 0 is not that of the PRF"):
        line.accept(null)
    answer = Message.parse(line.accept(offer.message).message)
    last = answer.payloads[-1]
    assert isinstance(last, Kemac | Verification)
    without = (
        replace(last, mac_alg=MacAlg.NULL, mac=b"")
        if isinstance(last, Kemac)
        else replace(last, auth_alg=MacAlg.NULL, data=b"")
    )
    assert refused(lambda: offer.confirm(serialize(answer.header, (*answer.payloads[:-1], without)))) is Failure.MAC


@pytest.mark.parametrize("mode", MODES)
def test_a_mac_that_is_not_at_the_end_is_refused(mode: str) -> None:
    """What follows it would be covered by nothing."""
    line = Line()
    offer = line.offer(mode)
    *kept, ids, kemac = offer.sent.payloads
    assert refused(lambda: line.accept(serialize(offer.sent.header, (*kept, kemac, ids)))) is Failure.PAYLOAD


@pytest.mark.parametrize(
    "data",
    [
        (KeyData(KeyType.TEK, bytes(32)),),
        (KeyData(KeyType.TGK_SALT, bytes(32), bytes(14)),),
        (KeyData(KeyType.TGK, bytes(15)),),
        (KeyData(KeyType.TGK, bytes(32)), KeyData(KeyType.TGK, bytes(32))),
        (Rand(bytes(16)),),
        (),
    ],
)
def test_key_data_must_be_one_tgk(data: tuple[Payload, ...]) -> None:
    line = Line()
    offer = line.offer("psk")
    kinds = [payload.kind for payload in data[1:]] + [0]
    clear = b"".join(bytes([kind]) + payload.serialize() for payload, kind in zip(data, kinds, strict=False))
    sealed = offer._keys.crypt(clear, offer.sent.one(Timestamp))
    kept = offer.sent.payloads[:-1]
    octets = offer._keys.sealed(offer.sent.header, kept, offer._keys.encr_alg, sealed)
    assert refused(lambda: line.accept(octets)) in (Failure.PAYLOAD, Failure.MALFORMED)


@pytest.mark.parametrize("algorithm", [EncrAlg.NULL, EncrAlg.AES_CM_128, EncrAlg.AES_KW_128])
def test_other_encryption_than_that_of_the_prf_is_refused(algorithm: EncrAlg) -> None:
    line = Line()
    offer = line.offer("psk")
    kept, kemac = offer.sent.payloads[:-1], offer.sent.one(Kemac)
    octets = offer._keys.sealed(offer.sent.header, kept, algorithm, kemac.encr_data)
    assert refused(lambda: line.accept(octets)) is Failure.ENCRYPTION


def test_dhhmac_transports_no_key() -> None:
    line = Line()
    offer = line.offer("dhhmac")
    kept = offer.sent.payloads[:-1]
    for algorithm, data in ((EncrAlg.AES_CM_256, b""), (EncrAlg.NULL, bytes(20))):
        octets = offer._keys.sealed(offer.sent.header, kept, algorithm, data)
        assert refused(lambda octets=octets: line.accept(octets)) is Failure.ENCRYPTION  # type: ignore[misc]


@pytest.mark.parametrize("value", [0, 1, dh.PRIME - 1, dh.PRIME])
def test_public_values_that_give_a_known_key_are_refused(value: int) -> None:
    line = Line()
    offer = line.offer("dhhmac")
    weak = DhValue(DhGroup.OAKLEY_5, value.to_bytes(192, "big"))

    def with_weak(payloads: tuple[Payload, ...]) -> tuple[Payload, ...]:
        return tuple(weak if isinstance(payload, DhValue) else payload for payload in payloads)

    assert refused(lambda: line.accept(changed(offer, with_weak))) is Failure.DH_VALUE


def test_an_offer_that_asks_for_no_answer_is_refused() -> None:
    line = Line()
    offer = line.offer("psk")
    kept, kemac = offer.sent.payloads[:-1], offer.sent.one(Kemac)
    header = replace(offer.sent.header, respond=False)
    octets = offer._keys.sealed(header, kept, EncrAlg(kemac.encr_alg), kemac.encr_data)
    assert refused(lambda: line.accept(octets)) is Failure.PAYLOAD


def test_modes_do_not_mix() -> None:
    line = Line()
    psk, dhhmac = line.offer("psk"), line.offer("dhhmac")
    assert refused(lambda: psk.confirm(line.accept(dhhmac.message).message)) is Failure.DATA_TYPE
    assert refused(lambda: dhhmac.confirm(line.accept(psk.message).message)) is Failure.DATA_TYPE
    assert refused(lambda: psk.confirm(psk.message)) is Failure.DATA_TYPE
    signed = replace(psk.sent.header, data_type=DataType.DH_INIT)
    assert refused(lambda: line.accept(serialize(signed, psk.sent.payloads))) is Failure.DATA_TYPE


@pytest.mark.parametrize("mode", MODES)
def test_the_answer_to_another_offer_is_refused(mode: str) -> None:
    line = Line()
    first, second = line.offer(mode), line.offer(mode)
    assert refused(lambda: first.confirm(line.accept(second.message).message)) is Failure.CSB_ID


def test_offers_have_bundles_and_times_of_their_own() -> None:
    line = Line()
    offers = [line.offer(mode) for mode in MODES for _ in range(3)]
    assert len({offer.csb_id for offer in offers}) == len(offers)
    assert len({offer.sent.one(Timestamp).value for offer in offers}) == len(offers)
    line.initiator.close(offers[0].csb_id)


# Octets of others.


class LongKeys(MessageKeys):
    """Keys as mykey derives them: RFC 3830 §4.2.4 recommends an authentication key as long as the MAC, 20 bytes."""

    @cached_property
    def _auth_key(self) -> bytes:
        return self._derive(EnvelopeConstant.AUTHENTICATION, 32)


@pytest.mark.parametrize("vector", json.loads((VECTORS / "psk.json").read_text()))
def test_offers_of_libmikey(vector: dict[str, Any]) -> None:
    message = Message.parse(base64.b64decode(vector["i_message"]))
    keys = MessageKeys(bytes.fromhex(vector["psk"]), Prf.MIKEY_1, message.header.csb_id, message.one(Rand).rand)
    assert open_tgk(keys.check_kemac(message), keys, message.one(Timestamp)).hex() == vector["tgk"]


EXCHANGES = json.loads((VECTORS / "mykey.json").read_text())


@pytest.mark.parametrize("vector", [v for v in EXCHANGES if v["exchange"] == "psk"])
def test_psk_exchanges_with_mykey(vector: dict[str, Any]) -> None:
    """Keys of 16, 24, 31, 32, 33 and 64 bytes; our messages are those that mykey accepted, to the octet."""
    offer, answer = (Message.parse(bytes.fromhex(vector[name])) for name in ("offer", "answer"))
    timestamp, identities = offer.one(Timestamp), offer.all(Identity)
    keys = LongKeys(bytes.fromhex(vector["psk"]), Prf.MIKEY_1, offer.header.csb_id, offer.one(Rand).rand)
    assert open_tgk(keys.check_kemac(offer), keys, timestamp).hex() == vector["tgk"]
    idi = identities[0].data if identities else b""
    keys.check_verification(answer, parties_of(idi, b"", timestamp))
    if vector["offer_by"] == "mykey":
        assert keys.verified(answer.header, answer.payloads[:-1], parties_of(idi, b"", timestamp)) == answer.octets
    else:
        data = keys.crypt(b"\0" + KeyData(KeyType.TGK, bytes.fromhex(vector["tgk"])).serialize(), timestamp)
        assert keys.sealed(offer.header, offer.payloads[:-1], keys.encr_alg, data) == offer.octets


@pytest.mark.parametrize("vector", [v for v in EXCHANGES if v["exchange"] == "dhhmac"])
def test_dhhmac_exchanges_with_mykey(vector: dict[str, Any]) -> None:
    offer, answer = (Message.parse(bytes.fromhex(vector[name])) for name in ("offer", "answer"))
    rand, csb_id = offer.one(Rand).rand, offer.header.csb_id
    keys = LongKeys(bytes.fromhex(vector["psk"]), Prf.MIKEY_1, csb_id, rand)
    for message in (offer, answer):
        keys.check_kemac(message)
    ours = offer if vector["offer_by"] == "voice-dpki" else answer
    theirs = answer if ours is offer else offer
    assert keys.sealed(ours.header, ours.payloads[:-1], EncrAlg.NULL, b"") == ours.octets
    pair = dh.new_pair(CountingRandom("dhhmac"))
    assert ours.one(DhValue).value == pair.public_value
    tgk = KeyedPrf(Prf.MIKEY_1, dh.shared_value(pair.secret, theirs.one(DhValue).value))
    key = StreamKey.from_tgk(tgk, Label(0, csb_id, rand), PROFILE, 0)
    assert (key.tek + key.salt).hex() == vector["keys"]


def test_a_header_asks_for_no_answer_unless_it_says_so() -> None:
    assert not Header(DataType.PSK_INIT, 1, 0).respond


def test_the_header_of_the_vectors_is_as_described() -> None:
    ours = Message.parse(bytes.fromhex(next(v for v in EXCHANGES if v["offer_by"] == "voice-dpki")["offer"]))
    sessions = (SrtpId(0, 0x01020304), SrtpId(0, 0))
    assert ours.header == Header(DataType.PSK_INIT, 0xA1B2C3D4, Prf.MIKEY_1, sessions, respond=True)
    assert ours.one(Timestamp).ts_type == TimestampType.NTP_UTC
    assert [identity.id_type for identity in ours.all(Identity)] == [IdType.URI] * 2
    assert ours.payloads[4] == policy_for(PROFILE)
