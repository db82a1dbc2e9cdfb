"""Both implementations of ECDSA on P-256 find the same: with each other's signatures, and with Wycheproof's."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

from voice_dpki.x509 import p256
from voice_dpki.x509.keys import (
    KeyKindError,
    LocalSigner,
    SignatureError,
    generate_es256,
    generate_rsa,
    verify_signature,
)
from voice_dpki.x509.p256 import AwsLcSigner, fastest, verify_es256

Verify = Callable[[bytes, bytes, bytes], None]

VECTORS = [
    json.loads(line) for line in (Path(__file__).parents[1] / "vectors/ecdsa/p1363.jsonl").read_text().splitlines()
]
KEY = generate_es256()
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group (FIPS 186-5, SP 800-186 §3.2.1.3)."""


def by_openssl(public_key_der: bytes, data: bytes, signature: bytes) -> None:
    verify_signature(public_key_der, "ES256", data, signature)


BOTH = pytest.mark.parametrize("verify", [by_openssl, verify_es256])


def accepts(verify: Verify, key: bytes, data: bytes, signature: bytes) -> bool:
    try:
        verify(key, data, signature)
    except SignatureError:
        return False
    return True


def test_aws_lc_is_there() -> None:
    """Without it the tests of this file would compare OpenSSL with itself."""
    assert p256.HAS_AWS_LC
    assert isinstance(fastest(KEY), AwsLcSigner)


@BOTH
def test_the_vectors_of_wycheproof(verify: Verify) -> None:
    wrong = []
    for each in VECTORS:
        key, data, signature = (bytes.fromhex(each[name]) for name in ("key", "msg", "sig"))
        if accepts(verify, key, data, signature) != (each["result"] == "valid"):
            wrong.append((each["tcId"], each["comment"]))
    assert wrong == []
    assert len(VECTORS) == 262


def test_each_takes_what_the_other_signs() -> None:
    quick = fastest(KEY)
    assert (quick.algorithm, quick.public_key_der) == ("ES256", KEY.public_key_der)
    for number in range(300):  # r or s begins with a zero in every 128th or so
        data = b"%d" % number
        for signature in (quick.sign(data), KEY.sign(data)):
            assert len(signature) == 64
            by_openssl(KEY.public_key_der, data, signature)
            verify_es256(KEY.public_key_der, data, signature)
    assert not accepts(verify_es256, KEY.public_key_der, b"other", quick.sign(b"data"))
    assert not accepts(verify_es256, generate_es256().public_key_der, b"data", quick.sign(b"data"))


_NUMBERS = st.one_of(
    st.integers(0, (1 << 256) - 1), st.sampled_from([0, 1, 127, 128, 255, 256, ORDER - 1, ORDER, ORDER + 1])
)


@given(_NUMBERS, _NUMBERS)
@example(0, 0)
def test_both_refuse_the_same(r: int, s: int) -> None:
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert not accepts(by_openssl, KEY.public_key_der, b"data", signature)
    assert not accepts(verify_es256, KEY.public_key_der, b"data", signature)


@given(st.integers(0, 511), st.integers(0, 63))
def test_both_take_the_same_changed_signature(bit: int, length: int) -> None:
    changed = (int.from_bytes(KEY.sign(b"data"), "big") ^ (1 << bit)).to_bytes(64, "big")
    for signature in (changed, changed[:length], KEY.sign(b"data")[:length], bytes(length)):
        assert not accepts(by_openssl, KEY.public_key_der, b"data", signature)
        assert not accepts(verify_es256, KEY.public_key_der, b"data", signature)


@BOTH
def test_a_key_of_another_kind_is_refused(verify: Verify) -> None:
    curve = LocalSigner.__new__(LocalSigner)
    object.__setattr__(curve, "private_key", ec.generate_private_key(ec.SECP384R1()))
    for der in (generate_rsa().public_key_der, curve.public_key_der, b"", b"\x30\x00"):
        with pytest.raises(KeyKindError):
            verify(der, b"data", bytes(64))


def test_another_kind_of_key_signs_as_it_is() -> None:
    signer = generate_rsa()
    assert fastest(signer) is signer
    assert "private" not in repr(fastest(KEY)).replace("private_key=<cryptography", "")


def test_without_it_openssl_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p256, "HAS_AWS_LC", False)
    monkeypatch.setattr(p256, "EC", None)
    assert fastest(KEY) is KEY
    verify_es256(KEY.public_key_der, b"data", KEY.sign(b"data"))
    assert not accepts(verify_es256, KEY.public_key_der, b"other", KEY.sign(b"data"))


def test_with_it_openssl_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p256, "verify_signature", None)
    verify_es256(KEY.public_key_der, b"data", KEY.sign(b"data"))


@pytest.mark.parametrize("size", [0, 32, 63, 65, 128])
@BOTH
def test_a_signature_has_64_octets(verify: Verify, size: int) -> None:
    with pytest.raises(SignatureError, match=r"^an ES256 signature has 64 bytes \(RFC 7518 §3\.4\)$"):
        verify(KEY.public_key_der, b"data", (KEY.sign(b"data") * 2)[:size])


@pytest.mark.parametrize(
    ("r", "s", "octets"),
    [
        ("00" * 31 + "01", "00" * 31 + "7f", "3006 020101 02017f"),
        ("00" * 31 + "80", "00" * 30 + "0100", "3008 02020080 02020100"),
        ("80" + "00" * 31, "ff" * 32, "3046 022100 80" + "00" * 31 + "022100" + "ff" * 32),
        ("00" * 32, "7f" + "ff" * 31, "3025 020100 0220 7f" + "ff" * 31),
    ],
)
def test_a_signature_in_der(r: str, s: str, octets: str) -> None:
    """RFC 3279 §2.2.3 and X.690 §8.3: the shortest form, with a zero before a first bit that is set."""
    assert p256._der(bytes.fromhex(r + s)) == bytes.fromhex(octets)
