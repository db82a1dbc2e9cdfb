"""Both verifiers read the same records: bent ones that a header proves, so that only their own form can be wrong.

A changed bit of an answer ends at a hash. Here trees are made around records that were changed before, and a
validator signs their roots.
"""

import itertools
import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger_node.order.engine import signers_of
from tests.campaign import FUZZ_SEED, bent
from tests.judge import Judge
from voice_dpki.ledger.answers import AnswerVerifier, InquiryCode, InquiryError
from voice_dpki.ledger.block import sign_commit
from voice_dpki.ledger.header import SignedHeader, Validator, ValidatorSet
from voice_dpki.ledger.light import LightClient, TrustPoint
from voice_dpki.names import CertDigest

VECTORS = Path(__file__).parents[1] / "docs" / "spec" / "vectors" / "answers.json"
RECORDS = 2000

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
VALIDATORS = ValidatorSet.of([Validator(KEY.public_key().public_bytes_raw(), 1)])

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Case:
    """A certificate's record and its member's, and the answer that proves them."""

    digest: CertDigest
    record: bytes
    member: bytes
    answer: bytes
    changed: str
    """Which of the two was changed: `record` or `member`."""


class Ledger:
    """A ledger whose one validator signs any state."""

    def __init__(self) -> None:
        self.file = json.loads(VECTORS.read_bytes())
        self.answers = [case["answer"] for case in self.file["questions"] if "status" in case["result"]]
        found = SignedHeader.from_json(self.answers[0]["signed_header"])
        self.block_id = found.commit.block_id
        ours = VALIDATORS.hash()
        self.header = replace(found.header, validators_hash=ours, next_validators_hash=ours)
        self.now_s = self.header.time_ns / 1e9 + 1

    def signed(self, root: bytes, version: int) -> dict[str, Any]:
        header = replace(self.header, app_hash=root, version_app=version)
        block_id = replace(self.block_id, hash=header.hash())
        commit = sign_commit(header, block_id, VALIDATORS, signers_of([KEY]), header.time_ns)
        return SignedHeader(header, commit).to_json()

    def case(self, record: bytes, member: bytes, organization: str, version: int) -> Case:
        """Prove both in a tree that has these two leaves; their keys differ in the first bit."""
        member_key = sha256(b"voice-dpki/member/v1\0" + organization.encode()).digest()
        key = bytes([member_key[0] ^ 0x80]) + bytes(31)
        leaves = {key: sha256(record).digest(), member_key: sha256(member).digest()}
        hashes = {each: sha256(b"\0" + each + value).digest() for each, value in leaves.items()}
        root = sha256(b"\1" + hashes[min(hashes)] + hashes[max(hashes)]).digest()

        def proved(value: bytes, own: bytes, other: bytes) -> dict[str, str]:
            proof = b"\0\1\1" + own + leaves[own] + b"\x80" + hashes[other]
            return {"record": b64encode(value).decode(), "proof": b64encode(proof).decode()}

        answer = {
            **proved(record, key, member_key),
            "member": proved(member, member_key, key),
            "signed_header": self.signed(root, version),
        }
        return Case(CertDigest(key), record, member, json.dumps(answer).encode(), "")

    def by_the_client(self, case: Case) -> str:
        trust = TrustPoint.genesis(VALIDATORS, self.header.time_ns - 10**9)
        verifier = AnswerVerifier(LightClient(self.header.chain_id, trust), max_age_s=30)
        try:
            return verifier.verify(
                case.answer, case.digest, self.now_s, min_height=0, with_certificate=False
            ).status
        except InquiryError as error:
            return error.code


NUMBERS = (0, 1, -1, 2, 2**63, 2**64 - 1)
TEXTS = ("", "valid", "a" * 64, "\u00e4" * 64, "a" * 65)
OCTETS = (b"", bytes(32), bytes(33))
LISTS: tuple[Any, ...] = ([], [[]], ["1", 2], [["1", 2]], [["1", -2]], ["a"] * 257)
MAPS: tuple[Any, ...] = (
    *({}, {"a": 1}, {"!a": 1}, {" a": 1}, {"a": bytes(1025)}, {f"{number:02}": number for number in range(17)}),
    *({"a": [[[[[[]]]]]]}, {"a": [[[[[[[]]]]]]]}, {f"{number}": bytes(1000) for number in range(5)}),
    *({"!numbers-1": numbers} for numbers in (["49301"], [], ["a"], [1], ["1"] * 60, ["1" * 16])),
    *({"!numbers-2": ["1"]}, {"!numbers-5": ["1"]}, {"!numbers-01": ["1"]}, {"!numbers-": ["1"]}),
    {"!numbers-1": [f"{number:04}" for number in range(60)], "!numbers-2": ["1"]},
    {"!numbers-1": ["1"], "!numbers-2": ["2"]},
    *({"!by-number": value} for value in (True, False, 1, None)),
    *({"!numbers": value} for value in (["1"], ["1", "2"], ["2", "1"], ["1", "1"], [], "1", [1], ["1" * 16])),
    *({"!numbers": [f"{number:03}" for number in range(count)]} for count in (60, 61)),
    {"!by-number": True, "!numbers-1": ["1"], "cps": "https://a"},
    {"!numbers": ["1"], "!else": 1},
)


def changed_item(record: bytes, chance: Random) -> bytes:
    """Put something else in the place of an item of a record, take one away, or add one."""
    items = cbor2.loads(record)
    other = chance.choice((None, True, 1.5, *NUMBERS, *TEXTS, *OCTETS, *LISTS, *MAPS))
    match chance.randrange(5):
        case 0:
            del items[chance.randrange(len(items))]
        case 1:
            items.append(other)
        case _:
            items[chance.randrange(1, len(items))] = other
    return cbor2.dumps(items, canonical=True)


ENCODINGS = (
    *(b"\x18\x01", b"\x19\x00\x01", b"\x1a\x00\x00\x00\x01", b"\x1b" + bytes(7) + b"\x01", b"\x38\x01"),  # longer
    *(
        b"\x78\x01a",
        b"\x58\x01a",
        b"\x98\x00",
        b"\xb8\x00",
        b"\x5f\x41a\xff",
        b"\x7f\x61a\xff",
        b"\x9f\xff",
        b"\xbf\xff",
    ),
    *(b"\xa2\x62aa\x01\x61b\x01", b"\xa2\x61b\x01\x61a\x01", b"\xa2\x61a\x01\x61a\x01"),  # order, and twice
    *(b"\xa2\x61b\x01\x62aa\x01", b"\xa1\x41a\x01", b"\xa1\x01\x01", b"\xa1\x61\xff\x01", b"\x61\xff"),
    *(
        b"\xc0\x01",
        b"\xf7",
        b"\xf8\x20",
        b"\xf9\x00\x00",
        b"\xfa" + bytes(4),
        b"\x1b" + b"\xff" * 8,
        b"\x3b" + b"\xff" * 8,
    ),
)
"""Of which only a map in its order and the integers of 64 bits are deterministic."""


def changed_encoding(record: bytes, chance: Random) -> bytes:
    """Put an encoding in the place of an item, or in a further item that is added."""
    items = [cbor2.dumps(item, canonical=True) for item in cbor2.loads(record)]
    other = chance.choice(ENCODINGS)
    if chance.randrange(2):
        items.append(b"\xa1\x61a" + other if other[0] >> 5 != 5 or chance.randrange(2) else other)
    else:
        items[chance.randrange(1, len(items))] = other
    return bytes([0x80 + len(items)]) + b"".join(items)


def cases(ledger: Ledger, chance: Random) -> Iterator[Case]:
    """Make a case with one record changed, the certificate's or the member's, by its items or its bytes."""
    answers = [answer for answer in ledger.answers if answer["record"] and answer["member"]["record"]]
    while True:
        given = chance.choice(answers)
        both = [cbor2.loads(b64decode(given["record"])), cbor2.loads(b64decode(given["member"]["record"]))]
        records = [cbor2.dumps(each, canonical=True) for each in both]
        which = chance.randrange(2)
        change = chance.choice((changed_item, changed_encoding, lambda octets, chance: bent(chance, octets)))
        records[which] = change(records[which], chance)
        version = chance.choice((0, 1, 2, 3, 4, 4, 5, 65535))
        made = ledger.case(records[0], records[1], organization(records[0], both[0][2]), version)
        yield replace(made, changed=("record", "member")[which])


def organization(record: bytes, otherwise: str) -> str:
    """Name the organisation of a record where it can be read, so that the member is the one to be looked at."""
    try:
        found = cbor2.loads(record)[2]
        return found if isinstance(found, str) else otherwise
    except (cbor2.CBORDecodeError, LookupError, TypeError, ValueError):
        return otherwise


def test_both_read_records_alike(second_verifier: Path) -> None:
    ledger, judge = Ledger(), Judge(second_verifier)
    judge.context(
        "genesis",
        chain_id=ledger.header.chain_id,
        genesis={
            "time": ledger.file["genesis"]["time"],
            "validators": VALIDATORS.to_json()["validators"],
        },
        now_s=ledger.now_s,
    )
    asked = list(itertools.islice(cases(ledger, Random(FUZZ_SEED)), RECORDS))
    for case in asked:
        judge.ask(
            "answer",
            context="genesis",
            digest=case.digest.hex(),
            answer=case.answer,
            now_s=ledger.now_s,
            max_age_s=30,
        )
    found = [next(iter(verdict.values())) for verdict in judge.verdicts()]
    counted = Counter(found)
    print(f"FUZZ_SEED={FUZZ_SEED}: {dict(counted)}")
    assert {"valid", "malformed", "newer-rules"} <= counted.keys()
    unequal = [
        (verdict, client, case)
        for case, verdict in zip(asked, found, strict=True)
        if (client := ledger.by_the_client(case)) != verdict and not known_difference(case, verdict, client)
    ]
    assert not unequal


REASONS = (
    *("unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation"),
    *("certificateHold", "removeFromCRL", "privilegeWithdrawn"),
)


def known_difference(case: Case, verdict: str, client: str) -> bool:
    """Tell whether this is one of two: the client checks more of a member, and less of a certificate's texts.

    The client refuses a member whose names or keys no node would write; the specification leaves that to nodes. It
    takes any text as a reason and as an organisation.
    """
    refused = {InquiryCode.MALFORMED, InquiryCode.NEWER_RULES}
    if client in refused and verdict not in refused:
        return case.changed == "member"
    if verdict not in refused or client in refused or case.changed != "record":
        return False
    _, _, organization, *_ = items = cbor2.loads(case.record)
    reason = items[8]
    return not 1 <= len(organization) <= 64 or (isinstance(reason, str) and reason not in REASONS)
