"""Keep-alives of one flow (RFC 5626 §4.4): when they are sent, and how the flow's failure is detected.

Over UDP they are STUN Binding requests, retransmitted as RFC 5389 §7.2.1 says; their answers tell the telephone's
address as the proxy sees it. Over a connection they are two line ends.
"""

from dataclasses import dataclass
from typing import Final

from voice_dpki.effects import Random
from voice_dpki.errors import PeerError
from voice_dpki.sip.framing import PING
from voice_dpki.sip.hop import Hop
from voice_dpki.sip.stun import TRANSACTION_BYTES, binding_request, read_binding_answer

SENDINGS: Final = 7
"""Number of transmissions of a request before its server counts as dead (RFC 5389 §7.2.1, Rc)."""
_LAST_WAIT: Final = 16
"""Wait for an answer after the last transmission, in RTOs (RFC 5389 §7.2.1, Rm)."""
_LEAST_OF_FLOW_TIMER: Final = 0.8
"""Shortest wait between keep-alives, as a part of Flow-Timer, which is the longest (RFC 5626 §4.4)."""


@dataclass(frozen=True, slots=True)
class KeepAliveTimes:
    """Intervals between keep-alives, each as minimum and maximum, and the retransmission timeout; in seconds."""

    datagram_s: tuple[float, float] = (24.0, 29.0)
    """RFC 5626 §4.4.2: NATs forget a UDP flow after as little as 30 s."""
    connection_s: tuple[float, float] = (96.0, 120.0)
    """RFC 5626 §4.4.1: the lower bound is 20 percent less than the upper one."""
    rto_s: float = 0.5
    """RFC 5389 §7.2.1; it doubles with each retransmission."""


class KeepAlive:
    """The keep-alives of the flow to `hop`, from `start` to `stop` or failure.

    Some proxies do not support STUN. A timeout therefore counts as failure only if the server has ever answered,
    and an error only if the server has answered since `start`.
    """

    def __init__(self, hop: Hop, times: KeepAliveTimes, random: Random) -> None:
        self.next_s: float | None = None
        """When `handle_timer` must be called; None while there is nothing to do."""
        self.failure: str | None = None
        """Why the flow has failed; None while it has not."""
        self._hop = hop
        self._times = times
        self._random = random
        self._between_s = times.datagram_s
        self._transaction: bytes | None = None
        self._sent = 0
        self._has_answered = False
        self._mapped: tuple[str, int] | None = None

    def start(self, now_s: float, flow_timer_s: int = 0) -> None:
        """Start after a registration; `flow_timer_s` is the Flow-Timer of its answer, 0 if it had none.

        The first keep-alive is due at once; over UDP, its answer tells the flow's address as the proxy sees it.
        """
        usual = self._times.connection_s if self._hop.reliable else self._times.datagram_s
        self._between_s = (_LEAST_OF_FLOW_TIMER * flow_timer_s, float(flow_timer_s)) if flow_timer_s else usual
        self.failure = self._transaction = self._mapped = None
        self.next_s = now_s

    def stop(self) -> None:
        """Stop sending keep-alives."""
        self.next_s = self._transaction = None

    def handle_timer(self, now_s: float) -> bytes | None:
        """Return the keep-alive that is due now, or None; sets `failure` if the server no longer answers."""
        if self.next_s is None or now_s < self.next_s:
            return None
        if self._hop.reliable:
            self._wait(now_s)
            return PING
        if self._transaction is None:
            self._transaction, self._sent = self._random.token(TRANSACTION_BYTES), 0
        elif self._sent == SENDINGS:
            self._given_up(now_s)
            return None
        self._sent += 1
        times = _LAST_WAIT if self._sent == SENDINGS else 1 << (self._sent - 1)
        self.next_s = now_s + self._times.rto_s * times
        return binding_request(self._transaction)

    def receive(self, data: bytes, now_s: float) -> None:
        """Process a STUN answer from `hop`; sets `failure` for an error, and if our address has changed."""
        if self._transaction is None:
            return
        try:
            mapped = read_binding_answer(data, self._transaction)
        except PeerError as error:
            self._refused(str(error), now_s)
            return
        if mapped is None:
            return
        self._transaction, self._has_answered = None, True
        if self._mapped not in (None, mapped):
            self._fail("the proxy sees this telephone at another address than before")
            return
        self._mapped = mapped
        self._wait(now_s)

    def _refused(self, why: str, now_s: float) -> None:
        """Treat an error as a failure if the flow has worked; before that, registering again would not help."""
        self._transaction = None
        if self._mapped is not None:
            self._fail(why)
        else:
            self._wait(now_s)

    def _given_up(self, now_s: float) -> None:
        if self._has_answered:
            self._fail("the proxy does not answer keep-alives any more")
            return
        self._transaction = None
        self._wait(now_s)

    def _fail(self, why: str) -> None:
        self.stop()
        self.failure = why

    def _wait(self, now_s: float) -> None:
        """Wait for a random part of the interval, so that telephones do not send in step."""
        least_s, most_s = self._between_s
        part = int.from_bytes(self._random.token(2), "big") / 65_536
        self.next_s = now_s + least_s + (most_s - least_s) * part
