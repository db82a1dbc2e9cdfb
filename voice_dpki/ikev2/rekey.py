"""CREATE_CHILD_SA for rekeying: offers and answers (RFC 7296 §1.3.2, §1.3.3, §2.17, §2.18).

    IKE SA    HDR, SK{SA, Ni, KEi}                           HDR, SK{SA, Nr, KEr}
    child SA  HDR, SK{N(REKEY_SA), SA, Ni, [KEi], TSi, TSr}  HDR, SK{SA, Nr, [KEr], TSi, TSr}

If both ends rekey the same SA at once, the exchange with the lowest of the four nonces loses (§2.8.1).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

from voice_dpki.effects import Random
from voice_dpki.ikev2.child import FIRST_SPI, ChildError, narrowed, new_spi
from voice_dpki.ikev2.crypto import NONCE_BYTES, ChildKeys, IkeKeys, KeyPair
from voice_dpki.ikev2.events import Child, SaName
from voice_dpki.ikev2.failures import Failure, IkeError
from voice_dpki.ikev2.message import NO_SPI, SPI_BYTES
from voice_dpki.ikev2.payloads import (
    MAX_SELECTORS,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    Proposal,
    SecurityAssociation,
    Selector,
    TsInitiator,
    TsResponder,
    notify_named,
)
from voice_dpki.ikev2.proposals import EspSuite, IkeSuite, choose, chosen, offer
from voice_dpki.ikev2.reading import only
from voice_dpki.ikev2.registry import Group, NotifyType, Protocol

AGAIN_S, LEAST_AGAIN_S = 5.0, 0.1
"""Longest and shortest pause, in seconds, before the retry of a rekeying that failed or was postponed."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Lifetimes of an IKE SA and of a child SA, in seconds; None is unlimited. Rekeying begins before the end."""

    ike_s: float | None = None
    child_s: float | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """Times at which an SA is to be rekeyed, and at which it ends."""

    rekey_at_s: float = inf
    ends_s: float = inf

    @classmethod
    def of(cls, seconds: float | None, now_s: float, random: Random) -> "Life":
        """Begin a lifetime. Rekeying is due after a random 80 to 90 % of it, which spreads the rekeyings (§2.8)."""
        if seconds is None:
            return cls()
        return cls(now_s + seconds * (0.8 + 0.1 * random.token(1)[0] / 255), now_s + seconds)

    def again(self, now_s: float) -> "Life":
        """Return this life with an early retry, which leaves time for more: the peer may be busy (§2.25)."""
        pause_s = max(min(AGAIN_S, (self.ends_s - now_s) / 4), LEAST_AGAIN_S)
        return Life(now_s + pause_s, self.ends_s)


@dataclass(frozen=True, slots=True)
class NewIke:
    """The IKE SA that an exchange has made; `lowest` is the lower of the exchange's two nonces."""

    name: SaName
    keys: IkeKeys
    lowest: bytes


@dataclass(frozen=True, slots=True)
class IkeOffer:
    """Our request to rekey an IKE SA, with its present algorithms."""

    suite: IkeSuite
    spi: bytes
    nonce: bytes
    pair: KeyPair

    @classmethod
    def make(cls, suite: IkeSuite, random: Random) -> "IkeOffer":
        """Draw SPI, nonce and key pair."""
        return cls(suite, new_ike_spi(random), random.token(NONCE_BYTES), KeyPair(suite.group, random))

    def payloads(self) -> tuple[Payload, ...]:
        """Return SA, Ni and KEi."""
        exchange = KeyExchange(self.pair.group, self.pair.public_value)
        return offer((self.suite,), Protocol.IKE, self.spi), Nonce(self.nonce), exchange

    def complete(self, payloads: Sequence[Payload], old: IkeKeys) -> NewIke:
        """Read the answer; raises IkeError if it does not fit this offer."""
        suite, proposal = chosen(only(payloads, SecurityAssociation), (self.suite,), Protocol.IKE)
        name = SaName(self.spi, _ike_spi(proposal))
        nonces = self.nonce, only(payloads, Nonce).value
        shared = _shared(self.pair, only(payloads, KeyExchange))
        return _new_ike(name, suite, shared, nonces, old)


def answer_ike(
    payloads: Sequence[Payload], suites: Iterable[IkeSuite], random: Random, old: IkeKeys
) -> tuple[NewIke, tuple[Payload, ...]]:
    """Answer a peer's request to rekey an IKE SA; returns the new one and SA, Nr, KEr. Raises IkeError."""
    made = only(payloads, KeyExchange)
    ours = sorted(suites, key=lambda suite: suite.group != made.group)
    suite, proposal = choose(only(payloads, SecurityAssociation), ours, Protocol.IKE)
    name = SaName(_ike_spi(proposal), new_ike_spi(random))
    pair, nonces = KeyPair(suite.group, random), (only(payloads, Nonce).value, random.token(NONCE_BYTES))
    new = _new_ike(name, suite, _shared(pair, made), nonces, old)
    accepted = SecurityAssociation((replace(proposal, spi=name.spi_r),))
    return new, (accepted, Nonce(nonces[1]), KeyExchange(pair.group, pair.public_value))


def new_ike_spi(random: Random) -> bytes:
    """Draw an SPI for an IKE SA."""
    while (spi := random.token(SPI_BYTES)) == NO_SPI:
        pass
    return spi


def _new_ike(name: SaName, suite: IkeSuite, shared: bytes, nonces: tuple[bytes, bytes], old: IkeKeys) -> NewIke:
    keys = IkeKeys.derive(suite, shared, nonces, name, old_sk_d=old.sk_d)
    return NewIke(name, keys, min(nonces))


def _ike_spi(proposal: Proposal) -> bytes:
    if len(proposal.spi) != SPI_BYTES or proposal.spi == NO_SPI:
        raise IkeError(Failure.PAYLOADS, "the proposal to rekey an IKE SA names no SPI of 8 bytes")
    return proposal.spi


def _shared(pair: KeyPair, exchange: KeyExchange) -> bytes:
    if exchange.group != pair.group:
        data = int(pair.group).to_bytes(2, "big")
        raise IkeError(Failure.KE_GROUP, "the key exchange is of another group than the one chosen", data=data)
    return pair.shared(exchange.value)


@dataclass(slots=True)
class HeldChild:
    """A child SA of this end; `created` tells whether this end was the Initiator of the exchange that made it."""

    child: Child
    created: bool
    life: Life
    lowest: bytes = b""
    replaced: bool = False
    deleting: bool = False

    @property
    def inbound(self) -> bytes:
        """The SPI with which this end receives."""
        return self.child.spi_i if self.created else self.child.spi_r

    @property
    def outbound(self) -> bytes:
        """The SPI with which the peer receives."""
        return self.child.spi_r if self.created else self.child.spi_i

    @property
    def local(self) -> tuple[Selector, ...]:
        """Traffic selectors of this end."""
        return self.child.ts_i if self.created else self.child.ts_r

    @property
    def remote(self) -> tuple[Selector, ...]:
        """Traffic selectors of the peer."""
        return self.child.ts_r if self.created else self.child.ts_i


@dataclass(frozen=True, slots=True)
class NewChild:
    """The child SA that an exchange has made; `lowest` is the lower of the exchange's two nonces."""

    child: Child
    lowest: bytes


@dataclass(frozen=True, slots=True)
class ChildOffer:
    """Our request to rekey a child SA with its present cipher, preferably with a key exchange.

    The peer can ask once for another group; the offer with that group has `second` set.
    """

    old: HeldChild
    spi: bytes
    nonce: bytes
    pair: KeyPair
    second: bool = False

    @classmethod
    def make(cls, old: HeldChild, group: Group, random: Random, *, second: bool = False) -> "ChildOffer":
        """Draw SPI, nonce and key pair."""
        return cls(old, new_spi(random), random.token(NONCE_BYTES), KeyPair(group, random), second)

    @property
    def _suites(self) -> tuple[EspSuite, ...]:
        cipher, own = self.old.child.suite.cipher, self.pair.group
        return tuple(EspSuite(cipher, group) for group in (own, *(each for each in Group if each != own), None))

    def payloads(self) -> tuple[Payload, ...]:
        """Return N(REKEY_SA), SA, Ni, KEi, TSi and TSr."""
        return (
            Notify(NotifyType.REKEY_SA, protocol=Protocol.ESP, spi=self.old.inbound),
            offer(self._suites, Protocol.ESP, self.spi),
            Nonce(self.nonce),
            KeyExchange(self.pair.group, self.pair.public_value),
            TsInitiator(self.old.local),
            TsResponder(self.old.remote),
        )

    def other_group(self, payloads: Sequence[Payload]) -> Group | None:
        """Return the other group that the peer's answer asks for, None if it asks for none (§1.3)."""
        wanted = notify_named(payloads, NotifyType.INVALID_KE_PAYLOAD)
        if wanted is None or self.second:
            return None
        return next(
            (each for each in Group if each == int.from_bytes(wanted.data) and each != self.pair.group), None
        )

    def complete(self, payloads: Sequence[Payload], sk_d: bytes) -> NewChild:
        """Read the answer; raises IkeError if it does not fit this offer."""
        suite, proposal = chosen(only(payloads, SecurityAssociation), self._suites, Protocol.ESP)
        ts_i = _within(only(payloads, TsInitiator).selectors, self.old.local)
        ts_r = _within(only(payloads, TsResponder).selectors, self.old.remote)
        nonces = self.nonce, only(payloads, Nonce).value
        shared = b"" if suite.group is None else _shared(self.pair, only(payloads, KeyExchange))
        keys = ChildKeys.derive(suite.cipher, sk_d, nonces, shared)
        address = self.old.child.address
        return NewChild(Child(suite, self.spi, _esp_spi(proposal), keys, ts_i, ts_r, address), min(nonces))


def answer_child(
    payloads: Sequence[Payload], old: HeldChild, suites: Iterable[EspSuite], random: Random, sk_d: bytes
) -> tuple[NewChild, tuple[Payload, ...]]:
    """Answer a peer's request to rekey a child SA; returns the new one and SA, Nr, [KEr], TSi, TSr.

    `suites` are without key exchange; there is one if the peer offers it. Raises IkeError.
    """
    made = next((each.group for each in payloads if isinstance(each, KeyExchange)), None)
    groups = (*sorted(Group, key=lambda group: group != made), None)  # KEi's group first
    wanted = [EspSuite(suite.cipher, group) for group in groups for suite in suites]
    suite, proposal = choose(only(payloads, SecurityAssociation), wanted, Protocol.ESP)
    ts_i = _within(only(payloads, TsInitiator).selectors, old.remote)
    ts_r = _within(only(payloads, TsResponder).selectors, old.local)
    spi, nonces = new_spi(random), (only(payloads, Nonce).value, random.token(NONCE_BYTES))
    shared, exchange = b"", tuple[Payload, ...]()
    if suite.group is not None:
        pair = KeyPair(suite.group, random)
        shared = _shared(pair, only(payloads, KeyExchange))
        exchange = (KeyExchange(pair.group, pair.public_value),)
    keys = ChildKeys.derive(suite.cipher, sk_d, nonces, shared)
    child = Child(suite, _esp_spi(proposal), spi, keys, ts_i, ts_r, old.child.address)
    accepted = SecurityAssociation((replace(proposal, spi=spi),))
    answer = (accepted, Nonce(nonces[1]), *exchange, TsInitiator(ts_i), TsResponder(ts_r))
    return NewChild(child, min(nonces)), answer


def _within(offered: Sequence[Selector], allowed: Sequence[Selector]) -> tuple[Selector, ...]:
    """Return the parts of the offered selectors within the old child SA's: rekeying adds no traffic (§2.9.2)."""
    parts = tuple(dict.fromkeys(part for each in allowed for part in narrowed(offered, each)))
    if not parts:
        raise ChildError(
            NotifyType.TS_UNACCEPTABLE, "the traffic selectors have nothing in common with the old ones"
        )
    return parts[:MAX_SELECTORS]


def _esp_spi(proposal: Proposal) -> bytes:
    if len(proposal.spi) != 4 or int.from_bytes(proposal.spi, "big") < FIRST_SPI:
        raise IkeError(Failure.PAYLOADS, f"the proposal to rekey a child SA names no SPI from {FIRST_SPI} on")
    return proposal.spi
