"""`voice-dpki ledger numbers`: numbers that members give to one another, and who holds one."""

from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ledger_node.command.number_files import read_numbers
from ledger_node.command.sending import TransactionRefusedError
from ledger_node.command.session import CONSOLE, Commands, Session, add_endorser
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.ledger.directory import DIRECTORY_KEY, DIRECTORY_LEAF
from voice_dpki.ledger.held_numbers import COUNT_LEAF, NUMBER_LEAF, count_key, number_key
from voice_dpki.ledger.leaf import number_of
from voice_dpki.ledger.members import MEMBER_LEAF, Member, member_key
from voice_dpki.ledger.numbers import MAX_GIVEN, Numbers
from voice_dpki.ledger.refusals import Refusal
from voice_dpki.names import Tn


def add_numbers_command(commands: Commands) -> None:
    """Add the command with its parts."""
    parser = commands.add_parser(
        "numbers", help="give numbers one by one to another member, such as ported ones, and tell who holds one"
    )
    parser.set_defaults(work=_work)
    parser.add_argument("what", choices=sorted(_WORK), help="say that this member takes numbers; give some; or ask")
    parser.add_argument(
        "about", nargs="?", help="to give: a CSV file with a number in each line's first column; to ask: a number"
    )
    parser.add_argument("--to", metavar="NAME", help="the member that is to hold the numbers that are given")
    add_endorser(parser, required=False)


async def _work(session: Session) -> None:
    options = session.options
    work, needed = _WORK[options.what]
    given = {
        "--organization": options.organization,
        "--key": options.key,
        "--to": options.to,
        "about": options.about,
    }
    missing = [name for name in needed if given[name] is None]
    if missing:
        names = ", ".join(_ABOUT[options.what] if name == "about" else name for name in missing)
        raise LocalError(f"numbers {options.what} needs {names}")
    await work(session)


async def _take(session: Session) -> None:
    options = session.options
    height = await session.endorsed(await _body(session, options.organization, ()))
    session.tell({"height": height}, f"{options.organization} takes numbers since block {height}")


async def _give(session: Session) -> None:
    """Give all numbers of the file that the other member does not hold yet, a thousand in each transaction."""
    options = session.options
    numbers = read_numbers(Path(options.about))
    to = await _member(session, options.to)
    given, height = 0, 0
    columns = TextColumn("Giving"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=CONSOLE, transient=True, disable=options.json) as progress:
        task = progress.add_task("", total=len(numbers))
        for chunk in _chunks(numbers):
            if left := await _not_held(session, to, chunk):
                height = await _sent(session, options, left)
                given += len(left)
            progress.advance(task, len(chunk))
    already = len(numbers) - given
    result = {"given": given, "already": already, "to": options.to, "height": height or None}
    session.tell(result, f"{given} numbers are given to {options.to}, {already} were its own already")


async def _sent(session: Session, options: Namespace, numbers: Sequence[Tn]) -> int:
    """Give numbers in one transaction; return its height. Succeeds if it took effect but its answer was lost."""
    body = await _body(session, options.to, numbers)
    try:
        return await session.endorsed(body)
    except TransactionRefusedError as refused:
        if refused.name != Refusal.SEQUENCE.kebab or await _not_held(
            session, await _member(session, body.to), numbers
        ):
            raise
    return 0


async def _body(session: Session, to: str, numbers: Sequence[Tn]) -> Numbers:
    by = session.options.organization
    (count,) = await session.client.read(COUNT_LEAF, [count_key(by)])
    return Numbers(session.genesis.chain_id, by, to, count or 0, tuple(numbers))


async def _member(session: Session, organization: str) -> Member:
    (member,) = await session.client.read(MEMBER_LEAF, [member_key(organization)])
    if member is None:
        raise PeerError(f"{organization} is no member of the ledger")
    return member


async def _not_held(session: Session, member: Member, numbers: Sequence[Tn]) -> list[Tn]:
    """Return those of the numbers that a member does not hold."""
    holders = await session.client.read(NUMBER_LEAF, [number_key(tn) for tn in numbers])
    return [
        tn
        for tn, holder in zip(numbers, holders, strict=True)
        if not (member.allotment.holds_number(tn) if holder is None else holder.is_of(member))
    ]


def _chunks(numbers: Sequence[Tn]) -> Iterator[Sequence[Tn]]:
    return (numbers[at : at + MAX_GIVEN] for at in range(0, len(numbers), MAX_GIVEN))


async def _holder(session: Session) -> None:
    try:
        tn = number_of(session.options.about.removeprefix("+"))
    except MalformedError as error:
        raise LocalError(str(error)) from None
    (named,) = await session.client.read(NUMBER_LEAF, [number_key(tn)])
    if named is not None:
        (member,) = await session.client.read(MEMBER_LEAF, [member_key(named.organization)])
        counts = member is not None and named.is_of(member)
        how = "by a leaf of its own" if counts else "by a leaf of a time before: it is no such member any more"
        session.tell({"holder": named.organization, "by": "leaf", "counts": counts}, f"{named.organization}, {how}")
        return
    holder = await _holder_by_range(session, tn)
    said = f"{holder}, by its ranges" if holder else "nobody"
    session.tell({"holder": holder or None, "by": "range" if holder else None, "counts": bool(holder)}, said)


async def _holder_by_range(session: Session, tn: Tn) -> str:
    """Return the member in whose ranges a number lies, "" if there is none."""
    (names,) = await session.client.read(DIRECTORY_LEAF, [DIRECTORY_KEY])
    members = await session.client.read(MEMBER_LEAF, [member_key(name) for name in names or ()])
    found = (each.organization for each in members if each is not None and each.allotment.holds_number(tn))
    return next(found, "")


_WORK: dict[str, tuple[Callable[[Session], Awaitable[None]], tuple[str, ...]]] = {
    "take": (_take, ("--organization", "--key")),
    "give": (_give, ("about", "--to", "--organization", "--key")),
    "holder": (_holder, ("about",)),
}
"""The parts of the command, each with the options that it requires."""

_ABOUT = {"give": "a file", "holder": "a number"}
