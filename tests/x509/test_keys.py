import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_dpki.errors import LocalError, PeerError
from voice_dpki.x509.keys import (
    KeyElsewhere,
    KeyKindError,
    LocalSigner,
    SignatureError,
    algorithm_of,
    check_key_is_for,
    fault_of,
    from_pem,
    generate_es256,
    generate_rsa,
    is_elsewhere,
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


def test_the_salt_of_pss_has_32_octets() -> None:
    """RFC 7518 §3.5: as many as the hash. Another length is another signature."""
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
    from cryptography.hazmat.primitives.hashes import SHA256

    key = PS256.private_key
    assert isinstance(key, rsa.RSAPrivateKey)
    key.public_key().verify(PS256.sign(b"x"), b"x", PSS(MGF1(SHA256()), 32), SHA256())
    verify_signature(PS256.public_key_der, "PS256", b"x", key.sign(b"x", PSS(MGF1(SHA256()), 32), SHA256()))
    for salt in (0, 31, 33):
        other = key.sign(b"x", PSS(MGF1(SHA256()), salt), SHA256())
        with pytest.raises(SignatureError):
            verify_signature(PS256.public_key_der, "PS256", b"x", other)


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


def rsa_key(bits: int, exponent: int = 65_537) -> rsa.RSAPublicKey:
    """A public key of a size: nobody has the private one."""
    return rsa.RSAPublicNumbers(exponent, (1 << bits - 1) + 1).public_key()


@pytest.mark.parametrize(
    ("key", "admitted"),
    [
        (ES256.private_key.public_key(), "ES256"),
        (rsa_key(2048), "PS256"),
        (rsa_key(8192), "PS256"),
        (rsa_key(2048, 65_539), "PS256"),
    ],
)
def test_keys_that_are_admitted(key: object, admitted: str) -> None:
    assert algorithm_of(key) == admitted


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (
            ec.generate_private_key(ec.SECP384R1()).public_key(),
            "the key is on secp384r1, and only P-256 is admitted",
        ),
        (
            ec.generate_private_key(ec.SECP256K1()).public_key(),
            "the key is on secp256k1, and only P-256 is admitted",
        ),
        (rsa_key(2047), "the RSA key has 2047 bits: 2048 to 8192 are admitted"),
        (rsa_key(8193), "the RSA key has 8193 bits: 2048 to 8192 are admitted"),
        (rsa_key(2048, 65_535), "the RSA exponent is less than 65537"),
        (ed25519.Ed25519PrivateKey.generate().public_key(), "the key is neither ECDSA on P-256 nor RSA"),
        (None, "the key is neither ECDSA on P-256 nor RSA"),
    ],
)
def test_keys_that_are_not_admitted_and_why(key: object, sentence: str) -> None:
    with pytest.raises(KeyKindError) as refused:
        algorithm_of(key)
    assert str(refused.value) == sentence


@pytest.mark.parametrize("bits", [2048, 8192])
def test_how_long_a_new_rsa_key_may_be(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    """Making one of 8192 bits takes many seconds, so that here another key stands for it."""
    made: list[tuple[int, int]] = []

    def make(exponent: int, size: int) -> rsa.RSAPrivateKey:
        made.append((exponent, size))
        assert isinstance(PS256.private_key, rsa.RSAPrivateKey)
        return PS256.private_key

    monkeypatch.setattr(rsa, "generate_private_key", make)
    assert generate_rsa(bits).private_key is PS256.private_key
    for beyond in (2047, 8193):
        with pytest.raises(KeyKindError, match=r"^an RSA key has 2048 to 8192 bits$"):
            generate_rsa(beyond)
    assert made == [(65_537, bits)]


def test_a_private_key_of_another_kind_is_named() -> None:
    with pytest.raises(LocalError, match=r"^the private key is neither ECDSA nor RSA$"):
        from_pem(pem(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(LocalError, match="cannot be used: the key is on secp384r1"):
        from_pem(pem(ec.generate_private_key(ec.SECP384R1())))


def test_public_keys_that_verify_nothing_and_why() -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    info = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for key, algorithm, sentence in (
        (info, "ES256", "the key is neither ECDSA on P-256 nor RSA"),
        (b"x", "ES256", "not a public key in DER form"),
        (ES256.public_key_der, "PS256", "the key is not one for PS256"),
        (PS256.public_key_der, "ES256", "the key is not one for ES256"),
        (ES256.public_key_der, "x" * 100, f"the key is not one for {'x' * 16}"),
    ):
        with pytest.raises(KeyKindError) as refused:
            check_key_is_for(key, algorithm)
        assert str(refused.value) == sentence


def test_repr_shows_no_key() -> None:
    assert "PRIVATE KEY" not in repr(ES256)


class Away(KeyElsewhere):
    """A key that its device has lost. Tokens that hold keys are tried in tests/shell."""

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return ec.generate_private_key(ec.SECP256R1()).public_key()

    def fault(self) -> str:
        return "the device is gone"

    def probe(self) -> None:
        raise NotImplementedError

    def fail(self, why: LocalError) -> None:
        raise NotImplementedError


def test_only_a_key_elsewhere_can_have_a_fault() -> None:
    away = LocalSigner(Away())  # type: ignore[arg-type]  # all that is asked of it here
    assert (is_elsewhere(away), fault_of(away)) == (True, "the device is gone")
    assert (is_elsewhere(ES256), fault_of(ES256)) == (False, "")
