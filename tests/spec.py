"""What is made in docs/spec, tables and vectors: `make spec` writes it again from the code."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.spec_headers import headers, proofs
from tests.spec_messages import messages
from tests.spec_numbers import numbers_one_by_one
from tests.spec_several import several
from tests.spec_vectors import answers, make_ledger
from voice_dpki.codec import cbor
from voice_dpki.ledger import (
    admission,
    answer_forms,
    changes,
    compromise,
    directory,
    evidence,
    expiry,
    further,
    header,
    kind,
    light,
    members,
    names,
    numbers,
    owners,
    probation,
    proof,
    proposals,
    quotas,
    records,
    replica,
    single_numbers,
    transactions,
)
from voice_dpki.ledger.answers import InquiryCode
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.wire.ledger import client
from voice_dpki.x509 import profile

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs/spec"
END = "<!-- end of the table -->"

_ABOUT_CODES = {
    InquiryCode.UNREACHABLE: "no answer came",
    InquiryCode.MALFORMED: "the answer has not its form, or is about something else than was asked",
    InquiryCode.UNPROVEN: "a proof does not show what the answer says, or its header is not trusted",
    InquiryCode.STALE: "the header is older than `max_age`",
    InquiryCode.FORK: "validators signed two histories",
    InquiryCode.CLOCK: "our clock contradicts the ledger's",
    InquiryCode.NEWER_RULES: "the ledger follows rules that this verifier does not know",
}

_LIMITS: tuple[tuple[str, int | float, str], ...] = (
    ("an answer about one certificate", answer_forms.MAX_ANSWER_BYTES, "bytes"),
    ("an answer about several, about leaves or about a prefix", answer_forms.MAX_BATCH_BYTES, "bytes"),
    ("an answer about changes", changes.MAX_CHANGES_BYTES, "bytes"),
    ("digests in one question", answer_forms.MAX_BATCH, ""),
    ("keys of leaves in one question", answer_forms.MAX_LEAVES, ""),
    ("leaves below a prefix in one answer", answer_forms.MAX_PREFIX_LEAVES, ""),
    ("steps in one answer about changes", changes.MAX_STEPS, ""),
    ("base64 of a record in an answer", answer_forms.MAX_RECORD_TEXT, "characters"),
    ("base64 of a proof in an answer", answer_forms.MAX_PROOF_TEXT, "characters"),
    ("base64 of a certificate in an answer", answer_forms.MAX_CERTIFICATE_TEXT, "characters"),
    ("base64 of a member or of another leaf in an answer", answer_forms.MAX_ANSWER_BYTES, "characters"),
    ("a proof, decoded", proof.MAX_PROOF_BYTES, "bytes"),
    ("siblings of a proof", proof.KEY_BITS, ""),
    ("a certificate", profile.MAX_CERTIFICATE_BYTES, "bytes"),
    ("levels of CBOR", cbor.MAX_DEPTH, ""),
    ("a transaction", transactions.MAX_TRANSACTION_BYTES, "bytes"),
    ("signatures of a transaction", transactions.MAX_SIGNATURES, ""),
    ("a signature", kind.MAX_SIGNATURE_BYTES, "bytes"),
    ("a SubjectPublicKeyInfo in a transaction", kind.MAX_KEY_BYTES, "bytes"),
    ("a text in a transaction", kind.MAX_TEXT_LENGTH, "characters"),
    ("certificates in a batch", transactions.MAX_BATCH, ""),
    ("certificates recorded in one block", quotas.MAX_BLOCK_CERTIFICATES, ""),
    ("certificates pruned in one block", expiry.MAX_PRUNED, ""),
    ("days of expiry passed in one block", expiry.MAX_DAYS, ""),
    ("from the recording of a certificate to its validity", admission.MAX_NOT_YET_VALID_S, "s"),
    ("entries in each list of a member", members.MAX_ENTRIES, ""),
    ("single numbers of a member", single_numbers.MAX_SINGLES, ""),
    ("numbers given in one transaction", numbers.MAX_GIVEN, ""),
    ("numbers that a certificate names and that are held by leaves of their own", records.MAX_NUMBERS, ""),
    ("the URL of a member's call placement service", members.MAX_URL_LENGTH, "characters"),
    ("further items of a record", further.MAX_ITEMS, ""),
    ("the value of a further item, encoded", further.MAX_VALUE_BYTES, "bytes"),
    ("all further items of a record, encoded", further.MAX_FURTHER_BYTES, "bytes"),
    ("members", directory.MAX_MEMBERS, ""),
    ("validators of all members", directory.MAX_VALIDATORS, ""),
    ("evidence of a block", evidence.MAX_EVIDENCE_BYTES, "bytes"),
    ("pieces of evidence in a block", replica.MAX_EVIDENCE, ""),
    ("transactions in a block", replica.MAX_TRANSACTIONS, ""),
    ("validators in a set that a verifier reads", header.MAX_VALIDATORS, ""),
    ("names of a certificate", names.MAX_NAMES, ""),
    ("certificates of one name and organisation", names.MAX_LISTED, ""),
    ("certificates listed with one key", owners.MAX_CERTIFICATES, ""),
    ("certificates looked at when a key is barred", compromise.MAX_FALLEN, ""),
    ("power of a validator that is not on probation", probation.FULL_POWER, ""),
    ("blocks that count for probation", probation.WINDOW, ""),
    ("blocks of these that end it", probation.NEEDED, ""),
    ("proposals on the ledger", proposals.MAX_PROPOSALS, ""),
    ("certificates in one proposal", proposals.MAX_CERTIFICATES, ""),
    ("trusting period of a header", light.TRUSTING_PERIOD_S, "s"),
    ("how far a header may be ahead of our clock", light.MAX_CLOCK_DRIFT_S, "s"),
    ("steps of a bisection", light.MAX_APPROACH_STEPS, ""),
    ("`max_age` unless configured otherwise", client.DEFAULT_MAX_AGE_S, "s"),
)


def codes() -> Iterable[str]:
    """Return the table of the errors of an answer."""
    yield from ("| Code | Means |", "|---|---|")
    yield from (f"| `{code}` | {_ABOUT_CODES[code]} |" for code in InquiryCode)


def limits() -> Iterable[str]:
    """Return the table of limits."""
    yield from ("| Of what | At most |", "|---|---|")
    yield from (f"| {what} | {f'{int(value)} {unit}'.strip()} |" for what, value, unit in _LIMITS)


def refusals() -> Iterable[str]:
    """Return the table of refusals."""
    yield from ("| Code | Name | Sentence |", "|---|---|---|")
    for refusal in sorted(Refusal, key=lambda each: each.code):
        yield f"| {refusal.code} | `{refusal.kebab}` | {refusal.sentence} |"


TABLES: dict[str, dict[str, Callable[[], Iterable[str]]]] = {
    "answers.md": {"codes of answers": codes},
    "encodings.md": {"limits": limits},
    "state.md": {"refusals": refusals},
}
"""For each page the tables that are made, by the names in their marks."""


def written(page: str) -> str:
    """Return a page with today's tables between their marks."""
    text = (FOLDER / page).read_text()
    for name, table in TABLES[page].items():
        begin = f"<!-- {name}: made by `make spec` -->\n"
        before, mark, rest = text.partition(begin)
        assert mark, f"{page} has no place for the table {name}"
        _, _, after = rest.partition(END)
        text = "\n".join((before + begin, *table(), "", END)) + after
    return text


def documents() -> dict[str, bytes]:
    """Return the content of each file of vectors."""
    ledger = make_ledger()
    about_one = answers(ledger)
    about_several = {**about_one, "questions": [*several(ledger), *numbers_one_by_one(ledger)]}
    made = {
        "answers.json": about_one,
        "several.json": about_several,
        "headers.json": headers(),
        "proofs.json": proofs(),
        "messages.json": messages(),
    }
    return {name: json.dumps(value, indent=1).encode() + b"\n" for name, value in made.items()}


if __name__ == "__main__":
    for page in TABLES:
        (FOLDER / page).write_text(written(page))
    for name, content in documents().items():
        (FOLDER / "vectors" / name).write_bytes(content)
