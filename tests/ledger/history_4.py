"""The history of `history.py`, and after it blocks of versions 4 and 5 of the rules, with what those refuse."""

from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.proposals import BeginRules, SetMember, SetStatus
from voice_dpki.ledger.records import CertStatus
from voice_dpki.ledger.transactions import Numbers, Renew, endorse, renewal_bytes
from voice_dpki.names import Tn
from voice_dpki.x509.claimconstraints import ClaimConstraints
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.possession import possession_of
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

from . import history
from .history import DAY_S, FURTHER, WEEK_S, Given, block, changed, propose, text, vote

PROBATION_BLOCKS = 30
"""Blocks at the end, a day apart, in which a validator comes, signs, and is on probation no more."""


def make(federation: Any) -> Given:
    """Make the whole history of a federation as in `conftest.py`."""
    given = history.make(federation)
    last_s = given["blocks"][-1]["time_s"]
    for number, transactions in enumerate(_version_4(federation, last_s), 1):
        given["blocks"].append(block(last_s + DAY_S * number, transactions))
    given["blocks"] += _probation(federation, given["blocks"][-1]["time_s"])
    return given


def _version_4(federation: Any, begin_s: int) -> list[list[bytes]]:
    """Versions 4 and 5 of the rules: what they refuse, and a version after them."""
    until_s = begin_s + 4 * WEEK_S
    versions = [propose(federation, BeginRules(version, 1), until_s) for version in (4, 5, FURTHER)]
    begun, fifth, further = ([[raw], [vote(federation, raw, True)], []] for raw in versions)
    der = federation.certificate(not_after_s=until_s)
    last = [federation.submission(der), *changed(federation, der)]
    strange = [_strange_names(federation, until_s), _strange_organizations(federation, until_s)]
    strange += [_nobodys(federation, until_s)]
    ported = propose(federation, _ported(federation), until_s)
    strange += [[ported], [vote(federation, ported, True)]]
    placed = _call_placement(federation, until_s)
    given = [*fifth, *_given_numbers(federation, until_s)]
    return [*begun, *_compromised_keys(federation, until_s), *strange, *placed, *given, *further, last]


def _given_numbers(federation: Any, end_s: int) -> list[list[bytes]]:
    """Operator A gives numbers to Operator B, which gives one back; certificates name them."""
    numbers = tuple(Tn(f"49302312570{number}") for number in range(5))
    ders = [federation.certificate(tn_auth_list=TnAuthList(tns=numbers[:2]), not_after_s=end_s)]
    ders += [federation.certificate(uris=(f"sip:+{numbers[2]}@a.example",), not_after_s=end_s)]
    ported = TnAuthList(tns=numbers[:1])
    theirs = federation.certificate("Operator B", tn_auth_list=ported, not_after_s=end_s)
    again = federation.certificate("Operator B", tn_auth_list=ported, not_after_s=end_s)
    steps: list[tuple[str, str, int, tuple[Tn, ...]]] = [
        ("Operator A", "Operator B", 0, numbers),
        ("Operator B", "Operator B", 0, ()),
        ("Operator A", "Operator B", 0, numbers),
        ("Operator A", "Operator A", 1, numbers[:1]),
        ("Operator B", "Operator A", 1, numbers[:2]),
    ]
    refused, takes, gives, lacks, back = (_numbers(federation, *step) for step in steps)
    submitted = [federation.submission(der) for der in ders]
    return [
        [*submitted, refused, takes],
        [gives, lacks, federation.submission(theirs, "Operator B")],
        [back, gives, federation.submission(again, "Operator B")],
    ]


def _numbers(federation: Any, by: str, to: str, sequence: int, numbers: tuple[Tn, ...]) -> bytes:
    body = Numbers(federation.genesis.chain_id, by, to, sequence, numbers)
    return endorse(body, [federation.keys[by]])


def _call_placement(federation: Any, end_s: int) -> list[list[bytes]]:
    """A member gets the URL of a call placement service."""
    vendor = replace(federation.genesis.member("Vendor"), domains=("v.example", "w.example"))
    placed = propose(federation, SetMember(replace(vendor, cps="https://cps.v.example"), 3), end_s)
    return [[placed], [vote(federation, placed, True)], []]


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
    proposals = [propose(federation, SetMember(member, None), end_s) for member in members]
    return [*proposals, *map(federation.submission, ders)]


def _nobodys(federation: Any, end_s: int) -> list[bytes]:
    """Anonymous certificates, for this member and for another, and one whose claim constraints cannot be read."""
    bound = [possession_of(federation.genesis.chain_id, name) for name in ("Operator A", "Operator B")]
    ders = [
        federation.certificate(None, common_name=None, possession=each, not_after_s=end_s)
        for each in (None, *bound)
    ]
    numbers = TnAuthList(tns=(Tn("493023125100"),))
    broken = federation.certificate(tn_auth_list=numbers, claim_constraints=ClaimConstraints(), not_after_s=end_s)
    return [*map(federation.submission, ders), federation.submission(broken)]


def _ported(federation: Any) -> SetMember:
    """Operator A gets single numbers."""
    known = federation.genesis.member("Operator A")
    numbers = (TnRange(Tn(f"4930231260{number:02}"), 1) for number in range(62))
    return SetMember(replace(known, ranges=(*known.ranges, *numbers)), 0)


def _compromised_keys(federation: Any, end_s: int) -> list[list[bytes]]:
    key, later = generate_es256(), generate_es256()
    first, second, third = (federation.certificate(key=key, not_after_s=end_s) for _ in range(3))
    successor = federation.certificate(key=later, not_after_s=end_s)
    chain_id = federation.genesis.chain_id
    signature = key.sign(renewal_bytes(chain_id, digest_of(first), digest_of(successor)))
    renewal = Renew(chain_id, "Operator A", successor, digest_of(first), key.public_key_der, signature)
    revoked = SetStatus((digest_of(successor),), CertStatus.REVOKED, "keyCompromise")
    quorum = propose(federation, revoked, end_s)
    return [
        [*map(federation.submission, (first, second)), endorse(renewal, [federation.keys["Operator A"]])],
        [federation.change(digest_of(second), "revoked", 0, reason="keyCompromise"), quorum],
        [federation.submission(third), federation.change(digest_of(first), "valid", 1)],
        [vote(federation, quorum, True)],
    ]


def _probation(federation: Any, last_s: int) -> list[Given]:
    """Operator B, whose validator signed twice, gets another one, which misses some of the blocks at first."""
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    member = replace(federation.genesis.member("Operator B"), validators=(key,))
    proposal = propose(federation, SetMember(member, 1), last_s + 2 * WEEK_S)
    transactions = [[proposal], [vote(federation, proposal, True)]]
    blocks = []
    for number in range(PROBATION_BLOCKS):
        made = block(last_s + DAY_S * (number + 1), transactions[number] if number < 2 else ())
        signs = number > 5 and number not in (8, 9)
        blocks.append(made | {"signers": [text(Validator(key, 1).address)] if signs else []})
    return blocks
