from collections.abc import Callable
from pathlib import Path

import pytest

from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.shell.credentials import read_certificate, read_signer
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
