"""`ledger-node init`: a new ledger from a list of members, with keys, genesis and a configuration for each node."""

import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.effects import Clock
from voice_dpki.errors import LocalError, MalformedError
from voice_dpki.ledger.genesis import dump_genesis
from voice_dpki.ledger.members import Member, WrittenMember
from voice_dpki.ledger.parameters import Parameters
from voice_dpki.shell.config import Config, load_config, to_toml
from voice_dpki.shell.files import make_folder, write_file, write_new
from voice_dpki.x509.keys import generate_es256, to_pem

FIRST_PORT = 26680

EXAMPLE = """\
chain_id = "demo-1"

[parameters]                                               # all optional; they never change
delay_s = 86400                                            # how long before a voted change of members takes effect

[[members]]
organization = "Operator A"
kind = "operator"                                          # or vendor, service_provider, ca
domains = ["a.example"]
ranges = [{ start = "493023125000", count = 1000 }]        # E.164 without +
spcs = []                                                  # service provider codes
validators = 1                                             # keys to make; operators only
"""


class _Member(WrittenMember, frozen=True, kw_only=True):
    validators: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0


class _Members(Config, frozen=True, kw_only=True):
    chain_id: str
    parameters: dict[str, int] = msgspec.field(default_factory=dict)
    members: Annotated[list[_Member], msgspec.Meta(min_length=1)]


def initialise(members_file: Path, folder: Path, clock: Clock) -> list[Path]:
    """Make a ledger in `folder`, which must be new or empty; return the configurations made, the engine's first.

    Raises LocalError if the folder is not empty, or the file describes impossible members or parameters.
    """
    wanted = load_config(members_file, _Members)
    if folder.exists() and any(folder.iterdir()):
        raise LocalError(f"{folder}: there is something in it already; name a new folder")
    slugs = [_slug(member.organization) for member in wanted.members]
    if len(set(slugs)) != len(slugs) or "engine" in slugs:
        raise LocalError(f"{members_file}: two organisations' names are too alike to name files by")
    keys = folder / "keys"
    make_folder(keys, 0o700)
    validator_keys: list[str] = []
    members = [
        _make_member(member, slug, keys, validator_keys) for member, slug in zip(wanted.members, slugs, strict=True)
    ]
    parameters = _parameters(members_file, wanted.parameters)
    genesis = dump_genesis(wanted.chain_id, int(clock.now_s()) * 10**9, members, parameters=parameters)
    write_file(folder / "genesis.json", genesis)
    return [
        _write_engine(folder, validator_keys),
        *(
            _write_follower(folder, member.organization, slug, FIRST_PORT + 1 + at)
            for at, (member, slug) in enumerate(zip(members, slugs, strict=True))
        ),
    ]


def _parameters(members_file: Path, wanted: dict[str, int]) -> Parameters:
    try:
        return Parameters.of(wanted)
    except MalformedError as error:
        raise LocalError(f"{members_file}: {error}") from None


def _make_member(wanted: _Member, slug: str, keys: Path, validator_keys: list[str]) -> Member:
    """Make a member with new keys, and append the names of its validators' key files to `validator_keys`."""
    endorsing = generate_es256()
    write_new(keys / f"endorsing-{slug}.pem", to_pem(endorsing))
    public = []
    for number in range(1, wanted.validators + 1):
        key = Ed25519PrivateKey.generate()
        name = f"validator-{slug}-{number}.pem"
        write_new(keys / name, to_pem(key))
        validator_keys.append(f"keys/{name}")
        public.append(key.public_key().public_bytes_raw())
    try:
        return wanted.member_with(public, [endorsing.public_key_der])
    except MalformedError as error:
        raise LocalError(f"{wanted.organization}: {error}") from None


def _write_engine(folder: Path, validator_keys: list[str]) -> Path:
    role = {"engine": {"validator_keys": validator_keys, "heartbeat_s": 5.0}}
    return _write_config(folder, "engine", FIRST_PORT, role)


def _write_follower(folder: Path, organization: str, slug: str, port: int) -> Path:
    write_new(folder / f"tokens-{slug}", (secrets.token_urlsafe(32) + "\n").encode("ascii"))
    role = {
        "follow": {"url": f"http://127.0.0.1:{FIRST_PORT}"},
        "submission": {
            "organization": organization,
            "endorsing_key": f"keys/endorsing-{slug}.pem",
            "tokens": f"tokens-{slug}",
        },
    }
    return _write_config(folder, slug, port, role)


def _write_config(folder: Path, name: str, port: int, role: Mapping[str, object]) -> Path:
    path = folder / f"{name}.toml"
    sections = {
        "node": {"name": name, "data_dir": f"data-{name}", "genesis": "genesis.json"},
        "listen": {"host": "127.0.0.1", "port": port},
    }
    write_file(path, to_toml({**sections, **role}).encode("utf-8"))
    return path


def _slug(organization: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", organization.lower()).strip("-") or "member"
