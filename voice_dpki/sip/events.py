"""The transaction layer's events, outgoing messages and counters."""

from dataclasses import dataclass
from typing import NewType, TypeAlias

from sipmessage import Request, Response

from voice_dpki.sip.hop import Hop
from voice_dpki.sip.message import Envelope

TransactionKey = NewType("TransactionKey", str)
"""Identifies a transaction (RFC 3261 §17.1.3, §17.2.3)."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send to `hop`; over TCP or TLS, on the open connection to it if there is one.

    `fallback` is the hop to use instead if the connection is gone: for a response, the connection that brought the
    request; for a request, its hop's flow.
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
    """A response to a request that this element sent."""

    key: TransactionKey
    response: Response
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class TimedOut:
    """Timeout: no response to a sent request, none from the transaction user, or no ACK for a final response."""

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
    """Counts of failures, for metrics."""

    malformed: int = 0
    stray_responses: int = 0
    overload: int = 0
    """Requests refused because there was no room for another transaction."""
    connections: int = 0
    """Connections refused, or closed in favour of newer ones, because there was no room."""
    dropped: int = 0
    """Datagrams dropped before they were read, because there was no room or their sender exceeded its rate."""
    overdue: int = 0
    """INVITEs that the transaction user did not answer in time."""
    failures: int = 0
    """Unexpected exceptions of our own code while a message, event or timer was handled."""
