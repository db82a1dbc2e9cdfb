"""Verification of the self-proving answers of inquiry nodes (`voice_dpki.ledger.answer_forms`).

docs/spec/answers.md specifies the steps, and what they do not rely on.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

import msgspec

from voice_dpki.codec import base64text
from voice_dpki.errors import MalformedError, PeerError
from voice_dpki.ledger.answer_forms import (
    MAX_ANSWER_BYTES,
    MAX_BATCH_BYTES,
    AnswerForm,
    BatchForm,
    LeavesForm,
    MemberForm,
    PrefixForm,
)
from voice_dpki.ledger.further import NeedsNewerError
from voice_dpki.ledger.header import Header, SignedHeader
from voice_dpki.ledger.light import MAX_CLOCK_DRIFT_S, LightClient, LightCode, LightError
from voice_dpki.ledger.members import Member, member_key
from voice_dpki.ledger.proof import (
    PrefixProof,
    Proof,
    ProofError,
    verify_absence,
    verify_inclusion,
    verify_prefix,
)
from voice_dpki.ledger.records import CertRecord, CertStatus
from voice_dpki.ledger.rules import VERSIONS, needs
from voice_dpki.ledger.standing import recorded_as, status_of
from voice_dpki.names import CertDigest, Height
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.recorded import RecordedCertificate


class InquiryCode(StrEnum):
    """Why an inquiry gave no reliable answer."""

    UNREACHABLE = "unreachable"
    MALFORMED = "malformed"
    UNPROVEN = "unproven"
    STALE = "stale"
    FORK = "fork"
    CLOCK = "clock"
    """Our clock contradicts the ledger's, so the age of an answer is unknown."""
    NEWER_RULES = "newer-rules"
    """The ledger follows rules that this release cannot read."""


class InquiryError(PeerError):
    """There is no reliable answer; the caller must refuse whatever it needed the answer for."""

    retry_after: str | None = None
    """Retry-After of a busy node (429, 503), empty if it sent none; None if the node is not busy."""

    def __init__(self, code: InquiryCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class TrustExpiredError(InquiryError):
    """The newest trusted header is too old to verify others from it: a newer one must come from a trusted place."""

    def __init__(self, message: str) -> None:
        super().__init__(InquiryCode.UNPROVEN, message)


class HeaderUnknownError(InquiryError):
    """An answer's header is not trusted yet, but may become so through other headers (`LightClient.approach`)."""

    def __init__(self, signed_header: SignedHeader, error: LightError) -> None:
        super().__init__(InquiryCode.UNPROVEN, f"the answer's header is not trusted: {error}")
        self.signed_header = signed_header


@dataclass(frozen=True, slots=True)
class Resolution:
    """A certificate's status as the ledger proves it at the time of the question, with the records behind it."""

    digest: CertDigest
    status: CertStatus
    certificate: bytes | None
    """DER, if it was asked for and is recorded."""
    record: CertRecord | None
    member: Member | None
    """The organisation that the certificate is recorded under; None also if it is no longer a member."""
    height: Height
    """Height of the header that proves the answer."""
    time_s: float
    """Time of that header, in Unix seconds."""
    age_s: float

    @property
    def recorded(self) -> RecordedCertificate:
        """The same in the form that `x509.recorded.judge` takes."""
        return recorded_as(self.digest, self.status, self.record, self.member, self.height, self.certificate)


class AnswerVerifier:
    """Verifier of answers by a light client. It keeps the last header's JSON so as to parse each header once."""

    def __init__(self, light: LightClient, *, max_age_s: float) -> None:
        """Answers whose header is older than `max_age_s` are stale."""
        self._light = light
        self._max_age_s = max_age_s
        self._last: tuple[bytes, Header] | None = None

    @property
    def latest_height(self) -> int:
        """Highest height seen so far; a question sent now must not be answered from a lower one."""
        return self._light.latest.height

    def verify(
        self, data: bytes, digest: CertDigest, now_s: float, *, min_height: int, with_certificate: bool
    ) -> Resolution:
        """Verify an answer to a question about `digest`; raises InquiryError."""

        def judge() -> Resolution:
            form = _read(_ANSWER, data, MAX_ANSWER_BYTES)
            header = self._header(bytes(form.signed_header), now_s, min_height)
            record = _record(form.record, form.proof, digest, header)
            member = _member(form.member, record, header)
            certificate = _certificate(form, digest) if record and with_certificate else None
            return _resolution(digest, record, member, certificate, header, now_s)

        return _judged(judge)

    def verify_batch(
        self, data: bytes, digests: Sequence[CertDigest], now_s: float, *, min_height: int
    ) -> tuple[Resolution, ...]:
        """Verify an answer about several certificates, which does not carry the certificates themselves.

        Raises InquiryError.
        """

        def judge() -> tuple[Resolution, ...]:
            form = _read(_BATCH, data, MAX_BATCH_BYTES)
            header = self._header(bytes(form.signed_header), now_s, min_height)
            if [entry.digest for entry in form.entries] != [digest.hex() for digest in digests]:
                raise MalformedError("the answer is about other certificates")
            members = _Members(form.members, header)
            found = []
            for digest, entry in zip(digests, form.entries, strict=True):
                record = _record(entry.record, entry.proof, digest, header)
                found.append(_resolution(digest, record, members.of(record), None, header, now_s))
            return tuple(found)

        return _judged(judge)

    def verify_prefix(self, data: bytes, prefix: str, now_s: float, *, min_height: int) -> "PrefixResolution":
        """Verify an answer about all certificates whose H(CERT) begins with the hexadecimal digits `prefix`.

        Raises InquiryError.
        """

        def judge() -> PrefixResolution:
            form = _read(_PREFIX, data, MAX_BATCH_BYTES)
            header = self._header(bytes(form.signed_header), now_s, min_height)
            below, records = _below(form, bytes(int(digit, 16) for digit in prefix), header)
            members = _Members(form.members, header)
            found = {
                digest: _resolution(digest, record, members.of(record), None, header, now_s)
                for digest, record in records.items()
            }
            return PrefixResolution(prefix, found, below - found.keys(), header, now_s)

        return _judged(judge)

    def verify_leaves(
        self, data: bytes, keys: Sequence[bytes], now_s: float, *, min_height: int
    ) -> tuple[bytes | None, ...]:
        """Verify an answer about leaves of the tree; return their values, None for each absent leaf.

        Raises InquiryError.
        """
        return self.prove_leaves(data, keys, now_s, min_height=min_height)[0]

    def prove_leaves(
        self, data: bytes, keys: Sequence[bytes], now_s: float, *, min_height: int
    ) -> tuple[tuple[bytes | None, ...], Height]:
        """Do what `verify_leaves` does; also return the height of the header that proves the leaves."""

        def judge() -> tuple[tuple[bytes | None, ...], Height]:
            form = _read(_LEAVES, data, MAX_BATCH_BYTES)
            header = self._header(bytes(form.signed_header), now_s, min_height)
            if [leaf.key for leaf in form.leaves] != [key.hex() for key in keys]:
                raise MalformedError("the answer is about other leaves")
            proved = zip(keys, form.leaves, strict=True)
            values = tuple(_value(leaf.value, leaf.proof, key, header) for key, leaf in proved)
            return values, Height(header.height)

        return _judged(judge)

    def trust(self, raw: bytes, now_s: float, *, min_height: int) -> Header:
        """Verify a signed header in JSON, including its age; raises InquiryError."""
        return _judged(lambda: self._header(raw, now_s, min_height))

    def _header(self, raw: bytes, now_s: float, min_height: int) -> Header:
        last = self._last if self._light.fork is None else None
        if last is not None and last[0] == raw and last[1].height >= min_height:
            header = last[1]
        else:
            header = self._verified(SignedHeader.from_json(msgspec.json.decode(raw)), now_s, min_height)
            self._last = raw, header
        age_s = header.age_s(now_s)
        if age_s < -MAX_CLOCK_DRIFT_S:
            raise InquiryError(
                InquiryCode.CLOCK, f"the newest block is {-age_s:.0f} s ahead of our clock: set the clock right"
            )
        if age_s > self._max_age_s:
            raise InquiryError(
                InquiryCode.STALE,
                f"the newest block is {age_s:.0f} s old by our clock, and {self._max_age_s:g} s are allowed",
            )
        return header

    def _verified(self, signed: SignedHeader, now_s: float, min_height: int) -> Header:
        try:
            return self._light.verify(signed, None, now_s, min_height=min_height)
        except LightError as error:
            if error.code in (LightCode.VALIDATORS_NEEDED, LightCode.TOO_LITTLE_TRUST):
                raise HeaderUnknownError(signed, error) from None
            raise inquiry_error(error) from None


def inquiry_error(error: LightError) -> InquiryError:
    """Return the inquiry's error for a header that cannot be trusted."""
    codes = {
        LightCode.FORK: InquiryCode.FORK,
        LightCode.FUTURE: InquiryCode.CLOCK,
        LightCode.NEWER_RULES: InquiryCode.NEWER_RULES,
    }
    if error.code is LightCode.TRUST_EXPIRED:
        return TrustExpiredError(f"the answer's header is not trusted: {error}")
    return InquiryError(codes.get(error.code, InquiryCode.UNPROVEN), f"the answer's header is not trusted: {error}")


@dataclass(frozen=True, slots=True)
class PrefixResolution:
    """The status of all certificates whose digests begin with a prefix, as the ledger proves it."""

    prefix: str
    recorded: Mapping[CertDigest, Resolution]
    """Certificates whose records the answer gives."""
    others: frozenset[bytes]
    """Keys of the other leaves below the prefix, for which the answer gives no certificate's record."""
    header: Header
    now_s: float

    def about(self, digest: CertDigest) -> Resolution:
        """Return what the answer proves about one certificate.

        Raises ValueError if its digest does not have the prefix, and InquiryError if the node withheld its record.
        """
        if not digest.hex().startswith(self.prefix):
            raise ValueError("the certificate's digest has not this prefix")
        if digest in self.others:
            raise InquiryError(InquiryCode.UNPROVEN, "the answer does not show the certificate's record")
        return self.recorded.get(digest) or _resolution(digest, None, None, None, self.header, self.now_s)


_ANSWER = msgspec.json.Decoder(AnswerForm)
_BATCH = msgspec.json.Decoder(BatchForm)
_PREFIX = msgspec.json.Decoder(PrefixForm)
_LEAVES = msgspec.json.Decoder(LeavesForm)

_T = TypeVar("_T")


def _judged(judge: Callable[[], _T]) -> _T:
    """Run a verification and raise its errors as InquiryError."""
    try:
        return judge()
    except (MalformedError, RecursionError, ValueError) as error:  # msgspec, base64 and UTF-8 raise ValueErrors
        raise InquiryError(InquiryCode.MALFORMED, f"the answer is malformed: {error}") from None
    except ProofError as error:
        raise InquiryError(InquiryCode.UNPROVEN, f"the answer is not proved: {error}") from None


def _read(decoder: "msgspec.json.Decoder[_T]", data: bytes, max_bytes: int) -> _T:
    if len(data) > max_bytes:
        raise MalformedError(f"it has more than {max_bytes} bytes")
    return decoder.decode(data)


def _resolution(
    digest: CertDigest,
    record: CertRecord | None,
    member: Member | None,
    certificate: bytes | None,
    header: Header,
    now_s: float,
) -> Resolution:
    return Resolution(
        digest=digest,
        status=status_of(record, member, now_s),
        certificate=certificate,
        record=record,
        member=member,
        height=Height(header.height),
        time_s=header.time_ns / 1e9,
        age_s=header.age_s(now_s),
    )


def _record(given: str | None, proof_text: str, digest: CertDigest, header: Header) -> CertRecord | None:
    value = _value(given, proof_text, digest, header)
    return None if value is None else _parsed(CertRecord.parse, value, header)


def _parsed(parse: Callable[[bytes], _T], value: bytes, header: Header) -> _T:
    """Parse the value of a leaf; raises InquiryError."""
    try:
        return parse(value)
    except MalformedError as error:
        raise unreadable(error, header.version_app) from None


def unreadable(error: MalformedError, version: int) -> InquiryError:
    """Return the error of an inquiry for a proved leaf that this release cannot read.

    Newer rules than this release's may be the reason; `version` is that of the header that proves the leaf.
    """
    if version not in VERSIONS:
        return InquiryError(InquiryCode.NEWER_RULES, needs(version))
    if isinstance(error, NeedsNewerError):
        return InquiryError(InquiryCode.NEWER_RULES, str(error))
    return InquiryError(InquiryCode.MALFORMED, f"the answer is malformed: {error}")


def _value(given: str | None, proof_text: str, key: bytes, header: Header) -> bytes | None:
    """Return the value of a leaf after verifying its proof; None for a leaf that is proved to be absent."""
    proof = Proof.parse(base64text.decode(proof_text))
    if given is None:
        verify_absence(header.app_hash, key, proof)
        return None
    value = base64text.decode(given)
    verify_inclusion(header.app_hash, key, hashlib.sha256(value).digest(), proof)
    return value


def _member(form: MemberForm | None, record: CertRecord | None, header: Header) -> Member | None:
    """Return the member that the certificate is recorded under, after verifying the proof.

    Returns None if there is no record, or if the organisation is proved not to be a member.
    """
    if record is None:
        return None
    if form is None:
        raise MalformedError("the answer does not say whether the certificate's organisation is a member")
    value = _value(form.record, form.proof, member_key(record.organization), header)
    return None if value is None else _parsed(_parse_member, value, header)


class _Members:
    """The members that several certificates are recorded under, each verified once."""

    def __init__(self, forms: Mapping[str, MemberForm], header: Header) -> None:
        self._forms = forms
        self._header = header
        self._known: dict[str, Member | None] = {}

    def of(self, record: CertRecord | None) -> Member | None:
        if record is None:
            return None
        name = record.organization
        if name not in self._known:
            self._known[name] = _member(self._forms.get(name), record, self._header)
        return self._known[name]


def _below(
    form: PrefixForm, prefix: bytes, header: Header
) -> tuple[frozenset[bytes], dict[CertDigest, CertRecord]]:
    """Return all leaves below a prefix and the records given for them, after verifying that none is left out."""
    values = {
        bytes.fromhex(leaf.key): base64text.decode(leaf.value) for leaf in form.leaves if leaf.value is not None
    }
    hashes = {
        bytes.fromhex(leaf.key): base64text.decode(leaf.hash) for leaf in form.leaves if leaf.hash is not None
    }
    hashes |= {key: hashlib.sha256(value).digest() for key, value in values.items()}
    proof = PrefixProof(Proof.parse(base64text.decode(form.proof)).siblings, tuple(sorted(hashes.items())))
    below = frozenset(verify_prefix(header.app_hash, prefix, proof))
    records = {
        CertDigest(key): _parsed(CertRecord.parse, value, header)
        for key, value in values.items()
        if key in below and CertRecord.is_one(value)
    }
    return below, records


@lru_cache(1024)
def _parse_member(data: bytes) -> Member:
    return Member.parse(data)


def _certificate(form: AnswerForm, digest: CertDigest) -> bytes:
    if form.certificate is None:
        raise MalformedError("the answer lacks the certificate")
    der = base64text.decode(form.certificate)
    if digest_of(der) != digest:
        raise ProofError("the certificate in the answer is another one")
    return der
