"""The protocol between an IKEv2 daemon's plugin and the agent, over a unix socket.

docs/spec/agent.md has its frames, items, limits and codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from segw_agent.policy import IntegrityPolicy, Side
from voice_dpki.codec.cursor import Cursor
from voice_dpki.errors import MalformedError
from voice_dpki.ikev2.events import SaName
from voice_dpki.ikev2.message import SPI_BYTES
from voice_dpki.ikev2.payloads import Identification

VERSION = 1
LENGTH_BYTES = 2
MAX_SENTENCE_BYTES = 512


class Operation(IntEnum):
    """The operation that a request asks for."""

    JUDGE = 1
    STATE = 2


class Tag(IntEnum):
    """Tags of items."""

    IDENTITY = 1
    CERTIFICATE = 2
    INTEGRITY_INFO = 3
    LEDGER_ANSWER = 4
    CONNECTION = 5
    CODE = 16
    SENTENCE = 17
    OWN_INTEGRITY_INFO = 18
    OWN_LEDGER_ANSWER = 19


MAX_BYTES: Mapping[int, int] = {
    Tag.IDENTITY: 1025,
    Tag.CERTIFICATE: 8192,
    Tag.INTEGRITY_INFO: 4096,
    Tag.LEDGER_ANSWER: 32_768,
    Tag.CONNECTION: 64,
    Tag.CODE: 64,
    Tag.SENTENCE: MAX_SENTENCE_BYTES,
    Tag.OWN_INTEGRITY_INFO: 4096,
    Tag.OWN_LEDGER_ANSWER: 32_768,
}
"""Longest value of each tag."""

_SIDES = (Side.DEVICE, Side.GATEWAY)
_POLICIES = (IntegrityPolicy.IGNORE, IntegrityPolicy.CHECK_IF_PRESENT, IntegrityPolicy.REQUIRE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request of a daemon's plugin; the certificate is the peer's with JUDGE, and our own with STATE."""

    operation: Operation
    side: Side
    sa: SaName
    certificate: bytes
    policy: IntegrityPolicy = IntegrityPolicy.CHECK_IF_PRESENT
    unique_id: int = 0
    identification: Identification | None = None
    integrity_info: bytes | None = None
    ledger_answer: bytes | None = None
    connection: str = ""

    @classmethod
    def parse(cls, body: bytes) -> "Request":
        """Parse what follows the length; raises MalformedError."""
        cursor = Cursor(body, "agent request")
        _version(cursor)
        operation, side, policy = cursor.uint(1), cursor.uint(1), cursor.uint(1)
        if operation not in set(Operation) or side not in (1, 2) or policy >= len(_POLICIES):
            raise MalformedError("agent request: operation, side or policy is not known")
        unique_id, sa = cursor.uint(4), SaName(cursor.take(SPI_BYTES), cursor.take(SPI_BYTES))
        items = _items(cursor)
        identity = items.get(Tag.IDENTITY)
        if Tag.CERTIFICATE not in items or (operation == Operation.JUDGE and not identity):
            raise MalformedError("agent request: the certificate or the identity is missing")
        return cls(
            operation=Operation(operation),
            side=_SIDES[side - 1],
            sa=sa,
            certificate=items[Tag.CERTIFICATE],
            policy=_POLICIES[policy],
            unique_id=unique_id,
            identification=Identification(identity[0], identity[1:]) if identity else None,
            integrity_info=items.get(Tag.INTEGRITY_INFO),
            ledger_answer=items.get(Tag.LEDGER_ANSWER),
            connection=items.get(Tag.CONNECTION, b"").decode("utf-8", "replace"),
        )

    def serialize(self) -> bytes:
        """Write the frame."""
        identity = self.identification
        head = (VERSION, self.operation, _SIDES.index(self.side) + 1, _POLICIES.index(self.policy))
        items = {
            Tag.IDENTITY: bytes((identity.id_type,)) + identity.data if identity else None,
            Tag.CERTIFICATE: self.certificate,
            Tag.INTEGRITY_INFO: self.integrity_info,
            Tag.LEDGER_ANSWER: self.ledger_answer,
            Tag.CONNECTION: self.connection.encode("utf-8") or None,
        }
        return _frame(bytes(head) + self.unique_id.to_bytes(4, "big") + b"".join(self.sa), items)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAnswer:
    """The agent's answer: to JUDGE, whether the peer is trusted; to STATE, whether there are statements."""

    yes: bool
    code: str
    sentence: str
    integrity_info: bytes | None = None
    ledger_answer: bytes | None = None

    @classmethod
    def parse(cls, body: bytes) -> "AgentAnswer":
        """Parse what follows the length; raises MalformedError."""
        cursor = Cursor(body, "agent answer")
        _version(cursor)
        verdict, items = cursor.uint(1), _items(cursor)
        if verdict > 1 or Tag.CODE not in items or Tag.SENTENCE not in items:
            raise MalformedError("agent answer: the verdict is not known, or code or sentence is missing")
        return cls(
            yes=verdict == 1,
            code=items[Tag.CODE].decode("ascii", "replace"),
            sentence=items[Tag.SENTENCE].decode("utf-8", "replace"),
            integrity_info=items.get(Tag.OWN_INTEGRITY_INFO),
            ledger_answer=items.get(Tag.OWN_LEDGER_ANSWER),
        )

    def serialize(self) -> bytes:
        """Write the frame; a sentence that is too long is cut, and unprintable characters become spaces."""
        printable = "".join(each if each.isprintable() else " " for each in self.sentence)
        items = {
            Tag.CODE: self.code.encode("ascii"),
            Tag.SENTENCE: printable.encode("utf-8")[:MAX_SENTENCE_BYTES].decode("utf-8", "ignore").encode("utf-8"),
            Tag.OWN_INTEGRITY_INFO: self.integrity_info,
            Tag.OWN_LEDGER_ANSWER: self.ledger_answer,
        }
        return _frame(bytes((VERSION, self.yes)), items)


def _frame(head: bytes, items: Mapping[Tag, bytes | None]) -> bytes:
    body = head
    for tag, value in items.items():
        if value is not None:
            body += bytes((tag,)) + len(value).to_bytes(2, "big") + value
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def _version(cursor: Cursor) -> None:
    version = cursor.uint(1)
    if version != VERSION:
        raise MalformedError(f"agent: version {version} is not known")


def _items(cursor: Cursor) -> dict[int, bytes]:
    items: dict[int, bytes] = {}
    last = 0
    while cursor.remaining:
        tag, value = cursor.uint(1), cursor.take(cursor.uint(2))
        if tag <= last or len(value) > MAX_BYTES.get(tag, -1):
            raise MalformedError(f"agent: item {tag} is unknown, out of order, there twice, or too long")
        items[tag] = value
        last = tag
    return items
