"""Versions of the rules: how one begins, what stops before one that is missing, and what version 2 changes."""

from dataclasses import replace
from typing import Any

import pytest

from tests.present import present
from tests.validator_keys import validator_key
from voice_dpki.codec import cbor
from voice_dpki.effects import SystemRandom
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.activation import (
    RULES_KEY,
    _ascending,
    activations,
    notice,
    read_notice,
    rules_at,
    schedule,
    scheduled,
    version_at,
)
from voice_dpki.ledger.draft import Draft, TxResult
from voice_dpki.ledger.genesis import dump_genesis, load_genesis
from voice_dpki.ledger.kind import Endorsement
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.parameters import Parameters
from voice_dpki.ledger.proposals import (
    BeginRules,
    Change,
    ProposalState,
    RemoveMember,
    ResumeMember,
    SetMember,
    SuspendMember,
    encode_change,
    parse_change,
)
from voice_dpki.ledger.quotas import usage
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.ledger.rules import NEWEST, V1, V2, V3, V4, VERSIONS, MissingRulesError, is_readable, rules_for
from voice_dpki.ledger.signatures import is_canonical
from voice_dpki.ledger.state import Block, Composed, apply, check, check_sender, compose, may_enter
from voice_dpki.ledger.transactions import Batch, ChangeStatus, Propose, Submit, Transaction, canonical, endorse
from voice_dpki.names import Height
from voice_dpki.x509.profile import build_certificate, digest_of

from .test_governance import CHAIN, DELAY_S, KEYS, MEMBERS, START_S, VENDOR, Ledger, identity, member, vote

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
A, B, C, D = (each.organization for each in MEMBERS)
QUOTA = 6
PARAMETERS = Parameters(delay_s=DELAY_S, delay_blocks=2, voting_s=10**6, certificates_per_hour=QUOTA)


def new_ledger(*members: Member, quota: int = 1000) -> Ledger:
    """Return a ledger at its genesis; `quota` certificates an hour."""
    parameters = replace(PARAMETERS, certificates_per_hour=quota)
    data = dump_genesis(CHAIN, START_S * 10**9, [*(members or MEMBERS), VENDOR], parameters=parameters)
    return Ledger(load_genesis(data))


def decided(ledger: Ledger, change: Change, *voters: str) -> tuple[ProposalState, str | None]:
    """Have operators decide on a change, and let the delay pass; return the proposal's state."""
    raw = ledger.propose(change, until_s=ledger.time_s + 10_000)
    assert ledger.block(raw) == ["ok"]
    for voter in voters or (B, C):
        assert ledger.block(vote(raw, voter)) == ["ok"]
    ledger.pass_delay()
    return ledger.state_of(identity(raw))


def version_2(**options: int) -> Ledger:
    """Return a ledger that has just begun version 2."""
    ledger = new_ledger(**options)
    decided(ledger, SetMember(notice(2, 1), None))
    ledger.block(after_s=3600)
    assert rules_at(ledger.state, ledger.height) is V2
    return ledger


def version_3(**options: int) -> Ledger:
    """Return a ledger that has just begun version 3."""
    ledger = version_2(**options)
    decided(ledger, BeginRules(3, 1))
    ledger.block()
    assert rules_at(ledger.state, ledger.height) is V3
    return ledger


def version_4(**options: int) -> Ledger:
    """Return a ledger that has just begun version 4."""
    ledger = version_3(**options)
    decided(ledger, BeginRules(4, 1))
    ledger.block()
    assert rules_at(ledger.state, ledger.height) is V4
    return ledger


def certificate(organization: str = A, name: str = "device", key: Any = None) -> bytes:
    return build_certificate(
        key or KEYS["Vendor"],
        organization=organization,
        common_name=name,
        not_before_s=START_S - 1,
        not_after_s=START_S + 10**7,
        random=SystemRandom(),
    )


def submission(by: str = A, der: bytes = b"", name: str = "device") -> bytes:
    return endorse(Submit(CHAIN, by, der or certificate(by, name, KEYS[by])), [KEYS[by]])


def failing_batch(name: str) -> bytes:
    """Return a batch of operator A with a certificate that is another's."""
    ders = tuple(certificate(by, name, KEYS[by]) for by in (A, B))
    return endorse(Batch(CHAIN, A, ders), [KEYS[A]])


def with_signatures(raw: bytes, *signatures: bytes) -> bytes:
    """Return a transaction with other signatures by the same key, as anybody can make it."""
    transaction = Transaction.parse(raw)
    key_id = transaction.endorsements[0].key_id
    return replace(transaction, endorsements=tuple(Endorsement(key_id, each) for each in signatures)).serialize()


def signature_of(raw: bytes) -> bytes:
    return Transaction.parse(raw).endorsements[0].signature


def other_s(signature: bytes) -> bytes:
    """Return (r, n - s), which verifies as (r, s) does."""
    s = P256_ORDER - int.from_bytes(signature[32:], "big")
    return signature[:32] + s.to_bytes(32, "big")


def composed_of(ledger: Ledger, block: Block) -> Composed:
    return compose(rules_at(ledger.state, block.height), block, apply(ledger.state, block))


def judged(ledger: Ledger, raw: bytes) -> str:
    return check(ledger.state, Height(ledger.height + 1), ledger.time_s, raw).name


def test_a_ledger_begins_with_version_1_and_no_leaf() -> None:
    ledger = new_ledger()
    assert rules_at(ledger.state, 1) is V1
    assert ledger.state.leaf(RULES_KEY) is None
    assert scheduled(ledger.state, 0) is None


def test_version_1_is_told_of_version_2_by_a_member() -> None:
    ledger = new_ledger()
    decided(ledger, SetMember(notice(2, 9), None))
    while ledger.height < 8:
        assert version_at(ledger.state, ledger.height + 1) == 1
        assert scheduled(ledger.state, ledger.height) == (2, 9)
        ledger.block()
    assert version_at(ledger.state, 9) == 2
    assert ledger.state.leaf(RULES_KEY) is None, "up to block 8 the state is that of releases without versions"
    ledger.block()
    assert activations(ledger.state) == ((1, 1), (2, 9))
    assert ledger.state.member(notice(2, 9).organization) is None, "the notice is taken away"
    assert scheduled(ledger.state, ledger.height) is None


def test_a_notice_for_a_past_block_counts_from_the_next_one() -> None:
    ledger = new_ledger()
    decided(ledger, SetMember(notice(2, 1), None))
    assert version_at(ledger.state, ledger.height) == 1, "the block that admits it is of version 1 still"
    assert version_at(ledger.state, ledger.height + 1) == 2


@pytest.mark.parametrize("change", [RemoveMember, SuspendMember])
def test_a_notice_can_be_taken_back(change: type[RemoveMember | SuspendMember]) -> None:
    ledger = new_ledger()
    decided(ledger, SetMember(notice(2, 100), None))
    decided(ledger, change(notice(2, 100).organization))
    assert version_at(ledger.state, 101) == 1


@pytest.mark.parametrize(
    "name",
    [
        "voice-dpki rules 2",
        "voice-dpki rules 2 from block 7 ",
        "Voice-dpki rules 2 from block 7",
        "voice-dpki rules 02 from block 7",
        "voice-dpki rules 2 from block 7\n",
        "voice-dpki rules \uff12 from block 7",
    ],
)
def test_a_name_that_resembles_a_notice_is_none(name: str) -> None:
    assert read_notice(name) is None


def test_what_two_notices_decide_stays_decided_when_the_first_version_begins() -> None:
    ledger = new_ledger()
    for version, height in ((2, 20), (3, 30)):
        decided(ledger, SetMember(notice(version, height), None))
    while ledger.height < 20:
        ledger.block()
    assert ledger.state.leaf(RULES_KEY) is not None
    assert activations(ledger.state) == ((1, 1), (2, 20), (3, 30))


def test_a_version_that_a_later_one_overtakes_never_begins() -> None:
    ledger = new_ledger()
    for version, height in ((2, 50), (3, 40)):
        decided(ledger, SetMember(notice(version, height), None))
    assert activations(ledger.state) == ((1, 1), (3, 40))


def test_from_version_2_on_a_proposal_names_version_and_height() -> None:
    ledger = version_2()
    assert decided(ledger, BeginRules(3, 50)) == (ProposalState.DONE, None)
    assert scheduled(ledger.state, ledger.height) == (3, 50)
    assert [version_at(ledger.state, height) for height in (49, 50)] == [2, 3]


def test_a_version_cannot_begin_before_the_block_after_its_decision() -> None:
    ledger = version_2()
    decided(ledger, BeginRules(3, 1))
    assert scheduled(ledger.state, ledger.height) == (3, ledger.height + 1)


def test_version_1_knows_no_such_proposal() -> None:
    ledger = new_ledger()
    assert ledger.block(ledger.propose(BeginRules(2, 50))) == ["unknown-change"]


@pytest.mark.parametrize("version", [1, 2])
def test_no_earlier_version_and_not_the_present_one_can_begin(version: int) -> None:
    ledger = version_2()
    assert judged(ledger, ledger.propose(BeginRules(version, 50), until_s=ledger.time_s + 10)) == "rules-decided"


def test_one_version_is_scheduled_at_a_time_and_can_be_cancelled() -> None:
    ledger = version_2()
    decided(ledger, BeginRules(3, 500))
    another = BeginRules(4, 600)
    assert judged(ledger, ledger.propose(another, until_s=ledger.time_s + 10)) == "rules-decided"
    assert decided(ledger, BeginRules(2, 0)) == (ProposalState.DONE, None)
    assert scheduled(ledger.state, ledger.height) is None
    assert decided(ledger, another) == (ProposalState.DONE, None)


def test_those_who_approve_must_run_more_than_two_thirds_of_the_validators() -> None:
    """Operator D runs six of the nine validators: the others have two thirds of the votes alone, and D one."""
    crowded = replace(MEMBERS[3], validators=tuple(validator_key(100 + each) for each in range(6)))
    ledger = new_ledger(*MEMBERS[:3], crowded)
    decided(ledger, SetMember(notice(2, 1), None))
    raw = ledger.propose(BeginRules(3, 500), until_s=ledger.time_s + 1000)
    assert ledger.block(raw) == ["ok"]
    for voter in (B, C):
        assert ledger.block(vote(raw, voter)) == ["ok"]
    assert ledger.state_of(identity(raw))[0] is ProposalState.OPEN
    assert ledger.block(vote(raw, D)) == ["ok"]
    assert ledger.state_of(identity(raw))[0] is ProposalState.PASSED


def test_a_block_of_a_version_that_is_missing_is_not_executed() -> None:
    ledger = version_2()
    decided(ledger, BeginRules(7, ledger.height + 9))
    while version_at(ledger.state, ledger.height + 1) == 2:
        ledger.block()
    with pytest.raises(MissingRulesError, match=rf"from block {ledger.height + 1} on .* version 7 .* install"):
        apply(ledger.state, Block(Height(ledger.height + 1), ledger.time_s, ()))
    for judge in (check, check_sender):
        with pytest.raises(MissingRulesError):
            judge(ledger.state, Height(ledger.height + 1), ledger.time_s, submission())


def test_every_version_stays_executable() -> None:
    assert tuple(range(1, NEWEST.version + 1)) == VERSIONS
    assert [rules_for(version, 1).version for version in VERSIONS] == list(VERSIONS)
    with pytest.raises(MissingRulesError):
        rules_for(VERSIONS[-1] + 1, 1)


def test_an_older_reader_goes_on_until_the_upper_bits_grow() -> None:
    assert is_readable(VERSIONS[-1] + 1)
    assert is_readable((1 << 16) - 1)
    assert not is_readable(1 << 16)


def test_a_change_of_rules_is_written_and_read() -> None:
    change = BeginRules(3, 1200)
    assert parse_change(encode_change(change)) == change
    for odd in (BeginRules(0, 1), BeginRules(3, -1), BeginRules(1 << 32, 1), BeginRules(3, 10**12)):
        with pytest.raises(MalformedError):
            parse_change(encode_change(odd))


def test_what_fails_enters_a_block_of_version_1_and_none_of_version_2() -> None:
    """Sixty failing batches of one member cost every node their room, and the member none of its quota."""
    batches = tuple(failing_batch(f"device {number}") for number in range(60))
    for ledger, entered in ((new_ledger(quota=QUOTA), 60), (version_2(quota=QUOTA), 0)):
        height = Height(ledger.height + 1)
        composed = composed_of(ledger, Block(height, ledger.time_s, (*batches, submission())))
        assert len(composed.block.transactions) == entered + 1
        assert composed.outcome == apply(ledger.state, composed.block)
        assert [entering for _, entering in composed.judged] == [*[entered == 60] * 60, True]


def test_a_transaction_that_took_effect_enters_no_second_block_of_version_2() -> None:
    ledger = version_2()
    der = certificate(A, "device", KEYS[A])
    first = submission(A, der)
    suspend = endorse(ChangeStatus(CHAIN, A, digest_of(der), 0, "suspended", "unspecified"), [KEYS[A]])
    proposal = ledger.propose(SetMember(member("Operator E", 5), None), until_s=ledger.time_s + 1000)
    approval = vote(proposal, B)
    assert ledger.block(first) == ledger.block(suspend, proposal)[:1] == ledger.block(approval) == ["ok"]
    used = usage(ledger.state, A)
    repeated = Block(Height(ledger.height + 1), ledger.time_s, (first, suspend, proposal, approval))
    composed = composed_of(ledger, repeated)
    assert composed.block.transactions == ()
    ledger.state.commit(composed.outcome)
    assert usage(ledger.state, A) == used


def test_every_transaction_counts_in_the_hour_from_version_2_on() -> None:
    """Suspended and resumed for ever, a certificate could fill blocks without end in version 1."""
    der = certificate(A, "device", KEYS[A])
    for ledger, refused in ((new_ledger(quota=QUOTA), "ok"), (version_2(quota=QUOTA), "hourly-quota")):
        assert ledger.block(submission(A, der)) == ["ok"]
        for revision in range(QUOTA):
            status = ("suspended", "valid")[revision % 2]
            change = endorse(ChangeStatus(CHAIN, A, digest_of(der), revision, status, "unspecified"), [KEYS[A]])
            assert ledger.block(change) == ["ok" if revision < QUOTA - 1 else refused]
        assert usage(ledger.state, A)[0] == 1, "only certificates count in the total"


def test_a_signature_has_one_form_from_version_2_on() -> None:
    raw = submission()
    first = signature_of(raw)
    varied = (
        with_signatures(raw, other_s(first)),
        with_signatures(raw, first, first),
        with_signatures(raw, first, other_s(first)),
    )
    before, after = new_ledger(), version_2()
    assert is_canonical(first)
    assert [judged(before, each) for each in (raw, *varied)] == ["ok"] * 4
    assert [judged(after, each) for each in (raw, *varied)] == ["ok", *["signature-form"] * 3]


def test_a_node_gives_a_signature_of_an_older_client_its_form() -> None:
    raw = submission()
    assert canonical(with_signatures(raw, other_s(signature_of(raw)))) == raw
    assert canonical(raw) == raw
    twice = with_signatures(raw, signature_of(raw), signature_of(raw))
    assert canonical(twice) == twice, "what cannot be put right is refused as it is"
    assert canonical(b"no transaction") == b"no transaction"


@pytest.mark.parametrize("s", [0, 1, P256_ORDER // 2, P256_ORDER // 2 + 1, P256_ORDER - 1, P256_ORDER, 2**256 - 1])
def test_the_edges_of_s(s: int) -> None:
    assert is_canonical(bytes(32) + s.to_bytes(32, "big")) == (s <= P256_ORDER // 2)


NEUTRAL = b"\x01" + bytes(31)


def test_from_version_3_on_a_validators_key_is_one_that_somebody_holds() -> None:
    """Under the neutral element, of order 1, anybody can sign; version 2 takes it, as it did."""
    newcomer = member("Operator E", 9, validators=(NEUTRAL,))
    for ledger, verdict in ((version_2(), "ok"), (version_3(), "bad-validator-key")):
        raw = ledger.propose(SetMember(newcomer, None), until_s=ledger.time_s + 1000)
        assert judged(ledger, raw) == verdict
        sound = replace(newcomer, validators=(validator_key(9),))
        assert judged(ledger, ledger.propose(SetMember(sound, None), until_s=ledger.time_s + 1000)) == "ok"


CPS = "https://cps.a.example"


def test_from_version_4_on_a_member_has_a_call_placement_service() -> None:
    ledger = version_4()
    changed = replace(present(ledger.state.member(A)), cps=CPS)
    assert decided(ledger, SetMember(changed, changed.revision)) == (ProposalState.DONE, None)
    now = present(ledger.state.member(A))
    assert (now.cps, now.revision) == (CPS, changed.revision + 1)
    without = replace(now, cps="")
    assert decided(ledger, SetMember(without, without.revision)) == (ProposalState.DONE, None)
    assert present(ledger.state.member(A)).cps == ""


def test_other_changes_of_a_member_leave_its_service() -> None:
    ledger = version_4()
    changed = replace(present(ledger.state.member(D)), cps=CPS)
    decided(ledger, SetMember(changed, changed.revision))
    for change in (SuspendMember(D), ResumeMember(D)):
        decided(ledger, change)
        assert present(ledger.state.member(D)).cps == CPS


def test_version_3_knows_no_such_item() -> None:
    for ledger, code in ((version_3(), "unknown-change"), (version_4(), "ok")):
        changed = replace(present(ledger.state.member(A)), cps=CPS)
        assert (
            judged(ledger, ledger.propose(SetMember(changed, changed.revision), until_s=ledger.time_s + 900))
            == code
        )


@pytest.mark.parametrize(
    "items", [{}, {"cps": ""}, {"cps": 7}, {"cps": "http://x"}, {"cps": CPS, "x": 1}, {"x": CPS}, {"!cps": CPS}]
)
def test_no_other_item_comes_by_a_change(items: dict[str, Any]) -> None:
    ledger = version_4()
    member = present(ledger.state.member(A))
    data = cbor.encode(["member", member.revision, *member.parts(), items])
    raw = endorse(Propose(CHAIN, A, ledger.time_s + 900, data), [KEYS[A]])
    assert judged(ledger, raw) == "unknown-change"


@pytest.mark.parametrize(
    ("noticed", "begin"),
    [
        ({}, ()),
        ({1: 5, 2: 9}, ((2, 9),)),
        ({2: 9, 3: 9}, ((3, 9),)),
        ({2: 25, 3: 20, 4: 30}, ((3, 20), (4, 30))),
        ({2: 10, 3: 20, 4: 30}, ((2, 10), (3, 20), (4, 30))),
        ({2: 30, 3: 20, 4: 10}, ((4, 10),)),
    ],
)
def test_each_version_begins_later_than_the_one_before(noticed: dict[int, int], begin: tuple[Any, ...]) -> None:
    """A notice of version 1, which a ledger begins with, says nothing."""
    assert _ascending(noticed) == begin


def test_what_begins_with_a_block_has_begun_in_it() -> None:
    ledger = version_2()
    draft = Draft(ledger.state, V2)
    draft.put(RULES_KEY, ["rules", [[1, 1], [2, 50]]])
    schedule(draft, Block(Height(50), ledger.time_s, ()), 3, 1)
    assert activations(draft) == ((1, 1), (2, 50), (3, 51))


def test_before_the_first_block_version_1_counts() -> None:
    assert version_at(new_ledger().state, 0) == 1


def test_what_is_missing_is_named_in_numbers() -> None:
    with pytest.raises(MissingRulesError) as caught:
        rules_for(99, 1234)
    assert (caught.value.version, caught.value.height) == (99, 1234)


@pytest.mark.parametrize("refusal", Refusal)
def test_only_what_a_valid_sender_sent_may_enter_a_block_though_it_is_refused(refusal: Refusal) -> None:
    result = TxResult(refusal.code, refusal.kebab, refusal.sentence)
    assert may_enter(V1, result) == (refusal.code >= 100)
    assert not may_enter(V2, result)
