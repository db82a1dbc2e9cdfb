"""Answering inquiries from the stored state, each answer with what proves it (`voice_dpki.ledger.answers`)."""

import base64

import msgspec

from ledger_node.store import StoreView
from voice_dpki.errors import LocalError
from voice_dpki.ledger import tree
from voice_dpki.ledger.answers import AnswerForm, MemberForm
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.names import CertDigest


class NoBlockError(LocalError):
    """The node has no block yet, so that it could prove nothing."""


def status_answer(view: StoreView, digest: CertDigest, now_s: float, *, with_certificate: bool) -> AnswerForm:
    """Answer about one certificate; raises NoBlockError."""
    header = _tip(view)
    data = view.leaf(digest)
    record = None if data is None else CertRecord.parse(data)
    certificate = view.certificate(digest) if record and with_certificate else None
    return AnswerForm(
        digest=digest.hex(),
        height=view.height,
        status=record.status_at(now_s) if record else CertStatus.UNKNOWN,
        record=_base64(data),
        certificate=_base64(certificate),
        proof=_proof(view, digest),
        member=_member(view, record.organization) if record else None,
        signed_header=header,
    )


def member_answer(view: StoreView, organization: str) -> dict[str, object]:
    """Answer about a member: its record, or proof that there is none; raises NoBlockError."""
    header = _tip(view)
    member = _member(view, organization)
    return {"organization": organization, "height": view.height, "member": member, "signed_header": header}


def _member(view: StoreView, organization: str) -> MemberForm:
    key = member_key(organization)
    return MemberForm(record=_base64(view.leaf(key)), proof=_proof(view, key))


def _tip(view: StoreView) -> msgspec.Raw:
    header = view.tip_json
    if header is None:
        raise NoBlockError("this node has no block yet; ask again in a moment")
    return msgspec.Raw(header)


def _proof(view: StoreView, key: bytes) -> str:
    return base64.b64encode(tree.prove(view, key).serialize()).decode("ascii")


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
