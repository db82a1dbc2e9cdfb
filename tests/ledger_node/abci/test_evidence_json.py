"""Evidence in the JSON of CometBFT's RPC: as a real node gives it, and anything else is an error."""

import json
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger_node.abci.evidence_json import parse_evidence_list
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.evidence import evidence_hash
from voice_dpki.ledger.header import Header

VECTORS = Path(__file__).parents[2] / "vectors" / "cometbft"
BLOCKS = [
    json.loads((VECTORS / "evidence" / f"block-{name}.json").read_text())["block"]
    for name in ("prevotes", "unsigned-parts-and-attack")
]


def places(value: Any, *path: Any) -> list[tuple[Any, ...]]:
    """Where everything in a JSON value stands."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, each in inside for place in places(each, *path, name))]


@pytest.mark.parametrize("block", BLOCKS)
def test_real_evidence_comes_out_as_it_was_hashed(block: Any) -> None:
    assert evidence_hash(parse_evidence_list(block)) == Header.from_json(block["header"]).evidence_hash


def test_a_block_without_evidence_has_none() -> None:
    block = json.loads((VECTORS / "changing" / "block-208.json").read_text())["block"]
    assert parse_evidence_list(block) == ()


@pytest.mark.parametrize("block", BLOCKS)
@given(data=st.data())
def test_anything_else_is_malformed_or_other_evidence(block: Any, data: st.DataObject) -> None:
    changed = deepcopy(block)
    *way, last = data.draw(st.sampled_from(places(block["evidence"])[1:]))
    value = changed["evidence"]
    for name in way:
        value = value[name]
    value[last] = data.draw(st.none() | st.integers() | st.text() | st.just([]) | st.just({}))
    with suppress(MalformedError):
        parse_evidence_list(changed)


@pytest.mark.parametrize("block", [None, [], {}, {"evidence": {}}, {"evidence": {"evidence": [{"type": "other"}]}}])
def test_other_json_is_malformed(block: Any) -> None:
    with pytest.raises(MalformedError):
        parse_evidence_list(block)
