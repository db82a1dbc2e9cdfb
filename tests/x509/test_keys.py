import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_dpki.errors import LocalError, PeerError
from voice_dpki.x509.keys import (
    KeyKindError,
    LocalSigner,
    SignatureError,
    from_pem,
    generate_es256,
    generate_rsa,
    to_pem,
    verify_signature,
)

ES256 = generate_es256()
PS256 = generate_rsa()


@pytest.mark.parametrize(("signer", "name", "size"), [(ES256, "ES256", 64), (PS256, "PS256", 256)])
def test_what_one_signs_verifies_under_its_key_only(signer: LocalSigner, name: str, size: int) -> None:
    signature = signer.sign(b"data")
    assert (signer.algorithm, len(signature)) == (name, size)
    verify_signature(signer.public_key_der, name, b"data", signature)
    with pytest.raises(SignatureError):
        verify_signature(signer.public_key_der, name, b"Data", signature)
    with pytest.raises(KeyKindError):
        verify_signature(signer.public_key_der, "HS256", b"data", signature)
    with pytest.raises(SignatureError):
        verify_signature(generate_es256().public_key_der, "ES256", b"data", ES256.sign(b"data"))


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), b"\xff" * 64, bytes(65)])
def test_es256_signatures_that_are_none(signature: bytes) -> None:
    with pytest.raises(SignatureError):
        verify_signature(ES256.public_key_der, "ES256", b"data", signature)


def test_a_zero_before_s_makes_another_signature_which_does_not_verify() -> None:
    signature = ES256.sign(b"data")
    verify_signature(ES256.public_key_der, "ES256", b"data", signature)
    with pytest.raises(SignatureError, match="64 bytes"):
        verify_signature(ES256.public_key_der, "ES256", b"data", signature[:32] + b"\0" + signature[32:])


def test_rsa_signs_with_pss_and_not_with_pkcs1() -> None:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    key = PS256.private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    with pytest.raises(SignatureError):
        verify_signature(PS256.public_key_der, "PS256", b"x", key.sign(b"x", PKCS1v15(), SHA256()))


@settings(max_examples=50)
@given(st.binary(max_size=120), st.binary(max_size=80))
def test_any_key_bytes_are_refused_as_a_peers_fault(key: bytes, signature: bytes) -> None:
    with pytest.raises(PeerError):
        verify_signature(key, "ES256", b"data", signature)


@pytest.mark.parametrize("signer", [ES256, PS256])
def test_pem_gives_back_the_key(signer: LocalSigner) -> None:
    assert from_pem(to_pem(signer)).public_key_der == signer.public_key_der


def pem(key: PrivateKeyTypes, protection: KeySerializationEncryption = NoEncryption()) -> bytes:  # noqa: B008
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        pem(ES256.private_key, BestAvailableEncryption(b"secret")),
        pem(ed25519.Ed25519PrivateKey.generate()),
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(rsa.generate_private_key(65537, 1024)),
    ],
    ids=["empty", "garbage", "encrypted", "ed25519", "p-384", "rsa-1024"],
)
def test_private_keys_of_no_use_are_our_own_fault(data: bytes) -> None:
    with pytest.raises(LocalError):
        from_pem(data)


def test_keys_outside_the_profile_make_no_signer() -> None:
    for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 1024)):
        with pytest.raises(KeyKindError):
            LocalSigner(key)
    with pytest.raises(KeyKindError):
        generate_rsa(1024)


def test_repr_shows_no_key() -> None:
    assert "PRIVATE KEY" not in repr(ES256)
