"""Genesis: CometBFT's form with members, refused unless whole and sound."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.present import present
from voice_dpki.ledger import tree
from voice_dpki.ledger.genesis import MAX_GENESIS_BYTES, GenesisError, dump_genesis, load_genesis
from voice_dpki.ledger.light import TrustPoint
from voice_dpki.ledger.members import Member, MemberKind
from voice_dpki.ledger.parameters import Parameters, parameters_of

VECTORS = Path(__file__).parents[1] / "vectors" / "cometbft"


@pytest.fixture(scope="session")
def form(federation: Any) -> dict[str, Any]:
    return json.loads(federation.genesis_json)


def test_round_trip(federation: Any) -> None:
    genesis = load_genesis(federation.genesis_json)
    assert dump_genesis(genesis.chain_id, genesis.time_ns, genesis.members) == federation.genesis_json
    assert present(genesis.member("Operator B")).domains == ("b.example",)
    assert genesis.member("Nobody") is None
    assert TrustPoint.genesis(genesis.validators, genesis.time_ns).validators.total_power == 2


def test_parameters_are_part_of_the_ledger(federation: Any, form: dict[str, Any]) -> None:
    genesis = federation.genesis
    quick = dump_genesis(genesis.chain_id, genesis.time_ns, genesis.members, parameters=Parameters(delay_s=5))
    loaded = load_genesis(quick)
    assert parameters_of(loaded.initial_state()) == loaded.parameters == Parameters(delay_s=5)
    assert loaded.outcome().app_hash != genesis.outcome().app_hash
    for parameters in ({"delay_s": -1}, {"delay_s": True}, {"voting_s": 0}, {"delay_s": 1 << 53}, {"delay": 5}):
        with pytest.raises(GenesisError):
            load_genesis(json.dumps({**form, "app_state": form["app_state"] | {"parameters": parameters}}).encode())
    without = json.loads(json.dumps(form))
    del without["app_state"]["parameters"]
    assert load_genesis(json.dumps(without).encode()).parameters == Parameters()


def test_it_begins_with_the_members_in_the_tree(federation: Any) -> None:
    genesis = federation.genesis
    assert tree.root(genesis.initial_state()) == genesis.outcome().app_hash != bytes(32)


def test_the_consensus_hash_is_that_of_a_real_chain(form: dict[str, Any]) -> None:
    real = json.loads((VECTORS / "genesis.json").read_bytes())["result"]["genesis"]
    header = json.loads((VECTORS / "commit-2.json").read_bytes())["result"]["signed_header"]["header"]
    genesis = load_genesis(json.dumps({**form, "consensus_params": real["consensus_params"]}).encode())
    assert genesis.consensus_hash().hex().upper() == header["consensus_hash"]


def test_a_genesis_without_members_is_none(form: dict[str, Any]) -> None:
    real = json.loads((VECTORS / "genesis.json").read_bytes())["result"]["genesis"]
    with pytest.raises(GenesisError, match="app_state"):
        load_genesis(json.dumps(real).encode())


def test_another_genesis_has_another_fingerprint(form: dict[str, Any], federation: Any) -> None:
    fingerprints = {federation.genesis.fingerprint()}
    members = form["app_state"]["members"]
    for change in (
        {"chain_id": "other"},
        {"genesis_time": "2026-01-01T00:00:00Z"},
        {"validators": form["validators"][:1]},
        {"app_state": {"members": [members[0], members[1] | {"domains": ["c.example"]}]}},
    ):
        fingerprints.add(load_genesis(json.dumps({**form, **change}).encode()).fingerprint())
    assert len(fingerprints) == 5


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["chain_id"], ""),
        (["chain_id"], "x" * 51),
        (["chain_id"], "a b"),
        (["genesis_time"], "yesterday"),
        (["initial_height"], "2"),
        (["app_hash"], "00"),
        (["validators"], []),
        (["validators", 0, "power"], 1),
        (["validators", 0, "power"], "0"),
        (["validators", 0, "power"], "-1"),
        (["validators", 0, "address"], "00" * 20),
        (["validators", 0, "pub_key", "type"], "tendermint/PubKeySecp256k1"),
        (["validators", 0, "pub_key", "value"], "AAAA"),
        (["validators", 0, "pub_key", "value"], "?"),
        (
            ["validators", 0],
            {"pub_key": {"type": "tendermint/PubKeyEd25519", "value": "A" * 43 + "="}, "power": "1"},
        ),
        (["consensus_params", "block", "max_bytes"], "many"),
        (["app_state", "members"], []),
        (["app_state", "members", 0, "kind"], "king"),
        (["app_state", "members", 0, "more"], 1),
        (["app_state", "members", 0, "organization"], "Operator B"),
        (["app_state", "members", 0, "ranges", 0, "count"], 0),
        (["app_state", "members", 0, "ranges", 0, "start"], "+49"),
        (["app_state", "members", 0, "endorsing_keys", 0], "AAAA"),
        (["app_state", "members", 0, "domains", 0], "b.example"),
    ],
)
def test_refuses_unsound_parts(form: dict[str, Any], path: list[Any], value: Any) -> None:
    changed = json.loads(json.dumps(form))
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(GenesisError):
        load_genesis(json.dumps(changed).encode())


def test_refuses_a_key_under_which_anybody_could_sign(form: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(form))
    neutral = base64.b64encode(b"\x01" + bytes(31)).decode("ascii")
    changed["app_state"]["members"][0]["validators"].append(neutral)
    with pytest.raises(GenesisError, match=r"Operator A: .* not an Ed25519 public key"):
        load_genesis(json.dumps(changed).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b'"' * 100_000, b"[" * 100_000])
def test_refuses_what_is_no_genesis(data: bytes) -> None:
    with pytest.raises(GenesisError):
        load_genesis(data)
    with pytest.raises(GenesisError, match="longer"):
        load_genesis(data + b" " * (MAX_GENESIS_BYTES + 1))


def test_what_would_not_load_is_not_written() -> None:
    with pytest.raises(GenesisError):
        dump_genesis("x", 0, [Member("Vendor", MemberKind.VENDOR)])


def test_a_genesis_has_at_most_200_validators(federation: Any) -> None:
    for number, loads in ((200, True), (201, False)):
        keys = tuple(Ed25519PrivateKey.generate().public_key().public_bytes_raw() for _ in range(number))
        many = [replace(each, validators=()) for each in federation.genesis.members]
        many[0] = replace(many[0], validators=keys)
        if loads:
            genesis = load_genesis(dump_genesis("x", 0, many))
            assert len(genesis.validators.validators) == 200
        else:
            with pytest.raises(GenesisError, match="more than 200 validators"):
                dump_genesis("x", 0, many)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data(), value=JSON)
def test_any_value_in_any_place_loads_or_raises(federation: Any, data: st.DataObject, value: Any) -> None:
    changed = json.loads(federation.genesis_json)
    inner = changed
    while True:
        key = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if not isinstance(inner[key], dict | list) or not inner[key] or data.draw(st.booleans()):
            break
        inner = inner[key]
    inner[key] = value
    try:
        genesis = load_genesis(json.dumps(changed).encode())
    except GenesisError:
        return
    assert genesis.validators.validators


@given(st.binary(max_size=100))
def test_any_bytes_load_or_raise(data: bytes) -> None:
    with pytest.raises(GenesisError):
        load_genesis(data)


@pytest.mark.parametrize("more", ["!", "\n", " ", "-", "\u00e4"])
def test_refuses_keys_with_characters_that_are_not_of_base64(form: dict[str, Any], more: str) -> None:
    """Readers that pass over them would read one genesis from different texts."""
    changed = json.loads(json.dumps(form))
    keys = changed["app_state"]["members"][0]["endorsing_keys"]
    keys[0] = keys[0][:8] + more + keys[0][8:]
    with pytest.raises(GenesisError, match="a key is not base64"):
        load_genesis(json.dumps(changed).encode())


def test_keys_are_written_in_standard_base64(form: dict[str, Any], federation: Any) -> None:
    member = form["app_state"]["members"][0]
    assert base64.b64decode(member["endorsing_keys"][0]) == federation.keys["Operator A"].public_key_der
