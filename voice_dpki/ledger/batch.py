"""Recording several certificates at once, all or none.

"batch"         "certificates": [+ bytes]

docs/spec/encodings.md#transactions specifies it.
"""

from dataclasses import dataclass

from voice_dpki.codec.cbor import Cbor
from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.kind import BY_MEMBER, Body, Kind, SignedBody, list_of, long_bytes
from voice_dpki.ledger.lifecycle import RECORD_LEAVES, record
from voice_dpki.ledger.members import Member

MAX_BATCH = 256
"""Most certificates in a batch."""


@dataclass(frozen=True, slots=True)
class Batch(Body):
    """Record all of `certificates` (DER), or none: one endorsement for many."""

    certificates: tuple[bytes, ...]


def _certificates(value: Cbor) -> tuple[bytes, ...]:
    return tuple(map(long_bytes, list_of(value, 1, MAX_BATCH)))


def _execute(draft: Draft, block: Block, member: Member, signed: SignedBody[Batch]) -> None:
    """Record the certificates; raises Refused for the first that cannot be recorded."""
    record(draft, block, member, *signed.body.certificates)


BATCH = Kind(
    name="batch",
    since=1,
    body=Batch,
    members={"certificates": _certificates},
    sender=BY_MEMBER,
    execute=_execute,
    certificates=lambda body: body.certificates,
    leaves=RECORD_LEAVES,
)
