"""Key derivation against vectors of another implementation, and at the key lengths where implementations err."""

import base64
import hashlib
import hmac
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from voice_dpki.codec.cursor import Cursor
from voice_dpki.mikey import dh
from voice_dpki.mikey.failures import MikeyError
from voice_dpki.mikey.keys import PRE_SHARED, EnvelopeConstant, KeyedPrf, Label, StreamKey, TgkConstant
from voice_dpki.mikey.message import Message, SrtpId, parse_payloads
from voice_dpki.mikey.payloads import Kemac, KeyData, Rand, Timestamp
from voice_dpki.mikey.policy import SrtpProfile
from voice_dpki.mikey.registry import DataType, PayloadType, Prf

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "mikey" / "psk.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["csb_id"])
class TestPreSharedKeyVectors:
    def test_the_message_parses(self, vector: dict[str, Any]) -> None:
        message = Message.parse(base64.b64decode(vector["i_message"]))
        assert message.header.data_type == DataType.PSK_INIT
        assert message.header.csb_id == int(vector["csb_id"], 16)
        assert message.header.sessions == (SrtpId(0, 0x11111111), SrtpId(0, 0x22222222))
        assert message.one(Rand).rand.hex() == vector["rand"]

    def test_the_mac_verifies(self, vector: dict[str, Any]) -> None:
        message = Message.parse(base64.b64decode(vector["i_message"]))
        mac = message.one(Kemac).mac
        key = self.envelope(vector, EnvelopeConstant.AUTHENTICATION, 20)
        assert hmac.digest(key, message.octets[: -len(mac)], "sha1") == mac

    def test_the_tgk_decrypts(self, vector: dict[str, Any]) -> None:
        message = Message.parse(base64.b64decode(vector["i_message"]))
        salt = self.envelope(vector, EnvelopeConstant.SALT, 14)
        mask = bytes(2) + bytes.fromhex(vector["csb_id"]) + message.one(Timestamp).value
        iv = bytes(a ^ b for a, b in zip(salt, mask, strict=True)) + bytes(2)
        cipher = Cipher(algorithms.AES(self.envelope(vector, EnvelopeConstant.ENCRYPTION, 16)), modes.CTR(iv))
        clear = cipher.decryptor().update(message.one(Kemac).encr_data)
        (data,) = parse_payloads(PayloadType.KEY_DATA, Cursor(clear, "key data"))
        assert isinstance(data, KeyData)
        assert data.key.hex() == vector["tgk"]

    @pytest.mark.parametrize("cs_id", [1, 2])
    def test_the_keys_of_each_crypto_session(self, vector: dict[str, Any], cs_id: int) -> None:
        tgk, expected = KeyedPrf(Prf.MIKEY_1, bytes.fromhex(vector["tgk"])), vector["cs"][str(cs_id)]
        label = Label(cs_id, int(vector["csb_id"], 16), bytes.fromhex(vector["rand"]))
        assert label.derive(tgk, TgkConstant.TEK, 16).hex() == expected["tek"]
        assert label.derive(tgk, TgkConstant.SALT, 14).hex() == expected["salt"]
        assert label.derive(tgk, TgkConstant.ENCRYPTION, 16).hex() == expected["encr"]
        assert label.derive(tgk, TgkConstant.AUTHENTICATION, 20).hex() == expected["auth"]
        stream = StreamKey.from_tgk(tgk, label, SrtpProfile.AES_CM_128_HMAC_SHA1_80, 1)
        assert (stream.tek.hex(), stream.salt.hex()) == (expected["tek"], expected["salt"])

    @staticmethod
    def envelope(vector: dict[str, Any], constant: EnvelopeConstant, size: int) -> bytes:
        label = Label(PRE_SHARED, int(vector["csb_id"], 16), bytes.fromhex(vector["rand"]))
        return label.derive(KeyedPrf(Prf.MIKEY_1, bytes.fromhex(vector["psk"])), constant, size)


def reference(hash_name: str, key: bytes, label: bytes, size: int) -> bytes:
    """RFC 3830 §4.1.2 as its formulas stand, on integers."""
    n = (8 * len(key) + 255) // 256
    width = hashlib.new(hash_name).digest_size
    m = (size + width - 1) // width
    total = 0
    for i in range(n):
        s = key[32 * i : 32 * i + 32]
        a = [label]
        for _ in range(m):
            a.append(hmac.digest(s, a[-1], hash_name))
        total ^= int.from_bytes(b"".join(hmac.digest(s, link + label, hash_name) for link in a[1:]), "big")
    return total.to_bytes(m * width, "big")[:size]


@pytest.mark.parametrize(("function", "name"), [(Prf.MIKEY_1, "sha1"), (Prf.HMAC_SHA_256, "sha256")])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 65, 192])
@pytest.mark.parametrize("size", [14, 16, 20, 32, 33, 64])
def test_prf_at_block_boundaries(function: Prf, name: str, length: int, size: int) -> None:
    key = bytes(range(1, length + 1))
    assert KeyedPrf(function, key).derive(b"label", size) == reference(name, key, b"label", size)


def test_a_longer_key_never_gives_the_same_output() -> None:
    keyed = [KeyedPrf(Prf.MIKEY_1, bytes([7]) * length) for length in (31, 32, 33, 63, 64, 65)]
    outputs = [prf.derive(b"label", 16) for prf in keyed]
    assert all(one != other for one, other in pairwise(outputs))


def test_keys_are_not_shown() -> None:
    stream = StreamKey(1, b"master key bytes", b"salt")
    assert "master" not in repr(stream)


SHORT_PUBLIC_VALUE = 866
"""Gives a public value that begins with a zero byte, as one in 256 does."""


class TestDiffieHellman:
    @pytest.mark.parametrize("number", [*range(2, 40), SHORT_PUBLIC_VALUE])
    def test_against_the_definition(self, number: int) -> None:
        pair = dh.new_pair(Counted(number))
        assert pair.public_value == pow(2, pair.secret, dh.PRIME).to_bytes(192, "big")
        shared = pow(number, pair.secret, dh.PRIME).to_bytes(192, "big")
        assert dh.shared_value(pair.secret, number.to_bytes(192, "big")) == shared

    @pytest.mark.parametrize("value", [2, dh.PRIME - 2])
    def test_the_least_and_the_greatest_value_of_a_peer(self, value: int) -> None:
        expected = pow(value, 7, dh.PRIME).to_bytes(192, "big")
        assert dh.shared_value(7, value.to_bytes(192, "big")) == expected
        beyond = 1 if value == 2 else value + 1
        with pytest.raises(MikeyError, match="between 2 and p-2"):
            dh.shared_value(7, beyond.to_bytes(192, "big"))

    def test_a_short_value_is_padded(self) -> None:
        assert dh.new_pair(Counted(SHORT_PUBLIC_VALUE)).public_value[0] == 0

    def test_secrets_are_drawn_anew_and_have_256_bits(self) -> None:
        secrets = {dh.new_pair(Counted(number)).secret for number in range(20)}
        assert len(secrets) == 20
        assert {secret.bit_length() for secret in secrets} == {256}

    def test_a_pair_does_not_show_its_secret(self) -> None:
        pair = dh.new_pair(Counted(1))
        assert str(pair.secret) not in repr(pair)


class Counted:
    def __init__(self, number: int) -> None:
        self.number = number

    def token(self, size: int) -> bytes:
        return hashlib.shake_256(self.number.to_bytes(4, "big")).digest(size)
