"""MIKEY's time: NTP timestamps, the allowed skew, and the cache that refuses replays (RFC 3830 §4.2.8, §5.4)."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from voice_dpki.codec.ntp import NTP_WRAP, ntp_time
from voice_dpki.mikey.failures import Failure, MikeyError
from voice_dpki.mikey.payloads import Timestamp
from voice_dpki.mikey.registry import TimestampType

MAX_SKEW_S = 60.0
"""Largest difference between an Initiator's timestamp and our clock: the same as for a PASSporT."""

MAX_REPLAY_ENTRIES = 4096
"""Most authenticated messages in the cache; at 100 bytes each, about 400 kB."""

SET_S = 60.0
"""Largest step of the wall clock that cannot let a replay pass; the ledger's clock check notices larger ones."""


def timestamp_at(ntp: int) -> Timestamp:
    """Write a timestamp payload in UTC."""
    return Timestamp(TimestampType.NTP_UTC, ntp.to_bytes(8, "big"))


def unix_time_s(timestamp: Timestamp, now_s: float) -> float:
    """Return a timestamp as Unix time, in the NTP era that brings it nearest to `now_s`.

    Raises MikeyError for a counter, which this project does not use.
    """
    if timestamp.ts_type not in (TimestampType.NTP_UTC, TimestampType.NTP):
        raise MikeyError(Failure.TIMESTAMP_TYPE, "the timestamp is a counter, and only NTP time is accepted")
    ahead = (int.from_bytes(timestamp.value, "big") - ntp_time(now_s) + NTP_WRAP // 2) % NTP_WRAP - NTP_WRAP // 2
    return now_s + ahead / (1 << 32)


@dataclass(slots=True)
class ReplayCache:
    """Authenticated messages that are still within the skew.

    Timestamps are compared with the wall clock, `now_s`. Entries age by the monotonic clock, `steady_s`, so setting
    the wall clock expires none. The cache knows nothing from before `started_s` on the monotonic clock: messages
    with an older timestamp are refused, so that a restart does not admit replays (§5.4 demands it).

    A full cache refuses every new message. An Initiator's organisation is refused once it has more entries than
    there are free places, so that a flood from one leaves room for all others (as in `voice_dpki.stir.replay`).
    Certificates that name no organisation share one quota.
    """

    started_s: float
    max_skew_s: float = MAX_SKEW_S
    max_entries: int = MAX_REPLAY_ENTRIES
    _entries: dict[bytes, tuple[float, str]] = field(default_factory=dict)
    """SHA-256 of the message to its expiry (monotonic seconds) and its Initiator's organisation."""
    _held: Counter[str] = field(default_factory=Counter)
    """Number of entries by organisation."""

    def check(self, octets: bytes, timestamp: Timestamp, *, now_s: float, steady_s: float) -> None:
        """Raise MikeyError if the message's timestamp is too old or too new, or if it was accepted before.

        `octets` are those that only the sender can change. An ECDSA signature is left out: from (r, s) anyone can
        make (r, n - s), which verifies as well.
        """
        sent_s = unix_time_s(timestamp, now_s)
        if abs(sent_s - now_s) > self.max_skew_s:
            raise MikeyError(
                Failure.TIMESTAMP,
                f"the timestamp is {sent_s - now_s:+.0f} s from our clock, and {self.max_skew_s:.0f} s are allowed",
            )
        if now_s - sent_s > steady_s - self.started_s:
            raise MikeyError(Failure.REPLAY, "the message is older than this Responder's memory of replays")
        if hashlib.sha256(octets).digest() in self._entries:
            raise MikeyError(Failure.REPLAY, "the message was accepted before: it is replayed")

    def remember(
        self, octets: bytes, timestamp: Timestamp, *, now_s: float, steady_s: float, organization: str = ""
    ) -> None:
        """Check again, then remember an authenticated message of an organisation.

        Raises MikeyError like `check`, and if there is no room.
        """
        self.check(octets, timestamp, now_s=now_s, steady_s=steady_s)
        if not self._has_room(organization):
            self._forget(steady_s)
        if not self._has_room(organization):
            raise MikeyError(Failure.REPLAY, "the replay cache is full: new messages must wait")
        fresh_s = unix_time_s(timestamp, now_s) + self.max_skew_s - now_s
        self._entries[hashlib.sha256(octets).digest()] = (steady_s + fresh_s + SET_S, organization)
        self._held[organization] += 1

    def _has_room(self, organization: str) -> bool:
        free = self.max_entries - len(self._entries)
        return free > 0 and self._held[organization] <= free

    def _forget(self, steady_s: float) -> None:
        self._entries = {digest: entry for digest, entry in self._entries.items() if entry[0] >= steady_s}
        self._held = Counter(organization for _, organization in self._entries.values())
