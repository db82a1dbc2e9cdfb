"""`voice-dpki ledger rules`, and proposing and approving another version of the ledger's rules."""

import re

from rich.table import Table

from ledger_node.command.session import Commands, Session
from ledger_node.command.versions import Versions, read_state, read_versions
from voice_dpki.errors import LocalError
from voice_dpki.ledger import governance
from voice_dpki.ledger.activation import notice, read_notice
from voice_dpki.ledger.answers import InquiryError
from voice_dpki.ledger.members import Member, member_key
from voice_dpki.ledger.proposals import (
    MAX_HEIGHT,
    BeginRules,
    Change,
    Proposal,
    RemoveMember,
    SetMember,
    SuspendMember,
)
from voice_dpki.ledger.validators import VALIDATORS_KEY
from voice_dpki.shell.options import whole_number
from voice_dpki.shell.program import Parser
from voice_dpki.wire.ledger.client import LedgerClient, NodeInfo

_VERSION = re.compile("[1-9][0-9]{0,5}", re.ASCII)
"""As in the notice of a version (`voice_dpki.ledger.activation`)."""


def add_rules_command(commands: Commands) -> None:
    """Add the command about the versions of the ledger's rules."""
    help_ = "list the versions of the ledger's rules, and those that the node has"
    commands.add_parser("rules", help=help_).set_defaults(work=_rules)


def add_first_block(propose: Parser) -> None:
    """Add the option that names the first block of a version."""
    propose.add_argument(
        "--from",
        dest="first_block",
        type=whole_number(1, MAX_HEIGHT - 1),
        metavar="HEIGHT",
        help="the first block of a version of the rules; without it, the present version cancels the next one",
    )


async def propose_rules(session: Session, version: str) -> Change:
    """Return the change by which a ledger's rules get another version, or keep the one that they have.

    Raises LocalError if the version is no number, or if it cannot begin so.
    """
    return change_of(await read_versions(session.client), _number(version), session.options.first_block)


def change_of(known: Versions, version: int, first_block: int | None) -> Change:
    """Return the change with which `version` begins at `first_block`, or None to cancel what is decided.

    Under version 1 of the rules it is about a member that is a notice. Raises LocalError.
    """
    if first_block is None:
        return _cancelling(known, version)
    if version <= known.present:
        raise LocalError(f"the ledger follows version {known.present} of its rules already")
    if first_block <= known.height:
        raise LocalError(f"block {first_block} is past: the ledger is at block {known.height}")
    if known.present == 1:
        return SetMember(notice(version, first_block), None)
    return BeginRules(version, first_block)


def _cancelling(known: Versions, version: int) -> Change:
    if version != known.present:
        raise LocalError(f"say with --from at which block version {version} of the rules shall begin")
    if known.coming is None:
        raise LocalError(f"no version of the rules is to follow version {version}")
    if known.present == 1:
        return RemoveMember(notice(*known.coming).organization)
    return BeginRules(version, 0)


async def check_executable(session: Session, change: Change) -> None:
    """Raise LocalError if a change begins a version of the rules that the session's node does not have.

    A member that proposes or approves the change states that its own validators can execute that version.
    """
    begun = begins(change)
    if begun is None:
        return
    info = await session.client.node_info()
    if begun[0] not in info.rules.versions:
        raise LocalError(
            f"{session.options.url} {describe_release(info)}: install a release that has version {begun[0]} first"
        )


def begins(change: Change) -> tuple[int, int] | None:
    """Return the version of the rules that a change begins, and its first block; None for any other change."""
    match change:
        case SetMember(member, _):
            return read_notice(member.organization)
        case BeginRules(version, height):
            return version, height
    return None


def describe_rules_change(change: Change) -> str:
    """Return in a few words what a change that is about the rules does to them."""
    match change:
        case SetMember(Member(organization=name)) if found := read_notice(name):
            return f"begin version {found[0]} of the rules at block {found[1]}"
        case RemoveMember(name) | SuspendMember(name) if found := read_notice(name):
            return f"do not begin version {found[0]} of the rules at block {found[1]}"
        case BeginRules(version, 0):
            return f"follow version {version} of the rules from the next block on, and no other"
        case BeginRules(version, height):
            return f"begin version {version} of the rules at block {height}"
    raise ValueError("the change is about something else than the rules")


async def describe_ready(session: Session, proposal: Proposal, change: Change) -> str:
    """Return how many validators have operators that approve; empty unless a version of the rules would begin."""
    if begins(change) is None:
        return ""
    keys = [VALIDATORS_KEY, *map(member_key, proposal.approving)]
    state = await read_state(session.client, keys)
    approving = [name for name in proposal.approving if (member := state.member(name)) and member.votes]
    theirs, all_ = governance.ready(state, approving)
    return f"{theirs} of {all_} validators"


def describe_release(info: NodeInfo) -> str:
    """Return what a node runs, and which versions of the rules that has."""
    *others, last = [str(version) for version in info.rules.versions] or ["none"]
    listed = f"versions {', '.join(others)} and {last}" if others else f"version {last}"
    return f"runs {info.software or 'a release of voice-dpki'}, which has {listed} of the rules"


async def _rules(session: Session) -> int:
    """Show the versions; the exit status is 1 if the node lacks one that is in force or decided."""
    info = await session.client.node_info()
    known = await known_versions(session.client, info)
    table = Table("version", "first block", "state")
    for version, first in known.activations:
        table.add_row(str(version), str(first), _state(known, version, first))
    lines = [f"The ledger is at block {known.height}.", f"{session.options.url} {describe_release(info)}."]
    needed = [known.coming] if known.coming else []
    needed += [entry for entry in known.activations if entry[0] == known.present]
    lacking = [entry for entry in needed if entry[0] not in info.rules.versions]
    lines += [
        f"Install a release that has version {version}: from block {first} on this node stands still."
        for version, first in lacking
    ]
    result = {
        "height": known.height,
        "present": known.present,
        "versions": [{"version": version, "first_block": first} for version, first in known.activations],
        "lacking": [version for version, _ in lacking],
    }
    session.tell(result, table, *lines)
    return 1 if lacking else 0


async def known_versions(client: LedgerClient, info: NodeInfo) -> Versions:
    """Return what the ledger proves of its versions.

    Raises InquiryError, and LocalError where the node proves nothing any more because it lacks a version.
    """
    try:
        return await read_versions(client)
    except InquiryError as error:
        present = info.rules.present
        if present is None or present in info.rules.versions:
            raise
        raise LocalError(
            f"the node {describe_release(info)}, and stands still before version {present}: "
            f"install a release that has it ({error})"
        ) from None


def _state(known: Versions, version: int, first: int) -> str:
    if version == known.present:
        return "in force"
    return "past" if version < known.present else f"begins in {first - known.height} blocks"


def _number(version: str) -> int:
    if not _VERSION.fullmatch(version):
        raise LocalError(f"{version}: a version of the rules is a whole number from 1 to 999999")
    return int(version)
