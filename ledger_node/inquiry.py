"""Answering inquiries from the stored state, each answer with what proves it (`voice_dpki.ledger.answers`).

Answers are put together from bytes: what all of them share at a height, and what all certificates of one member
share, is encoded once. So a proof costs more than all the rest.
"""

import base64
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from ledger_node.chain import Chain
from ledger_node.store import StoreView, parse_signed_header
from voice_dpki.clock_health import HEALTH
from voice_dpki.effects import Clock
from voice_dpki.errors import LocalError
from voice_dpki.ledger import tree
from voice_dpki.ledger.answers import (
    MAX_PREFIX_LEAVES,
    EntryForm,
    LeafForm,
    MemberForm,
    ProvedLeafForm,
    answer_bytes,
    tail_bytes,
)
from voice_dpki.ledger.clock import ClockError, LedgerClock
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.proof import Proof
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.ledger.standing import status_of
from voice_dpki.names import CertDigest, Height

_ABSENT = b'{"record":null,"proof":"%s","member":null}'
_PRESENT = b'{"record":"%s","proof":"%s","member":%s}'
_PRESENT_WITH_CERTIFICATE = b'{"record":"%s","proof":"%s","member":%s,"certificate":"%s"}'


class NoBlockError(LocalError):
    """The node has no block yet, so that it could prove nothing; or its clock is behind the one that it has."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer about one certificate, and what to note of it."""

    body: bytes
    status: CertStatus
    height: Height


@dataclass
class _Tip:
    """What answers share while one header proves the newest state."""

    signed_header: bytes
    height: Height
    tail: bytes
    members: dict[str, bytes] = field(default_factory=dict)
    """`member` of answers, in JSON, by organisation."""


class Inquiry:
    """Answers from the newest state of a chain that is proved; raises NoBlockError while there is none."""

    def __init__(self, chain: Chain, clock: Clock) -> None:
        self._chain = chain
        self._clock = LedgerClock(clock, chain.genesis.time_ns / 1e9)
        HEALTH.watch(self._clock)
        self._tip = _Tip(b"", Height(0), b"")

    def status(self, digest: CertDigest, *, with_certificate: bool) -> Answer:
        """Answer about one certificate."""
        with self._newest() as (view, tip):
            data = view.leaf(digest)
            proof = _proof(view, digest)
            if data is None:
                status, evidence = CertStatus.UNKNOWN, _ABSENT % proof
            else:
                record = CertRecord.parse(data)
                status = status_of(record, view.member(record.organization), self._now_s())
                member = _member(view, tip, record.organization)
                der = view.certificate(digest) if with_certificate else None
                if der is None:
                    evidence = _PRESENT % (base64.b64encode(data), proof, member)
                else:
                    evidence = _PRESENT_WITH_CERTIFICATE % (
                        base64.b64encode(data),
                        proof,
                        member,
                        base64.b64encode(der),
                    )
            return Answer(answer_bytes(digest, status, evidence, tip.tail), status, tip.height)

    def batch(self, digests: Sequence[CertDigest]) -> bytes:
        """Answer about several certificates."""
        with self._newest() as (view, tip):
            records = [view.leaf(digest) for digest in digests]
            entries = [
                EntryForm(digest.hex(), _base64(record), _proof(view, digest).decode("ascii"))
                for digest, record in zip(digests, records, strict=True)
            ]
            return _several({"entries": entries}, view, tip, records)

    def prefix(self, digits: str) -> bytes:
        """Answer about all certificates whose H(CERT) begins with hexadecimal digits; raises TooManyLeavesError."""
        with self._newest() as (view, tip):
            proof = tree.prove_prefix(view, bytes(int(digit, 16) for digit in digits), MAX_PREFIX_LEAVES)
            values = [view.leaf(key) for key, _ in proof.leaves]
            records = [value if value and CertRecord.is_one(value) else None for value in values]
            leaves = [
                LeafForm(key.hex(), value=_base64(record))
                if record
                else LeafForm(key.hex(), hash=_base64(value_hash))
                for (key, value_hash), record in zip(proof.leaves, records, strict=True)
            ]
            path = base64.b64encode(Proof(proof.siblings, None).serialize()).decode("ascii")
            return _several({"prefix": digits, "proof": path, "leaves": leaves}, view, tip, records)

    def leaves(self, keys: Sequence[bytes]) -> bytes:
        """Answer about leaves of the tree."""
        with self._newest() as (view, tip):
            leaves = [
                ProvedLeafForm(key.hex(), _base64(view.leaf(key)), _proof(view, key).decode("ascii"))
                for key in keys
            ]
            return msgspec.json.encode({"leaves": leaves})[:-1] + tip.tail

    def member(self, organization: str) -> bytes:
        """Answer about a member: its record, or proof that there is none."""
        with self._newest() as (view, tip):
            name = msgspec.json.encode(organization)
            return b'{"organization":%s,"member":%s%s' % (name, _member(view, tip, organization), tip.tail)

    def light_block(self, height: int) -> bytes | None:
        """Give the header at a height with its commit and its validators; None if the node has not all of them."""
        with self._newest() as (view, tip):
            block = view.block(height)
            data = tip.signed_header if height == tip.height else block.signed_header_json if block else None
            if data is None:
                return None
            name = parse_signed_header(data).header.validators_hash
            genesis = self._chain.genesis.validators
            validators = msgspec.json.encode(genesis.to_json()) if name == genesis.hash() else view.validators(name)
            return validators and b'{"signed_header":%s,%s' % (data, validators[1:])

    @contextmanager
    def _newest(self) -> Iterator[tuple[StoreView, _Tip]]:
        with self._chain.snapshot() as view:
            signed_header = view.tip_json
            if signed_header is None:
                raise NoBlockError("this node has no block yet; ask again in a moment")
            if self._tip.signed_header != signed_header:
                header = parse_signed_header(signed_header).header
                self._clock.heard(header.time_ns / 1e9)
                height = Height(header.height)
                self._tip = _Tip(signed_header, height, tail_bytes(height, signed_header))
            yield view, self._tip

    def _now_s(self) -> float:
        try:
            return self._clock.checked_s()
        except ClockError as error:
            raise NoBlockError(str(error)) from None


def _member(view: StoreView, tip: _Tip, organization: str) -> bytes:
    """Give the `member` of answers about certificates of an organisation."""
    known = tip.members.get(organization)
    if known is None:
        key = member_key(organization)
        form = MemberForm(_base64(view.leaf(key)), _proof(view, key).decode("ascii"))
        known = msgspec.json.encode(form)
        if form.record is not None:
            tip.members[organization] = known
    return known


def _several(front: dict[str, object], view: StoreView, tip: _Tip, records: Iterable[bytes | None]) -> bytes:
    """Complete an answer about several certificates with the members that they are recorded under."""
    organizations = {CertRecord.parse(record).organization for record in records if record is not None}
    members = {name: msgspec.Raw(_member(view, tip, name)) for name in sorted(organizations)}
    return msgspec.json.encode({**front, "members": members})[:-1] + tip.tail


def _proof(view: StoreView, key: bytes) -> bytes:
    return base64.b64encode(tree.prove(view, key).serialize())


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
