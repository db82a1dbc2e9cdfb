"""Limits on each client of a server: request rate, concurrent requests, connections and their rate.

A client is who shows a certificate that is listed; everybody else counts by address.

A client above a limit is told when to retry (429 with Retry-After, RFC 6585 §4). Each route sets the cost of its
requests, so that one limit fits cheap and expensive requests. An IPv6 address counts by its /64 (RFC 4291 §2.5.1),
for one host can choose any address in it.
"""

import ipaddress
import logging
import math
from collections import OrderedDict
from time import monotonic
from typing import Annotated

import msgspec

from voice_dpki.bucket import Bucket
from voice_dpki.errors import PeerError
from voice_dpki.metrics import counter, counters
from voice_dpki.shell.config import Config
from voice_dpki.wire.seldom import Seldom

log = logging.getLogger(__name__)

BURST_S = 2.0
"""A client that was idle may spend this many seconds' worth of `cost_s` at once."""

MAX_COST = 200
"""Least size of a client's bucket, however small `cost_s` is."""

KNOWN_S = 3600.0
"""How long the address of a client that showed a token counts as known."""

MAX_ADDRESSES = 10_000
"""Addresses that are remembered after their last connection; each takes about 500 bytes."""

EXAMINED = 8
"""Addresses that are looked at for one to forget; more than one, so that their number falls again."""

CONNECTION_COST = 4
"""Cost of a connection; connections have their own bucket, which `cost_s` also fills."""

REFUSED = counters(
    "http_refused",
    "Requests and connections above what one client may have, by reason.",
    reason=(
        "rate",
        "concurrent",
        "connections",
        "head-late",
        "body-late",
        "malformed",
        "connection-rate",
        "full",
        "displaced",
        "unread",
        "member-share",
        "mempool-share",
    ),
)
"""Services count here what they refuse by limits of their own, the last two."""

_RATE, _CONCURRENT, _CONNECTIONS = (REFUSED.labels(name) for name in ("rate", "concurrent", "connections"))
FAILED = counter("http_failed", "Requests that are answered 500: something here is wrong.")
LATE, BODY_LATE, MALFORMED = (REFUSED.labels(name) for name in ("head-late", "body-late", "malformed"))
_KNOCKS = REFUSED.labels("connection-rate")
FULL, DISPLACED, UNREAD = (REFUSED.labels(name) for name in ("full", "displaced", "unread"))


class Limits(Config, frozen=True, kw_only=True):
    """`[limits]` of a server: the limits on one client, by its certificate where it shows one, or by address."""

    cost_s: Annotated[float, msgspec.Meta(gt=0)] = 10_000.0
    """Cost of its requests per second; 1 is a status inquiry, which takes at most 0.1 ms of processor time."""
    concurrent: Annotated[int, msgspec.Meta(ge=1)] = 256
    """Its concurrent requests."""
    connections: Annotated[int, msgspec.Meta(ge=1)] = 256
    """Its connections; the default is about a quarter of those that a server has for all clients."""


class TooManyError(PeerError):
    """A client is above one of its limits; it can retry after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


SAID = Seldom(log)


class Account:
    """What one client address uses: token buckets for requests and connections, and counts.

    Without limits, it only counts.
    """

    __slots__ = (
        "_knocks",
        "_known_until_s",
        "_limits",
        "_requests",
        "_running",
        "connections",
    )

    def __init__(self, limits: Limits | None) -> None:
        self._limits = limits
        self._requests: Bucket | None = None
        self._knocks: Bucket | None = None
        if limits:
            knocks_s = limits.cost_s / CONNECTION_COST
            self._requests = Bucket(max(limits.cost_s * BURST_S, MAX_COST), limits.cost_s)
            self._knocks = Bucket(max(knocks_s * BURST_S, 2 * limits.connections), knocks_s)
        self._known_until_s = -math.inf
        self._running = 0
        self.connections = 0

    def take(self, cost: int) -> None:
        """Pay for a request; raises TooManyError."""
        if self._requests and (wait_s := self._requests.take(monotonic(), cost)):
            _RATE.inc()
            raise TooManyError("too many requests a second from this client", math.ceil(wait_s))

    def knock(self) -> bool:
        """Pay for a connection; return whether the client may have one now. A known client always may."""
        if self._knocks is None or self.is_known:
            return True
        if self._knocks.take(monotonic()):
            _KNOCKS.inc()
            return False
        return True

    def begin(self, cost: int) -> None:
        """Pay for a request and count it among those under way, until `end`; raises TooManyError."""
        if self._limits is not None and self._running >= self._limits.concurrent:
            _CONCURRENT.inc()
            raise TooManyError("too many requests at a time from this client", 1)
        self.take(cost)
        self._running += 1

    def end(self) -> None:
        """Count a request as finished."""
        self._running -= 1

    def vouch(self) -> None:
        """Note that a client at this address has authenticated itself."""
        self._known_until_s = monotonic() + KNOWN_S

    @property
    def is_known(self) -> bool:
        """Whether a client at this address has authenticated itself within KNOWN_S."""
        return monotonic() < self._known_until_s

    @property
    def is_idle(self) -> bool:
        """Whether nothing of this address is under way, so that it may be forgotten."""
        return not (self.connections or self._running)


class Door:
    """The accounts of one server's clients, by the name of each: its certificate's hash, or its network."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def enter(self, host: str, certificate: bytes = b"") -> Account | None:
        """Count a connection; return the client's account, or None if it has too many connections.

        `certificate` is the SHA-256 of the one that the client showed, empty without one.
        """
        account = self._account(certificate.hex() or network_of(host))
        if certificate:
            account.vouch()
            self._account(network_of(host)).vouch()  # its next handshakes are begun
        if self._limits is not None and account.connections >= self._limits.connections:
            _CONNECTIONS.inc()
            SAID.warning("too many connections from one client", client=host)
            return None
        account.connections += 1
        return account

    def knock(self, host: str) -> bool:
        """Pay for a connection of this address; return whether it may have one now."""
        if self._account(network_of(host)).knock():
            return True
        SAID.warning("too many connections a second from one address", client=host)
        return False

    def _account(self, name: str) -> Account:
        """Return the account of a client, the one that was used last."""
        account = self._accounts.get(name)
        if account is None:
            self._forget()
            account = self._accounts[name] = Account(self._limits)
        self._accounts.move_to_end(name)
        return account

    def _forget(self) -> None:
        """Make room for an address: drop those with the oldest last connections, unless they are in use.

        Known ones are dropped only where none of EXAMINED may go otherwise.
        """
        spare, most = None, len(self._accounts)
        for _ in range(EXAMINED):
            if len(self._accounts) < MAX_ADDRESSES:
                return
            name, account = next(iter(self._accounts.items()))
            if account.is_idle and not account.is_known:
                del self._accounts[name]
                continue
            self._accounts.move_to_end(name)
            if account.is_idle:
                spare = name
        if spare is not None and len(self._accounts) == most:
            del self._accounts[spare]


def network_of(host: str) -> str:
    """Return the name under which an address is counted: the IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
