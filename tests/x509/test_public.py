"""Public keys as operators hand them over: one form, and no key under which somebody else could sign."""

from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledger_node.make.member_file import load_member
from tests.validator_keys import validator_key
from voice_dpki.errors import LocalError
from voice_dpki.x509.keys import KeyKindError, generate_es256, generate_rsa, to_pem
from voice_dpki.x509.public import check_ed25519, read_public_pem, to_public_pem

GOOD = [
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",  # RFC 8032 §7.1, TEST 1
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",  # TEST 2
    "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",  # TEST 3
]

BAD = {
    "the identity": "01" + "00" * 31,
    "the point of order 2": "ec" + "ff" * 30 + "7f",
    "a point of order 4": "00" * 32,
    "another point of order 4": "00" * 31 + "80",
    "a point of order 8": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "another point of order 8": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "the identity, with y = p + 1": "ee" + "ff" * 30 + "7f",
    "the point of order 2, with the sign of x = 0 set": "ec" + "ff" * 31,
    "a point of mixed order": "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
    "another point of mixed order": "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
    "no point": "02" + "00" * 31,
    "31 bytes": "d7" * 31,
    "nothing": "",
}
"""Small and mixed orders: https://github.com/novifinancial/ed25519-speccheck, cases 0, 2, 3 and 10."""

P256_OFF = "3059301306072a8648ce3d020106082a8648ce3d030107034200" + "04" + "01" * 64
P256_IDENTITY = "3019301306072a8648ce3d020106082a8648ce3d03010703020000"
"""SubjectPublicKeyInfo of a point that is not on P-256, and of the point at infinity (SEC 1 §2.3.3)."""


def pem_of(der_hex: str) -> bytes:
    return b"-----BEGIN PUBLIC KEY-----\n" + b64encode(bytes.fromhex(der_hex)) + b"\n-----END PUBLIC KEY-----\n"


def ed25519_pem(key_hex: str) -> bytes:
    return pem_of("302a300506032b6570032100" + key_hex)


@pytest.mark.parametrize("key", GOOD)
def test_keys_of_the_standard_are_keys(key: str) -> None:
    check_ed25519(bytes.fromhex(key))
    read = read_public_pem(ed25519_pem(key))
    assert isinstance(read, Ed25519PublicKey)
    assert read.public_bytes_raw().hex() == key


@pytest.mark.parametrize("what", BAD)
def test_what_somebody_else_could_sign_under_is_no_key(what: str) -> None:
    with pytest.raises(KeyKindError, match="not an Ed25519 public key"):
        check_ed25519(bytes.fromhex(BAD[what]))
    if len(BAD[what]) == 64:
        with pytest.raises(KeyKindError, match="not an Ed25519 public key"):
            read_public_pem(ed25519_pem(BAD[what]))


@pytest.mark.parametrize("der", [P256_OFF, P256_IDENTITY])
def test_a_key_on_p256_is_a_point_of_it(der: str) -> None:
    with pytest.raises(KeyKindError, match="not a public"):
        read_public_pem(pem_of(der))


def test_a_private_key_gives_its_public_one_in_the_same_form() -> None:
    validator = Ed25519PrivateKey.generate()
    for signer in (generate_es256(), generate_rsa()):
        public = to_public_pem(signer.private_key.public_key())
        assert to_public_pem(read_public_pem(to_pem(signer))) == to_public_pem(read_public_pem(public)) == public
    public = to_public_pem(validator.public_key())
    assert to_public_pem(read_public_pem(to_pem(validator))) == public
    assert public.startswith(b"-----BEGIN PUBLIC KEY-----\n")


def test_other_kinds_of_keys_are_refused() -> None:
    other = X25519PrivateKey.generate().public_key()
    with pytest.raises(KeyKindError, match="neither"):
        read_public_pem(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for pem in (b"", b"-----BEGIN PUBLIC KEY-----\n", b"PRIVATE KEY", bytes(100)):
        with pytest.raises(KeyKindError, match="not a public or unencrypted private key in PEM form"):
            read_public_pem(pem)


@pytest.mark.parametrize(
    ("validator", "endorsing"),
    [(ed25519_pem(BAD["the identity"]), None), (None, pem_of(P256_OFF)), (None, pem_of(P256_IDENTITY))],
)
def test_a_members_file_with_such_a_key_is_refused(
    tmp_path: Path, validator: bytes | None, endorsing: bytes | None
) -> None:
    good = to_public_pem(generate_es256().private_key.public_key())
    (tmp_path / "v.pem").write_bytes(validator or ed25519_pem(validator_key(1).hex()))
    (tmp_path / "e.pem").write_bytes(endorsing or good)
    text = 'organization = "A"\nkind = "operator"\nvalidators = ["v.pem"]\nendorsing_keys = ["e.pem"]\n'
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(LocalError, match=r"(v|e)\.pem: not a"):
        load_member(tmp_path / "a.toml")
    (tmp_path / "v.pem").write_bytes(ed25519_pem(validator_key(1).hex()))
    (tmp_path / "e.pem").write_bytes(good)
    assert load_member(tmp_path / "a.toml").validators == (validator_key(1),)
