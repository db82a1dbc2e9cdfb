"""A program's own certificate and key, read from the files that its configuration names."""

from pathlib import Path

from voice_dpki.errors import LocalError, VoiceDpkiError
from voice_dpki.shell.config import read_file
from voice_dpki.x509.keys import LocalSigner, from_pem
from voice_dpki.x509.profile import MAX_CERTIFICATE_BYTES, CertificateProfile, der_of, read_profile


def read_certificate(path: Path) -> CertificateProfile:
    """Read a certificate of the ledger's profile, DER or PEM; raises LocalError that names the file."""
    data = read_file(path, "certificate", 2 * MAX_CERTIFICATE_BYTES)
    try:
        return read_profile(der_of(data))
    except VoiceDpkiError as error:
        raise LocalError(f"{path}: {error}") from None


def read_signer(path: Path, what: str = "private key") -> LocalSigner:
    """Read an unencrypted private key in PEM form; raises LocalError that names the file and `what` it is."""
    data = read_file(path, what)
    try:
        return from_pem(data)
    except LocalError as error:
        raise LocalError(f"{path}: {error}") from None
