"""The state during the execution of a block, and the block's changes so far."""

from collections.abc import Mapping
from dataclasses import dataclass

from voice_dpki.codec import cbor
from voice_dpki.codec.cbor import Cbor
from voice_dpki.ledger import tree
from voice_dpki.ledger.members import Member, member_key
from voice_dpki.ledger.records import CertRecord
from voice_dpki.ledger.rules import Rules
from voice_dpki.ledger.view import Layered, StateView, value_hashes
from voice_dpki.names import CertDigest, Height


@dataclass(frozen=True, slots=True)
class Block:
    """The input of a block to the state machine; `time_s` is the header's time in whole seconds."""

    height: Height
    time_s: int
    transactions: tuple[bytes, ...]
    misbehaving: tuple[bytes, ...] = ()
    """Addresses of validators whose double signing the block's evidence proves."""
    signers: tuple[bytes, ...] = ()
    """Addresses of the validators whose votes for the previous block this one holds; needed during probation."""


@dataclass(frozen=True, slots=True)
class TxResult:
    """The result of one transaction: code 0 if it took effect, else the refusal's code, name and sentence."""

    code: int
    name: str
    detail: str


OK = TxResult(0, "ok", "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The effects of a block: a result for each transaction, what to store, and the tree's update."""

    results: tuple[TxResult, ...]
    leaves: Mapping[bytes, bytes | None]
    certificates: Mapping[CertDigest, bytes | None]
    update: tree.TreeUpdate
    validator_updates: tuple[tuple[bytes, int], ...] = ()
    """Ed25519 keys whose voting power changes, sorted, with the new power: 0 for a removed validator."""
    members_changed: bool = False

    @property
    def app_hash(self) -> bytes:
        """Root of the tree after the block: the next header's app_hash."""
        return self.update.root


class Draft(Layered):
    """A state that can be changed.

    Each transaction runs on a draft of its own, on top of the block's. The block's draft takes it over only if the
    transaction succeeds.
    """

    members_changed = False

    def __init__(self, view: StateView, rules: Rules) -> None:
        super().__init__(view)
        self.rules = rules
        self.recorded: int = view.recorded if isinstance(view, Draft) else 0
        """Certificates that this block has recorded so far, or revoked along with others."""

    def nested(self) -> "Draft":
        """Return a draft on top of this one, which can be thrown away or taken over."""
        return Draft(self, self.rules)

    def put(self, key: bytes, value: Cbor) -> None:
        """Set a leaf to the encoding of `value`; None removes it."""
        self.leaves[key] = None if value is None else cbor.encode(value)

    def put_record(self, digest: CertDigest, record: CertRecord) -> None:
        """Set a certificate's record."""
        self.leaves[digest] = record.serialize()

    def put_member(self, member: Member) -> None:
        """Set a member."""
        self.leaves[member_key(member.organization)] = member.serialize()
        self.members_changed = True

    def take_over(self, later: "Draft") -> None:
        """Take over the changes of a draft that was made on top of this one."""
        self.leaves.update(later.leaves)
        self.certificates.update(later.certificates)
        self.members_changed |= later.members_changed
        self.recorded = later.recorded

    def outcome(
        self, results: tuple[TxResult, ...] = (), validator_updates: tuple[tuple[bytes, int], ...] = ()
    ) -> Outcome:
        """Return the outcome of all changes, with the updated tree."""
        changed = {key: value for key, value in self.leaves.items() if value != self.view.leaf(key)}
        hashes = value_hashes(changed)
        update = tree.update(self.view, hashes) if hashes else tree.TreeUpdate(tree.root(self.view), {})
        return Outcome(results, changed, self.certificates, update, validator_updates, self.members_changed)
