"""A program's own certificates and keys: reading those that its configuration names, and making a signer's."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.effects import Clock, Random
from voice_dpki.errors import LocalError, PeerError, VoiceDpkiError
from voice_dpki.names import CertDigest
from voice_dpki.shell.config import read_file, read_private_secret
from voice_dpki.shell.files import FOR_ALL, OWNER_ONLY, write_all_new
from voice_dpki.shell.token_uri import KeyPlace, TokenUri
from voice_dpki.x509.claimconstraints import ClaimConstraints
from voice_dpki.x509.keys import LocalSigner, from_pem, generate_es256, open_pem, to_pem
from voice_dpki.x509.profile import (
    MAX_CERTIFICATE_BYTES,
    MAX_LIFETIME_S,
    CertificateProfile,
    build_certificate,
    der_of,
    digest_of,
    read_profile,
)
from voice_dpki.x509.tnauthlist import TnAuthList

DEFAULT_DAYS = 90
"""Validity of a certificate that signs calls."""

_DAY_S = 86_400
MAX_DAYS = MAX_LIFETIME_S // _DAY_S - 1
_CLOCK_SKEW_S = 3600
"""A new certificate's validity begins an hour ago, so that verifiers with slow clocks accept it at once."""


def read_certificate(path: Path) -> CertificateProfile:
    """Read a certificate of the ledger's profile, DER or PEM; raises LocalError that names the file."""
    data = read_file(path, "certificate", 2 * MAX_CERTIFICATE_BYTES)
    try:
        return read_profile(der_of(data))
    except VoiceDpkiError as error:
        raise LocalError(f"{path}: {error}") from None


def read_signer(place: KeyPlace, what: str = "private key") -> LocalSigner:
    """Read a private key in PEM, or open one in a token; a file may be encrypted (`passphrase_of`).

    Raises LocalError that names the file and `what` it is, or the token.
    """
    if isinstance(place, TokenUri):
        return _in_token(place)
    path, data = place, read_file(place, what)
    try:
        return from_pem(data, passphrase_of(path, data))
    except LocalError as error:
        raise LocalError(f"{path}: {error}") from None


def passphrase_of(path: Path, pem: bytes) -> bytes | None:
    """Return the passphrase of a key's file, None where the file is not encrypted; raises LocalError.

    For `authn.pem` it is the first line of `authn.pem.passphrase`, which is a credential of systemd, or else a file
    beside the key that only its owner may read.
    """
    if b"ENCRYPTED" not in pem:
        return None
    name, credentials = f"{path.name}.passphrase", os.environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(credentials) / name if credentials else None
    found = credential if credential is not None and credential.exists() else path.with_name(name)
    return read_private_secret(found).encode("utf-8")


def _in_token(uri: TokenUri) -> LocalSigner:
    try:
        from voice_dpki.shell.token_key import signer_in_token
    except ImportError:
        raise LocalError(f"{uri}: keys in tokens need the extra `hsm`: pip install voice-dpki[hsm]") from None
    return signer_in_token(uri)


def read_ed25519(path: Path, what: str) -> Ed25519PrivateKey:
    """Read an Ed25519 private key in PEM, which may be encrypted; raises LocalError that names file and `what`."""
    data = read_file(path, what)
    passphrase = passphrase_of(path, data)
    try:
        key = open_pem(data, passphrase)
    except LocalError as error:
        raise LocalError(f"{path}: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise LocalError(f"{path}: a {what} must be Ed25519")
    return key


def make_signer(
    *,
    organization: str,
    common_name: str,
    numbers: TnAuthList,
    constraints: ClaimConstraints | None = None,
    days: int,
    certificate: Path,
    key: KeyPlace,
    clock: Clock,
    random: Random,
) -> CertDigest:
    """Make a key and a self-signed certificate for signing calls from `numbers`, in two new files; return H(CERT).

    A key in a token is there already. Raises LocalError where the values break the certificate profile, where a
    file exists already, and where the token's key cannot be used.
    """
    signer, now_s = (read_signer(key) if isinstance(key, TokenUri) else generate_es256()), int(clock.now_s())
    try:
        der = build_certificate(
            signer,
            organization=organization,
            common_name=common_name,
            tn_auth_list=numbers,
            claim_constraints=constraints,
            not_before_s=now_s - _CLOCK_SKEW_S,
            not_after_s=now_s + days * _DAY_S,
            random=random,
        )
    except (PeerError, ValueError) as error:
        raise LocalError(f"no such certificate can be made: {error}") from None
    made = [] if isinstance(key, TokenUri) else [(key, to_pem(signer), OWNER_ONLY)]
    write_all_new([*made, (certificate, der, FOR_ALL)])
    return digest_of(der)
