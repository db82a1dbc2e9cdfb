"""The files of a rotation: the pair in use, the next one beside it, and the certificate that was replaced.

    authn.der.next, authn.pem.next    made, and perhaps recorded on the ledger
    authn.der.old                     replaced, and not revoked yet

An interrupted rotation resumes from the files that it finds. The old key is not kept: nothing signs with it.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from voice_dpki.effects import Random
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.shell.credentials import read_certificate, read_signer
from voice_dpki.shell.files import FOR_ALL, OWNER_ONLY, write_all_new, write_file
from voice_dpki.x509.claimconstraints import UNCONSTRAINED, constraints_in
from voice_dpki.x509.keys import generate_es256, to_pem
from voice_dpki.x509.profile import CertificateProfile, build_certificate

CLOCK_SKEW_S = 3600
"""A new certificate's validity begins an hour ago, so that verifiers with slow clocks accept it at once."""


@dataclass(frozen=True, slots=True)
class RotationFiles:
    """The files beside the pair that the configuration names; all methods raise LocalError."""

    certificate: Path
    key: Path

    @property
    def next_certificate(self) -> Path:
        """The next certificate."""
        return self.certificate.with_name(f"{self.certificate.name}.next")

    @property
    def next_key(self) -> Path:
        """Its key."""
        return self.key.with_name(f"{self.key.name}.next")

    @property
    def old(self) -> Path:
        """The certificate that was replaced."""
        return self.certificate.with_name(f"{self.certificate.name}.old")

    def mend(self) -> None:
        """Finish a replacement that was interrupted between its two files."""
        if self.next_certificate.exists() and not self.next_key.exists():
            _rename(self.next_certificate, self.certificate)  # the key is in its place already
        elif self.next_key.exists() and not self.next_certificate.exists():
            self.next_key.unlink()  # nobody has seen its certificate

    def make_next(self, like: CertificateProfile, days: int, now_s: float, random: Random) -> CertificateProfile:
        """Return the next certificate, which is made with a new key unless it is there: as `like`, but newer."""
        if not self.next_certificate.exists():
            signer = generate_es256()
            constraints = constraints_in(like.claim_constraints)
            try:
                der = build_certificate(
                    signer,
                    organization=like.organization,
                    common_name=like.common_name,
                    uris=like.uris,
                    dns_names=like.dns_names,
                    tn_auth_list=like.tn_auth_list,
                    claim_constraints=None if constraints == UNCONSTRAINED else constraints,
                    not_before_s=int(now_s) - CLOCK_SKEW_S,
                    not_after_s=int(now_s) + days * 86_400,
                    random=random,
                )
            except (PeerError, ValueError) as error:
                raise LocalError(f"no such certificate can be made: {error}") from None
            files = [(self.next_key, to_pem(signer), OWNER_ONLY), (self.next_certificate, der, FOR_ALL)]
            write_all_new(files)
        return self._next()

    def replace(self) -> None:
        """Put the next pair in the place of the one in use, whose certificate is kept until it is revoked."""
        write_file(self.old, read_certificate(self.certificate).der)
        _give_rights_of(self.key, self.next_key)
        _give_rights_of(self.certificate, self.next_certificate)
        _rename(self.next_key, self.key)
        _rename(self.next_certificate, self.certificate)

    def forget_old(self) -> None:
        """Remove the certificate that was revoked."""
        try:
            self.old.unlink()
        except OSError as error:
            raise LocalError(f"{self.old}: cannot be removed: {error.strerror}") from None

    def _next(self) -> CertificateProfile:
        profile = read_certificate(self.next_certificate)
        if read_signer(self.next_key).public_key_der != profile.public_key_der:
            raise LocalError(f"{self.next_key}: this is not the key of {self.next_certificate}; remove both")
        return profile


def _give_rights_of(model: Path, path: Path) -> None:
    """Give a file the owner, group and mode of the one whose place it takes: the server is to read it as before."""
    try:
        wanted, given = model.stat(), path.stat()
        if (wanted.st_uid, wanted.st_gid) != (given.st_uid, given.st_gid):
            os.chown(path, wanted.st_uid, wanted.st_gid)
        path.chmod(stat.S_IMODE(wanted.st_mode))
    except OSError as error:
        raise LocalError(f"{path}: cannot be given owner, group and mode of {model}: {error.strerror}") from None


def _rename(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        raise LocalError(f"{target}: cannot be replaced: {error.strerror}") from None
