"""A member's record as the file that `voice-dpki ledger propose change` takes, with its keys beside it."""

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from voice_dpki.ledger.members import Member
from voice_dpki.ledger.signatures import key_id_of
from voice_dpki.shell.config import to_toml
from voice_dpki.shell.files import FOR_ALL, write_all_new
from voice_dpki.x509.public import to_public_pem

_NAMED_BYTES = 8
"""Bytes of a key, or of its key id, that name its file: enough to tell 256 keys apart."""


def export_member(member: Member, path: Path) -> list[Path]:
    """Write a member's file and its public keys beside it; return the files, the member's first.

    Raises LocalError for a file that is there already or cannot be written, and then writes none.
    """
    validators = {_beside(path, "validator", key): _ed25519_pem(key) for key in member.validators}
    endorsing = {_beside(path, "endorsing", key_id_of(key)): _spki_pem(key) for key in member.endorsing_keys}
    text = _text(member, list(validators), list(endorsing)).encode("utf-8")
    files = {path: text, **validators, **endorsing}
    write_all_new([(each, data, FOR_ALL) for each, data in files.items()])
    return list(files)


def _text(member: Member, validators: Sequence[Path], endorsing: Sequence[Path]) -> str:
    return to_toml(
        {
            "organization": member.organization,
            "kind": str(member.kind),
            "domains": list(member.domains),
            "spcs": list(member.spcs),
            "cps": member.cps or None,
            "validators": [each.name for each in validators],
            "endorsing_keys": [each.name for each in endorsing],
            "ranges": [{"start": str(entry.start), "count": entry.count} for entry in member.ranges],
        }
    )


def _beside(path: Path, what: str, name: bytes) -> Path:
    return path.with_name(f"{path.stem}-{what}-{name[:_NAMED_BYTES].hex()}.pub.pem")


def _ed25519_pem(key: bytes) -> bytes:
    return to_public_pem(Ed25519PublicKey.from_public_bytes(key))


def _spki_pem(key: bytes) -> bytes:
    return load_der_public_key(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
