"""Who sends SIP messages here: known peers, and strangers, each of which may cost only so much a second.

A core: times are seconds of a clock that never goes back. A sender is what `source_of` makes of its address.
"""

import math
from collections.abc import Iterable
from typing import Final

from voice_dpki.sip.hop import source_of

STRANGER_MESSAGES_S: Final = 200.0
"""Datagrams a second that a stranger may send for longer: 60 calls of three requests each."""
STRANGER_BURST: Final = 2_000.0
"""Datagrams that a stranger may send at once: 1,000 telephones behind one address that register after a fault."""
KNOWN_S: Final = 3_600.0
"""How long a sender counts as known after it has authenticated: as long as a registration lasts at most."""
MAX_KNOWN: Final = 65_536
"""Senders that authenticated; the one that did so longest ago makes way."""
MAX_STRANGERS: Final = 10_000
"""Strangers whose use is remembered; the one that was quiet longest makes way, and comes back as a new one."""


class Senders:
    """Tells known senders from strangers, and bounds what each stranger may send."""

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._configured = frozenset(source_of(host) for host in hosts)
        self._known_until_s: dict[str, float] = {}
        self._strangers: dict[str, tuple[float, float]] = {}
        """For each stranger how many datagrams it may still send, and when that was so."""

    def vouch(self, host: str, now_s: float) -> None:
        """Note that somebody at `host` has authenticated."""
        source = source_of(host)
        self._known_until_s.pop(source, None)
        self._known_until_s[source] = now_s + KNOWN_S
        self._strangers.pop(source, None)
        if len(self._known_until_s) > MAX_KNOWN:
            del self._known_until_s[next(iter(self._known_until_s))]

    def is_known(self, source: str, now_s: float) -> bool:
        """Tell whether `source` is a configured peer, or has authenticated within KNOWN_S."""
        return source in self._configured or self._known_until_s.get(source, -math.inf) > now_s

    def admits(self, source: str, now_s: float) -> bool:
        """Count one datagram of a stranger, and tell whether it may cost anything."""
        left, at_s = self._strangers.pop(source, (STRANGER_BURST, now_s))
        left = min(left + (now_s - at_s) * STRANGER_MESSAGES_S, STRANGER_BURST)
        is_admitted = left >= 1
        self._strangers[source] = (left - 1 if is_admitted else left, now_s)
        if len(self._strangers) > MAX_STRANGERS:
            del self._strangers[next(iter(self._strangers))]
        return is_admitted
