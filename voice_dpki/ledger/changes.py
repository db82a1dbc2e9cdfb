"""Answers about the ledger's changes, from which a node cannot withhold any, and a cache that they keep fresh.

An answer to `GET /ledger/v1/changes?root=..&height=..` leads from the AppHash that the subscriber knows to the one
in the newest header:

    {"steps": [{"changes": {key: base64 of the value hash | null (gone), ...}, "nodes": {path: base64, ...}}, ...],
     "height", "signed_header"}

Keys and paths are hexadecimal; a path has one digit for each nibble. The nodes of a step come from the tree before
that step and lie on the paths to the changed leaves. With them, the subscriber computes the root after the step
itself. If the last root is the header's AppHash, every leaf that no step names is unchanged (`tree.follow`).
`steps` is null if the node does not know the steps from the subscriber's AppHash; the subscriber can then rely on
nothing that it holds.

docs/spec/answers.md#changes specifies it.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec

from voice_dpki.codec import base64text
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.answers import Resolution
from voice_dpki.ledger.header import Header
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.proof import ProofError
from voice_dpki.ledger.standing import status_of
from voice_dpki.ledger.tree import Difference, follow
from voice_dpki.names import CertDigest, Height
from voice_dpki.x509.recorded import RecordedCertificate

MAX_CHANGES_BYTES = 16 * 1024 * 1024
MAX_STEPS = 1024

_Key = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
_Path = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{0,64}$")]


class StepForm(msgspec.Struct, frozen=True):
    """One step of the tree's change, made by one block or several."""

    changes: dict[_Key, str | None]
    nodes: dict[_Path, str]


class ChangesForm(msgspec.Struct, frozen=True):
    """An answer about changes."""

    steps: Annotated[tuple[StepForm, ...], msgspec.Meta(max_length=MAX_STEPS)] | None
    signed_header: msgspec.Raw


def encode_step(difference: Difference) -> bytes:
    """Encode a difference as a StepForm in JSON."""
    changes = {key.hex(): _text(value) for key, value in sorted(difference.changes.items())}
    nodes = {path.hex()[1::2]: _text(node) for path, node in sorted(difference.nodes.items())}
    return msgspec.json.encode({"changes": changes, "nodes": nodes})


def parse_changes(data: bytes) -> ChangesForm:
    """Parse an answer about changes without verifying it; raises MalformedError."""
    if len(data) > MAX_CHANGES_BYTES:
        raise MalformedError(f"changes: more than {MAX_CHANGES_BYTES} bytes")
    try:
        return msgspec.json.decode(data, type=ChangesForm)
    except (ValueError, RecursionError) as error:  # msgspec's errors, and bytes that are not UTF-8
        raise MalformedError(f"changes: {error}") from None


def changed_keys(before: bytes, steps: Sequence[StepForm], after: bytes) -> frozenset[bytes]:
    """Return all keys whose leaves may differ between the trees with the roots `before` and `after`.

    Raises ProofError unless the steps lead from `before` to `after`, and MalformedError.
    """
    changed: set[bytes] = set()
    for step in steps:
        difference = _difference(step)
        before = follow(before, difference)
        changed |= difference.changes.keys()
    if before != after:
        raise ProofError("the changes do not lead to the state that the header commits to")
    return frozenset(changed)


@dataclass(slots=True)
class _Held:
    resolution: Resolution
    member: bytes
    """Key of its organisation's leaf. The resolution depends on that leaf as well as on its own."""
    recorded: RecordedCertificate | None = None
    """The result of the last `Holdings.recorded`; None before the first one."""


class Holdings:
    """A cache of resolutions that are valid at the newest known header, because nothing they depend on has changed.

    When it is full, the least recently used resolution is dropped. The caller judges the header's age.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._held: dict[CertDigest, _Held] = {}
        self._of_member: dict[bytes, set[CertDigest]] = {}
        """Held certificates by the key of the organisation's leaf that they depend on."""
        self._ahead: set[CertDigest] = set()
        """Held certificates whose resolution was proved by a newer header than ours."""
        self.header: Header | None = None
        """The header at which the resolutions are valid; None before the first one."""

    def __len__(self) -> int:
        return len(self._held)

    def put(self, resolution: Resolution) -> None:
        """Hold a resolution, unless its header is older than ours or than that of the resolution already held.

        The changes since an older header are not known, and a resolution held may be ahead of our header.
        Proofs of absence are not held, so that requests for unknown certificates cannot displace known ones.
        """
        record = resolution.record
        if record is None or self.header is None or resolution.height < self.header.height:
            return
        before = self._held.get(resolution.digest)
        if before is not None and before.resolution.height > resolution.height:
            return
        self._drop(resolution.digest)
        held = self._held[resolution.digest] = _Held(resolution, member_key(record.organization))
        self._of_member.setdefault(held.member, set()).add(resolution.digest)
        if resolution.height > self.header.height:
            self._ahead.add(resolution.digest)
        if len(self._held) > self._max_entries:
            self._drop(next(iter(self._held)))

    def get(self, digest: CertDigest, now_s: float) -> Resolution | None:
        """Return the resolution held for a certificate, with its status and age at `now_s`."""
        held = self._used(digest)
        if held is None:
            return None
        found, (height, time_s) = held.resolution, self._proved_at(held.resolution)
        status = status_of(found.record, found.member, now_s)
        return replace(found, status=status, height=height, time_s=time_s, age_s=now_s - time_s)

    def recorded(self, digest: CertDigest, now_s: float, max_age_s: float) -> RecordedCertificate | None:
        """Return the result of `get` as `x509.recorded.judge` takes it; None also if it is older than `max_age_s`.

        It is the same object until status or height changes, so that a caller can keep its judgement of it.
        """
        held = self._used(digest)
        if held is None:
            return None
        found, (height, time_s) = held.resolution, self._proved_at(held.resolution)
        if now_s - time_s > max_age_s:
            return None
        status, known = status_of(found.record, found.member, now_s), held.recorded
        if known is None or known.status is not status or known.height != height:
            known = held.recorded = replace(found, status=status, height=height).recorded
        return known

    def _used(self, digest: CertDigest) -> _Held | None:
        """Return the entry of a certificate, after making it the most recently used one; None if there is none."""
        held = self._held.pop(digest, None)
        if held is None or self.header is None:
            return None
        self._held[digest] = held
        return held

    def _proved_at(self, found: Resolution) -> tuple[Height, float]:
        """Return height and time of the newest header that proves a resolution."""
        assert self.header is not None
        return max((found.height, found.time_s), (Height(self.header.height), self.header.time_ns / 1e9))

    def clear(self) -> None:
        """Forget all resolutions, and the header."""
        self._held.clear()
        self._of_member.clear()
        self._ahead.clear()
        self.header = None

    def advance(self, header: Header, changed: frozenset[bytes] | None) -> list[Resolution]:
        """Move to a newer header; return the resolutions that are dropped.

        `changed` are the verified keys of the leaves changed since the last header, None if they are not known. A
        resolution that a header between the two proved is dropped too, because `changed` does not say whether its
        leaves changed before or after that header.
        """
        self.header = header
        concerned = set(self._held) if changed is None else self._concerned(changed)
        found = [self._held[digest].resolution for digest in concerned]
        dropped = [resolution for resolution in found if resolution.height < header.height]
        for resolution in dropped:
            self._drop(resolution.digest)
        self._ahead = {digest for digest in self._ahead if self._held[digest].resolution.height > header.height}
        return dropped

    def _concerned(self, changed: frozenset[bytes]) -> set[CertDigest]:
        """Return the held certificates that a change may touch.

        Only these are visited: there may be a hundred thousand in all, and a header arrives every second.
        """
        certificates = {CertDigest(key) for key in changed if key in self._held}
        return certificates.union(self._ahead, *(self._of_member.get(key, ()) for key in changed))

    def _drop(self, digest: CertDigest) -> None:
        held = self._held.pop(digest, None)
        if held is None:
            return
        self._ahead.discard(digest)
        others = self._of_member[held.member]
        others.discard(digest)
        if not others:
            del self._of_member[held.member]


def _difference(form: StepForm) -> Difference:
    try:
        return Difference(
            {
                bytes.fromhex(key): None if value is None else base64text.decode(value)
                for key, value in form.changes.items()
            },
            {bytes(int(digit, 16) for digit in path): base64text.decode(node) for path, node in form.nodes.items()},
        )
    except ValueError as error:
        raise MalformedError(f"changes: {error}") from None


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
