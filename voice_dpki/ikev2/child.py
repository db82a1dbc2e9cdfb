"""The child SA negotiated in IKE_AUTH: algorithms, addresses, traffic selectors (RFC 7296 §1.2, §2.9, §2.19)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from voice_dpki.effects import Random
from voice_dpki.ikev2.crypto import ChildKeys
from voice_dpki.ikev2.events import Child
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.payloads import (
    Configuration,
    Payload,
    SecurityAssociation,
    Selector,
    TsInitiator,
    TsResponder,
)
from voice_dpki.ikev2.proposals import ESP_SUITES, EspSuite, choose, chosen, offer
from voice_dpki.ikev2.registry import CfgAttribute, CfgType, NotifyType, Protocol, TsType

FIRST_SPI = 256
"""Smallest ESP SPI; those below are reserved (RFC 4303 §2.1)."""

MAX_POOL = 1 << 20
"""Most addresses of a pool."""


class ChildError(IkeError):
    """No child SA can be made: the IKE SA is established without one, and the peer gets `notify`."""

    def __init__(self, notify: NotifyType, sentence: str) -> None:
        super().__init__(
            Failure.CHILD, sentence, step="7 IKE_AUTH", code="child-" + notify.name.lower().replace("_", "-")
        )
        self.notify = notify


def new_spi(random: Random) -> bytes:
    """Draw an ESP SPI."""
    while int.from_bytes(spi := random.token(4), "big") < FIRST_SPI:
        pass
    return spi


def _check_spi(spi: bytes) -> None:
    """Check that a peer's ESP SPI has 4 bytes and is not a reserved number; raises ChildError."""
    if len(spi) != 4 or int.from_bytes(spi, "big") < FIRST_SPI:
        sentence = f"the proposal for a child SA names no SPI of 4 bytes from {FIRST_SPI} on"
        raise ChildError(NotifyType.NO_PROPOSAL_CHOSEN, sentence)


def network_selector(network: IPv4Network) -> Selector:
    """Return the selector of a network's addresses, with all protocols and ports."""
    ends = network.network_address.packed, network.broadcast_address.packed
    return Selector(TsType.IPV4_ADDR_RANGE, *ends)


_P = TypeVar("_P")

EVERYTHING = network_selector(IPv4Network("0.0.0.0/0"))


def narrowed(offered: Iterable[Selector], allowed: Selector) -> tuple[Selector, ...]:
    """Return the parts of the offered selectors that lie within `allowed` (RFC 7296 §2.9)."""
    parts = (_intersection(selector, allowed) for selector in offered)
    return tuple(dict.fromkeys(part for part in parts if part is not None))


def _intersection(one: Selector, other: Selector) -> Selector | None:
    if one.ts_type != other.ts_type or (one.protocol and other.protocol and one.protocol != other.protocol):
        return None
    start, end = max(one.start, other.start), min(one.end, other.end)
    ports = max(one.ports[0], other.ports[0]), min(one.ports[1], other.ports[1])
    if start > end or ports[0] > ports[1]:
        return None
    return Selector(one.ts_type, start, end, one.protocol or other.protocol, ports)


class AddressPool:
    """Inner addresses for devices: all SAs of an identity share one address, which is freed with the last SA."""

    def __init__(self, network: IPv4Network) -> None:
        """Take the host addresses of `network`, at most MAX_POOL."""
        self._first = int(network.network_address) + 1
        self._size = max(min(network.num_addresses - 2, MAX_POOL), 0)
        self._used: dict[int, int] = {}
        self._homes: dict[str, int] = {}
        self._next = 0

    def take(self, identity: str) -> IPv4Address:
        """Assign an address, the same one to every SA of an identity; raises ChildError if none is left."""
        at = self._homes.get(identity)
        if at is None:
            at = self._homes[identity] = self._free()
        self._used[at] = self._used.get(at, 0) + 1
        return IPv4Address(self._first + at)

    def give_back(self, identity: str) -> None:
        """Record that one of the identity's SAs has ended; the last one frees the address."""
        at = self._homes.get(identity)
        if at is None:
            return
        self._used[at] -= 1
        if not self._used[at]:
            del self._used[at], self._homes[identity]

    def _free(self) -> int:
        if len(self._used) >= self._size:
            raise ChildError(NotifyType.INTERNAL_ADDRESS_FAILURE, "the pool has no inner address left")
        while self._next % self._size in self._used:
            self._next += 1
        at = self._next % self._size
        self._next += 1
        return at


@dataclass(frozen=True, slots=True)
class Offer:
    """The Initiator's offer for its child SA."""

    spi: bytes
    suites: tuple[EspSuite, ...]
    want_address: bool = True

    def payloads(self) -> tuple[Payload, ...]:
        """Return CP(CFG_REQUEST) if an address is wanted, SA, TSi and TSr."""
        request = Configuration(CfgType.REQUEST, ((CfgAttribute.INTERNAL_IP4_ADDRESS, b""),))
        return (
            *((request,) if self.want_address else ()),
            offer(self.suites, Protocol.ESP, self.spi),
            TsInitiator((EVERYTHING,)),
            TsResponder((EVERYTHING,)),
        )

    def complete(self, payloads: Sequence[Payload], sk_d: bytes, nonces: tuple[bytes, bytes]) -> Child:
        """Read the Responder's answer; raises IkeError if it does not fit this offer."""
        suite, proposal = chosen(_one(payloads, SecurityAssociation), self.suites, Protocol.ESP)
        ts_i, ts_r = _one(payloads, TsInitiator).selectors, _one(payloads, TsResponder).selectors
        _check_spi(proposal.spi)
        if not ts_i or not ts_r:
            raise ChildError(NotifyType.TS_UNACCEPTABLE, "the answer lacks traffic selectors")
        keys = ChildKeys.derive(suite.cipher, sk_d, nonces)
        return Child(suite, self.spi, proposal.spi, keys, ts_i, ts_r, self._address(payloads))

    def _address(self, payloads: Sequence[Payload]) -> IPv4Address | None:
        if not self.want_address:
            return None
        replies = [each for each in payloads if isinstance(each, Configuration) and each.cfg_type == CfgType.REPLY]
        value = replies[0].value(CfgAttribute.INTERNAL_IP4_ADDRESS) if replies else None
        if value is None or len(value) != 4:
            raise ChildError(NotifyType.FAILED_CP_REQUIRED, "the answer assigns no inner address")
        return IPv4Address(value)


@dataclass(frozen=True, slots=True)
class ChildAnswer:
    """The Responder's answer to an offer: the child SA, and the payloads to send."""

    child: Child
    payloads: tuple[Payload, ...]


def answer(
    payloads: Sequence[Payload],
    *,
    spi: bytes,
    suites: tuple[EspSuite, ...] = ESP_SUITES,
    inner: IPv4Network,
    address: IPv4Address | None,
    sk_d: bytes,
    nonces: tuple[bytes, bytes],
) -> ChildAnswer:
    """Answer an Initiator's offer: it may reach the network `inner`, from its assigned address if it has one.

    Raises ChildError if no child SA can be made.
    """
    try:
        suite, proposal = choose(_one(payloads, SecurityAssociation), suites, Protocol.ESP)
    except IkeError as error:
        raise ChildError(NotifyType.NO_PROPOSAL_CHOSEN, error.sentence) from None
    allowed = EVERYTHING if address is None else network_selector(IPv4Network(address))
    ts_i = narrowed(_one(payloads, TsInitiator).selectors, allowed)
    ts_r = narrowed(_one(payloads, TsResponder).selectors, network_selector(inner))
    _check_spi(proposal.spi)
    if not ts_i or not ts_r:
        raise ChildError(NotifyType.TS_UNACCEPTABLE, "the traffic selectors have nothing in common with ours")
    keys = ChildKeys.derive(suite.cipher, sk_d, nonces)
    child = Child(suite, proposal.spi, spi, keys, ts_i, ts_r, address)
    reply = () if address is None else (_reply(address),)
    accepted = SecurityAssociation((type(proposal)(proposal.number, Protocol.ESP, spi, proposal.transforms),))
    return ChildAnswer(child, (*reply, accepted, TsInitiator(ts_i), TsResponder(ts_r)))


def wants_address(payloads: Sequence[Payload]) -> bool:
    """Return whether an Initiator asks for an inner IPv4 address."""
    requests = [each for each in payloads if isinstance(each, Configuration) and each.cfg_type == CfgType.REQUEST]
    return any(request.value(CfgAttribute.INTERNAL_IP4_ADDRESS) is not None for request in requests)


def _reply(address: IPv4Address) -> Configuration:
    return Configuration(CfgType.REPLY, ((CfgAttribute.INTERNAL_IP4_ADDRESS, address.packed),))


def _one(payloads: Sequence[Payload], kind: type[_P]) -> _P:
    found = [payload for payload in payloads if isinstance(payload, kind)]
    if len(found) != 1:
        raise ChildError(NotifyType.INVALID_SYNTAX, "SA, TSi and TSr must be there once each")
    return found[0]
