"""The vectors of numbers that have leaves of their own: presence, absence, and what a node might try instead."""

from collections.abc import Iterator
from hashlib import sha256

from tests.spec_vectors import Form, Ledger, altered, prove, text
from voice_dpki.codec import cbor
from voice_dpki.ledger import tree
from voice_dpki.ledger.held_numbers import number_key
from voice_dpki.ledger.state import MemoryState
from voice_dpki.names import Tn

HELD, ALSO_HELD, NOT_HELD = Tn("493023125007"), Tn("493023125008"), Tn("493023125009")


def numbers_one_by_one(ledger: Ledger) -> Iterator[Form]:
    """Yield questions about three numbers, of which two have leaves, with the result of each."""
    state = _with_numbers(ledger)
    numbers = (HELD, ALSO_HELD, NOT_HELD)
    forms = [_form(state, tn) for tn in numbers]
    block = ledger.chain.next_block(app_hash=tree.root(state), version_app=5)
    asked = {"kind": "leaves", "keys": [form["key"] for form in forms], "now_s": ledger.time_s + 8, "min_height": 0}
    tail = {"height": block.signed_header.header.height, "signed_header": block.signed_header.to_json()}
    first, second, third = forms
    for name, leaves, result in (
        ("numbers", forms, {"values": [form["value"] for form in forms]}),
        ("numbers, one hidden", [first | {"value": None}, second, third], {"error": "unproven"}),
        ("numbers, one invented", [first, second, third | {"value": first["value"]}], {"error": "unproven"}),
        ("numbers, another's leaf", [first, second | {"proof": first["proof"]}, third], {"error": "unproven"}),
        (
            "numbers, a holder altered",
            [first | {"value": altered(first["value"])}, second, third],
            {"error": "unproven"},
        ),
        ("numbers, in another order", [second, first, third], {"error": "malformed"}),
    ):
        yield {"name": name, **asked, "answer": {"leaves": leaves, **tail}, "result": result}


def _with_numbers(ledger: Ledger) -> MemoryState:
    """Return the state with leaves of two numbers, as version 5 writes them."""
    state = MemoryState(ledger.state.chain_id, dict(ledger.state.nodes), dict(ledger.state.leaves))
    holders = {HELD: ("Operator B", 0), ALSO_HELD: ("Removed Vendor", 0)}
    leaves = {number_key(tn): cbor.encode(["number", *holder]) for tn, holder in holders.items()}
    update = tree.update(state, {key: sha256(value).digest() for key, value in leaves.items()})
    state.leaves |= leaves
    for path, node in update.nodes.items():
        if node is None:
            state.nodes.pop(path, None)
        else:
            state.nodes[path] = node
    return state


def _form(state: MemoryState, tn: Tn) -> Form:
    value = state.leaf(number_key(tn))
    return {"key": number_key(tn).hex(), "value": value and text(value), "proof": prove(state, number_key(tn))}
