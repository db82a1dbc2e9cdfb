"""Headers, commits and validator sets against those of real CometBFT chains, and their JSON against junk."""

import base64
import copy
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from voice_dpki.errors import MalformedError
from voice_dpki.ledger.header import (
    ABSENT,
    MAX_TOTAL_POWER,
    MAX_VALIDATORS,
    NO_TIME_NS,
    BlockIdFlag,
    Commit,
    Header,
    SignedHeader,
    Validator,
    ValidatorSet,
    canonical_vote,
    encode_time,
    format_time,
    merkle_root,
    parse_time,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "cometbft"


def load(name: str) -> Any:
    value = json.loads((VECTORS / name).read_text())
    return value.get("result", value)


COMMITS = sorted(str(path.relative_to(VECTORS)) for path in VECTORS.rglob("commit-*.json"))
COMMIT = load("commit-15.json")["signed_header"]
VALIDATORS = load("validators-15.json")


@pytest.mark.parametrize("name", COMMITS)
def test_hashes_and_votes_are_cometbfts(name: str) -> None:
    signed = SignedHeader.from_json(load(name)["signed_header"])
    validators = ValidatorSet.from_json(load(name.replace("commit", "validators")))
    assert signed.header.hash() == signed.commit.block_id.hash
    assert validators.hash() == signed.header.validators_hash
    for index, vote in enumerate(signed.commit.signatures):
        if vote.flag is BlockIdFlag.COMMIT:
            assert vote.validator_address == validators.addresses[index]
            key = Ed25519PublicKey.from_public_bytes(validators.validators[index].public_key)
            key.verify(vote.signature, signed.commit.canonical_vote_bytes(signed.header.chain_id, index))


@pytest.mark.parametrize("name", COMMITS)
def test_json_round_trip_is_exact(name: str) -> None:
    value = load(name)["signed_header"]
    assert SignedHeader.from_json(value).to_json() == value
    assert Header.from_json(value["header"]).to_json() == value["header"]
    assert Commit.from_json(value["commit"]).to_json() == value["commit"]


@pytest.mark.parametrize("name", COMMITS)
def test_validators_json_round_trip(name: str) -> None:
    value = load(name.replace("commit", "validators"))
    validators = ValidatorSet.from_json(value)
    assert ValidatorSet.from_json(validators.to_json()) == validators
    expected = [
        {key: item for key, item in each.items() if key != "proposer_priority"} for each in value["validators"]
    ]
    assert validators.to_json()["validators"] == expected


def test_merkle_root_of_rfc_6962() -> None:
    """The tree of the certificate-transparency project's tests: roots over the first n of eight inputs."""
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [bytes.fromhex(text) for text in inputs]
    assert merkle_root([]) == sha256(b"").digest()
    for count, root in [
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        (5, "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ]:
        assert merkle_root(leaves[:count]).hex() == root


def test_a_vote_for_no_block_leaves_the_block_out() -> None:
    commit = Commit.from_json(COMMIT["commit"])
    nil = canonical_vote("c", 3, 0, None, 0)
    assert nil.hex() == "10" + "0802" + "110300000000000000" + "2a00" + "320163"
    assert commit.block_id.encode() in commit.canonical_vote_bytes("vectors-1", 0)


def test_the_app_version_may_be_left_out_when_it_is_0() -> None:
    value = copy.deepcopy(COMMIT["header"])
    del value["version"]["app"]
    assert Header.from_json(value).version_app == 0


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24T02:10:11.473652177Z",
        "2026-11-24T02:10:11.5Z",
        "2026-11-24T02:10:11Z",
        "1969-12-31T23:59:59.999999999Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999999Z",
    ],
)
def test_times_round_trip(text: str) -> None:
    assert format_time(parse_time(text)) == text


def test_the_time_of_an_absent_vote_is_gos_zero() -> None:
    assert parse_time("0001-01-01T00:00:00Z") == NO_TIME_NS == ABSENT.time_ns
    assert encode_time(NO_TIME_NS).hex() == "088092b8c398feffffff01"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-24",
        "2026-11-24T02:10:11",
        "2026-11-24T02:10:11+00:00",
        "2026-11-24T02:10:11.Z",
        "2026-11-24T02:10:11.50Z",
        "2026-11-24T02:10:11.0Z",
        "2026-11-24T02:10:11.1234567891Z",
        "2026-11-24 02:10:11Z",
        "2026-13-24T02:10:11Z",
        "2026-02-30T02:10:11Z",
        "2026-11-24T24:00:00Z",
        "2026-11-24T02:10:60Z",
        "0000-01-01T00:00:00Z",
        "\uff12026-11-24T02:10:11Z",
        "2026-11-24T02:10:11Z\n",
    ],
)
def test_other_spellings_of_times_are_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_time(text)


@given(st.integers(NO_TIME_NS, 253402300799 * 10**9))
def test_any_time_round_trips(time_ns: int) -> None:
    assert parse_time(format_time(time_ns)) == time_ns


def key(seed: int) -> bytes:
    return sha256(bytes([seed])).digest()


@given(st.permutations(range(8)))
def test_validators_are_ordered_by_power_then_address(order: list[int]) -> None:
    validators = [Validator(key(seed), 1 + seed // 3) for seed in order]
    ordered = ValidatorSet.of(validators).validators
    assert [validator.power for validator in ordered] == [3, 3, 2, 2, 2, 1, 1, 1]
    assert [validator.address for validator in ordered[2:5]] == sorted(
        Validator(key(seed), 2).address for seed in (3, 4, 5)
    )


@pytest.mark.parametrize(
    "validators",
    [
        [],
        [Validator(key(1), 1), Validator(key(1), 2)],
        [Validator(key(1)[:31], 1)],
        [Validator(key(1), 0)],
        [Validator(key(1), 1), Validator(key(2), -1)],
        [Validator(key(1), MAX_TOTAL_POWER), Validator(key(2), 1)],
        [Validator(number.to_bytes(32, "big"), 1) for number in range(MAX_VALIDATORS + 1)],
    ],
)
def test_impossible_validator_sets_are_refused(validators: list[Validator]) -> None:
    with pytest.raises(MalformedError):
        ValidatorSet.of(validators)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from places(inner, (*path, name))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    result = copy.deepcopy(value)
    target = result
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = new
    return result


JUNK = st.one_of(
    st.just(""),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=90),
    st.sampled_from(
        ["0" * 64, "A" * 40, "A" * 64, "a" * 64, "A" * 63, "-1", "01", "9" * 30, "1" * 18, "A" * 5000, "\ud800"]
    ),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


@given(st.sampled_from(list(places(COMMIT))), JUNK)
def test_any_other_json_is_read_exactly_or_refused(path: tuple[Any, ...], junk: Any) -> None:
    value = replaced(COMMIT, path, junk)
    try:
        signed = SignedHeader.from_json(value)
    except MalformedError:
        return
    assert signed.to_json() == value
    signed.header.hash(), signed.commit.hash()
    for index in range(len(signed.commit.signatures)):
        signed.commit.canonical_vote_bytes("vectors-1", index)


@given(st.sampled_from(list(places(VALIDATORS))), JUNK)
def test_any_other_validators_json_is_read_or_refused(path: tuple[Any, ...], junk: Any) -> None:
    try:
        ValidatorSet.from_json(replaced(VALIDATORS, path, junk))
    except MalformedError:
        return
    assert path[-1] in ("voting_power", "proposer_priority", "block_height", "count", "total")


def test_unknown_members_and_long_lists_are_refused() -> None:
    vote = COMMIT["commit"]["signatures"][0]
    for value in (
        replaced(COMMIT, ("header", "extra"), 1),
        replaced(COMMIT, ("commit", "extra"), 1),
        replaced(COMMIT, ("commit", "signatures"), [vote] * (MAX_VALIDATORS + 1)),
    ):
        with pytest.raises(MalformedError):
            SignedHeader.from_json(value)
    with pytest.raises(MalformedError):
        ValidatorSet.from_json({"validators": VALIDATORS["validators"] * 251})


@pytest.mark.parametrize(
    ("index", "member", "value"),
    [
        (0, "signature", None),
        (0, "signature", base64.b64encode(bytes(63)).decode()),
        (0, "signature", base64.b64encode(bytes(64)).decode().replace("=", "")),
        (0, "signature", "A" * 85 + "B=="),
        (0, "validator_address", ""),
        (0, "block_id_flag", 1),
        (0, "block_id_flag", 4),
        (2, "signature", base64.b64encode(bytes(64)).decode()),
        (2, "validator_address", "A" * 40),
        (2, "timestamp", "2026-11-24T02:10:11Z"),
        (2, "block_id_flag", 2),
    ],
)
def test_votes_that_are_neither_whole_nor_absent_are_refused(index: int, member: str, value: object) -> None:
    with pytest.raises(MalformedError):
        SignedHeader.from_json(replaced(COMMIT, ("commit", "signatures", index, member), value))
