"""Keys that are enciphered to an RSA key: only its owner reads them, and nobody learns why not."""

import pytest

from voice_dpki.errors import LocalError
from voice_dpki.x509.encipherment import RSA1_5, RSA_OAEP_256, DecryptionError, LocalDecrypter, encrypt_to
from voice_dpki.x509.keys import KeyKindError, generate_es256, generate_rsa, spki

OWN, OTHER = (LocalDecrypter.of(generate_rsa()) for _ in range(2))
SECRET = bytes(range(64))


@pytest.mark.parametrize("algorithm", [RSA1_5, RSA_OAEP_256])
@pytest.mark.parametrize("size", [1, 16, 64])
def test_the_owner_of_the_key_reads_what_is_enciphered_to_it(algorithm: str, size: int) -> None:
    data = encrypt_to(OWN.public_key_der, algorithm, SECRET[:size])
    assert len(data) == 256
    assert OWN.decrypt(algorithm, data) == SECRET[:size]


def test_what_is_for_another_key_or_was_changed_says_nothing_about_why() -> None:
    data = encrypt_to(OWN.public_key_der, RSA_OAEP_256, SECRET)
    for decrypter, received in (
        (OTHER, data),
        (OWN, data[:-1]),
        (OWN, data[:-1] + bytes((data[-1] ^ 1,))),
        (OWN, b""),
    ):
        with pytest.raises(DecryptionError, match="not encrypted to this key") as caught:
            decrypter.decrypt(RSA_OAEP_256, received)
        assert caught.value.__cause__ is None


def test_only_rsa_enciphers() -> None:
    signer = generate_es256()
    with pytest.raises(LocalError, match="only an RSA key can decrypt"):
        LocalDecrypter.of(signer)
    with pytest.raises(KeyKindError):
        encrypt_to(spki(signer.private_key.public_key()), RSA_OAEP_256, SECRET)
