import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.shell.credentials import read_certificate, read_ed25519, read_signer
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.profile import build_certificate, digest_of


def test_certificate_and_key_belong_together(tmp_path: Path) -> None:
    signer = generate_es256()
    der = build_certificate(
        signer,
        organization="Operator A",
        common_name="a.example",
        not_before_s=0,
        not_after_s=86_400,
        random=SystemRandom(),
    )
    (tmp_path / "a.der").write_bytes(der)
    (tmp_path / "a.pem").write_bytes(to_pem(signer))
    assert read_certificate(tmp_path / "a.der").digest == digest_of(der)
    assert read_signer(tmp_path / "a.pem").public_key_der == read_certificate(tmp_path / "a.der").public_key_der


@pytest.mark.parametrize("read", [read_certificate, read_signer])
@pytest.mark.parametrize("data", [None, b"", b"junk", b"-----BEGIN CERTIFICATE-----\n"])
def test_what_is_neither_is_named(read: Callable[[Path], object], data: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "mixed-up"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(LocalError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")


def encrypted(path: Path, key: bytes, *how: str) -> None:
    """Write a key's file as openssl encrypts it, and its passphrase beside it."""
    passphrase = path.with_name(f"{path.name}.passphrase")
    passphrase.write_text("a long passphrase\n")
    passphrase.chmod(0o600)
    command = ["openssl", "pkcs8", "-topk8", *how, "-passout", f"file:{passphrase}", "-out", str(path)]
    subprocess.run(command, input=key, check=True, capture_output=True)


HOW = (("-scrypt",), ("-v2", "aes-256-cbc", "-iter", "100000"))


@pytest.mark.parametrize("how", HOW)
def test_an_encrypted_key_is_opened_by_the_passphrase_beside_it(tmp_path: Path, how: tuple[str, ...]) -> None:
    signer, path = generate_es256(), tmp_path / "authn.pem"
    encrypted(path, to_pem(signer), *how)
    assert read_signer(path).public_key_der == signer.public_key_der
    validator = Ed25519PrivateKey.generate()
    encrypted(path, to_pem(validator), *how)
    assert read_ed25519(path, "validator key").public_key() == validator.public_key()


def test_a_passphrase_that_is_wrong_missing_or_open_to_others_is_told(tmp_path: Path) -> None:
    path, passphrase = tmp_path / "authn.pem", tmp_path / "authn.pem.passphrase"
    encrypted(path, to_pem(generate_es256()), "-scrypt")
    passphrase.chmod(0o644)
    with pytest.raises(LocalError, match="others than its owner"):
        read_signer(path)
    passphrase.chmod(0o600)
    passphrase.write_text("another\n")
    for read in (read_signer, lambda path: read_ed25519(path, "key")):
        with pytest.raises(LocalError, match=f"^{path}: not a private key in PEM form that its passphrase opens"):
            read(path)
    passphrase.unlink()
    with pytest.raises(LocalError, match=r"authn\.pem\.passphrase: cannot read"):
        read_signer(path)


def test_a_credential_of_systemd_is_the_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mode shows rights of a group, which are those of an ACL."""
    signer, path, credentials = generate_es256(), tmp_path / "authn.pem", tmp_path / "credentials"
    credentials.mkdir()
    encrypted(path, to_pem(signer), "-scrypt")
    (tmp_path / "authn.pem.passphrase").rename(credentials / "authn.pem.passphrase")
    (credentials / "authn.pem.passphrase").chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert read_signer(path).public_key_der == signer.public_key_der
