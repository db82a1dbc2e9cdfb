"""The guard against votes that would stop the ledger: a change must not need validators that do not sign today."""

from collections.abc import Sequence

from ledger_node.command.reading import all_members
from ledger_node.command.session import Session
from ledger_node.command.weight import Weight, weigh
from voice_dpki.errors import PeerError
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.members import Member
from voice_dpki.ledger.proposals import Change, RemoveMember, SetMember
from voice_dpki.ledger.validators import VALIDATORS_LEAF
from voice_dpki.shell.program import Parser

LOOKED_AT = 5
"""Blocks whose votes are read. A node's newest commit can lack some: it was made before all had voted."""


def add_force(parser: Parser) -> None:
    """Add the option that lets a change pass after which too few validators may run."""
    parser.add_argument(
        "--force",
        action="store_true",
        help="do it even if the ledger stands still unless validators run that sign no blocks today",
    )


async def checked_weight(session: Session, change: Change) -> Weight | None:
    """Weigh a change, None if it leaves the validators as they are; raises LocalError without --force.

    The members are read only if it can bring or take validators.
    """
    if not isinstance(change, SetMember | RemoveMember):
        return None
    weight = await weight_of(session, await all_members(session), change)
    if weight is not None:
        weight.check(force=session.options.force)
    return weight


async def weight_of(session: Session, members: Sequence[Member], change: Change) -> Weight | None:
    """Weigh a change of `members`; None if it leaves the validators as they are."""
    (sets,) = await session.client.read(VALIDATORS_LEAF, [VALIDATORS_LEAF.key()])
    if sets is None:
        raise PeerError("the ledger has no validators, which is proved")
    return weigh(members, sets[1], await _signers(session), change)


async def _signers(session: Session) -> frozenset[bytes]:
    """Return the addresses that signed any of the last blocks. The node is believed: it is the operator's own."""
    newest = (await session.client.node_info()).height
    found = frozenset[bytes]()
    for height in range(newest, max(0, newest - LOOKED_AT), -1):
        try:
            block = await session.client.light_block(height)
        except InquiryError:  # a node that began with a snapshot lacks those below
            break
        found |= frozenset(block.signed_header.commit.signers)
    return found


def on_validators(weight: Weight | None) -> list[str]:
    """Return what voters read about a change's weight."""
    return [f"Validators: {weight.sentence()}."] if weight is not None else []
