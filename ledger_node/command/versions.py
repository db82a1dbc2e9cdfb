"""The versions of a ledger's rules, as its state proves them, and what a transaction needs of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from voice_dpki.errors import LocalError
from voice_dpki.ledger import governance
from voice_dpki.ledger.activation import RULES_KEY, Activations, activations, read_notice, scheduled, version_at
from voice_dpki.ledger.directory import DIRECTORY_KEY, organizations
from voice_dpki.ledger.leaf import Leaf
from voice_dpki.ledger.members import member_key
from voice_dpki.ledger.proposals import parse_change
from voice_dpki.ledger.transactions import Body, Propose, kind_of
from voice_dpki.ledger.view import MemoryState
from voice_dpki.wire.ledger.client import LedgerClient

_ANY_LEAF: Leaf[bytes] = Leaf(kind="any", key=bytes, parse=bytes)


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a ledger's rules."""

    activations: Activations
    """All versions that were in force, are in force or are decided, with the heights of their first blocks."""
    height: int
    """Height of the newest proved block."""
    present: int
    """The version that the next block follows."""
    coming: tuple[int, int] | None
    """A version that is decided, with the height of its first block."""


async def read_state(client: LedgerClient, keys: Iterable[bytes]) -> MemoryState:
    """Return a state that holds the leaves with these keys alone, each proved; raises InquiryError."""
    listed = list(keys)
    values = zip(listed, await client.read(_ANY_LEAF, listed), strict=True)
    return MemoryState("", leaves={key: value for key, value in values if value is not None})


async def read_versions(client: LedgerClient) -> Versions:
    """Ask for the versions of the ledger's rules; raises InquiryError."""
    state = await read_state(client, (RULES_KEY, DIRECTORY_KEY))
    if RULES_KEY not in state.leaves:
        notices = [name for name in organizations(state) if read_notice(name)]
        state.leaves |= (await read_state(client, map(member_key, notices))).leaves
    header, _ = await client.newest(0, wait_s=0)
    following = header.height + 1
    return Versions(activations(state), header.height, version_at(state, following), scheduled(state, following))


async def check_follows(client: LedgerClient, body: Body) -> None:
    """Raise LocalError if a transaction needs a later version of the rules than the ledger follows."""
    needed = kind_of(body).since
    if isinstance(body, Propose):
        needed = max(needed, governance.since(parse_change(body.change)))
    if needed == 1:
        return
    present = (await read_versions(client)).present
    if needed > present:
        raise LocalError(f"the ledger follows version {present} of its rules, and this needs version {needed}")
