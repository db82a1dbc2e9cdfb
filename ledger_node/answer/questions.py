"""The questions about the ledger's state that nodes answer over HTTP: their paths, and what they cost.

A node with a store answers all of them. The edge answers some itself and forwards the others.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from ledger_node.answer.requests import BadRequestError, parse_digest
from voice_dpki.ledger.answer_forms import MAX_BATCH, MAX_LEAVES
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.state import LEAVES
from voice_dpki.names import CertDigest
from voice_dpki.shell.http import Price, Request

MAX_LIST_BODY_BYTES = 80 * MAX_BATCH
"""Largest list of digests or keys."""

ONE_COST = 1
"""Cost of an inquiry about one certificate, block or member, against the client's `[limits]`."""
SEVERAL_COST = 20
"""Least cost of an inquiry about all certificates with a name or a prefix."""

_LISTED_BYTES = len('"",') + 64
"""Bytes that one digest or key takes in a list: 64 hexadecimal digits, quotes and a comma."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question: its method, and its path below `/ledger/v1/`."""

    method: str
    path: str
    cost: int = ONE_COST
    """Least cost, against the client's `[limits]`."""
    price: Price | None = None
    """Further cost, which depends on the body."""
    about_several: bool = False
    """Whether it is about several certificates or leaves, so that its answer can wait for others of this kind."""
    leaf: Leaf[Any] | None = None
    """The kind of leaf that it is about, if it is about one leaf."""

    @property
    def pattern(self) -> str:
        """The whole path."""
        return f"/ledger/v1/{self.path}"


def price_of_list(request: Request) -> int:
    """Price a list of digests or keys at 1 each, before it is parsed."""
    return len(request.body) // _LISTED_BYTES


def _about_leaves() -> list[Question]:
    lookups = [(leaf, leaf.lookup) for leaf in LEAVES if leaf.lookup is not None]
    return [Question("GET", f"{lookup.path}/{{{lookup.argument.name}}}", leaf=leaf) for leaf, lookup in lookups]


QUESTIONS = (
    Question("GET", "status/{digest}"),
    Question("POST", "status"),
    *_about_leaves(),
    Question("GET", "headers/{height}"),
    Question("POST", "statuses", price=price_of_list, about_several=True),
    Question("POST", "leaves", price=price_of_list, about_several=True),
    Question("GET", "prefix/{prefix}", SEVERAL_COST, about_several=True),
    Question("GET", "names", SEVERAL_COST, about_several=True),
)
"""All questions; there is one for each kind of leaf that has a lookup."""


class StatusesQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a question about several certificates."""

    digests: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


def listed_digests(request: Request) -> list[CertDigest]:
    """Read the certificates that a question is about; raises BadRequestError."""
    try:
        form = msgspec.json.decode(request.body, type=StatusesQuestion)
    except ValueError as error:  # msgspec's errors, and bytes that are not UTF-8
        raise BadRequestError(f'the body must be {{"digests": [hex, ...]}}: {error}') from None
    return [parse_digest(text) for text in form.digests]


_Key = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class LeavesQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a question about leaves."""

    keys: Annotated[list[_Key], msgspec.Meta(min_length=1, max_length=MAX_LEAVES)]
