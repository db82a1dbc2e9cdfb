"""Governance: more than two thirds decide, after a delay, and no number ever has two owners."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.present import present
from tests.validator_keys import validator_key
from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger import directory, names, tree
from voice_dpki.ledger.admission import check_authority, read_admitted
from voice_dpki.ledger.genesis import Genesis, dump_genesis, load_genesis
from voice_dpki.ledger.governance import is_quorum, least_quorum
from voice_dpki.ledger.header import Validator
from voice_dpki.ledger.members import Member, MemberKind, check_apart
from voice_dpki.ledger.owners import owner_of
from voice_dpki.ledger.parameters import Parameters
from voice_dpki.ledger.proposals import (
    Change,
    ProposalState,
    RemoveMember,
    SetMember,
    SetStatus,
    SuspendMember,
    encode_change,
    entries_of,
    parse_change,
    proposal_id,
    proposal_of,
)
from voice_dpki.ledger.records import Authority, CertStatus
from voice_dpki.ledger.refusals import Refused
from voice_dpki.ledger.standing import status_of
from voice_dpki.ledger.state import Block, MemoryState, apply
from voice_dpki.ledger.transactions import ChangeStatus, Propose, Submit, Transaction, Vote, endorse, key_id_of
from voice_dpki.ledger.validators import validator_sets
from voice_dpki.ledger.view import value_hashes
from voice_dpki.names import CertDigest, Height, Tn
from voice_dpki.x509.keys import generate_es256
from voice_dpki.x509.profile import digest_of
from voice_dpki.x509.tnauthlist import TnAuthList, TnRange

CHAIN = "test-1"
START_S = 1_790_000_000
DELAY_S = 100
OPERATORS = ("Operator A", "Operator B", "Operator C", "Operator D")
KEYS = {name: generate_es256() for name in (*OPERATORS, "Operator E", "Vendor")}


def member(name: str, block: int, **changes: Any) -> Member:
    parts: dict[str, Any] = {
        "organization": name,
        "kind": MemberKind.OPERATOR,
        "domains": (f"{name[-1].lower()}.example",),
        "ranges": (TnRange(Tn(f"4930{block}000"), 1000),),
        "spcs": (f"spc-{block}",),
        "validators": (validator_key(block),),
        "endorsing_keys": (KEYS[name].public_key_der,),
    }
    return Member(**parts | changes)


MEMBERS = [member(name, number) for number, name in enumerate(OPERATORS, 1)]
VENDOR = Member("Vendor", MemberKind.VENDOR, endorsing_keys=(KEYS["Vendor"].public_key_der,))
PARAMETERS = Parameters(delay_s=DELAY_S, delay_blocks=2, voting_s=1000, proposals_per_operator=3)
GENESIS: Genesis = load_genesis(dump_genesis(CHAIN, START_S * 10**9, [*MEMBERS, VENDOR], parameters=PARAMETERS))


class Ledger:
    """A ledger in memory, a block for each call, ten seconds apart."""

    def __init__(self, genesis: Genesis = GENESIS) -> None:
        self.state = genesis.initial_state()
        self.height = 0
        self.time_s = START_S

    def block(
        self,
        *raws: bytes,
        after_s: int = 10,
        misbehaving: tuple[bytes, ...] = (),
        signers: tuple[bytes, ...] = (),
    ) -> list[str]:
        self.height += 1
        self.time_s += after_s
        self.outcome = apply(self.state, Block(Height(self.height), self.time_s, raws, misbehaving, signers))
        self.state.commit(self.outcome)
        return [result.name for result in self.outcome.results]

    def propose(self, change: Change | bytes, by: str = "Operator A", until_s: int | None = None) -> bytes:
        data = change if isinstance(change, bytes) else encode_change(change)
        return endorse(Propose(CHAIN, by, until_s or START_S + 900, data), [KEYS[by]])

    def decide(self, change: Change, *voters: str) -> bytes:
        """Propose a change and have others approve, each in a block; return the proposal's id."""
        raw = self.propose(change)
        assert self.block(raw) == ["ok"]
        for voter in voters:
            assert self.block(vote(raw, voter)) == ["ok"]
        return identity(raw)

    def pass_delay(self) -> None:
        self.block()
        self.block(after_s=DELAY_S)

    def state_of(self, proposal: bytes) -> tuple[ProposalState, str | None]:
        found = proposal_of(self.state, proposal)
        assert found is not None
        return found.state, found.why


def identity(raw: bytes) -> bytes:
    return proposal_id(Transaction.parse(raw).body_bytes)


def vote(proposal: bytes, by: str, approve: bool = True) -> bytes:
    named = proposal if len(proposal) == 32 else identity(proposal)
    return endorse(Vote(CHAIN, by, named, approve), [KEYS[by]])


def keys_of(view: MemoryState, at: int = 1) -> set[int]:
    keys = {validator.public_key for validator in validator_sets(view)[at].validators}
    return {number for number in range(10) if validator_key(number) in keys}


def test_more_than_two_thirds() -> None:
    needed = [next(votes for votes in range(11) if is_quorum(votes, operators)) for operators in range(1, 11)]
    assert needed == [1, 2, 3, 3, 4, 5, 5, 6, 7, 7]
    assert [least_quorum(operators) for operators in range(1, 11)] == needed


NEW = member("Operator E", 5)


def test_a_member_is_admitted_by_quorum_after_the_delay() -> None:
    ledger = Ledger()
    proposal = ledger.decide(SetMember(NEW, None), "Operator B")
    assert ledger.state_of(proposal) == (ProposalState.OPEN, None)
    assert ledger.block(vote(proposal, "Operator C")) == ["ok"]
    assert ledger.state_of(proposal) == (ProposalState.PASSED, None)
    ledger.block(after_s=DELAY_S)
    assert ledger.state.member("Operator E") is None, "one block is not two"
    assert ledger.outcome.members_changed is False
    ledger.block(after_s=0)
    assert ledger.state.member("Operator E") == replace(NEW, admitted_height=ledger.height)
    assert ledger.outcome.validator_updates == ((NEW.validators[0], 1),)
    assert ledger.outcome.members_changed
    assert directory.organizations(ledger.state) == (*OPERATORS, "Operator E", "Vendor")
    assert (keys_of(ledger.state, 0), keys_of(ledger.state, 1)) == ({1, 2, 3, 4}, {1, 2, 3, 4, 5})
    ledger.block()
    assert keys_of(ledger.state, 0) == {1, 2, 3, 4, 5}
    assert owner_of(ledger.state, key_id_of(NEW.endorsing_keys[0])) == "Operator E"
    assert ledger.state_of(proposal) == (ProposalState.DONE, None)
    ledger.block(after_s=1000)
    assert entries_of(ledger.state) == []
    assert proposal_of(ledger.state, proposal) is None


def test_a_key_that_a_member_gives_up_is_nobodys() -> None:
    ledger, new = Ledger(), generate_es256()
    changed = replace(MEMBERS[1], endorsing_keys=(new.public_key_der,))
    ledger.decide(SetMember(changed, 0), "Operator C", "Operator D")
    ledger.pass_delay()
    old_id, new_id = (key_id_of(each.endorsing_keys[0]) for each in (MEMBERS[1], changed))
    assert (owner_of(ledger.state, old_id), owner_of(ledger.state, new_id)) == (None, "Operator B")
    other = replace(MEMBERS[2], endorsing_keys=MEMBERS[1].endorsing_keys)
    proposal = ledger.propose(SetMember(other, 0), until_s=ledger.time_s + 900)
    by_b = endorse(Vote(CHAIN, "Operator B", identity(proposal), True), [new])
    assert ledger.block(proposal, by_b, vote(proposal, "Operator D")) == ["ok"] * 3
    ledger.pass_delay()
    assert owner_of(ledger.state, old_id) == "Operator C"


@pytest.mark.parametrize(("validators", "result"), [(196, "ok"), (197, "too-many-members")])
def test_all_members_together_run_at_most_200_validators(validators: int, result: str) -> None:
    """The four operators have one each."""
    many = replace(NEW, validators=tuple(bytes([9, number]) * 16 for number in range(validators)))
    ledger = Ledger()
    assert ledger.block(ledger.propose(SetMember(many, None))) == [result]


def test_porting_moves_authority_over_numbers(federation: Any) -> None:
    ledger = Ledger()
    a, b = MEMBERS[:2]
    numbers = TnAuthList(ranges=(TnRange(Tn("49301000"), 100),))
    named = read_admitted(certificate(federation, uris=("tel:+49301099",)))
    listed = read_admitted(certificate(federation, tn_auth_list=numbers))
    for profile in (named, listed):
        check_authority(profile, a.allotment)
    smaller = replace(a, ranges=(TnRange(Tn("49301100"), 900),))
    larger = replace(b, ranges=(*b.ranges, TnRange(Tn("49301000"), 100)))
    assert ledger.block(ledger.propose(SetMember(larger, 0))) == ["range-taken"]
    ledger.decide(SetMember(smaller, 0), "Operator B", "Operator C")
    ledger.pass_delay()
    ledger.decide(SetMember(larger, 0), "Operator B", "Operator C")
    ledger.pass_delay()
    now = {name: ledger.state.member(name) for name in OPERATORS[:2]}
    for profile in (named, listed):
        with pytest.raises(Refused):
            check_authority(profile, present(now["Operator A"]).allotment)
        check_authority(profile, present(now["Operator B"]).allotment)
    assert [present(now[name]).revision for name in OPERATORS[:2]] == [1, 1]


def test_nobody_uses_up_a_number_before_giving_it_away(federation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_LISTED", 2)
    ledger, uris = Ledger(), ("tel:+49304001",)
    old = [certificate(federation, "Operator D", common_name=str(number), uris=uris) for number in range(2)]
    assert ledger.block(*(submission(der, "Operator D") for der in old)) == ["ok", "ok"]
    ledger.decide(RemoveMember("Operator D"), "Operator B", "Operator C")
    ledger.pass_delay()
    ledger.decide(SetMember(replace(MEMBERS[0], ranges=MEMBERS[3].ranges), 0), "Operator B", "Operator C")
    ledger.pass_delay()
    new = certificate(federation, uris=uris)
    assert ledger.block(submission(new)) == ["ok"]
    listed = [data for key in names.number_keys(Tn("49304001")) if (data := ledger.state.leaf(key))]
    assert names.parse_listed(listed[0]) == tuple(sorted(map(digest_of, (*old, new))))


def test_a_range_that_was_taken_meanwhile_is_refused_when_it_is_due() -> None:
    ledger = Ledger()
    wanted = TnRange(Tn("49309000"), 1000)
    first = ledger.propose(SetMember(replace(MEMBERS[0], ranges=(wanted,)), 0))
    second = ledger.propose(SetMember(replace(NEW, ranges=(wanted,)), None), "Operator B")
    assert ledger.block(first, second) == ["ok", "ok"]
    for raw in (first, second):
        ledger.block(*(vote(raw, voter) for voter in OPERATORS))
    ledger.pass_delay()
    states = [ledger.state_of(identity(raw)) for raw in (first, second)]
    assert sorted(states) == [(ProposalState.DONE, None), (ProposalState.FAILED, "range-taken")]
    check_apart(directory.members_of(ledger.state))


CONFLICTS = [
    ({"ranges": (TnRange(Tn("49301999"), 2),)}, "range-taken"),
    ({"spcs": ("spc-1",)}, "spc-taken"),
    ({"domains": ("sub.a.example",)}, "domain-taken"),
    ({"domains": ("example",)}, "domain-taken"),
    ({"validators": (validator_key(1),)}, "validator-taken"),
    ({"validators": tuple(bytes([99, at]) * 16 for at in range(200))}, "too-many-members"),
    ({"endorsing_keys": (KEYS["Operator B"].public_key_der,)}, "endorsing-key-taken"),
]


@pytest.mark.parametrize(("changes", "name"), CONFLICTS)
def test_what_is_anothers_cannot_be_proposed(changes: dict[str, Any], name: str) -> None:
    ledger = Ledger()
    before = tree.root(ledger.state)
    assert ledger.block(ledger.propose(SetMember(replace(NEW, **changes), None))) == [name]
    assert tree.root(ledger.state) == before


@pytest.mark.parametrize(
    ("version", "height", "read"),
    [(1, 0, True), ((1 << 32) - 1, 1, True), (1 << 32, 1, False), (0, 1, False), (1, -1, False), (-1, 1, False)],
)
def test_versions_of_the_rules_are_below_2_to_the_32(version: int, height: int, read: bool) -> None:
    data = cbor.encode(["rules", version, height])
    if read:
        assert encode_change(parse_change(data)) == data
    else:
        with pytest.raises(MalformedError):
            parse_change(data)


def test_certificates_of_one_change_are_named_once_each() -> None:
    def change(*digests: bytes) -> bytes:
        return cbor.encode(["status", list(digests), "revoked", "unspecified"])

    assert parse_change(change(bytes(32), b"x" * 32))
    for digests in ((bytes(32), bytes(32)), (), (bytes(31),)):
        with pytest.raises(MalformedError):
            parse_change(change(*digests))


def test_proposals_that_are_refused() -> None:
    ledger = Ledger()
    refused = {
        ledger.propose(SetMember(NEW, 0)): "wrong-member-revision",
        ledger.propose(SetMember(MEMBERS[0], None)): "wrong-member-revision",
        ledger.propose(SetMember(MEMBERS[0], 1)): "wrong-member-revision",
        ledger.propose(RemoveMember("Operator E")): "wrong-member-revision",
        ledger.propose(SuspendMember("Operator E")): "wrong-member-revision",
        ledger.propose(SetStatus((CertDigest(bytes(32)),), CertStatus.REVOKED, "keyCompromise")): "not-recorded",
        ledger.propose(RemoveMember("Operator B"), "Vendor"): "not-an-operator",
        ledger.propose(RemoveMember("Operator B"), until_s=START_S): "bad-deadline",
        ledger.propose(RemoveMember("Operator B"), until_s=START_S + 1011): "bad-deadline",
        ledger.propose(b"nonsense"): "unknown-change",
        vote(bytes(32), "Operator B"): "unknown-proposal",
        vote(bytes(32), "Vendor"): "not-an-operator",
    }
    assert ledger.block(*refused) == list(refused.values())
    assert ledger.outcome.leaves == {}


def test_proposals_are_bounded_and_made_once() -> None:
    ledger = Ledger()
    raws = [ledger.propose(RemoveMember(name)) for name in OPERATORS]
    assert ledger.block(*raws) == ["ok", "ok", "ok", "too-many-proposals"]
    assert ledger.block(raws[0]) == ["already-proposed"]
    assert ledger.block(ledger.propose(RemoveMember("Operator A"), "Operator B")) == ["ok"], "others may"
    ledger.block(after_s=1000)
    assert entries_of(ledger.state) == []
    assert ledger.block(raws[0]) == ["bad-deadline"], "it cannot be brought back"


def test_votes_count_once_and_refusal_decides_too() -> None:
    ledger = Ledger()
    raw = ledger.propose(RemoveMember("Operator D"))
    assert ledger.block(raw, vote(raw, "Operator A"), vote(raw, "Operator B", False), vote(raw, "Operator B")) == [
        "ok",
        "already-voted",
        "ok",
        "already-voted",
    ]
    assert ledger.state_of(identity(raw)) == (ProposalState.OPEN, None)
    ledger.block(vote(raw, "Operator C", False))
    assert ledger.state_of(identity(raw)) == (ProposalState.FAILED, "no-quorum")
    assert ledger.block(vote(raw, "Operator D")) == ["not-open"]
    assert ledger.state.member("Operator D") is not None


def certificate(federation: Any, name: str = "Operator A", **options: Any) -> bytes:
    return federation.certificate(name, not_after_s=START_S + 10**7, **options)


def submission(der: bytes, by: str = "Operator A") -> bytes:
    return endorse(Submit(CHAIN, by, der), [KEYS[by]])


def test_a_removed_operator_loses_trust_for_its_signers_and_does_not_regain_it(federation: Any) -> None:
    ledger, der = Ledger(), certificate(federation, "Operator D")
    assert ledger.block(submission(der, "Operator D")) == ["ok"]
    ledger.decide(RemoveMember("Operator D"), "Operator B", "Operator C")
    ledger.pass_delay()
    record = ledger.state.record(digest_of(der))
    assert ledger.state.member("Operator D") is None
    assert ledger.outcome.validator_updates == ((validator_key(4), 0),)
    assert status_of(record, ledger.state.member("Operator D"), ledger.time_s) is CertStatus.REVOKED
    other = certificate(federation, "Operator D")
    assert ledger.block(submission(other, "Operator D")) == ["unknown-member"]
    ledger.decide(SetMember(MEMBERS[3], None), "Operator B", "Operator C")
    ledger.pass_delay()
    assert ledger.block(submission(other, "Operator D")) == ["ok"]
    again = ledger.state.member("Operator D")
    assert status_of(record, again, ledger.time_s) is CertStatus.REVOKED
    assert status_of(ledger.state.record(digest_of(other)), again, ledger.time_s) is CertStatus.VALID


def test_a_quorum_stops_a_compromised_operator_at_once(federation: Any) -> None:
    ledger, der = Ledger(), certificate(federation, "Operator D")
    digest = digest_of(der)
    ledger.block(submission(der, "Operator D"))
    ledger.decide(SetStatus((digest,), CertStatus.SUSPENDED, "keyCompromise"), "Operator B", "Operator C")
    record = ledger.state.record(digest)
    assert record is not None
    assert (record.status, record.changed_by) == (CertStatus.SUSPENDED, Authority.QUORUM)
    resume = endorse(ChangeStatus(CHAIN, "Operator D", digest, 1, "valid", "removeFromCRL"), [KEYS["Operator D"]])
    assert ledger.block(resume) == ["outranked"]
    ledger.decide(SetStatus((digest,), CertStatus.REVOKED, "keyCompromise"), "Operator B", "Operator C")
    assert present(ledger.state.record(digest)).status is CertStatus.REVOKED
    ledger.decide(SuspendMember("Operator D"), "Operator B", "Operator C")
    suspended = ledger.state.member("Operator D")
    assert suspended is not None
    assert suspended.suspended
    assert ledger.block(submission(certificate(federation, "Operator D"), "Operator D")) == ["suspended-member"]
    assert directory.operators_of(ledger.state) == set(OPERATORS[:3])


def test_a_quorum_revokes_for_good(federation: Any) -> None:
    ledger, der = Ledger(), certificate(federation, "Operator D")
    digest = digest_of(der)
    ledger.block(submission(der, "Operator D"))
    ledger.decide(SetStatus((digest,), CertStatus.REVOKED, "keyCompromise"), "Operator B", "Operator C")
    revoked = ledger.state.record(digest)
    for status in (CertStatus.SUSPENDED, CertStatus.VALID):
        raw = ledger.propose(SetStatus((digest,), status, "unspecified"))
        ledger.block(raw, *(vote(raw, voter) for voter in OPERATORS[1:3]))
        assert ledger.state.record(digest) == revoked, status


def test_changes_take_effect_before_a_block_prunes(federation: Any) -> None:
    """The key of an expired certificate is still its organisation's in the block that forgets the certificate."""
    ledger = Ledger(replace(GENESIS, parameters=replace(PARAMETERS, retention_s=0, voting_s=10**7)))
    key = generate_es256()
    raw = ledger.propose(
        SetMember(replace(NEW, endorsing_keys=(key.public_key_der,)), None), until_s=START_S + 10**6
    )
    ledger.block(raw, *(vote(raw, voter) for voter in OPERATORS[1:3]))
    der = federation.certificate("Operator A", key=key, not_after_s=START_S + 3600)
    assert ledger.block(submission(der)) == ["ok"]
    ledger.block(after_s=2 * 86_400)
    assert ledger.state.record(digest_of(der)) is None, "pruned in this very block"
    assert ledger.state_of(identity(raw)) == (ProposalState.FAILED, "endorsing-key-taken")


def test_a_delay_of_no_blocks_is_one_block() -> None:
    """What a block decides, the next one does: the light clients of the block itself know its validators."""
    ledger = Ledger(replace(GENESIS, parameters=replace(PARAMETERS, delay_blocks=0, delay_s=0)))
    raw = ledger.propose(SetMember(NEW, None))
    ledger.block(raw, *(vote(raw, voter) for voter in OPERATORS[1:3]), after_s=0)
    passed = proposal_of(ledger.state, identity(raw))
    assert passed is not None
    assert (passed.state, passed.due_height) == (ProposalState.PASSED, ledger.height + 1)
    assert ledger.state.member("Operator E") is None
    ledger.block(after_s=0)
    assert ledger.state.member("Operator E") is not None


@pytest.mark.parametrize(
    ("until_s", "result"), [(0, "bad-deadline"), (1, "ok"), (1000, "ok"), (1001, "bad-deadline")]
)
def test_the_deadline_lies_after_the_block_and_within_the_time_for_votes(until_s: int, result: str) -> None:
    ledger = Ledger()
    raw = ledger.propose(RemoveMember("Operator D"), until_s=START_S + 10 + until_s)
    assert ledger.block(raw) == [result]


def test_what_took_effect_at_the_deadline_itself_is_still_told() -> None:
    ledger = Ledger()
    raw = ledger.propose(SetMember(NEW, None), until_s=START_S + 10 + DELAY_S)
    ledger.block(raw, *(vote(raw, voter) for voter in OPERATORS[1:3]))
    ledger.block(after_s=0)
    ledger.block(after_s=DELAY_S)
    assert ledger.state_of(identity(raw)) == (ProposalState.DONE, None)
    ledger.block(after_s=1)
    assert proposal_of(ledger.state, identity(raw)) is None


def test_votes_count_up_to_the_deadline_itself() -> None:
    ledger = Ledger()
    raw = ledger.propose(RemoveMember("Operator D"), until_s=START_S + 110)
    assert ledger.block(raw) == ["ok"]
    assert ledger.block(vote(raw, "Operator B"), after_s=100) == ["ok"]
    assert proposal_of(ledger.state, identity(raw)) is not None
    assert ledger.block(vote(raw, "Operator C"), after_s=1) == ["unknown-proposal"]


def test_changing_a_suspended_member_ends_the_suspension() -> None:
    ledger = Ledger()
    ledger.decide(SuspendMember("Operator D"), "Operator B", "Operator C")
    proposal = ledger.decide(SetMember(MEMBERS[3], 1), "Operator B")
    assert ledger.state_of(proposal)[0] is ProposalState.OPEN
    ledger.block(vote(proposal, "Operator C"))
    ledger.pass_delay()
    assert ledger.state.member("Operator D") == replace(MEMBERS[3], revision=2)


def test_a_quorum_must_still_hold_when_the_change_is_due() -> None:
    """Of the three who approved, one is suspended before the change is due."""
    ledger = Ledger()
    proposal = ledger.decide(RemoveMember("Operator A"), "Operator B", "Operator C")
    ledger.decide(SuspendMember("Operator C"), "Operator B", "Operator D")
    ledger.pass_delay()
    assert ledger.state_of(proposal) == (ProposalState.FAILED, "no-quorum")


def test_the_ledger_is_never_left_without_operators() -> None:
    ledger = Ledger()
    for name, voters in (("D", "BC"), ("C", "BC"), ("B", "B")):
        ledger.decide(RemoveMember(f"Operator {name}"), *(f"Operator {voter}" for voter in voters))
        ledger.pass_delay()
        ledger.block(after_s=1)
    ledger.block(after_s=1000)
    assert directory.operators_of(ledger.state) == {"Operator A"}
    assert ledger.block(ledger.propose(RemoveMember("Operator A"), until_s=ledger.time_s + 500)) == [
        "no-validators"
    ]
    assert ledger.block(ledger.propose(SuspendMember("Operator A"), until_s=ledger.time_s + 500)) == [
        "no-validators"
    ]


def address(number: int) -> bytes:
    return Validator(validator_key(number), 1).address


def test_a_validator_that_signed_twice_is_removed() -> None:
    ledger = Ledger()
    ledger.block(misbehaving=(address(2), bytes(20)))
    assert ledger.state.member("Operator B") == replace(MEMBERS[1], validators=(), revision=1)
    assert ledger.outcome.validator_updates == ((validator_key(2), 0),)
    ledger.block(misbehaving=(address(2),))
    assert not ledger.outcome.validator_updates
    ledger.block(misbehaving=tuple(map(address, (1, 3, 4))))
    assert len(validator_sets(ledger.state)[1].validators) == 1, "the last one stays, or there would be no ledger"


def test_a_rogue_operator_with_all_its_keys_rules_nothing(federation: Any) -> None:
    ledger = Ledger()
    victims = certificate(federation)
    ledger.block(submission(victims))
    revoke = ChangeStatus(CHAIN, "Operator A", digest_of(victims), 0, "revoked", "keyCompromise")
    ledger.block(endorse(revoke, [KEYS["Operator A"]]))
    rogue = "Operator D"
    numbers = TnAuthList(ranges=(TnRange(Tn("49301000"), 10),))
    attempts = {
        submission(certificate(federation), rogue): "wrong-organization",
        submission(certificate(federation, rogue, tn_auth_list=numbers), rogue): "numbers-outside-ranges",
        endorse(Submit(CHAIN, "Operator A", certificate(federation)), [KEYS[rogue]]): "unknown-signer",
        endorse(replace(revoke, by=rogue, revision=1, status="valid"), [KEYS[rogue]]): "not-the-owner",
        endorse(replace(revoke, revision=1, status="valid"), [KEYS["Operator A"]]): "transition-not-allowed",
    }
    assert ledger.block(*attempts) == list(attempts.values())
    grab = replace(MEMBERS[3], ranges=(*MEMBERS[3].ranges, *MEMBERS[0].ranges))
    assert ledger.block(ledger.propose(SetMember(grab, 0), rogue)) == ["range-taken"]
    raw = ledger.propose(RemoveMember("Operator A"), rogue)
    others = [endorse(Vote(CHAIN, name, identity(raw), True), [KEYS[rogue]]) for name in OPERATORS[:3]]
    assert ledger.block(raw, *others, vote(raw, rogue)) == ["ok", *["unknown-signer"] * 3, "already-voted"]
    ledger.pass_delay()
    assert ledger.state.member("Operator A") == MEMBERS[0]
    check_apart(directory.members_of(ledger.state))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_change_or_refused(data: bytes) -> None:
    ledger = Ledger()
    assert ledger.block(ledger.propose(data)) == ["unknown-change"]


CHANGES = [
    SetMember(NEW, None),
    SetMember(MEMBERS[0], 7),
    SetMember(VENDOR, 0),
    RemoveMember("Vendor"),
    SuspendMember("Operator A"),
    SetStatus((CertDigest(bytes(32)), CertDigest(validator_key(1))), CertStatus.SUSPENDED, "certificateHold"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_have_one_encoding(change: Change) -> None:
    assert parse_change(encode_change(change)) == change


# The model: what operators decide, computed in the plainest way, with ranges as sets of numbers.

SLOTS = st.sets(st.integers(0, 5), max_size=3)
NAMES = (*OPERATORS, "Operator E")
PROPOSE = st.tuples(st.just("propose"), st.sampled_from(OPERATORS), st.sampled_from(NAMES), SLOTS | st.none())
VOTES = st.permutations([(name, name != "Operator D") for name in OPERATORS]).flatmap(
    lambda votes: st.integers(0, 4).map(lambda count: [("vote", by, -1, how) for by, how in votes[:count]])
)
LATE_VOTE = st.tuples(st.just("vote"), st.sampled_from(OPERATORS), st.integers(0, 5), st.booleans())
WAIT = st.tuples(st.just("wait"), st.just(""), st.sampled_from((1, 12)), st.none())
ROUND = st.builds(
    lambda proposal, votes, rest: [proposal, *votes, *rest], PROPOSE, VOTES, st.lists(LATE_VOTE | WAIT, max_size=4)
)
STEPS = st.lists(ROUND, max_size=7).map(lambda rounds: [step for steps in rounds for step in steps])


LONG = replace(GENESIS, parameters=replace(PARAMETERS, voting_s=10**6, proposals_per_operator=5))
"""No proposal's time is over while the model runs."""


class Model:
    """Members as sets of numbered blocks of numbers, and the proposals about them."""

    def __init__(self) -> None:
        self.slots: dict[str, set[int]] = {name: {number} for number, name in enumerate(OPERATORS, 1)}
        self.revisions: dict[str, int] = dict.fromkeys(OPERATORS, 0)
        self.proposals: list[dict[str, Any]] = []

    def possible(self, name: str, slots: set[int] | None, revision: int | None) -> bool:
        if slots is None:
            return name in self.slots and len(self.slots) > 1
        taken = set().union(*(theirs for other, theirs in self.slots.items() if other != name))
        return self.revisions.get(name) == revision and not slots & taken

    def quorum(self, proposal: dict[str, Any]) -> bool:
        return 3 * len(proposal["for"] & self.slots.keys()) > 2 * len(self.slots)

    def make(self, proposal: dict[str, Any]) -> None:
        name, slots, revision = proposal["what"]
        if not self.quorum(proposal) or not self.possible(name, slots, revision):
            return
        if slots is None:
            del self.slots[name], self.revisions[name]
        else:
            self.slots[name] = slots
            self.revisions[name] = 0 if revision is None else revision + 1

    def count(self, proposal: dict[str, Any], height: int, time_s: int) -> None:
        against = len(proposal["against"] & self.slots.keys())
        if self.quorum(proposal):
            proposal["due"] = (height + 2, time_s + DELAY_S)
        proposal["open"] = proposal["due"] is None and 3 * (len(self.slots) - against) > 2 * len(self.slots)

    def begin(self, height: int, time_s: int) -> None:
        due = [
            each for each in self.proposals if each["due"] and height >= each["due"][0] and time_s >= each["due"][1]
        ]
        for proposal in sorted(due, key=lambda each: (*each["due"], each["id"])):
            proposal["due"] = None
            self.make(proposal)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_any_course_of_votes_follows_the_model(steps: list[Any]) -> None:
    ledger, model, serial = Ledger(LONG), Model(), 0
    for kind, by, what, how in steps:
        if kind == "wait":
            ledger.block(after_s=what * 10)
            model.begin(ledger.height, ledger.time_s)
        elif kind == "propose":
            serial += 1
            raw, proposed = a_proposal(ledger, model, by, what, how, serial)
            result = ledger.block(raw)
            model.begin(ledger.height, ledger.time_s)
            expected = (
                by in model.slots
                and sum(each["by"] == by for each in model.proposals) < LONG.parameters.proposals_per_operator
                and model.possible(*proposed["what"])
            )
            assert (result == ["ok"]) == expected, result
            if expected:
                model.proposals.append(proposed)
                model.count(proposed, ledger.height, ledger.time_s)
        elif model.proposals and what < len(model.proposals):
            proposal = model.proposals[what]
            result = ledger.block(vote(proposal["id"], by, how))
            model.begin(ledger.height, ledger.time_s)
            voted = by in proposal["for"] | proposal["against"]
            assert (result == ["ok"]) == (
                by in model.slots and bool(proposal["open"] or proposal["due"]) and not voted
            ), result
            if result == ["ok"]:
                proposal["for" if how else "against"].add(by)
                if proposal["due"] is None:
                    model.count(proposal, ledger.height, ledger.time_s)
        compare(ledger, model)
    rebuilt = tree.update(MemoryState(""), value_hashes(ledger.state.leaves))
    assert rebuilt.nodes == ledger.state.nodes


def a_proposal(
    ledger: Ledger, model: Model, by: str, name: str, slots: set[int] | None, serial: int
) -> tuple[bytes, dict[str, Any]]:
    revision = model.revisions.get(name)
    change: Change = RemoveMember(name)
    if slots is not None:
        blocks = tuple(TnRange(Tn(f"4930{slot}000"), 1000) for slot in sorted(slots))
        number = NAMES.index(name) + 1
        change = SetMember(member(name, number, ranges=blocks), revision)
    raw = ledger.propose(change, by, until_s=START_S + 10**5 + serial)
    proposed = {"id": identity(raw), "by": by, "what": (name, slots, revision), "for": {by}, "against": set()}
    return raw, proposed | {"due": None, "open": True}


def compare(ledger: Ledger, model: Model) -> None:
    members = {each.organization: each for each in directory.members_of(ledger.state) if each != VENDOR}
    assert {name: each.revision for name, each in members.items()} == model.revisions
    for name, each in members.items():
        assert {int(entry.start[4]) for entry in each.ranges} == model.slots[name]
    check_apart(directory.members_of(ledger.state))
    validators = {key for each in members.values() for key in each.validators}
    assert {validator.public_key for validator in validator_sets(ledger.state)[1].validators} == validators
