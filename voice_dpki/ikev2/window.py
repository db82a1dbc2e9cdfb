"""Message IDs, the window of 1, and retransmission (RFC 7296 §2.1 to §2.3)."""

import hashlib
from dataclasses import dataclass

from voice_dpki.ikev2.events import Datagram


@dataclass(frozen=True, slots=True)
class Retransmission:
    """Retransmission schedule of a request, which is sent `tries` times in all.

    The first pause is `first_s` seconds, and each later one `factor` times the previous. A pause follows the last
    transmission, too; if no answer arrives by its end, the peer counts as gone.
    """

    first_s: float = 1.0
    factor: float = 2.0
    tries: int = 5

    def pause_s(self, sent: int) -> float:
        """Return the seconds to wait for the answer after transmission number `sent`, from 1."""
        return self.first_s * self.factor ** (sent - 1)


@dataclass(slots=True)
class _InFlight:
    message_id: int
    datagrams: tuple[Datagram, ...]
    sent: int
    due_s: float


class Requests:
    """Our own requests, one at a time."""

    def __init__(self, retransmission: Retransmission) -> None:
        self._retransmission = retransmission
        self._in_flight: _InFlight | None = None
        self.next_id = 0

    @property
    def due_s(self) -> float | None:
        """Time at which to retransmit or give up; None if no request waits for its answer."""
        return self._in_flight.due_s if self._in_flight else None

    @property
    def waiting_for(self) -> int | None:
        """Message ID of the request that waits for its answer; None if there is none."""
        return self._in_flight.message_id if self._in_flight else None

    @property
    def exchange(self) -> str | None:
        """Name of that request's exchange, which its answer must also have (RFC 7296 §3.1); None without one."""
        return self._in_flight.datagrams[0].exchange if self._in_flight else None

    def sent(self, datagrams: tuple[Datagram, ...], now_s: float) -> None:
        """Record that the request with `next_id` was sent."""
        due_s = now_s + self._retransmission.pause_s(1)
        self._in_flight = _InFlight(self.next_id, datagrams, 1, due_s)
        self.next_id += 1

    def answered(self) -> None:
        """Record that the answer arrived."""
        self._in_flight = None

    def repeat(self, now_s: float) -> tuple[Datagram, ...] | None:
        """Return the datagrams to retransmit now, empty if none is due; None if the peer counts as gone."""
        request = self._in_flight
        if request is None or now_s < request.due_s:
            return ()
        if request.sent >= self._retransmission.tries:
            self._in_flight = None
            return None
        request.sent += 1
        request.due_s = now_s + self._retransmission.pause_s(request.sent)
        return request.datagrams


class Responses:
    """The peer's requests: the next expected message ID, and the last answer, kept for a retransmitted request."""

    def __init__(self, expected: int = 0) -> None:
        self.expected = expected
        self._head: bytes | None = None
        self._answer: tuple[Datagram, ...] = ()

    def answered(self, head: bytes, datagrams: tuple[Datagram, ...]) -> None:
        """Record the answer to the expected request; `head` is the request's datagram, or its first fragment's."""
        self._head, self._answer = _digest(head), datagrams
        self.expected += 1

    def repeated(self, message_id: int, octets: bytes) -> tuple[Datagram, ...]:
        """Return the last answer if `octets` are a retransmission of its request, otherwise ().

        Only the first fragment of a fragmented request triggers the answer (RFC 7383 §2.6.1). The comparison of
        bytes needs no decryption, and returns the answer only to the peer, or to a replay of its datagram.
        """
        known = message_id == self.expected - 1 and _digest(octets) == self._head
        return self._answer if known else ()


def _digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()
