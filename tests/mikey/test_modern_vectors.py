"""The vectors of the modern mode: our code and a construction that shares none with it agree to the octet."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tests.mikey import modern_by_hand as by_hand
from tests.mikey.modern_calls import vouched
from voice_dpki.codec.ntp import ntp_time
from voice_dpki.mikey.agreement import Strength
from voice_dpki.mikey.keys import SrtpKeys
from voice_dpki.mikey.modern import ModernInitiator, ModernParty, ModernResponder
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.replay import ReplayCache
from voice_dpki.x509.keys import LocalSigner, spki

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "mikey" / "modern.json").read_text())
EXCHANGES = VECTORS["exchanges"]
NOW_S = 1_790_000_000.0

each = pytest.mark.parametrize("vector", EXCHANGES, ids=lambda v: f"{v['profile']}{'-hybrid' * v['hybrid']}")


def key_of(role: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int(VECTORS["parties"][role]["key"], 16), ec.SECP256R1())


def certificate_of(role: str) -> bytes:
    return bytes.fromhex(VECTORS["parties"][role]["certificate"])


class Drawn:
    """Draws what the vector says, in our code's order."""

    def __init__(self, *values: bytes) -> None:
        self._left = list(values)

    def token(self, size: int) -> bytes:
        value = self._left.pop(0)
        assert len(value) == size
        return value


@dataclass(frozen=True)
class Deterministic:
    """A signer whose signatures are those of RFC 6979."""

    key: ec.EllipticCurvePrivateKey
    algorithm: str = "ES256"

    @cached_property
    def public_key_der(self) -> bytes:
        return spki(self.key.public_key())

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def side(vector: Any, role: str) -> by_hand.Side:
    told = vector[role]
    return by_hand.Side(
        told["uri"],
        certificate_of(role),
        key_of(role),
        told["ssrc"],
        bytes.fromhex(told["x25519"]),
        bytes.fromhex(told.get("mlkem_seed", "")),
    )


def bundle(vector: Any) -> by_hand.Bundle:
    rand = bytes.fromhex(vector["rand"])
    return by_hand.Bundle(vector["profile"], vector["csb_id"], int(vector["ntp"], 16), rand, vector["hybrid"])


@each
def test_the_vectors_follow_from_the_document(vector: Any) -> None:
    caller, callee, shared = side(vector, "caller"), side(vector, "callee"), bundle(vector)
    offer = by_hand.offer_of(caller, callee.uri, shared)
    assert offer.hex() == vector["offer"]
    ciphertext = bytes.fromhex(vector["callee"].get("mlkem_ciphertext", ""))
    answer, value = by_hand.answer_of(callee, caller.ssrc, shared, offer, ciphertext)
    assert answer.hex() == vector["answer"]
    tgk = by_hand.tgk_of(caller, shared, offer, value)
    assert tgk.hex() == vector["tgk"]
    assert {name: key.hex() for name, key in by_hand.keys_of(tgk, shared).items()} == {
        name: vector[name] for name in ("caller_key", "caller_salt", "callee_key", "callee_salt")
    }


@each
def test_our_code_makes_the_same_octets_and_keys(vector: Any) -> None:
    caller, callee = (
        ModernParty(vector[role]["uri"], certificate_of(role), Deterministic(key_of(role)))
        for role in ("caller", "callee")
    )
    told, answering = side(vector, "caller"), side(vector, "callee")
    drawn = [told.x25519, told.ssrc.to_bytes(4, "big"), vector["csb_id"].to_bytes(4, "big"), bundle(vector).rand]
    offer = ModernInitiator(caller).offer(
        responder_uri=callee.uri,
        profile=SrtpProfile(vector["profile"]),
        random=Drawn(*drawn[:1], *[told.mlkem_seed] * vector["hybrid"], *drawn[1:]),
        now_s=NOW_S,
        strength=Strength.HYBRID if vector["hybrid"] else Strength.MODERN,
    )
    assert offer.message.hex() == vector["offer"]
    assert vector["ntp"] == ntp_time(NOW_S).to_bytes(8, "big").hex()

    def encapsulate(key: bytes) -> tuple[bytes, bytes]:
        assert len(key) == 1184
        return bytes.fromhex(vector["callee"]["mlkem_secret"]), bytes.fromhex(vector["callee"]["mlkem_ciphertext"])

    clocks: dict[str, Any] = {"now_s": NOW_S, "steady_s": NOW_S}
    responder = ModernResponder(callee, ReplayCache(NOW_S - 10), encapsulate=encapsulate)
    claim = responder.receive(offer.message, initiator_uri=caller.uri, key_mgmt_ids=("mikey",), **clocks)
    random = Drawn(answering.x25519, answering.ssrc.to_bytes(4, "big"))
    answer = responder.complete(claim, vouched(caller), random=random, **clocks)
    assert answer.message.hex() == vector["answer"]
    keys = offer.complete(offer.receive(answer.message), vouched(callee), now_s=NOW_S)
    check_keys(vector, keys)
    check_keys(vector, SrtpKeys(answer.keys.profile, answer.keys.receive, answer.keys.send))


@pytest.mark.parametrize("vector", [each for each in EXCHANGES if not each["hybrid"]][:1])
def test_two_media_lines_are_keyed_as_the_document_says(vector: Any) -> None:
    caller, callee = (
        ModernParty(vector[role]["uri"], certificate_of(role), Deterministic(key_of(role)))
        for role in ("caller", "callee")
    )
    told = replace(side(vector, "caller"), further=(0x11223344,))
    answering = replace(side(vector, "callee"), further=(0x55667788,))
    ssrcs = [ssrc.to_bytes(4, "big") for ssrc in (told.ssrc, *told.further)]
    offer = ModernInitiator(caller).offer(
        responder_uri=callee.uri,
        profile=SrtpProfile(vector["profile"]),
        random=Drawn(told.x25519, *ssrcs, vector["csb_id"].to_bytes(4, "big"), bundle(vector).rand),
        now_s=NOW_S,
        strength=Strength.MODERN,
        lines=2,
    )
    assert offer.message == by_hand.offer_of(told, callee.uri, bundle(vector))
    clocks: dict[str, Any] = {"now_s": NOW_S, "steady_s": NOW_S}
    responder = ModernResponder(callee, ReplayCache(NOW_S - 10))
    claim = responder.receive(offer.message, initiator_uri=caller.uri, key_mgmt_ids=("mikey",), lines=2, **clocks)
    drawn = Drawn(answering.x25519, *(ssrc.to_bytes(4, "big") for ssrc in (answering.ssrc, *answering.further)))
    answer = responder.complete(claim, vouched(caller), random=drawn, **clocks)
    octets, value = by_hand.answer_of(answering, told.ssrc, bundle(vector), offer.message, b"", *told.further)
    assert answer.message == octets
    tgk = by_hand.tgk_of(told, bundle(vector), offer.message, value)
    for number, line in enumerate(offer.complete(offer.receive(octets), vouched(callee), now_s=NOW_S).lines):
        keys = by_hand.keys_of(tgk, bundle(vector), number)
        assert (line.send.tek, line.send.salt) == (keys["caller_key"], keys["caller_salt"])
        assert (line.receive.tek, line.receive.salt) == (keys["callee_key"], keys["callee_salt"])


def check_keys(vector: Any, keys: SrtpKeys) -> None:
    for speaker, stream in (("caller", keys.send), ("callee", keys.receive)):
        assert stream.ssrc == vector[speaker]["ssrc"]
        assert (stream.tek.hex(), stream.salt.hex()) == (vector[f"{speaker}_key"], vector[f"{speaker}_salt"])


@each
def test_octets_made_by_hand_are_accepted_with_the_signers_of_every_day(vector: Any) -> None:
    """The callee draws and signs as in a call, and the caller of the document reads its answer."""
    caller, callee = (
        ModernParty(vector[role]["uri"], certificate_of(role), LocalSigner(key_of(role)))
        for role in ("caller", "callee")
    )
    clocks: dict[str, Any] = {"now_s": NOW_S, "steady_s": NOW_S}
    offer = bytes.fromhex(vector["offer"])
    responder = ModernResponder(callee, ReplayCache(NOW_S - 10))
    claim = responder.receive(offer, initiator_uri=caller.uri, key_mgmt_ids=("mikey",), **clocks)
    answer = responder.complete(claim, vouched(caller), random=Anything(), **clocks)
    size = 1120 if vector["hybrid"] else 32
    value = answer.message[-66 - 10 - 1 - size : -66 - 10 - 1]
    keys = by_hand.keys_of(by_hand.tgk_of(side(vector, "caller"), bundle(vector), offer, value), bundle(vector))
    assert (keys["caller_key"], keys["callee_key"]) == (answer.keys.receive.tek, answer.keys.send.tek)


class Anything:
    """Draws bytes that are no vector's."""

    def token(self, size: int) -> bytes:
        return bytes(range(7, 7 + size))
