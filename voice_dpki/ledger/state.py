"""The ledger's state machine: a pure function of the state before a block, and the block.

Every node computes the same results and the same AppHash from the same blocks: nothing here depends on a clock
other than the block's time, on the order of a set, on a float or on a node's configuration. What a member may do is
decided from members, records and keys as they stand after the transactions before it in the same block.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

from voice_dpki.ledger import tree
from voice_dpki.ledger.admission import check_certificate
from voice_dpki.ledger.members import Member, member_key
from voice_dpki.ledger.records import REASONS, CertRecord, CertStatus
from voice_dpki.ledger.refusals import Refusal, Refused
from voice_dpki.ledger.transactions import ChangeStatus, Submit, Transaction, key_id_of, signed_bytes
from voice_dpki.names import CertDigest, Height
from voice_dpki.x509.keys import KeyKindError, SignatureError, verify_signature
from voice_dpki.x509.profile import digest_of

_CACHED_VERDICTS = 8192
"""Signatures whose verification is remembered between the check of a transaction and its block: a mempool's worth,
for with fewer, the first of those that wait are forgotten before their block comes, and all are verified twice."""


class StateView(tree.NodeReader, Protocol):
    """The state after some block: the tree's nodes and what stands behind its leaves."""

    @property
    def chain_id(self) -> str:
        """Name of the ledger, from its genesis."""
        ...

    def record(self, digest: CertDigest) -> CertRecord | None:
        """Return the record of a certificate."""
        ...

    def member(self, organization: str) -> Member | None:
        """Return a member."""
        ...

    def organization_of_key(self, key_id: bytes) -> str | None:
        """Tell whose a key is: the organisation of the certificates with it, or of the endorsing key that it is."""
        ...


@dataclass(frozen=True, slots=True)
class Block:
    """What a block brings to the state; `time_s` is the header's time in whole seconds."""

    height: Height
    time_s: int
    transactions: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TxResult:
    """What became of one transaction: code 0 if it took effect, else a refusal's code, name and sentence."""

    code: int
    name: str
    detail: str


OK = TxResult(0, "ok", "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a block does: a result for each transaction, what to store, and the root of the tree afterwards."""

    results: tuple[TxResult, ...]
    records: Mapping[CertDigest, CertRecord]
    certificates: Mapping[CertDigest, bytes]
    keys: Mapping[bytes, str]
    members: Mapping[str, Member]
    update: tree.TreeUpdate

    @property
    def app_hash(self) -> bytes:
        """Root of the tree after the block: the next header's app_hash."""
        return self.update.root


def apply(view: StateView, block: Block) -> Outcome:
    """Execute a block; pure. What a transaction is refused for is in its result, and it then changes nothing."""
    draft = _Draft(view)
    results = tuple(_result(draft, block, raw) for raw in block.transactions)
    return draft.outcome(results)


def check(view: StateView, height: Height, time_s: int, raw: bytes) -> TxResult:
    """Tell what would become of a transaction if it came first in the block at `height`; changes nothing."""
    return _result(_Draft(view), Block(height, time_s, ()), raw)


def found(members: Sequence[Member]) -> Outcome:
    """Compute the state that a genesis with these members begins with."""
    draft = _Draft(MemoryState(""))
    draft.members = {member.organization: member for member in members}
    draft.keys = {key_id: member.organization for member in members for key_id in sorted(member.key_ids)}
    return draft.outcome(())


def leaves_of(records: Mapping[CertDigest, CertRecord], members: Mapping[str, Member]) -> dict[bytes, bytes | None]:
    """Return the leaves of the tree, key to value hash, that stand for these records and members."""
    leaves: dict[bytes, bytes | None] = {bytes(digest): record.value_hash() for digest, record in records.items()}
    for organization, member in members.items():
        leaves[member_key(organization)] = hashlib.sha256(member.serialize()).digest()
    return leaves


@dataclass
class MemoryState:
    """A state held in memory: for replays, and as the start of every chain."""

    chain_id: str
    nodes: dict[bytes, bytes] = field(default_factory=dict)
    records: dict[CertDigest, CertRecord] = field(default_factory=dict)
    certificates: dict[CertDigest, bytes] = field(default_factory=dict)
    keys: dict[bytes, str] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)

    def node(self, path: bytes) -> bytes | None:
        """Return a stored node of the tree."""
        return self.nodes.get(path)

    def record(self, digest: CertDigest) -> CertRecord | None:
        """Return the record of a certificate."""
        return self.records.get(digest)

    def member(self, organization: str) -> Member | None:
        """Return a member."""
        return self.members.get(organization)

    def organization_of_key(self, key_id: bytes) -> str | None:
        """Tell whose a key is."""
        return self.keys.get(key_id)

    def commit(self, outcome: Outcome) -> None:
        """Take over what a block did."""
        for path, node in outcome.update.nodes.items():
            if node is None:
                self.nodes.pop(path, None)
            else:
                self.nodes[path] = node
        self.records.update(outcome.records)
        self.certificates.update(outcome.certificates)
        self.keys.update(outcome.keys)
        self.members.update(outcome.members)


class _Draft:
    """The state while a block is executed: what it changed, over the view from before."""

    def __init__(self, view: StateView) -> None:
        self.view = view
        self.records: dict[CertDigest, CertRecord] = {}
        self.certificates: dict[CertDigest, bytes] = {}
        self.keys: dict[bytes, str] = {}
        self.members: dict[str, Member] = {}

    def record(self, digest: CertDigest) -> CertRecord | None:
        return self.records.get(digest) or self.view.record(digest)

    def member(self, organization: str) -> Member | None:
        return self.members.get(organization) or self.view.member(organization)

    def organization_of_key(self, key_id: bytes) -> str | None:
        return self.keys.get(key_id) or self.view.organization_of_key(key_id)

    def outcome(self, results: tuple[TxResult, ...]) -> Outcome:
        changes = leaves_of(self.records, self.members)
        update = tree.update(self.view, changes) if changes else tree.TreeUpdate(tree.root(self.view), {})
        return Outcome(results, self.records, self.certificates, self.keys, self.members, update)


def _result(draft: _Draft, block: Block, raw: bytes) -> TxResult:
    try:
        transaction = Transaction.parse(raw)
        member = _endorser(draft, transaction)
        _HANDLERS[type(transaction.body)](draft, block, member, transaction.body)
    except Refused as refused:
        refusal = refused.refusal
        return TxResult(refusal.code, refusal.kebab, refusal.sentence)
    return OK


def _endorser(draft: _Draft, transaction: Transaction) -> Member:
    """Return the member in whose name the transaction is made, after checking all signatures to be its own."""
    if transaction.body.chain != draft.view.chain_id:
        raise Refused(Refusal.CHAIN)
    member = draft.member(transaction.body.by)
    if member is None:
        raise Refused(Refusal.MEMBER)
    for endorsement in transaction.endorsements:
        key = member.endorsing_key(endorsement.key_id)
        if key is None:
            raise Refused(Refusal.SIGNER)
        _verify(key, signed_bytes(transaction.body_bytes), endorsement.signature)
    return member


@lru_cache(_CACHED_VERDICTS)
def _verify(key: bytes, signed: bytes, signature: bytes) -> None:
    try:
        verify_signature(key, "ES256", signed, signature)
    except (SignatureError, KeyKindError):
        raise Refused(Refusal.SIGNATURE) from None


def _submit(draft: _Draft, block: Block, member: Member, body: Submit) -> None:
    digest = digest_of(body.certificate)
    if draft.record(digest) is not None:
        raise Refused(Refusal.RECORDED)
    profile = check_certificate(body.certificate, member, block.time_s)
    key_id = key_id_of(profile.public_key_der)
    if draft.organization_of_key(key_id) not in (None, member.organization):
        raise Refused(Refusal.KEY_IN_USE)
    draft.keys[key_id] = member.organization
    draft.certificates[digest] = body.certificate
    draft.records[digest] = CertRecord(
        status=CertStatus.VALID,
        organization=member.organization,
        not_before_s=profile.not_before_s,
        not_after_s=profile.not_after_s,
        recorded_height=block.height,
        changed_height=block.height,
        revision=0,
        reason=None,
        key_id=key_id,
    )


_TRANSITIONS = {
    CertStatus.VALID: frozenset({CertStatus.SUSPENDED, CertStatus.REVOKED}),
    CertStatus.SUSPENDED: frozenset({CertStatus.VALID, CertStatus.REVOKED}),
    CertStatus.REVOKED: frozenset[CertStatus](),
}
"""From each recorded status, where a change may lead: nothing leaves `revoked`."""


def _change_status(draft: _Draft, block: Block, member: Member, body: ChangeStatus) -> None:
    record = draft.record(body.digest)
    if record is None:
        raise Refused(Refusal.NOT_RECORDED)
    if record.organization != member.organization:
        raise Refused(Refusal.NOT_OWNER)
    if body.revision != record.revision:
        raise Refused(Refusal.REVISION)
    if body.status not in _TRANSITIONS[record.status]:
        raise Refused(Refusal.TRANSITION)
    if body.reason not in REASONS:
        raise Refused(Refusal.REASON)
    draft.records[body.digest] = replace(
        record,
        status=CertStatus(body.status),
        changed_height=block.height,
        revision=record.revision + 1,
        reason=body.reason,
    )


_HANDLERS: dict[type, Callable[..., None]] = {Submit: _submit, ChangeStatus: _change_status}
