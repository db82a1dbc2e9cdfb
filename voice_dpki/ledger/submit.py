"""Recording one certificate.

"submit"        "certificate": bytes

docs/spec/encodings.md#transactions specifies it.
"""

from dataclasses import dataclass

from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.kind import BY_MEMBER, Body, Kind, SignedBody, long_bytes
from voice_dpki.ledger.lifecycle import RECORD_LEAVES, record
from voice_dpki.ledger.members import Member


@dataclass(frozen=True, slots=True)
class Submit(Body):
    """Record `certificate` (DER), which the member `by` endorses."""

    certificate: bytes


def _execute(draft: Draft, block: Block, member: Member, signed: SignedBody[Submit]) -> None:
    record(draft, block, member, signed.body.certificate)


SUBMIT = Kind(
    name="submit",
    since=1,
    body=Submit,
    members={"certificate": long_bytes},
    sender=BY_MEMBER,
    execute=_execute,
    certificates=lambda body: (body.certificate,),
    leaves=RECORD_LEAVES,
)
