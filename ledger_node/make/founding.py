"""Founding a ledger together: each operator builds the same genesis from the same offers, and signs it.

`build` gives the same bytes on every machine, in whatever order the offers come. An operator signs the genesis in
which its own record is what it offered, with an endorsing key, over

    "voice-dpki/genesis/v1" ‖ 00 ‖ SHA-256 of the file
"""

import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import msgspec

from ledger_node.make.keys import PrivateKeys, ledger_bytes
from ledger_node.make.node_file import node_sections
from ledger_node.make.offer import Node, Offer, Terms, read_offer
from voice_dpki.errors import LocalError, PeerError
from voice_dpki.ledger.directory import MAX_MEMBERS
from voice_dpki.ledger.genesis import MAX_GENESIS_BYTES, Genesis, dump_genesis, load_genesis
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.shell.config import Config, Listen, load_config, read_file, to_toml
from voice_dpki.x509.keys import verify_signature
from voice_dpki.x509.public import read_public_pem, to_public_pem

SIGNATURES, TOKENS = "signatures", "tokens"
"""Names beside a node's configuration: the folder of the operators' signatures, and the file of its tokens."""

GENESIS_DOMAIN = b"voice-dpki/genesis/v1\0"


def build(terms: Terms, files: Sequence[Path]) -> bytes:
    """Return the genesis of the ledger whose members made these offers; raises LocalError.

    An organisation, a key or a node's address must be in one offer only.
    """
    if len(files) > MAX_MEMBERS:
        raise LocalError(f"a ledger has at most {MAX_MEMBERS} members")
    offers = sorted((read_offer(path, terms) for path in files), key=lambda offer: offer.member.organization)
    _check_apart(offers)
    members = [offer.member for offer in offers]
    if not any(member.validators for member in members):
        raise LocalError("no offer has a validator: without one there are no blocks")
    return dump_genesis(terms.chain_id, terms.time_ns, members, parameters=terms.ledger_parameters)


def _check_apart(offers: Sequence[Offer]) -> None:
    nodes = [node for offer in offers for node in offer.nodes]
    keys = [*(node.public_key for node in nodes), *chain.from_iterable(offer.member.validators for offer in offers)]
    if len(set(keys)) != len(keys):
        raise LocalError("two nodes or validators have the same key: make each its own")
    addresses = [node.address for node in nodes]
    if len(set(addresses)) != len(addresses):
        raise LocalError("two nodes have the same address")


def read_genesis_bytes(path: Path) -> tuple[bytes, Genesis]:
    """Read a genesis file; return its bytes too. Raises LocalError."""
    data = read_file(path, "genesis", MAX_GENESIS_BYTES)
    return data, load_genesis(data)


def fingerprint(data: bytes) -> str:
    """Return the SHA-256 of a genesis file, in groups for reading it out."""
    digest = hashlib.sha256(data).hexdigest()
    return " ".join(digest[at : at + 8] for at in range(0, len(digest), 8))


class _SignatureForm(Config, frozen=True, kw_only=True):
    organization: str
    genesis: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    public: Annotated[str, msgspec.Meta(max_length=1024)]
    signature: Annotated[str, msgspec.Meta(max_length=1024)]


def sign(data: bytes, member: Member, keys: PrivateKeys) -> bytes:
    """Return a member's signature on a genesis, as a file.

    Raises LocalError unless the genesis has the member's record exactly, and one of its private keys is there.
    """
    if load_genesis(data).member(member.organization) != member:
        raise LocalError(
            f"{member.organization} stands in the genesis otherwise than in its own file: do not sign it"
        )
    if not member.endorsing_keys:
        raise LocalError(f"{member.organization} has no endorsing key to sign with")
    key = keys.find(member.endorsing_keys[0], "endorsing")
    digest = hashlib.sha256(data).digest()
    return to_toml(
        {
            "organization": member.organization,
            "genesis": digest.hex(),
            "public": to_public_pem(key.public_key).decode("ascii"),
            "signature": b64encode(key.sign(GENESIS_DOMAIN + digest)).decode("ascii"),
        }
    ).encode("utf-8")


def check_signed(data: bytes, folder: Path) -> tuple[str, ...]:
    """Verify the signatures in a folder's TOML files; return the members that signed the genesis.

    Raises LocalError for a signature that is false or on another genesis, and unless all operators signed.
    """
    genesis = load_genesis(data)
    files = sorted(islice(folder.glob("*.toml"), MAX_MEMBERS + 1))
    if len(files) > MAX_MEMBERS:
        raise LocalError(f"{folder}: more signatures than a ledger has members")
    signed = {_signer(path, data, genesis) for path in files}
    operators = {member.organization for member in genesis.members if member.kind is MemberKind.OPERATOR}
    if missing := sorted(operators - signed):
        raise LocalError(f"{folder}: the genesis is not signed by {', '.join(missing)}")
    return tuple(sorted(signed))


def _signer(path: Path, data: bytes, genesis: Genesis) -> str:
    form, digest = load_config(path, _SignatureForm), hashlib.sha256(data).digest()
    if form.genesis != digest.hex():
        raise LocalError(f"{path}: {form.organization} signed another genesis than this: compare what you built")
    member = genesis.member(form.organization)
    if member is None:
        raise LocalError(f"{path}: {form.organization} is no member")
    try:
        key = ledger_bytes(read_public_pem(form.public.encode("utf-8")))
        if key not in member.endorsing_keys:
            raise LocalError(f"{path}: this is no key of {form.organization}")
        verify_signature(key, "ES256", GENESIS_DOMAIN + digest, b64decode(form.signature, validate=True))
    except (PeerError, ValueError) as error:
        raise LocalError(f"{path}: {error}") from None
    return form.organization


def configure(
    terms: Terms,
    files: Sequence[Path],
    member: Member,
    keys: PrivateKeys,
    node: Node,
    out: Path,
    *,
    endorses: bool = True,
    state: Path | None = None,
) -> dict[str, dict[str, object]]:
    """Return the configuration of one of the member's nodes, for the file `out`.

    The genesis, the signatures and the tokens are beside it under those names, and so are the node's data unless
    `state` names their folder. The node has the submission role if it `endorses` and the member has a key for that.
    Raises LocalError for a node that is in no offer of the member, and where a private key is missing.
    """
    offers = [read_offer(path, terms) for path in files]
    if not any(offer.member == member and node in offer.nodes for offer in offers):
        raise LocalError(f"{node.address}: {member.organization} has offered no such node")

    def named(public_key: bytes, what: str) -> str:
        return os.path.relpath(keys.find(public_key, what).path, out.parent)

    host, _, port = node.address.rpartition(":")
    peers = [each.peer for offer in offers for each in offer.nodes if each != node]
    validator = _validator_of(member, next(offer for offer in offers if offer.member == member), node)
    sections = node_sections(
        out.stem,
        host,
        peers,
        None if validator is None else named(validator, "a validator"),
        named(node.public_key, "a node"),
        state=state,
    )
    loopback = Listen(host=host, port=0).is_loopback
    sections["node"] |= {"signatures": SIGNATURES}
    sections["listen"] |= {"host": host if loopback else Listen(port=0).host}
    sections["cometbft"] |= {"allow_duplicate_ip": loopback, "p2p": {"host": host, "port": int(port)}}
    if endorses and member.endorsing_keys:
        sections["submission"] = {
            "organization": member.organization,
            "endorsing_key": named(member.endorsing_keys[0], "endorsing"),
            "tokens": TOKENS,
        }
    return sections


def _validator_of(member: Member, offer: Offer, node: Node) -> bytes | None:
    """Return the key of the validator at the node's place in the offer; None if there are fewer validators."""
    at = offer.nodes.index(node)
    return member.validators[at] if at < len(member.validators) else None
