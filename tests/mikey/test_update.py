"""New keys in mid-call, for bundles of each mode that has them: by the text of RFC 3830 §4.5, and refusals."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.mikey.conftest import CALLEE, CALLER, NOW_S, CountingRandom, recorded, secrets_of
from tests.mikey.test_pke import Line as EncryptedTo
from tests.mikey.test_pke import prf_of, refused
from tests.mikey.test_rsa_r import Line as Reverse
from tests.mikey.test_shared import SECRET, Line
from voice_dpki.errors import LocalError
from voice_dpki.mikey.bundle import Bundle
from voice_dpki.mikey.certified import Party
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.message import Header, Message, SrtpId
from voice_dpki.mikey.payloads import (
    DhValue,
    EnvelopeKey,
    GeneralExtension,
    Identity,
    Kemac,
    KeyData,
    Payload,
    Rand,
    SecurityPolicy,
    Timestamp,
)
from voice_dpki.mikey.policy import policy_for
from voice_dpki.mikey.registry import Cache, DataType, EncrAlg, ExtensionType, KeyType, Prf
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.mikey.steps import identity_of
from voice_dpki.mikey.update import UpdateAnswer, UpdateOffer, accept_update, offer_update
from voice_dpki.x509.recorded import CertStatus

MODES = ("psk", "dhhmac", "pke", "rsa-r")


@dataclass
class Agreed:
    """A bundle on both sides, with what updates need."""

    line: Any
    keys: SrtpKeys
    ours: Bundle
    theirs: Bundle
    random: CountingRandom
    replays: ReplayCache

    def offer(self, now_s: float = NOW_S + 1, **options: Any) -> UpdateOffer:
        timestamp = self.line.initiator.next_timestamp(now_s)
        return offer_update(self.ours, timestamp, random=self.random, **options)

    def accept(self, octets: bytes, now_s: float = NOW_S + 1, **changes: Any) -> UpdateAnswer:
        options: dict[str, Any] = {"key_mgmt_ids": ("mikey",), "steady_s": now_s, **changes}
        return accept_update(self.theirs, octets, self.replays, random=self.random, now_s=now_s, **options)

    def sealed(self, offer: UpdateOffer, change: Callable[[list[Payload]], Any], **header: Any) -> bytes:
        """The update after a change, with a MAC that is right for it."""
        payloads, kemac = list(offer.sent.payloads[:-1]), offer.sent.one(Kemac)
        change(payloads)
        head = replace(offer.sent.header, **header)
        return self.ours.keys.sealed(head, tuple(payloads), EncrAlg(kemac.encr_alg), kemac.encr_data)


def agreed(mode: str, parties: tuple[Party, Party], prf: Prf = Prf.HMAC_SHA_256) -> Agreed:
    random, replays = CountingRandom("update"), ReplayCache(started_s=0)
    if mode in ("pke", "rsa-r"):
        line: Any = (EncryptedTo if mode == "pke" else Reverse)(*parties)
        offer: Any = line.offer(prf=prf)
    else:
        line = Line()
        offer = line.offer(mode, prf=prf)
    answer = line.accept(offer.message)
    if mode == "rsa-r":
        keys, bundle = line.confirm(offer, answer.message), line.bundle(offer, answer.message)
    else:
        keys, bundle = offer.confirm(answer.message), offer.bundle(answer.message)
    return Agreed(line, keys, bundle, present_of(answer.bundle), random, replays)


@pytest.fixture(params=MODES)
def call(request: Any, parties: tuple[Party, Party]) -> Agreed:
    return agreed(request.param, parties)


@pytest.mark.parametrize("prf", Prf)
@pytest.mark.parametrize("mode", MODES)
def test_both_sides_hold_the_same_new_keys(mode: str, prf: Prf, parties: tuple[Party, Party]) -> None:
    call = agreed(mode, parties, prf)
    seen = {call.keys.send.tek, call.keys.receive.tek}
    ssrcs = {call.keys.send.ssrc, call.keys.receive.ssrc}
    for later_s in (1, 2, 3):
        offer = call.offer(NOW_S + later_s)
        answer = call.accept(offer.message, NOW_S + later_s)
        updated = offer.confirm(answer.message)
        keys, theirs = updated.keys, answer.updated.keys
        assert secrets_of(theirs) == secrets_of(SrtpKeys(keys.profile, keys.receive, keys.send))
        assert updated.bundle == answer.updated.bundle
        seen |= {keys.send.tek, keys.receive.tek}
        ssrcs |= {keys.send.ssrc, keys.receive.ssrc}
        call.ours, call.theirs = updated.bundle, answer.updated.bundle
    assert (len(seen), len(ssrcs)) == (8, 8)


def test_an_update_has_the_bundle_s_id_a_later_time_and_no_rand(call: Agreed) -> None:
    """§4.5."""
    offer = call.offer().sent
    assert offer.header.csb_id == call.ours.keys.csb_id
    assert offer.one(Timestamp).value > call.ours.timestamp.value
    assert not offer.all(Rand)
    answer = Message.parse(call.accept(offer.octets).message)
    assert answer.header.csb_id == call.ours.keys.csb_id
    assert answer.one(Timestamp) == offer.one(Timestamp)
    assert not answer.all(Rand)


def test_an_update_of_psk_is_that_of_the_text() -> None:
    """§4.5, §4.1.4, §4.2.3, §5.2: HDR, T, IDi, IDr, KEMAC under the pre-shared key and the first RAND."""
    line = Line()
    first = line.offer("psk", prf=Prf.MIKEY_1)
    answer = line.accept(first.message)
    call = Agreed(
        line, first.confirm(answer.message), first.bundle(answer.message), present_of(answer.bundle),
        CountingRandom("u"), ReplayCache(started_s=0),
    )  # fmt: skip
    offer = call.offer()
    octets, csb, rand = offer.message, first.message[4:8], first.sent.one(Rand).rand
    time = offer.sent.one(Timestamp).value
    label = b"\xff" + csb + rand
    encr, auth, salt = (
        prf_of("sha1", SECRET, bytes.fromhex(constant) + label, size)
        for constant, size in (("150533E1", 16), ("2D22AC75", 20), ("29B88916", 14))
    )
    vector = bytes(a ^ b for a, b in zip(salt, bytes(2) + csb + time, strict=True)) + bytes(2)
    clear = Cipher(algorithms.AES(encr), modes.CTR(vector)).decryptor().update(offer.sent.one(Kemac).encr_data)
    assert clear[:4] == bytes([0, 0, 0, 32])
    assert octets[-20:] == hmac.digest(auth, octets[:-20], "sha1")
    ssrc = offer.sent.header.sessions[0].ssrc.to_bytes(4, "big")
    assert octets[:10] == bytes([1, 0, 5, 0x80]) + csb + bytes([2, 0])
    assert octets[10:28] == b"\0" + ssrc + bytes(4) + bytes(9)
    ids = b"".join(bytes([1]) + len(uri).to_bytes(2, "big") + uri.encode() for uri in (CALLER,))
    assert octets[28:39] == bytes([6, 0]) + time + bytes([6])
    assert octets[39 : 39 + len(ids)] == ids
    updated = offer.confirm(call.accept(octets).message)
    for cs_id, key in ((1, updated.keys.send), (2, updated.keys.receive)):
        assert key.tek == prf_of("sha1", clear[4:], bytes.fromhex("2AD01C64") + bytes([cs_id]) + csb + rand, 16)


def present_of(bundle: Bundle | None) -> Bundle:
    assert bundle is not None
    return bundle


KEPT = pytest.mark.parametrize(
    ("cache", "is_kept"), [(Cache.NO_CACHE, False), (Cache.CACHE, True), (Cache.CACHE_FOR_CSB, True)]
)


@KEPT
def test_a_responder_keeps_the_envelope_key_of_pke_unless_that_is_forbidden(
    cache: Cache, is_kept: bool, parties: tuple[Party, Party]
) -> None:
    line = EncryptedTo(*parties)
    offer = line.offer()
    envelope = replace(offer.sent.one(EnvelopeKey), cache=cache)
    answer = line.accept(line.resigned(offer, put(envelope)))
    assert answer.keys
    assert (answer.bundle is not None) is is_kept


@KEPT
def test_an_initiator_keeps_the_envelope_key_of_rsa_r_unless_that_is_forbidden(
    cache: Cache, is_kept: bool, parties: tuple[Party, Party]
) -> None:
    line = Reverse(*parties)
    offer = line.offer()
    octets = line.accept(offer.message).message
    envelope = replace(Message.parse(octets).one(EnvelopeKey), cache=cache)
    octets = line.answered(octets, put(envelope))
    assert line.confirm(offer, octets)
    assert (line.bundle(offer, octets) is not None) is is_kept


def test_the_bundle_of_rsa_r_is_withheld_until_the_ledger_vouches(parties: tuple[Party, Party]) -> None:
    line = Reverse(*parties)
    offer = line.offer()
    claim = line.presented(offer.receive(line.accept(offer.message).message, now_s=NOW_S))
    prepared, revoked = offer.prepare(claim), recorded(claim, CertStatus.REVOKED)
    assert refused(lambda: prepared.release_bundle(revoked, NOW_S)) is Failure.LEDGER


def test_every_changed_byte_is_refused(call: Agreed) -> None:
    offer = call.offer()
    octets = offer.message
    for at in range(len(octets)):
        for bit in (0x01, 0x80):
            with pytest.raises(MikeyError):
                call.accept(octets[:at] + bytes([octets[at] ^ bit]) + octets[at + 1 :])
    answer = call.accept(octets).message
    for at in range(len(answer)):
        for bit in (0x01, 0x80):
            with pytest.raises(MikeyError):
                offer.confirm(answer[:at] + bytes([answer[at] ^ bit]) + answer[at + 1 :])
    offer.confirm(answer)


def test_every_truncation_is_refused(call: Agreed) -> None:
    offer = call.offer()
    for end in range(len(offer.message)):
        with pytest.raises(MikeyError):
            call.accept(offer.message[:end])
    answer = call.accept(offer.message).message
    for end in range(len(answer)):
        with pytest.raises(MikeyError):
            offer.confirm(answer[:end])


def test_a_replay_is_refused(call: Agreed) -> None:
    octets = call.offer().message
    call.accept(octets)
    assert refused(lambda: call.accept(octets)) is Failure.REPLAY


def test_an_older_update_is_refused_also_by_a_responder_that_has_forgotten_it(call: Agreed) -> None:
    first, second = call.offer(), call.offer(NOW_S + 2)
    call.theirs = call.accept(second.message).updated.bundle
    call.replays = ReplayCache(started_s=0)
    for octets in (first.message, second.message):
        assert refused(lambda octets=octets: call.accept(octets)) is Failure.REPLAY  # type: ignore[misc]


def test_a_restart_accepts_no_old_update(call: Agreed) -> None:
    """§5.4: a Responder whose bundle was kept, and whose memory of messages was not."""
    octets = call.offer().message
    call.accept(octets)
    call.replays = ReplayCache(started_s=NOW_S + 5)
    assert refused(lambda: call.accept(octets, NOW_S + 10)) is Failure.REPLAY


def test_a_clock_that_was_set_back_makes_no_update(call: Agreed) -> None:
    with pytest.raises(LocalError, match="set back"):
        call.offer(NOW_S - 5)
    assert call.accept(call.offer().message).message


def test_only_what_verified_is_remembered(call: Agreed) -> None:
    octets = call.offer().message
    assert refused(lambda: call.accept(octets, key_mgmt_ids=("mikey", "other"))) is Failure.SDP_IDS
    call.accept(octets)


def put(value: Payload) -> Callable[[list[Payload]], None]:
    def change(payloads: list[Payload]) -> None:
        payloads[:] = [value if type(each) is type(value) else each for each in payloads]

    return change


def keep(payloads: list[Payload]) -> None:
    """Change nothing."""


@pytest.mark.parametrize(
    ("change", "header", "failure"),
    [
        (lambda payloads: payloads.insert(1, Rand(bytes(16))), {}, Failure.PAYLOAD),
        (lambda payloads: payloads.insert(1, policy_for(Line().offer("psk").profile)), {}, Failure.PAYLOAD),
        (put(identity_of(CALLEE)), {}, Failure.IDENTITY),
        (put(GeneralExtension(ExtensionType.SDP_IDS, b"other")), {}, Failure.SDP_IDS),
        (keep, {"csb_id": 7}, Failure.CSB_ID),
        (keep, {"prf": Prf.MIKEY_1}, Failure.PRF),
        (keep, {"respond": False}, Failure.PAYLOAD),
        (keep, {"data_type": DataType.PKE_INIT}, Failure.DATA_TYPE),
        (keep, {"sessions": (SrtpId(1, 5), SrtpId(1, 0))}, Failure.POLICY),
        (keep, {"sessions": (SrtpId(0, 5), SrtpId(0, 6))}, Failure.CRYPTO_SESSIONS),
    ],
)
def test_other_updates_are_refused(
    call: Agreed, change: Callable[..., Any], header: dict[str, Any], failure: Failure
) -> None:
    octets = call.sealed(call.offer(), change, **header)
    assert refused(lambda: call.accept(octets)) is failure


def test_another_mode_than_that_of_the_bundle_is_refused(parties: tuple[Party, Party]) -> None:
    psk, dhhmac = agreed("psk", parties), agreed("dhhmac", parties)
    assert refused(lambda: psk.accept(dhhmac.offer().message)) is Failure.DATA_TYPE
    assert refused(lambda: dhhmac.accept(psk.offer().message)) is Failure.DATA_TYPE


def test_a_first_offer_is_no_update_and_an_update_no_first_offer(call: Agreed) -> None:
    if isinstance(call.line, Line):
        octets = call.offer().message
        assert refused(lambda: call.line.accept(octets)) is Failure.PAYLOAD
        first = call.line.offer("psk").message
        assert refused(lambda: call.accept(first)) in (Failure.CSB_ID, Failure.DATA_TYPE)


def test_a_public_value_that_gives_a_known_key_is_refused(parties: tuple[Party, Party]) -> None:
    call = agreed("dhhmac", parties)
    octets = call.sealed(call.offer(), put(DhValue(0, (1).to_bytes(192, "big"))))
    assert refused(lambda: call.accept(octets)) is Failure.DH_VALUE


@pytest.mark.parametrize("size", [15, 16, 24, 31, 32, 33, 64])
@pytest.mark.parametrize("mode", ["psk", "pke", "rsa-r"])
def test_keys_of_other_lengths(mode: str, size: int, parties: tuple[Party, Party]) -> None:
    call = agreed(mode, parties)
    offer, keys = call.offer(), call.ours.keys
    data = keys.crypt(b"\0" + KeyData(KeyType.TGK, bytes(range(size))).serialize(), offer.sent.one(Timestamp))
    octets = keys.sealed(offer.sent.header, offer.sent.payloads[:-1], keys.encr_alg, data)
    if size < 16:
        assert refused(lambda: call.accept(octets)) is Failure.PAYLOAD
        return
    assert call.accept(octets).message


def test_the_header_of_an_update_has_new_ssrcs_and_the_old_policies(call: Agreed) -> None:
    header = call.offer().sent.header
    assert isinstance(header, Header)
    (ours, open_), (before, _) = header.sessions, call.ours.sessions
    assert (ours.policy_no, open_.ssrc, ours.roc) == (before.policy_no, 0, 0)
    assert ours.ssrc not in (0, before.ssrc)
    assert not call.offer().sent.all(SecurityPolicy)
    assert call.offer().sent.all(Identity) == (identity_of(CALLER), identity_of(CALLEE))
