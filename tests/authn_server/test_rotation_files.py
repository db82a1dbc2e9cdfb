"""The files of a rotation, broken off between any two of its steps."""

import os
import stat
from pathlib import Path

import pytest

from authn_server.rotation_files import RotationFiles
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import LocalError
from voice_dpki.shell.credentials import read_certificate, read_signer
from voice_dpki.x509.profile import CertificateProfile

from .conftest import Site


@pytest.fixture
def files(site: Site) -> RotationFiles:
    return RotationFiles(site.folder / "authn.der", site.folder / "authn.pem")


def make_next(files: RotationFiles) -> CertificateProfile:
    like = read_certificate(files.certificate)
    return files.make_next(like, 90, like.not_before_s + 7200, SystemRandom())


def check_pair(files: RotationFiles, profile: CertificateProfile) -> None:
    assert read_certificate(files.certificate).digest == profile.digest
    assert read_signer(files.key).public_key_der == profile.public_key_der


def test_the_next_certificate_is_like_the_one_in_use_but_for_key_and_time(files: RotationFiles) -> None:
    old, new = read_certificate(files.certificate), make_next(files)
    for name in ("organization", "common_name", "tn_auth_list", "uris", "dns_names", "claim_constraints"):
        assert getattr(new, name) == getattr(old, name), name
    assert new.public_key_der != old.public_key_der
    assert new.not_after_s - old.not_before_s == 90 * 86_400 + 7200
    assert make_next(files).digest == new.digest, "a second run goes on with it"
    assert stat.S_IMODE(files.next_key.stat().st_mode) == 0o600


def test_it_takes_the_place_and_the_old_one_is_kept(files: RotationFiles) -> None:
    old, new = read_certificate(files.certificate), make_next(files)
    files.replace()
    check_pair(files, new)
    assert read_certificate(files.old).digest == old.digest
    assert not files.next_certificate.exists()
    assert not files.next_key.exists()
    files.forget_old()
    assert not files.old.exists()
    with pytest.raises(LocalError, match="cannot be removed"):
        files.forget_old()


@pytest.mark.skipif(os.geteuid() != 0, reason="files are given to others by root alone")
def test_the_next_pair_can_be_read_by_whoever_read_the_one_before(files: RotationFiles) -> None:
    """As in /etc/voice-dpki/authn-server, whose files are root's and the service's group may read."""
    make_next(files)
    for number, path in enumerate((files.key, files.certificate)):
        os.chown(path, 0, 54321 + number)
        path.chmod(0o640)
    files.replace()
    for number, path in enumerate((files.key, files.certificate)):
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 54321 + number, 0o640)


@pytest.mark.parametrize("done", [0, 1])
def test_what_was_broken_off_between_two_files_is_finished(
    files: RotationFiles, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, rename = make_next(files), Path.replace
    renamed: list[Path] = []

    def broken(source: Path, target: Path) -> Path:
        if len(renamed) == done:
            raise OSError(28, os.strerror(28))
        renamed.append(source)
        return rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", broken)
        with pytest.raises(LocalError, match="No space left"):
            files.replace()
    files.mend()
    if not done:
        assert make_next(files).digest == new.digest
        files.replace()
    check_pair(files, new)
    files.mend()
    check_pair(files, new)


def test_a_key_whose_certificate_was_not_written_is_made_again(files: RotationFiles) -> None:
    make_next(files)
    files.next_certificate.unlink()
    files.mend()
    assert not files.next_key.exists()
    new = make_next(files)
    files.replace()
    check_pair(files, new)


def test_files_that_do_not_belong_together_are_not_used(files: RotationFiles) -> None:
    make_next(files)
    files.next_key.write_bytes(files.key.read_bytes())
    with pytest.raises(LocalError, match="remove both"):
        make_next(files)
