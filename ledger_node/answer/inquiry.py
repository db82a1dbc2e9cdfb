"""Answering inquiries from the stored state, each answer with its proof (`voice_dpki.ledger.answer_forms`).

Answers are assembled from encoded parts: the part that all answers at one height share is encoded once, and so is
the part that all certificates of one member share. That leaves the proof as the largest cost.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from ledger_node.keep.chain import Chain
from ledger_node.keep.store import StoreView, parse_signed_header
from voice_dpki.clock_health import HEALTH
from voice_dpki.effects import Clock
from voice_dpki.errors import LocalError
from voice_dpki.ledger import tree
from voice_dpki.ledger.answer_forms import (
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


SLICE_S = 0.001
"""How long certificates are looked up without a pause. The event loop's timers have a resolution of 1 ms, so
no pause would follow a shorter slice."""


class NoBlockError(LocalError):
    """The node can prove nothing: it has no block yet, or its clock is behind its newest block."""


@dataclass(frozen=True, slots=True)
class InquiryAnswer:
    """An answer about one certificate, with the status and height for trace and metrics."""

    body: bytes
    status: CertStatus
    height: Height


@dataclass
class _Tip:
    """The parts that all answers share while one header proves the newest state."""

    signed_header: bytes
    height: Height
    tail: bytes
    members: dict[str, bytes] = field(default_factory=dict)
    """The answers' member `member`, in JSON, by organisation."""


class _Pauses:
    """Leaves half of the event loop's time to other tasks while an answer about many certificates is made.

    Yielding once after each slice is not enough: a task of many small steps, such as a round of consensus, would
    wait for a slice at each step.
    """

    def __init__(self) -> None:
        self._began_s = time.perf_counter()

    async def pause_if_due(self) -> None:
        """Pause for as long as the slice has taken, if it is over."""
        took_s = time.perf_counter() - self._began_s
        if took_s >= SLICE_S:
            await asyncio.sleep(took_s)
            self._began_s = time.perf_counter()


class Inquiry:
    """Answers from the newest proved state of a chain; methods raise NoBlockError while there is none."""

    def __init__(self, chain: Chain, clock: Clock) -> None:
        self._chain = chain
        self._clock = LedgerClock(clock, chain.genesis.time_ns / 1e9)
        HEALTH.watch(self._clock)
        self._tip = _Tip(b"", Height(0), b"")
        self._turn = asyncio.Lock()
        """Held while an answer about many certificates is made, one at a time: a caller that asks for many gets no
        more processor time than one that asks for one."""

    def status(self, digest: CertDigest, *, with_certificate: bool) -> InquiryAnswer:
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
            return InquiryAnswer(answer_bytes(digest, status, evidence, tip.tail), status, tip.height)

    async def batch(self, digests: Sequence[CertDigest]) -> bytes:
        """Answer about several certificates."""
        async with self._turn:
            with self._newest() as (view, tip):
                entries, organizations, pauses = [], set[str](), _Pauses()
                for digest in digests:
                    record = view.leaf(digest)
                    form = EntryForm(digest.hex(), _base64(record), _proof(view, digest).decode("ascii"))
                    entries.append(msgspec.json.encode(form))  # all together would take a slice of their own
                    organizations |= _organizations([record])
                    await pauses.pause_if_due()
                return _several({"entries": _joined(entries)}, view, tip, organizations)

    async def prefix(self, digits: str, charge: Callable[[int], None]) -> bytes:
        """Answer about all certificates whose H(CERT) begins with these hexadecimal digits.

        Calls `charge` with the number of certificates before most of the work; it may raise. Raises
        TooManyLeavesError.
        """
        async with self._turn:
            await asyncio.sleep(0)
            return await self._prefix(digits, charge)

    async def _prefix(self, digits: str, charge: Callable[[int], None]) -> bytes:
        with self._newest() as (view, tip):
            proof = tree.prove_prefix(view, bytes(int(digit, 16) for digit in digits), MAX_PREFIX_LEAVES)
            charge(len(proof.leaves))
            leaves, organizations, pauses = [], set[str](), _Pauses()
            for key, value_hash in proof.leaves:
                value = view.leaf(key)
                record = value if value and CertRecord.is_one(value) else None
                leaves.append(msgspec.json.encode(_leaf(key, value_hash, record)))
                organizations |= _organizations([record])
                await pauses.pause_if_due()
            path = base64.b64encode(Proof(proof.siblings, None).serialize()).decode("ascii")
            front = {"prefix": digits, "proof": path, "leaves": _joined(leaves)}
            return _several(front, view, tip, organizations)

    def leaves(self, keys: Sequence[bytes]) -> bytes:
        """Answer about leaves of the tree."""
        with self._newest() as (view, tip):
            leaves = [
                ProvedLeafForm(key.hex(), _base64(view.leaf(key)), _proof(view, key).decode("ascii"))
                for key in keys
            ]
            return msgspec.json.encode({"leaves": leaves})[:-1] + tip.tail

    def leaf(self, kind: str, argument: str, text: str, key: bytes) -> bytes:
        """Answer about one leaf of a kind, or its absence; `text` is what the question gave as `argument`."""
        with self._newest() as (view, tip):
            form = MemberForm(_base64(view.leaf(key)), _proof(view, key).decode("ascii"))
            return msgspec.json.encode({argument: text, kind: form})[:-1] + tip.tail

    def light_block(self, height: int) -> bytes | None:
        """Return the header at a height with its commit and its validators; None if the node lacks any of them."""
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
    """Return the member `member` of answers about an organisation's certificates, in JSON."""
    known = tip.members.get(organization)
    if known is None:
        key = member_key(organization)
        form = MemberForm(_base64(view.leaf(key)), _proof(view, key).decode("ascii"))
        known = msgspec.json.encode(form)
        if form.record is not None:
            tip.members[organization] = known
    return known


def _leaf(key: bytes, value_hash: bytes, record: bytes | None) -> LeafForm:
    """Describe a leaf: by its value if that is a certificate's record, else by the hash of its value."""
    return LeafForm(key.hex(), value=_base64(record)) if record else LeafForm(key.hex(), hash=_base64(value_hash))


def _joined(encoded: Iterable[bytes]) -> msgspec.Raw:
    """Make a JSON array of encoded elements."""
    return msgspec.Raw(b"[%s]" % b",".join(encoded))


def _organizations(records: Iterable[bytes | None]) -> set[str]:
    return {CertRecord.parse(record).organization for record in records if record is not None}


def _several(front: Mapping[str, object], view: StoreView, tip: _Tip, organizations: Iterable[str]) -> bytes:
    """Complete an answer about several certificates by adding the members that recorded them."""
    members = {name: msgspec.Raw(_member(view, tip, name)) for name in sorted(organizations)}
    return msgspec.json.encode({**front, "members": members})[:-1] + tip.tail


def _proof(view: StoreView, key: bytes) -> bytes:
    return base64.b64encode(tree.prove(view, key).serialize())


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
