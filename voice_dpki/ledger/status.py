"""Suspending, resuming and revoking a certificate on behalf of the member that endorsed it.

"status"        "digest": H(CERT), "revision": uint, "status": text, "reason": text

docs/spec/encodings.md#transactions specifies it.
"""

from dataclasses import dataclass

from voice_dpki.ledger.draft import Block, Draft
from voice_dpki.ledger.kind import BY_MEMBER, Kind, SignedBody
from voice_dpki.ledger.lifecycle import CHANGE_MEMBERS, StatusChange, move
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.records import CERTIFICATE_LEAF, Authority
from voice_dpki.ledger.refusals import Refusal, Refused


@dataclass(frozen=True, slots=True)
class ChangeStatus(StatusChange):
    """Change the status of the certificate `digest`, at `revision`, to `status`, in the name of the member `by`."""


def _execute(draft: Draft, block: Block, member: Member, signed: SignedBody[ChangeStatus]) -> None:
    body = signed.body
    record = draft.record(body.digest)
    if record is None:
        raise Refused(Refusal.NOT_RECORDED)
    if record.organization != member.organization:
        raise Refused(Refusal.NOT_OWNER)
    move(draft, block, record, body, Authority.ENDORSER)


STATUS = Kind(
    name="status",
    since=1,
    body=ChangeStatus,
    members=CHANGE_MEMBERS,
    sender=BY_MEMBER,
    execute=_execute,
    leaves=(CERTIFICATE_LEAF,),
)
