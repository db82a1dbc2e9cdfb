"""The form of self-proving answers of inquiry nodes (`voice_dpki.ledger.answers` verifies them).

An answer about one certificate, named by H(CERT):

    {"digest": hex, "status",
     "record": base64 | null, "proof": base64, "member": {"record": base64 | null, "proof": base64} | null,
     "certificate": base64 (if asked for and recorded),
     "height", "signed_header": {"header", "commit"}}

`record` is the certificate's leaf, or null with a proof of absence. `member` is the organisation that it is
recorded under. All proofs lead to the header's AppHash. `height` and `status` are for people: a verifier works
them out itself.

An answer about several certificates (`entries` in the order of the question), and one about all certificates whose
H(CERT) begins with the hexadecimal digits `prefix`, which hides from the node which of them is meant:

    {"entries": [{"digest", "record", "proof"}, ...], "members": {organisation: {"record", "proof"}, ...},
     "height", "signed_header"}
    {"prefix": hex, "proof": base64, "leaves": [{"key": hex, "value": base64} | {"key", "hash": base64}, ...],
     "members", "height", "signed_header"}

An answer about any leaves of the tree, named by their keys, for instance the lists of all certificates of a name
(`ledger.names`):

    {"leaves": [{"key": hex, "value": base64 | null, "proof": base64}, ...], "height", "signed_header"}

Unknown fields are ignored in these answers, in a node's description of itself and in its other answers: later nodes
can add some. Signed content has rules of its own: header and commit have only CometBFT's fields, and
`ledger.further` says what unknown items of records and members mean.

The proof of a prefix has the form of a proof that ends at an empty place; its hashes lead from the prefix to the
root. `leaves` are all leaves of the tree below the prefix. Those that are not certificates come as value hashes.

docs/spec/answers.md#an-answer-about-one-certificate specifies it.
"""

from typing import Annotated

import msgspec

from voice_dpki.ledger.further import MAX_FURTHER_BYTES
from voice_dpki.ledger.proof import MAX_PROOF_BYTES
from voice_dpki.ledger.records import CertStatus
from voice_dpki.names import CertDigest
from voice_dpki.x509.profile import MAX_CERTIFICATE_BYTES

MAX_ANSWER_BYTES = 256 * 1024
"""Largest answer about one certificate: certificate, member and proofs, and a header signed by 1000 validators."""

MAX_BATCH = 1000
"""Most certificates in one question."""

MAX_LEAVES = 64
"""Most leaves in one question about leaves."""

MAX_PREFIX_LEAVES = 1000
"""Most leaves below a prefix in one answer; the client chooses a prefix that is long enough."""

MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Largest answer about several certificates, with the members of as many organisations."""


MAX_RECORD_TEXT = 4096 + 2 * MAX_FURTHER_BYTES
"""Longest base64 of a certificate's record, or of a leaf's value below a prefix."""

MAX_PROOF_TEXT = 2 * MAX_PROOF_BYTES
MAX_CERTIFICATE_TEXT = 2 * MAX_CERTIFICATE_BYTES
"""Longest base64 of a proof, and of a certificate."""

_Record = Annotated[str, msgspec.Meta(max_length=MAX_RECORD_TEXT)]
_ProofText = Annotated[str, msgspec.Meta(max_length=MAX_PROOF_TEXT)]


class MemberForm(msgspec.Struct, frozen=True):
    """The `member` of an answer."""

    record: Annotated[str, msgspec.Meta(max_length=MAX_ANSWER_BYTES)] | None
    proof: _ProofText


class EvidenceForm(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The part of an answer that proves a certificate's status under one AppHash."""

    record: _Record | None
    proof: _ProofText
    member: MemberForm | None
    certificate: Annotated[str, msgspec.Meta(max_length=MAX_CERTIFICATE_TEXT)] | None = None


class AnswerForm(EvidenceForm, frozen=True, omit_defaults=True, kw_only=True):
    """An answer's JSON."""

    signed_header: msgspec.Raw


class EntryForm(msgspec.Struct, frozen=True):
    """One certificate in an answer about several."""

    digest: str
    record: _Record | None
    proof: _ProofText


class BatchForm(msgspec.Struct, frozen=True):
    """An answer about several certificates."""

    entries: Annotated[tuple[EntryForm, ...], msgspec.Meta(max_length=MAX_BATCH)]
    members: dict[str, MemberForm]
    signed_header: msgspec.Raw


class LeafForm(msgspec.Struct, frozen=True, omit_defaults=True):
    """A leaf below a prefix, with its value or the SHA-256 of it."""

    key: Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
    value: _Record | None = None
    hash: _Record | None = None


class PrefixForm(msgspec.Struct, frozen=True):
    """An answer about all certificates below a prefix."""

    proof: _ProofText
    leaves: Annotated[tuple[LeafForm, ...], msgspec.Meta(max_length=MAX_PREFIX_LEAVES)]
    members: dict[str, MemberForm]
    signed_header: msgspec.Raw


class ProvedLeafForm(msgspec.Struct, frozen=True):
    """A leaf by its key, or its absence."""

    key: str
    value: Annotated[str, msgspec.Meta(max_length=MAX_ANSWER_BYTES)] | None
    proof: _ProofText


class LeavesForm(msgspec.Struct, frozen=True):
    """An answer about leaves."""

    leaves: Annotated[tuple[ProvedLeafForm, ...], msgspec.Meta(max_length=MAX_LEAVES)]
    signed_header: msgspec.Raw


def answer_bytes(digest: CertDigest, status: CertStatus, evidence: bytes, tail: bytes) -> bytes:
    """Return an answer's JSON; `evidence` is an EvidenceForm in JSON, `tail` the result of `tail_bytes`."""
    return b'{"digest":"%s","status":"%s",%s%s' % (
        digest.hex().encode("ascii"),
        status.encode("ascii"),
        evidence[1:-1],
        tail,
    )


def tail_bytes(height: int, signed_header: bytes) -> bytes:
    """Return the end of every answer at a height, with its leading comma; `signed_header` is JSON."""
    return b',"height":%d,"signed_header":%s}' % (height, signed_header)
