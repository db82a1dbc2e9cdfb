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
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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

PROBATION_BLOCKS = 30
"""Blocks at the end, a day apart, in which a validator comes, signs, and is on probation no more."""

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
    lived = [_block(START_S + HOUR_S * number, transactions) for number, transactions in enumerate(blocks)]
    after = [_block(START_S + WEEK_S * number) for number in range(1, EMPTY_BLOCKS + 1)]
    end_s = START_S + WEEK_S * (EMPTY_BLOCKS + 1)
    newer = [
        _block(end_s + DAY_S * number, transactions)
        for number, transactions in enumerate(_versions(federation, end_s), 1)
    ]
    newest = [
        _block(end_s + DAY_S * number, transactions)
        for number, transactions in enumerate(_version_4(federation, end_s), len(newer) + 1)
    ]
    last_s = end_s + DAY_S * len([*newer, *newest])
    convicting = _block(START_S + 86_400, (), convicted)
    return {
        "genesis": _text(federation.genesis_json),
        "blocks": [*lived, convicting, *after, *newer, *newest, *_probation(federation, last_s)],
    }


def _block(time_s: int, transactions: Sequence[bytes] = (), *misbehaving: bytes) -> Given:
    return {
        "time_s": time_s,
        "transactions": [_text(raw) for raw in transactions],
        "misbehaving": [_text(address) for address in misbehaving],
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


def _text(data: bytes) -> str:
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
    proposals = [
        _propose(federation, change) for change in (SetMember(grown, 0), SetMember(newcomer, None), revoke)
    ]
    remove = _propose(federation, RemoveMember("Vendor"))
    refused = [_propose(federation, SetMember(taken, None)), _propose(federation, SetMember(grown, 7))]
    return [
        [federation.submission(der), *proposals, *refused, remove],
        [*(_vote(federation, each, True) for each in proposals), _vote(federation, remove, False)],
        [_vote(federation, proposals[0], True), _vote(federation, b"", True)],
    ]


def _versions(federation: Any, begin_s: int) -> list[list[bytes]]:
    """Version 2 of the rules begins by a notice and others by proposals; what fails under each of them."""
    until_s = begin_s + 2 * WEEK_S
    told = _propose(federation, SetMember(notice(2, 1), None), until_s)
    after = _propose(federation, BeginRules(3, 1), until_s)
    again = _propose(federation, BeginRules(2, 1), until_s)
    ders = [federation.certificate(not_after_s=until_s + WEEK_S) for _ in range(3)]
    held = (digest_of(ders[1]),)
    suspensions: list[Change] = [SuspendMember("Vendor"), SetStatus(held, CertStatus.SUSPENDED, "unspecified")]
    resumptions: list[Change] = [ResumeMember("Vendor"), SetStatus(held, CertStatus.VALID, "unspecified")]
    suspending, resuming = (
        [_propose(federation, change, until_s) for change in changes] for changes in (suspensions, resumptions)
    )
    idle = _propose(federation, RemoveMember("Vendor"), until_s)

    def changes(der: bytes) -> list[bytes]:
        return _changed(federation, der)

    return [
        [told],
        [_vote(federation, told, True)],
        [],
        [federation.submission(ders[0]), after, again, *changes(ders[0])],
        [_vote(federation, after, True), _vote(federation, again, True)],
        [federation.submission(ders[1]), *changes(ders[1]), resuming[0]],
        [],
        [federation.submission(ders[2]), *changes(ders[2])],
        [*suspending, idle, _vote(federation, idle, False, "Operator A"), _vote(federation, idle, True), b""],
        [*(_vote(federation, each, True) for each in suspending), *resuming],
        [*(_vote(federation, each, True) for each in resuming)],
    ]


def _changed(federation: Any, der: bytes) -> list[bytes]:
    first = federation.change(digest_of(der), "suspended", 0)
    return [first, first, _varied(federation.change(digest_of(der), "valid", 1)), b"no transaction"]


def _version_4(federation: Any, begin_s: int) -> list[list[bytes]]:
    """Version 4 of the rules: what it refuses, and a version after it."""
    until_s = begin_s + 5 * WEEK_S
    versions = [_propose(federation, BeginRules(version, 1), until_s) for version in (4, FURTHER)]
    begun, further = ([[raw], [_vote(federation, raw, True)], []] for raw in versions)
    der = federation.certificate(not_after_s=until_s)
    last = [federation.submission(der), *_changed(federation, der)]
    strange = [_strange_names(federation, until_s), _strange_organizations(federation, until_s)]
    return [*begun, *_compromised_keys(federation, until_s), *strange, *further, last]


def _strange_names(federation: Any, end_s: int) -> list[bytes]:
    """Names in forms that version 4 refuses, some of them by tables of the library or of Python."""
    hosts = ("*.a.example", "a.example.", "xn--bcher-kva.a.example", "xn--99999999.a.example", "ab--c.a.example")
    uris = ("sip:%2B493023125001@a.example", "sip:a.example:5060", "sip:493023125001@a.example", "urn:service:sos")
    names = [{"dns_names": (host,)} for host in hosts] + [{"uris": (uri,)} for uri in uris]
    ders = [federation.certificate(not_after_s=end_s, **each) for each in names]
    return [federation.submission(der) for der in ders]


def _strange_organizations(federation: Any, end_s: int) -> list[bytes]:
    """Names that are written otherwise, mix scripts, look like a member's, or are good."""
    bad = ("Ope\u00adrator C", "\u041eperator C", "operator a", "Oper\u0430\u0442\u043er")
    names = (*bad, "Zu\u0308rich", "Z\u00fcrich \u6771\u4eac")
    members = [Member(name, MemberKind.VENDOR, endorsing_keys=(generate_es256().public_key_der,)) for name in names]
    ders = [federation.certificate(common_name=name, not_after_s=end_s) for name in names]
    proposals = [_propose(federation, SetMember(member, None), end_s) for member in members]
    return [*proposals, *map(federation.submission, ders)]


def _compromised_keys(federation: Any, end_s: int) -> list[list[bytes]]:
    key, later = generate_es256(), generate_es256()
    first, second, third = (federation.certificate(key=key, not_after_s=end_s) for _ in range(3))
    successor = federation.certificate(key=later, not_after_s=end_s)
    chain_id = federation.genesis.chain_id
    signature = key.sign(renewal_bytes(chain_id, digest_of(first), digest_of(successor)))
    renewal = Renew(chain_id, "Operator A", successor, digest_of(first), key.public_key_der, signature)
    revoked = SetStatus((digest_of(successor),), CertStatus.REVOKED, "keyCompromise")
    quorum = _propose(federation, revoked, end_s)
    return [
        [*map(federation.submission, (first, second)), endorse(renewal, [federation.keys["Operator A"]])],
        [federation.change(digest_of(second), "revoked", 0, reason="keyCompromise"), quorum],
        [federation.submission(third), federation.change(digest_of(first), "valid", 1)],
        [_vote(federation, quorum, True)],
    ]


def _probation(federation: Any, last_s: int) -> list[Given]:
    """Operator B, whose validator signed twice, gets another one, which misses some of the blocks at first."""
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    member = replace(federation.genesis.member("Operator B"), validators=(key,))
    proposal = _propose(federation, SetMember(member, 1), last_s + 2 * WEEK_S)
    transactions = [[proposal], [_vote(federation, proposal, True)]]
    blocks = []
    for number in range(PROBATION_BLOCKS):
        block = _block(last_s + DAY_S * (number + 1), transactions[number] if number < 2 else ())
        signs = number > 5 and number not in (8, 9)
        blocks.append(block | {"signers": [_text(Validator(key, 1).address)] if signs else []})
    return blocks


def _varied(raw: bytes) -> bytes:
    """Sign a transaction twice, as anybody can."""
    transaction = Transaction.parse(raw)
    return replace(transaction, endorsements=transaction.endorsements * 2).serialize()


def _propose(federation: Any, change: Change, until_s: int = START_S + 3 * WEEK_S) -> bytes:
    body = Propose(federation.genesis.chain_id, "Operator A", until_s, encode_change(change))
    return endorse(body, [federation.keys["Operator A"]])


def _vote(federation: Any, proposal: bytes, approve: bool, by: str = "Operator B") -> bytes:
    identity = proposal_id(Transaction.parse(proposal).body_bytes) if proposal else bytes(32)
    return endorse(Vote(federation.genesis.chain_id, by, identity, approve), [federation.keys[by]])


if __name__ == "__main__":
    found = {"blocks": replay(json.load(sys.stdin)), "printable": printable(), "prepared": preparations()}
    json.dump(found, sys.stdout)
