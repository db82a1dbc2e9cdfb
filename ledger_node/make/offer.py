"""An operator's offer to found a ledger: its record as a member, its nodes, and a proof that it holds each key.

An offer is made on the operator's own machine, and handed to the others as a file without secrets. Each of its keys
signs

    "voice-dpki/offer/v1" ‖ 00 ‖ CBOR [SHA-256 of the terms, [the member's parts], [[node key, address], ...]]

so nobody can offer another's key as its own, and an offer is valid only for the terms that its operator has read.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger_node.abci.cometbft import node_id_of
from ledger_node.make.keys import PrivateKeys, ledger_bytes
from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.ledger.header import MAX_CHAIN_ID_BYTES, parse_time
from voice_dpki.ledger.members import MAX_ENTRIES, Member, WrittenMember
from voice_dpki.ledger.parameters import Parameters
from voice_dpki.shell.config import Config, load_config, to_toml
from voice_dpki.x509.keys import verify_signature
from voice_dpki.x509.public import read_public_pem, to_public_pem

OFFER_DOMAIN = b"voice-dpki/offer/v1\0"

TERMS_EXAMPLE = """\
chain_id = "voice-1"                       # the ledger's name, for ever
genesis_time = "2026-12-01T12:00:00Z"      # an hour near the first block, which comes later

[parameters]                               # all optional; they never change
delay_s = 86400                            # how long before a voted change of members takes effect
"""

_Address = Annotated[str, msgspec.Meta(pattern=r"(?a)^[^\s,@]{1,253}:[0-9]{1,5}\Z")]


class Terms(Config, frozen=True, kw_only=True):
    """What the operators agree on before they make their offers: the ledger's name, time and parameters."""

    chain_id: Annotated[str, msgspec.Meta(pattern=rf"^[!-~]{{1,{MAX_CHAIN_ID_BYTES}}}\Z")]
    genesis_time: str
    parameters: dict[str, int] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for a time or parameters that no ledger can have."""
        try:
            _ = self.time_ns, self.ledger_parameters
        except MalformedError as error:
            raise ValueError(str(error)) from None

    @property
    def time_ns(self) -> int:
        """The genesis time since the Unix epoch."""
        return parse_time(self.genesis_time)

    @property
    def ledger_parameters(self) -> Parameters:
        """The parameters, with defaults for those that are left out."""
        return Parameters.of(self.parameters)

    def digest(self) -> bytes:
        """Return the SHA-256 of the terms' content, which does not depend on how the file is written."""
        return hashlib.sha256(
            cbor.encode([self.chain_id, self.time_ns, list(astuple(self.ledger_parameters))])
        ).digest()


@dataclass(frozen=True, slots=True)
class Node:
    """A node of an offer: its public key, and HOST:PORT where the others reach it."""

    public_key: bytes
    address: str

    @property
    def peer(self) -> str:
        """ID@HOST:PORT, as the peers' configurations have it."""
        return f"{node_id_of(self.public_key)}@{self.address}"


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer whose proofs were verified."""

    member: Member
    nodes: tuple[Node, ...]


class _KeyForm(Config, frozen=True, kw_only=True):
    public: Annotated[str, msgspec.Meta(max_length=1024)]
    proof: Annotated[str, msgspec.Meta(max_length=1024)]


class _NodeForm(_KeyForm, frozen=True, kw_only=True):
    address: _Address


_Keys = Annotated[tuple[_KeyForm, ...], msgspec.Meta(max_length=MAX_ENTRIES)]


class _OfferForm(WrittenMember, frozen=True, kw_only=True):
    terms: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    validators: _Keys = ()
    endorsing_keys: _Keys = ()
    nodes: Annotated[tuple[_NodeForm, ...], msgspec.Meta(max_length=MAX_ENTRIES)] = ()


def make_offer(terms: Terms, member: Member, nodes: Sequence[Node], keys: PrivateKeys) -> bytes:
    """Return an offer as a file; raises LocalError where a private key is missing."""
    signed = _signed(terms.digest(), member, nodes)

    def proven(public_key: bytes, what: str) -> dict[str, object]:
        private = keys.find(public_key, what)
        pem = to_public_pem(private.public_key).decode("ascii")
        return {"public": pem, "proof": b64encode(private.sign(signed)).decode("ascii")}

    return to_toml(
        {
            "organization": member.organization,
            "kind": str(member.kind),
            "domains": list(member.domains),
            "spcs": list(member.spcs),
            "terms": terms.digest().hex(),
            "ranges": [{"start": entry.start, "count": entry.count} for entry in member.ranges],
            "validators": [proven(key, "a validator") for key in member.validators],
            "endorsing_keys": [proven(key, "endorsing") for key in member.endorsing_keys],
            "nodes": [{"address": node.address, **proven(node.public_key, "a node")} for node in nodes],
        }
    ).encode("utf-8")


def read_offer(path: Path, terms: Terms) -> Offer:
    """Read an offer and verify its proofs; raises LocalError that names the file and says what is wrong."""
    form = load_config(path, _OfferForm)
    if form.terms != terms.digest().hex():
        raise LocalError(f"{path}: {form.organization} made this offer for other terms than these")
    try:
        member, nodes = _content(form)
        _check_proofs(form, member, nodes, _signed(terms.digest(), member, nodes))
    except (PeerError, InvalidSignature, ValueError) as error:
        raise LocalError(f"{path}: {str(error) or 'a proof of possession does not verify'}") from None
    return Offer(member, nodes)


def _content(form: _OfferForm) -> tuple[Member, tuple[Node, ...]]:
    validators = [_read(each) for each in form.validators]
    member = form.member_with(validators, [_read(each) for each in form.endorsing_keys])
    return member, tuple(Node(_read(each), each.address) for each in form.nodes)


def _read(form: _KeyForm) -> bytes:
    """Return a public key as the ledger has it: 32 bytes of Ed25519, or else DER."""
    return ledger_bytes(read_public_pem(form.public.encode("utf-8")))


def _check_proofs(form: _OfferForm, member: Member, nodes: Sequence[Node], signed: bytes) -> None:
    for key, each in zip(member.validators, form.validators, strict=True):
        _verify_ed25519(key, each.proof, signed)
    for key, each in zip(member.endorsing_keys, form.endorsing_keys, strict=True):
        verify_signature(key, "ES256", signed, b64decode(each.proof, validate=True))
    for node, each in zip(nodes, form.nodes, strict=True):
        _verify_ed25519(node.public_key, each.proof, signed)


def _verify_ed25519(key: bytes, proof: str, signed: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(key).verify(b64decode(proof, validate=True), signed)


def _signed(terms_digest: bytes, member: Member, nodes: Iterable[Node]) -> bytes:
    offered: list[Cbor] = [[node.public_key, node.address] for node in nodes]
    return OFFER_DOMAIN + cbor.encode([terms_digest, member.parts(), offered])
