"""What one client may ask of a server: requests a second, requests at a time and connections, for each address.

Who asks for more is told when to come back (429 with Retry-After, RFC 6585 §4). A request costs as much as its
route says, so that one bound fits cheap questions and dear ones. IPv6 addresses count by their /64 (RFC 4291
§2.5.1): that is what one host can choose from.
"""
# ruff: noqa: TID251 - this is a shell: it measures time

import ipaddress
import logging
import math
from collections import OrderedDict
from time import monotonic
from typing import Annotated

import msgspec
from prometheus_client import Counter

from voice_dpki.errors import PeerError
from voice_dpki.shell.config import Config

log = logging.getLogger(__name__)

BURST_S = 2.0
"""A client that was quiet may ask for so many seconds' worth at once."""

MAX_COST = 200
"""What a client may always have at once, however little it may have a second."""

KNOWN_S = 3600.0
"""How long the address of a client that showed a token counts as known."""

MAX_ADDRESSES = 10_000
"""Addresses whose use is remembered after their last connection; each takes about 200 bytes."""

CONNECTION_COST = 4
"""What `cost_s` would have to pay for a connection; there is a bucket of its own for them, as large."""

SAY_AGAIN_S = 1.0
"""Refusals are in the log once in this time, so that nobody can fill it; metrics count all."""

REFUSED = Counter(
    "voice_dpki_http_refused", "Requests and connections above what one client may have, by reason.", ["reason"]
)
_RATE, _CONCURRENT, _CONNECTIONS = (REFUSED.labels(name) for name in ("rate", "concurrent", "connections"))
FAILED = Counter("voice_dpki_http_failed", "Requests that are answered 500: something here is wrong.")
LATE, BODY_LATE, MALFORMED = (REFUSED.labels(name) for name in ("head-late", "body-late", "malformed"))
_KNOCKS = REFUSED.labels("connection-rate")
FULL, DISPLACED, UNREAD = (REFUSED.labels(name) for name in ("full", "displaced", "unread"))


class Limits(Config, frozen=True, kw_only=True):
    """`[limits]` of a server: what one client address may have."""

    cost_s: Annotated[float, msgspec.Meta(gt=0)] = 10_000.0
    """Cost of its requests a second: 1 is a status inquiry, at most 0.1 ms of the server's processor time."""
    concurrent: Annotated[int, msgspec.Meta(ge=1)] = 256
    """Its requests under way."""
    connections: Annotated[int, msgspec.Meta(ge=1)] = 256
    """Its connections; a quarter of what a server has for all."""


class Seldom:
    """Puts what strangers can cause into the log, but not as often as they like."""

    def __init__(self, logger: logging.Logger) -> None:
        self._log = logger
        self._said_s = -math.inf
        self._unsaid = 0

    def info(self, event: str, **fields: object) -> None:
        """Log what is in order, as seldom as a warning."""
        self._say(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log a warning, unless something was logged within SAY_AGAIN_S; `unsaid` counts those between."""
        self._say(logging.WARNING, event, fields)

    def _say(self, level: int, event: str, fields: dict[str, object]) -> None:
        if monotonic() - self._said_s < SAY_AGAIN_S:
            self._unsaid += 1
            return
        self._said_s = monotonic()
        if self._unsaid:
            fields["unsaid"], self._unsaid = self._unsaid, 0
        self._log.log(level, event, extra={"fields": fields})

    def error(self, event: str, error: BaseException, **fields: object) -> None:
        """Log an error with its traceback, as seldom."""
        if monotonic() - self._said_s >= SAY_AGAIN_S:
            self._said_s = monotonic()
            self._log.error(event, exc_info=error, extra={"fields": fields})


class TooManyError(PeerError):
    """A client asks for more than it may; `retry_after_s` says when it can come again."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


SAID = Seldom(log)


class Account:
    """What one client address uses: a bucket of tokens, and counts. Without limits, it only counts."""

    __slots__ = (
        "_at_s",
        "_knocked_s",
        "_knocks",
        "_known_until_s",
        "_limits",
        "_most",
        "_running",
        "_tokens",
        "connections",
    )

    def __init__(self, limits: Limits | None) -> None:
        self._limits = limits
        self._most = max(limits.cost_s * BURST_S, MAX_COST) if limits else 0.0
        self._tokens = self._most
        self._at_s = monotonic()
        self._known_until_s = -math.inf
        self._knocked_s = self._at_s
        self._knocks = math.inf if limits is None else self._most_knocks(limits)
        self._running = 0
        self.connections = 0

    def take(self, cost: int) -> None:
        """Pay for a request; raises TooManyError.

        What is dear can be had with half a full bucket, and the rest is owed: every request can be made once in
        a while, whatever it costs.
        """
        limits = self._limits
        if limits is None:
            return
        now_s = monotonic()
        tokens = min(self._tokens + (now_s - self._at_s) * limits.cost_s, self._most)
        self._at_s = now_s
        self._tokens = tokens
        if tokens < min(cost, self._most / 2):
            _RATE.inc()
            wait_s = max(1, math.ceil((cost - tokens) / limits.cost_s))
            raise TooManyError("too many requests a second from this address", wait_s)
        self._tokens = tokens - cost

    @staticmethod
    def _most_knocks(limits: Limits) -> float:
        return max(limits.cost_s * BURST_S / CONNECTION_COST, 2 * limits.connections)

    def knock(self) -> bool:
        """Pay for a connection; tells whether the client may have another one now. Who is known always may."""
        limits = self._limits
        if limits is None or self.is_known:
            return True
        now_s = monotonic()
        knocks = self._knocks + (now_s - self._knocked_s) * limits.cost_s / CONNECTION_COST
        self._knocked_s, self._knocks = now_s, min(knocks, self._most_knocks(limits))
        if self._knocks < 1:
            _KNOCKS.inc()
            return False
        self._knocks -= 1
        return True

    def begin(self, cost: int) -> None:
        """Pay for a request and count it among those under way, until `end`; raises TooManyError."""
        if self._limits is not None and self._running >= self._limits.concurrent:
            _CONCURRENT.inc()
            raise TooManyError("too many requests at a time from this address", 1)
        self.take(cost)
        self._running += 1

    def end(self) -> None:
        """Count a request less."""
        self._running -= 1

    def vouch(self) -> None:
        """Take note that somebody at this address showed to be known."""
        self._known_until_s = monotonic() + KNOWN_S

    @property
    def is_known(self) -> bool:
        """Whether somebody at this address showed to be known lately."""
        return monotonic() < self._known_until_s

    @property
    def is_idle(self) -> bool:
        """Whether nothing of this address is under way, so that it may be forgotten."""
        return not (self.connections or self._running)


class Door:
    """Counts the clients of one server in and out."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def enter(self, host: str) -> Account | None:
        """Count a connection; returns the account of its address, None where that has enough connections."""
        name = network_of(host)
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(self._limits)
            self._forget()
        self._accounts.move_to_end(name)
        if self._limits is not None and account.connections >= self._limits.connections:
            _CONNECTIONS.inc()
            SAID.warning("too many connections from one address", client=host)
            return None
        account.connections += 1
        return account

    def _forget(self) -> None:
        """Drop the address that came last longest ago, if there are too many; one with a connection is kept."""
        if len(self._accounts) > MAX_ADDRESSES:
            name, account = next(iter(self._accounts.items()))
            if account.is_idle:
                del self._accounts[name]
            else:
                self._accounts.move_to_end(name)


def network_of(host: str) -> str:
    """Name what is counted together: an IPv4 address, or an IPv6 address's /64."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
