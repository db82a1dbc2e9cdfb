"""What changed on the ledger, told so that nothing can be kept back; and the resolutions that it keeps fresh.

An answer to `GET /ledger/v1/changes?root=..&height=..` leads from the AppHash that the subscriber knows to the one
in the newest header:

    {"steps": [{"changes": {key: base64 of the value hash | null (gone), ...}, "nodes": {path: base64, ...}}, ...],
     "height", "signed_header"}

Keys and paths are hexadecimal, a path has one digit for each nibble. The nodes of a step are those of the tree
before it on the way to what changed: with them, the subscriber computes the root after the step itself. If the last
root is the header's AppHash, every leaf that no step names is what it was (`tree.follow`). `steps` is null where
the node does not know the way from the subscriber's AppHash: then nothing that it holds can be relied on.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec

from voice_dpki.errors import MalformedError
from voice_dpki.ledger.answers import Resolution
from voice_dpki.ledger.header import Header
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.proof import ProofError
from voice_dpki.ledger.standing import status_of
from voice_dpki.ledger.tree import Difference, follow
from voice_dpki.names import CertDigest, Height

MAX_CHANGES_BYTES = 16 * 1024 * 1024
MAX_STEPS = 1024

_Key = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
_Path = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{0,64}$")]


class StepForm(msgspec.Struct, frozen=True):
    """How the tree changed at once, by one block or several."""

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
    """Parse an answer about changes; raises MalformedError. Nothing is verified."""
    if len(data) > MAX_CHANGES_BYTES:
        raise MalformedError(f"changes: more than {MAX_CHANGES_BYTES} bytes")
    try:
        return msgspec.json.decode(data, type=ChangesForm)
    except (ValueError, RecursionError) as error:  # msgspec's errors, and bytes that are not UTF-8
        raise MalformedError(f"changes: {error}") from None


def changed_keys(before: bytes, steps: Sequence[StepForm], after: bytes) -> frozenset[bytes]:
    """Return all keys whose leaves may differ between the trees with the roots `before` and `after`.

    Raises ProofError unless the steps lead from the one to the other, and MalformedError.
    """
    changed: set[bytes] = set()
    for step in steps:
        difference = _difference(step)
        before = follow(before, difference)
        changed |= difference.changes.keys()
    if before != after:
        raise ProofError("the changes do not lead to the state that the header commits to")
    return frozenset(changed)


@dataclass(frozen=True, slots=True)
class _Held:
    resolution: Resolution
    member: bytes
    """Key of its organisation's leaf, which it depends on as on its own."""


class Holdings:
    """Resolutions that hold at a header, the newest one known, because nothing that they depend on has changed.

    Those used least recently give way. How old the header is, is for the caller to judge.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._held: dict[CertDigest, _Held] = {}
        self._of_member: dict[bytes, set[CertDigest]] = {}
        """By the key of the organisation: those that change with it."""
        self._ahead: set[CertDigest] = set()
        """Those that a newer header than ours has proved."""
        self.header: Header | None = None
        """What they hold at; None before the first."""

    def __len__(self) -> int:
        return len(self._held)

    def put(self, resolution: Resolution) -> None:
        """Hold what was proved, unless by an older header: what changed since is then not known any more.

        What is proved to be absent is not held: who asks for things that are not there must not displace others.
        """
        record = resolution.record
        if record is None or self.header is None or resolution.height < self.header.height:
            return
        self._drop(resolution.digest)
        held = self._held[resolution.digest] = _Held(resolution, member_key(record.organization))
        self._of_member.setdefault(held.member, set()).add(resolution.digest)
        if resolution.height > self.header.height:
            self._ahead.add(resolution.digest)
        if len(self._held) > self._max_entries:
            self._drop(next(iter(self._held)))

    def get(self, digest: CertDigest, now_s: float) -> Resolution | None:
        """Return what is held about a certificate, with the status and age of now."""
        held = self._held.pop(digest, None)
        if held is None or self.header is None:
            return None
        self._held[digest] = held
        found = held.resolution
        height, time_s = max((found.height, found.time_s), (Height(self.header.height), self.header.time_ns / 1e9))
        status = status_of(found.record, found.member, now_s)
        return replace(found, status=status, height=height, time_s=time_s, age_s=now_s - time_s)

    def advance(self, header: Header, changed: frozenset[bytes] | None) -> list[Resolution]:
        """Go on to a newer header, having verified what `changed` since the last one (None: that is not known).

        Returns what had to be dropped. What was proved by a header between the two is dropped too: whether
        something that it depends on changed before that header or after it, is not told.
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
        """Not all that is held is looked at: that may be a hundred thousand, and there is a header every second."""
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
            {bytes.fromhex(key): None if value is None else _bytes(value) for key, value in form.changes.items()},
            {bytes(int(digit, 16) for digit in path): _bytes(node) for path, node in form.nodes.items()},
        )
    except ValueError as error:
        raise MalformedError(f"changes: {error}") from None


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
