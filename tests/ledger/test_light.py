"""The light client accepts real chains from genesis alone, and refuses every change to them."""

import copy
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.ledger.block import NextBlock, SignFunction, sign_commit
from voice_dpki.ledger.header import (
    ABSENT,
    BlockId,
    BlockIdFlag,
    Commit,
    CommitSig,
    Header,
    PartSetHeader,
    SignedHeader,
    Validator,
    ValidatorSet,
    parse_time,
)
from voice_dpki.ledger.light import (
    MAX_APPROACH_STEPS,
    MAX_TRUSTED,
    ForkError,
    LightBlock,
    LightClient,
    LightCode,
    LightError,
    TrustPoint,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "cometbft"
NS = 10**9


def load(name: str) -> Any:
    value = json.loads((VECTORS / name).read_text())
    return value.get("result", value)


def signed_at(name: str, height: int) -> SignedHeader:
    return SignedHeader.from_json(load(f"{name}commit-{height}.json")["signed_header"])


def validators_at(name: str, height: int) -> ValidatorSet:
    return ValidatorSet.from_json(load(f"{name}validators-{height}.json"))


def genesis(name: str) -> tuple[str, TrustPoint]:
    document = load(f"{name}genesis.json")["genesis"]
    validators = [{**each, "voting_power": each["power"]} for each in document["validators"]]
    validators = [{key: each[key] for key in ("address", "pub_key", "voting_power")} for each in validators]
    trust = TrustPoint.genesis(
        ValidatorSet.from_json({"validators": validators}), parse_time(document["genesis_time"])
    )
    return document["chain_id"], trust


def client_at_genesis(name: str = "") -> LightClient:
    return LightClient(*genesis(name))


def refusal(verify: Callable[..., object], *arguments: object, **options: object) -> LightCode:
    with pytest.raises(LightError) as refused:
        verify(*arguments, **options)
    return refused.value.code


NOW_S = parse_time("2026-11-24T02:10:30Z") / NS
CHANGING_NOW_S = parse_time("2026-11-24T07:20:00Z") / NS


# Real chains


@pytest.mark.parametrize("heights", [(2, 5, 15), (15,), (5, 15)])
def test_real_headers_are_accepted_from_genesis(heights: tuple[int, ...]) -> None:
    client = client_at_genesis()
    for height in heights:
        assert client.verify(signed_at("", height), None, NOW_S).height == height
    assert client.latest.height == 15
    assert client.age_s(NOW_S) == pytest.approx(10.4, abs=0.01)


def test_changes_of_the_validators_are_followed() -> None:
    client = client_at_genesis("changing/")
    for height in (1, 2, 209, 212, 213, 214, 219, 220, 221):
        signed = signed_at("changing/", height)
        client.verify(signed, validators_at("changing/", height), CHANGING_NOW_S)
    assert [validator.power for validator in client.latest.validators.validators] == [5, 4, 2]


def test_validators_are_asked_for_only_when_they_changed() -> None:
    client = client_at_genesis("changing/")
    for height in (1, 2, 209, 212, 213, 214, 219, 220, 221):
        signed = signed_at("changing/", height)
        if height in (214, 220):
            assert refusal(client.verify, signed, None, CHANGING_NOW_S) is LightCode.VALIDATORS_NEEDED
            client.verify(signed, validators_at("changing/", height), CHANGING_NOW_S)
        else:
            client.verify(signed, None, CHANGING_NOW_S)


def test_a_client_goes_on_from_a_stored_point() -> None:
    stored = TrustPoint.at(signed_at("changing/", 214), validators_at("changing/", 214))
    client = LightClient("vectors-2", stored)
    client.verify(signed_at("changing/", 221), validators_at("changing/", 221), CHANGING_NOW_S)
    client.verify(signed_at("changing/", 214), None, CHANGING_NOW_S, min_height=0)
    with pytest.raises(LightError) as refused:
        TrustPoint.at(signed_at("changing/", 214), validators_at("changing/", 213))
    assert refused.value.code is LightCode.WRONG_VALIDATORS


# Every change to them


def flip(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ 1 << bit % (8 * len(data))).to_bytes(len(data), "big")


def changed(value: Any, bit: int) -> Any:
    """A field of a frozen record with one bit flipped."""
    if isinstance(value, bytes):
        return flip(value, bit) if value else b"\x01"
    if isinstance(value, str):
        return flip(value.encode(), 8 * (bit % len(value))).decode()
    if isinstance(value, BlockIdFlag):
        return BlockIdFlag(1 + value % 3)
    if isinstance(value, int):
        return value ^ 1 << bit % 31
    name = ("hash", "total")[bit % 2] if isinstance(value, PartSetHeader) else ("hash", "parts")[bit % 2]
    return replace(value, **{name: changed(getattr(value, name), bit // 2)})


def mutants(signed: SignedHeader, bit: int) -> Iterable[tuple[str, SignedHeader]]:
    for name in Header.__dataclass_fields__:
        header = replace(signed.header, **{name: changed(getattr(signed.header, name), bit)})
        yield f"header.{name}", replace(signed, header=header)
    for name in ("height", "round", "block_id"):
        commit = replace(signed.commit, **{name: changed(getattr(signed.commit, name), bit)})
        yield f"commit.{name}", replace(signed, commit=commit)
    for index, vote in enumerate(signed.commit.signatures):
        for name in CommitSig.__dataclass_fields__ if vote != ABSENT else ():
            votes = list(signed.commit.signatures)
            votes[index] = replace(vote, **{name: changed(getattr(vote, name), bit)})
            commit = replace(signed.commit, signatures=tuple(votes))
            yield f"vote {index} {name}", replace(signed, commit=commit)


def lean(signed: SignedHeader, validators: ValidatorSet) -> SignedHeader:
    """The header with no more votes than it needs."""
    votes = list(signed.commit.signatures)
    for index in range(len(votes)):
        fewer = [*votes[:index], ABSENT, *votes[index + 1 :]]
        if 3 * power_of(fewer, validators) > 2 * validators.total_power:
            votes = fewer
    return replace(signed, commit=replace(signed.commit, signatures=tuple(votes)))


def power_of(votes: Iterable[CommitSig], validators: ValidatorSet) -> int:
    pairs = zip(votes, validators.validators, strict=True)
    return sum(validator.power for vote, validator in pairs if vote.flag is BlockIdFlag.COMMIT)


def counted(client: LightClient, index: int) -> bool:
    """Whether a validator's vote for the latest header was counted."""
    assert client.latest.signed_header
    return client.latest.signed_header.commit.signatures[index].flag is BlockIdFlag.COMMIT


REAL = pytest.mark.parametrize(("name", "height"), [("", 2), ("", 15), ("changing/", 1), ("changing/", 221)])


@REAL
@given(bit=st.integers(0, 2**20))
def test_one_changed_bit_is_refused_or_costs_its_vote(name: str, height: int, bit: int) -> None:
    """A vote that was changed is not counted; a change anywhere else, and in the place of a vote, is refused."""
    now_s = CHANGING_NOW_S if name else NOW_S
    signed, validators = signed_at(name, height), validators_at(name, height)
    for what, mutant in mutants(signed, bit):
        client = client_at_genesis(name)
        try:
            header = client.verify(mutant, validators, now_s)
        except LightError:
            continue
        _, index, part = what.split()
        assert part != "validator_address", what
        assert header == signed.header
        assert not counted(client, int(index)), what


@REAL
@given(bit=st.integers(0, 2**20))
def test_one_changed_bit_is_refused_where_every_vote_is_needed(name: str, height: int, bit: int) -> None:
    client, now_s = client_at_genesis(name), CHANGING_NOW_S if name else NOW_S
    validators = validators_at(name, height)
    signed = lean(signed_at(name, height), validators)
    for what, mutant in mutants(signed, bit):
        with pytest.raises(LightError):
            pytest.fail(f"{what} was changed and {client.verify(mutant, validators, now_s)} accepted")
    client.verify(signed, validators, now_s)


@given(st.integers(0, 3), st.integers(0, 255), st.integers(0, 20))
def test_one_changed_bit_of_a_validator_is_refused(index: int, key_bit: int, power_bit: int) -> None:
    """In the set that comes with a header, and in the genesis file."""
    signed, validators = signed_at("", 2), list(validators_at("", 2).validators)
    one = validators[index]
    for other in (replace(one, public_key=flip(one.public_key, key_bit)), replace(one, power=1 + (1 << power_bit))):
        mutant = ValidatorSet.of([*validators[:index], other, *validators[index + 1 :]])
        client = client_at_genesis()
        assert refusal(client.verify, signed, mutant, NOW_S) is LightCode.WRONG_VALIDATORS
        client = LightClient("vectors-1", TrustPoint.genesis(mutant, 0), trusting_period_s=math.inf)
        assert refusal(client.verify, signed, None, NOW_S) is LightCode.VALIDATORS_NEEDED


def text_places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, (dict, list)):
        items: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
        return [place for name, inner in items for place in text_places(inner, (*path, name))]
    return [path]


SIGNED_JSON = lean(signed_at("", 15), validators_at("", 15)).to_json()


@given(st.sampled_from(text_places(SIGNED_JSON)), st.integers(0, 2**20))
def test_one_changed_bit_of_the_json_is_refused(place: tuple[Any, ...], bit: int) -> None:
    value = copy.deepcopy(SIGNED_JSON)
    target = value
    for name in place[:-1]:
        target = target[name]
    old = target[place[-1]]
    if isinstance(old, str) and old:
        at = bit % len(old)
        target[place[-1]] = old[:at] + chr(ord(old[at]) ^ 1 << bit % 7) + old[at + 1 :]
    else:
        target[place[-1]] = old ^ 1 << bit % 70 if isinstance(old, int) else "A"
    with pytest.raises((LightError, MalformedError)):
        client_at_genesis().verify(SignedHeader.from_json(value), validators_at("", 15), NOW_S)


# Chains of our own making, for what a real one does not show


def private_key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha256(seed.to_bytes(2, "big")).digest())


def address(seed: int) -> bytes:
    return Validator(private_key(seed).public_key().public_bytes_raw(), 1).address


def federation(*seeds: int) -> ValidatorSet:
    return ValidatorSet.of(Validator(private_key(seed).public_key().public_bytes_raw(), 1) for seed in seeds)


def signers(seeds: Iterable[int]) -> dict[bytes, SignFunction]:
    return {address(seed): private_key(seed).sign for seed in seeds}


class Chain:
    """A made chain; each block is by the validators given for it, and signed by `voters` of them."""

    def __init__(self, *seeds: int) -> None:
        self.sets = [seeds]
        self.blocks: list[SignedHeader] = []

    @property
    def trust(self) -> TrustPoint:
        return TrustPoint.genesis(federation(*self.sets[0]), 0)

    def client(self, **options: float) -> LightClient:
        return LightClient("made", self.trust, **options)

    def grow(self, *following: int, voters: Iterable[int] | None = None, **changes: Any) -> SignedHeader:
        seeds = self.sets[-1]
        previous = self.blocks[-1] if self.blocks else None
        fields: dict[str, Any] = {
            "chain_id": "made",
            "previous": previous,
            "time_ns": (len(self.blocks) + 1) * NS,
            "transactions": [],
            "app_hash": b"",
            "last_results": [],
            "validators": federation(*seeds),
            "next_validators": federation(*(following or seeds)),
        }
        self.blocks.append(NextBlock(**{**fields, **changes}).seal(signers(seeds if voters is None else voters)))
        self.sets.append(following or seeds)
        return self.blocks[-1]

    def validators(self, height: int) -> ValidatorSet:
        return federation(*self.sets[height - 1])


@pytest.mark.parametrize(("voters", "enough"), [((0, 1, 2), True), ((0, 1), False), ((), False)])
def test_more_than_two_thirds_of_the_own_validators(voters: tuple[int, ...], enough: bool) -> None:
    chain = Chain(0, 1, 2, 3)
    signed = chain.grow(voters=voters)
    if enough:
        assert chain.client().verify(signed, None, 5.0) == signed.header
    else:
        assert refusal(chain.client().verify, signed, None, 5.0) is LightCode.TOO_LITTLE_POWER


def test_exactly_two_thirds_is_too_little() -> None:
    chain = Chain(0, 1, 2)
    signed = chain.grow(voters=(0, 1))
    assert refusal(chain.client().verify, signed, None, 5.0) is LightCode.TOO_LITTLE_POWER


def test_votes_for_no_block_are_checked_but_not_counted() -> None:
    chain = Chain(0, 1, 2)
    signed = chain.grow()
    nil = replace(signed.commit.signatures[0], flag=BlockIdFlag.NIL)
    commit = replace(signed.commit, signatures=(nil, *signed.commit.signatures[1:]))
    vote = commit.canonical_vote_bytes("made", 0)
    by_address = signers(range(3))
    votes = (replace(nil, signature=by_address[nil.validator_address](vote)), *signed.commit.signatures[1:])
    signed = replace(signed, commit=replace(commit, signatures=votes))
    assert refusal(chain.client().verify, signed, None, 5.0) is LightCode.TOO_LITTLE_POWER


@pytest.mark.parametrize(
    ("kept", "code"),
    [((0, 1, 2), None), ((0, 1), None), ((0,), LightCode.TOO_LITTLE_TRUST), ((), LightCode.TOO_LITTLE_TRUST)],
)
def test_skipping_needs_more_than_a_third_of_the_trusted(kept: tuple[int, ...], code: LightCode | None) -> None:
    chain = Chain(0, 1, 2)
    chain.grow(*kept, 10, 11, 12)
    chain.grow()
    client, signed, validators = chain.client(), chain.grow(), chain.validators(3)
    if code is None:
        client.verify(signed, validators, 5.0)
        return
    assert refusal(client.verify, signed, validators, 5.0) is code
    client.verify(chain.blocks[0], None, 5.0)
    client.verify(chain.blocks[1], chain.validators(2), 5.0)
    client.verify(signed, None, 5.0)


def test_the_next_header_has_the_validators_that_the_one_before_it_named() -> None:
    """However many of the trusted ones sign: next to a trusted header nothing is left to their number."""
    chain = Chain(0, 1, 2, 3)
    first = chain.grow()
    client = chain.client()
    client.verify(first, None, 5.0)
    other = Chain(0, 1, 2, 3)
    other.blocks, other.sets = [first], [(0, 1, 2, 3), (0, 1, 2, 3, 4)]
    signed = other.grow()
    assert refusal(client.verify, signed, other.validators(2), 5.0) is LightCode.WRONG_VALIDATORS
    client.verify(chain.grow(), None, 5.0)


def test_validators_that_nobody_named_are_a_fork_when_the_header_before_them_comes_later() -> None:
    chain = Chain(0, 1, 2, 3)
    first = chain.grow()
    chain.sets[-1] = (0, 1, 2, 3, 4)
    second = chain.grow()
    client = chain.client()
    client.verify(second, chain.validators(2), 5.0)
    assert refusal(client.verify, first, None, 5.0, min_height=0) is LightCode.FORK


def test_a_set_of_strangers_convinces_nobody() -> None:
    strangers = Chain(20, 21, 22)
    signed = strangers.grow()
    client = Chain(0, 1, 2).client()
    assert refusal(client.verify, signed, None, 5.0) is LightCode.VALIDATORS_NEEDED
    assert refusal(client.verify, signed, strangers.validators(1), 5.0) is LightCode.WRONG_VALIDATORS
    strangers.grow()
    later = strangers.grow()
    assert refusal(client.verify, later, strangers.validators(3), 5.0) is LightCode.TOO_LITTLE_TRUST


def test_strangers_cannot_borrow_trusted_addresses() -> None:
    """None of the trusted validators' votes that a forged commit claims is counted."""
    chain, forger = Chain(0, 1, 2), Chain(0, 1, 2)
    chain.grow()
    forger.grow()
    forger.grow()
    forged = NextBlock(
        chain_id="made",
        previous=forger.blocks[-1],
        time_ns=4 * NS,
        transactions=[],
        app_hash=b"\x01",
        last_results=[],
        validators=federation(0, 1, 2),
        next_validators=federation(0, 1, 2),
    ).seal({address(seed): private_key(99).sign for seed in range(3)})
    assert refusal(chain.client().verify, forged, None, 5.0) is LightCode.TOO_LITTLE_TRUST


def with_vote(signed: SignedHeader, index: int, **changes: Any) -> SignedHeader:
    votes = list(signed.commit.signatures)
    votes[index] = replace(votes[index], **changes)
    return replace(signed, commit=replace(signed.commit, signatures=tuple(votes)))


def test_a_vote_that_does_not_verify_is_as_good_as_none() -> None:
    """So that one validator, whose odd signature CometBFT takes, cannot stop those who check more strictly."""
    chain = Chain(0, 1, 2, 3)
    odd = with_vote(chain.grow(), 1, signature=bytes(64))
    client = chain.client()
    assert client.verify(odd, None, 5.0) == odd.header
    assert not counted(client, 1)
    twice = with_vote(odd, 2, signature=bytes(64))
    assert refusal(chain.client().verify, twice, None, 5.0) is LightCode.TOO_LITTLE_POWER
    assert refusal(client.verify, twice, None, 5.0) is LightCode.TOO_LITTLE_POWER


def test_a_header_with_too_few_votes_is_taken_from_the_one_that_names_it() -> None:
    chain = Chain(0, 1, 2, 3)
    client = chain.client()
    signed = chain.grow(voters=(0, 1, 2))
    bad = with_vote(signed, chain.validators(1).addresses.index(address(0)), signature=bytes(64))
    assert refusal(client.verify, bad, None, 5.0) is LightCode.TOO_LITTLE_POWER
    after = chain.grow()
    assert refusal(client.verify_before, bad, after.header) is LightCode.BEFORE_TRUST
    client.verify(after, None, 5.0)
    assert client.verify_before(bad, after.header) == bad.header
    other = Chain(0, 1, 2, 3).grow(app_hash=b"\x01")
    assert refusal(client.verify_before, other, after.header) is LightCode.WRONG_FORM
    assert refusal(client.verify_before, after, after.header) is LightCode.BEFORE_TRUST


def test_great_heights_are_compared_as_small_ones_are() -> None:
    """Above 256, where CPython has more than one object for a number."""
    one, other = Chain(0, 1, 2, 3), Chain(0, 1, 2, 3)
    for _ in range(299):
        other.blocks.append(one.grow())
        other.sets.append((0, 1, 2, 3))
    newest, conflicting = one.grow(), other.grow(app_hash=b"\x01")
    client = one.client()
    client.verify(newest, None, 305.0)
    assert client.verify_before(one.blocks[298], newest.header) == one.blocks[298].header
    assert refusal(client.verify_before, one.blocks[297], newest.header) is LightCode.BEFORE_TRUST
    with pytest.raises(ForkError):
        client.verify(conflicting, None, 305.0)


def test_votes_in_each_others_places_are_refused() -> None:
    chain = Chain(0, 1, 2)
    signed = chain.grow()
    for votes in (
        signed.commit.signatures[::-1],
        (signed.commit.signatures[0],) * 3,
        signed.commit.signatures[:2],
        (*signed.commit.signatures, signed.commit.signatures[0]),
        (),
    ):
        mutant = replace(signed, commit=replace(signed.commit, signatures=votes))
        assert refusal(chain.client().verify, mutant, None, 5.0) is LightCode.WRONG_FORM


@pytest.mark.parametrize("apart_ns", [1, 2])
@pytest.mark.parametrize("begun_ns", [NS, NS + 1])
def test_a_header_is_later_by_a_nanosecond_at_least(begun_ns: int, apart_ns: int) -> None:
    for ns, code in ((apart_ns, None), (0, LightCode.TIME_ORDER), (-apart_ns, LightCode.TIME_ORDER)):
        chain = Chain(0, 1, 2)
        first, second = chain.grow(time_ns=begun_ns), chain.grow(time_ns=begun_ns + ns)
        client = chain.client()
        client.verify(first, None, 5.0)
        if code is None:
            assert client.verify(second, None, 5.0) == second.header
        else:
            assert refusal(client.verify, second, None, 5.0) is code


def test_clock_trusting_period_and_order_of_times() -> None:
    chain = Chain(0, 1, 2)
    first = chain.grow()
    backwards = Chain(0, 1, 2)
    backwards.blocks = [first]
    backwards.sets *= 2
    same_time = backwards.grow(time_ns=first.header.time_ns)
    client = chain.client(max_clock_drift_s=2.0, trusting_period_s=100.0)
    assert refusal(client.verify, first, None, -1.5) is LightCode.FUTURE
    assert refusal(client.verify, first, None, 100.0) is LightCode.TRUST_EXPIRED
    client.verify(first, None, -0.5)
    assert refusal(client.verify, same_time, None, 5.0) is LightCode.TIME_ORDER
    client.verify(chain.grow(), None, 100.5)
    chain.client(trusting_period_s=math.inf).verify(first, None, 1e9)


def test_the_trusting_period_ends_at_its_last_second() -> None:
    """Counted from a time of today, in which a billionth is more than a second."""
    begun_s = 1_790_000_000
    chain = Chain(0, 1, 2)
    first, second = (chain.grow(time_ns=(begun_s + later_s) * NS) for later_s in (0, 1))
    for now_s, code in ((begun_s + 99.75, None), (begun_s + 100.0, LightCode.TRUST_EXPIRED)):
        client = LightClient("made", TrustPoint.at(first, chain.validators(1)), trusting_period_s=100.0)
        if code is None:
            assert client.verify(second, None, now_s) == second.header
        else:
            assert refusal(client.verify, second, None, now_s) is code


def test_the_first_header_may_have_the_time_of_genesis_but_none_before() -> None:
    chain = Chain(0, 1, 2)
    chain.client().verify(chain.grow(time_ns=0), None, 5.0)
    chain = Chain(0, 1, 2)
    early = chain.grow(time_ns=-1)
    assert refusal(chain.client().verify, early, None, 5.0) is LightCode.TIME_ORDER


def test_an_overtaken_answer_is_refused_unless_it_was_awaited() -> None:
    chain = Chain(0, 1, 2)
    for _ in range(4):
        chain.grow()
    client = chain.client()
    asked_at = client.latest.height
    client.verify(chain.blocks[3], None, 5.0)
    assert refusal(client.verify, chain.blocks[1], None, 5.0) is LightCode.WENT_BACK
    assert client.verify(chain.blocks[1], None, 5.0, min_height=asked_at).height == 2
    assert client.latest.height == 4
    assert refusal(client.verify, chain.blocks[1], None, 5.0) is LightCode.WENT_BACK


def test_nothing_before_the_first_trusted_height() -> None:
    chain = Chain(0, 1, 2)
    chain.grow()
    chain.grow()
    client = LightClient("made", TrustPoint.at(chain.blocks[1], chain.validators(2)))
    client.verify(chain.blocks[1], None, 5.0)
    assert refusal(client.verify, chain.blocks[0], None, 5.0, min_height=0) is LightCode.BEFORE_TRUST


def test_another_chain_format_or_proposer_is_refused_though_it_is_signed() -> None:
    chain = Chain(0, 1, 2)
    honest = chain.grow().header
    for change, code in (
        ({"chain_id": "other"}, LightCode.WRONG_CHAIN),
        ({"version_block": 12}, LightCode.WRONG_FORM),
        ({"proposer_address": b""}, LightCode.WRONG_FORM),
        ({"version_app": 1 << 16}, LightCode.NEWER_RULES),
    ):
        header = replace(honest, **change)
        signed = SignedHeader(header, signed_as(header, header))
        assert refusal(chain.client().verify, signed, None, 5.0) is code


def test_a_commit_for_another_height_is_refused_though_it_is_signed() -> None:
    chain = Chain(0, 1, 2)
    header = chain.grow().header
    signed = SignedHeader(header, signed_as(header, replace(header, height=2)))
    assert refusal(chain.client().verify, signed, None, 5.0) is LightCode.WRONG_FORM


def signed_as(named: Header, voted: Header) -> Commit:
    """A commit that names one header and whose votes have the height and chain of another."""
    block_id = BlockId(named.hash(), PartSetHeader(1, bytes(32)))
    return sign_commit(voted, block_id, federation(0, 1, 2), signers(range(3)), voted.time_ns)


# Long ways


def approach(
    client: LightClient, chain: Chain, height: int, lie: Callable[[LightBlock], LightBlock] = lambda b: b
) -> list[int]:
    """Drive a client to a height; returns the heights that it asked for."""
    asked: list[int] = []
    way = client.approach(chain.blocks[height - 1], float(len(chain.blocks)))
    try:
        at = next(way)
        while True:
            asked.append(at)
            at = way.send(lie(LightBlock(chain.blocks[at - 1], chain.validators(at))))
    except StopIteration as done:
        header = done.value
    assert header == chain.blocks[height - 1].header
    return asked


def drifting() -> Chain:
    """Every second block another one of three validators is replaced by a new one."""
    chain = Chain(0, 1, 2)
    for oldest in range(16):
        chain.grow()
        chain.grow(oldest + 1, oldest + 2, oldest + 3)
    return chain


def test_the_way_over_changes_of_validators_is_bisected() -> None:
    chain = drifting()
    client = chain.client()
    asked = approach(client, chain, 32)
    assert client.latest.height == 32
    assert asked[:2] == [32, 16]
    assert len(asked) < 32
    assert approach(client, chain, 32) == []


def test_what_is_sent_in_on_the_way_is_not_believed() -> None:
    chain, forger = drifting(), drifting()
    for lie, code in (
        (lambda block: LightBlock(block.signed_header, federation(99)), LightCode.WRONG_VALIDATORS),
        (lambda block: LightBlock(chain.blocks[5], chain.validators(block.height)), LightCode.WRONG_FORM),
    ):
        assert refusal(approach, chain.client(), forger, 32, lie) is code


def test_a_way_without_end_is_given_up() -> None:
    chain = Chain(0)
    for _ in range(2 * MAX_APPROACH_STEPS):
        chain.grow(len(chain.sets))
    assert refusal(approach, chain.client(), chain, 2 * MAX_APPROACH_STEPS) is LightCode.TOO_LITTLE_TRUST


def test_a_light_block_is_read_as_it_was_written() -> None:
    block = LightBlock(signed_at("changing/", 214), validators_at("changing/", 214))
    text = json.dumps(block.to_json())
    assert LightBlock.from_json(json.loads(text)) == block
    assert TrustPoint.at(block.signed_header, block.validators).light_block == block
    bad: object
    for bad in (None, [], {}, {"signed_header": block.signed_header.to_json(), "validators": []}):
        with pytest.raises(MalformedError):
            LightBlock.from_json(bad)


# Forks


def two_histories(*branch_seeds: int) -> tuple[Chain, Chain]:
    """Two chains of the same validators that agree up to height 2 and part at height 3."""
    one, other = Chain(*branch_seeds), Chain(*branch_seeds)
    for _ in range(2):
        other.blocks.append(one.grow())
        other.sets.append(branch_seeds)
    return one, other


def test_two_blocks_at_one_height_are_evidence_against_who_signed_both() -> None:
    one, other = two_histories(0, 1, 2, 3)
    trusted, conflicting = one.grow(voters=(0, 1, 2)), other.grow(voters=(1, 2, 3), app_hash=b"\x01")
    client = one.client()
    client.verify(trusted, None, 5.0)
    with pytest.raises(ForkError) as refused:
        client.verify(conflicting, None, 5.0)
    evidence = refused.value.evidence
    assert (evidence.trusted, evidence.conflicting) == (trusted, conflicting)
    assert sorted(evidence.double_signers) == sorted(address(seed) for seed in (1, 2))
    recorded = evidence.to_json()
    assert SignedHeader.from_json(recorded["conflicting"]) == conflicting
    assert ValidatorSet.from_json({"validators": recorded["validators"]}) == one.validators(3)
    assert recorded["double_signers"] == [address.hex().upper() for address in evidence.double_signers]
    assert client.latest.signed_header == trusted


def test_a_fork_shows_beside_the_trusted_height_too() -> None:
    one, other = two_histories(0, 1, 2)
    trusted = one.grow()
    other.grow(app_hash=b"\x01")
    client = one.client()
    client.verify(trusted, None, 9.0)
    with pytest.raises(ForkError) as refused:
        client.verify(other.grow(), None, 9.0)
    assert refused.value.evidence.double_signers == ()
    client = one.client()
    client.verify(one.grow(), None, 9.0)
    with pytest.raises(ForkError):
        client.verify(other.blocks[2], None, 9.0, min_height=0)


def test_a_past_that_is_later_than_the_present_is_a_fork() -> None:
    one, other = two_histories(0, 1, 2)
    one.grow()
    one.grow()
    client = one.client()
    client.verify(one.grow(), None, 9.0)
    with pytest.raises(ForkError) as refused:
        client.verify(other.grow(time_ns=7 * NS), None, 9.0, min_height=0)
    assert refused.value.evidence.trusted == one.blocks[-1]


def test_a_conflict_without_signatures_is_no_evidence() -> None:
    one, other = two_histories(0, 1, 2)
    client = one.client()
    client.verify(one.grow(), None, 5.0)
    conflicting = other.grow(app_hash=b"\x01")
    vote = conflicting.commit.signatures[0]
    forged = (replace(vote, signature=flip(vote.signature, 3)), *conflicting.commit.signatures[1:])
    mutant = replace(conflicting, commit=replace(conflicting.commit, signatures=forged))
    assert refusal(client.verify, mutant, None, 5.0) is LightCode.TOO_LITTLE_POWER
    assert client.fork is None


def test_nobody_is_accused_by_a_forged_vote() -> None:
    one, other = two_histories(0, 1, 2, 3)
    trusted, conflicting = one.grow(), other.grow(app_hash=b"\x01")
    client = one.client()
    client.verify(trusted, None, 5.0)
    framed = conflicting.commit.signatures[2].validator_address
    with pytest.raises(ForkError) as refused:
        client.verify(with_vote(conflicting, 2, signature=bytes(64)), None, 5.0)
    accused = refused.value.evidence.double_signers
    assert (len(accused), framed in accused) == (3, False)


def test_after_a_fork_nothing_is_trusted() -> None:
    one, other = two_histories(0, 1, 2)
    client = one.client()
    client.verify(one.grow(), None, 5.0)
    with pytest.raises(ForkError) as first:
        client.verify(other.grow(app_hash=b"\x01"), None, 5.0)
    with pytest.raises(ForkError) as later:
        client.verify(one.grow(), None, 5.0)
    assert first.value.evidence is later.value.evidence is client.fork


# What it costs


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Signatures that are checked, in order."""
    seen: list[bytes] = []

    class Counting:
        def __init__(self, key: bytes) -> None:
            self._key = Ed25519PublicKey.from_public_bytes(key)

        @classmethod
        def from_public_bytes(cls, key: bytes) -> "Counting":
            return cls(key)

        def verify(self, signature: bytes, data: bytes) -> None:
            seen.append(signature)
            self._key.verify(signature, data)

    monkeypatch.setattr("voice_dpki.ledger.light.Ed25519PublicKey", Counting)
    return seen


def test_the_same_signed_header_is_checked_once(checked: list[bytes]) -> None:
    chain = Chain(0, 1, 2, 3)
    signed = chain.grow()
    client = chain.client()
    for _ in range(3):
        client.verify(SignedHeader.from_json(signed.to_json()), None, 5.0)
    assert len(checked) == 4
    fewer = replace(signed, commit=replace(signed.commit, signatures=(ABSENT, *signed.commit.signatures[1:])))
    client.verify(fewer, None, 5.0)
    assert len(checked) == 7


def test_forged_votes_of_trusted_validators_are_found_first(checked: list[bytes]) -> None:
    chain = Chain(0)
    chain.grow(*range(40), voters=(0,))
    chain.grow()
    signed = chain.grow()
    place = [vote.validator_address for vote in signed.commit.signatures].index(address(0))
    votes = list(signed.commit.signatures)
    votes[place] = replace(votes[place], signature=bytes(64))
    mutant = replace(signed, commit=replace(signed.commit, signatures=tuple(votes)))
    assert refusal(chain.client().verify, mutant, chain.validators(3), 5.0) is LightCode.TOO_LITTLE_TRUST
    assert len(checked) == 1


def test_a_stored_header_is_not_checked_again_but_another_commit_for_it_is(checked: list[bytes]) -> None:
    chain = Chain(0, 1, 2, 3)
    signed = chain.grow()
    client = LightClient("made", TrustPoint.at(signed, chain.validators(1)))
    client.verify(signed, None, 5.0)
    assert not checked
    fewer = replace(signed, commit=replace(signed.commit, signatures=(*signed.commit.signatures[1:], ABSENT)))
    assert refusal(client.verify, fewer, None, 5.0) is LightCode.WRONG_FORM
    fewer = replace(signed, commit=replace(signed.commit, signatures=(*signed.commit.signatures[:3], ABSENT)))
    client.verify(fewer, None, 5.0)
    assert len(checked) == 3


def test_what_is_kept_is_bounded() -> None:
    chain = Chain(0)
    client = chain.client()
    for height in range(1, MAX_TRUSTED + 10):
        client.verify(chain.grow(), None, float(height))
    assert len(client._points) == len(client._verified) == MAX_TRUSTED
    client.verify(chain.blocks[20], None, 99.0, min_height=0)
    assert refusal(client.verify, chain.blocks[1], None, 99.0, min_height=0) is LightCode.BEFORE_TRUST


def test_a_made_commit_is_read_as_it_was_made() -> None:
    commit = Chain(0, 1).grow(voters=(0, 1)).commit
    assert Commit.from_json(json.loads(json.dumps(commit.to_json()))) == commit
