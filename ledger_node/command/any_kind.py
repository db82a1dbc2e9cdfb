"""`voice-dpki ledger show` and `send`: any kind of leaf that has a lookup, and any kind of transaction of a member.

The kinds that people use often have commands of their own. These two serve all others, without being changed.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from ledger_node.command.session import Commands, Session, add_endorser
from voice_dpki.codec import cbor
from voice_dpki.errors import LocalError, MalformedError, PeerError
from voice_dpki.ledger.kind import Body, Parser
from voice_dpki.ledger.state import LEAVES
from voice_dpki.ledger.transactions import KINDS

_LOOKUPS = {leaf.lookup.path: (leaf, leaf.lookup.argument) for leaf in LEAVES if leaf.lookup is not None}
_KINDS = {kind.name: kind for kind in KINDS if kind.sender.is_member}


def add_general_commands(commands: Commands) -> None:
    """Add the commands for all kinds of leaves and transactions."""
    show = commands.add_parser("show", help="show what the ledger holds under a name, proved")
    show.set_defaults(work=_show)
    show.add_argument("what", choices=sorted(_LOOKUPS), help="what to show")
    show.add_argument("name", help="its name: an organisation, H(CERT) in hexadecimal, or a number")
    send = commands.add_parser("send", help="send a transaction that has no command of its own")
    send.set_defaults(work=_send)
    send.add_argument("kind", choices=sorted(_KINDS), help="its kind")
    send.add_argument(
        "members",
        nargs="*",
        metavar="MEMBER=VALUE",
        help="what it says; bytes are in hexadecimal, and commas between the texts of a list",
    )
    add_endorser(send)


async def _show(session: Session) -> None:
    leaf, argument = _LOOKUPS[session.options.what]
    key = leaf.key(argument.of_text(session.options.name))
    (found,) = await session.client.read(leaf, [key])
    if found is None:
        raise PeerError(f"the ledger holds no {leaf.kind} of this name, which is proved")
    session.tell(found, *describe(found))


def describe(value: object) -> list[str]:
    """Return the fields of a parsed leaf, one per line, and the items that later versions of the rules added."""
    if not is_dataclass(value) or isinstance(value, type):
        return [_readable(value)]
    known = [each.name for each in fields(value) if each.name != "further"]
    further = {name: cbor.decode(data, name) for name, data in getattr(value, "further", ())}
    return [
        *(f"{name}: {_readable(getattr(value, name))}" for name in known),
        *(f"further item {name}: {_readable(item)}" for name, item in further.items()),
    ]


def _readable(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return ", ".join(map(_readable, value))
    return str(value)


async def _send(session: Session) -> None:
    options = session.options
    kind = _KINDS[options.kind]
    pairs = [_split(member) for member in options.members]
    given = dict(pairs)
    if sorted(name for name, _ in pairs) != sorted(kind.members):
        raise LocalError(f"{kind.name} has the members {', '.join(kind.members)}, each given once as MEMBER=VALUE")
    said = {name: read_member(name, parse, given[name]) for name, parse in kind.members.items()}
    body: Body = kind.body(chain=session.genesis.chain_id, by=options.organization, **said)
    height = await session.endorsed(body)
    session.tell({"height": height}, f"In effect since block {height}")


def _split(member: str) -> tuple[str, str]:
    name, equals, value = member.partition("=")
    if not equals:
        raise LocalError(f"{member}: give a member as MEMBER=VALUE")
    return name, value


def _listed(text: str) -> list[str]:
    return text.split(",") if text else []


_READERS: tuple[Callable[[str], Any], ...] = (
    str,
    int,
    bytes.fromhex,
    {"true": True, "false": False}.__getitem__,
    _listed,
)
"""Ways to read a value. A member's parser takes only one type, so at most one of them fits."""


def read_member(name: str, parse: Parser, text: str) -> object:
    """Return the value of a member of a body from its text; raises LocalError if its parser takes no such value."""
    for read in _READERS:
        try:
            return parse(read(text))
        except (KeyError, ValueError, MalformedError):
            continue
    raise LocalError(f"{name}: no value of the form that it needs")
