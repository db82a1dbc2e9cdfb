"""A history of blocks in which every kind of transaction takes effect and is refused, and its replay.

`python tests/ledger/history.py < HISTORY` replays one, with nothing but the library: it prints for every block the
AppHash, the code, name and sentence of each result, and what changed in the tree; then which characters names may
have.
"""

import base64
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from voice_dpki.errors import MalformedError
from voice_dpki.ledger import rules
from voice_dpki.ledger.activation import notice
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.proposals import (
    BeginRules,
    Change,
    RemoveMember,
    ResumeMember,
    SetMember,
    SetStatus,
    SuspendMember,
    encode_change,
    proposal_id,
)
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.state import Block, apply
from voice_dpki.ledger.transactions import (
    Batch,
    OwnerStatus,
    Propose,
    Renew,
    Transaction,
    Vote,
    endorse,
    renewal_bytes,
)
from voice_dpki.names import Height, Tn, is_printable
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.prepared import check_written, look
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

START_S = 1_790_000_000
HOUR_S, DAY_S, WEEK_S = 3600, 86_400, 7 * 86_400
EMPTY_BLOCKS = 14
"""One a week: certificates expire and are pruned, proposals are forgotten."""

YOUNG_CHARACTERS = ("\U0001f6dc", "\u2ffc", "\U0002ebf0", "\u1c89")
"""Assigned in Unicode 15.0, 15.1 and 16.0: Python's minor versions do not all know them."""

FURTHER = rules.VERSIONS[-1] + 1
"""A version of the rules that no release has."""

Given = dict[str, Any]


def make(federation: Any) -> Given:
    """Make the history of a federation as in `conftest.py`."""
    blocks = [
        *_certificates(federation),
        *_names(federation),
        *_changes(federation),
        *_renewals(federation),
        *_votes(federation),
    ]
    convicted = Validator(federation.genesis.member("Operator B").validators[0], 1).address
    lived = [block(START_S + HOUR_S * number, transactions) for number, transactions in enumerate(blocks)]
    after = [block(START_S + WEEK_S * number) for number in range(1, EMPTY_BLOCKS + 1)]
    end_s = START_S + WEEK_S * (EMPTY_BLOCKS + 1)
    newer = [
        block(end_s + DAY_S * number, transactions)
        for number, transactions in enumerate(_versions(federation, end_s), 1)
    ]
    convicting = block(START_S + 86_400, (), convicted)
    return {
        "genesis": text(federation.genesis_json),
        "blocks": [*lived, convicting, *after, *newer],
    }


def block(time_s: int, transactions: Sequence[bytes] = (), *misbehaving: bytes) -> Given:
    """Write a block down; its evidence convicts those with the addresses `misbehaving`."""
    return {
        "time_s": time_s,
        "transactions": [text(raw) for raw in transactions],
        "misbehaving": [text(address) for address in misbehaving],
        "signers": [],
    }


def blocks_of(given: Given) -> Iterator[Block]:
    """Return the blocks as the state machine takes them."""
    for height, form in enumerate(given["blocks"], 1):
        parts = (tuple(map(base64.b64decode, form[name])) for name in ("transactions", "misbehaving", "signers"))
        yield Block(Height(height), form["time_s"], *parts)


@contextmanager
def further_version() -> Iterator[None]:
    """Know a further version of the rules, which is not that of any release: without the rule on signatures."""
    known = rules.BY_VERSION
    known[FURTHER] = replace(rules.NEWEST, version=FURTHER, one_signature=False)
    try:
        yield
    finally:
        del known[FURTHER]


def replay(given: Given) -> list[list[Any]]:
    """Execute all blocks from the genesis on; returns what came of each."""
    with further_version():
        return _replay(given)


def _replay(given: Given) -> list[list[Any]]:
    state = load_genesis(base64.b64decode(given["genesis"])).initial_state()
    found = []
    for block in blocks_of(given):
        outcome = apply(state, block)
        state.commit(outcome)
        results = [[result.code, result.name, result.detail] for result in outcome.results]
        nodes = [[path.hex(), node and node.hex()] for path, node in sorted(outcome.update.nodes.items())]
        updates = [[key.hex(), power] for key, power in outcome.validator_updates]
        found.append([outcome.app_hash.hex(), results, nodes, updates])
    return found


def printable() -> str:
    """Hash which characters a name may have, of all that there are."""
    return sha256(bytes(is_printable(chr(code)) for code in range(sys.maxunicode + 1))).hexdigest()


def preparations() -> str:
    """Hash how names with one character of each kind compare, leaving out most of Han and Hangul."""
    codes = [*range(0x3400), *range(0x3400, 0xD800, 97), *range(0xE000, 0x20000), 0x2F801, 0xE0041]
    found = sha256()
    for code in codes:
        try:
            found.update(f"{look(f'x{chr(code)}')} ".encode())
            check_written(f"x{chr(code)}")
        except MalformedError as error:
            found.update(type(error).__name__.encode())
    return found.hexdigest()


def text(data: bytes) -> str:
    """Write bytes in base64."""
    return base64.b64encode(data).decode("ascii")


def _certificates(federation: Any) -> list[list[bytes]]:
    """Each member's own and another's, batches, and what breaks a rule."""
    key = generate_es256()
    ders = [federation.certificate(name) for name in ("Operator A", "Operator B") * 8]
    numbers = TnAuthList(ranges=(TnRange(Tn("493023125000"), 10),), tns=(Tn("493023125100"),))
    foreign = TnAuthList(ranges=(TnRange(Tn("442079460000"), 2),))
    vendor = tuple(map(federation.certificate, ["Vendor"] * 9))
    return [
        [federation.submission(der, by) for der in ders for by in ("Operator A", "Operator B")],
        [
            federation.submission(
                federation.certificate(tn_auth_list=numbers, uris=("sip:+493023125001@a.example",))
            ),
            federation.submission(federation.certificate(tn_auth_list=foreign)),
            federation.submission(federation.certificate(uris=("sip:mallory@b.example",))),
            federation.submission(federation.certificate(key=key)),
            federation.submission(federation.certificate("Operator B", key=key), "Operator B"),
            federation.submission(federation.certificate(not_after_s=START_S - 1)),
            federation.submission(ders[0]),
            federation.submission(ders[0][:-1]),
            federation.submission(ders[0], chain="other"),
            federation.submission(ders[0], "Operator A", key="Operator B"),
            b"no transaction",
        ],
        [_batch(federation, vendor), _batch(federation, (federation.certificate("Vendor"), vendor[0]))],
    ]


def _batch(federation: Any, ders: tuple[bytes, ...]) -> bytes:
    return endorse(Batch(federation.genesis.chain_id, "Vendor", ders), [federation.keys["Vendor"]])


def _names(federation: Any) -> list[list[bytes]]:
    """Names in many scripts, and with characters that only later versions of Unicode know."""
    names = ("Ångström", "Zu\u0308rich", "東京", "İstanbul", "ﬁ", *(f"name {each}" for each in YOUNG_CHARACTERS))
    return [[federation.submission(_named(name)) for name in names]]


def _named(name: str) -> bytes:
    """Make a certificate whatever the library thinks of its name."""
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = {NameOID.ORGANIZATION_NAME: "Operator A", NameOID.COMMON_NAME: name}
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes.items()])
    start, end = (datetime.fromtimestamp(START_S + days * 86_400, UTC) for days in (-1, 30))
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, start, end)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def _changes(federation: Any) -> list[list[bytes]]:
    key = generate_es256()
    lost, own = federation.certificate(), federation.certificate(key=key)
    chain_id = federation.genesis.chain_id

    def by_owner(revision: int, status: str) -> bytes:
        body = OwnerStatus(
            chain_id, "Operator A", digest_of(own), revision, status, "unspecified", key.public_key_der
        )
        return endorse(body, [key])

    return [
        [federation.submission(lost), federation.submission(own)],
        [
            federation.change(digest_of(lost), "revoked", 0, by="Operator B"),
            federation.change(digest_of(lost), "revoked", 0, reason="keyCompromise"),
            federation.change(digest_of(lost), "valid", 1),
            federation.change(digest_of(own), "suspended", 0),
            by_owner(1, "valid"),
            by_owner(1, "revoked"),
            federation.change(digest_of(own), "valid", 1),
        ],
    ]


def _renewals(federation: Any) -> list[list[bytes]]:
    key = generate_es256()
    old, new, other = (federation.certificate(key=key, common_name=name) for name in ("device", "device", "other"))

    def renewal(der: bytes, replaces: bytes) -> bytes:
        chain_id, digest = federation.genesis.chain_id, digest_of(replaces)
        signature = key.sign(renewal_bytes(chain_id, digest, digest_of(der)))
        body = Renew(chain_id, "Operator A", der, digest, key.public_key_der, signature)
        return endorse(body, [federation.keys["Operator A"]])

    return [[federation.submission(old)], [renewal(other, old), renewal(new, old), renewal(other, old)]]


def _votes(federation: Any) -> list[list[bytes]]:
    """Members changed and admitted, a certificate revoked by the quorum, and proposals that come to nothing."""
    vendor, der = federation.genesis.member("Vendor"), federation.certificate()
    grown = replace(vendor, domains=("v.example", "w.example"))
    newcomer = Member("Newcomer", MemberKind.VENDOR, endorsing_keys=(generate_es256().public_key_der,))
    taken = replace(newcomer, domains=("sub.a.example",))
    revoke = SetStatus((digest_of(der),), CertStatus.REVOKED, "keyCompromise")
    proposals = [propose(federation, change) for change in (SetMember(grown, 0), SetMember(newcomer, None), revoke)]
    remove = propose(federation, RemoveMember("Vendor"))
    refused = [propose(federation, SetMember(taken, None)), propose(federation, SetMember(grown, 7))]
    return [
        [federation.submission(der), *proposals, *refused, remove],
        [*(vote(federation, each, True) for each in proposals), vote(federation, remove, False)],
        [vote(federation, proposals[0], True), vote(federation, b"", True)],
    ]


def _versions(federation: Any, begin_s: int) -> list[list[bytes]]:
    """Version 2 of the rules begins by a notice and others by proposals; what fails under each of them."""
    until_s = begin_s + 2 * WEEK_S
    told = propose(federation, SetMember(notice(2, 1), None), until_s)
    after = propose(federation, BeginRules(3, 1), until_s)
    again = propose(federation, BeginRules(2, 1), until_s)
    ders = [federation.certificate(not_after_s=until_s + WEEK_S) for _ in range(3)]
    held = (digest_of(ders[1]),)
    suspensions: list[Change] = [SuspendMember("Vendor"), SetStatus(held, CertStatus.SUSPENDED, "unspecified")]
    resumptions: list[Change] = [ResumeMember("Vendor"), SetStatus(held, CertStatus.VALID, "unspecified")]
    suspending, resuming = (
        [propose(federation, change, until_s) for change in changes] for changes in (suspensions, resumptions)
    )
    idle = propose(federation, RemoveMember("Vendor"), until_s)

    return [
        [told],
        [vote(federation, told, True)],
        [],
        [federation.submission(ders[0]), after, again, *changed(federation, ders[0])],
        [vote(federation, after, True), vote(federation, again, True)],
        [federation.submission(ders[1]), *changed(federation, ders[1]), resuming[0]],
        [],
        [federation.submission(ders[2]), *changed(federation, ders[2])],
        [*suspending, idle, vote(federation, idle, False, "Operator A"), vote(federation, idle, True), b""],
        [*(vote(federation, each, True) for each in suspending), *resuming],
        [*(vote(federation, each, True) for each in resuming)],
    ]


def changed(federation: Any, der: bytes) -> list[bytes]:
    """Suspend a certificate twice, resume it with a transaction that somebody varied, and send what is none."""
    first = federation.change(digest_of(der), "suspended", 0)
    return [first, first, _varied(federation.change(digest_of(der), "valid", 1)), b"no transaction"]


def _varied(raw: bytes) -> bytes:
    """Sign a transaction twice, as anybody can."""
    transaction = Transaction.parse(raw)
    return replace(transaction, endorsements=transaction.endorsements * 2).serialize()


def propose(federation: Any, change: Change, until_s: int = START_S + 3 * WEEK_S) -> bytes:
    """Propose a change in the name of Operator A."""
    body = Propose(federation.genesis.chain_id, "Operator A", until_s, encode_change(change))
    return endorse(body, [federation.keys["Operator A"]])


def vote(federation: Any, proposal: bytes, approve: bool, by: str = "Operator B") -> bytes:
    """Vote on the proposal that a transaction makes; on one that there is not for b""."""
    identity = proposal_id(Transaction.parse(proposal).body_bytes) if proposal else bytes(32)
    return endorse(Vote(federation.genesis.chain_id, by, identity, approve), [federation.keys[by]])


if __name__ == "__main__":
    found = {"blocks": replay(json.load(sys.stdin)), "printable": printable(), "prepared": preparations()}
    json.dump(found, sys.stdout)
