"""Senders of SIP messages: known peers, and strangers, whose rate is limited.

A core: times are seconds of a monotonic clock. A sender is identified by `source_of` its address.
"""

import math
from collections.abc import Iterable
from typing import Final

from voice_dpki.bucket import Bucket
from voice_dpki.sip.hop import source_of

STRANGER_MESSAGES_S: Final = 200.0
"""Datagrams a second that a stranger may send continuously: more than 60 calls of three requests each."""
STRANGER_BURST: Final = 2_000.0
"""Datagrams that a stranger may send at once: enough for 1,000 telephones behind one address to register again."""
KNOWN_S: Final = 3_600.0
"""Time in seconds for which a sender counts as known after it authenticated: the longest registration."""
MAX_KNOWN: Final = 65_536
"""Most authenticated senders that are remembered; the one that authenticated longest ago is forgotten first."""
MAX_STRANGERS: Final = 10_000
"""Most strangers whose rate is tracked; the one quiet for longest is forgotten first, and then counts as new."""


class Senders:
    """The known senders, and a token bucket for each stranger."""

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._configured = frozenset(source_of(host) for host in hosts)
        self._known_until_s: dict[str, float] = {}
        self._strangers: dict[str, Bucket] = {}
        """The token bucket of each stranger, the one that was quiet for longest first."""

    def vouch(self, host: str, now_s: float) -> None:
        """Record that a user at `host` has authenticated."""
        source = source_of(host)
        self._known_until_s.pop(source, None)
        self._known_until_s[source] = now_s + KNOWN_S
        self._strangers.pop(source, None)
        if len(self._known_until_s) > MAX_KNOWN:
            del self._known_until_s[next(iter(self._known_until_s))]

    def is_known(self, source: str, now_s: float) -> bool:
        """Return whether `source` is a configured peer, or has authenticated within KNOWN_S."""
        return source in self._configured or self._known_until_s.get(source, -math.inf) > now_s

    def admits(self, source: str, now_s: float) -> bool:
        """Count one datagram of a stranger, and return whether its rate allows it."""
        bucket = self._strangers.pop(source, None) or Bucket(STRANGER_BURST, STRANGER_MESSAGES_S)
        self._strangers[source] = bucket
        if len(self._strangers) > MAX_STRANGERS:
            del self._strangers[next(iter(self._strangers))]
        return bucket.take(now_s) == 0
