"""Each kind of transaction and of leaf is whole, and the history that proves determinism has all of them."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest

from voice_dpki import ledger
from voice_dpki.codec import cbor
from voice_dpki.errors import MalformedError
from voice_dpki.ledger.genesis import load_genesis
from voice_dpki.ledger.kind import Body, Kind, digest, key, signature, text
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.refusals import Refused
from voice_dpki.ledger.state import LEAVES, Block, MemoryState, Outcome, apply
from voice_dpki.ledger.transactions import KINDS, Transaction, certificates_in, kind_of
from voice_dpki.x509.profile import digest_of

from .history import blocks_of, further_version
from .history_4 import make


@dataclass
class Lived:
    """The history, executed."""

    state: MemoryState
    blocks: list[tuple[Block, Outcome]]

    def results(self) -> Iterator[tuple[Body, int]]:
        """Yield the body and the code of every transaction that parses."""
        for block, outcome in self.blocks:
            for raw, result in zip(block.transactions, outcome.results, strict=True):
                try:
                    yield Transaction.parse(raw).body, result.code
                except Refused:
                    continue


@pytest.fixture(scope="module")
def lived(federation: Any) -> Lived:
    history = make(federation)
    state = load_genesis(base64.b64decode(history["genesis"])).initial_state()
    blocks = []
    with further_version():
        for block in blocks_of(history):
            blocks.append((block, apply(state, block)))
            state.commit(blocks[-1][1])
    return Lived(state, blocks)


def of_bodies(lived: Lived, *, refused: bool) -> set[str]:
    return {kind_of(body).name for body, code in lived.results() if bool(code) is refused}


def test_every_kind_of_transaction_takes_effect_and_is_refused_in_the_history(lived: Lived) -> None:
    names = {kind.name for kind in KINDS}
    assert of_bodies(lived, refused=False) == names
    assert of_bodies(lived, refused=True) == names


def test_the_history_writes_every_kind_of_leaf_and_each_is_listed(lived: Lived) -> None:
    listed = {leaf.kind: leaf for leaf in LEAVES}
    assert len(listed) == len(LEAVES)
    values = [value for _, outcome in lived.blocks for value in outcome.leaves.values() if value is not None]
    values += lived.state.leaves.values()
    written = set()
    for value in values:
        parts: Any = cbor.decode(value, "leaf")
        kind = parts[0]
        listed[kind].parse(value)
        written.add(kind)
    assert written == listed.keys()


def test_what_a_block_records_are_the_certificates_that_its_transactions_bring(lived: Lived) -> None:
    for block, outcome in lived.blocks:
        taken = [raw for raw, result in zip(block.transactions, outcome.results, strict=True) if not result.code]
        brought = {digest_of(der) for raw in taken for der in certificates_in(Transaction.parse(raw).body)}
        assert brought == {digest for digest, der in outcome.certificates.items() if der is not None}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_parses_exactly_the_members_of_its_body_and_has_a_module_of_its_own(kind: Kind[Any, Any]) -> None:
    assert {"chain", "by", *kind.members} == {each.name for each in fields(kind.body)}
    assert [other.name for other in KINDS if other.body.__module__ == kind.body.__module__] == [kind.name]
    assert [other.body for other in KINDS if other.name == kind.name] == [kind.body]


def test_every_kind_that_a_module_holds_is_listed() -> None:
    modules = [import_module(f"{ledger.__name__}.{each.name}") for each in iter_modules(ledger.__path__)]
    held = [value for module in modules for value in vars(module).values()]
    assert {id(value) for value in held if isinstance(value, Kind)} == set(map(id, KINDS))
    assert {id(value) for value in held if isinstance(value, Leaf)} == set(map(id, LEAVES))


def test_leaves_are_looked_up_at_paths_of_their_own() -> None:
    paths = [leaf.lookup.path for leaf in LEAVES if leaf.lookup]
    assert len(set(paths)) == len(paths)
    for leaf in LEAVES:
        assert leaf.lookup is None or leaf.lookup.argument.name != leaf.kind, "an answer has both as members"


@pytest.mark.parametrize(
    ("read", "least", "most"), [(signature, 64, 1024), (key, 1, 2048), (digest, 32, 32), (text, 1, 64)]
)
def test_sizes_in_a_transaction(read: Callable[[Any], Any], least: int, most: int) -> None:
    def made(size: int) -> str | bytes:
        return "x" * size if read is text else bytes(size)

    for size in (least, most):
        assert read(made(size)) == made(size)
    for size in (least - 1, most + 1):
        with pytest.raises(MalformedError):
            read(made(size))
