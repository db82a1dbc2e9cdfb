"""What the transaction layer tells its user, what it has to send, and what it counts."""

from dataclasses import dataclass
from typing import NewType, TypeAlias

from sipmessage import Request, Response

from voice_dpki.sip.hop import Hop
from voice_dpki.sip.message import Envelope

TransactionKey = NewType("TransactionKey", str)
"""Identifies a transaction (RFC 3261 §17.1.3, §17.2.3)."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send to `hop`; over TCP, on the open connection to it if there is one.

    `fallback` is where a response goes when the connection that brought the request is gone, and a request when the
    flow of its hop is.
    """

    hop: Hop
    data: bytes
    key: TransactionKey | None
    fallback: Hop | None = None


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A new request other than ACK; the transaction user must answer it with `respond`."""

    key: TransactionKey
    request: Request
    envelope: Envelope
    source: Hop


@dataclass(frozen=True, slots=True)
class AckReceived:
    """An ACK for a 2xx response, which belongs to no transaction (RFC 3261 §17)."""

    request: Request
    envelope: Envelope
    source: Hop


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """A response to a request that was sent."""

    key: TransactionKey
    response: Response
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class TimedOut:
    """No answer came in time: to a request, or (server) no ACK for the final response."""

    key: TransactionKey


@dataclass(frozen=True, slots=True)
class TransportBroken:
    """A message of this transaction could not be sent."""

    key: TransactionKey


@dataclass(frozen=True, slots=True)
class Terminated:
    """The transaction is over and forgotten."""

    key: TransactionKey


Event: TypeAlias = RequestReceived | AckReceived | ResponseReceived | TimedOut | TransportBroken | Terminated


@dataclass(slots=True)
class Counters:
    """What went otherwise than it should, for metrics."""

    malformed: int = 0
    stray_responses: int = 0
    overload: int = 0
    """Requests refused for want of room."""
    connections: int = 0
    """Connections that were refused, or made way, for want of room."""
    dropped: int = 0
    """Datagrams dropped before anybody has looked at them: their senders send more than their share."""
    overdue: int = 0
    """Requests whose owner did not answer them in time."""
    failures: int = 0
    """Errors of our own, each of which ended a transaction."""
