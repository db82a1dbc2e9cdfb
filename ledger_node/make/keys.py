"""An operator's keys: making each kind on the operator's own machine, and telling what a file holds.

A key is two files: the private key, for its owner only, and the public key beside it in PEM, for the others.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ledger_node.abci.cometbft import node_id_of
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.signatures import key_id_of
from voice_dpki.shell.config import read_file
from voice_dpki.shell.credentials import read_ed25519, read_signer
from voice_dpki.shell.files import FOR_ALL, OWNER_ONLY, make_folder, write_all_new
from voice_dpki.x509.keys import KeyKindError, LocalSigner, generate_es256, spki, to_pem
from voice_dpki.x509.profile import MAX_CERTIFICATE_BYTES, CertificateProfile, der_of, read_profile
from voice_dpki.x509.public import AnyPublicKey, read_public_pem, to_public_pem
from voice_dpki.x509.tnauthlist import TnAuthList

MAX_FILES = 1000
"""Most files of a folder that are looked at for private keys."""


class KeyKind(StrEnum):
    """The kinds of keys that a member has for the ledger."""

    VALIDATOR = "validator"
    NODE = "node"
    ENDORSING = "endorsing"


def make_key(kind: KeyKind, path: Path) -> Path:
    """Make a key in `path`, and its public key beside it; return the latter's path.

    Raises LocalError if one of the files is there already or cannot be written.
    """
    key = generate_es256() if kind is KeyKind.ENDORSING else Ed25519PrivateKey.generate()
    return write_key(key, path)


def write_key(key: LocalSigner | Ed25519PrivateKey, path: Path) -> Path:
    """Write a new key in two files, as `make_key` does."""
    public = public_path(path)
    private = key.private_key if isinstance(key, LocalSigner) else key
    make_folder(path.parent, 0o700)
    write_all_new(
        [(path, to_pem(key), OWNER_ONLY), (public, to_public_pem(private.public_key()), FOR_ALL)],
    )
    return public


def public_path(path: Path) -> Path:
    """Return the name of the file with the public key of the private key in `path`."""
    return path.with_name(f"{path.stem}.pub.pem")


def read_public(path: Path) -> AnyPublicKey:
    """Return the public key in a file, or that of the private key in it; raises LocalError that names the file."""
    try:
        return read_public_pem(read_file(path, "key"))
    except KeyKindError as error:
        raise LocalError(f"{path}: {error}") from None


def read_ed25519_public(path: Path, what: str = "key") -> Ed25519PublicKey:
    """Return an Ed25519 public key as `read_public` does; raises LocalError for one of another kind."""
    key = read_public(path)
    if not isinstance(key, Ed25519PublicKey):
        raise LocalError(f"{path}: a {what} must be Ed25519")
    return key


def ledger_bytes(key: AnyPublicKey) -> bytes:
    """Return a public key as the ledger stores it: 32 bytes for Ed25519, otherwise DER."""
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else spki(key)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key and its file."""

    path: Path
    key: LocalSigner | Ed25519PrivateKey

    @property
    def public_key(self) -> AnyPublicKey:
        """Its public key."""
        private = self.key.private_key if isinstance(self.key, LocalSigner) else self.key
        return private.public_key()

    def sign(self, data: bytes) -> bytes:
        """Sign data: Ed25519, or as `voice_dpki.x509.keys` does."""
        return self.key.sign(data)


class PrivateKeys:
    """An operator's private keys, found by their public keys."""

    def __init__(self, folder: Path) -> None:
        """Read the private keys in the folder's PEM files; raises LocalError if there are none."""
        files = list(islice(folder.glob("*.pem"), MAX_FILES))
        self._folder = folder
        self._keys = {ledger_bytes(key.public_key): key for path in files for key in _private_keys(path)}
        if not self._keys:
            raise LocalError(f"{folder}: there are no private keys here")

    def find(self, public_key: bytes, what: str) -> PrivateKey:
        """Return the private key of what `ledger_bytes` returned; raises LocalError that names `what`."""
        if public_key not in self._keys:
            raise LocalError(f"{self._folder}: the private key of {what} is not here")
        return self._keys[public_key]


def _private_keys(path: Path) -> list[PrivateKey]:
    """Return the private key in a file, or nothing for a file of something else; raises LocalError."""
    pem = read_file(path, "key")
    if b"PRIVATE KEY-----" not in pem:
        return []
    if isinstance(read_public(path), Ed25519PublicKey):
        return [PrivateKey(path, read_ed25519(path, "key"))]
    return [PrivateKey(path, read_signer(path))]


def numbers_of(member: Member) -> TnAuthList:
    """Return all numbers and codes of a member, for a certificate that signs its calls; raises LocalError."""
    if not (member.ranges or member.spcs):
        raise LocalError(f"{member.organization} has no numbers and no codes to sign calls for")
    return TnAuthList.of(member.spcs, member.ranges)


@dataclass(frozen=True, slots=True)
class Described:
    """The content of a key or certificate file: lines for people, and the same as values for JSON."""

    lines: list[str]
    form: dict[str, object]


def describe(path: Path) -> Described:
    """Describe a key or certificate file; raises LocalError."""
    data = read_file(path, "key or certificate", 2 * MAX_CERTIFICATE_BYTES)
    if b"PUBLIC KEY-----" in data or b"PRIVATE KEY-----" in data:
        whose = "private key" if b"PRIVATE KEY-----" in data else "public key"
        key = read_public(path)
        form = {"file": str(path), "holds": whose, "algorithm": _algorithm(key), **_names_form(key)}
        return Described([f"{path}: {whose}, {_kind(key)}", *_names(key)], form)
    try:
        profile = read_profile(der_of(data))
    except PeerError as error:
        raise LocalError(f"{path}: neither a key nor a certificate of the ledger's profile: {error}") from None
    form = {"file": str(path), "holds": "certificate", **_certificate_form(profile)}
    return Described([f"{path}: certificate", *_about(profile)], form)


def _algorithm(key: AnyPublicKey) -> str:
    if isinstance(key, Ed25519PublicKey):
        return "Ed25519"
    return f"RSA-{key.key_size}" if isinstance(key, RSAPublicKey) else "P-256"


def _names_form(key: AnyPublicKey) -> dict[str, object]:
    if isinstance(key, Ed25519PublicKey):
        name = node_id_of(key.public_bytes_raw())
        return {"validator_address": name.upper(), "node_id": name}
    return {"key_id": key_id_of(spki(key)).hex()}


def _certificate_form(profile: CertificateProfile) -> dict[str, object]:
    numbers = profile.tn_auth_list
    return {
        "digest": profile.digest.hex(),
        "organization": profile.organization or None,
        "common_name": profile.common_name or None,
        "not_before_s": profile.not_before_s,
        "not_after_s": profile.not_after_s,
        "spcs": numbers.spcs if numbers else [],
        "ranges": [{"start": each.start, "count": each.count} for each in numbers.ranges] if numbers else [],
        "tns": numbers.tns if numbers else [],
    }


def _kind(key: AnyPublicKey) -> str:
    if isinstance(key, Ed25519PublicKey):
        return "Ed25519: for a validator or a node"
    if isinstance(key, RSAPublicKey):
        return f"RSA with {key.key_size} bits: for certificates"
    return "ECDSA on P-256: for endorsing, or for certificates"


def _names(key: AnyPublicKey) -> list[str]:
    if isinstance(key, Ed25519PublicKey):
        name = node_id_of(key.public_bytes_raw())
        return [f"  validator address  {name.upper()}", f"  node id            {name}"]
    return [f"  key id             {key_id_of(spki(key)).hex()}"]


def _about(profile: CertificateProfile) -> list[str]:
    return [
        f"  H(CERT)            {profile.digest.hex()}",
        f"  organization       {profile.organization or 'none'}",
        f"  common name        {profile.common_name or 'none'}",
        f"  valid              {_date(profile.not_before_s)} to {_date(profile.not_after_s)}",
        f"  numbers and codes  {_claimed(profile.tn_auth_list)}",
    ]


def _claimed(numbers: TnAuthList | None) -> str:
    if numbers is None:
        return "none"
    ranges = [f"+{entry.start} ({entry.count})" for entry in numbers.ranges]
    return ", ".join([*numbers.spcs, *ranges, *(f"+{each}" for each in numbers.tns)])


def _date(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
