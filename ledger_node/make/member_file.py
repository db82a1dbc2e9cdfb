"""A proposed member as a TOML file: the record that the operators vote on; its keys are file names."""

from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from ledger_node.make.keys import read_ed25519_public, read_public
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.members import Member, WrittenMember
from voice_dpki.shell.config import load_config, resolve
from voice_dpki.x509.keys import spki

EXAMPLE = """\
organization = "Operator E"
kind = "operator"                                      # or vendor, service_provider, ca
domains = ["e.example"]
ranges = [{ start = "12025550100", count = 100 }]      # E.164 without +
spcs = []                                              # service provider codes
validators = ["validator-e.pub.pem"]                   # Ed25519 keys in PEM, public or private
endorsing_keys = ["endorsing-e.pub.pem"]               # ECDSA P-256 keys in PEM, public or private
# cps = "https://cps.e.example"                        # for calls out of band; from version 4 of the rules on
"""


class _MemberFile(WrittenMember, frozen=True, kw_only=True):
    validators: tuple[str, ...] = ()
    endorsing_keys: tuple[str, ...] = ()
    cps: str = ""
    """URL of the call placement service for calls to the member's numbers (docs/stir-oob.md)."""


def load_member(path: Path) -> Member:
    """Read a member from a file; raises LocalError that says what is wrong with it."""
    form = load_config(path, _MemberFile)
    try:
        member = form.member_with(
            [_validator_key(resolve(path, name)) for name in form.validators],
            [_endorsing_key(resolve(path, name)) for name in form.endorsing_keys],
        )
        return replace(member, cps=form.cps)
    except MalformedError as error:
        raise LocalError(f"{path}: {error}") from None


def _validator_key(path: Path) -> bytes:
    return read_ed25519_public(path, "validator's key").public_bytes_raw()


def _endorsing_key(path: Path) -> bytes:
    key = read_public(path)
    if not isinstance(key, EllipticCurvePublicKey):
        raise LocalError(f"{path}: an endorsing key must be ECDSA on P-256")
    return spki(key)
