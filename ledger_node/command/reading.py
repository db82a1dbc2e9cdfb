"""Members as the ledger proves them to `voice-dpki ledger`."""

from collections.abc import Sequence

from ledger_node.command.session import Session
from voice_dpki.ledger.directory import DIRECTORY_LEAF
from voice_dpki.ledger.members import MEMBER_LEAF, Member, member_key


async def all_members(session: Session) -> list[Member]:
    """Return all members, notices of versions of the rules included."""
    (listed,) = await session.client.read(DIRECTORY_LEAF, [DIRECTORY_LEAF.key()])
    return [member for member in await read_members(session, listed or ()) if member is not None]


async def read_members(session: Session, organizations: Sequence[str]) -> list[Member | None]:
    """Return members by name, None for each that is none."""
    return await session.client.read(MEMBER_LEAF, [member_key(organization) for organization in organizations])
