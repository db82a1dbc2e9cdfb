"""Answers that prove themselves: what an inquiry node says about a certificate, and its verification.

    {"digest": hex, "height", "status", "record": base64 | null, "certificate": base64 (if asked for and recorded),
     "proof": base64, "member": {"record": base64 | null, "proof": base64} | null,
     "signed_header": {"header", "commit"}}

`record` is the certificate's leaf, or null with a proof of absence; `member` is the organisation that it is
recorded under. Both proofs lead to the header's AppHash. `height` and `status` are for people: a verifier works
them out.
"""

import base64
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated

import msgspec

from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.ledger.header import Header, SignedHeader
from voice_dpki.ledger.light import LightClient, LightError
from voice_dpki.ledger.members import Member, member_key
from voice_dpki.ledger.proof import MAX_PROOF_BYTES, Proof, ProofError, verify_absence, verify_inclusion
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.names import CertDigest, Height
from voice_dpki.x509.profile import MAX_CERTIFICATE_BYTES, digest_of

MAX_ANSWER_BYTES = 256 * 1024
"""Largest answer: the largest certificate, member and proofs, and a header signed by 1000 validators."""


class InquiryCode(StrEnum):
    """Why an inquiry gave nothing that can be relied on."""

    UNREACHABLE = "unreachable"
    MALFORMED = "malformed"
    UNPROVEN = "unproven"
    STALE = "stale"


class InquiryError(PeerError):
    """No answer that can be relied on; who asked must refuse what the answer was needed for."""

    def __init__(self, code: InquiryCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the ledger proves about a certificate, at the time of the question."""

    digest: CertDigest
    status: CertStatus
    certificate: bytes | None
    """DER, if it was asked for and is recorded."""
    record: CertRecord | None
    member: Member | None
    """The organisation that the certificate is recorded under; None also if it is no member any more."""
    height: Height
    """Height of the header that the answer is proved by."""
    time_s: float
    age_s: float


class MemberForm(msgspec.Struct, frozen=True):
    """The `member` of an answer."""

    record: Annotated[str, msgspec.Meta(max_length=MAX_ANSWER_BYTES)] | None
    proof: Annotated[str, msgspec.Meta(max_length=2 * MAX_PROOF_BYTES)]


class AnswerForm(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An answer's JSON. Unknown members are let be, so that nodes can say more in time."""

    digest: str
    height: int
    status: str
    record: Annotated[str, msgspec.Meta(max_length=4096)] | None
    certificate: Annotated[str, msgspec.Meta(max_length=2 * MAX_CERTIFICATE_BYTES)] | None = None
    proof: Annotated[str, msgspec.Meta(max_length=2 * MAX_PROOF_BYTES)]
    member: MemberForm | None
    signed_header: msgspec.Raw


class AnswerVerifier:
    """Verifies answers against a light client; remembers the last header as text, to parse each one once."""

    def __init__(self, light: LightClient, *, max_age_s: float) -> None:
        """Answers whose header is older than `max_age_s` are stale."""
        self._light = light
        self._max_age_s = max_age_s
        self._last: tuple[bytes, Header] | None = None

    @property
    def latest_height(self) -> int:
        """Highest height seen so far; a question sent now must not be answered from an older one."""
        return self._light.latest.height

    def verify(
        self, data: bytes, digest: CertDigest, now_s: float, *, min_height: int, with_certificate: bool
    ) -> Resolution:
        """Verify an answer to a question about `digest`; raises InquiryError."""
        if len(data) > MAX_ANSWER_BYTES:
            raise InquiryError(InquiryCode.MALFORMED, f"an answer has more than {MAX_ANSWER_BYTES} bytes")
        try:
            form = _decoder.decode(data)
            header = self._header(bytes(form.signed_header), now_s, min_height)
            record = _record(form, digest, header)
            member = _member(form, record, header)
            certificate = _certificate(form, digest) if record and with_certificate else None
        except (MalformedError, RecursionError, ValueError) as error:  # msgspec, base64 and UTF-8 raise ValueErrors
            raise InquiryError(InquiryCode.MALFORMED, f"the answer is malformed: {error}") from None
        except ProofError as error:
            raise InquiryError(InquiryCode.UNPROVEN, f"the answer is not proved: {error}") from None
        return Resolution(
            digest=digest,
            status=record.status_at(now_s) if record else CertStatus.UNKNOWN,
            certificate=certificate,
            record=record,
            member=member,
            height=Height(header.height),
            time_s=header.time_ns / 1e9,
            age_s=header.age_s(now_s),
        )

    def _header(self, raw: bytes, now_s: float, min_height: int) -> Header:
        if self._last is not None and self._last[0] == raw and self._last[1].height >= min_height:
            header = self._last[1]
        else:
            header = self._verified(SignedHeader.from_json(msgspec.json.decode(raw)), now_s, min_height)
            self._last = raw, header
        age_s = header.age_s(now_s)
        if age_s > self._max_age_s:
            raise InquiryError(
                InquiryCode.STALE,
                f"the newest block is {age_s:.0f} s old, and at most {self._max_age_s:g} s are allowed",
            )
        return header

    def _verified(self, signed: SignedHeader, now_s: float, min_height: int) -> Header:
        try:
            return self._light.verify(signed, None, now_s, min_height=min_height)
        except LightError as error:
            raise InquiryError(InquiryCode.UNPROVEN, f"the answer's header is not trusted: {error}") from None


_decoder = msgspec.json.Decoder(AnswerForm)


def _record(form: AnswerForm, digest: CertDigest, header: Header) -> CertRecord | None:
    proof = Proof.parse(_base64(form.proof))
    if form.record is None:
        verify_absence(header.app_hash, digest, proof)
        return None
    record = _base64(form.record)
    verify_inclusion(header.app_hash, digest, hashlib.sha256(record).digest(), proof)
    return CertRecord.parse(record)


def _member(form: AnswerForm, record: CertRecord | None, header: Header) -> Member | None:
    """Return the member that the certificate is recorded under, having checked that it is one or is none."""
    if record is None:
        return None
    if form.member is None:
        raise MalformedError("the answer does not say whether the certificate's organisation is a member")
    key, proof = member_key(record.organization), Proof.parse(_base64(form.member.proof))
    if form.member.record is None:
        verify_absence(header.app_hash, key, proof)
        return None
    data = _base64(form.member.record)
    verify_inclusion(header.app_hash, key, hashlib.sha256(data).digest(), proof)
    return _parse_member(data)


@lru_cache(256)
def _parse_member(data: bytes) -> Member:
    return Member.parse(data)


def _certificate(form: AnswerForm, digest: CertDigest) -> bytes:
    if form.certificate is None:
        raise MalformedError("the answer lacks the certificate")
    der = _base64(form.certificate)
    if digest_of(der) != digest:
        raise ProofError("the certificate in the answer is another one")
    return der


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
