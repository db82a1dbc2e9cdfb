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
    record = view.record(digest)
    certificate = view.certificate(digest) if record and with_certificate else None
    return AnswerForm(
        digest=digest.hex(),
        height=view.height,
        status=record.status_at(now_s) if record else CertStatus.UNKNOWN,
        record=_base64(record.serialize()) if record else None,
        certificate=_base64(certificate) if certificate else None,
        proof=_proof(view, digest),
        member=_member_of(view, record) if record else None,
        signed_header=header,
    )


def member_answer(view: StoreView, organization: str) -> dict[str, object]:
    """Answer about a member: its record, or proof that there is none; raises NoBlockError."""
    header = _tip(view)
    member = _member(view, organization)
    return {"organization": organization, "height": view.height, "member": member, "signed_header": header}


def encode(answer: AnswerForm | dict[str, object]) -> bytes:
    """Encode an answer as JSON."""
    return msgspec.json.encode(answer)


def _member_of(view: StoreView, record: CertRecord) -> MemberForm:
    return _member(view, record.organization)


def _member(view: StoreView, organization: str) -> MemberForm:
    member = view.member(organization)
    record = _base64(member.serialize()) if member else None
    return MemberForm(record=record, proof=_proof(view, member_key(organization)))


def _tip(view: StoreView) -> msgspec.Raw:
    header = view.tip_json
    if header is None:
        raise NoBlockError("this node has no block yet; ask again in a moment")
    return msgspec.Raw(header)


def _proof(view: StoreView, key: bytes) -> str:
    return _base64(tree.prove(view, key).serialize())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
